"""Invented sections `privacy`, `utility` and `reports`, in the schema of `pipeline/evaluate/results_section.py`."""

from __future__ import annotations

import random
import zlib
from typing import Any

from conftest import FIXTURE
from synthchex_75k import LABELS

SETTINGS = ("real", "synthetic", "mixed", "augmented")
SHIFT = {"real": 0.0, "synthetic": -0.06, "mixed": -0.02, "augmented": 0.01}
SIZES = {"synthetic": 75649, "train": 2461, "heldout": 2461}


def measured(
    metric: str, value: float | None = 0.6, half: float | None = 0.02, method: str = "rad-dino", **changes: Any
) -> dict[str, Any]:
    """Returns a MEASURED, whose interval is `half` to either side."""
    if value is None:
        half = None
    found: dict[str, Any] = {
        "metric": metric,
        "method": method,
        "setting": None,
        "label": None,
        "value": value,
        "se": None if half is None else half / 1.96,
        "ci_low": None if value is None or half is None else value - half,
        "ci_high": None if value is None or half is None else value + half,
        "n": dict(SIZES),
        "references": [],
        "notes": [],
    }
    return {**found, **changes}


def reference(name: str, value: float, half: float | None = None) -> dict[str, Any]:
    """Returns a REFERENCE."""
    low, high = (None, None) if half is None else (value - half, value + half)
    return {"name": name, "value": value, "ci_low": low, "ci_high": high}


def side(name: str, rows: int, patients: int | None = None) -> dict[str, Any]:
    """Returns a SIDE, whose source is the example."""
    about = {"model": "rad-dino", "preprocessing": {"size": 518}}
    encoders = {"rad-dino": {"fingerprint": "rad-dino-5d41402abc4b2a76b9719d911017c592", "about": about}}
    return {"name": name, "source": str(FIXTURE), "rows": rows, "patients": patients, "encoders": encoders}


def section(metrics: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """Returns a section of these metrics."""
    found = {
        "created": "2026-11-27T11:00:00+00:00",
        "seed": 3,
        "versions": {"python": "3.11.7", "numpy": "2.4.6"},
        "options": {"neighbours": 50, "quantile": 0.001},
        "sides": {"synthetic": side("sana-e20", 75649), "train": side("mimic-train", 2461, 293)},
        "metrics": metrics,
        "pairs": {},
    }
    return {**found, **changes}


def privacy(images: dict[str, bytes] | None = None, shift: float = 0.0, **changes: Any) -> dict[str, Any]:
    """Returns a section `privacy`.

    Args:
        images: Of which pairs are listed. Default: no pair.
        shift: Added to the headline.
        changes: Of the section.
    """
    without = reference("without memorisation", 0.5)
    paired = {"n": {"pairs": 2000}}
    metrics = [
        measured("nearer_to_training", 0.512 + shift, 0.0036, references=[without], notes=["Wilson interval"]),
        measured(
            "below_threshold", 0.0021 + shift / 10, 0.0003, references=[reference("held-out images", 0.001, 0.0008)]
        ),
        measured("distance_ratio", 0.004, 0.001, references=[reference("held-out images", 0.003, 0.002)]),
        measured("copying_test", None, notes=["fewer than 20 held-out images in each cell: C_T is not defined"]),
        measured("membership_auroc", 0.53 + shift, 0.02, references=[reference("chance", 0.5)]),
        measured(
            "reid_score",
            0.551,
            0.01,
            method="reid",
            references=[reference("same patient", 0.9, 0.02), reference("different patients", 0.35, 0.01)],
            **paired,
        ),
    ]
    pairs = pairs_of(images) if images else []
    lists = {"nearest_relative": pairs, "closest_latent_distance": pairs[:3]}
    found = section(metrics, pairs={"rad-dino": lists} if images else {})
    found["sides"]["heldout"] = side("mimic-test", 2461, 293)
    return {**found, **changes}


def pairs_of(images: dict[str, bytes]) -> list[dict[str, Any]]:
    """Returns pairs of each image with the next one."""
    about = [
        {"filename": name, "crc32": zlib.crc32(data), "prompt": f"Prompt of image {number}."}
        for number, (name, data) in enumerate(images.items())
    ]
    return [
        {"synthetic": one, "train": two, "value": 0.5 + number, "about": {"Distance to held-out": 7.5 + number}}
        for number, (one, two) in enumerate(zip(about, [*about[1:], about[0]]))
    ]


def utility(shift: float = 0.0, **changes: Any) -> dict[str, Any]:
    """Returns a section `utility`: a probe, in four settings, over all labels; Pleural Other has no positives."""
    rng, metrics, method = random.Random(0), list[dict[str, Any]](), "probe: rad-dino"
    usual = {"auroc": 0.78, "average_precision": 0.41, "f1": 0.44}
    for label in (None, *LABELS):
        positive = 2000 // (1 + (LABELS.index(label) if label else 0))
        sizes = {"test": 2461, **({} if label is None else {"positive": positive}), "patients": 293}
        noise = 0.0 if label is None else rng.uniform(-0.1, 0.1)
        for name, value in usual.items():
            chance = {"auroc": 0.5, "average_precision": positive / 2461}.get(name)
            references = [] if chance is None or (label is None and name != "auroc") else [reference("chance", chance)]
            for setting in SETTINGS:
                there: dict[str, Any] = {"setting": setting, "label": label, "method": method, "n": sizes}
                if label == "Pleural Other":
                    metrics.append(measured(name, None, notes=["no positive image in the test set"], **there))
                    continue
                half = 0.012 if label is None else 0.6 / positive**0.5
                value_here = value + noise + SHIFT[setting] + (0 if setting == "real" else shift)
                metrics.append(measured(name, value_here, half, references=references, **there))
                if setting != "real":
                    zero = [reference("no difference", 0.0)]
                    difference = SHIFT[setting] + shift
                    metrics.append(measured(f"{name}_difference", difference, half / 2, references=zero, **there))
    sides = {"train": side("mimic-train", 20000, 14485), "synthetic": side("sana-e20", 20000)}
    return {**section(metrics, sides={**sides, "test": side("mimic-test", 2461, 293)}), **changes}


def reports(**changes: Any) -> dict[str, Any]:
    """Returns a section `reports`: three scores of texts, in two settings."""
    metrics = []
    for name, value in {"bleu_1": 31.2, "bleu_4": 12.1, "rouge_l": 27.4}.items():
        for setting in SETTINGS[:2]:
            there: dict[str, Any] = {"setting": setting, "method": "tiny/model", "n": {"test": 2461, "patients": 293}}
            metrics.append(measured(name, value + 20 * SHIFT[setting], 0.6, **there))
        zero = [reference("no difference", 0.0)]
        metrics.append(measured(f"{name}_difference", 20 * SHIFT["synthetic"], 0.4, references=zero, **there))
    metrics.append(
        measured("f1_radgraph", None, method="tiny/model", setting="real", notes=["radgraph is not installed"])
    )
    sides = {"train": side("mimic-train", 20000, 14485), "synthetic": side("sana-e20", 20000)}
    return {**section(metrics, sides={**sides, "test": side("mimic-test", 2461, 293)}), **changes}
