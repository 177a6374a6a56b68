# /// script
# requires-python = ">=3.10"
# dependencies = ["datasets", "numpy", "pillow", "psutil", "tqdm"]
# ///
"""Measures the converter beside the methods that its users would use instead, and how fast the results are read.

    uv run scripts/benchmark.py [--images 4000] [--num-proc N]
    uv run scripts/benchmark.py --evaluation [--rows 75649] [--python PATH]

With --evaluation it measures the metrics of images instead, on random features: beside prdc and torchmetrics, and all
of them on as many rows as the dataset has. It counts CPU seconds of all threads, and the memory beyond the features.

Without, it writes a source of images that differ, of the size of the real ones, and creates environments for the other
methods, in a folder that it removes at the end. It measures all methods in turns, several times, and prints Markdown
tables of medians. A conversion ends when its bytes are on the disk. Sources are in the page cache. Memory is that of
all processes, shared pages counted once (PSS), in a separate run, because watching it takes time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from pipeline.benchmark.measure import Measurement, in_turns, make_environment, measure
from pipeline.benchmark.sources import make_sources

HERE = Path(__file__).resolve().parent
PEERS = HERE / "pipeline" / "benchmark" / "peers.py"
EVALUATION = HERE / "pipeline" / "benchmark" / "evaluation.py"
ENVIRONMENTS = {  # by name: packages that uv installs
    "3.6.0": ["datasets==3.6.0", "pillow"],
    "newest": ["datasets", "pillow", "duckdb"],
}
FOR_EVALUATION = [
    "datasets",
    "pillow",
    "prdc",
    "scikit-learn",
]  # torchmetrics needs torch, which is gigabytes: see --python
LIBRARIES = {"prdc": "prdc", "kid": "torchmetrics", "fd": "torchmetrics", "nearest": "scikit-learn"}  # by metric
SIDE_BY_SIDE = 10_000  # rows a side
PROBED = 20_000  # real and synthetic images
WIDTHS = (768, 2048)  # of RAD-DINO, of Inception


def conversions(work: Path, pythons: dict[str, str], num_proc: int) -> dict[str, Callable[..., Measurement]]:
    """Returns the methods that convert the source, by name."""

    def method(*command: str | Path) -> Callable[..., Measurement]:
        def run(watch_memory: bool = False) -> Measurement:
            shutil.rmtree(work / "output", ignore_errors=True)
            return measure([*command], work / "home", watch_memory)

        return run

    release, folder, output = work / "release", work / "imagefolder", work / "output"
    program = HERE / "convert_to_parquet.py"
    ours: list[str | Path] = [pythons["newest"], program, release, output, "--no-figures", "--num-proc"]
    return {
        f"`convert_to_parquet.py`, {num_proc} processes": method(*ours, str(num_proc)),
        "`convert_to_parquet.py`, 1 process": method(*ours, "1"),
        "`load_dataset` of the script + `to_parquet`, `datasets` 3.6.0": method(
            pythons["3.6.0"], PEERS, "convert_script", release, output
        ),
        "`imagefolder` + `to_parquet`, newest `datasets`": method(
            pythons["newest"], PEERS, "convert_imagefolder", folder, output
        ),
        "`cp -r`": method("cp", "-r", release, output),
        "`import datasets`, with which all but `cp` begin": method(pythons["newest"], "-c", "import datasets"),
    }


def readings(work: Path, pythons: dict[str, str]) -> dict[str, Callable[[], Measurement]]:
    """Returns the methods that read the data back, by form and task."""
    forms = {
        "Parquet": "parquet",
        "script, 3.6.0": "release",
        "`imagefolder`": "imagefolder",
        "WebDataset": "webdataset",
    }

    def method(form: str, folder: str, task: str) -> Callable[[], Measurement]:
        python = pythons["3.6.0" if folder == "release" else "newest"]
        return lambda: measure([python, PEERS, task, work / folder], work / "home")

    tasks = ("decode_all", "first_row", "query_labels", "read_page")
    return {f"{form} {task}": method(form, folder, task) for task in tasks for form, folder in forms.items()}


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


def conversion_table(results: dict[str, list[Measurement]], memory: dict[str, int], size: int) -> Iterator[str]:
    """Yields the lines of the table of conversions."""
    yield "| method | time | MB/s | peak memory | time, relative to the first |"
    yield "|---|---|---|---|---|"
    medians = {name: statistics.median(run.seconds for run in runs) for name, runs in results.items()}
    first = next(iter(medians.values()))
    for name, seconds in medians.items():
        speed, peak = size / 1e6 / seconds, memory[name] / 1e6
        yield f"| {name} | {seconds:.1f} s | {speed:,.0f} | {peak:,.0f} MB | {seconds / first:.2f} |"


def reading_table(results: dict[str, list[Measurement]]) -> Iterator[str]:
    """Yields the lines of the table of readings."""
    yield "| form | full decoded pass | first row, streaming | labels of all rows | bytes read for 100 rows |"
    yield "|---|---|---|---|---|"
    forms = dict.fromkeys(name.rpartition(" ")[0] for name in results)
    for form in forms:
        decode, first, query, page = (
            statistics.median(json.loads(run.output.splitlines()[-1]) for run in results[f"{form} {task}"])
            for task in ("decode_all", "first_row", "query_labels", "read_page")
        )
        yield f"| {form} | {decode:,.0f} rows/s | {first:.2f} s | {query * 1e3:,.0f} ms | {page / 1e6:,.1f} MB |"


def figure_table(first: str, second: str, results: dict[str, list[Measurement]], form: str) -> Iterator[str]:
    """Yields the lines of a table of one figure for each method, under the heads `first` and `second`."""
    yield f"| {first} | {second} |"
    yield "|---|---|"
    for name, runs in results.items():
        figure = statistics.median(json.loads(run.output.splitlines()[-1]) for run in runs)
        yield f"| {name} | {figure:{form}} |"


def evaluations(work: Path, rows: int, other_python: str | None) -> dict[str, Callable[..., Measurement]]:
    """Returns the metrics, ours and those of other libraries, by name of metric, library and width."""
    python = make_environment(work / "env" / "evaluation", FOR_EVALUATION)
    pythons = {"prdc": python, "scikit-learn": python, "torchmetrics": other_python}

    def method(interpreter: str, function: str, width: int) -> Callable[..., Measurement]:
        return lambda: measure([interpreter, EVALUATION, function, str(rows), str(width)], work / "home")

    found = {}
    for width in WIDTHS:
        for metric, library in LIBRARIES.items():
            found[f"{metric} ours {width}"] = method(python, f"ours_{metric}", width)
            if other := pythons[library]:
                found[f"{metric} {library} {width}"] = method(other, f"theirs_{metric}", width)
    return found


def evaluation_table(results: dict[str, list[Measurement]]) -> Iterator[str]:
    """Yields the lines of the table of metrics."""
    names = {
        "prdc": "precision, recall, density, coverage",
        "kid": "KID, 100 subsets of 1,000",
        "fd": "FD",
        "nearest": "50 nearest training rows",
    }
    yield "| metric | width | library | CPU seconds | extra memory | CPU, relative to ours | memory, relative to ours |"
    yield "|---|---|---|---|---|---|---|"
    first = (1.0, 1.0)
    for name, runs in results.items():
        metric, library, width = name.split()
        costs = [json.loads(run.output.splitlines()[-1]) for run in runs]
        cpu, _, extra, _ = (statistics.median(figures) for figures in zip(*costs))
        if library == "ours":
            first = cpu, extra
        ratios = f"{cpu / first[0]:.1f} | {extra / max(first[1], 1):.1f}"
        yield f"| {names[metric]} | {width} | {library} | {cpu:.1f} | {extra / 1e6:,.0f} MB | {ratios} |"


def evaluate(work: Path, rows: int, rounds: int, other_python: str | None) -> None:
    """Measures the metrics and prints their table, and the run of all of them."""
    beside = min(SIDE_BY_SIDE, rows)
    if not other_python:
        print("torchmetrics is left out: name a Python that has torch and torchmetrics with --python\n")
    results = in_turns(evaluations(work, beside, other_python), rounds)
    python = str(work / "env" / "evaluation" / "bin" / "python")
    wholes = {
        "all_metrics": (rows, "all metrics of fidelity, overall and for 14 labels, with floors"),
        "all_privacy": (rows, "all metrics of privacy, with as many training images and at most 5,000 held-out ones"),
        "all_probes": (min(PROBED, rows), "probes of utility: 4 settings, 3 seeds, 14 labels, as many real images"),
    }
    print(f"{beside:,} rows a side; medians of {rounds} runs in turns\n")
    print("\n".join(evaluation_table(results)))
    print(f"\n| {WIDTHS[0]} features | synthetic images | seconds | CPU seconds | memory | of it beyond the features |")
    print("|---|---|---|---|---|---|")
    for function, (count, about) in wholes.items():
        run = measure([python, EVALUATION, function, str(count), str(WIDTHS[0])], work / "home")
        cpu, seconds, extra, memory = json.loads(run.output.splitlines()[-1])
        sizes = f"{memory / 1e6:,.0f} MB | {extra / 1e6:,.0f} MB"
        print(f"| {about} | {count:,} | {seconds:,.0f} | {cpu:,.0f} | {sizes} |", flush=True)


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4000, help="of 265 KB each; the disk must hold eight times that")
    parser.add_argument("--num-proc", type=int, default=os.cpu_count(), help="of the converter; default: all cores")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured")
    parser.add_argument("--conversions-only", action="store_true", help="leave out reading back, which takes longer")
    parser.add_argument(
        "--work-dir", type=Path, help="where to make a folder; default: where the system has temporary files"
    )
    evaluation = parser.add_argument_group("evaluation")
    evaluation.add_argument("--evaluation", action="store_true", help="measure the metrics of images instead")
    evaluation.add_argument("--rows", type=int, default=75649, help="a side, of the run of all metrics")
    evaluation.add_argument("--python", help="one with torch and torchmetrics; default: leave torchmetrics out")
    options = parser.parse_args()
    if options.evaluation:
        if options.rows < 1000:
            parser.error("--rows: at least 1000, of which KID takes its subsets")
        with tempfile.TemporaryDirectory(prefix="benchmark-", dir=options.work_dir) as name:
            evaluate(Path(name), options.rows, options.rounds, options.python)
        return
    if options.images < 400:
        parser.error("--images: at least 400, so that there is a page of 100 rows to read")
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=options.work_dir) as name:
        work = Path(name)
        pythons = {name: make_environment(work / "env" / name, packages) for name, packages in ENVIRONMENTS.items()}
        size = make_sources(work, options.images)
        methods = conversions(work, pythons, options.num_proc)
        memory = {name: run(watch_memory=True).memory for name, run in methods.items()}
        converted = in_turns(methods, options.rounds)
        tables = [conversion_table(converted, memory, size)]
        if not options.conversions_only:
            program = HERE / "convert_to_parquet.py"
            measure([pythons["newest"], program, "--no-figures", work / "release", work / "parquet"], work / "home")
            tables.append(reading_table(in_turns(readings(work, pythons), options.rounds)))
            filtered, checked = (in_turns(ways(work, pythons), options.rounds) for ways in (filters, checks))
            tables.append(figure_table("`filter` with a function of", "seconds", filtered, ".3f"))
            tables.append(figure_table("every image of", "images/s", checked, ",.0f"))
        versions = subprocess.run(
            [pythons["newest"], "-c", "import datasets, pyarrow; print(datasets.__version__, pyarrow.__version__)"],
            capture_output=True, text=True, check=True,
        ).stdout.split()  # fmt: skip
    print(
        f"{options.images:,} images, {size / 1e6:,.0f} MB; medians of {options.rounds} runs; {os.cpu_count()} cores, "
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB, {platform.system()}, Python {platform.python_version()}, "
        f"datasets {versions[0]}, pyarrow {versions[1]}\n"
    )
    print("\n\n".join("\n".join(table) for table in tables))


if __name__ == "__main__":
    main()
