"""The command `privacy`: planted copies are found, what cannot be said is refused, and wrong input is an error."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from comparing import features_of, normal, write_store
from evaluate_images import main
from pipeline.evaluate.features import Features
from pipeline.evaluate.meanings import Meaning
from pipeline.evaluate.privacy_meanings import MEANINGS

OF_HELDOUT = [
    "nearer_to_training",
    "below_threshold",
    "copying_test",
    "membership_auroc",
    "membership_tpr_1",
    "membership_tpr_01",
]
ALL = ["identical_files", *OF_HELDOUT, "distance_ratio", "authenticity"]
PATIENTS = [f"p{i // 2}" for i in range(1200)]


def real(seed: int, n: int = 1200, name: str = "real", **options: Any) -> Features:
    return features_of(normal(n, 6, seed), name=name, **options)


def made(train: Features, copies: int = 0, n: int = 400) -> Features:
    """Synthetic images of the distribution of the real ones, the first of them all but copies of training images."""
    x = normal(n, 6, 7)
    x[:copies] = train.outputs["feature"][:copies] + normal(copies, 6, 8) / 1000
    return features_of(x, name="made")


class Run:
    """Writes FEATURES_DIRs, runs the command and reads what it wrote."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.results = folder, folder / "results.json"

    def __call__(self, train: Features, synthetic: Features, heldout: Features | None = None, *options: str) -> int:
        found = {"train": train, "synthetic": synthetic, **({"heldout": heldout} if heldout else {})}
        paths = [
            str(write_store(self.folder / f"{name} {len([*self.folder.iterdir()])}", of)) for name, of in found.items()
        ]
        last = ["--heldout", paths[2]] if heldout else []
        return main(["privacy", *paths[:2], str(self.results), *last, *options])

    @property
    def section(self) -> dict[str, Any]:
        return json.loads(self.results.read_bytes())["privacy"]

    def metrics(self) -> dict[str, dict[str, Any]]:
        return {metric["metric"]: metric for metric in self.section["metrics"]}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_copies_are_found(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    train = real(0, patients=PATIENTS)
    heldout = real(1, name="other", patients=[f"q{i // 2}" for i in range(1200)])
    assert run(train, made(train, copies=80), heldout) == 0
    found = run.metrics()
    assert [*found] == ALL
    headline = found["nearer_to_training"]
    assert headline["ci_low"] > 0.5 and headline["references"][0]["value"] == 0.5
    assert headline["n"] == {"train": 1200, "synthetic": 400, "heldout": 1200}
    assert found["below_threshold"]["ci_low"] > 0.1
    assert found["copying_test"]["ci_high"] < 0
    assert found["membership_auroc"]["ci_low"] > 0.5
    assert found["membership_tpr_01"]["value"] > 0.02 and found["membership_tpr_01"]["ci_low"] > 0.001
    for name in ("distance_ratio", "authenticity"):
        (reference,) = found[name]["references"]
        assert reference["name"] == "held-out images" and reference["ci_low"] <= reference["value"]
    assert found["distance_ratio"]["ci_low"] > found["distance_ratio"]["references"][0]["ci_high"]
    assert found["authenticity"]["ci_high"] < found["authenticity"]["references"][0]["ci_low"]
    lists = run.section["pairs"]["rad-dino"]
    assert len(lists["nearest_relative"]) == 12 and len(lists["below_threshold"]) >= 80
    for pair in [*lists["nearest_relative"], *lists["below_threshold"][:80]]:
        assert pair["synthetic"]["filename"].removeprefix("made") == pair["train"]["filename"].removeprefix("real")
        assert pair["about"]["Distance to the nearest held-out image"] > 0
    printed = capsys.readouterr().out
    assert "nearer_to_training" in printed and "0.5 without memorisation" in printed and "9 values" in printed
    assert {side: about["patients"] for side, about in run.section["sides"].items()} == {
        "train": 600,
        "synthetic": None,
        "heldout": 600,
    }


def test_nothing_memorised_is_nothing_found(run: Run) -> None:
    assert run(real(0), made(real(0)), real(1, name="other")) == 0
    found = run.metrics()
    for name, nothing in (("nearer_to_training", 0.5), ("copying_test", 0), ("membership_auroc", 0.5)):
        assert found[name]["ci_low"] <= nothing <= found[name]["ci_high"], name
    for name in ("membership_tpr_1", "membership_tpr_01", "below_threshold"):
        assert found[name]["ci_low"] <= found[name]["references"][0]["value"] <= found[name]["ci_high"], name
    for name in ("distance_ratio", "authenticity"):
        (reference,) = found[name]["references"]
        assert found[name]["ci_low"] <= reference["ci_high"] and reference["ci_low"] <= found[name]["ci_high"], name
    assert any("patients are unknown" in note for note in found["nearer_to_training"]["notes"])
    assert any("of one kind" in note for note in found["nearer_to_training"]["notes"])


def test_without_held_out_images_what_cannot_be_said_is_said(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(real(0), made(real(0), copies=3)) == 0
    found = run.metrics()
    for name in OF_HELDOUT:
        assert found[name]["value"] is None and found[name]["references"] == []
        assert found[name]["notes"] == ["needs --heldout: images of other patients that the generator did not see"]
    for name in ("distance_ratio", "authenticity"):
        assert found[name]["value"] is not None and any("no reference" in note for note in found[name]["notes"])
    lists = run.section["pairs"]["rad-dino"]
    assert [*lists] == ["nearest"]
    assert {pair["synthetic"]["filename"] for pair in lists["nearest"][:3]} == {f"made-0000{i}.png" for i in range(3)}
    assert "needs --heldout" in capsys.readouterr().out


def test_a_smaller_held_out_set(run: Run) -> None:
    train = real(0)
    assert run(train, made(train, copies=200), real(1, n=300, name="other")) == 0
    found = run.metrics()
    headline = found["nearer_to_training"]
    assert headline["ci_low"] > 0.5 and any("a copy counts in 25.0%" in note for note in headline["notes"])
    for name in ("below_threshold", "membership_tpr_01"):
        assert found[name]["value"] is None and any("1,000 held-out images" in note for note in found[name]["notes"])
    assert found["membership_tpr_1"]["value"] is not None


def test_the_same_seed_gives_the_same_results(run: Run) -> None:
    sections = []
    for seed in ("3", "3", "4"):
        assert run(real(0), made(real(0)), real(1, n=300, name="other"), "--seed", seed) == 0
        sections.append((run.section["metrics"], run.section["pairs"]))
    assert sections[0] == sections[1] != sections[2]
    values = [metrics[1]["value"] for metrics, _ in sections]
    assert values[0] == values[2]  # the headline is an expectation, not a draw


def test_identical_files_are_counted(run: Run) -> None:
    train = real(0)
    synthetic = made(train, copies=5)
    synthetic.crc32[:6] = train.crc32[:6]  # the sixth by chance: its features are others
    assert run(train, synthetic) == 0
    found = run.metrics()["identical_files"]
    assert (found["method"], found["value"], found["ci_low"]) == ("files", 5, None)
    assert "made-00000.png" in found["notes"][1]


def test_another_section_stays(run: Run) -> None:
    train, synthetic = real(0, 100), made(real(0, 100), n=100)
    folders = [str(write_store(run.folder / name, of)) for name, of in (("one", train), ("two", synthetic))]
    assert main(["fidelity", *folders, str(run.results), "--labels", "none"]) == 0
    before = json.loads(run.results.read_bytes())["fidelity"]
    assert main(["privacy", *folders, str(run.results)]) == 0
    assert json.loads(run.results.read_bytes())["fidelity"] == before and run.section


def test_pairs_are_compared(run: Run) -> None:
    names = [f"image-{i:05}.png" for i in range(60)]
    train = real(0, 60, name="image", patients=[f"p{i // 2}" for i in range(60)])
    synthetic = made(train, copies=60, n=60)._replace(filenames=np.array([f"SyntheticImg_{name}" for name in names]))
    assert run(train, synthetic, None, "--pair", "filename") == 0
    found = run.metrics()
    assert found["latent_distance"]["n"] and "closest_latent_distance" in run.section["pairs"]["rad-dino"]
    assert run.section["options"]["pair"] == "filename"


# Errors


def error(capsys: pytest.CaptureFixture[str]) -> str:
    text = capsys.readouterr().err
    assert text.startswith("error: ") and text.count("\n") == 1
    return text


def test_patients_on_both_sides_are_an_error(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    heldout = real(1, 100, name="other", patients=[f"p{i + 599}" for i in range(100)])
    assert run(real(0, patients=PATIENTS), made(real(0)), heldout) == 1
    assert "1 patient of the held-out images are in the training set too: p599" in error(capsys)
    assert not run.results.exists()


def test_images_on_both_sides_are_an_error(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    train, heldout = real(0), real(1, name="other")
    heldout.outputs["feature"][:2] = train.outputs["feature"][4:6]
    heldout.crc32[:3] = train.crc32[4:7]  # the third by chance
    assert run(train, made(train), heldout) == 1
    assert "2 held-out images in the training set too: other-00000.png; other-00001.png" in error(capsys)


def test_another_encoder_is_an_error(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    train = real(0)
    assert run(train, made(train), real(1, name="other", about={"crop": 3})) == 1
    assert "the training and the held-out features differ in more than the images: crop" in error(capsys)


def test_features_that_are_no_numbers_are_an_error(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    train, heldout = real(0), real(1, name="other")
    heldout.outputs["feature"][3, 1] = np.nan
    assert run(train, made(train), heldout) == 1
    assert "other-00003.png of the held-out images: feature is not finite" in error(capsys)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--train", "x"], "--train and --synthetic belong together"),
        (["--train", "x", "--synthetic", "y"], "--train compares images of pairs: add --pair"),
        (["--reid", "x"], "--reid compares images of pairs: add --pair"),
        (["--reid", "x", "--pair", "prompt"], "--reid looks at images: add --train SOURCE and --synthetic SOURCE"),
        (["--seed", "-1"], "the seed must not be negative"),
    ],
)
def test_options_that_do_not_fit(
    options: list[str], message: str, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(real(0, 20), made(real(0, 20), n=20), None, *options) == 1
    assert message in error(capsys)


def test_radiomics_features_alone_are_an_error(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    train, synthetic = (features_of(normal(20, 3), encoder="radiomics", name=name) for name in ("real", "made"))
    assert run(train, synthetic) == 1
    assert "radiomics" in error(capsys)


def test_each_metric_has_a_meaning() -> None:
    assert {*MEANINGS} == {*ALL}
    for meaning in MEANINGS.values():
        assert isinstance(meaning, Meaning) and meaning.sentence.endswith(".")
