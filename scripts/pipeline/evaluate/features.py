"""FEATURES_DIR: Parquet files of features, and `features.json`, which lists them with what they depend on.

A file has the rows of some images and the outputs of one encoder:

    filename    string
    crc32       uint32: of the image file
    width, height  int32: of the image, in pixels
    prompt      string
    patient     string; null where unknown
    14 columns  int8, named as the labels: 1, 0, -1 (uncertain), null (not mentioned)
    feature     float32, a list of fixed size; then the encoder's other outputs, such as logits or text
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

FEATURES_JSON = "features.json"
FORMAT = 1  # of the folder; another one is refused


class EncodedWith(NamedTuple):
    """One encoder of a FEATURES_DIR.

    Attributes:
        name: The encoder, such as `rad-dino`.
        fingerprint: A hash of everything that its features depend on: that of `about`.
        about: What `Encoder.describe` returned.
        outputs: The width of each output by its name, `feature` first.
        rows: Number of images.
        source: Address of the source that was embedded; a local one as an absolute path.
        source_rows: Number of images of that source; more than `rows` with a limit.
        devices: Names of the processors that computed it.
        files: Relative path, SHA-256 and number of rows of each file.
    """

    name: str
    fingerprint: str
    about: dict[str, Any]
    outputs: dict[str, int]
    rows: int
    source: str
    source_rows: int
    devices: list[str]
    files: list[tuple[str, str, int]]


class Features(NamedTuple):
    """The rows of one encoder, ordered by file name.

    Attributes:
        encoder: Which encoder.
        filenames: File names, of shape (n,), of type str.
        crc32: CRC-32 of the image files, of shape (n,), uint32.
        sizes: Width and height: pixels, of shape (n, 2).
        prompts: Prompts, of shape (n,), of type object.
        patients: Patients, of shape (n,), of type object; None where no row has one.
        labels: Raw labels in the order of `LABELS`, of shape (n, 14), float32; NaN: not mentioned.
        outputs: Arrays of shape (n, width) by name of output.
    """

    encoder: EncodedWith
    filenames: np.ndarray
    crc32: np.ndarray
    sizes: np.ndarray
    prompts: np.ndarray
    patients: np.ndarray | None
    labels: np.ndarray
    outputs: dict[str, np.ndarray]


def read_index(folder: Path) -> dict[str, EncodedWith]:
    """Reads `features.json`.

    Args:
        folder: FEATURES_DIR.

    Returns:
        The encoders by name, in order.

    Raises:
        StepError: There is none, or it is damaged.
    """
    raise NotImplementedError


def read_features(folder: Path, encoder: EncodedWith, outputs: tuple[str, ...] | None = None) -> Features:
    """Reads the features of one encoder, whose files are checked by their SHA-256.

    Args:
        folder: FEATURES_DIR.
        encoder: One of `read_index`.
        outputs: Which outputs to read. Default: all.

    Raises:
        StepError: A file is missing, damaged or was replaced; embed again.
    """
    raise NotImplementedError
