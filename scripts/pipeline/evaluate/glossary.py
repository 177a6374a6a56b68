"""What each metric of `results.json` tells: the meanings of all sections, and names that belong to another metric."""

from __future__ import annotations

from pipeline.evaluate import meanings, paired_meanings, privacy_meanings, report_meanings, utility_meanings
from pipeline.evaluate.meanings import HIGHER, LOWER, Meaning
from pipeline.evaluate.metrics.classification import DIFFERENCE

GLOSSARY: dict[str, Meaning] = {
    **meanings.MEANINGS,
    **privacy_meanings.MEANINGS,
    **paired_meanings.MEANINGS,
    **utility_meanings.MEANINGS,
    **report_meanings.MEANINGS,
}
BASELINES = {"_real": "on real images", "_shuffled": "shuffled prompts", "_shuffled_real": "real, shuffled prompts"}


def meaning_of(metric: str) -> Meaning:
    """Returns what a metric tells; of an unknown one, its name alone.

    Example:
        >>> meaning_of("novel_score").title, meaning_of("auroc_difference").title
        ('novel_score', 'AUROC of a classifier, less that of real images')
    """
    if metric in GLOSSARY:
        return GLOSSARY[metric]
    base = metric.removesuffix(DIFFERENCE)
    if base != metric and base in GLOSSARY:
        usual = GLOSSARY[base]
        return Meaning(
            f"{usual.title}, less that of real images", usual.better, usual.sentence, (0,), usual.depends_on_n
        )
    return Meaning(metric, "", "")


def direction_of(metric: str) -> str:
    """Returns `LOWER` or `HIGHER`, which of a difference is that of its metric; nothing for a metric without one.

    Example:
        >>> direction_of("fd"), direction_of("f1_difference"), direction_of("vendi")
        ('lower is better', 'higher is better', '')
    """
    found = {meaning_of(name).better for name in (metric, metric.removesuffix(DIFFERENCE))}
    return next((better for better in (LOWER, HIGHER) if better in found), "")


def split_baseline(metric: str) -> tuple[str, str]:
    """Splits the name of a metric into that of the metric it belongs to, and what kind of baseline it is.

    Example:
        >>> split_baseline("label_auroc_real"), split_baseline("fd")
        (('label_auroc', 'on real images'), ('fd', ''))
    """
    for suffix, kind in sorted(BASELINES.items(), key=lambda item: -len(item[0])):
        base = metric.removesuffix(suffix)
        if base in GLOSSARY and base != metric:
            return base, kind
    return metric, ""


def glossary_order(metrics: dict[str, None]) -> list[str]:
    """Returns names of metrics: those of `GLOSSARY` in its order, then the others."""
    return [*(name for name in GLOSSARY if name in metrics), *(name for name in metrics if name not in GLOSSARY)]
