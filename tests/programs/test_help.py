"""`--help` of every program, with the packages and without them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import FIXTURE, ROOT

PROGRAMS = sorted(path.name for path in (ROOT / "scripts").glob("*.py") if path.name != "benchmark.py")
COMMANDS = [[name] for name in PROGRAMS] + [["filter_quality.py", name] for name in ("label", "report", "apply")]
EVALUATE = [
    ["evaluate_images.py", name]
    for name in ("embed", "fidelity", "privacy", "utility", "reports", "score", "report", "run")
]


def run(
    command: list[str], *python: str, cwd: Path | None = None, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, *python, str(ROOT / "scripts" / command[0]), *command[1:]]
    return subprocess.run(program, capture_output=True, text=True, errors="replace", cwd=cwd, env=environment)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_shows_examples_and_defaults_from_any_folder(command: list[str], tmp_path: Path) -> None:
    shown = run([*command, "--help"], cwd=tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert f"usage: {' '.join(command)}" in shown.stdout
    assert "\nexamples:\n  python scripts/" in shown.stdout
    text = " ".join(shown.stdout.split())
    options = re.findall(r"--num-proc|--on-mismatch|--max-shard-size|--concurrency|--engine", text)
    assert all(re.search(rf"{option} .*?\(?default", text) for option in options)


@pytest.mark.parametrize("name", PROGRAMS)
def test_without_packages_one_line_names_what_to_install(name: str) -> None:
    shown = run([name, "--help"], "-S")  # no site-packages
    assert (shown.returncode, shown.stdout) == (1, "")
    assert re.fullmatch(r"error: this program needs the Python package \w+: pip install .*datasets.*\n", shown.stderr)


@pytest.mark.slow  # all packages are compiled once more
def test_programs_run_without_docstrings(tmp_path: Path) -> None:
    for command in [*COMMANDS, *EVALUATE]:
        shown = run([*command, "--help"], "-OO")
        assert (shown.returncode, shown.stderr) == (0, "")
        assert "\nexamples:\n  python scripts/" in shown.stdout
    shown = run(["convert_to_parquet.py", str(FIXTURE), str(tmp_path / "o"), "--no-figures"], "-OO")
    assert (shown.returncode, shown.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "C"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "ascii"},
    ],
    ids=str,
)
def test_a_folder_may_have_any_name_in_any_locale(environment: dict[str, str], tmp_path: Path) -> None:
    source = tmp_path / "Röntgen 胸片"
    shutil.copytree(FIXTURE, source)
    output = source.with_name("Ausgabe für 胸片")
    for options in (["--figures"], ["--no-figures"], ["--verify"]):
        command = ["convert_to_parquet.py", str(source), str(output), *options]
        shown = run(command, environment={**os.environ, **environment})
        assert (shown.returncode, shown.stderr) == (0, ""), options
    shown = run(["convert_to_parquet.py", f"{source}/nothing", str(output)], environment={**os.environ, **environment})
    assert shown.returncode == 1
    assert re.fullmatch(r"error: .*nothing: no such file or folder.*\n", shown.stderr)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_missing_argument_is_a_usage_error(name: str) -> None:
    shown = run([name])
    assert shown.returncode == 2
    assert shown.stderr.startswith(f"usage: {name}")
