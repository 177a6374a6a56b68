"""Draws the tiny split in `tests/fixture`: 12 radiograph-like pictures in two zip shards, and their metadata.

    python tests/make_fixture.py [FOLDER]

The pictures are drawn, not generated: each is a thorax with lungs, ribs, spine, heart and, where its labels say so,
a sign of the finding; `dataset.json` and `provenance.json` state that. Prompts and labels are made up. The same Pillow
writes the same bytes on every run.
"""

import csv
import io
import json
import random
import sys
import zipfile
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops, ImageDraw, ImageFilter

import synthchex_75k

SIZE = 512
# One prompt per picture, and what its row says of labels: every label is positive somewhere, in every raw form.
ROWS = [
    (
        "There is no focal consolidation, pleural effusion or pneumothorax. The heart is of ordinary size.",
        {"No Finding": "1.0", "Consolidation": "0.0", "Pleural Effusion": "0.0", "Pneumothorax": "0.0"},
    ),
    ("Enlarged heart, with a small effusion on the left.", {"Cardiomegaly": "1", "Pleural Effusion": "1"}),
    ('A round lesion, "coin-like", in the right upper lobe.', {"Lung Lesion": "1.0", "Pneumonia": "-1.0"}),
    ("Pacemaker in place, leads unchanged, no edema.", {"Support Devices": "1", "Edema": "0", "Fracture": "None"}),
    ("Air at the left apex,\r\nwithout shift of the mediastinum.", {"Pneumothorax": "1.0", "Pleural Other": "NaN"}),
    ("Haze at both bases that may be edema.", {"Edema": "-1", "Lung Opacity": "1", "Atelectasis": "-1"}),
    ("Old fracture of the sixth rib on the right.", {"Fracture": "1", "No Finding": "0", "Lung Lesion": "nan"}),
    ("Widened mediastinum; a tube ends above the carina.", {"Enlarged Cardiomediastinum": "1", "Support Devices": "1"}),
    ("Dense lower lobe with air bronchograms, as in pneumonia.", {"Pneumonia": "1", "Consolidation": "1.0"}),
    ("Plate-like collapse at the left base.", {"Atelectasis": "1.0", "Pleural Effusion": "-1"}),
    ("Thickened pleura along the lateral wall on the right.", {"Pleural Other": "1", "Cardiomegaly": "0.0"}),
    ("Perihilar edema, and the heart is large – 心影增大.", {"Edema": "1", "Cardiomegaly": "1.0", "Pneumonia": "0"}),
]


DATASET: dict[str, Any] = {
    "name": "Drawings of chests",
    "description": "Drawings made for tests, with made-up prompts and labels. No image shows a patient.",
    "images": "synthetic",
    "authors": ["A. Painter", "B. Tester"],
    "license": "apache-2.0",
    "citation": "@misc{drawings,\n  title = {Drawings of chests},\n  author = {Painter, A. and Tester, B.}\n}",
    "homepage": "https://example.org/drawings",
    "paper": "https://example.org/drawings/paper",
    "date": "2025-01-31",
    "version": "1.0.0",
}
STEPS = [{"step": "draw", "program": "make_fixture.py", "about": "Each image is a drawing of its prompt and labels."}]


def draw(number: int, labels: dict[str, str]) -> Image.Image:
    """Draws one picture.

    Args:
        number: Seed of its anatomy.
        labels: Raw label values; a positive one leaves its sign.

    Returns:
        An RGB image of 512x512 pixels.
    """
    rng = random.Random(number)
    positive = {label for label, value in labels.items() if value in ("1", "1.0")}
    body = Image.new("L", (SIZE, SIZE), 8)
    pen = ImageDraw.Draw(body)
    centre = 256 + rng.randint(-8, 8)
    lung_height, lung_width = 300 + rng.randint(-25, 25), 118 + rng.randint(-10, 10)
    lungs = [(centre + side * (lung_width // 2 + 28), 235 + rng.randint(-6, 6)) for side in (-1, 1)]
    pen.rounded_rectangle((40, 40, 472, 540), radius=110, fill=120)  # soft tissue
    for x, y in lungs:
        pen.ellipse((x - lung_width // 2, y - lung_height // 2, x + lung_width // 2, y + lung_height // 2), fill=45)
    body = body.filter(ImageFilter.GaussianBlur(9))

    bones = Image.new("L", (SIZE, SIZE), 0)
    pen = ImageDraw.Draw(bones)
    pen.rectangle((centre - 15, 20, centre + 15, SIZE), fill=70)
    for rib in range(9):
        top = 70 + rib * 37 + rng.randint(-3, 3)
        for side in (-1, 1):
            box = (centre - 190, top, centre + 190, top + 120)
            broken = "Fracture" in positive and rib == 5 and side == -1
            start, end = (270, 352) if side == 1 else (188, 225 if broken else 270)
            pen.arc(box, start, end, fill=42, width=9)
    pen.line((centre - 20, 78, centre - 170, 60), fill=80, width=12)  # clavicles
    pen.line((centre + 20, 78, centre + 170, 60), fill=80, width=12)
    bones = bones.filter(ImageFilter.GaussianBlur(2))

    soft = Image.new("L", (SIZE, SIZE), 0)
    pen = ImageDraw.Draw(soft)
    heart = 105 if "Cardiomegaly" in positive else 72 + rng.randint(-6, 6)
    pen.ellipse((centre - heart // 2, 225, centre + heart + 25, 400), fill=95)
    wide = 52 if "Enlarged Cardiomediastinum" in positive else 24
    pen.rectangle((centre - wide, 60, centre + wide, 260), fill=60)
    pen.ellipse((60, 380, centre - 10, 560), fill=90)  # the two halves of the diaphragm
    pen.ellipse((centre + 10, 395, 450, 560), fill=90)
    signs = {
        "Pleural Effusion": (centre + 30, 320, 430, 480, 85),
        "Consolidation": (centre - 160, 270, centre - 50, 370, 75),
        "Pneumonia": (centre - 150, 290, centre - 60, 360, 40),
        "Lung Opacity": (centre - 170, 300, centre + 170, 400, 35),
        "Edema": (centre - 110, 170, centre + 110, 300, 45),
        "Lung Lesion": (centre - 120, 130, centre - 86, 164, 80),
        "Pleural Other": (centre - 165, 150, centre - 142, 380, 75),
        "Atelectasis": (centre + 50, 340, centre + 160, 352, 80),
    }
    for label in sorted(positive & signs.keys()):
        left, top, right, bottom, shade = signs[label]
        pen.ellipse((left, top, right, bottom), fill=shade)
    soft = soft.filter(ImageFilter.GaussianBlur(7))

    picture = ImageChops.add(ImageChops.add(body, soft), bones)
    pen = ImageDraw.Draw(picture)
    if "Pneumothorax" in positive:
        pen.ellipse((lungs[1][0] - 40, 95, lungs[1][0] + 45, 165), fill=14)
    if "Support Devices" in positive:
        pen.rounded_rectangle((centre + 110, 90, centre + 160, 135), radius=12, fill=235)
        pen.line((centre + 110, 115, centre + 20, 180, centre + 30, 330), fill=225, width=4)
    grain = Image.frombytes("L", (64, 64), rng.randbytes(64 * 64)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    return ImageChops.add(picture, grain.point(lambda value: value // 60)).convert("RGB")


def main(folder: Path) -> None:
    """Writes the fixture.

    Args:
        folder: Where; `metadata.csv`, `dataset.json`, `provenance.json` and `data/` in it are replaced.
    """
    (folder / "data").mkdir(parents=True, exist_ok=True)
    names = ["SyntheticImg_02aa804e-bde0afdd-112c0b34-7bc16630-4e384014.png"]
    for number in range(1, len(ROWS)):
        words = [f"{random.Random(f'{number} {word}').getrandbits(32):08x}" for word in range(5)]
        names.append(f"SyntheticImg_{'-'.join(words)}.png")
    with open(folder / "metadata.csv", "w", newline="", encoding="utf-8") as handle:
        table = csv.writer(handle)
        table.writerow(["filename", "prompt", *synthchex_75k.LABELS])
        for name, (prompt, labels) in zip(names, ROWS, strict=True):
            table.writerow([name, prompt, *(labels.get(label, "") for label in synthchex_75k.LABELS)])
    for name, content in {"dataset.json": DATASET, "provenance.json": {"steps": STEPS}}.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    for shard, numbers in enumerate([range(6), range(6, 12)]):
        with zipfile.ZipFile(folder / "data" / f"images-{shard:05d}-of-00002.zip", "w") as archive:
            for number in numbers:
                png = io.BytesIO()
                draw(number, ROWS[number][1]).save(png, "PNG", optimize=True)
                archive.writestr(zipfile.ZipInfo(names[number], (1980, 1, 1, 0, 0, 0)), png.getvalue())


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "fixture")
