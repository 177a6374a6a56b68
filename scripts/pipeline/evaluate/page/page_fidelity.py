"""Section `fidelity` on the page: metrics of all images, and of each label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pipeline import page
from pipeline.evaluate.metrics.floor import Floor
from pipeline.evaluate.page.charts import SERIES, Group, Line, Mark, chart, format_number
from pipeline.evaluate.page.glossary import meaning_of, split_baseline
from pipeline.evaluate.page.page_tables import label_table, noted, refusal, sizes_text, value_text
from pipeline.evaluate.page.published import Published
from pipeline.evaluate.page.side_by_side import (
    FIDELITY,
    Column,
    Key,
    baselines_of,
    encoders_of,
    keys_of,
    labels_of,
    metrics_of,
)
from pipeline.evaluate.results.results_fidelity import MetricResult
from synthchex_75k import LABELS

OPEN_AT_FIRST = ("fd", "kid", "coverage", "label_auroc")  # charts of labels; a click opens the others


def fidelity_parts(columns: Sequence[Column], models: Published | None) -> list[str]:
    """Returns the section, as HTML.

    Args:
        columns: The results.
        models: The published values, if they are shown.
    """
    return [
        *(part for encoder in encoders_of(columns) for part in _overall(columns, encoder)),
        *(part for encoder in encoders_of(columns) for part in _by_label(columns, encoder)),
        *(_published_labels(columns, models) if models else []),
    ]


def _overall(columns: Sequence[Column], encoder: str) -> list[str]:
    cards = [_card(columns, metric, encoder) for metric in metrics_of(columns, encoder)]
    cards = [card for card in cards if card]
    return [page.heading(f"Fidelity, {encoder}", "metrics of all images"), page.block(cards, "cards")] if cards else []


def _card(columns: Sequence[Column], metric: str, encoder: str) -> str:
    entries = _entries(columns, metric, encoder, None)
    if not entries:
        return ""
    meaning = meaning_of(metric)
    notes: dict[str, list[str]] = {}
    for entry in entries:
        for note in entry.found.notes if entry.found.value is not None else [refusal(entry.found)]:
            notes.setdefault(note, []).append(entry.name)
    lines = [_line(entry) for entry in entries if entry.found.value is not None]
    parts = [
        page.subheading(meaning.title, meaning.better),
        page.paragraph(meaning.sentence, muted=True),
        chart(f"{meaning.title}, {encoder}", [Group("", lines)], meaning.include) if lines else "",
        page.bullets([noted(note, names, len(entries)) for note, names in notes.items()]),
    ]
    return page.block(parts, "card")


class _Entry(NamedTuple):
    """What is one line of a chart: a metric of a column, or a baseline.

    Attributes:
        name: What it is called on the chart.
        short: What it is called in a list that names the label first.
        found: The value.
        series: Number of the column; None for a baseline that all columns share.
        is_baseline: Whether it is a baseline.
    """

    name: str
    short: str
    found: MetricResult
    series: int | None
    is_baseline: bool


def _entries(columns: Sequence[Column], metric: str, encoder: str, label: str | None) -> list[_Entry]:
    """Returns a metric of all columns, then its baselines; a baseline that all columns share is there once."""
    entries = []
    for name in (metric, *baselines_of(columns, metric, encoder)):
        kind = split_baseline(name)[1]
        found = {n: column.metrics.get(Key(name, encoder, label)) for n, column in enumerate(columns)}
        if kind and len({*found.values()}) == 1 and (shared := found[0]):
            entries.append(_Entry(kind, kind, shared, None, True))
            continue
        for number, one in found.items():
            if one:
                letter = columns[number].letter
                title = ": ".join(text for text in (letter, kind) if text) if kind else columns[number].head
                short = " ".join(text for text in (letter, kind) if text)
                entries.append(_Entry(title, short, one, number, bool(kind)))
    return entries


def _line(entry: _Entry, name: str = "") -> Line:
    found, floor = entry.found, entry.found.floor
    assert found.value is not None
    return Line(
        name or entry.name,
        [text for text in (sizes_text(found), _floor_text(floor)) if text],
        found.value,
        found.ci_low,
        found.ci_high,
        [Mark(floor.value, *_band(floor))] if floor and floor.value is not None else [],
        entry.series,
        entry.is_baseline,
    )


def _band(floor: Floor) -> tuple[float | None, float | None]:
    if floor.value is None or floor.sd is None:
        return None, None
    return floor.value - floor.sd, floor.value + floor.sd


def _floor_text(floor: Floor | None) -> str:
    if not floor:
        return ""
    if floor.value is None:
        return f"no floor at n {floor.n:,}"
    spread = f" ± {format_number(floor.sd, floor.sd)}" if floor.sd is not None else ""
    value = format_number(floor.value, floor.sd)
    return f"floor {value}{spread}, n {floor.n:,}"


def _by_label(columns: Sequence[Column], encoder: str) -> list[str]:
    charts = [_label_chart(columns, metric, encoder) for metric in metrics_of(columns, encoder)]
    charts = [found for found in charts if found]
    about = (
        "A label with few images has a wide interval and a high floor: compare a value with its own floor, and labels "
        "with one another only where their sample sizes are equal."
    )
    return (
        [page.heading(f"Fidelity, {encoder}, by label"), page.paragraph(about, muted=True), *charts] if charts else []
    )


def _label_chart(columns: Sequence[Column], metric: str, encoder: str) -> str:
    by_label = {label: _entries(columns, metric, encoder, label) for label in labels_of(columns)}
    count = sum(map(len, by_label.values()))
    if not count:
        return ""
    meaning, groups = meaning_of(metric), []
    notes, missing = dict[str, list[str]](), dict[str, list[str]]()
    for label, entries in by_label.items():
        for column in columns:
            if column.results.fidelity and Key(metric, encoder, label) not in column.metrics:
                missing.setdefault("not measured: no result is recorded", []).append(f"{label} {column.letter}".strip())
        for entry in entries:
            who = f"{label} {entry.short}".strip()
            if entry.found.value is None:
                missing.setdefault(f"{refusal(entry.found)}; {sizes_text(entry.found)}", []).append(who)
            for note in entry.found.notes if entry.found.value is not None else ():
                notes.setdefault(note, []).append(who)
        shown = [entry for entry in entries if entry.found.value is not None]
        alone = len(columns) == len(entries) == 1
        if shown:
            groups.append(Group("" if alone else label, [_line(entry, label if alone else "") for entry in shown]))
    title = f"{meaning.title}, {encoder}, by label"
    drawn = chart(title, groups, meaning.include, wide=True) if groups else ""
    names = (metric, *baselines_of(columns, metric, encoder))
    keys = [key for key in keys_of(columns, FIDELITY, encoder) if key.metric in names and key.label]
    parts = [
        page.paragraph(meaning.sentence, muted=True),
        drawn if len(columns) <= SERIES else label_table(columns, keys, title),
        page.bullets([f"{', '.join(labels)}: {reason}" for reason, labels in missing.items()]),
    ]
    if notes:
        parts.append(page.details("Notes", [page.bullets([noted(note, on, count) for note, on in notes.items()])]))
    summary = ", ".join(text for text in (meaning.title, encoder, meaning.better) if text)
    return page.details(summary, parts, is_open=metric in OPEN_AT_FIRST)


def _published_labels(columns: Sequence[Column], models: Published) -> list[str]:
    title, encoder = "FD by label, beside the published values", models.encoders["fd"]
    lines = {
        label: [
            (cell, 0.0)
            for cell in (
                *(value_text(column.metrics.get(Key("fd", encoder, label))) for column in columns),
                *models.fd_of_label(label),
            )
        ]
        for label in LABELS
    }
    heads = ["", *(column.head for column in columns), *models.heads_of_labels()]
    warnings = page.block([page.bullets(models.warnings)], "warning")
    return [page.heading(title, encoder), warnings, page.table(title, heads, lines)]
