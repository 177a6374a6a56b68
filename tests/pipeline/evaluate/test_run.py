"""The command `run`, with an encoder that needs numpy only."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from conftest import ROOT, contents, to_csv, to_files, to_zip
from evaluate_images import main
from pipeline.evaluate.results.results import read_results, update_results
from pipeline.evaluate.results.results_section import Section
from pipeline.evaluate.run import AUTOMATIC
from planted import PATIENTS, write_planted
from servers.local_hub import Hub

Run = Callable[..., int]
GIVEN = ["--patient-column", PATIENTS, "--seeds", "1", "--labels", "none"]
PIXELS, EDGES = ["--encoder", "embedding:pixels"], ["--encoder", "embedding:edges"]


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, Path]:
    return {
        name: write_planted(tmp_path, name, 12, seed=number) for number, name in enumerate(("train", "made", "test"))
    }


@pytest.fixture
def run(sources: dict[str, Path]) -> Run:
    def call(results: Path, *options: str, sources: dict[str, Path] = sources, encoders: Sequence[str] = PIXELS) -> int:
        return main(["run", *map(str, sources.values()), str(results), *encoders, *GIVEN, *options])

    return call


@pytest.mark.parametrize("content", ["[1, 2]", "5", "null", '"abc"', "{"])
def test_a_damaged_record_of_what_is_done_is_an_error_before_the_long_work(
    content: str, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    results.mkdir()
    (results / ".steps.json").write_text(content)
    assert run(results) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: {results / '.steps.json'}: ") and error.endswith("delete it, and run again")
    assert [path.name for path in results.iterdir()] == [".steps.json"]


def test_results_go_into_no_source(
    run: Run, sources: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link = tmp_path / "link"
    link.symlink_to(sources["made"])
    for folder in (sources["train"], link):
        before = sorted(folder.iterdir())
        assert run(folder) == 1
        assert f"error: {folder} is a source as well; name another folder" in capsys.readouterr().err
        assert sorted(folder.iterdir()) == before


def test_results_go_into_a_folder(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.touch()
    assert run(file) == 1
    assert f"error: {file} is a file; name a folder" in capsys.readouterr().err
    page = tmp_path / "results" / "results.html"
    page.mkdir(parents=True)
    assert run(page.parent) == 1
    assert f"error: {page} is a folder; " in capsys.readouterr().err
    assert [*page.parent.iterdir()] == [page]


def test_done_before(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "results"
    for times in (0, 2):
        assert run(results) == 0
        told = capsys.readouterr()
        assert (told.out + told.err).count("done before") >= times
    assert {*json.loads((results / ".steps.json").read_text())} >= {"fidelity", "privacy"}


def test_a_section_that_this_run_did_not_compute_is_named(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    assert run(results) == 0
    assert "of an earlier run" not in capsys.readouterr().out
    path = results / "results.json"
    update_results(path, reports=read_results(path).privacy)
    assert run(results) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.partition(",")[0] for line in told if "of an earlier run" in line] == ["reports: of an earlier run"]


def test_the_help_tells_what_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    about, _, rest = capsys.readouterr().out.partition("positional arguments")
    assert "reports, frd and inception_score only if asked for" in " ".join(about.split())
    told = " ".join(rest[rest.index("leaves out") :].split())
    for wanted in ("reports, which needs --report-model", "--backbone", *(f"--encoder {name}" for name in AUTOMATIC)):
        assert wanted in told
    assert "--encoder inception --encoder radiomics" in told


# Packages that are not installed


def test_a_step_whose_package_is_missing_is_skipped_with_the_reason(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)  # as if it were not installed
    results = tmp_path / "results"
    assert run(results) == 0
    told = capsys.readouterr()
    skipped = [line for line in told.out.splitlines() if line.startswith("skipped: ")]
    assert skipped == ["skipped: utility: this model needs the Python module sklearn: pip install scikit-learn"]
    found = read_results(results / "results.json")
    assert found.fidelity and found.privacy and not found.utility
    assert {*json.loads((results / ".steps.json").read_text())} == {"fidelity", "privacy"}, "utility is tried again"
    assert "== report" in told.out.splitlines() and (results / "results.html").exists()


def test_encoders_whose_packages_are_missing_are_named(
    sources: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in ("transformers", "torchxrayvision"):
        monkeypatch.setitem(sys.modules, package, None)
    assert main(["run", *map(str, sources.values()), str(tmp_path / "results")]) == 1
    told = capsys.readouterr().err.splitlines()
    start = told.index("error: no encoder can be used; name one with --encoder")
    assert [line.partition(": ")[0] for line in told[start + 1 :]] == [f"encoder {name}" for name in AUTOMATIC]
    assert all(": pip install " in line for line in told[start + 1 :])
    assert not (tmp_path / "results").exists()


# Interruptions


def without_times(results: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((results / "results.json").read_bytes())
    return {
        name: {**section, "created": None} if isinstance(section, dict) else section for name, section in found.items()
    }


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_results(
    run: Run, sources: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run(whole) == 0
    program = [sys.executable, str(ROOT / "scripts" / "evaluate_images.py"), "run"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    codes = []
    for written in ("features/train/features.json", "results.json", ".steps.json"):  # the last: in the second section
        process = subprocess.Popen(
            [*program, *map(str, sources.values()), str(killed), *PIXELS, *GIVEN],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        while not (killed / written).exists():
            assert process.poll() in (None, 0), process.communicate()
            time.sleep(0.001)
        process.kill()
        process.communicate()
        codes.append(process.returncode)
    assert codes[0] == -signal.SIGKILL and {*codes[1:]} <= {-signal.SIGKILL, 0}, "0: it ended before the signal came"
    capsys.readouterr()
    assert run(killed) == 0
    told = capsys.readouterr()
    assert told.out.splitlines().count("== fidelity: done before") == 1
    assert told.out.count(": 0 images embedded") == 3
    assert without_times(killed) == without_times(whole)
    for side in ("train", "synthetic", "test"):
        assert contents(killed / "features" / side / "data") == contents(whole / "features" / side / "data")


# Other encoders and other images than before


def encoders_in(results: Path) -> set[str]:
    found = read_results(results / "results.json").fidelity
    assert found
    return {*found.synthetic.encoders}


def test_another_encoder_is_added(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "results"
    assert run(results) == 0
    assert run(results, encoders=EDGES) == 0
    assert encoders_in(results) == {"embedding-pixels", "embedding-edges"}
    assert capsys.readouterr().out.count(": 12 images embedded") == 6


def change_prompt(source: Path) -> None:
    path = source / "metadata.csv"
    path.write_text(path.read_text().replace("Radiograph made-00003.png.", "Edema."))


def change_image(source: Path) -> None:
    with zipfile.ZipFile(source / "images-0.zip") as archive:
        images = {name: archive.read(name) for name in archive.namelist()}
    images["made-00003.png"] = encoded(PIL.Image.new("L", (48, 48)), "made-00003.png")
    to_zip(source / "images-0.zip", images)


def change_loose_image(source: Path) -> None:
    to_files(source, {"made-00003.png": encoded(PIL.Image.new("L", (48, 48)), "made-00003.png")})


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ([], ["--limit", "6"], "train has features of embedding-pixels too, of other images (12; this run takes 6): "),
        (["--limit", "6"], [], "train has features of embedding-pixels too, of other images (6; this run takes 12): "),
        (
            [],
            ["--patient-column", "prompt"],
            "train has features of embedding-pixels too, of an image, prompt, label or patient that has changed: ",
        ),
    ],
)
def test_another_encoder_of_other_images_is_refused_before_an_image_is_embedded(
    before: list[str],
    after: list[str],
    message: str,
    run: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    results = tmp_path / "results"
    assert run(results, *before) == 0
    kept = contents(results)
    capsys.readouterr()
    assert run(results, *after, encoders=EDGES) == 1
    told = capsys.readouterr()
    assert f"error: {results}/features/{message}" in told.err.splitlines()[-1]
    assert "== embed" not in told.out + told.err
    assert contents(results) == kept


@pytest.mark.parametrize("change", [change_prompt, change_image, change_loose_image])
def test_another_encoder_of_changed_images_is_refused_before_an_image_is_embedded(
    change: Callable[[Path], None],
    run: Run,
    sources: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    results, is_loose = tmp_path / "results", change is change_loose_image
    if is_loose:
        with zipfile.ZipFile(sources["made"] / "images-0.zip") as archive:
            archive.extractall(sources["made"])
        (sources["made"] / "images-0.zip").unlink()
    assert run(results) == 0
    change(sources["made"])
    kept = contents(results)
    capsys.readouterr()
    assert run(results, encoders=EDGES) == 1
    told = capsys.readouterr()
    assert told.err.splitlines()[-1] == (
        f"error: {results}/features/synthetic has features of embedding-pixels too, of an image, prompt, label or "
        "patient that has changed: made-00003.png. Take the same images as before, or name that encoder as well; else "
        f"delete {results}/features, or name another folder (--overwrite only replaces features of encoders that are "
        "named)."
    )
    assert "== embed" not in told.out + told.err
    assert contents(results) == kept
    assert run(results, encoders=[*PIXELS, *EDGES]) == 0
    assert encoders_in(results) == {"embedding-pixels", "embedding-edges"}


def test_an_earlier_encoder_that_is_gone_is_left_behind_without_its_features(
    run: Run, sources: dict[str, Path], tmp_path: Path
) -> None:
    results = tmp_path / "results"
    assert run(results) == 0
    change_prompt(sources["made"])
    assert run(results, "--overwrite", encoders=EDGES) == 1
    shutil.rmtree(results / "features")  # as the message tells
    assert run(results, encoders=EDGES) == 0
    assert encoders_in(results) == {"embedding-edges"}


def test_images_are_read_once_to_compare_them_with_those_of_all_earlier_encoders(
    run: Run,
    sources: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with zipfile.ZipFile(sources["made"] / "images-0.zip") as archive:
        archive.extractall(sources["made"])
    (sources["made"] / "images-0.zip").unlink()
    results = tmp_path / "results"
    assert run(results, encoders=[*PIXELS, *EDGES]) == 0
    monkeypatch.setattr("pipeline.progress.LOG_INTERVAL", 0)  # each image has a line
    capsys.readouterr()
    assert run(results, encoders=["--encoder", "embedding:with_little_memory"]) == 0
    assert capsys.readouterr().err.count("Checking images: 5/12") == 1
    change_prompt(sources["made"])
    assert run(results, encoders=["--encoder", "embedding:in_place"]) == 1
    assert "Checking images" not in capsys.readouterr().err, "the prompts tell it"


def test_what_would_be_lost_on_one_side_is_refused_before_the_others_are_embedded(
    run: Run, sources: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    sources["made"] = write_planted(tmp_path / "more", "made", 20)
    assert run(results, sources=sources) == 0
    kept = contents(results)
    capsys.readouterr()
    assert run(results, "--limit", "13", sources=sources, encoders=[*PIXELS, *EDGES]) == 1
    told = capsys.readouterr()
    assert f"error: {results}/features/synthetic contains the result of another" in told.err.splitlines()[-1]
    assert "== embed" not in told.out + told.err
    assert contents(results) == kept


def test_an_encoder_that_one_side_lacks_is_no_reason_to_refuse(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As after a run that ended before it embedded the last side."""
    results = tmp_path / "results"
    assert run(results) == 0
    shutil.rmtree(results / "features" / "test")
    assert run(results, "--limit", "6", encoders=EDGES) == 0
    assert encoders_in(results) == {"embedding-edges"}


# What an encoder finds


def test_an_encoder_that_changes_the_working_directory(
    sources: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = [os.path.relpath(source) for source in sources.values()]
    assert main(["run", *names, "results", "--encoder", "embedding:elsewhere", *GIVEN]) == 0
    assert encoders_in(tmp_path / "results") == {"embedding-elsewhere"}
    assert (tmp_path / "results" / "results.html").exists()


def test_the_plans_of_the_splits_are_gone_when_images_are_embedded(sources: dict[str, Path], tmp_path: Path) -> None:
    module = "import embedding, gc\nfrom pipeline.evaluate.settings import Example\n\ndef embed(images):\n"
    module += "    assert not [one for one in gc.get_objects() if isinstance(one, Example)]\n"
    (tmp_path / "counts_examples.py").write_text(f"{module}    return embedding.pixels(images)\n")
    command = [sys.executable, str(ROOT / "scripts" / "evaluate_images.py"), "run", *map(str, sources.values())]
    command += [str(tmp_path / "results"), "--encoder", "counts_examples:embed", *GIVEN]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT / 'tests'}"}
    # In a process of its own, which has no examples of other tests.
    subprocess.run(command, env=environment, check=True)


# Images that are added, and fewer images than there are


def add_images(source: Path, prompts: dict[str, str]) -> None:
    """Adds images, with these names and prompts, and the labels and the patient of the first image."""
    path, number = source / "metadata.csv", len([*source.glob("*.zip")])
    rows = [*csv.DictReader(io.StringIO(path.read_text()))]
    added = [{**rows[0], "filename": name, "prompt": prompt} for name, prompt in prompts.items()]
    path.write_bytes(to_csv([*rows, *added]))
    drawn = {name: PIL.Image.new("L", (48, 48), 40 * place) for place, name in enumerate(prompts)}
    to_zip(source / f"images-{number}.zip", {name: encoded(image, name) for name, image in drawn.items()})


def encoded(image: PIL.Image.Image, name: str) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG" if name.endswith("png") else "JPEG")
    return file.getvalue()


def privacy_of(results: Path) -> Section:
    found = read_results(results / "results.json").privacy
    assert found
    return found


@pytest.fixture
def twins(sources: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    """Sources of which each synthetic image is named for a training image."""
    train = write_planted(tmp_path / "paired", "train", 20)
    return {**sources, "train": train, "made": write_planted(tmp_path, "SyntheticImg_train", 20, seed=1)}


@pytest.mark.parametrize(("limit", "pairs"), [(4, 0), (8, 2), (20, 20)])
def test_pairs_are_those_of_the_images_that_the_limit_chose(
    limit: int, pairs: int, run: Run, twins: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    assert run(results, "--limit", str(limit), sources=twins) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("skipped: privacy of pairs: ")]
    none = (
        "skipped: privacy of pairs: no synthetic image that --limit chose is named for a training image that it chose"
    )
    assert told == ([] if pairs else [none])
    section = privacy_of(results)
    rows = {"train": limit, "synthetic": limit, "heldout": min(limit, 12)}
    assert {name: side.rows for name, side in section.sides.items()} == rows
    assert section.options["pair"] == ("filename" if pairs else None)
    paired = {one.n["synthetic"] for one in section.metrics if "same-patient pairs" in one.n}
    assert paired == ({pairs} if pairs else set())
    assert (results / "results.html").exists()


def test_a_larger_limit_adds_images(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results, whole = tmp_path / "results", tmp_path / "whole"
    assert run(results, "--limit", "6") == 0
    assert run(results) == 0
    told = capsys.readouterr()
    assert told.out.count(": 6 images embedded") == 6, "the first ones of three sources, and then the others"
    assert "done before" not in told.out + told.err
    assert run(whole) == 0
    assert privacy_of(results).metrics == privacy_of(whole).metrics


def test_a_limit_that_leaves_too_few_images_is_an_error_before_the_long_work(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    assert run(results, "--limit", "1") == 1
    assert "all real training images are of one patient" in capsys.readouterr().err.splitlines()[-1]
    assert not results.exists()


def test_training_images_that_differ_in_their_endings_only_make_no_pairs(
    run: Run, twins: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_images(twins["train"], {"train-00000.jpg": "Radiograph train-00000.jpg."})
    assert run(tmp_path / "results", sources=twins) == 0
    assert (
        "skipped: privacy of pairs: training images differ in the ending of their names only: train-00000.jpg; "
        "train-00000.png" in capsys.readouterr().out.splitlines()
    )
    assert privacy_of(tmp_path / "results").options["pair"] is None


@pytest.mark.parametrize(("prompt", "is_pair"), [("Edema.", True), ("No edema.", False)])
def test_endings_count_where_the_image_is_of_one_of_them_only(
    prompt: str, is_pair: bool, run: Run, twins: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`SyntheticImg_x_1.png` is of `x_1` or a replicate of `x`, as its prompt tells: `run` asks what `privacy` does."""
    add_images(twins["train"], {"x_1.png": "Edema.", "x.png": "No edema.", "x.jpg": "No edema."})
    add_images(twins["made"], {"SyntheticImg_x_1.png": prompt})
    assert run(tmp_path / "results", sources=twins) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("skipped: privacy of pairs: ")]
    reason = "training images differ in the ending of their names only: x.jpg; x.png"
    assert told == ([] if is_pair else [f"skipped: privacy of pairs: {reason}"])
    assert privacy_of(tmp_path / "results").options["pair"] == ("filename" if is_pair else None)


# The model that writes reports


def test_the_model_and_its_revision_are_checked_before_the_long_work(
    run: Run, hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.create("alice/tiny", files={"config.json": b"{}"})
    hub.create("alice/other", files={"config.json": b"[]"})
    (tmp_path / "tiny").mkdir()
    for options, message in (
        (["--report-revision", "v1"], "--report-revision v1: name the model with --report-model"),
        (
            ["--report-model", str(tmp_path / "tiny"), "--report-revision", "v1"],
            f"a revision is for models on the Hub; {tmp_path / 'tiny'} is a local path",
        ),
        (["--report-model", "alice/tiny", "--report-revision", "v1"], "alice/tiny@v1: no such model or revision"),
        (["--report-model", "no-folder"], "no-folder: no such folder, and not a name on the Hub"),
        (
            ["--report-model", str(tmp_path / "tiny")],
            f"{tmp_path / 'tiny'} is no model of transformers: it has no config.json",
        ),
        (["--report-model", "alice/other"], "alice/other is no model of transformers: config.json holds no object"),
    ):
        assert run(tmp_path / "results", *options) == 1
        assert f"error: {message}" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "results").exists()
