"""Measures commands: seconds and memory, in turns."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from tqdm import tqdm

from pipeline.errors import StepError, one_line

HERE = Path(__file__).resolve().parent
SCRIPTS = HERE.parents[1]
PEERS = HERE / "peers.py"


class Measurement(NamedTuple):
    """One run of a command: seconds, peak memory in bytes if it was watched, and output."""

    seconds: float
    memory: int
    output: str

    @property
    def figures(self) -> Any:
        """What the command printed last, as JSON."""
        return json.loads(self.output.splitlines()[-1])


def make_environment(folder: Path, packages: list[str]) -> str:
    """Creates a virtual environment with uv and returns its Python."""
    subprocess.run(["uv", "venv", "--quiet", "--python", sys.executable, folder], check=True)
    python = str(folder / "bin" / "python")
    subprocess.run(["uv", "pip", "install", "--quiet", "--compile-bytecode", "--python", python, *packages], check=True)
    return python


def check_imports(python: str, *packages: str) -> None:
    """Checks what `--python` names.

    Args:
        python: Path of a Python.
        packages: Packages that it must have.

    Raises:
        StepError: It cannot be run, or cannot import a package.
    """
    for package in packages:
        try:
            run = subprocess.run([python, "-c", f"import {package}"], capture_output=True, text=True)
        except OSError as error:
            raise StepError(f"--python: {python} cannot be run: {error.strerror}") from None
        if run.returncode:
            reason = one_line(run.stderr.strip().rpartition("\n")[2])
            raise StepError(f"--python: {python} cannot import {package} ({reason}); name one that has it")


def described(python: str, *packages: str) -> str:
    """Returns the machine and the versions of a Python and its packages, for the line above a table."""
    script = "import platform, sys; from importlib.metadata import version"
    script += "; print(platform.python_version(), *(version(name) for name in sys.argv[1:]))"
    run = subprocess.run([python, "-c", script, *packages], capture_output=True, text=True, check=True)
    versions = ", ".join(map(" ".join, zip(["Python", *packages], run.stdout.split())))
    memory = psutil.virtual_memory().total / 2**30
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}, {versions}"


def measure(command: list[str | Path], home: Path, watch_memory: bool = False) -> Measurement:
    """Runs a command until the files it wrote are on the disk.

    Args:
        command: Program and arguments.
        home: Folder for the caches of `datasets`; emptied before.
        watch_memory: Watch the memory, which slows the command.

    Returns:
        The measurement.
    """
    shutil.rmtree(home, ignore_errors=True)
    os.sync()  # so that the files of others do not count
    environment = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    start, memory = time.monotonic(), 0
    with tempfile.TemporaryFile("w+") as log:
        with subprocess.Popen([str(word) for word in command], stdout=log, stderr=log, env=environment) as process:
            try:
                while watch_memory and process.poll() is None:
                    memory = max(memory, used_memory(process.pid))
                    time.sleep(0.05)
                process.wait()
            finally:
                process.kill()  # after Ctrl-C it would write on
                process.wait()  # which `Popen` does not do after Ctrl-C
        os.sync()
        seconds = time.monotonic() - start
        log.seek(0)
        output = log.read()
    if process.returncode:
        raise SystemExit(f"{command} failed:\n{output}")
    return Measurement(seconds, memory, output)


def used_memory(pid: int) -> int:
    """Returns the memory of a process and its children, shared pages counted once (PSS): bytes."""
    total = 0
    try:
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            total += process.memory_full_info().pss
    except psutil.Error:  # a process has just ended
        pass
    return total


def in_turns(methods: dict[str, Callable[..., Measurement]], rounds: int) -> dict[str, list[Measurement]]:
    """Measures each method once, then each again, so that a disturbance of the machine hits all of them."""
    results: dict[str, list[Measurement]] = {name: [] for name in methods}
    turns = [name for _ in range(rounds) for name in methods]
    for name in (bar := tqdm(turns, unit="run")):
        bar.set_description(name)
        results[name].append(methods[name]())
    return results
