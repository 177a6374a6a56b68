"""Metrics of images: ours beside those of prdc, torchmetrics and scikit-learn, and all of them at once."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.benchmark.measure import HERE, Measurement, check_imports, in_turns, make_environment, measure
from pipeline.errors import StepError

EVALUATION = HERE / "evaluation.py"
PACKAGES = ["datasets", "pillow", "prdc", "scikit-learn"]  # torchmetrics needs torch, which is gigabytes: see --python
LIBRARIES = {"prdc": "prdc", "kid": "torchmetrics", "fd": "torchmetrics", "nearest": "scikit-learn"}  # by metric
SIDE_BY_SIDE = 10_000  # rows a side
PROBED = 20_000  # real and synthetic images
WIDTHS = (768, 2048)  # of RAD-DINO, of Inception
MIN_ROWS = 1000  # of which KID takes its subsets


def compare_metrics(work: Path, rows: int, rounds: int, other_python: str | None) -> Iterator[str]:
    """Measures the metrics, and then the runs of all of them.

    Args:
        work: An empty folder.
        rows: A side, of the run of all metrics.
        rounds: How often each metric is measured beside the others.
        other_python: One with torch and torchmetrics; without it, torchmetrics is left out.

    Yields:
        Lines of Markdown.

    Raises:
        StepError: There are too few rows, or a package is missing.
    """
    if rows < MIN_ROWS:
        raise StepError(f"--rows: at least {MIN_ROWS}, of which KID takes its subsets")
    if other_python:
        check_imports(other_python, "torch", "torchmetrics")
    else:
        yield "torchmetrics is left out: name a Python that has torch and torchmetrics with --python"
        yield ""
    python = make_environment(work / "env" / "evaluation", PACKAGES)
    beside = min(SIDE_BY_SIDE, rows)
    results = in_turns(evaluations(work, beside, python, other_python), rounds)
    yield f"{beside:,} rows a side; medians of {rounds} runs in turns"
    yield ""
    yield from metric_table(results)
    yield ""
    yield f"| {WIDTHS[0]} features | synthetic images | seconds | CPU seconds | memory | of it beyond the features |"
    yield "|---|---|---|---|---|---|"
    wholes = {
        "all_metrics": (rows, "all metrics of fidelity, overall and for 14 labels, with floors"),
        "all_privacy": (rows, "all metrics of privacy, with as many training images and at most 5,000 held-out ones"),
        "all_probes": (min(PROBED, rows), "probes of utility: 4 settings, 3 seeds, 14 labels, as many real images"),
    }
    for function, (count, about) in wholes.items():
        run = measure([python, EVALUATION, function, str(count), str(WIDTHS[0])], work / "home")
        cpu, seconds, extra, memory = run.figures
        sizes = f"{memory / 1e6:,.0f} MB | {extra / 1e6:,.0f} MB"
        yield f"| {about} | {count:,} | {seconds:,.0f} | {cpu:,.0f} | {sizes} |"


def evaluations(work: Path, rows: int, python: str, other_python: str | None) -> dict[str, Callable[..., Measurement]]:
    """Returns the metrics, ours and those of other libraries, by name of metric, library and width."""
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


def metric_table(results: dict[str, list[Measurement]]) -> Iterator[str]:
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
        cpu, _, extra, _ = (statistics.median(figures) for figures in zip(*(run.figures for run in runs)))
        if library == "ours":
            first = cpu, extra
        ratios = f"{cpu / first[0]:.1f} | {extra / max(first[1], 1):.1f}"
        yield f"| {names[metric]} | {width} | {library} | {cpu:.1f} | {extra / 1e6:,.0f} MB | {ratios} |"
