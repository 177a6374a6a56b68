"""Sections `privacy`, `utility` and `reports` on the page: a card for each metric, and charts of the labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pipeline import page
from pipeline.evaluate.charts import SERIES, Group, Line, Mark, chart, format_number
from pipeline.evaluate.glossary import meaning_of
from pipeline.evaluate.metrics.classification import DIFFERENCE
from pipeline.evaluate.page_tables import label_table, noted, reference_text, refusal, sizes_text
from pipeline.evaluate.results_section import Measured, Reference
from pipeline.evaluate.side_by_side import Column, Key, keys_of

FEW = 50  # of what is counted: fewer are marked
NO_SAMPLES = ("seeds",)  # what `n` counts that is no sample
OPEN_AT_FIRST = ("auroc",)  # charts of labels; a click opens the others
MANY_NOTES = 3  # more than these are hidden until a click
NOT_SHOWN_TWICE = "real"  # a reference that is a line of the chart already: the setting of this name


class Shown(NamedTuple):
    """A value of a chart.

    Attributes:
        name: What its line is called.
        who: What it is called in a note.
        found: The value.
        series: Its colour.
    """

    name: str
    who: str
    found: Measured
    series: int


def method_parts(columns: Sequence[Column], section: str, method: str, left_out: Sequence[str] = ()) -> list[str]:
    """Returns the metrics of a method, as HTML: cards of all images, charts of the labels.

    Args:
        columns: The results.
        section: Name of the section.
        method: The method.
        left_out: Metrics that are shown elsewhere.
    """
    keys = [key for key in keys_of(columns, section, method) if key.metric not in left_out]
    cards = [metric_card(columns, keys, metric) for metric in _metrics([key for key in keys if key.label is None])]
    title = f"{section.capitalize()}, {method}"
    charts = [_label_chart(columns, keys, metric) for metric in dict.fromkeys(key.metric for key in keys if key.label)]
    return [
        *([page.heading(title), page.block(cards, "cards")] if cards else []),
        *([page.heading(f"{title}, by label"), *charts] if charts else []),
    ]


def metric_card(columns: Sequence[Column], keys: Sequence[Key], metric: str, kind: str = "card") -> str:
    """Returns the card of a metric of all images, with its difference to setting `real` below.

    Args:
        columns: The results.
        keys: Where a method has values.
        metric: The metric.
        kind: Class of the card, for the style.
    """
    meaning = meaning_of(metric)
    parts = [page.subheading(meaning.title, meaning.better), page.paragraph(meaning.sentence, muted=True)]
    parts += _charted(columns, keys, metric)
    difference = f"{metric}{DIFFERENCE}"
    if any(key.metric == difference and key.label is None for key in keys):
        about = meaning_of(difference)
        parts.append(page.small_heading(", ".join(text for text in (about.title, about.better) if text)))
        parts += [page.paragraph(about.sentence, muted=True), *_charted(columns, keys, difference)]
    return page.block(parts, kind)


def shown_of(columns: Sequence[Column], keys: Sequence[Key]) -> list[Shown]:
    """Returns the values of places, for each place those of all columns.

    Args:
        columns: The results.
        keys: The places; their order is that of the lines.
    """
    settings = [*dict.fromkeys(key.setting for key in keys)]
    found = []
    for key in keys:
        for number, column in enumerate(columns):
            measured = column.measured.get(key)
            if measured:
                alone = len(columns) == 1
                name = (key.setting or column.head) if alone else column.head
                who = " ".join(text for text in (column.letter, key.setting) if text)
                found.append(Shown(name, who, measured, _colour(settings, key.setting) if alone else number))
    return found


def _colour(settings: Sequence[str | None], setting: str | None) -> int:
    known = ("real", "synthetic", "mixed", "augmented")  # the same colour in each chart, whichever were asked for
    return known.index(setting) if setting in known else settings.index(setting)


def _metrics(keys: Sequence[Key]) -> list[str]:
    """Returns the metrics that have cards: a difference is on that of its metric."""
    names = dict.fromkeys(key.metric for key in keys)
    return [
        name for name in names if name.removesuffix(DIFFERENCE) == name or name.removesuffix(DIFFERENCE) not in names
    ]


def _charted(columns: Sequence[Column], keys: Sequence[Key], metric: str) -> list[str]:
    """Returns the chart of a metric of all images, and its notes."""
    mine = [key for key in keys if key.metric == metric and key.label is None]
    shown = shown_of(columns, mine)
    there = [one for one in shown if one.found.value is not None]
    baselines = _baselines(there)
    groups: list[Group] = []
    if len(columns) > 1 and any(key.setting for key in mine):
        for setting in dict.fromkeys(one.found.setting for one in there):
            lines = [_line(one, baselines) for one in there if one.found.setting == setting]
            groups.append(Group(setting or "", lines))
    elif there:
        groups.append(Group("", [_line(one, baselines) for one in there]))
    if baselines:
        groups.append(Group("compared with" if len(groups) > 1 else "", _baseline_lines(baselines, there)))
    meaning, notes = meaning_of(metric), dict[str, list[str]]()
    for one in shown:
        for note in one.found.notes if one.found.value is not None else [refusal(one.found)]:
            notes.setdefault(note, []).append(one.who)
    texts = [noted(note, names, len(shown)) for note, names in notes.items()]
    refused = [text for text in texts if text.startswith("not measured: ")]
    others = [text for text in texts if text not in refused]
    title = f"{meaning.title}, {mine[0].method}"
    return [
        chart(title, groups, meaning.include) if groups else "",
        page.bullets(refused),
        page.bullets(others) if len(others) <= MANY_NOTES else page.details("Notes", [page.bullets(others)]),
    ]


def _line(one: Shown, baselines: dict[Reference, list[str]], name: str = "") -> Line:
    found = one.found
    assert found.value is not None
    marks = [
        Mark(reference.value, reference.ci_low, reference.ci_high, reference_text(reference))
        for reference in found.references
        if reference not in baselines and reference.name != NOT_SHOWN_TWICE
    ]
    return Line(
        name or one.name,
        [sizes_text(found)],
        found.value,
        found.ci_low,
        found.ci_high,
        marks,
        one.series,
        caution=_caution(found),
    )


def _caution(found: Measured) -> str:
    few = {name: size for name, size in found.n.items() if size < FEW and name not in NO_SAMPLES}
    return f"only {', '.join(f'{size:,} {name}' for name, size in few.items())}" if few else ""


def _baselines(shown: Sequence[Shown]) -> dict[Reference, list[str]]:
    """Returns the references that are lines of their own, because they have intervals, and whose they are."""
    found: dict[Reference, list[str]] = {}
    for one in shown:
        for reference in one.found.references:
            if reference.ci_low is not None and reference.name != NOT_SHOWN_TWICE:
                found.setdefault(reference, []).append(one.who)
    return found


def _baseline_lines(baselines: dict[Reference, list[str]], shown: Sequence[Shown]) -> list[Line]:
    lines = []
    for reference, whose in baselines.items():
        named = "" if len(whose) == len(shown) else ", ".join(name for name in whose if name)
        name = f"{named}: {reference.name}" if named else reference.name
        lines.append(
            Line(name, (), reference.value, reference.ci_low, reference.ci_high, series=None, is_baseline=True)
        )
    return lines


def _label_chart(columns: Sequence[Column], keys: Sequence[Key], metric: str) -> str:
    labelled = [key for key in keys if key.metric == metric and key.label]
    groups, notes, count = [], dict[str, list[str]](), 0
    missing: dict[str, list[str]] = {}
    for label in dict.fromkeys(key.label or "" for key in labelled):
        shown = shown_of(columns, [key for key in labelled if key.label == label])
        count += len(shown)
        reasons: dict[str, list[str]] = {}
        for one in shown:
            who = f"{label} {one.who}".strip()
            if one.found.value is None:
                reasons.setdefault(f"{refusal(one.found)}; {sizes_text(one.found)}", []).append(who)
            for note in one.found.notes if one.found.value is not None else ():
                notes.setdefault(note, []).append(who)
        for reason, whose in reasons.items():
            missing.setdefault(reason, []).extend([label] if len(whose) == len(shown) else whose)
        there = [one for one in shown if one.found.value is not None]
        if there:
            groups.append(Group(label, [_line(one, {}, one.who if len(columns) > 1 else "") for one in there]))
    meaning = meaning_of(metric)
    title = f"{meaning.title}, by label"
    drawn = chart(title, groups, meaning.include, wide=True) if groups else ""
    parts = [
        page.paragraph(meaning.sentence, muted=True),
        drawn if len(columns) <= SERIES else label_table(columns, labelled, title),
        page.bullets([f"{', '.join(names)}: {reason}" for reason, names in missing.items()]),
    ]
    if notes:
        parts.append(page.details("Notes", [page.bullets([noted(note, on, count) for note, on in notes.items()])]))
    summary = ", ".join(text for text in (meaning.title, labelled[0].method, meaning.better) if text)
    return page.details(summary, parts, is_open=metric in OPEN_AT_FIRST)


def percent(value: float, low: float | None, high: float | None) -> str:
    """Returns a share in percent, with its interval.

    Example:
        >>> percent(0.512, 0.508, 0.516)
        '51.20 % (50.80 to 51.60 %)'
    """
    if low is None or high is None:
        return f"{format_number(100 * value)} %"
    width = 100 * (high - low)
    ends = f"{format_number(100 * low, width)} to {format_number(100 * high, width)}"
    return f"{format_number(100 * value, width)} % ({ends} %)"
