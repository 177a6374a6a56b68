"""`--backbone`: real networks of timm, of small sizes, trained on images in which labels can be seen."""

import importlib
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import import_torchvision  # noqa: F401 - before what needs it
from conftest import ROOT, contents, to_zip
from evaluate_images import main
from pipeline import progress
from pipeline.errors import StepError
from pipeline.evaluate.results.results import read_results
from pipeline.evaluate.settings import SETTINGS, Example, Split, plan_examples, splits
from pipeline.evaluate.utility import training
from pipeline.evaluate.utility.backbone import Backbone
from pipeline.evaluate.utility.training import Recipe, batch_of, macro_auroc
from planted import PATIENTS, PIXELS, SHOWN, write_planted
from servers.local_hub import MAIN, Hub
from synthchex_75k import LABELS, SourceError

timm: Any = importlib.import_module("timm")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning")]
torch.set_num_threads(1)

PROGRAM = ROOT / "tests" / "evaluate_with_torchvision.py"
# As many threads in all runs: sums in another order have other last bits.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}

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
    return splits_of(sources, SETTINGS)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all runs of `test_resnet`."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def found(chosen: list[Split], work: Path) -> dict[str, np.ndarray]:
    """Scores of the test images in each setting."""
    backbone = Backbone("test_resnet", work, **OPTIONS)
    return {split.setting: backbone.scores(split).test for split in chosen}


def splits_of(sources: list[Path], settings: Sequence[str]) -> list[Split]:
    train, synthetic, test = (
        plan_examples(str(source), side, PATIENTS) for source, side in zip(sources, ("real", "synthetic", "real"))
    )
    return splits(train, synthetic, test, settings, seeds=1)


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


def test_progress_tells_loss_and_time_left(
    chosen: list[Split], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LOG_INTERVAL", 0)  # a line each step
    monkeypatch.setattr(training, "SHOW_INTERVAL", -1)
    Backbone("test_resnet", tmp_path, **{**OPTIONS, "epochs": 2}).scores(chosen[0])
    lines = [line for line in capfd.readouterr().err.splitlines() if "loss" in line]
    told = [
        re.fullmatch(r"real, seed 0: +(\d+)/24, .*step.*, loss (\d\.\d{4})(, best AUROC 0\.\d{4})?, .*\d left", line)
        for line in lines
    ]
    assert all(told), lines
    steps, _, best = zip(*(one.groups() for one in told if one))
    assert {*steps} > {"6", "12", "18"}
    assert best[0] is None and best[-1], "from the first validation on"


def test_a_finished_run_is_kept(found: dict[str, np.ndarray], chosen: list[Split], work: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in work.rglob("*")}
    again = Backbone("test_resnet", work, **OPTIONS).scores(chosen[0])
    assert np.array_equal(again.test, found["real"], equal_nan=True)
    assert {path: path.stat().st_mtime_ns for path in work.rglob("*")} == before
    assert not [path for path in before if path.suffix == ".pt"], "the state of a training is removed after it"


@pytest.mark.parametrize(
    "other", [{"epochs": 2}, {"batch_size": 8}, {"learning_rate": 3e-3}, {"image_size": 64}, {"horizontal_flips": True}]
)
def test_a_run_with_other_options_is_not_taken_for_it(
    found: dict[str, np.ndarray], chosen: list[Split], work: Path, other: dict[str, Any]
) -> None:
    again = Backbone("test_resnet", work, **OPTIONS | {"epochs": 1} | other).scores(chosen[0])
    assert not np.array_equal(again.test, found["real"], equal_nan=True)


def test_scores_have_the_order_of_the_images(found: dict[str, np.ndarray], chosen: list[Split], tmp_path: Path) -> None:
    backwards = chosen[0]._replace(test=chosen[0].test[::-1])
    again = Backbone("test_resnet", tmp_path, **OPTIONS).scores(backwards)
    assert np.allclose(again.test[::-1], found["real"], atol=1e-5, equal_nan=True)


def test_a_transformer_takes_another_image_size(chosen: list[Split], tmp_path: Path) -> None:
    backbone = Backbone("test_vit", tmp_path, **OPTIONS | {"image_size": 64})
    scores = backbone.scores(chosen[0])
    assert backbone.describe()["image_size"] == 64
    assert macro_auroc(scores.test, targets_of(chosen[0].test)) > 0.7


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
    outputs = [one.scores(chosen[0]).test[:, LEARNT] for one in (drawn, loaded)]
    assert not np.allclose(outputs[0], outputs[1])


def test_weights_on_the_hub_are_pinned_to_their_commit(hub: Hub, tmp_path: Path) -> None:
    network = timm.create_model("test_resnet")
    timm.models.save_for_hf(network, tmp_path / "saved", safe_serialization="both")
    files = contents(tmp_path / "saved")
    assert {"model.safetensors", "pytorch_model.bin"} <= {*files}
    commit = hub.create("timm/test_resnet.r160_in1k", files=files).refs[MAIN]
    described = Backbone("test_resnet", tmp_path / "work").describe()
    assert described["weights"] == {"name": "timm/test_resnet.r160_in1k", "revision": commit}
    assert hub.asked(r"GET .*safetensors$") and not hub.asked(r"GET .*bin$")


def test_weights_that_the_hub_does_not_have_are_an_error_that_tells_what_to_do(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"timm/test_resnet\.r160_in1k.*name a file or folder, or --weights random"):
        Backbone("test_resnet", tmp_path / "work")
    hub.create("timm/test_resnet.r160_in1k", files={"README.md": b"# Nothing"})
    with pytest.raises(StepError, match=r"none of the files model\.safetensors, pytorch_model\.bin"):
        Backbone("test_resnet", tmp_path / "work")


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
        ("test_maxvit", {"weights": "random", "image_size": 41}, "test_maxvit .*41"),
    ],
)
def test_what_cannot_be_is_said_at_once(tmp_path: Path, name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(StepError, match=message):
        Backbone(name, tmp_path / "work", **options)
    assert not (tmp_path / "work").exists()


def test_a_damaged_image_is_named_before_the_training(sources: list[Path], tmp_path: Path) -> None:
    damaged = write_planted(tmp_path, "damaged", 40)
    with zipfile.ZipFile(damaged / "images-0.zip") as archive:
        images = {name: archive.read(name) for name in archive.namelist()}
    image = images["damaged-00007.png"]
    to_zip(damaged / "images-0.zip", images | {"damaged-00007.png": image[:200] + bytes(60) + image[260:]})
    real, test = (plan_examples(str(source), "real", PATIENTS) for source in (damaged, sources[2]))
    (split,) = splits(real, [], test, ["real"], seeds=1)
    with pytest.raises(SourceError, match=r"damaged-00007\.png: Pillow cannot decode"):
        Backbone("test_resnet", tmp_path / "work", **OPTIONS).scores(split)


def test_a_loss_that_is_not_finite_ends_the_run(chosen: list[Split], tmp_path: Path) -> None:
    with pytest.raises(StepError, match="choose a smaller --learning-rate"):
        Backbone("test_resnet", tmp_path, **OPTIONS | {"learning_rate": 1e30}).scores(chosen[0])


def utility(sources: list[Path], results: Path, *options: str) -> list[str]:
    """Returns the arguments of a run of setting `real` on the command line."""
    sides = [str(source) for source in sources]
    usual = ("--settings", "real", "--seeds", "1", "--patient-column", PATIENTS, "--weights", "random")
    sizes = ("--batch-size", "16", "--learning-rate", "1e-3", "--image-size", str(PIXELS))
    return ["utility", *sides, str(results), *usual, *sizes, *options]


def run(arguments: list[str], processes: int = 1) -> subprocess.CompletedProcess[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(launcher if processes > 1 else []), str(PROGRAM), *arguments]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=240, check=False)


def values_of(results: Path) -> dict[tuple[str, str | None], float | None]:
    section = json.loads(results.read_text())["utility"]
    return {(one["metric"], one["label"]): one["value"] for one in section["metrics"]}


def test_a_killed_run_is_resumed_and_scores_as_one_that_was_not(sources: list[Path], tmp_path: Path) -> None:
    one, other = tmp_path / "one.json", tmp_path / "other.json"
    options = ("--backbone", "test_resnet", "--epochs", "12")
    whole = run(utility(sources, one, *options))
    assert whole.returncode == 0, whole.stderr

    command = [sys.executable, str(PROGRAM), *utility(sources, other, *options)]
    killed = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    work = tmp_path / "other.utility"
    deadline = time.monotonic() + 300
    while not any(work.glob("*.pt")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    (checkpoint,) = work.glob("*.pt")
    assert 0 < torch.load(checkpoint, weights_only=True)["step"] < 12 * 12
    assert not other.exists() and not any(work.glob("*.npz"))
    half_written = work / f".{checkpoint.name}.1.tmp"  # as if it had been killed while it wrote
    half_written.write_bytes(b"half")
    images = {path: path.stat().st_mtime_ns for path in (work / "images").iterdir()}

    resumed = run(utility(sources, other, *options))
    assert resumed.returncode == 0, resumed.stderr
    found = [next((tmp_path / f"{name}.utility").glob("*.npz")) for name in ("one", "other")]
    with np.load(found[0]) as expected, np.load(found[1]) as got:
        assert all(np.array_equal(expected[side], got[side], equal_nan=True) for side in ("validation", "test"))
        assert json.loads(str(expected["about"])) == json.loads(str(got["about"]))
    assert values_of(one) == values_of(other)
    assert {path: path.stat().st_mtime_ns for path in (work / "images").iterdir()} == images
    assert not half_written.exists() and not checkpoint.exists()


def test_run_trains_on_the_images_that_the_limit_chose(hub: Hub, sources: list[Path], tmp_path: Path) -> None:
    timm.models.save_for_hf(timm.create_model("test_resnet"), tmp_path / "saved", safe_serialization=True)
    hub.create("timm/test_resnet.r160_in1k", files=contents(tmp_path / "saved"))
    given = ["--encoder", "embedding:pixels", "--backbone", "test_resnet", "--limit", "40", "--settings", "real"]
    given += ["--seeds", "1", "--labels", "none", "--patient-column", PATIENTS]
    results = tmp_path / "results"
    assert main(["run", *map(str, sources), str(results), *given]) == 0
    found = read_results(results / "results.json").utility
    assert found and {side.rows for side in found.sides.values()} == {40}


def test_run_names_a_network_that_is_none_before_the_long_work(
    sources: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--encoder", "embedding:pixels", "--backbone", "test_resnett", "--patient-column", PATIENTS]
    assert main(["run", *map(str, sources), str(tmp_path / "results"), *given]) == 1
    told = capsys.readouterr()
    assert told.err.splitlines()[-1].startswith("error: --backbone test_resnett: timm has no such model; did you mean ")
    assert "== embed" not in told.out + told.err
    assert not contents(tmp_path)


def test_two_processes_share_the_batches_of_one(sources: list[Path], tmp_path: Path) -> None:
    options = ("--backbone", "test_vit", "--epochs", "3")  # without batch norm, whose statistics are of a process
    found = []
    for processes in (1, 2):
        results = tmp_path / f"{processes}.json"
        done = run(utility(sources, results, *options), processes)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count(f"{results}: ") == 1, "one process reports"
        with np.load(next((tmp_path / f"{processes}.utility").glob("*.npz"))) as file:
            found.append((file["test"], json.loads(str(file["about"]))))
    assert [about["processes"] for _, about in found] == [1, 2]
    assert found[0][1]["decided_by"] == found[1][1]["decided_by"]
    assert np.allclose(found[0][0], found[1][0], atol=1e-4, equal_nan=True)


def test_a_batch_that_cannot_be_shared_is_refused(sources: list[Path], tmp_path: Path) -> None:
    arguments = utility(sources, tmp_path / "results.json", "--backbone", "test_vit", "--batch-size", "15")
    done = run(arguments, processes=2)
    assert done.returncode != 0
    assert "--batch-size 15 cannot be shared among 2 processes" in done.stderr
    assert not (tmp_path / "results.json").exists()


LITTLE_MEMORY = """
import resource, sys
from pathlib import Path

import import_torchvision
import pipeline.evaluate.utility.decoded
import test_backbone

pipeline.evaluate.utility.decoded.available_cpus = lambda: 1  # on many CPUs, threads alone would take the memory
(split,) = test_backbone.splits_of([Path(source) for source in sys.argv[2:]], ["real"])
options = test_backbone.OPTIONS | {"batch_size": 4096, "image_size": 128}
backbone = test_backbone.Backbone("test_resnet", Path(sys.argv[1]), **options)
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (600 << 20), resource.RLIM_INFINITY))
backbone.scores(split)
"""


def test_what_to_do_is_said_where_memory_runs_out(sources: list[Path], tmp_path: Path) -> None:
    paths = os.pathsep.join(map(str, [ROOT, ROOT / "scripts", ROOT / "tests", Path(__file__).parent]))
    command = [sys.executable, "-c", LITTLE_MEMORY, str(tmp_path / "work"), *map(str, sources)]
    environment = ENVIRONMENT | {"PYTHONPATH": paths}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    last = done.stderr.splitlines()[-1]
    assert "StepError: out of memory with 4096 images of 128 pixels at once" in last
    assert "choose a smaller --batch-size, and --learning-rate in proportion" in last
