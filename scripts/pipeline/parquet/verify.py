"""Compares a converted folder with its SOURCE, byte for byte.

It reads the Parquet files with pyarrow, the card with `huggingface_hub` and the checksums in `.manifest.json` and
`croissant.json`; it uses none of the code that writes Parquet files.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import DatasetCard

import synthchex_75k
from pipeline.errors import StepError, one_line
from pipeline.files import TEMPORARY, sha256_of
from pipeline.folder import MANIFEST, read_manifest
from pipeline.jobs import WorkerPool, advance
from pipeline.parquet.card import dataset_info, size_category
from pipeline.parquet.croissant import FileObject, read_files
from pipeline.parquet.layout import CARD, CROISSANT, DATA_FILES, FIGURES, data_files
from pipeline.rows import READ_AHEAD, plan, total_size
from synthchex_75k import FEATURES, Row

SCHEMA = FEATURES.arrow_schema
ROWS_IN_MEMORY = 32
SHOWN = 20  # differences of a kind, and of a file
UNREADABLE = (pa.ArrowException, OSError, ValueError, MemoryError)  # pyarrow's errors for a damaged file


class DataFile(NamedTuple):
    """A Parquet file, and for each of its rows the row of SOURCE with that file name."""

    path: Path
    wanted: list[Row | None]
    uncertainty: str


class Difference(NamedTuple):
    """A line for the user, and the number of differences that it stands for."""

    text: str
    number: int = 1


class Comparison(NamedTuple):
    """Result for a Parquet file: size of its rows in memory, as Arrow has them, in bytes; SHA-256; differences."""

    num_bytes: int
    sha256: str
    differences: list[Difference]


def differences(
    source: str, output: Path, uncertainty: str, on_mismatch: str, pool: WorkerPool
) -> Iterator[Difference]:
    """Compares a converted folder with its SOURCE.

    Args:
        source: The SOURCE.
        output: The folder.
        uncertainty: Label policy of the folder's labels.
        on_mismatch: `"error"` or `"skip"`, as in `synthchex_75k.plan`.
        pool: The workers.

    Yields:
        The differences; of a kind that occurs often, the first `SHOWN` and their number.

    Raises:
        StepError: The folder does not exist.
        SourceError: SOURCE cannot be used, or an image in it cannot be read.
    """
    if not output.is_dir():
        raise StepError(f"{output}: no such folder")
    manifest = read_manifest(output)["files"]
    rows = plan(source, on_mismatch)
    by_name = {row.filename: row for row in rows}
    present = _list_files(output)
    yield from _compare_names(present, manifest)
    paths = [output / name for name in data_files(present) if name in present]
    names = {}
    for path in paths:
        try:
            names[path] = pq.read_table(path, columns=["filename"], use_threads=False)["filename"].to_pylist()
        except (*UNREADABLE, KeyError) as error:
            yield Difference(f"data/{path.name}: the file names cannot be read: {one_line(error)}")
    yield from _compare_order([row.filename for row in rows], [name for path in names for name in names[path]])
    files = [DataFile(path, [by_name.get(name) for name in names[path]], uncertainty) for path in names]
    compared = {}
    read = [row for file in files for row in file.wanted if row]
    for file, comparison in pool.run(compare_file, files, "Comparing", len(read), total_size(read)):
        compared[file.path] = comparison
        yield from comparison.differences
    sums = {path.relative_to(output).as_posix(): comparison.sha256 for path, comparison in compared.items()}
    sums |= {name: sha256_of(output / name) for name in (CARD, CROISSANT, *FIGURES) if name in present}
    for name, sha256 in sums.items():
        if name in manifest and manifest[name]["sha256"] != sha256:
            yield Difference(f"{name}: damaged or edited: its SHA-256 differs from the one in {MANIFEST}")
    sizes = [path.stat().st_size for path in paths]
    yield from _compare_card(output / CARD, len(rows), sum(one.num_bytes for one in compared.values()), sizes)
    objects = [
        FileObject(f"data/{path.name}", size, sums.get(f"data/{path.name}", "")) for path, size in zip(paths, sizes)
    ]
    yield from _compare_croissant(output / CROISSANT, objects)


def compare_file(file: DataFile) -> Comparison:
    """Compares a Parquet file with the rows of SOURCE, in a worker.

    Args:
        file: The file.

    Returns:
        The result.

    Raises:
        SourceError: An image of SOURCE cannot be read.
    """
    at = f"data/{file.path.name}"
    sha256 = sha256_of(file.path)
    examples = synthchex_75k.examples([row for row in file.wanted if row], file.uncertainty, read_ahead=READ_AHEAD)
    num_bytes, found = 0, []
    try:
        with pq.ParquetFile(file.path, page_checksum_verification=True) as parquet:
            if not parquet.schema_arrow.equals(SCHEMA, check_metadata=True):
                found.append(f"{at}: the schema differs: {one_line(parquet.schema_arrow)}")
            if not parquet.schema_arrow.equals(SCHEMA):
                return Comparison(0, sha256, [*map(Difference, found)])
            wanted_rows = enumerate(file.wanted)
            for batch in _read_batches(parquet):
                num_bytes += batch.nbytes
                for found_row, (number, wanted) in zip(batch.to_pylist(), wanted_rows):
                    if wanted:
                        place = f"{at} row {number} ({wanted.filename})"
                        found += (f"{place}: {what}" for what in _compare(_next(examples, wanted), found_row))
                        advance(1, wanted.size or 0)
    except synthchex_75k.SourceError:
        raise
    except UNREADABLE as error:
        found.append(f"{at}: cannot be read to its end: {one_line(error)}")
    return Comparison(num_bytes, sha256, [*_bounded(found)])


def _bounded(texts: list[str]) -> Iterator[Difference]:
    yield from map(Difference, texts[:SHOWN])
    if more := len(texts[SHOWN:]):
        yield Difference(f"and {more:,} more after: {texts[SHOWN - 1]}", more)


def _next(examples: Iterator[dict[str, Any]], row: Row) -> dict[str, Any]:
    try:
        return next(examples)
    except OSError as error:  # else it would pass for an error of the Parquet file
        raise synthchex_75k.SourceError(f"{row.where}: {error}") from error


def _read_batches(parquet: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
    # Group by group, so that the batches' sizes in memory add up to what `datasets` counts.
    for group in range(parquet.num_row_groups):
        yield from parquet.iter_batches(ROWS_IN_MEMORY, row_groups=[group], use_threads=False)


def _compare(source: dict[str, Any], here: dict[str, Any]) -> Iterator[str]:
    image_here, labels_here = here["image"] or {}, here["labels_dict"] or {}
    wanted, image = source["image"]["bytes"], image_here.get("bytes") or b""
    if image != wanted:
        first = next((at for at, (a, b) in enumerate(zip(image, wanted)) if a != b), min(len(image), len(wanted)))
        yield f"the image differs from byte {first:,} on; it has {len(image):,} bytes, in SOURCE {len(wanted):,}"
    values = [
        ("the image's path", image_here.get("path"), source["image"]["path"]),
        ("the prompt", here["prompt"], source["prompt"]),
        *((label, labels_here.get(label), value) for label, value in source["labels_dict"].items()),
    ]
    for what, value, wanted in values:
        if value != wanted:
            yield f"{what} is {value!r}, in SOURCE {wanted!r}"


def _list_files(output: Path) -> set[str]:
    """Lists the files of a folder, without hidden ones, which belong to git, a file manager or `hf upload`."""
    names = {path.relative_to(output).as_posix(): path for path in output.rglob("*") if path.is_file()}
    return {name for name, path in names.items() if not re.search(r"(^|/)\.", name) or TEMPORARY.fullmatch(path.name)}


def _compare_names(present: set[str], manifest: dict[str, Any]) -> Iterator[Difference]:
    wanted = {*data_files(present), CARD, CROISSANT, *(name for name in manifest if name in FIGURES)}
    yield from _bounded([f"{name}: missing" for name in sorted(wanted - present)])
    if not data_files(present):
        yield Difference("data: no Parquet file")
    yield from _bounded([f"{name}: unexpected file" for name in sorted(present - wanted - {*FIGURES})])


def _compare_order(wanted: list[str], here: list[str]) -> Iterator[Difference]:
    place = {name: number for number, name in enumerate(wanted)}
    counts = Counter(here)
    yield from _bounded([f"{name}: missing row" for name in wanted if name not in counts])
    yield from _bounded([f"{name}: not in SOURCE" for name in counts if name not in place])
    yield from _bounded([f"{name}: {count} rows" for name, count in counts.items() if name in place and count > 1])
    common = [name for name in here if name in place]
    pairs = [(before, after) for before, after in itertools.pairwise(common) if place[before] > place[after]]
    yield from _bounded([f"{after}: after {before}, in SOURCE before it" for before, after in pairs])


def _compare_card(path: Path, rows: int, num_bytes: int, file_sizes: list[int]) -> Iterator[Difference]:
    if not path.is_file():
        return  # `_compare_names` has found it missing
    try:
        header = DatasetCard.load(path).data.to_dict()
    except Exception as error:  # YAML errors of many classes
        yield Difference(f"{path.name}: the header cannot be read: {one_line(error)}")
        return
    info = dataset_info(rows, num_bytes, file_sizes)._to_yaml_dict()
    wanted = {
        "size_categories": [size_category(rows)],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": DATA_FILES}]}],
        **{f"dataset_info.{key}": value for key, value in info.items()},
    }
    found = {**header, **{f"dataset_info.{key}": value for key, value in (header.get("dataset_info") or {}).items()}}
    for key, value in wanted.items():
        if found.get(key) != value:
            yield Difference(f"{path.name}: {key} is {found.get(key)!r}, by the data {value!r}")


def _compare_croissant(path: Path, objects: list[FileObject]) -> Iterator[Difference]:
    if not path.is_file():
        return
    try:
        described = {file.path: file for file in read_files(path.read_text(encoding="utf-8"))}
    except ValueError as error:
        yield Difference(f"{path.name}: cannot be read: {one_line(error)}")
        return
    for name in sorted(described.keys() - {file.path for file in objects}):
        yield Difference(f"{path.name}: describes {name}, which is missing")
    for file in objects:
        if described.get(file.path) != file:
            yield Difference(f"{path.name}: size or SHA-256 of {file.path} differ from the file's")
