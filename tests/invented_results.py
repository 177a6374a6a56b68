"""Invented results of an evaluation, in the schema of `pipeline/evaluate/results/results.py`."""

from __future__ import annotations

import json
import random
import zlib
from pathlib import Path
from typing import Any

from conftest import FIXTURE
from synthchex_75k import LABELS

RD = ("fd", "kid", "kid_subsets", "precision", "recall", "density", "coverage", "cmmd", "vendi")
XRV = ("fd", "kid", "label_auroc", "label_auroc_real")
MEASURED = {"rad-dino": RD, "xrv": XRV}
USUAL = {"fd": 54.2, "kid": 0.0163, "kid_subsets": 0.0165, "cmmd": 0.41, "vendi": 0.83}  # the others are shares


def metric(
    name: str, encoder: str, label: str | None = None, value: float | None = 0.6, share: float = 0.04, **changes: Any
) -> dict[str, Any]:
    """Returns a METRIC, whose interval is `share` of the value to either side."""
    half = None if value is None else abs(value) * share
    found = {
        "metric": name,
        "encoder": encoder,
        "label": label,
        "value": value,
        "se": None if half is None else half / 1.96,
        "ci_low": None if value is None or half is None else value - half,
        "ci_high": None if value is None or half is None else value + half,
        "n_real": 2461,
        "n_synthetic": 0 if name.endswith("_real") else 2461,
        "floor": None if name.startswith("label") else {"value": (value or 1) / 9, "sd": 0.01, "n": 1230, "splits": 10},
        "protocol": "sound",
        "notes": ["standard error: of the tests"],
    }
    return {**found, **changes}


def all_metrics(seed: int = 0, factor: float = 1.0) -> list[dict[str, Any]]:
    """Returns metrics of two encoders, overall and for each label; FD of Pleural Other is refused."""
    rng, found = random.Random(seed), []
    for encoder, names in MEASURED.items():
        for name in names:
            usual = USUAL.get(name, 0.6)
            if not name.startswith("label"):
                notes = ["standard error: delta method", "fewer than 10 d rows: FD is biased"] if name == "fd" else []
                found.append(metric(name, encoder, None, usual * factor, notes=notes))
            if name in ("kid_subsets", "vendi"):
                continue
            for number, label in enumerate(LABELS):
                n = 1200 // (number + 1)
                if name == "fd" and label == "Pleural Other":
                    reason = ["FD needs at least 50 rows a side; use KID"]
                    found.append(
                        metric(name, encoder, label, None, n_real=31, n_synthetic=31, floor=None, notes=reason)
                    )
                    continue
                value = usual * factor * rng.uniform(0.7, 1.5)
                share = 2 / n**0.5
                found.append(metric(name, encoder, label, value, share, n_real=n, n_synthetic=n))
                found[-1]["n_synthetic"] = 0 if name.endswith("_real") else n
    return found


def results(images: dict[str, bytes] | None = None, **changes: Any) -> dict[str, Any]:
    """Returns the section `fidelity` of results.

    Args:
        images: Of which pairs are listed under `images`. Default: no pair.
        changes: Of the section.
    """
    metrics = changes.get("metrics", all_metrics())

    def side(name: str, rows: int, patients: int | None) -> dict[str, Any]:
        used = dict.fromkeys([*MEASURED, *(one["encoder"] for one in metrics)])
        encoders = {
            encoder: {
                "fingerprint": f"{encoder}-5d41402abc4b2a76b9719d911017c592",
                "about": {"model": encoder, "preprocessing": {"size": 518}, "versions": {"torch": "2.13.0"}},
            }
            for encoder in used
        }
        return {"name": name, "source": str(FIXTURE), "rows": rows, "patients": patients, "encoders": encoders}

    found = {
        "protocol": "sound",
        "created": "2026-11-27T10:00:00+00:00",
        "seed": 7,
        "labels": [*LABELS],
        "real": side("mimic-test", 2461, 293),
        "synthetic": side("sana-e20", 2461, None),
        "versions": {"python": "3.11.7", "numpy": "2.4.6"},
        "metrics": metrics,
        "images": {"rad-dino": lists_of(images)} if images else {},
    }
    return {**found, **changes}


def lists_of(images: dict[str, bytes], has_texts: bool = False) -> dict[str, list[dict[str, Any]]]:
    """Returns the lists of images: each image with the next one as its nearest real one.

    Args:
        images: The images.
        has_texts: Whether the encoder embeds texts.
    """
    about = [
        {"filename": name, "crc32": zlib.crc32(data), "prompt": f"Prompt of image {number}."}
        for number, (name, data) in enumerate(images.items())
    ]
    pairs = [
        {**image, "value": 1.5 + number, "nearest_real": {**nearest, "distance": 2.5 + number}}
        for number, (image, nearest) in enumerate(zip(about, [*about[1:], about[0]]))
    ]
    cosines = [{**pair, "value": number / 100 - 0.035} for number, pair in enumerate(pairs)] if has_texts else []
    return {"adds_most_to_fd": pairs, "least_like_real": pairs[::-1], "least_like_prompt": cosines}


def write_results(path: Path, found: dict[str, Any] | None = None, **sections: Any) -> Path:
    """Writes a RESULTS_JSON of the section `fidelity` and others."""
    sections = {**({"fidelity": found} if found else {}), **sections}
    path.write_text(json.dumps({"format": 2, **sections}), encoding="utf-8")
    return path
