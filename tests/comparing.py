"""Features for the tests of `fidelity`: made up, in memory or in a FEATURES_DIR."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.evaluate.features import (
    FEATURES_JSON,
    EncodedWith,
    FeatureFile,
    Features,
    ImageFeatures,
    fingerprint_of,
    index_json,
    write_features,
)
from pipeline.files import sha256_of
from synthchex_75k import LABELS, Row


def normal(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def features_of(
    outputs: np.ndarray | Mapping[str, np.ndarray],
    *,
    encoder: str = "rad-dino",
    about: Mapping[str, Any] | None = None,
    positive: Mapping[str, Any] | None = None,
    patients: list[Any] | None = None,
    prompts: list[str] | None = None,
    name: str = "image",
) -> Features:
    """Returns features of images `NAME-00000.png` and so on, in order; `positive` has the rows of each label."""
    found = dict(outputs) if isinstance(outputs, Mapping) else {"feature": outputs}
    n = len(found["feature"])
    labels = np.full((n, len(LABELS)), np.nan, np.float32)
    for label, rows in (positive or {}).items():
        labels[rows, LABELS.index(label)] = 1
    names = np.array([f"{name}-{i:05}.png" for i in range(n)], "U")
    described = {"model": encoder, **(about or {})}
    widths = {key: values.shape[1] for key, values in found.items()}
    return Features(
        EncodedWith(encoder, fingerprint_of(described), described, widths, n, f"/data/{name}", n, ["CPU"], []),
        names,
        np.array([zlib.crc32(text.encode()) for text in names], np.uint32),
        np.full((n, 2), 512),
        np.array(prompts or [f"Prompt {i}." for i in range(n)], object),
        None if patients is None else np.array(patients, object),
        labels,
        found,
    )


def write_store(folder: Path, *encoders: Features, order: list[int] | None = None) -> Path:
    """Writes a FEATURES_DIR with one file for each encoder, its rows in some order."""
    index = []
    for features in encoders:
        name, chosen = features.encoder.name, order or range(len(features.filenames))
        path = folder / name / "part-00000.parquet"
        path.parent.mkdir(parents=True)
        rows, images = [], []
        for i in chosen:
            raw = tuple(None if np.isnan(value) else int(value) for value in features.labels[i])
            filename, prompt = str(features.filenames[i]), str(features.prompts[i])
            rows.append(Row(filename, "", "", 0, None, None, prompt=prompt, labels=raw))
            values = {key: values[i] for key, values in features.outputs.items()}
            images.append(ImageFeatures(int(features.crc32[i]), 512, 512, values))
        patients = [None if features.patients is None else features.patients[i] for i in chosen]
        write_features(path, FeatureFile(path, rows, patients, name, features.encoder.fingerprint), images)
        files = [(f"{name}/{path.name}", sha256_of(path), len(rows))]
        index.append(features.encoder._replace(files=files))
    (folder / FEATURES_JSON).write_bytes(index_json(index))
    return folder
