"""Metrics of images: ours beside those of prdc, torchmetrics and scikit-learn, and all of them at once."""

from __future__ import annotations

import math
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
NAMES = {
    "prdc": "precision, recall, density, coverage",
    "kid": "KID, 100 subsets of 1,000",
    "fd": "FD",
    "nearest": "50 nearest training rows",
    "alignment": "alignment, and with shuffled prompts",
    "retrieval": "retrieval",
}
WHOLES = {
    "all_metrics": "all metrics of features, overall and for 14 labels, with floors",
    "all_outputs": "the same with those of prompts, logits and pathologies, which no encoder has all of",
    "all_privacy": "all metrics of privacy, with as many training images and at most 5,000 held-out ones",
    "all_probes": "probes of utility: 4 settings, 3 seeds, 14 labels, as many real images",
}


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

    def ours(function: str, count: int) -> Callable[..., Measurement]:
        return lambda: measure([python, EVALUATION, function, str(count), str(WIDTHS[0])], work / "home")

    yield ""
    yield f"CPU seconds at {WIDTHS[0]} features by rows a side; medians of {rounds} runs in turns"
    yield ""
    sizes = beside // 2, beside, 2 * beside
    yield from growth_table(in_turns({f"{name} {n}": ours(f"ours_{name}", n) for name in NAMES for n in sizes}, rounds))
    yield ""
    yield f"whole commands at {WIDTHS[0]} features; one run of each, because they take minutes"
    yield ""
    counts = {name: min(PROBED, rows) if name == "all_probes" else rows for name in WHOLES}
    yield from whole_table(in_turns({f"{name} {n}": ours(name, n) for name, n in counts.items()}, 1))


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
    yield "| metric | width | library | CPU seconds | extra memory | CPU, relative to ours | memory, relative to ours |"
    yield "|---|---|---|---|---|---|---|"
    first = (1.0, 1.0)
    for name, runs in results.items():
        metric, library, width = name.split()
        cpu, _, extra, _ = medians(runs)
        if library == "ours":
            first = cpu, extra
        ratios = f"{cpu / first[0]:.1f} | {extra / max(first[1], 1):.1f}"
        yield f"| {NAMES[metric]} | {width} | {library} | {cpu:.1f} | {extra / 1e6:,.0f} MB | {ratios} |"


def growth_table(results: dict[str, list[Measurement]]) -> Iterator[str]:
    """Yields the lines of the table of how time grows with n; the last column is of the two largest n."""
    cpu: dict[str, dict[int, float]] = {}
    for name, runs in results.items():
        metric, rows = name.split()
        cpu.setdefault(metric, {})[int(rows)] = medians(runs)[0]
    sizes = [*next(iter(cpu.values()))]
    yield f"| metric | {' | '.join(f'{n:,} rows' for n in sizes)} | as n to the power of |"
    yield "|---" * (len(sizes) + 2) + "|"
    for metric, seconds in cpu.items():
        power = math.log(seconds[sizes[-1]] / seconds[sizes[-2]]) / math.log(sizes[-1] / sizes[-2])
        yield f"| {NAMES[metric]} | {' | '.join(f'{seconds[n]:.2f}' for n in sizes)} | {round(power, 1) + 0.0} |"


def whole_table(results: dict[str, list[Measurement]]) -> Iterator[str]:
    """Yields the lines of the table of whole commands."""
    yield "| computation | synthetic images | seconds | CPU seconds | memory | of it beyond the features |"
    yield "|---|---|---|---|---|---|"
    for name, runs in results.items():
        function, rows = name.split()
        cpu, seconds, extra, memory = medians(runs)
        sizes = f"{memory / 1e6:,.0f} MB | {extra / 1e6:,.0f} MB"
        yield f"| {WHOLES[function]} | {int(rows):,} | {seconds:,.0f} | {cpu:,.0f} | {sizes} |"


def medians(runs: list[Measurement]) -> tuple[float, float, float, float]:
    """Returns the medians of CPU seconds, seconds, memory beyond that of the input, and memory."""
    cpu, seconds, extra, memory = (statistics.median(figures) for figures in zip(*(run.figures for run in runs)))
    return cpu, seconds, extra, memory
