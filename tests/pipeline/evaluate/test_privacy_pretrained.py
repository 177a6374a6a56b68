"""With a real pretrained network: copies of 1 % of the training images are found, and where there are none, nothing is.

Needs torch and EfficientNet-Lite0.
"""

import io
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import PIL.ImageChops
import PIL.ImageOps
import pytest

import make_fixture
from conftest import to_csv, to_files
from evaluate_images import main
from synthchex_75k import LABELS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

REAL, OTHERS, COPIES = 1000, 200, 10
SIZE, PIXELS = 512, 256  # of a drawing, and of its file


def drawn(number: int) -> PIL.Image.Image:
    """Returns a drawing that is turned, moved and scaled, as patients stand and breathe: no two are in one place."""
    chance = random.Random(number)
    image = make_fixture.draw(number, dict.fromkeys(chance.sample(LABELS, 2), "1"))
    move = chance.randint(-50, 50), chance.randint(-50, 50)
    image = image.rotate(chance.uniform(-10, 10), PIL.Image.Resampling.BILINEAR, translate=move)
    edge = SIZE / 2 - SIZE / 2 / chance.uniform(0.8, 1.2)
    extent = edge, edge, SIZE - edge, SIZE - edge
    return image.transform((SIZE, SIZE), PIL.Image.Transform.EXTENT, extent, PIL.Image.Resampling.BILINEAR)


def as_jpeg(image: PIL.Image.Image) -> PIL.Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=75)
    return PIL.Image.open(file).convert("RGB")


def shifted(image: PIL.Image.Image) -> PIL.Image.Image:
    moved = PIL.ImageChops.offset(image, 4, 0)
    moved.paste(image.crop((0, 0, 4, SIZE)), (0, 0))
    return moved


KINDS: dict[str, Callable[[PIL.Image.Image], PIL.Image.Image]] = {
    "exact": lambda image: image,
    "jpeg": as_jpeg,
    "shifted": shifted,
    "mirrored": PIL.ImageOps.mirror,
}


def embed(folder: Path, images: dict[str, PIL.Image.Image]) -> Path:
    files, rows = {}, []
    for name, image in images.items():
        file = io.BytesIO()
        image.resize((PIXELS, PIXELS)).save(file, "PNG")
        files[f"{name}.png"] = file.getvalue()
        rows.append({"filename": f"{name}.png", "prompt": "A chest.", "patientID": name, **dict.fromkeys(LABELS, "")})
    to_files(folder, files)
    (folder / "metadata.csv").write_bytes(to_csv(rows))
    features = folder.parent / f"{folder.name} features"
    options = ["--encoder", "pretrained:embed", "--patient-column", "patientID"]
    assert main(["embed", str(folder), str(features), *options]) == 0
    return features


@pytest.fixture(scope="module")
def sections(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The section and page of others alone, of others with copies of each kind, and of copies alone."""
    folder = tmp_path_factory.mktemp("copies")
    train = {f"train-{number}": drawn(number) for number in range(REAL)}
    real = embed(folder / "train", train)
    heldout = embed(folder / "heldout", {f"heldout-{number}": drawn(REAL + number) for number in range(REAL)})
    others = {f"other-{number}": drawn(3 * REAL + number) for number in range(OTHERS)}
    chosen = [f"train-{number}" for number in range(0, REAL, REAL // COPIES)]
    sets = {"none": others}
    for kind, change in KINDS.items():
        copies = {f"copy-of-{name}": change(train[name]) for name in chosen}
        sets[kind] = {**others, **copies}
        sets[f"{kind}, alone"] = copies
    found = {}
    for name, images in sets.items():
        path = folder / f"{name}.json"
        synthetic = embed(folder / name, images)
        assert main(["privacy", str(real), str(synthetic), str(path), "--heldout", str(heldout)]) == 0
        page = path.with_suffix(".html")
        assert main(["report", str(path), "--html", str(page)]) == 0
        found[name] = {**json.loads(path.read_bytes())["privacy"], "page": page.read_text(encoding="utf-8")}
    return found


def metric(section: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [one for one in section["metrics"] if one["metric"] == name]
    return found


def copies_in(section: dict[str, Any], name: str) -> int:
    """Returns how many pairs of a list are a copy and the image that it is a copy of."""
    (lists,) = section["pairs"].values()
    return sum(pair["synthetic"]["filename"] == f"copy-of-{pair['train']['filename']}" for pair in lists.get(name, []))


def test_nothing_planted_is_nothing_found(sections: dict[str, dict[str, Any]]) -> None:
    headline, near = (metric(sections["none"], name) for name in ("nearer_to_training", "below_threshold"))
    assert headline["ci_low"] <= 0.5 <= headline["ci_high"]
    assert near["ci_low"] <= near["references"][1]["ci_high"]
    auroc = metric(sections["none"], "membership_auroc")
    assert auroc["ci_low"] <= 0.5 <= auroc["ci_high"]


@pytest.mark.parametrize("kind", ["exact", "jpeg", "shifted"])
def test_copies_are_found(kind: str, sections: dict[str, dict[str, Any]]) -> None:
    section = sections[kind]
    assert copies_in(section, "nearest_relative") == COPIES
    assert len({*re.findall(r"copy-of-train-\d+\.png", section["page"])}) == COPIES
    # A shift by less than a pixel of the network's 112 moves features about as far as the threshold allows.
    assert copies_in(section, "below_threshold") >= (COPIES if kind != "shifted" else 7)
    assert metric(section, "below_threshold")["ci_low"] > metric(section, "below_threshold")["references"][0]["value"]
    headline = metric(section, "nearer_to_training")["value"]
    assert headline > metric(sections["none"], "nearer_to_training")["value"]
    # 10 copies among 210 images raise the headline by less than its interval; they show where they are many.
    assert metric(sections[f"{kind}, alone"], "nearer_to_training")["ci_low"] > 0.5
    assert metric(section, "identical_files")["value"] == (COPIES if kind == "exact" else 0)


def test_mirrored_copies_are_other_images_for_this_network(sections: dict[str, dict[str, Any]]) -> None:
    assert copies_in(sections["mirrored"], "below_threshold") == 0
