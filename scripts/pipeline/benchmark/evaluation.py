"""Metrics beside those of other libraries, on the same random features: `python evaluation.py FUNCTION ROWS WIDTH`.

`benchmark.py` runs it in environments of their own. Each function prints CPU seconds of all threads, seconds, and the
memory that it took beyond that of the features.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SCRIPTS = Path(__file__).resolve().parents[2]
SUBSETS, SUBSET_SIZE = 100, 1000  # of KID
# Share of positives of each label in the authors' file of 20,000 prompts, in the order of LABELS.
PREVALENCE = (0.184, 0.186, 0.034, 0.109, 0.028, 0.019, 0.026, 0.153, 0.438, 0.206, 0.008, 0.061, 0.047, 0.279)


class Cost(NamedTuple):
    """What a computation took: CPU seconds, seconds, and memory beyond that of its input and in all: bytes."""

    cpu: float
    seconds: float
    extra: int
    memory: int


def random_features(rows: int, width: int, seed: int) -> np.ndarray:
    """Returns features in float32, far from the origin and close to each other, as those of a network."""
    rng = np.random.default_rng(seed)
    found = rng.standard_normal((rows, width), np.float32)
    found += rng.standard_normal(width, np.float32) if seed == 0 else np.float32(0.1)
    return found


def cost_of(compute: Callable[[], object]) -> Cost:
    """Runs a function. Peak memory is reset before, as Linux allows it."""
    Path("/proc/self/clear_refs").write_text("5")
    base, cpu, start = peak_memory(), cpu_seconds(), time.monotonic()
    compute()
    peak = peak_memory()
    return Cost(cpu_seconds() - cpu, time.monotonic() - start, peak - base, peak)


def peak_memory() -> int:
    """Returns the peak of the resident memory since it was reset: bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def cpu_seconds() -> float:
    """Returns the CPU seconds of this process and its children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def two_sets(rows: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns real and synthetic features of one size."""
    return random_features(rows, width, 0), random_features(rows, width, 1)


def ours_prdc(rows: int, width: int) -> Cost:
    """Precision, recall, density and coverage with their standard errors."""
    metrics = importlib.import_module("pipeline.evaluate.metrics.prdc")
    find = importlib.import_module("pipeline.evaluate.metrics.neighbours").neighbours
    x, y = two_sets(rows, width)

    def compute() -> None:
        found = find(x, y)[""]
        for metric in (metrics.precision, metrics.recall, metrics.density, metrics.coverage):
            metric(found)

    return cost_of(compute)


def theirs_prdc(rows: int, width: int) -> Cost:
    """The same four values by the package prdc."""
    compute = importlib.import_module("prdc").compute_prdc
    x, y = two_sets(rows, width)
    with contextlib.redirect_stdout(io.StringIO()):
        return cost_of(lambda: compute(x, y, 5))


def ours_kid(rows: int, width: int) -> Cost:
    """KID over 100 subsets of 1,000 rows."""
    kid_of_subsets = importlib.import_module("pipeline.evaluate.metrics.kernel").kid_of_subsets
    x, y = two_sets(rows, width)
    return cost_of(lambda: kid_of_subsets(x, y, SUBSETS, SUBSET_SIZE))


def theirs_kid(rows: int, width: int) -> Cost:
    """The same by torchmetrics."""
    return _torchmetrics("kid", "KernelInceptionDistance", rows, width, subsets=SUBSETS, subset_size=SUBSET_SIZE)


def ours_fd(rows: int, width: int) -> Cost:
    """FD without a standard error."""
    fd_value = importlib.import_module("pipeline.evaluate.metrics.frechet").fd_value
    x, y = two_sets(rows, width)
    return cost_of(lambda: fd_value(x, y))


def theirs_fd(rows: int, width: int) -> Cost:
    """The same by torchmetrics."""
    return _torchmetrics("fid", "FrechetInceptionDistance", rows, width)


def _torchmetrics(module: str, name: str, rows: int, width: int, **options: Any) -> Cost:
    torch: Any = importlib.import_module("torch")
    metric = getattr(importlib.import_module(f"torchmetrics.image.{module}"), name)

    class Identity(torch.nn.Module):
        num_features = width

        def forward(self, features: Any) -> Any:
            return features

    x, y = (torch.from_numpy(features) for features in two_sets(rows, width))

    def compute() -> None:
        found = metric(feature=Identity(), **options)
        found.update(x, real=True)
        found.update(y, real=False)
        found.compute()

    return cost_of(compute)


def all_metrics(rows: int, width: int) -> Cost:
    """All metrics of features, with intervals and floors, overall and for 14 labels."""
    features = importlib.import_module("pipeline.evaluate.features")
    compare = importlib.import_module("pipeline.evaluate.fidelity.fidelity").compare
    sides = []
    for seed in range(2):
        rng = np.random.default_rng(seed + 2)
        labels = np.where(rng.random((rows, len(PREVALENCE))) < PREVALENCE, 1, np.nan).astype(np.float32)
        encoder = features.EncodedWith("random", "", {}, {"feature": width}, rows, "", rows, [], [])
        texts = np.array([f"{i:06}" for i in range(rows)])
        prompts, patients = texts.astype(object), None if seed else (np.arange(rows) // 2).astype(object)
        places = np.arange(rows, dtype=np.uint32), np.full((rows, 2), 512)
        outputs = {"feature": random_features(rows, width, seed)}
        sides.append(features.Features(encoder, texts, *places, prompts, patients, labels, outputs))
    return cost_of(lambda: compare([tuple(sides)], ("real", "synthetic")))


if __name__ == "__main__":
    if not sys.argv[1].startswith("theirs"):
        sys.path.insert(0, str(SCRIPTS))
    result = globals()[sys.argv[1]](*map(int, sys.argv[2:]))
    print(json.dumps(result), flush=True)
    os._exit(0)
