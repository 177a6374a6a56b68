"""Results as tables of plain text."""

from __future__ import annotations

import re

from pipeline.evaluate.results_fidelity import Fidelity, MetricResult
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


def _overall(metrics: list[MetricResult], notes: dict[str, int]) -> str:
    lines = [["", "value", "95 % interval", "real", "synthetic", "floor", "at n", "notes"]]
    for part in metrics:
        interval = "-" if part.ci_low is None else f"{_number(part.ci_low)} to {_number(part.ci_high)}"
        floor = _number(part.floor.value if part.floor else None), f"{part.floor.n:,}" if part.floor else "-"
        sizes = f"{part.n_real:,}", f"{part.n_synthetic:,}"
        lines.append([part.metric, _number(part.value), interval, *sizes, *floor, _marks(part, notes)])
    return text_table(lines)


def _by_label(metrics: list[MetricResult], names: list[str], notes: dict[str, int]) -> str:
    found = {(part.label, part.metric): part for part in metrics}
    labels = [label for label in dict.fromkeys(part.label for part in metrics) if label]
    lines = [["", *names]]
    for label in labels:
        lines.append([label, *(_cell(found.get((label, name)), notes) for name in names)])
    return text_table(lines)


def _cell(metric: MetricResult | None, notes: dict[str, int]) -> str:
    if metric is None:
        return ""
    if metric.value is None:
        return f"- {_marks(metric, notes)}"
    half = "" if metric.ci_low is None or metric.ci_high is None else f" ±{(metric.ci_high - metric.ci_low) / 2:.2g}"
    return f"{_number(metric.value)}{half}" + (f", {_number(metric.floor.value)}" if metric.floor else "")


def _marks(metric: MetricResult, notes: dict[str, int]) -> str:
    """Returns the numbers of a metric's notes, which all metrics of an encoder share."""
    return "".join(f"[{notes.setdefault(note, len(notes) + 1)}]" for note in metric.notes)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
