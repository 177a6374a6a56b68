"""Radiographs of invented patients and synthetic images of each, as SOURCEs and as features."""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL.Image

from comparing import features_of
from conftest import to_csv, to_files
from pipeline.evaluate.features import Features
from pipeline.evaluate.privacy.paired_images import PairedSources, open_paired_sources
from pipeline.evaluate.results.results_section import Measured
from synthchex_75k import LABELS

PATIENTS, OF_EACH = 40, 2
N = PATIENTS * OF_EACH


class World(NamedTuple):
    """Training images of patients, and a synthetic image for each, as files and as features."""

    train: Features
    synthetic: Features
    sources: PairedSources


def draw(patient: int, image: int) -> PIL.Image.Image:
    """Draws smooth shadows: those of a patient, and a little of the image's own."""
    layers = [
        np.random.default_rng((patient, 1)).normal(size=(6, 6)),
        np.random.default_rng((image, 2)).normal(size=(6, 6)),
    ]
    grey = (128 + 40 * layers[0] + 12 * layers[1]).clip(0, 255).astype(np.uint8)
    return PIL.Image.fromarray(grey).resize((72, 80), PIL.Image.Resampling.BICUBIC)


def encoded(image: PIL.Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def write_side(folder: Path, files: dict[str, bytes], zipped: bool) -> None:
    """Writes a SOURCE."""
    rows = [{"filename": name, "prompt": f"Prompt {i}.", **dict.fromkeys(LABELS, "")} for i, name in enumerate(files)]
    to_files(folder, {"metadata.csv": to_csv(rows)})
    if zipped:
        with zipfile.ZipFile(folder / "images.zip", "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    else:
        to_files(folder, files)


def side(files: dict[str, bytes], patients: list[str] | None) -> Features:
    """Returns features as `embed` finds them: here 6x6 pixels."""
    pictures = [PIL.Image.open(io.BytesIO(content)).convert("L") for content in files.values()]
    values = np.stack([np.asarray(picture.resize((6, 6)), np.float32).ravel() for picture in pictures])
    crcs = np.array([zlib.crc32(content) for content in files.values()], np.uint32)
    found = features_of(values, patients=patients)._replace(filenames=np.array([*files]), crc32=crcs)
    found.labels[:, 0] = 1
    return found


def world(
    tmp_path: Path, copies: int = 0, replicates: int = 1, zipped: bool = False, patients: int = PATIENTS
) -> World:
    """Writes both sources; the first synthetic images are copies of their training images, as JPEG files make them."""
    n = patients * OF_EACH
    train = {f"r{i:03}.jpg": encoded(draw(i // OF_EACH, i), "JPEG") for i in range(n)}
    synthetic = {}
    for i in range(n):
        for k in range(replicates):
            is_copy = i < copies and k == 0
            picture = draw(i // OF_EACH, i) if is_copy else draw(10_000 + n * k + i, 10_000 + n * k + i)
            name = f"SyntheticImg_r{i:03}.png" if not k else f"SyntheticImg_r{i:03}_{k}.png"
            synthetic[name] = encoded(picture)
    for name, files in (("train", train), ("synthetic", synthetic)):
        write_side(tmp_path / name, files, zipped)
    sources = open_paired_sources(str(tmp_path / "train"), str(tmp_path / "synthetic"))
    return World(side(train, [f"p{i // OF_EACH}" for i in range(n)]), side(synthetic, None), sources)


def by_name(metrics: list[Measured]) -> dict[str, Measured]:
    assert len({metric.metric for metric in metrics}) == len(metrics)
    return {metric.metric: metric for metric in metrics}


def reference(metric: Measured, name: str) -> float:
    (found,) = [one.value for one in metric.references if one.name == name]
    return found
