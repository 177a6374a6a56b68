"""How a model has judged: counts, and a page with which a person can judge the model."""

from __future__ import annotations

import base64
import html
import io
from collections import Counter
from collections.abc import Iterable

import PIL.Image
from _figures import evenly_spaced
from _quality import QUALITIES, UNPARSED
from _quality_labels import QualityLabel
from _steps import decode, read

from synthchex_75k import LABELS, Row

COLUMNS = (*QUALITIES, UNPARSED)
EXAMPLES = 12  # of each quality
PIXELS = 320  # of an example on the page
STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --muted: #57606a; --ground: #fff; --line: #d0d7de; --bar: #cfe3f3; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --muted: #9aa4ae; --ground: #0d1117; --line: #30363d; --bar: #1f4361; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1rem; color: var(--ink); background: var(--ground);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
p, figcaption { overflow-wrap: anywhere; }
.muted { color: var(--muted); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
thead th { white-space: normal; vertical-align: bottom; }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--ground); }
td { background: linear-gradient(to left, var(--bar) var(--share, 0%), transparent 0); }
@media (max-width: 40rem) {
  table { font-size: .8rem; } th, td { padding: .25rem .35rem; } th:first-child { white-space: normal; }
}
.strip { display: flex; gap: .75rem; overflow-x: auto; padding-bottom: .75rem; }
figure { margin: 0; flex: 0 0 15rem; font-size: .85rem; }
figure img { width: 100%; height: auto; display: block; border-radius: .25rem; background: #000; }
figcaption dt { color: var(--muted); } figcaption dd { margin: 0 0 .4rem; max-height: 9rem; overflow-y: auto; }
"""


def count(rows: list[Row], labels: Iterable[QualityLabel]) -> dict[str, Counter[str]]:
    """Counts images by quality: of all rows, and of those with each pathology.

    Args:
        rows: Rows of the plan.
        labels: Labels of some of them.

    Returns:
        By `"All images"` and each of `LABELS`: number of images by quality. A label counts where its raw value is 1.
    """
    quality = {label.filename: label.quality for label in labels}
    counts: dict[str, Counter[str]] = {name: Counter() for name in ("All images", *LABELS)}
    for row in rows:
        if row.filename in quality:
            names = ["All images", *(label for label, value in zip(LABELS, row.labels) if value == 1)]
            for name in names:
                counts[name][quality[row.filename]] += 1
    return counts


def table(counts: dict[str, Counter[str]]) -> str:
    """Returns counts as a table of text."""
    lines = [["", *COLUMNS, "All"]]
    lines += [
        [name, *(_share(by[column], by.total()) for column in COLUMNS), f"{by.total():,}"]
        for name, by in counts.items()
    ]
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:]))])
        for line in lines
    )


def write_page(rows: list[Row], labels: list[QualityLabel]) -> str:
    """Writes a page that needs nothing but itself.

    Args:
        rows: Rows of the plan.
        labels: Labels of some of them.

    Returns:
        HTML: a table of pathologies and qualities, and for each quality examples, evenly spaced among its images.

    Raises:
        SourceError: An image cannot be read or decoded.
    """
    counts = count(rows, labels)
    models = ", ".join(sorted({label.model for label in labels})) or "no model"
    done = f"{counts['All images'].total():,} of {len(rows):,} images labelled by {models}."
    strips = "".join(_strip(quality, rows, labels) for quality in COLUMNS)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Quality of {len(rows):,} images</title><style>{STYLE}</style></head><body>\n"
        f"<h1>Quality of {len(rows):,} synthetic chest radiographs</h1>\n<p>{html.escape(done)}</p>\n"
        f"{_html_table(counts)}\n{strips}</body></html>\n"
    )


def _html_table(counts: dict[str, Counter[str]]) -> str:
    head = "".join(f'<th scope="col">{column}</th>' for column in ("", *COLUMNS, "All"))
    lines = []
    for name, by in counts.items():
        cells = "".join(
            f'<td style="--share:{100 * by[column] / max(1, by.total()):.0f}%">{_share(by[column], by.total())}</td>'
            for column in COLUMNS
        )
        lines.append(f'<tr><th scope="row">{name}</th>{cells}<td>{by.total():,}</td></tr>')
    about = "Images by quality, of all and of those with each label; the bar is the share of the row."
    return (
        f'<p class="muted">{about}</p>\n<div class="scroll" tabindex="0"><table aria-label="Images by quality">'
        f"<thead><tr>{head}</tr></thead>\n<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _strip(quality: str, rows: list[Row], labels: list[QualityLabel]) -> str:
    of_quality = {label.filename: label for label in labels if label.quality == quality}
    there = [row for row in rows if row.filename in of_quality]
    shown = [there[place] for place in evenly_spaced(len(there), EXAMPLES)]
    figures = []
    for _, example in read(shown):
        label = of_quality[example["filename"]]
        said = [("Prompt", example["prompt"]), ("Answer", label.response), ("File", label.filename)]
        texts = "".join(f"<dt>{name}</dt><dd>{html.escape(text)}</dd>" for name, text in said)
        image = _thumbnail(decode(example["image"]["bytes"], label.filename))
        source = f"data:image/jpeg;base64,{base64.b64encode(image).decode()}"
        alt = html.escape(f"Image of the prompt: {example['prompt']}", quote=True)
        figures.append(f'<figure><img src="{source}" alt="{alt}"><figcaption><dl>{texts}</dl></figcaption></figure>')
    strip = f'<div class="strip" tabindex="0">{"".join(figures)}</div>' if figures else '<p class="muted">None.</p>'
    shown_of = f"{len(shown)} of {len(there):,}, evenly spaced" if shown else "0"
    return f'<h2>{quality} <span class="muted">{shown_of}</span></h2>\n{strip}\n'


def _thumbnail(image: PIL.Image.Image) -> bytes:
    saved = io.BytesIO()
    image = image.convert("RGB")
    image.thumbnail((PIXELS, PIXELS), PIL.Image.Resampling.LANCZOS)
    image.save(saved, "JPEG", quality=80, optimize=True)
    return saved.getvalue()


def _share(part: int, whole: int) -> str:
    return f"{part:,} ({part / whole:.0%})" if whole else "0"
