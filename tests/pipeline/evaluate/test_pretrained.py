"""With a real pretrained network: the metrics tell real images from blurred and from noisy ones, and by how much."""

import io
import json
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageFilter
import pytest

import make_fixture
from conftest import to_csv, to_files
from evaluate_images import main
from synthchex_75k import LABELS

pytestmark = pytest.mark.slow

ROWS, PIXELS = 60, 112
Change = Callable[[PIL.Image.Image, int], PIL.Image.Image]


def blurred(radius: float) -> Change:
    return lambda image, seed: image.filter(PIL.ImageFilter.GaussianBlur(radius))


def noisy(deviation: float) -> Change:
    def add(image: PIL.Image.Image, seed: int) -> PIL.Image.Image:
        noise = np.random.default_rng(seed).normal(0, deviation, (*image.size, 1))
        return PIL.Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))

    return add


SETS: dict[str, tuple[int, Change]] = {  # the seed of the first drawing, and what is done to it
    "real": (0, blurred(0)),
    "other": (1000, blurred(0)),
    "blurred": (1000, blurred(1)),
    "very blurred": (1000, blurred(3)),
    "noisy": (1000, noisy(6)),
    "very noisy": (1000, noisy(20)),
}


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The metrics of each set against the real one."""
    folder = tmp_path_factory.mktemp("pretrained")
    for name, (first, change) in SETS.items():
        files, rows = {}, []
        for number in range(first, first + ROWS):
            labels = dict.fromkeys(random.Random(number).sample(LABELS, 2), "1")
            drawn = make_fixture.draw(number, labels).resize((PIXELS, PIXELS))
            file = io.BytesIO()
            change(drawn, number).save(file, "PNG")
            files[f"{number}.png"] = file.getvalue()
            rows.append({"filename": f"{number}.png", "prompt": "A chest.", **dict.fromkeys(LABELS, ""), **labels})
        to_files(folder / name, files)
        (folder / name / "metadata.csv").write_bytes(to_csv(rows))
        arguments = [str(folder / name), str(folder / f"{name} features"), "--encoder", "pretrained:embed"]
        assert main(["embed", *arguments]) == 0
    found = {}
    for name in SETS:
        sides = [str(folder / f"{side} features") for side in ("real", name)]
        assert main(["fidelity", *sides, str(folder / f"{name}.json"), "--labels", "none"]) == 0
        metrics = json.loads((folder / f"{name}.json").read_bytes())["fidelity"]["metrics"]
        found[name] = {metric["metric"]: metric for metric in metrics}
    return found


@pytest.mark.parametrize("metric", ["fd", "kid", "cmmd"])
def test_distances_grow_with_blur_and_noise(metric: str, values: dict[str, dict[str, Any]]) -> None:
    distance = {name: found[metric]["value"] for name, found in values.items()}
    assert distance["real"] < distance["other"] < distance["blurred"] < distance["very blurred"]
    assert distance["other"] < distance["noisy"] < distance["very noisy"]


@pytest.mark.parametrize("metric", ["coverage", "density"])
def test_coverage_falls_with_blur_and_noise(metric: str, values: dict[str, dict[str, Any]]) -> None:
    share = {name: found[metric]["value"] for name, found in values.items()}
    assert share["very blurred"] < share["other"] <= share["real"]
    assert share["very noisy"] < share["other"]


def test_real_images_lie_at_the_floor(values: dict[str, dict[str, Any]]) -> None:
    kid = values["other"]["kid"]
    assert kid["ci_low"] <= kid["floor"]["value"] + 2 * kid["floor"]["sd"]
    assert values["very blurred"]["kid"]["ci_low"] > kid["floor"]["value"] + 2 * kid["floor"]["sd"]
