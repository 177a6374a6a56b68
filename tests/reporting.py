"""Sources of drawn images with made-up reports, for the tests of models that write reports.

python tests/reporting.py FOLDER
"""

import random
import sys
from pathlib import Path

import PIL.Image
import PIL.ImageDraw

from conftest import to_csv, to_zip
from images import to_jpeg
from synthchex_75k import LABELS

FINDINGS = ["effusion", "nodule", "pacemaker", "nothing new"]
SIDES = ["left", "right"]
PIXELS = 40


def make_source(folder: Path, count: int, prefix: str, seed: int, patients: int = 0) -> Path:
    """Writes a source; an image shows the finding of its report by the place of a bright square.

    Args:
        folder: Where to.
        count: Number of images.
        prefix: Of the file names and the patients.
        seed: Of what the images show.
        patients: Number of patients; 0: the column is left out.
    """
    rng = random.Random(seed)
    images, rows = {}, []
    for number in range(count):
        finding, side = rng.randrange(len(FINDINGS)), rng.randrange(len(SIDES))
        image = PIL.Image.new("L", (PIXELS, PIXELS), rng.randrange(60))
        corner = (10 * finding, 20 * side)
        PIL.ImageDraw.Draw(image).rectangle((*corner, corner[0] + 9, corner[1] + 19), fill=200 + rng.randrange(50))
        name = f"{prefix}{number:03}.jpg"
        images[name] = to_jpeg(image, quality=95)
        row = {"filename": name, "prompt": f"{FINDINGS[finding]}, {SIDES[side]} {rng.randrange(3)}."}
        row |= {"patientID": f"{prefix}{number % patients}"} if patients else {}
        rows.append({**row, **dict.fromkeys(LABELS, "0")})
    to_zip(folder / "images.zip", images)
    (folder / "metadata.csv").write_bytes(to_csv(rows))
    return folder


def make_sources(folder: Path) -> tuple[str, str, str]:
    """Writes the three sources of `reports`, and returns their paths."""
    return (
        str(make_source(folder / "real", 24, "p", 1, patients=8)),
        str(make_source(folder / "synthetic", 24, "SyntheticImg_x", 2)),
        str(make_source(folder / "test", 10, "q", 3, patients=4)),
    )


if __name__ == "__main__":
    make_sources(Path(sys.argv[1]))
