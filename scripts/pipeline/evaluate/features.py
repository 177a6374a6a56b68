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

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import StepError, describe_error
from pipeline.files import sha256_of
from pipeline.rows import AnyRow
from synthchex_75k import LABELS

FEATURES_JSON = "features.json"
FORMAT = 1  # of the folder; another one is refused
TEXTS = ("filename", "prompt", "patient")
ROW_COLUMNS: dict[str, pa.DataType] = {
    "filename": pa.string(),
    "crc32": pa.uint32(),
    "width": pa.int32(),
    "height": pa.int32(),
    "prompt": pa.string(),
    "patient": pa.string(),
    **dict.fromkeys(LABELS, pa.int8()),
}


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


class FeatureFile(NamedTuple):
    """A file of a FEATURES_DIR, as `shards.find_finished` takes it.

    Attributes:
        path: Where it goes.
        rows: Rows of the source, in order.
        patients: The patient of each, or None.
        encoder: Name of the encoder.
        encoder_fingerprint: Hash of everything that its features depend on.
    """

    path: Path
    rows: Sequence[AnyRow]
    patients: Sequence[str | None]
    encoder: str
    encoder_fingerprint: str

    def fingerprint(self, crcs: Iterable[int]) -> str:
        """Returns a hash of everything that the file's content depends on."""
        content = hashlib.sha256(repr((FORMAT, self.encoder_fingerprint)).encode())
        for row, patient, crc in zip(self.rows, self.patients, crcs, strict=True):
            content.update(repr((row.filename, crc, row.prompt, row.labels, patient)).encode())
        return content.hexdigest()


class ImageFeatures(NamedTuple):
    """One row of a file: the image as it was embedded, and each output of one encoder, of shape (width,)."""

    crc32: int
    width: int
    height: int
    outputs: dict[str, np.ndarray]


def fingerprint_of(about: dict[str, Any]) -> str:
    """Returns the hash of what an encoder describes."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def write_features(path: Path, file: FeatureFile, images: list[ImageFeatures]) -> dict[str, int]:
    """Writes a file.

    Args:
        path: A temporary name of it.
        file: Its rows.
        images: The features of each row.

    Returns:
        The width of each output by its name.

    Raises:
        StepError: The outputs of two rows differ in width.
        OSError: It cannot be written.
    """
    widths = {name: len(values) for name, values in images[0].outputs.items()}
    for row, image in zip(file.rows, images, strict=True):
        found = {name: len(values) for name, values in image.outputs.items()}
        if found != widths:
            raise StepError(
                f"--encoder {file.encoder}: the outputs of {row.filename} have widths {found}, not {widths}"
            )
    values: dict[str, Any] = {
        "filename": [row.filename for row in file.rows],
        "crc32": [image.crc32 for image in images],
        "width": [image.width for image in images],
        "height": [image.height for image in images],
        "prompt": [row.prompt for row in file.rows],
        "patient": file.patients,
        **{label: [row.labels[number] for row in file.rows] for number, label in enumerate(LABELS)},
    }
    columns = {name: pa.array(values[name], kind) for name, kind in ROW_COLUMNS.items()}
    for name, width in widths.items():
        flat = np.concatenate([image.outputs[name] for image in images]).astype(np.float32, copy=False)
        columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(flat), width)
    about = {"encoder": file.encoder, "encoder_fingerprint": file.encoder_fingerprint}
    table = pa.table(columns).replace_schema_metadata(about)
    compression = {name: "zstd" if name in ROW_COLUMNS else "none" for name in columns}
    outputs = {f"{name}.list.element": "none" for name in widths}
    with pa.OSFile(os.fsencode(path), "wb") as file:  # pyarrow takes no path that is not UTF-8
        pq.write_table(table, file, compression={**compression, **outputs}, use_dictionary=[*LABELS, "patient"])
    return widths


class KnownRow(NamedTuple):
    """A row that is in a file, without its features."""

    filename: str
    crc32: int
    prompt: str
    patient: str | None


def read_known(path: Path) -> list[KnownRow]:
    """Reads the rows of a file, without features."""
    table = _read_table(path, [*KnownRow._fields])
    return [KnownRow(*row) for row in zip(*(table[name].to_pylist() for name in KnownRow._fields))]


def read_images(path: Path, numbers: list[int]) -> list[ImageFeatures]:
    """Reads rows of a file.

    Args:
        path: The file.
        numbers: Which rows.
    """
    table = _read_table(path)
    names = [name for name in table.column_names if name not in ROW_COLUMNS]
    outputs = {name: _matrix(table[name])[numbers] for name in names}
    facts = [table[name].to_numpy()[numbers].tolist() for name in ("crc32", "width", "height")]
    return [
        ImageFeatures(crc32, width, height, {name: values[place] for name, values in outputs.items()})
        for place, (crc32, width, height) in enumerate(zip(*facts))
    ]


def index_json(encoders: Iterable[EncodedWith]) -> bytes:
    """Returns the content of `features.json`."""
    found = {}
    for encoder in encoders:
        files = [{"path": path, "sha256": sha256, "rows": rows} for path, sha256, rows in encoder.files]
        about = {name: value for name, value in encoder._asdict().items() if name != "name"}
        found[encoder.name] = {**about, "files": files}
    return json.dumps({"format": FORMAT, "encoders": found}, indent=2).encode() + b"\n"


def read_index(folder: Path) -> dict[str, EncodedWith]:
    """Reads `features.json`.

    Args:
        folder: FEATURES_DIR.

    Returns:
        The encoders by name, in order.

    Raises:
        StepError: There is none, or it is damaged.
        OSError: It cannot be read.
    """
    path = folder / FEATURES_JSON
    if not path.is_file():
        raise StepError(f"{folder} has no {FEATURES_JSON}: no features, or not all of them yet; run `embed` to the end")
    try:
        found = json.loads(path.read_bytes())
        if found["format"] != FORMAT:
            raise StepError(
                f"{path} has format {found['format']!r}; this program reads {FORMAT}: embed the source again"
            )
        return {name: _encoded_with(name, encoder) for name, encoder in found["encoders"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StepError(f"{path} is damaged ({describe_error(error)}); delete it, and run `embed` again") from error


def _encoded_with(name: str, found: dict[str, Any]) -> EncodedWith:
    """Returns an encoder of `features.json`.

    Raises:
        ValueError: A part of it is not as it was written.
    """
    files = [(one["path"], one["sha256"], one["rows"]) for one in found["files"]]
    encoder = EncodedWith(name, **{**found, "files": files})
    if fingerprint_of(encoder.about) != encoder.fingerprint or sum(rows for *_, rows in files) != encoder.rows:
        raise ValueError(f"{name}: its description, fingerprint and number of rows are not of one encoder")
    return encoder


def read_features(folder: Path, encoder: EncodedWith, outputs: tuple[str, ...] | None = None) -> Features:
    """Reads the features of one encoder, whose files are checked by their SHA-256.

    Args:
        folder: FEATURES_DIR.
        encoder: One of `read_index`.
        outputs: Which outputs to read, of `encoder.outputs`. Default: all.

    Raises:
        StepError: A file is missing, damaged or was replaced; embed again.
        OSError: A file cannot be read.
    """
    for path, sha256, _ in encoder.files:
        file = folder / path
        if not file.is_file() or sha256_of(file) != sha256:
            problem = "has changed" if file.is_file() else "is missing"
            raise StepError(f"{file} {problem} since {FEATURES_JSON} was written; run `embed` to the end again")
        if _encoder_in(file) != (encoder.name, encoder.fingerprint, encoder.outputs):
            index = folder / FEATURES_JSON
            raise StepError(f"{index} is damaged, {file} has other outputs; delete it, and run `embed` again")
    files = [folder / path for path, _, _ in encoder.files]
    table = pa.concat_tables([_read_table(file, [*ROW_COLUMNS]) for file in files])
    names = table["filename"].to_numpy(zero_copy_only=False).astype(str)
    order = np.argsort(names, kind="stable")
    patients = table["patient"].to_numpy(zero_copy_only=False)[order]
    labels = [table[label].to_numpy(zero_copy_only=False).astype(np.float32) for label in LABELS]
    wanted = encoder.outputs if outputs is None else outputs
    return Features(
        encoder,
        names[order],
        table["crc32"].to_numpy()[order],
        np.stack([table["width"].to_numpy(), table["height"].to_numpy()], axis=1)[order],
        table["prompt"].to_numpy(zero_copy_only=False)[order],
        None if table["patient"].null_count == len(table) else patients,
        np.stack(labels, axis=1)[order],
        _read_outputs(files, {name: encoder.outputs[name] for name in wanted}, np.argsort(order)),
    )


def changed_rows(
    features: Features,
    rows: Sequence[AnyRow],
    crcs: Mapping[str, int],
    patients: Sequence[str | None] | None = None,
) -> list[AnyRow]:
    """Returns the rows of a source whose image, prompt, labels or patient are not those that were embedded.

    Args:
        features: Features of the source; rows without features are not compared.
        rows: Rows of the source as it is now.
        crcs: CRC-32 of images by file name, as far as it is known.
        patients: The patient of each row, or None. Default: patients are not compared.
    """
    numbers = {name: number for number, name in enumerate(features.filenames.tolist())}
    known = [None] * len(numbers) if features.patients is None else features.patients.tolist()
    changed = []
    for place, row in enumerate(rows):
        number = numbers.get(row.filename)
        if number is None:
            continue
        labels = np.array([np.nan if raw is None else raw for raw in row.labels], np.float32)
        if (
            row.prompt != features.prompts[number]
            or not np.array_equal(labels, features.labels[number], equal_nan=True)
            or crcs.get(row.filename, features.crc32[number]) != features.crc32[number]
            or (patients is not None and patients[place] != known[number])
        ):
            changed.append(row)
    return changed


def _read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    with pa.OSFile(os.fsencode(path)) as file:  # pyarrow takes no path that is not UTF-8
        return pq.read_table(file, columns=columns)


def _encoder_in(path: Path) -> tuple[str, str, dict[str, int]]:
    """Returns name and fingerprint of the encoder of a file, and the widths of its outputs."""
    with pa.OSFile(os.fsencode(path)) as file:
        schema = pq.read_schema(file)
    outputs = {field.name: field.type.list_size for field in schema if field.name not in ROW_COLUMNS}
    return schema.metadata[b"encoder"].decode(), schema.metadata[b"encoder_fingerprint"].decode(), outputs


def _read_outputs(files: list[Path], widths: dict[str, int], places: np.ndarray) -> dict[str, np.ndarray]:
    """Reads outputs, file by file, into arrays in which each row has the place given."""
    found = {name: np.empty((len(places), width), np.float32) for name, width in widths.items()}
    start = 0
    for file in files:
        table = _read_table(file, [*widths])
        for name, matrix in found.items():
            matrix[places[start : start + len(table)]] = _matrix(table[name])
        start += len(table)
    return found


def _matrix(column: pa.ChunkedArray) -> np.ndarray:
    """Returns a column of lists of fixed size as an array of shape (rows, width)."""
    width = column.type.list_size
    chunks = [chunk.flatten().to_numpy() for chunk in column.chunks]
    return (np.concatenate(chunks) if chunks else np.empty(0, np.float32)).reshape(-1, width)
