"""The pictures of the dataset card: how many rows have each label, and a few rows to look at."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable
from typing import Any, NamedTuple

import PIL.Image
from _steps import decode
from PIL.PngImagePlugin import PngInfo

from synthchex_75k import LABELS, UNCERTAINTY, Row

FIGURES = ("figures/labels.png", "figures/examples.png")
MAX_BYTES = 300_000  # of a picture
NUM_EXAMPLES = 6
WIDTH = 7.2  # inches of 100 pixels: on a phone half of that is seen, and text of 15 points can still be read
# Dark text on a light ground of its own, which reads the same on a light page and on a dark one.
INK, MUTED, GROUND, BAR = "#1b1f24", "#57606a", "#ffffff", "#3274a1"
PROMPT_LINES, PROMPT_COLUMNS = 3, 33


class Figure(NamedTuple):
    """A picture of the card: its path in the folder, what it shows in words, and the PNG file."""

    path: str
    alt: str
    png: bytes


class Drawing(NamedTuple):
    """What the pictures show: number of rows, how many are positive for each label, a few examples."""

    rows: int
    positive: dict[str, int]
    examples: list[dict[str, Any]]


def draw(drawing: Drawing) -> list[Figure]:
    """Draws the pictures.

    Args:
        drawing: What they show; the examples as `synthchex_75k.examples` yields them.

    Returns:
        The pictures, each under `MAX_BYTES`. The same data and versions of the libraries give the same bytes.

    Raises:
        SourceError: An image cannot be decoded.
    """
    return [_draw_labels(drawing.rows, drawing.positive), _draw_examples(drawing.examples)]


def count_positive(rows: Iterable[Row], uncertainty: str) -> dict[str, int]:
    """Counts for each label the rows in which it is 1, by a label policy."""
    policy = UNCERTAINTY[uncertainty]
    columns = zip(*(row.labels for row in rows))
    return {label: sum(policy[value] == 1 for value in column) for label, column in zip(LABELS, columns)}


def evenly_spaced(count: int, wanted: int = NUM_EXAMPLES) -> list[int]:
    """Returns the places of the rows to show, of so many rows.

    Example:
        >>> evenly_spaced(12), evenly_spaced(2)
        ([0, 2, 4, 6, 8, 10], [0, 1])
    """
    return [number * count // min(count, wanted) for number in range(min(count, wanted))]


def _draw_labels(rows: int, positive: dict[str, int]) -> Figure:
    ordered = sorted(positive.items(), key=lambda item: item[1])
    texts = [f"{count:,} ({count / rows:.1%})" for _, count in ordered]
    figure, (axes,) = _figure(1, 1, height=6.4)
    bars = axes.barh([label for label, _ in ordered], [count for _, count in ordered], color=BAR, height=0.72)
    axes.bar_label(bars, texts, padding=5, fontsize=14, color=INK)
    axes.set_xlim(0, max(1, *positive.values()) * 1.5)  # room for the text beside the longest bar
    axes.set_xticks([])
    axes.tick_params(axis="y", length=0, labelsize=15, labelcolor=INK)
    axes.set_title(f"Rows with the label 1, of {rows:,}", fontsize=15, color=MUTED, loc="left")
    listed = ", ".join(f"{label} {text}" for (label, _), text in reversed([*zip(ordered, texts)]))
    return Figure(FIGURES[0], f"Rows with the label 1, of {rows:,}: {listed}.", _to_png(figure))


def _draw_examples(examples: list[dict[str, Any]]) -> Figure:
    lines = -(-len(examples) // 2)
    figure, all_axes = _figure(lines, min(2, len(examples)), height=4.4 * lines)
    for axes, example in zip(all_axes, examples):
        axes.imshow(
            decode(example["image"]["bytes"], example["filename"])
            .convert("RGB")
            .resize((330, 330), PIL.Image.Resampling.LANCZOS)
        )
        text = "\n".join(_wrap(example["prompt"]))
        axes.set_xlabel(text, loc="left", fontsize=13, color=INK, parse_math=False)  # a dollar sign is one
    for axes in all_axes:
        axes.set(xticks=[], yticks=[])
    listed = " ".join(f"{number}. {' '.join(_wrap(example['prompt']))}" for number, example in enumerate(examples, 1))
    about = f"{len(examples)} rows, evenly spaced in the dataset, each image above its prompt: {listed}"
    return Figure(FIGURES[1], about, _to_png(figure))


def _wrap(prompt: str) -> list[str]:
    return textwrap.wrap(prompt, PROMPT_COLUMNS, max_lines=PROMPT_LINES, placeholder=" …") or ["(no prompt)"]


def _figure(lines: int, columns: int, height: float) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure as Canvas  # half a second, for the one process that draws

    figure = Canvas(figsize=(WIDTH, height), dpi=100, layout="constrained", facecolor=GROUND)
    axes = [*figure.subplots(lines, columns, squeeze=False).flat]
    for one in axes:
        one.set_facecolor(GROUND)
        for spine in one.spines.values():
            spine.set_visible(False)
    return figure, axes


def _to_png(figure: Any) -> bytes:
    """Saves a picture in as many colours as `MAX_BYTES` allows."""
    drawn, about = io.BytesIO(), PngInfo()
    figure.savefig(drawn, format="png")
    about.add_text("Software", "convert_to_parquet.py")
    picture = PIL.Image.open(drawn).convert("RGB")
    for colors in (256, 128, 64, 32, 16, 8):
        saved = io.BytesIO()
        picture.quantize(colors, dither=PIL.Image.Dither.NONE).save(saved, "PNG", optimize=True, pnginfo=about)
        if saved.tell() < MAX_BYTES:
            return saved.getvalue()
    raise AssertionError(f"a picture of 8 colours has {saved.tell()} bytes")
