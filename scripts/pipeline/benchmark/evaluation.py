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
HELD_OUT = 5000  # images
CLASSES = 1008  # of Inception's logits
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


def ours_nearest(rows: int, width: int) -> Cost:
    """The 50 nearest training rows of each synthetic row, and what else privacy needs without held-out rows."""
    privacy_distances = importlib.import_module("pipeline.evaluate.metrics.distances").privacy_distances
    x, y = two_sets(rows, width)
    return cost_of(lambda: privacy_distances(x, y))


def theirs_nearest(rows: int, width: int) -> Cost:
    """The 50 nearest training rows of each synthetic row by scikit-learn."""
    neighbors = importlib.import_module("sklearn.neighbors").NearestNeighbors(n_neighbors=50, algorithm="brute")
    x, y = two_sets(rows, width)
    return cost_of(lambda: neighbors.fit(x).kneighbors(y))


def ours_alignment(rows: int, width: int) -> Cost:
    """Alignment of images and prompts, with shuffled prompts."""
    metrics = importlib.import_module("pipeline.evaluate.metrics.alignment")
    x, y = two_sets(rows, width)
    return cost_of(lambda: (metrics.alignment(x, y), metrics.shuffled_alignment(x, y)))


def ours_retrieval(rows: int, width: int) -> Cost:
    """The rank of each image's own prompt among all prompts."""
    retrieval = importlib.import_module("pipeline.evaluate.metrics.alignment").retrieval
    x, y = two_sets(rows, width)
    return cost_of(lambda: retrieval(x, y))


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


def all_metrics(rows: int, width: int, with_outputs: bool = False) -> Cost:
    """All metrics of features, with intervals and floors, overall and for 14 labels."""
    compare = importlib.import_module("pipeline.evaluate.fidelity.fidelity").compare
    names = "real", "synthetic"
    sides = tuple(made_up_features(name, rows, width, seed, with_outputs) for seed, name in enumerate(names))
    return cost_of(lambda: compare([sides], ("real", "synthetic")))


def all_outputs(rows: int, width: int) -> Cost:
    """The same, and all metrics of prompts, logits and pathologies, which no encoder has all of."""
    return all_metrics(rows, width, with_outputs=True)


def all_privacy(rows: int, width: int) -> Cost:
    """All metrics of privacy, with as many training as synthetic images, and 5,000 held-out ones."""
    metrics = importlib.import_module("pipeline.evaluate.privacy.privacy_metrics")
    names = ("train", rows), ("synthetic", rows), ("heldout", min(HELD_OUT, rows))
    sides = metrics.PrivacySides(*(made_up_features(name, count, width, i) for i, (name, count) in enumerate(names)))
    return cost_of(lambda: metrics.privacy_metrics(sides, 0))


def all_probes(rows: int, width: int) -> Cost:
    """Probes in 4 settings with 3 seeds, 14 labels, as many real as synthetic images and an eighth to test on."""
    settings = importlib.import_module("pipeline.evaluate.settings")
    probe = importlib.import_module("pipeline.evaluate.utility.probe").Probe
    train_and_score = importlib.import_module("pipeline.evaluate.utility.utility").train_and_score
    row_of = importlib.import_module("synthchex_75k").Row
    sides = {}
    for seed, (name, count) in enumerate((("train", rows), ("synthetic", rows), ("test", rows // 8))):
        sides[name] = made_up_features(name, count, width, seed)
        shown = np.nan_to_num(sides[name].labels)
        sides[name].outputs["feature"][:, : shown.shape[1]] += shown  # a signal to learn
    examples = []
    for name, found in sides.items():
        patients = [None] * len(found.filenames) if found.patients is None else found.patients
        part = []
        for filename, prompt, patient, raw in zip(found.filenames.tolist(), found.prompts, patients, found.labels):
            labels = tuple(None if np.isnan(value) else int(value) for value in raw)
            row = row_of(filename, "", "", 0, None, None, prompt=prompt, labels=labels)
            side = "synthetic" if name == "synthetic" else "real"
            part.append(settings.Example(row, side, patient, np.nan_to_num(raw)))
        examples.append(part)
    chosen = settings.splits(*examples)
    return cost_of(lambda: train_and_score(iter([probe(sides)]), 1, chosen))


def made_up_features(name: str, rows: int, width: int, seed: int, with_outputs: bool = False) -> Any:
    """Returns features of one side, with labels as frequent as the authors' and two images of a patient if real.

    Args:
        name: Of the side.
        rows: Number of images.
        width: Number of features.
        seed: Of everything that is drawn.
        with_outputs: Add prompts of that width, logits and pathologies, as the encoders have them that have any.
    """
    features = importlib.import_module("pipeline.evaluate.features")
    rng = np.random.default_rng(seed + 2)
    labels = np.where(rng.random((rows, len(PREVALENCE))) < PREVALENCE, 1, np.nan).astype(np.float32)
    outputs, about = {"feature": random_features(rows, width, seed)}, {}
    if with_outputs:
        names = importlib.import_module("pipeline.evaluate.encoders.xrv").PATHOLOGY_NAMES
        widths = {"text": width, "logits": CLASSES, "pathologies": len(names)}
        for number, (output, size) in enumerate(widths.items(), 2):
            outputs[output] = random_features(rows, size, seed + 2 * number)
        about = {"classes": {"pathologies": [*names]}}
    encoder = features.EncodedWith("random", "", about, {}, rows, name, rows, [], [])
    texts = np.array([f"{name}-{i:06}" for i in range(rows)])
    patients = None if name == "synthetic" else np.array([f"{name}-{i // 2}" for i in range(rows)], object)
    crc32 = np.arange(rows, dtype=np.uint32) + np.uint32(seed * rows)
    sizes = np.full((rows, 2), 512)
    return features.Features(encoder, texts, crc32, sizes, texts.astype(object), patients, labels, outputs)


if __name__ == "__main__":
    if not sys.argv[1].startswith("theirs"):
        sys.path.insert(0, str(SCRIPTS))
    result = globals()[sys.argv[1]](*map(int, sys.argv[2:]))
    print(json.dumps(result), flush=True)
    os._exit(0)
