"""Sources and features of radiographs with a planted signal, for the tests of utility."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from comparing import features_of, write_store
from conftest import to_csv, to_files
from images import GRAY, to_png
from pipeline.evaluate.features import Features
from synthchex_75k import LABELS

PNG = to_png((1, 1), GRAY, 8, b"\0")
PLANTED = ("Cardiomegaly", "Edema", "Fracture")
WIDTH = 40


def signal(targets: np.ndarray, strength: float, seed: int) -> np.ndarray:
    """Returns features of shape (rows, 40): a direction for each planted label, and noise."""
    directions = np.random.default_rng(99).normal(size=(len(PLANTED), WIDTH)) / np.sqrt(WIDTH)
    noise = np.random.default_rng(seed).normal(size=(len(targets), WIDTH))
    return (strength * targets @ directions + noise).astype(np.float32)


def drawn_targets(n: int, seed: int, shares: Sequence[float] = (0.4, 0.25, 0.15)) -> np.ndarray:
    return (np.random.default_rng(seed).random((n, len(PLANTED))) < shares).astype(float)


def write_source(
    folder: Path, name: str, targets: np.ndarray, features: np.ndarray, images_of_patient: int = 0
) -> tuple[Path, Features]:
    """Writes a source of tiny images named `NAME-00000.png` and so on, and returns it with its features.

    Args:
        folder: Gets a folder of that name.
        name: Of the folder and the images.
        targets: Of `PLANTED`, of shape (n, 3); the other labels are not mentioned.
        features: Of shape (n, width).
        images_of_patient: Consecutive images that share a patient; 0: no column for patients.
    """
    positive = {label: np.flatnonzero(targets[:, number] == 1) for number, label in enumerate(PLANTED)}
    patients = [f"{name}-{i // images_of_patient}" if images_of_patient else None for i in range(len(targets))]
    found = features_of(
        features,
        positive=positive,
        name=name,
        prompts=[f"Radiograph {i} of {name}." for i in range(len(targets))],
        patients=patients if images_of_patient else None,
    )
    rows = []
    for number, filename in enumerate(found.filenames.tolist()):
        row = {"filename": filename, "prompt": found.prompts[number]}
        row |= {label: "1" if found.labels[number, place] == 1 else "" for place, label in enumerate(LABELS)}
        row |= {"patientID": patients[number] or ""} if images_of_patient else {}
        rows.append(row)
    source = folder / name
    to_files(source, {**{row["filename"]: PNG for row in rows}, "metadata.csv": to_csv(rows)})
    crcs = np.full(len(rows), zlib.crc32(PNG), np.uint32)
    return source, found._replace(crc32=crcs)


class Planted:
    """Real training, synthetic and real test images with their FEATURES_DIRs.

    Args:
        folder: Where to write.
        unrelated: Share of the synthetic images whose labels have nothing to do with their features.
        sizes: Numbers of images.
    """

    def __init__(self, folder: Path, unrelated: float = 0.6, sizes: tuple[int, int, int] = (500, 700, 400)) -> None:
        self.sources, self.features = [], []
        for number, (name, count) in enumerate(zip(("real", "made", "test"), sizes)):
            targets = drawn_targets(count, number)
            shown = targets.copy()
            if name == "made":
                shown[: round(unrelated * count)] = drawn_targets(round(unrelated * count), 50)
            values = signal(shown, 2.0, 10 + number)
            source, features = write_source(folder, name, targets, values, 0 if name == "made" else 2)
            self.sources.append(source)
            self.features.append(write_store(folder / f"{name}-features", features))

    def command(self, results: Path, *options: str) -> list[str]:
        """Returns arguments of `evaluate_images.py` with a probe."""
        probe = ["--probe", *map(str, self.features), "--patient-column", "patientID"]
        return ["utility", *map(str, self.sources), str(results), *probe, *options]
