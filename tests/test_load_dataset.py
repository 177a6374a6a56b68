"""`load_dataset` and `datasets-cli` with the loading script, on the versions of `datasets` that run scripts (< 4)."""

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import DatasetDict, IterableDatasetDict, load_dataset

from conftest import FIXTURE, ROOT, Rows, contents
from servers.local_hub import Hub

SCRIPT = str(ROOT / "synthchex_75k.py")


@pytest.mark.parametrize("options", [{}, {"num_proc": 2}, {"streaming": True}], ids=str)
def test_rows_are_those_of_the_source(
    options: dict[str, Any], expected: Rows, rows_of: Callable[..., Rows], tmp_path: Path
) -> None:
    keywords = {"data_dir": str(FIXTURE), "uncertainty": "keep", "on_mismatch": "error", "cache_dir": str(tmp_path)}
    dataset = load_dataset(SCRIPT, trust_remote_code=True, **keywords, **options)
    assert isinstance(dataset, IterableDatasetDict if options.get("streaming") else DatasetDict)
    assert list(dataset) == ["train"]
    assert rows_of(dataset["train"]) == expected


def test_default_source_is_the_folder_of_the_script(
    expected: Rows, rows_of: Callable[..., Rows], tmp_path: Path
) -> None:
    shutil.copytree(FIXTURE, tmp_path / "release")
    shutil.copy(SCRIPT, tmp_path / "release")
    script = str(tmp_path / "release" / "synthchex_75k.py")
    options = {"trust_remote_code": True, "cache_dir": str(tmp_path / "cache"), "uncertainty": "keep"}
    assert rows_of(load_dataset(script, split="train", **options)) == expected
    assert rows_of(load_dataset(script, split="train", streaming=True, **options)) == expected


@pytest.mark.parametrize("streaming", [True, False])
def test_default_source_is_the_hub_repository_of_the_script(
    streaming: bool, expected: Rows, rows_of: Callable[..., Rows], hub: Hub, tmp_path: Path
) -> None:
    tests = {
        f"tests/{path}": data for path, data in contents(ROOT / "tests").items()
    }  # their fixture must not become the source
    ours = {name: (ROOT / name).read_bytes() for name in ("synthchex_75k.py", "README.md")}
    hub.create("somebody/synthchex_75k", files={**contents(FIXTURE), **ours, **tests})
    cache = {} if streaming else {"cache_dir": str(tmp_path)}
    options = {"uncertainty": "keep", "streaming": streaming, "trust_remote_code": True, **cache}
    assert rows_of(load_dataset("somebody/synthchex_75k", split="train", **options)) == expected


def test_missing_metadata_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"no metadata CSV"):
        load_dataset(SCRIPT, data_dir=str(tmp_path), trust_remote_code=True, cache_dir=str(tmp_path / "cache"))


def test_data_files_are_refused() -> None:
    files = str(FIXTURE / "data" / "*.zip")
    with pytest.raises(ValueError, match="data_files is not used: give the folder of the source as data_dir"):
        load_dataset(SCRIPT, data_files=files, trust_remote_code=True)


def test_script_needs_trust_remote_code(tmp_path: Path) -> None:
    shutil.copytree(FIXTURE, tmp_path / "release")
    untrusted = tmp_path / "release" / "synthchex_75k.py"
    untrusted.write_text(Path(SCRIPT).read_text() + f"\n# {tmp_path}\n")  # a text that was not trusted before
    with pytest.raises(ValueError, match="trust_remote_code"):
        load_dataset(str(untrusted), trust_remote_code=False)


@pytest.mark.slow
def test_datasets_cli_reads_all_rows(tmp_path: Path) -> None:
    shutil.copytree(FIXTURE, tmp_path / "release")
    shutil.copy(SCRIPT, tmp_path / "release")
    cli = [str(Path(sys.executable).with_name("datasets-cli")), "test", str(tmp_path / "release" / "synthchex_75k.py")]
    options = ["--trust_remote_code", "--save_info", "--cache_dir", str(tmp_path / "cache")]
    run = subprocess.run([*cli, *options], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "Test successful." in run.stdout + run.stderr
    assert "num_examples: 12" in (tmp_path / "release" / "README.md").read_text()


NEWEST = """
import sys
import datasets
rows = datasets.load_dataset("alice/synthchex_75k", split="train", streaming=True)
print(datasets.__version__, [row["filename"] for row in rows])
sys.stdout.flush()
__import__("os")._exit(0)
"""


# `datasets` 3 could convert too.
PROGRAMS = ["datasets-cli", "convert_to_parquet.py"] if datasets.__version__ > "3" else ["convert_to_parquet.py"]


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
def test_converted_repository_loads_with_the_newest_datasets(
    program: str, hub: Hub, images: dict[str, bytes], tmp_path: Path
) -> None:
    ours = {name: (ROOT / name).read_bytes() for name in ("synthchex_75k.py", "README.md")}
    hub.create("alice/synthchex_75k", files={**contents(FIXTURE), **ours})
    environment = {**os.environ, "HF_TOKEN": "hf_alice"}
    if program == "datasets-cli":
        cli = [str(Path(sys.executable).with_name("datasets-cli")), "convert_to_parquet", "alice/synthchex_75k"]
        subprocess.run([*cli, "--trust_remote_code"], env=environment, capture_output=True, check=True)
        hub.merge("alice/synthchex_75k", 1)
    else:
        convert = [sys.executable, str(ROOT / "scripts" / "convert_to_parquet.py"), str(FIXTURE), str(tmp_path / "o")]
        publish = ["--no-figures", "--push-to-hub", "alice/synthchex_75k"]
        subprocess.run([*convert, *publish], env=environment, capture_output=True, check=True)
    assert not [path for path in hub.files("alice/synthchex_75k") if path.endswith((".py", ".zip"))]
    assert "synthchex_75k.py" in hub.files("alice/synthchex_75k", "script")
    newest = ["uv", "run", "--isolated", "--no-project", "--with", "datasets==5.*", "--with", "pillow", "python", "-c"]
    run = subprocess.run([*newest, NEWEST], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    version, _, names = run.stdout.partition(" ")
    assert version.startswith("5.")
    assert ast.literal_eval(names) == [*images]
