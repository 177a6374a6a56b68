"""Counts of the answers, and a page with examples, with which a person can judge the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from pipeline import page
from pipeline.errors import counted
from pipeline.files import atomic_write
from pipeline.quality.answers import QUALITIES, UNPARSED
from pipeline.quality.labels_csv import QualityLabel, check_belongs, read_labels
from pipeline.rows import decode, evenly_spaced, plan, read
from pipeline.table import text_table
from synthchex_75k import LABELS, Row

COLUMNS = (*QUALITIES, UNPARSED)
NUM_EXAMPLES = 12  # of each quality


def report(source: str, labels_csv: Path, *, html: Path | None = None, on_mismatch: str = "error") -> None:
    """Counts images by quality, of all and of those with each label, and shows examples on a page.

    Args:
        source: The SOURCE.
        labels_csv: Labels of some or all of its images.
        html: File for a page with examples. Default: no page.
        on_mismatch: `"error"` or `"skip"`, as in `synthchex_75k.plan`.

    Raises:
        SourceError: The source cannot be used.
        StepError: LABELS_CSV cannot be used.
        OSError: A file cannot be read or written.
    """
    labels = read_labels(labels_csv)
    rows = plan(source, on_mismatch)
    check_belongs(labels, rows, labels_csv)
    print(f"{labels_csv}: {len(labels):,} of {len(rows):,} images have a label")
    print(counts_table(count_by_label(rows, labels)))
    if html:
        text = report_page(rows, labels).encode()
        atomic_write(html, text)
        print(f"{html}: {len(text) / 1e6:.1f} MB")


def count_by_label(rows: list[Row], labels: Iterable[QualityLabel]) -> dict[str, Counter[str]]:
    """Counts images by quality: of all rows, and of those with each label.

    Args:
        rows: Rows of the plan.
        labels: Labels of some of them.

    Returns:
        By `"All images"` and each of `LABELS`: number of images by quality. A row has a label where its raw value is 1.
    """
    quality = {label.filename: label.quality for label in labels}
    counts: dict[str, Counter[str]] = {name: Counter() for name in ("All images", *LABELS)}
    for row in rows:
        if row.filename in quality:
            names = ["All images", *(label for label, value in zip(LABELS, row.labels) if value == 1)]
            for name in names:
                counts[name][quality[row.filename]] += 1
    return counts


def counts_table(counts: dict[str, Counter[str]]) -> str:
    """Returns counts by quality as a table of plain text."""
    lines = [
        [name, *(_share(by[column], by.total()) for column in COLUMNS), f"{by.total():,}"]
        for name, by in counts.items()
    ]
    return text_table([["", *COLUMNS, "All"], *lines])


def report_page(rows: list[Row], labels: list[QualityLabel]) -> str:
    """Returns a page: a table of labels and qualities, and examples of each quality, evenly spaced among its images.

    Args:
        rows: Rows of the plan.
        labels: Labels of some of them.

    Returns:
        HTML.

    Raises:
        SourceError: An image cannot be read or decoded.
    """
    counts = count_by_label(rows, labels)
    models = ", ".join(sorted({label.model for label in labels})) or "no model"
    about = "Images by quality, of all and of those with each label; the bar is the share of the row."
    parts = [
        page.paragraph(f"{counts['All images'].total():,} of {len(rows):,} images labelled by {models}."),
        page.paragraph(about, muted=True),
        _table(counts),
        *(_examples(quality, rows, labels) for quality in COLUMNS),
    ]
    return page.render_page(f"Quality of {counted(len(rows), 'image')}", parts)


def _table(counts: dict[str, Counter[str]]) -> str:
    lines = {
        name: [
            *((_share(by[column], by.total()), by[column] / max(1, by.total())) for column in COLUMNS),
            (f"{by.total():,}", 0.0),
        ]
        for name, by in counts.items()
    }
    return page.table("Images by quality", ["", *COLUMNS, "All"], lines)


def _examples(quality: str, rows: list[Row], labels: list[QualityLabel]) -> str:
    by_name = {label.filename: label for label in labels if label.quality == quality}
    found = [row for row in rows if row.filename in by_name]
    shown = [found[index] for index in evenly_spaced(len(found), NUM_EXAMPLES)]
    figures = []
    for _, example in read(shown):
        name, prompt = example["filename"], example["prompt"]
        texts = {"Prompt": prompt, "Answer": by_name[name].response, "File": name}
        figures.append(page.figure(decode(example["image"]["bytes"], name), f"Image of the prompt: {prompt}", texts))
    note = f"{len(shown)} of {len(found):,}, evenly spaced" if shown else "0"
    return f"{page.heading(quality, note)}\n{page.strip(figures)}"


def _share(part: int, whole: int) -> str:
    return f"{part:,} ({part / whole:.0%})" if whole else "0"
