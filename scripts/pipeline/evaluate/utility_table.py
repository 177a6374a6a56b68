"""The section `utility` as tables of plain text."""

from __future__ import annotations

from pipeline.evaluate.metrics.classification import DIFFERENCE, METRICS
from pipeline.evaluate.results_section import Measured, Section
from pipeline.table import text_table


def utility_table(section: Section) -> str:
    """Returns for each classifier a table of the means over labels and one of AUROC by label, with the notes below.

    Args:
        section: The section `utility`.
    """
    train, synthetic, test = (section.sides[name] for name in ("train", "synthetic", "test"))
    parts = [
        f"{train.rows:,} real training images ({train.name}), {synthetic.rows:,} synthetic ones ({synthetic.name}), "
        f"{test.rows:,} real test images ({test.name}), seed {section.seed}"
    ]
    for method in dict.fromkeys(metric.method for metric in section.metrics):
        notes: dict[str, int] = {}
        found = {one[2:4] + one[:1]: one for one in section.metrics if one.method == method}
        parts += [f"{method}, mean over labels\n{_means(found, notes)}"]
        parts += [f"{method}, AUROC by label: value ± half of the 95 % interval\n{_labels(found, notes)}"]
        parts.append("\n".join(f"[{number}] {note}" for note, number in notes.items()))
    return "\n\n".join(part for part in parts if part)


def _means(found: dict[tuple, Measured], notes: dict[str, int]) -> str:
    lines = [["", "trained on", "value", "95 % interval", "chance", "less real", "95 % interval", "notes"]]
    for metric in METRICS:
        for setting in _settings(found):
            one, difference = found[setting, None, metric], found.get((setting, None, metric + DIFFERENCE))
            chance = next((part.value for part in one.references if part.name == "chance"), None)
            compared = [_number(difference.value), _interval(difference)] if difference else ["", ""]
            size = f"{setting}, {one.n['train']:,}"
            marks = "".join(f"[{notes.setdefault(note, len(notes) + 1)}]" for note in one.notes)
            lines.append([metric, size, _number(one.value), _interval(one), _number(chance), *compared, marks])
    return text_table(lines)


def _labels(found: dict[tuple, Measured], notes: dict[str, int]) -> str:
    settings = _settings(found)
    lines = [["", "positive", *settings]]
    for label in dict.fromkeys(label for _, label, _ in found if label):
        cells = []
        for setting in settings:
            one = found[setting, label, METRICS[0]]
            half = "" if one.ci_low is None or one.ci_high is None else f" ±{(one.ci_high - one.ci_low) / 2:.2f}"
            marks = "" if half else "".join(f"[{notes.setdefault(note, len(notes) + 1)}]" for note in one.notes)
            cells.append(f"{_number(one.value)}{half}{marks}")
        lines.append([label, f"{found[settings[0], label, METRICS[0]].n['positive']:,}", *cells])
    return text_table(lines)


def _settings(found: dict[tuple, Measured]) -> list[str]:
    return [*dict.fromkeys(setting for setting, *_ in found)]


def _interval(one: Measured) -> str:
    return "-" if one.ci_low is None or one.ci_high is None else f"{one.ci_low:.3f} to {one.ci_high:.3f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
