"""Programs in unusual environments: other locales, optimised Python, few open files, impatient users, odd names."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import FIXTURE, ROOT, Source, contents, convert, loose, to_files
from pipeline.folder import MANIFEST

SCRIPTS = ROOT / "scripts"
LOCALES = {  # Python 3.10 to 3.13 turn to UTF-8 in the locale C, unless they are told not to
    "C": {"LC_ALL": "C"},
    "ASCII": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "strict ASCII": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii:strict"},
}
SLOW = pytest.mark.slow


def run(
    program: str,
    *arguments: str | Path,
    python: tuple[str, ...] = (),
    environment: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *python, str(SCRIPTS / program), *map(str, arguments)]
    variables = {**os.environ, **(environment or {})}
    return subprocess.run(command, env=variables, capture_output=True, text=True, errors="surrogateescape", timeout=60)


# Locales and names


@pytest.mark.parametrize("locale", [*(pytest.param(name, marks=SLOW) for name in ("C", "ASCII")), "strict ASCII"])
def test_folder_whose_name_is_not_utf_8(locale: str, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"gr\xf6\xdfe")
    shutil.copytree(FIXTURE, folder / "source")
    for options in ([], ["--verify"]):
        arguments = ["--no-figures", *options]
        ran = run("convert_to_parquet.py", folder / "source", folder / "o", *arguments, environment=LOCALES[locale])
        assert (ran.returncode, ran.stderr) == (0, "")
    assert convert(FIXTURE, tmp_path / "o") == 0
    assert {**contents(folder / "o"), MANIFEST: b""} == {**contents(tmp_path / "o"), MANIFEST: b""}


@pytest.mark.slow
@pytest.mark.parametrize("locale", LOCALES)
def test_help_in_any_locale(locale: str) -> None:
    for program in ("convert_to_parquet.py", "pack_shards.py", "filter_quality.py"):
        shown = run(program, "--help", environment=LOCALES[locale])
        assert (shown.returncode, shown.stderr) == (0, "")


def test_odd_file_names_are_escaped(tmp_path: Path) -> None:
    names = {"a\nb": "a\\nb", "\x1b[2J": "\\x1b[2J", os.fsdecode(b"\xff"): "\\udcff", "\u202e": "\\u202e"}
    to_files(tmp_path / "o", dict.fromkeys(names, b"mine"))
    refused = run("convert_to_parquet.py", FIXTURE, tmp_path / "o")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.count("\n") == 1
    assert all(escaped in refused.stderr for escaped in names.values())
    for name in names:
        (tmp_path / "o" / name).unlink()
    assert convert(FIXTURE, tmp_path / "o") == 0
    to_files(tmp_path / "o", dict.fromkeys(names, b"mine"))
    compared = run("convert_to_parquet.py", FIXTURE, tmp_path / "o", "--verify")
    assert (compared.returncode, compared.stderr) == (1, "")
    wanted = {f"{escaped}: unexpected file" for escaped in names.values()}
    assert {*compared.stdout.splitlines()} == {*wanted, "differences: 4"}


@pytest.mark.slow
def test_images_with_odd_names_are_left_out(source: Source, images: dict[str, bytes], tmp_path: Path) -> None:
    folder = source(shape=loose)
    image = next(iter(images.values()))
    to_files(folder, {os.fsdecode(b"\xff.png"): image, "a\nb.png": image})
    refused = run("convert_to_parquet.py", folder, tmp_path / "o")
    assert (refused.returncode, "Traceback" in refused.stderr) == (1, False)
    assert "\\udcff.png" in refused.stderr
    assert run("convert_to_parquet.py", folder, tmp_path / "o", "--on-mismatch", "skip").returncode == 0


# Python's options


@pytest.mark.parametrize(
    "command",
    [
        ["filter_quality.py", "apply"],
        *(pytest.param([name], marks=SLOW) for name in ("pack_shards.py", "convert_to_parquet.py")),
    ],
)
def test_help_is_the_same_in_optimised_python(command: list[str]) -> None:
    shown, wanted = (run(*command, "--help", python=python) for python in (("-OO",), ()))
    assert (shown.returncode, shown.stderr, shown.stdout) == (0, "", wanted.stdout)
    assert len(shown.stdout.splitlines()) > 20


# Limits of the system


@pytest.mark.parametrize("limit", [16, pytest.param(18, marks=SLOW)])
def test_workers_end_if_not_all_of_them_can_start(limit: int, tmp_path: Path) -> None:
    code = f"""
import resource, sys
import convert_to_parquet

resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))
sys.exit(convert_to_parquet.main(sys.argv[1:]))  # which waits for all workers, unlike `cli.start`
"""
    arguments = [str(FIXTURE), str(tmp_path / "o"), "--no-figures", "--num-proc", "4"]
    command = [sys.executable, "-c", code, *arguments]
    ended = subprocess.run(command, cwd=SCRIPTS, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert re.fullmatch(r"error: \[Errno 24\] Too many open files.*\n", ended.stderr)


# Ctrl-C


def test_ctrl_c_during_the_imports_prints_one_line() -> None:
    code = """
import os, runpy, signal, sys

class Finder:
    def find_spec(self, name, *_):
        if name == "pyarrow":
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)  # not so in a background job
sys.meta_path.insert(0, Finder())
sys.path.insert(0, os.path.dirname(sys.argv[1]))
runpy.run_path(sys.argv[1], run_name="__main__")
"""
    command = [sys.executable, "-c", code, str(SCRIPTS / "pack_shards.py")]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "\ninterrupted\n")
