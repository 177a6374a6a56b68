"""Conversions: `convert_to_parquet.py` beside the methods that its users would use instead, and `cp`."""

from __future__ import annotations

import functools
import shutil
import statistics
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.benchmark.measure import PEERS, SCRIPTS, Measurement, described, in_turns, make_environment, measure
from pipeline.benchmark.reading import compare_readings
from pipeline.benchmark.sources import make_sources
from pipeline.errors import StepError, one_line

ENVIRONMENTS = {  # by name: packages that uv installs
    "2.21.0": ["datasets==2.21.0", "pillow"],
    "3.6.0": ["datasets==3.6.0", "pillow"],
    "4.8.5": ["datasets==4.8.5", "pillow"],
    "newest": ["datasets", "pillow", "duckdb"],
    "fast": ["datasets", "pillow", "zlib-ng"],
}
MIN_IMAGES = 400  # so that there is a page of 100 rows to read


def compare_conversions(
    work: Path, images: int, num_proc: int, rounds: int, with_readings: bool, before: str | None
) -> Iterator[str]:
    """Measures conversions, and then how fast each form is read.

    Args:
        work: An empty folder.
        images: How many to convert.
        num_proc: Processes of the converter.
        rounds: How often each method is measured.
        with_readings: Measure readings too.
        before: A commit whose converter is measured too.

    Yields:
        Lines of Markdown.

    Raises:
        StepError: There are too few images, or there is no such commit.
    """
    if images < MIN_IMAGES:
        raise StepError(f"--images: at least {MIN_IMAGES}, so that there is a page of 100 rows to read")
    older = check_out(before, work / "before") if before else None
    pythons = {name: make_environment(work / "env" / name, packages) for name, packages in ENVIRONMENTS.items()}
    size = make_sources(work, images)
    methods = conversions(work, pythons, num_proc, older)
    watched = in_turns({name: functools.partial(run, watch_memory=True) for name, run in methods.items()}, rounds)
    results = in_turns(methods, rounds)
    machine = described(pythons["newest"], "datasets", "pyarrow")
    yield f"{images:,} images, {size / 1e6:,.0f} MB; medians of {rounds} runs; {machine}"
    yield ""
    yield from conversion_table(results, watched, size)
    if with_readings:
        yield ""
        yield from compare_readings(work, pythons, rounds)


def check_out(commit: str, folder: Path) -> Path:
    """Writes the files of a commit of this repository into a new folder, and returns its `scripts`.

    Raises:
        StepError: There is no such commit.
    """
    folder.mkdir()
    git = subprocess.run(["git", "-C", str(SCRIPTS.parent), "archive", commit], capture_output=True)
    if git.returncode:
        raise StepError(f"--before {commit}: {one_line(git.stderr.decode(errors='replace'))}")
    subprocess.run(["tar", "-x", "-C", str(folder)], input=git.stdout, check=True)
    return folder / "scripts"


def conversions(
    work: Path, pythons: dict[str, str], num_proc: int, older: Path | None
) -> dict[str, Callable[..., Measurement]]:
    """Returns the methods that convert the source, by name; `older` is the folder of an older converter."""
    release, folder, output = work / "release", work / "imagefolder", work / "output"

    def method(*command: str | Path) -> Callable[..., Measurement]:
        def run(watch_memory: bool = False) -> Measurement:
            shutil.rmtree(output, ignore_errors=True)
            return measure([*command], work / "home", watch_memory)

        return run

    def converter(scripts: Path, processes: int, python: str = "newest") -> Callable[..., Measurement]:
        program = scripts / "convert_to_parquet.py"
        return method(pythons[python], program, release, output, "--no-figures", "--num-proc", str(processes))

    several, one = f"`convert_to_parquet.py`, {num_proc} processes", "`convert_to_parquet.py`, 1 process"
    before = {several: converter(older, num_proc), one: converter(older, 1)} if older else {}
    return {
        several: converter(SCRIPTS, num_proc),
        one: converter(SCRIPTS, 1),
        f"{several}, with zlib-ng": converter(SCRIPTS, num_proc, "fast"),
        **{f"{name}, before": run for name, run in before.items()},
        "`load_dataset` of the script + `to_parquet`, `datasets` 3.6.0": method(
            pythons["3.6.0"], PEERS, "convert_script", release, output
        ),
        "`imagefolder` + `to_parquet`, newest `datasets`": method(
            pythons["newest"], PEERS, "convert_imagefolder", folder, output
        ),
        "`cp -r`": method("cp", "-r", release, output),
        "`import datasets`, with which all but `cp` begin": method(pythons["newest"], "-c", "import datasets"),
    }


def conversion_table(
    results: dict[str, list[Measurement]], watched: dict[str, list[Measurement]], size: int
) -> Iterator[str]:
    """Yields the lines of the table of conversions; the memory is that of the watched runs."""
    yield "| method | time | MB/s | peak memory | time, relative to the first |"
    yield "|---|---|---|---|---|"
    medians = {name: statistics.median(run.seconds for run in runs) for name, runs in results.items()}
    first = next(iter(medians.values()))
    for name, seconds in medians.items():
        speed, peak = size / 1e6 / seconds, statistics.median(run.memory for run in watched[name]) / 1e6
        yield f"| {name} | {seconds:.1f} s | {speed:,.0f} | {peak:,.0f} MB | {seconds / first:.2f} |"
