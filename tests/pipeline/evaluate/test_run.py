"""The command `run`, with an encoder that needs numpy only."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from evaluate_images import main
from pipeline.evaluate.results.results import read_results, update_results
from planted import PATIENTS, write_planted

Run = Callable[..., int]


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, Path]:
    return {
        name: write_planted(tmp_path, name, 12, seed=number) for number, name in enumerate(("train", "made", "test"))
    }


@pytest.fixture
def run(sources: dict[str, Path]) -> Run:
    def call(results: Path, *options: str) -> int:
        given = ["--encoder", "embedding:pixels", "--patient-column", PATIENTS, "--seeds", "1", "--labels", "none"]
        return main(["run", *map(str, sources.values()), str(results), *given, *options])

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
