"""The figures of the dataset card: how many rows have each label, and a few rows to look at."""

from __future__ import annotations

import importlib.util
import io
import textwrap
from typing import Any, NamedTuple

import PIL.Image
from PIL.PngImagePlugin import PngInfo

from pipeline.errors import counted
from pipeline.jobs import WorkerPool
from pipeline.parquet.layout import FIGURES
from pipeline.rows import decode, evenly_spaced, read, to_rgb
from synthchex_75k import LABELS, UNCERTAINTY, Row

MAX_BYTES = 300_000  # of a figure
NUM_EXAMPLES = 6
WIDTH = 7.2  # inches of 100 pixels: a phone shows half of that, and text of 15 points is legible there
# Light text on a dark ground, like a radiograph: it reads the same on a light page and on a dark one.
INK, MUTED, GROUND, BAR = "#e6edf3", "#a9b3bd", "#14181d", "#4a90c2"
PROMPT_LINES, LABEL_LINES, COLUMNS = 3, 2, 33  # of the text under an example


class Figure(NamedTuple):
    """A figure of the card: its path in the folder, a sentence for those who cannot see it, and the PNG file."""

    path: str
    alt: str
    png: bytes


class FigureData(NamedTuple):
    """What the figures show: number of rows, how many are positive for each label, a few examples."""

    rows: int
    positive: dict[str, int]
    examples: list[dict[str, Any]]


def can_draw() -> bool:
    """True where matplotlib is installed."""
    try:
        return importlib.util.find_spec("matplotlib") is not None
    except ImportError:
        return False


def draw_figures(pool: WorkerPool, rows: list[Row], uncertainty: str) -> list[Figure]:
    """Draws the figures of a plan, in a worker: matplotlib takes memory that this process need not have.

    Args:
        pool: The workers.
        rows: The plan.
        uncertainty: Label policy, a key of `UNCERTAINTY`.

    Returns:
        The figures.

    Raises:
        SourceError: An image cannot be read or decoded.
    """
    shown = [rows[index] for index in evenly_spaced(len(rows), NUM_EXAMPLES)]
    examples = [example for _, example in read(shown, uncertainty)]
    data = FigureData(len(rows), count_positive(rows, uncertainty), examples)
    return [figure for _, figures in pool.run(render, [data], "Drawing") for figure in figures]


def render(data: FigureData) -> list[Figure]:
    """Draws the figures.

    Args:
        data: What they show; the examples as `synthchex_75k.examples` yields them.

    Returns:
        The figures, each under `MAX_BYTES`. The same data and library versions give the same bytes.

    Raises:
        SourceError: An image cannot be decoded.
    """
    return [_draw_labels(data.rows, data.positive), _draw_examples(data.examples)]


def count_positive(rows: list[Row], uncertainty: str) -> dict[str, int]:
    """Counts for each label the rows in which a label policy makes it 1."""
    policy = UNCERTAINTY[uncertainty]
    columns = zip(*(row.labels for row in rows))
    return {label: sum(policy[value] == 1 for value in column) for label, column in zip(LABELS, columns)}


def _draw_labels(rows: int, positive: dict[str, int]) -> Figure:
    ordered = sorted(positive.items(), key=lambda item: item[1])
    texts = [f"{count:,} ({count / rows:.1%})" for _, count in ordered]
    figure, (axes,) = _figure(1, 1, height=6.4)
    bars = axes.barh([label for label, _ in ordered], [count for _, count in ordered], color=BAR, height=0.72)
    axes.bar_label(bars, texts, padding=5, fontsize=14, color=INK)
    axes.set_xlim(0, max(1, *positive.values()) * 1.5)  # room for the text beside the longest bar
    axes.set_xticks([])
    axes.tick_params(axis="y", length=0, labelsize=15, labelcolor=INK)
    axes.set_title(f"Rows with a positive label, of {rows:,}", fontsize=15, color=MUTED, loc="left")
    first, last = (f"{label} ({count:,})" for label, count in (ordered[-1], ordered[0]))
    alt = f"Bar chart of how many of the {rows:,} rows have each label, from {first} to {last}."
    return Figure(FIGURES[0], alt, _to_png(figure))


def _draw_examples(examples: list[dict[str, Any]]) -> Figure:
    lines = -(-len(examples) // 2)
    figure, all_axes = _figure(lines, min(2, len(examples)), height=4.8 * lines)
    for axes, example in zip(all_axes, examples):
        image = to_rgb(decode(example["image"]["bytes"], example["filename"]))
        axes.imshow(image.resize((330, 330), PIL.Image.Resampling.LANCZOS))
        positive = [label for label, value in example["labels_dict"].items() if value == 1]
        prompt = _wrap(example["prompt"], PROMPT_LINES)
        labels = _wrap(f"Labels: {', '.join(positive) or 'none'}", LABEL_LINES)
        text = "\n".join([*labels, *prompt])
        axes.set_xlabel(text, loc="left", fontsize=13, color=INK, parse_math=False)  # a dollar sign is no formula
    for axes in all_axes:
        axes.set(xticks=[], yticks=[])
    alt = f"{counted(len(examples), 'image')} of the dataset, each above its positive labels and its prompt."
    return Figure(FIGURES[1], alt, _to_png(figure))


def _wrap(text: str, lines: int) -> list[str]:
    return textwrap.wrap(text, COLUMNS, max_lines=lines, placeholder=" …") or [text]


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
    """Saves a figure in as many colours as `MAX_BYTES` allows."""
    drawn, about = io.BytesIO(), PngInfo()
    figure.savefig(drawn, format="png")
    about.add_text("Software", "convert_to_parquet.py")
    picture = PIL.Image.open(drawn).convert("RGB")
    for colors in (256, 128, 64, 32, 16, 8):
        saved = io.BytesIO()
        picture.quantize(colors, dither=PIL.Image.Dither.NONE).save(saved, "PNG", optimize=True, pnginfo=about)
        if saved.tell() < MAX_BYTES:
            return saved.getvalue()
    raise AssertionError(f"a figure of 8 colours has {saved.tell()} bytes")
