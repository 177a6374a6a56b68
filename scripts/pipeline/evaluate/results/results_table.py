"""Results as tables of plain text."""

from __future__ import annotations

import re

from pipeline.evaluate.results.results_fidelity import Fidelity, MetricResult
from pipeline.evaluate.results.results_section import Measured, Reference, Section
from pipeline.table import text_table

SHOWN_PER_LABEL = 4  # metrics beside each other in a table of labels
LEFT_OUT = re.compile(r"kid_subsets|alignment_shuffled|retrieval")  # of the tables of labels; the file has them


def results_table(fidelity: Fidelity) -> str:
    """Returns a table of all rows and tables of the labels for each encoder, with the notes below.

    Args:
        fidelity: The section `fidelity`.
    """
    sides = {"real": fidelity.real, "synthetic": fidelity.synthetic}
    about = " and ".join(f"{side.rows:,} {kind} images ({side.name})" for kind, side in sides.items())
    parts = [f"{about}, protocol {fidelity.protocol}, seed {fidelity.seed}"]
    for encoder in fidelity.real.encoders:
        notes: dict[str, int] = {}
        metrics = [metric for metric in fidelity.metrics if metric.encoder == encoder]
        parts.append(f"{encoder}, all images\n{_overall([part for part in metrics if part.label is None], notes)}")
        labelled = [metric for metric in metrics if metric.label is not None]
        names = [name for name in dict.fromkeys(metric.metric for metric in labelled) if not LEFT_OUT.match(name)]
        for start in range(0, len(names), SHOWN_PER_LABEL):
            shown = names[start : start + SHOWN_PER_LABEL]
            table = _by_label([metric for metric in labelled if metric.metric in shown], shown, notes)
            parts.append(f"{encoder}, by label: value ± half of the 95 % interval, floor\n{table}")
        parts.append("\n".join(f"[{number}] {note}" for note, number in notes.items()))
    return "\n\n".join(part for part in parts if part)


def section_table(section: Section) -> str:
    """Returns a table of all images for each method, tables of the labels for each metric, and the notes below.

    Args:
        section: A section other than `fidelity`.
    """
    sides = [f"{name}: {side.rows:,} images ({side.name})" for name, side in section.sides.items()]
    parts = [", ".join([*sides, f"seed {section.seed}"])]
    for method in dict.fromkeys(metric.method for metric in section.metrics):
        notes: dict[str, int] = {}
        metrics = [metric for metric in section.metrics if metric.method == method]
        overall = [metric for metric in metrics if metric.label is None]
        parts.append(f"{method}\n{_measured(overall, notes)}" if overall else "")
        labelled = [metric for metric in metrics if metric.label is not None]
        for name in dict.fromkeys(metric.metric for metric in labelled):
            table = _settings([metric for metric in labelled if metric.metric == name], notes)
            parts.append(f"{name} by label, {method}: value ± half of the 95 % interval\n{table}")
        parts.append("\n".join(f"[{number}] {note}" for note, number in notes.items()))
    return "\n\n".join(part for part in parts if part)


def _measured(metrics: list[Measured], notes: dict[str, int]) -> str:
    has_settings = any(metric.setting for metric in metrics)
    lines = [["", *(["trained on"] if has_settings else []), "value", "95 % interval", "n", "compared with", "notes"]]
    for part in metrics:
        setting = [part.setting or ""] if has_settings else []
        sizes = ", ".join(f"{size:,} {of}" for of, size in part.n.items())
        compared = "; ".join(map(_reference, part.references))
        value = _number(part.value), _interval(part.ci_low, part.ci_high)
        lines.append([part.metric, *setting, *value, sizes, compared, _marks(part, notes)])
    return text_table(lines)


def _settings(metrics: list[Measured], notes: dict[str, int]) -> str:
    """Returns a metric of labels, with a column for each setting."""
    found = {(part.label, part.setting): part for part in metrics}
    settings = [*dict.fromkeys(part.setting for part in metrics)]
    lines = [["", *(setting or "" for setting in settings)]]
    for label in dict.fromkeys(part.label for part in metrics):
        lines.append([label or "", *(_cell(found.get((label, setting)), notes) for setting in settings)])
    return text_table(lines)


def _reference(reference: Reference) -> str:
    interval = _interval(reference.ci_low, reference.ci_high)
    return f"{_number(reference.value)} {reference.name}" + (f" ({interval})" if interval != "-" else "")


def _interval(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"{_number(low)} to {_number(high)}"


def _overall(metrics: list[MetricResult], notes: dict[str, int]) -> str:
    lines = [["", "value", "95 % interval", "real", "synthetic", "floor", "at n", "notes"]]
    for part in metrics:
        floor = _number(part.floor.value if part.floor else None), f"{part.floor.n:,}" if part.floor else "-"
        sizes = f"{part.n_real:,}", f"{part.n_synthetic:,}"
        value = _number(part.value), _interval(part.ci_low, part.ci_high)
        lines.append([part.metric, *value, *sizes, *floor, _marks(part, notes)])
    return text_table(lines)


def _by_label(metrics: list[MetricResult], names: list[str], notes: dict[str, int]) -> str:
    found = {(part.label, part.metric): part for part in metrics}
    labels = [label for label in dict.fromkeys(part.label for part in metrics) if label]
    lines = [["", *names]]
    for label in labels:
        lines.append([label, *(_cell(found.get((label, name)), notes) for name in names)])
    return text_table(lines)


def _cell(metric: MetricResult | Measured | None, notes: dict[str, int]) -> str:
    if metric is None:
        return ""
    if metric.value is None:
        return f"- {_marks(metric, notes)}"
    half = "" if metric.ci_low is None or metric.ci_high is None else f" ±{(metric.ci_high - metric.ci_low) / 2:.2g}"
    floor = metric.floor if isinstance(metric, MetricResult) else None
    return f"{_number(metric.value)}{half}" + (f", {_number(floor.value)}" if floor else "")


def _marks(metric: MetricResult | Measured, notes: dict[str, int]) -> str:
    """Returns the numbers of a metric's notes, which all metrics of an encoder or a method share."""
    return "".join(f"[{notes.setdefault(note, len(notes) + 1)}]" for note in metric.notes)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
