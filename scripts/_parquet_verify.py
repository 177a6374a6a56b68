"""Compares a converted folder with its SOURCE, byte for byte; nothing of what wrote the folder takes part."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from _checksum import is_intact, sha256_if_intact, sha256_of
from _croissant import CROISSANT, FileObject, read_files
from _jobs import Jobs, advance
from _parquet_card import CARD, DATA_FILES, dataset_info, files_beside, size_category
from _steps import one_line
from huggingface_hub import DatasetCard

import synthchex_75k
from synthchex_75k import FEATURES, Row

DATA_FILE = re.compile(r"data/train-(\d{5})-of-(\d{5})\.parquet")
SCHEMA = FEATURES.arrow_schema
ROWS_IN_MEMORY = 32
READ_AHEAD = 16 << 20  # bytes that a request to a remote source asks for
# What pyarrow raises of a damaged file.
UNREADABLE = (pa.ArrowException, OSError, ValueError, MemoryError)


class DataFile(NamedTuple):
    """A Parquet file, and for each of its rows the row of SOURCE with that file name."""

    path: Path
    wanted: list[Row | None]
    uncertainty: str


def differences(source: str, output: Path, uncertainty: str, on_mismatch: str, jobs: Jobs) -> Iterator[str]:
    """Compares.

    Args:
        source: The SOURCE.
        output: The folder that is said to hold the same.
        uncertainty: Label policy with which it was written.
        on_mismatch: `"error"` or `"skip"`, as in `synthchex_75k.plan`.
        jobs: Who reads.

    Yields:
        Each difference: where, and what.

    Raises:
        SourceError: SOURCE cannot be used, or an image in it not read.
    """
    rows = synthchex_75k.plan(source, on_mismatch)
    by_name = {row.filename: row for row in rows}
    paths, misplaced = _list_data_files(output)
    yield from misplaced
    names = {}
    for path in paths:
        try:
            names[path] = pq.read_table(path, columns=["filename"], use_threads=False)["filename"].to_pylist()
        except (*UNREADABLE, KeyError) as error:
            yield f"data/{path.name}: its file names cannot be read: {one_line(error)}"
    yield from _compare_order([row.filename for row in rows], [name for path in names for name in names[path]])
    files = [DataFile(path, [by_name.get(name) for name in names[path]], uncertainty) for path in names]
    num_bytes, sums = 0, {}
    read = [row for file in files for row in file.wanted if row]
    size = sum(row.size or 0 for row in read)
    for file, (file_bytes, sha256, found) in jobs.run(compare_file, files, "Comparing", len(read), size):
        num_bytes += file_bytes
        sums[file.path.name] = sha256
        yield from found
    sizes = [path.stat().st_size for path in paths]
    yield from _compare_card(output / CARD, len(rows), num_bytes, sizes)
    present = [FileObject(path.name, size, sums.get(path.name, "")) for path, size in zip(paths, sizes)]
    yield from _compare_croissant(output / CROISSANT, present)


def compare_file(file: DataFile) -> tuple[int, str, list[str]]:
    """Compares a Parquet file with the rows of SOURCE.

    Args:
        file: The file.

    Returns:
        The size of its rows in memory, as Arrow has them, in bytes; its SHA-256; and each difference.

    Raises:
        SourceError: An image of SOURCE cannot be read.
    """
    at = f"data/{file.path.name}"
    sha256 = sha256_if_intact(file.path)
    found = [] if sha256 else [f"{at}: not to the bit what was written: damaged or edited"]
    sha256 = sha256 or sha256_of(file.path)
    examples = synthchex_75k.examples([row for row in file.wanted if row], file.uncertainty, read_ahead=READ_AHEAD)
    num_bytes = 0
    try:
        with pq.ParquetFile(file.path, page_checksum_verification=True) as parquet:
            if not parquet.schema_arrow.equals(SCHEMA, check_metadata=True):
                found.append(f"{at}: the schema is not that of the rows: {one_line(parquet.schema_arrow)}")
            if not parquet.schema_arrow.equals(SCHEMA):
                return 0, sha256, found
            wanted_rows = enumerate(file.wanted)
            for batch in _read_batches(parquet):
                num_bytes += batch.nbytes
                for here, (number, wanted) in zip(batch.to_pylist(), wanted_rows):
                    if wanted:
                        place = f"{at} row {number} ({wanted.filename})"
                        found += (f"{place}: {what}" for what in _compare(_next(examples, wanted), here))
                        advance(1, wanted.size or 0)
    except synthchex_75k.SourceError:
        raise
    except UNREADABLE as error:
        found.append(f"{at}: cannot be read to its end: {one_line(error)}")
    return num_bytes, sha256, found


def _next(examples: Iterator[dict[str, Any]], row: Row) -> dict[str, Any]:
    try:
        return next(examples)
    except OSError as error:  # which is not to be taken for one of the Parquet file
        raise synthchex_75k.SourceError(f"{row.where}: {error}") from error


def _read_batches(parquet: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
    # Group by group: the sizes in memory of these batches add up to those of the row groups, which `datasets` counts.
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


def _list_data_files(output: Path) -> tuple[list[Path], list[str]]:
    """Finds the Parquet files of a folder, in order, and what should not be there or should."""
    names = {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}
    data = {name: match for name in names if (match := DATA_FILE.fullmatch(name))}
    count = max((int(match[2]) for match in data.values()), default=0)
    wanted = {f"data/train-{part:05d}-of-{count:05d}.parquet" for part in range(count)}
    found = [f"{name}: missing" for name in sorted(wanted - names)] or ([] if wanted else ["data: no Parquet file"])
    # What is hidden is somebody's: of git, of a file manager, of `hf upload`. What is incomplete is of a conversion.
    hidden = {name for name in names if re.search(r"(^|/)\.", name) and not name.endswith(".incomplete")}
    others = names - wanted - hidden - {CARD, CROISSANT, *_files_of_card(output)}
    found += [f"{name}: does not belong here" for name in sorted(others)]
    return [output / name for name in sorted(wanted & names)], found


def _files_of_card(output: Path) -> dict[str, str]:
    card = output / CARD
    return files_beside(card.read_text(encoding="utf-8", errors="replace")) if card.is_file() else {}


def _compare_order(wanted: list[str], here: list[str]) -> Iterator[str]:
    place = {name: number for number, name in enumerate(wanted)}
    counts = Counter(here)
    for name in wanted:
        if name not in counts:
            yield f"{name}: missing"
    for name, count in counts.items():
        if name not in place:
            yield f"{name}: not in SOURCE"
        elif count > 1:
            yield f"{name}: there {count} times"
    common = [name for name in here if name in place]
    for before, after in itertools.pairwise(common):
        if place[before] > place[after]:
            yield f"{after}: after {before}, in SOURCE before it"


def _compare_card(path: Path, rows: int, num_bytes: int, file_sizes: list[int]) -> Iterator[str]:
    if not path.is_file():
        yield f"{path.name}: missing"
        return
    if not is_intact(path):
        yield f"{path.name}: not to the bit what was written: damaged or edited"
    for name, sha256 in _files_of_card(path.parent).items():
        beside = path.parent / name
        if not beside.is_file():
            yield f"{name}: missing; the card says that it belongs to it"
        elif sha256_of(beside) != sha256:
            yield f"{name}: not to the bit what was written: damaged or edited"
    try:
        header = DatasetCard.load(path).data.to_dict()
    except Exception as error:  # of the YAML, in many classes
        yield f"{path.name}: its header cannot be read: {one_line(error)}"
        return
    info = dataset_info(rows, num_bytes, file_sizes)._to_yaml_dict()
    wanted = {
        "size_categories": [size_category(rows)],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": DATA_FILES}]}],
        **{f"dataset_info.{key}": value for key, value in info.items()},
    }
    said = {**header, **{f"dataset_info.{key}": value for key, value in (header.get("dataset_info") or {}).items()}}
    for key, value in wanted.items():
        if said.get(key) != value:
            yield f"{path.name}: {key} is {said.get(key)!r}, by the data {value!r}"


def _compare_croissant(path: Path, present: list[FileObject]) -> Iterator[str]:
    try:
        said = {file.name: file for file in read_files(path.read_text(encoding="utf-8"))}
    except (OSError, ValueError) as error:
        yield f"{path.name}: cannot be read: {one_line(error)}"
        return
    for name in sorted(said.keys() - {file.name for file in present}):
        yield f"{path.name}: describes {name}, which is missing"
    for file in present:
        if said.get(file.name) != file:
            yield f"{path.name}: size or SHA-256 of {file.name} is not that of the file"
