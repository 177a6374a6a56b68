"""The leaderboard of the page: a row for each of the results, a column for each of a few metrics."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pipeline import page
from pipeline.evaluate.charts import format_interval, format_number, interval_width
from pipeline.evaluate.glossary import direction_of, meaning_of
from pipeline.evaluate.meanings import HIGHER
from pipeline.evaluate.page_tables import rank_texts
from pipeline.evaluate.published import Published
from pipeline.evaluate.results_section import Measured
from pipeline.evaluate.side_by_side import (
    FIDELITY,
    Column,
    Key,
    Value,
    are_comparable,
    encoders_of,
    methods_of,
)

LEAST = 3  # results
# Metrics that have a column, if any of the results has them: section, name, and setting.
HEADLINES: tuple[tuple[str, str, str | None], ...] = (
    (FIDELITY, "fd", None),
    (FIDELITY, "kid", None),
    (FIDELITY, "coverage", None),
    (FIDELITY, "alignment", None),
    ("privacy", "nearer_to_training", None),
    ("privacy", "membership_auroc", None),
    ("privacy", "reid_score_auc", None),
    ("utility", "auroc_difference", "synthetic"),
    ("utility", "auroc_difference", "augmented"),
    ("reports", "f1_radgraph_difference", "synthetic"),
    ("reports", "rouge_l_difference", "synthetic"),
)
ABOUT = (
    "Value, 95 % interval, and rank. Rank 1 to 3: the intervals allow each of these places; only intervals that do not "
    "overlap put one result before another. Above, below or holds 0.5: where the interval lies, seen from the value "
    "named in the head. No rank where values do not compare, or where the metric has no better and worse. These are a "
    "few of the metrics: the tables and sections below have all."
)


def leaderboard_parts(columns: Sequence[Column], models: Published | None) -> list[str]:
    """Returns the leaderboard, as HTML; none for fewer than three results without published values.

    Args:
        columns: The results.
        models: The published values of fidelity, if they are shown.
    """
    keys = _keys(columns)
    if not keys or (len(columns) < LEAST and not models):
        return []
    lines = [[column.value(key) for key in keys] for column in columns]
    ranks = [rank_texts(columns, key) for key in keys]
    rows = [
        page.BoardRow(column.head, [_cell(columns, column, key, ranks[at][number]) for at, key in enumerate(keys)])
        for number, column in enumerate(columns)
    ]
    values = [[found.value if found else None for found in line] for line in lines]
    for number, name in enumerate(models.names if models else []):
        cells = [_published(models, key)[number] for key in keys] if models else []
        rows.append(page.BoardRow(name, cells, is_muted=True))
        values.append([float(cell) if cell else None for cell in cells])
    orders = [_order([line[at] for line in values], key) for at, key in enumerate(keys)]
    heads = [(_title(key), _note(key, columns)) for key in keys]
    board = page.board("Leaderboard", "Sort by", heads, rows, orders)
    return [page.heading("Leaderboard"), page.paragraph(ABOUT, muted=True), board]


def _keys(columns: Sequence[Column]) -> list[Key]:
    """Returns a place for each of `HEADLINES`: of the method that most of the results have."""
    found = []
    for section, metric, setting in HEADLINES:
        methods = encoders_of(columns) if section == FIDELITY else methods_of(columns, section)
        keys = [Key(metric, method, None, setting, section) for method in methods]
        counts = {key: sum(column.value(key) is not None for column in columns) for key in keys}
        if counts and max(counts.values()):
            found.append(max(counts, key=lambda key: counts[key]))
    return found


def _title(key: Key) -> str:
    return meaning_of(key.metric).title + (f", {key.setting}" if key.setting else "")


def _note(key: Key, columns: Sequence[Column]) -> str:
    """Returns what else belongs to the head of a column."""
    better = direction_of(key.metric)
    found = next(value for column in columns if (value := column.value(key)))
    reference = _fixed(found)
    compared = f"{reference[0]}: {reference[1]:g}" if reference else ""
    return "; ".join(text for text in (key.method, better, compared) if text)


def _cell(columns: Sequence[Column], column: Column, key: Key, rank: str) -> str:
    found = column.value(key)
    if found is None:
        return "-"
    if found.value is None:
        return "not measured"
    others = [other for other in columns if other is not column and (two := other.value(key)) and two.value is not None]
    texts = [format_number(found.value, interval_width(found.ci_low, found.ci_high))]
    texts += [format_interval(found.ci_low, found.ci_high), _against(found), rank]
    if others and not rank and not any(are_comparable(column, other, key) for other in others):
        texts.append("does not compare")
    return "\n".join(text for text in texts if text)


def _fixed(found: Value) -> tuple[str, float] | None:
    """Returns the first reference that has no interval, such as chance."""
    references = found.references if isinstance(found, Measured) else ()
    return next(((one.name, one.value) for one in references if one.ci_low is None), None)


def _against(found: Value) -> str:
    """Returns where the interval lies, seen from a fixed reference."""
    fixed = _fixed(found)
    if not fixed or found.ci_low is None or found.ci_high is None:
        return ""
    where = "above" if found.ci_low > fixed[1] else "below" if found.ci_high < fixed[1] else "holds"
    return f"{where} {fixed[1]:g}"


def _published(models: Published, key: Key) -> list[str]:
    found = models.overall(key.metric, key.method) if key.section == FIDELITY else []
    return found or [""] * len(models.names)


def _order(values: Sequence[float | None], key: Key) -> list[int]:
    """Returns the place of each row: the best first, without a direction the lowest; rows without a value last."""
    sign = -1 if direction_of(key.metric) == HIGHER else 1
    order = sorted(range(len(values)), key=lambda row: math.inf if (value := values[row]) is None else sign * value)
    return [order.index(row) for row in range(len(values))]
