"""Readings: how fast each form of the data is read, filtered and checked."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.benchmark.measure import PEERS, SCRIPTS, Measurement, in_turns, measure

FORMS = {"Parquet": "parquet", "script, 3.6.0": "release", "`imagefolder`": "imagefolder", "WebDataset": "webdataset"}

CACHES = ("newest", "4.8.5", "3.6.0", "2.21.0")  # environments


def compare_readings(work: Path, pythons: dict[str, str], rounds: int) -> Iterator[str]:
    """Measures readings.

    Args:
        work: Folder with the sources of `make_sources`.
        pythons: By name, those of `ENVIRONMENTS`.
        rounds: How often each method is measured.

    Yields:
        Lines of Markdown.
    """
    program = SCRIPTS / "convert_to_parquet.py"
    measure([pythons["newest"], program, "--no-figures", work / "release", work / "parquet"], work / "home")
    yield from reading_table(in_turns(readings(work, pythons), rounds))
    yield ""
    yield from cache_table(in_turns(caches(work, pythons), rounds))
    yield ""
    filtered, checked = (in_turns(ways(work, pythons), rounds) for ways in (filters, checks))
    yield from figure_table("`filter` with a function of", "seconds", filtered, ".3f")
    yield ""
    yield from figure_table("every image of", "images/s", checked, ",.0f")


def readings(work: Path, pythons: dict[str, str]) -> dict[str, Callable[[], Measurement]]:
    """Returns the methods that read the data back, by form and task."""

    def method(folder: str, task: str) -> Callable[[], Measurement]:
        python = pythons["3.6.0" if folder == "release" else "newest"]
        return lambda: measure([python, PEERS, task, work / folder], work / "home")

    tasks = ("decode_all", "first_row", "query_labels", "read_page")
    return {f"{form} {task}": method(folder, task) for task in tasks for form, folder in FORMS.items()}


def caches(work: Path, pythons: dict[str, str]) -> dict[str, Callable[[], Measurement]]:
    """Returns the ways to build the Arrow cache, by version of `datasets` and form."""

    def method(version: str, folder: str) -> Callable[[], Measurement]:
        return lambda: measure([pythons[version], PEERS, f"build_cache_of_{folder}", work / folder], work / "home")

    return {f"{version} {folder}": method(version, folder) for version in CACHES for folder in ("release", "parquet")}


def filters(work: Path, pythons: dict[str, str]) -> dict[str, Callable[[], Measurement]]:
    """Returns the ways to filter a loaded dataset by a label, by the parameter of the function that filters."""
    tasks = {"the labels (`input_columns`)": "filter_labels", "the whole row": "filter_rows"}

    def method(task: str) -> Callable[[], Measurement]:
        return lambda: measure([pythons["newest"], PEERS, task, work / "parquet"], work / "home")

    return {name: method(task) for name, task in tasks.items()}


def checks(work: Path, pythons: dict[str, str]) -> dict[str, Callable[[], Measurement]]:
    """Returns the ways to read every image: with the checks of this project, or as the standard library does."""
    tasks = {
        "zip, `synthchex_75k.examples`": ("read_examples", "release"),
        "zip, `zipfile`": ("read_zipfile", "release"),
        "loose files, `synthchex_75k.examples`": ("read_examples", "imagefolder"),
        "loose files, `read_bytes`": ("read_bytes", "imagefolder"),
    }

    def method(task: str, folder: str) -> Callable[[], Measurement]:
        return lambda: measure([pythons["newest"], PEERS, task, work / folder], work / "home")

    return {name: method(*task) for name, task in tasks.items()}


def reading_table(results: dict[str, list[Measurement]]) -> Iterator[str]:
    """Yields the lines of the table of readings."""
    yield "| form | full decoded pass | first row, streaming | labels of all rows | bytes read for 100 rows |"
    yield "|---|---|---|---|---|"
    for form in FORMS:
        decode, first, query, page = (
            statistics.median(run.figures for run in results[f"{form} {task}"])
            for task in ("decode_all", "first_row", "query_labels", "read_page")
        )
        yield f"| {form} | {decode:,.0f} rows/s | {first:.2f} s | {query * 1e3:,.0f} ms | {page / 1e6:,.1f} MB |"


def cache_table(results: dict[str, list[Measurement]]) -> Iterator[str]:
    """Yields the lines of the table of Arrow caches."""
    yield "| building the Arrow cache | `synthchex_75k.load`, zip | `load_dataset`, Parquet | ratio |"
    yield "|---|---|---|---|"
    for version in CACHES:
        ours, theirs = (
            statistics.median(run.figures for run in results[f"{version} {folder}"])
            for folder in ("release", "parquet")
        )
        yield f"| {version} `datasets` | {ours:.1f} s | {theirs:.1f} s | {ours / theirs:.2f} |"


def figure_table(first: str, second: str, results: dict[str, list[Measurement]], form: str) -> Iterator[str]:
    """Yields the lines of a table of one figure for each method, under the heads `first` and `second`."""
    yield f"| {first} | {second} |"
    yield "|---|---|"
    for name, runs in results.items():
        yield f"| {name} | {statistics.median(run.figures for run in runs):{form}} |"
