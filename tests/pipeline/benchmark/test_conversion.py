"""`benchmark.py --before`: the converter of an older commit."""

from pathlib import Path

import pytest

from conftest import ROOT
from pipeline.benchmark.conversion import check_out
from pipeline.errors import StepError


def test_a_commit_is_checked_out_beside_this_one(tmp_path: Path) -> None:
    scripts = check_out("HEAD", tmp_path / "before")
    assert (scripts / "convert_to_parquet.py").is_file()
    assert {path.name for path in scripts.parent.iterdir()} >= {"synthchex_75k.py", "tests"}
    assert ROOT not in scripts.parents


def test_an_unknown_commit_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"--before no-such-commit: .*no-such-commit"):
        check_out("no-such-commit", tmp_path / "before")
