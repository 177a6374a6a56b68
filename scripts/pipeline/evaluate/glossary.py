"""What each metric of `results.json` tells: the meanings of all sections, and names that belong to another metric."""

from __future__ import annotations

from pipeline.evaluate.meanings import MEANINGS, Meaning
from pipeline.evaluate.paired_meanings import MEANINGS as PAIRED_MEANINGS

GLOSSARY: dict[str, Meaning] = {**MEANINGS, **PAIRED_MEANINGS}
BASELINES = {"_real": "on real images", "_shuffled": "shuffled prompts", "_shuffled_real": "real, shuffled prompts"}
DIFFERENCE = "_difference"


def meaning_of(metric: str) -> Meaning:
    """Returns what a metric tells; of an unknown one, its name alone.

    Example:
        >>> meaning_of("novel_score").title, meaning_of("kid_difference").title
        ('novel_score', 'KID (kernel distance): difference to real')
    """
    if metric in GLOSSARY:
        return GLOSSARY[metric]
    base = metric.removesuffix(DIFFERENCE)
    if base != metric and base in GLOSSARY:
        usual = GLOSSARY[base]
        return Meaning(f"{usual.title}: difference to real", usual.better, usual.sentence, (0,), usual.depends_on_n)
    return Meaning(metric, "", "")


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
