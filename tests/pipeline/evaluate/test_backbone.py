"""`--backbone`: real networks of timm, of small sizes, trained on images in which labels can be seen."""

import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import import_torchvision  # noqa: F401 - before what needs it
from pipeline.errors import StepError
from pipeline.evaluate.backbone import Backbone
from pipeline.evaluate.settings import SETTINGS, Example, Split, plan_examples, splits
from pipeline.evaluate.training import Recipe, batch_of, macro_auroc
from planted import PATIENTS, PIXELS, SHOWN, write_planted
from synthchex_75k import LABELS, SourceError

timm: Any = pytest.importorskip("timm")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore::UserWarning")]
torch.set_num_threads(1)

LEARNT = [LABELS.index(label) for label in SHOWN]
OPTIONS: dict[str, Any] = {
    "weights": "random",
    "epochs": 6,
    "batch_size": 16,
    "learning_rate": 1e-3,
    "image_size": PIXELS,
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Real training images, synthetic ones, and real test images."""
    folder = tmp_path_factory.mktemp("sources")
    counts = {"train": 200, "synthetic": 200, "test": 100}
    return [write_planted(folder, name, count, seed=seed) for seed, (name, count) in enumerate(counts.items())]


@pytest.fixture(scope="module")
def chosen(sources: list[Path]) -> list[Split]:
    """A split of each setting."""
    sides = zip(sources, ("real", "synthetic", "real"))
    return splits(*(plan_examples(str(source), side, PATIENTS) for source, side in sides), seeds=1)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all runs of `test_resnet`."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def found(chosen: list[Split], work: Path) -> dict[str, np.ndarray]:
    """Scores of the test images in each setting."""
    backbone = Backbone("test_resnet", work, **OPTIONS)
    return {split.setting: backbone.scores(split).test for split in chosen}


def targets_of(examples: Sequence[Example]) -> np.ndarray:
    return np.stack([one.targets for one in examples])


def runs_in(folder: Path) -> dict[str, dict[str, Any]]:
    """Returns what is kept of the runs in a folder, by setting."""
    kept = {}
    for path in folder.glob("*.npz"):
        with np.load(path) as file:
            about = json.loads(str(file["about"]))
        kept[about["decided_by"]["setting"]] = about
    return kept


def test_a_planted_signal_is_learnt_in_each_setting(found: dict[str, np.ndarray], chosen: list[Split]) -> None:
    targets = targets_of(chosen[0].test)
    assert all(macro_auroc(scores, targets) > 0.75 for scores in found.values())


def test_labels_that_cannot_be_learnt_have_no_scores(found: dict[str, np.ndarray]) -> None:
    for scores in found.values():
        assert np.isfinite(scores[:, LEARNT]).all()
        assert np.isnan(np.delete(scores, LEARNT, axis=1)).all()


def test_all_settings_take_the_same_number_of_steps(found: dict[str, np.ndarray], work: Path) -> None:
    runs = runs_in(work)
    assert {*runs} == {*SETTINGS} == {*found}
    assert {run["decided_by"]["steps"] for run in runs.values()} == {6 * 12}  # 180 images, 12 batches
    assert {tuple(one["step"] for one in run["validations"]) for run in runs.values()} == {(12, 24, 36, 48, 60, 72)}


def test_images_are_mirrored_only_if_asked(chosen: list[Split], tmp_path: Path) -> None:
    plain, mirrored = (
        Backbone("test_resnet", tmp_path, **OPTIONS | {"epochs": 1, "horizontal_flips": flips}).scores(chosen[0])
        for flips in (False, True)
    )
    assert not np.allclose(plain.test[:, LEARNT], mirrored.test[:, LEARNT])
    recipe = Recipe(1, 1000, 1e-4, 1, False, 0)
    assert not batch_of(0, 10, recipe)[1].any()
    assert 400 < batch_of(0, 10, recipe._replace(horizontal_flips=True))[1].sum() < 600


def test_a_finished_run_is_kept(found: dict[str, np.ndarray], chosen: list[Split], work: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in work.rglob("*")}
    again = Backbone("test_resnet", work, **OPTIONS).scores(chosen[0])
    assert np.array_equal(again.test, found["real"], equal_nan=True)
    assert {path: path.stat().st_mtime_ns for path in work.rglob("*")} == before
    assert not [path for path in before if path.suffix == ".pt"], "the state of a training is removed after it"


@pytest.mark.parametrize(
    "other", [{"epochs": 2}, {"batch_size": 8}, {"learning_rate": 3e-3}, {"image_size": 48}, {"horizontal_flips": True}]
)
def test_a_run_with_other_options_is_not_taken_for_it(
    found: dict[str, np.ndarray], chosen: list[Split], work: Path, other: dict[str, Any]
) -> None:
    again = Backbone("test_resnet", work, **OPTIONS | {"epochs": 1} | other).scores(chosen[0])
    assert not np.array_equal(again.test, found["real"], equal_nan=True)


def test_scores_have_the_order_of_the_images(
    found: dict[str, np.ndarray], chosen: list[Split], tmp_path: Path
) -> None:
    backwards = chosen[0]._replace(test=chosen[0].test[::-1])
    again = Backbone("test_resnet", tmp_path, **OPTIONS).scores(backwards)
    assert np.allclose(again.test[::-1], found["real"], atol=1e-5, equal_nan=True)


def test_a_transformer_takes_another_image_size(chosen: list[Split], tmp_path: Path) -> None:
    backbone = Backbone("test_vit", tmp_path, **OPTIONS | {"image_size": 48})
    scores = backbone.scores(chosen[0])
    assert backbone.describe()["image_size"] == 48
    assert macro_auroc(scores.test, targets_of(chosen[0].test)) > 0.8


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_weights_are_those_of_a_file(chosen: list[Split], tmp_path: Path, kind: str) -> None:
    torch.manual_seed(1)
    network = timm.create_model("test_resnet")
    saved = tmp_path / "weights"
    if kind == "file":
        torch.save(network.state_dict(), saved)
    else:
        saved.mkdir()
        timm.models.save_for_hf(network, saved, safe_serialization=True)
    still = OPTIONS | {"epochs": 1, "learning_rate": 1e-12}
    drawn = Backbone("test_resnet", tmp_path / "drawn", **still)
    loaded = Backbone("test_resnet", tmp_path / "loaded", **still | {"weights": str(saved)})
    assert drawn.describe()["weights"] == "random"
    assert loaded.describe()["weights"]["name"] == "weights"
    assert len(loaded.describe()["weights"]["weights_sha256"]) == 64
    assert not np.allclose(*(one.scores(chosen[0]).test[:, LEARNT] for one in (drawn, loaded)))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "vit.pt")
    with pytest.raises(StepError, match=r"vit\.pt: no weights of test_resnet for conv1\.0\.weight and \d+ others"):
        Backbone("test_resnet", tmp_path / "work", weights=str(tmp_path / "vit.pt"))


class _Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, ("raise SystemExit('executed')",)


def test_weights_that_would_execute_code_are_refused(tmp_path: Path) -> None:
    torch.save({"conv1.0.weight": _Evil()}, tmp_path / "evil.pt")
    (tmp_path / "evil.bin").write_bytes(pickle.dumps(_Evil()))
    for name in ("evil.pt", "evil.bin"):
        with pytest.raises(StepError, match=r"test_resnet cannot be loaded: .*[Ww]eights"):
            Backbone("test_resnet", tmp_path / "work", weights=str(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet5O", {}, "did you mean .*resnet50"),
        ("resnet50.of_mine", {}, "Invalid pretrained tag"),
        ("test_resnet", {"weights": "nowhere.pt"}, "nowhere.pt: no such folder"),
        ("test_vit", {"weights": "random", "image_size": 3}, "test_vit cannot be loaded"),
    ],
)
def test_what_cannot_be_is_said_at_once(tmp_path: Path, name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(StepError, match=message):
        Backbone(name, tmp_path / "work", **options)
    assert not (tmp_path / "work").exists()


def test_a_damaged_image_is_named_before_the_training(sources: list[Path], tmp_path: Path) -> None:
    folder = write_planted(tmp_path, "damaged", 40)
    (folder / "images-0.zip").unlink()
    rest = write_planted(tmp_path, "other", 40)
    damaged = rest / "images-0.zip"
    content = damaged.read_bytes()
    # In the data of an image, and in its checksum, both of which PNG has: the zip's is made anew.
    import io
    import zipfile

    saved = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as before, zipfile.ZipFile(saved, "w") as after:
        for member in before.namelist():
            image = before.read(member)
            after.writestr(member, image[:200] + bytes(60) + image[260:] if member == "other-00007.png" else image)
    damaged.write_bytes(saved.getvalue())
    real, test = (plan_examples(str(source), "real", PATIENTS) for source in (rest, sources[2]))
    (split,) = splits(real, [], test, ["real"], seeds=1)
    with pytest.raises(SourceError, match=r"other-00007\.png: Pillow cannot decode"):
        Backbone("test_resnet", tmp_path / "work", **OPTIONS).scores(split)


def test_a_loss_that_is_not_finite_ends_the_run(chosen: list[Split], tmp_path: Path) -> None:
    with pytest.raises(StepError, match="choose a smaller --learning-rate"):
        Backbone("test_resnet", tmp_path, **OPTIONS | {"learning_rate": 1e30}).scores(chosen[0])
