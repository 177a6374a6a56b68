"""Results as one page: what was compared, metrics with intervals and floors, labels, images that decide them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline import page
from pipeline.errors import StepError, counted
from pipeline.evaluate.charts import Line, chart, format_interval, format_number, interval_width, legend
from pipeline.evaluate.meanings import meaning_of, split_baseline
from pipeline.evaluate.metrics.floor import Floor
from pipeline.evaluate.pictures import Pictures
from pipeline.evaluate.published import Published, read_published
from pipeline.evaluate.results_fidelity import MetricResult
from pipeline.evaluate.results_parts import SideResult
from pipeline.evaluate.side_by_side import (
    Column,
    Key,
    baselines_of,
    best_of,
    cautions,
    differing_from,
    encoders_of,
    labels_of,
    metrics_of,
    read_side_by_side,
)
from pipeline.files import atomic_write
from synthchex_75k import LABELS

STYLE = Path(__file__).with_name("report.css")
CHEXGENBENCH = "chexgenbench"
PROTOCOLS = {
    "sound": "sound: with intervals and floors",
    CHEXGENBENCH: "chexgenbench: the definitions of the CheXGenBench code, to compare with its paper and nothing else",
}
OPEN_AT_FIRST = ("fd", "kid", "coverage", "label_auroc")  # charts of labels; a click opens the others


def report(
    results_json: list[Path],
    *,
    html: Path,
    real: str | None = None,
    synthetic: str | None = None,
    images: bool = True,
    published: bool = False,
) -> None:
    """Shows results on a page: metrics with intervals and floors, and the images that decide them.

    Args:
        results_json: Results of one protocol; several become columns of one table.
        html: File for the page.
        real: Source of the real images, if it has moved since they were embedded.
        synthetic: The same of the synthetic images.
        images: Whether images and their prompts are shown.
        published: Whether the published values of CheXGenBench are shown beside results of its protocol.

    Raises:
        SourceError: Results are damaged.
        StepError: Results cannot share a table, or an option does not fit them.
        OSError: A file cannot be read or written.
    """
    if html.resolve() in [path.resolve() for path in results_json]:
        raise StepError(f"--html: {html} holds results; choose another name for the page")
    columns = read_side_by_side(results_json)
    if published and columns[0].fidelity.protocol != CHEXGENBENCH:
        raise StepError(
            f"--published: the published values compare only with results of --protocol {CHEXGENBENCH}; "
            f"{columns[0].file} is {columns[0].fidelity.protocol}"
        )
    pictures = Pictures(columns, real, synthetic) if images else None
    text = results_page(columns, pictures, published).encode()
    atomic_write(html, text)
    print(f"{html}: {len(text) / 1e6:.1f} MB")
    if pictures and pictures.real_shown:
        shown = counted(pictures.real_shown, "real image")
        print(f"it contains {shown} and their prompts: share it only as their license allows")


def results_page(columns: Sequence[Column], pictures: Pictures | None = None, published: bool = False) -> str:
    """Returns the page.

    Args:
        columns: The results.
        pictures: Images of them. Default: none are shown.
        published: Whether to show the published values of CheXGenBench.

    Returns:
        HTML.
    """
    models = read_published() if published else None
    real = " and ".join(dict.fromkeys(column.fidelity.real.name for column in columns))
    title = f"{', '.join(column.fidelity.synthetic.name for column in columns)} against {real}"
    parts = [
        *_compared(columns),
        *(part for encoder in encoders_of(columns) for part in _overall(columns, encoder)),
        *_tables(columns, models),
        *(part for encoder in encoders_of(columns) for part in _by_label(columns, encoder)),
        *(_published_labels(columns, models) if models else []),
        *(pictures.parts() if pictures else []),
        *_all_numbers(columns),
    ]
    return page.render_page(title, parts, STYLE.read_text(encoding="utf-8"))


# What was compared


def _compared(columns: Sequence[Column]) -> list[str]:
    found = cautions(columns)
    return [
        page.heading("What was compared"),
        page.block([page.block([_about(column)], "card") for column in columns], "cards"),
        page.block([page.bullets(found)], "warning") if found else "",
        page.details("Encoders: weights, preprocessing, versions", _encoders(columns)),
        page.details("Versions that computed the metrics", map(_versions, columns)),
        legend(),
    ]


def _about(column: Column) -> str:
    fidelity = column.fidelity
    sides = {f"{side.capitalize()} images": _describe(found) for side, found in reversed(column.sides.items())}
    labels = f"all {len(LABELS)}" if {*fidelity.labels} == {*LABELS} else ", ".join(fidelity.labels) or "none"
    others = {
        "Encoders": ", ".join(encoders_of([column])) or "none",
        "Labels": labels,
        "Protocol": PROTOCOLS[fidelity.protocol],
        "Seed": str(fidelity.seed),
        "Date": fidelity.created.replace("T", " "),
        "File": str(column.file),
    }
    return page.subheading(column.head) + page.terms({**sides, **others})


def _describe(side: SideResult) -> str:
    patients = f" of {counted(side.patients, 'patient')}" if side.patients is not None else ""
    return f"{side.name}: {counted(side.rows, 'image')}{patients}, from {side.source}"


def _encoders(columns: Sequence[Column]) -> list[str]:
    users: dict[tuple[str, str, str], list[str]] = {}
    for column in columns:
        for side, found in column.sides.items():
            for name, encoder in found.encoders.items():
                about = json.dumps(encoder.about, indent=2, ensure_ascii=False)
                users.setdefault((name, encoder.fingerprint, about), []).append(f"{column.letter} {side}")
    return [
        part
        for (name, fingerprint, about), used in users.items()
        for part in (
            page.subheading(name, ", ".join(text.strip() for text in used)),
            page.paragraph(f"Fingerprint {fingerprint}", muted=True),
            page.preformatted(about),
        )
    ]


def _versions(column: Column) -> str:
    return page.block([page.subheading(column.head), page.terms(column.fidelity.versions)], "card")


# Metrics of all images


def _overall(columns: Sequence[Column], encoder: str) -> list[str]:
    cards = [_card(columns, metric, encoder) for metric in metrics_of(columns, encoder)]
    cards = [card for card in cards if card]
    return [page.heading(encoder, "metrics of all images"), page.block(cards, "cards")] if cards else []


def _card(columns: Sequence[Column], metric: str, encoder: str) -> str:
    entries = _entries(columns, metric, encoder, None)
    if not entries:
        return ""
    meaning = meaning_of(metric)
    notes: dict[str, list[str]] = {}
    for entry in entries:
        for note in entry.found.notes if entry.found.value is not None else [_refusal(entry.found)]:
            notes.setdefault(note, []).append(entry.name)
    lines = [_line(entry) for entry in entries if entry.found.value is not None]
    parts = [
        page.subheading(meaning.title, meaning.better),
        page.paragraph(meaning.sentence, muted=True),
        chart(f"{meaning.title}, {encoder}", [("", lines)], meaning.include) if lines else "",
        page.bullets([_noted(note, names, len(entries)) for note, names in notes.items()]),
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
        found = {n: column.metrics.get((name, encoder, label)) for n, column in enumerate(columns)}
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
        [text for text in (_sample(found), _floor_text(floor)) if text],
        found.value,
        found.ci_low,
        found.ci_high,
        floor.value if floor else None,
        floor.sd if floor else None,
        entry.series,
        entry.is_baseline,
    )


def _sample(found: MetricResult) -> str:
    sides = {"real": found.n_real, "synthetic": found.n_synthetic}
    sizes = [f"{count:,} {side}" for side, count in sides.items() if count]
    return f"n {', '.join(sizes) or '0'}"


def _sizes(found: MetricResult) -> str:
    """Returns the sample sizes, short enough for a table."""
    return f"n {found.n_real:,} / {found.n_synthetic:,}"


def _floor_text(floor: Floor | None) -> str:
    if not floor:
        return ""
    if floor.value is None:
        return f"no floor at n {floor.n:,}"
    spread = f" ± {format_number(floor.sd, floor.sd)}" if floor.sd is not None else ""
    value = format_number(floor.value, floor.sd)
    return f"floor {value}{spread}, n {floor.n:,}"


def _refusal(found: MetricResult) -> str:
    return f"not measured: {'; '.join(found.notes) or 'no reason is recorded'}"


def _noted(note: str, names: Sequence[str], of: int) -> str:
    return note if len(names) == of else f"{note} ({', '.join(names)})"


# Results side by side


def _tables(columns: Sequence[Column], models: Published | None) -> list[str]:
    if len(columns) == 1 and not models:
        return []
    about = (
        "Value, 95 % interval, n real / n synthetic. ≠ B: the 95 % intervals of this value and of B do not overlap. "
        "Best: better than each of the others, by such intervals. Overlapping intervals do not show that values are "
        "equal."
    )
    unmarked = "Values of this protocol without intervals are never marked as different or best."
    parts = [page.heading("Side by side", "metrics of all images"), page.paragraph(about, muted=True)]
    if not any(found.ci_low is not None for column in columns for found in column.metrics.values()):
        parts.append(page.paragraph(unmarked, muted=True))
    if models:
        parts.append(page.block([page.bullets(models.warnings)], "warning"))
    for encoder in encoders_of(columns):
        names = dict.fromkeys(
            m for column in columns for m, used, label in column.metrics if (used, label) == (encoder, None)
        )
        lines = {_row_name(name): _cells(columns, (name, encoder, None), models) for name in names}
        heads = ["", *(column.head for column in columns), *(models.heads(encoder) if models else [])]
        parts += [page.subheading(encoder), page.table(f"Metrics of {encoder}", heads, lines)] if lines else []
    return parts


def _row_name(metric: str) -> str:
    base, kind = split_baseline(metric)
    title, better = meaning_of(base).title, meaning_of(base).better
    return f"{title}: {kind}" if kind else ", ".join(text for text in (title, better) if text)


def _cells(columns: Sequence[Column], key: Key, models: Published | None) -> list[tuple[str, float]]:
    differing, best = differing_from(columns, key), best_of(columns, key)
    cells = []
    for number, column in enumerate(columns):
        found = column.metrics.get(key)
        marks = [*(f"≠ {letter}" for letter in differing[number]), *(["best"] if number == best else [])]
        cells.append("\n".join(text for text in (_value_text(found), " ".join(marks)) if text))
    cells += models.overall(*key[:2]) if models else []
    return [(cell, 0.0) for cell in cells]


def _value_text(found: MetricResult | None) -> str:
    """Returns value, interval and sample sizes, a line for each."""
    if found is None:
        return "no result"
    if found.value is None:
        return f"not measured\n{_sizes(found)}"
    value = format_number(found.value, interval_width(found.ci_low, found.ci_high))
    texts = (value, format_interval(found.ci_low, found.ci_high), _sizes(found))
    return "\n".join(text for text in texts if text)


# Metrics of each label


def _by_label(columns: Sequence[Column], encoder: str) -> list[str]:
    charts = [_label_chart(columns, metric, encoder) for metric in metrics_of(columns, encoder)]
    charts = [found for found in charts if found]
    about = (
        "A label with few images has a wide interval and a high floor: compare a value with its own floor, and labels "
        "with one another only where their sample sizes are equal."
    )
    return [page.heading(f"{encoder}, by label"), page.paragraph(about, muted=True), *charts] if charts else []


def _label_chart(columns: Sequence[Column], metric: str, encoder: str) -> str:
    by_label = {label: _entries(columns, metric, encoder, label) for label in labels_of(columns)}
    count = sum(map(len, by_label.values()))
    if not count:
        return ""
    meaning, groups = meaning_of(metric), []
    notes, missing = dict[str, list[str]](), dict[str, list[str]]()
    for label, entries in by_label.items():
        for column in columns:
            if (metric, encoder, label) not in column.metrics:
                missing.setdefault("not measured: no result is recorded", []).append(f"{label} {column.letter}".strip())
        for entry in entries:
            who = f"{label} {entry.short}".strip()
            if entry.found.value is None:
                missing.setdefault(f"{_refusal(entry.found)}; {_sample(entry.found)}", []).append(who)
            for note in entry.found.notes if entry.found.value is not None else ():
                notes.setdefault(note, []).append(who)
        shown = [entry for entry in entries if entry.found.value is not None]
        alone = len(columns) == len(entries) == 1
        groups += [("" if alone else label, [_line(entry, label if alone else "") for entry in shown])] if shown else []
    parts = [
        page.paragraph(meaning.sentence, muted=True),
        chart(f"{meaning.title}, {encoder}, by label", groups, meaning.include, wide=True) if groups else "",
        page.bullets([f"{', '.join(labels)}: {reason}" for reason, labels in missing.items()]),
    ]
    if notes:
        parts.append(page.details("Notes", [page.bullets([_noted(note, on, count) for note, on in notes.items()])]))
    summary = ", ".join(text for text in (meaning.title, encoder, meaning.better) if text)
    return page.details(summary, parts, is_open=metric in OPEN_AT_FIRST)


def _published_labels(columns: Sequence[Column], models: Published) -> list[str]:
    title, encoder = "FD by label, beside the published values", models.encoders["fd"]
    lines = {
        label: [
            (cell, 0.0)
            for cell in (
                *(_value_text(column.metrics.get(("fd", encoder, label))) for column in columns),
                *models.fd_of_label(label),
            )
        ]
        for label in LABELS
    }
    heads = ["", *(column.head for column in columns), *models.heads_of_labels()]
    warnings = page.block([page.bullets(models.warnings)], "warning")
    return [page.heading(title, encoder), warnings, page.table(title, heads, lines)]


# Every number


def _all_numbers(columns: Sequence[Column]) -> list[str]:
    heads = ["", "value", "standard error", "95 % low", "95 % high", "n real", "n synthetic"]
    heads += ["floor", "floor sd", "floor n", "floor splits", "notes"]
    found = [page.heading("All numbers")]
    for column in columns:
        for encoder in encoders_of([column]):
            lines = {
                f"{metric}, {label or 'all images'}": [(cell, 0.0) for cell in _numbers_of(entry)]
                for (metric, used, label), entry in column.metrics.items()
                if used == encoder
            }
            title = ", ".join(text for text in (column.head, encoder) if text)
            found.append(page.details(title, [page.table(title, heads, lines)]))
    return found


def _numbers_of(entry: MetricResult) -> list[str]:
    floor = entry.floor or Floor(None, None, 0, 0)
    numbers = [entry.value, entry.se, entry.ci_low, entry.ci_high]
    texts = [*map(_full, numbers), f"{entry.n_real:,}", f"{entry.n_synthetic:,}", _full(floor.value), _full(floor.sd)]
    sizes = [f"{floor.n:,}", f"{floor.splits}"] if entry.floor else ["", ""]
    return [*texts, *sizes, "; ".join(entry.notes)]


def _full(number: float | None) -> str:
    return "" if number is None else f"{number:.6g}"
