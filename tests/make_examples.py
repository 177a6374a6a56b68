"""Draws `.github/examples.png`, the picture at the top of README: six rows of the fixture with prompts and labels.

    python tests/make_examples.py [FILE]

The images are the fixture's drawings, not images of the release. The same Pillow writes the same bytes on every run.
"""

import io
import sys
import textwrap
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

import synthchex_75k

ROOT = Path(__file__).parents[1]
SHOWN = (0, 1, 2, 3, 4, 8)  # rows of the fixture
COLUMNS, SIDE, MARGIN, TEXT_HEIGHT = 3, 256, 14, 104  # pixels, but for the first
INK, ACCENT, GROUND = "#1b1f24", "#0b5394", "#ffffff"
COLORS = 96  # of the palette; more make the file larger


def draw(rows: list[dict[str, Any]]) -> Image.Image:
    """Draws rows as a grid, each image above the names of its positive labels and its prompt.

    Args:
        rows: As `synthchex_75k.examples` yields them.

    Returns:
        An RGB image of `COLUMNS` cells a line.
    """
    lines = -(-len(rows) // COLUMNS)
    size = (COLUMNS * (SIDE + MARGIN) + MARGIN, lines * (SIDE + TEXT_HEIGHT) + MARGIN)
    picture = Image.new("RGB", size, GROUND)
    pen = ImageDraw.Draw(picture)
    label_font, prompt_font = ImageFont.load_default(16), ImageFont.load_default(15)
    for index, row in enumerate(rows):
        left = MARGIN + index % COLUMNS * (SIDE + MARGIN)
        top = MARGIN + index // COLUMNS * (SIDE + TEXT_HEIGHT)
        image = Image.open(io.BytesIO(row["image"]["bytes"])).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        picture.paste(image, (left, top))
        labels = ", ".join(label for label, value in row["labels_dict"].items() if value == 1)
        pen.text((left, top + SIDE + 4), labels, ACCENT, label_font)
        prompt = textwrap.fill(" ".join(row["prompt"].split()), 34, max_lines=3, placeholder=" …")
        pen.multiline_text((left, top + SIDE + 26), prompt, INK, prompt_font, spacing=4)
    return picture


def main(file: Path) -> None:
    """Writes the picture.

    Args:
        file: Where.
    """
    rows = list(synthchex_75k.examples(synthchex_75k.plan(str(ROOT / "tests" / "fixture"))))
    picture = draw([rows[index] for index in SHOWN]).quantize(COLORS, dither=Image.Dither.NONE)
    picture.save(file, "PNG", optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / ".github" / "examples.png")
