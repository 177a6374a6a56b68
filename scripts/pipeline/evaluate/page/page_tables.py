"""Tables of the page: all results side by side, and every number."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline import page
from pipeline.evaluate.metrics.floor import Floor
from pipeline.evaluate.page.charts import SERIES, format_interval, format_number, interval_width
from pipeline.evaluate.page.glossary import meaning_of, split_baseline
from pipeline.evaluate.page.published import Published
from pipeline.evaluate.page.side_by_side import (
    FIDELITY,
    NAMES,
    Column,
    Key,
    Value,
    best_of,
    differing_from,
    encoders_of,
    keys_of,
    methods_of,
    ranks_of,
    sections_shown,
    sizes_of,
)
from pipeline.evaluate.results.results_fidelity import MetricResult
from pipeline.evaluate.results.results_section import Measured, Reference

RANKS = "Rank 1 to 3: the intervals allow each of these places."


def side_by_side_parts(columns: Sequence[Column], models: Published | None) -> list[str]:
    """Returns tables with a column for each of the results; none for a single one without published values.

    Args:
        columns: The results.
        models: The published values of fidelity, if they are shown.
    """
    if len(columns) == 1 and not models:
        return []
    differing = "≠ B: the 95 % intervals of this value and of B do not overlap." if len(columns) <= SERIES else RANKS
    about = (
        f"Value, 95 % interval, sample sizes. {differing} Best: better than each of the others, by such intervals. "
        "Overlapping intervals do not show that values are equal."
    )
    unmarked = "Values of this protocol without intervals are never marked as different or best."
    parts = [page.heading("Side by side", "metrics of all images"), page.paragraph(about, muted=True)]
    if not any(found.ci_low is not None for column in columns for found in column.metrics.values()):
        parts.append(page.paragraph(unmarked, muted=True) if encoders_of(columns) else "")
    for section, method in _methods(columns):
        keys = [key for key in keys_of(columns, section, method) if key.label is None]
        published = models if section == FIDELITY else None
        lines = {_row_name(key, columns): _cells(columns, key, published) for key in keys}
        heads = ["", *(column.head for column in columns), *(published.heads(method) if published else [])]
        title = f"{section.capitalize()}, {method}"
        parts += [page.subheading(title), page.table(title, heads, lines)] if lines else []
    return parts


def numbers_parts(columns: Sequence[Column]) -> list[str]:
    """Returns every number of the results.

    Args:
        columns: The results.
    """
    found = [page.heading("All numbers")]
    for column in columns:
        for section, method in _methods([column]):
            is_fidelity = section == FIDELITY
            heads = ["", "value", "standard error", "95 % low", "95 % high"]
            heads += ["n real", "n synthetic"] if is_fidelity else ["n", "compared with"]
            heads += ["floor", "floor sd", "floor n", "floor splits"] if is_fidelity else []
            lines, notes = {}, dict[str, int]()
            for key in keys_of([column], section, method):
                name = ", ".join(text for text in (key.metric, key.setting, key.label or "all images") if text)
                lines[name] = [(cell, 0.0) for cell in _numbers_of(column.value(key), notes)]
            title = ", ".join(text for text in (column.head, section, method) if text)
            found.append(page.details(title, [page.table(title, [*heads, "notes"], lines), _numbered(notes)]))
    return found


def label_table(columns: Sequence[Column], keys: Sequence[Key], title: str) -> str:
    """Returns the values of labels as a table: for more results than a chart has colours.

    Args:
        columns: The results.
        keys: The places; each is a row.
        title: For screen readers.
    """
    lines = {}
    for key in keys:
        name = ", ".join(text for text in (key.label, key.setting, split_baseline(key.metric)[1]) if text)
        lines[name] = [(_short(column.value(key)), 0.0) for column in columns]
    return page.table(title, ["value ± half of the 95 % interval", *(column.head for column in columns)], lines)


def rank_texts(columns: Sequence[Column], key: Key) -> list[str]:
    """Returns the rank of each column in words; nothing where it has none.

    Args:
        columns: The results.
        key: The place of the values.
    """
    measured = sum((found := column.value(key)) is not None and found.value is not None for column in columns)
    texts = []
    for rank in ranks_of(columns, key):
        places = "" if not rank else f"{rank.first}" if rank.first == rank.last else f"{rank.first} to {rank.last}"
        among = f" of {rank.of}" if rank and rank.of < measured else ""
        texts.append(f"rank {places}{among}" if places and measured > 1 else "")
    return texts


def value_text(found: Value | None) -> str:
    """Returns value, interval and sample sizes, a line for each."""
    if found is None:
        return "no result"
    sizes = sizes_short(found)
    if found.value is None:
        return f"not measured\n{sizes}"
    value = format_number(found.value, interval_width(found.ci_low, found.ci_high))
    texts = (value, format_interval(found.ci_low, found.ci_high), sizes)
    return "\n".join(text for text in texts if text)


def sizes_short(found: Value) -> str:
    """Returns the sample sizes, short enough for a table."""
    if isinstance(found, MetricResult):
        return f"n {found.n_real:,} / {found.n_synthetic:,}"
    return f"n {' / '.join(f'{size:,}' for size in found.n.values()) or '0'}"


def sizes_text(found: Value) -> str:
    """Returns the sample sizes, with what they count."""
    sizes = [
        f"{count:,} {NAMES.get(of, of).replace('_', ' ')}"
        for of, count in sizes_of(found).items()
        if count or isinstance(found, Measured)
    ]
    return f"n {', '.join(sizes) or '0'}"


def refusal(found: Value) -> str:
    """Returns why a value is refused."""
    return f"not measured: {'; '.join(found.notes) or 'no reason is recorded'}"


def noted(note: str, names: Sequence[str], of: int) -> str:
    """Returns a note, with whom it concerns if these are not all."""
    return note if len(names) == of else f"{note} ({', '.join(names)})"


def reference_text(reference: Reference) -> str:
    """Returns the name of a reference, its value, and its interval if it has one."""
    interval = format_interval(reference.ci_low, reference.ci_high)
    value = format_number(reference.value, interval_width(reference.ci_low, reference.ci_high))
    return f"{reference.name}: {value}" + (f" ({interval})" if interval else "")


def _methods(columns: Sequence[Column]) -> list[tuple[str, str]]:
    """Returns the methods of each section."""
    return [
        (section, method)
        for section in sections_shown(columns)
        for method in (encoders_of(columns) if section == FIDELITY else methods_of(columns, section))
    ]


def _row_name(key: Key, columns: Sequence[Column]) -> str:
    base, kind = split_baseline(key.metric)
    title, better = meaning_of(base).title, meaning_of(base).better
    name = f"{title}: {kind}" if kind else ", ".join(text for text in (title, better) if text)
    name += f", trained on {key.setting}" if key.setting else ""
    found = next(found for column in columns if (found := column.value(key)))
    sizes = " / ".join(NAMES.get(of, of).replace("_", " ") for of in sizes_of(found))
    return f"{name}; n: {sizes}" if sizes and key.section != FIDELITY else name


def _cells(columns: Sequence[Column], key: Key, models: Published | None) -> list[tuple[str, float]]:
    many = len(columns) > SERIES  # so that letters would fill the table
    marks = [[rank] for rank in rank_texts(columns, key)] if many else differing_from(columns, key)
    best, cells = best_of(columns, key), []
    for number, column in enumerate(columns):
        texts = [text if many else f"≠ {text}" for text in marks[number]]
        texts += ["best"] if number == best else []
        cells.append("\n".join(text for text in (value_text(column.value(key)), " ".join(texts)) if text))
    cells += models.overall(key.metric, key.method) if models else []
    return [(cell, 0.0) for cell in cells]


def _numbered(notes: dict[str, int]) -> str:
    return page.bullets([f"[{number}] {note}" for note, number in notes.items()])


def _numbers_of(found: Value | None, notes: dict[str, int]) -> list[str]:
    assert found
    numbers = [*map(_full, (found.value, found.se, found.ci_low, found.ci_high))]
    marks = " ".join(f"[{notes.setdefault(note, len(notes) + 1)}]" for note in found.notes)
    if isinstance(found, Measured):
        counts = ", ".join(f"{size:,} {of}" for of, size in found.n.items())
        return [*numbers, counts, "; ".join(map(reference_text, found.references)), marks]
    floor = found.floor or Floor(None, None, 0, 0)
    sizes = [f"{floor.n:,}", f"{floor.splits}"] if found.floor else ["", ""]
    return [*numbers, f"{found.n_real:,}", f"{found.n_synthetic:,}", _full(floor.value), _full(floor.sd), *sizes, marks]


def _short(found: Value | None) -> str:
    if found is None or found.value is None:
        return "-"
    width = interval_width(found.ci_low, found.ci_high)
    half = f" ± {format_number(width / 2, width)}" if width else ""
    return f"{format_number(found.value, width)}{half}"


def _full(number: float | None) -> str:
    return "" if number is None else f"{number:.6g}"
