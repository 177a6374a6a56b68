"""Rows of a PARQUET REPO: the folder that `convert_to_parquet.py` writes, local or at an address, read like a SOURCE.

`plan_parquet` reads the small columns and no image; `read_parquet_rows` reads images, some of a row group at a time.
A folder is read only if it is whole and has the columns of the loading script; further columns may be beside them.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import re
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import huggingface_hub
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import StepError, listing, one_line
from pipeline.parquet_pages import Chunk, PageFile, read_chunks
from pipeline.source_json import address_in, filesystem_of
from synthchex_75k import (
    BROKEN_LINK,
    CHECK_INTERVAL,
    FEATURES,
    LABELS,
    MAX_CSV_BYTES,
    MAX_IMAGE_BYTES,
    MAX_ROWS,
    NO_FILE,
    NO_RANGES,
    UNCERTAINTY,
    SourceError,
    basename_of,
    check_image,
    file_info,
    kind_of,
    printable,
)

DATA_FILES = "data/train-*.parquet"  # as `datasets` and DuckDB take it
LABELS_FILE = "labels/train-00000-of-00001.parquet"  # the rows without images, where the labels are columns
_ANY_DATA_FILE = re.compile(r"data/train-[^/]*\.parquet")
_DATA_FILE = re.compile(r"data/train-\d{5}-of-(\d{5})\.parquet")
_PINNED = re.compile(r"hf://.*?@[0-9a-f]{40}(/|$)")  # a commit on the Hub never changes
SCHEMA = FEATURES.arrow_schema
TEXT_COLUMNS = ["filename", "prompt"]
MAX_GROUP_BYTES = 300_000_000  # of the images in a row group; the dataset viewer takes no more either, we write 64 MiB
ROWS_IN_MEMORY = 16  # images that are decoded at once
LOCAL_BUFFER, REMOTE_BUFFER = 1 << 20, 16 << 20  # bytes of one read of a file, and of one request to a server
MAX_SKIPPED = 1 << 20  # bytes of images before a wanted one that are read too; beyond that the page index is used
REQUESTS = 8  # files that are planned at once, where each takes several requests
NOT_MENTIONED = 1000  # for null in an array of raw labels
CELL_TYPES: tuple[Callable[[pa.DataType], bool], ...] = (pa.types.is_string, pa.types.is_large_string)
CELL_TYPES += (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
DAMAGED = "damaged, cut off or no Parquet file; get it again, or convert the SOURCE again"


class ParquetRow(NamedTuple):
    """One row of a PARQUET REPO: the place of its image, its prompt and its labels; used like `synthchex_75k.Row`."""

    filename: str
    path: str  # of the Parquet file
    where: str  # for messages: the Parquet file below the folder, and the file name
    group: int  # row group in the file, from 0
    number: int  # row in the row group, from 0
    mean_size: int  # of an image of the row group: bytes
    size: None = None  # of the image: unknown until it is read
    zipped: None = None
    prompt: str = ""
    labels: tuple[int | None, ...] = ()  # as they were converted: 1, 0, -1 or None, in the order of LABELS
    versions: tuple[tuple[str, str], ...] = ()  # of the Parquet file: address, version of `file_info`


class _Problem(NamedTuple):
    """What is wrong and what to do, and where."""

    kind: str
    place: str


def data_file(number: int, count: int) -> str:
    """Returns the path of a Parquet file in its folder.

    Example:
        >>> data_file(0, 41)
        'data/train-00000-of-00041.parquet'
    """
    return f"data/train-{number:05d}-of-{count:05d}.parquet"


def data_files(names: set[str]) -> list[str]:
    """Returns the Parquet files that a folder with such files should have, in order.

    Args:
        names: Paths in the folder.

    Example:
        >>> data_files({"data/train-00001-of-00002.parquet", "README.md"})
        ['data/train-00000-of-00002.parquet', 'data/train-00001-of-00002.parquet']
    """
    count = max((int(match[1]) for name in names if (match := _DATA_FILE.fullmatch(name))), default=0)
    return [data_file(number, count) for number in range(count)]


def is_parquet_source(source: str) -> bool:
    """Returns True for a folder with `DATA_FILES`, and no archive and no CSV at its top or in `data/`.

    With an archive or a CSV it is a SOURCE, whatever else it holds.

    Args:
        source: A local folder or an address.

    Raises:
        SourceError: A server cannot be read.
    """
    if kind_of(source) and not os.path.isdir(source):  # one archive, or a file
        return False
    _, names = _list_names(source)
    is_source = any(kind_of(name) in ("archive", "csv") for name in names)
    return not is_source and any(map(_ANY_DATA_FILE.fullmatch, names))


def plan_parquet(source: str) -> list[ParquetRow]:
    """Reads all but the images of a PARQUET REPO, and checks all that can be checked without them.

    Args:
        source: A local folder or an address. One on the Hub without a commit gets the newest one.

    Returns:
        The rows in order.

    Raises:
        SourceError: A file is missing, damaged or of other columns, or a row cannot be used; for each kind of problem
            what to do, how many places, and the first five.
    """
    address, names = _list_names(source)
    found = {name for name in names if _ANY_DATA_FILE.fullmatch(name)}
    if not found:
        raise SourceError(f"{source}: no {DATA_FILES}; check the address, or convert a SOURCE to this folder")
    wanted = data_files(found)
    beside = "Parquet file beside those of one conversion; remove it, or convert the SOURCE again"
    problems = [_Problem("missing Parquet file; get it", name) for name in wanted if name not in found]
    problems += [_Problem(beside, name) for name in sorted(found - {*wanted})]
    _refuse(source, problems)
    rows: list[ParquetRow] = []
    with ThreadPoolExecutor(REQUESTS) as threads:
        run = threads.map if "://" in address else map
        for file_rows, file_problems in run(lambda name: _plan_file(name, address_in(address, name)), wanted):
            rows += file_rows
            problems += file_problems
    first: dict[str, ParquetRow] = {}
    twice = "file name twice; remove or rename one"
    problems += [
        _Problem(twice, f"{first[row.filename].where} and {row.where}")
        for row in rows
        if first.setdefault(row.filename, row) is not row
    ]
    if not rows:
        problems.append(_Problem("no rows; convert the SOURCE again", wanted[0]))
    if len(rows) > MAX_ROWS:
        problems.append(_Problem(f"more than {MAX_ROWS:,} rows; split it", f"{len(rows):,}"))
    _refuse(source, problems)
    return rows


def read_parquet_rows(rows: Iterable[ParquetRow], uncertainty: str = "keep") -> Iterator[dict[str, Any]]:
    """Reads rows of `plan_parquet`, each when it is iterated over.

    Rows in their order read a row group once. A row elsewhere is read by the page index, a page alone, in which the
    converter puts one image of more than 16 KiB. Where that cannot be used, its row group is read from the start.

    Args:
        rows: Rows, any of them.
        uncertainty: Label policy, a key of `UNCERTAINTY`, applied to the labels as they were converted: `"keep"`
            (default) returns those. What another policy has replaced in the conversion is lost.

    Yields:
        Rows as in `FEATURES`; the image is the bytes of its file.

    Raises:
        SourceError: An image is not a whole PNG or JPEG file, or a Parquet file is damaged or has changed since.
        OSError: A file cannot be read.
        Exception: What the client of a network raises.
    """
    policy = UNCERTAINTY[uncertainty]
    for _, group in itertools.groupby(rows, key=lambda row: row.path):
        in_file = [*group]
        _check_unchanged(in_file[0])
        check_at = time.monotonic() + CHECK_INTERVAL
        with contextlib.closing(_read_images(in_file)) as images:
            for row in in_file:
                try:
                    image = next(images)
                except SourceError:
                    _check_unchanged(row)  # the better reason, if it is one
                    raise
                if row is in_file[-1] or time.monotonic() > check_at:
                    _check_unchanged(row)
                    check_at = time.monotonic() + CHECK_INTERVAL
                labels = {label: policy[raw] for label, raw in zip(LABELS, row.labels)}
                picture = {"path": row.filename, "bytes": image}
                yield {"image": picture, "filename": row.filename, "prompt": row.prompt, "labels_dict": labels}


def read_parquet_columns(rows: Sequence[ParquetRow], names: Sequence[str]) -> dict[str, list[str | None]]:
    """Reads further columns of a PARQUET REPO: of the files with the images, else of `LABELS_FILE`.

    Args:
        rows: Rows of `plan_parquet`, any of them.
        names: The columns; of texts, numbers or truth values.

    Returns:
        For each column the values of the rows, as text; None where a cell is empty.

    Raises:
        StepError: A column does not exist, or is of another type; the message lists the columns.
        SourceError: A Parquet file is damaged or has changed since it was planned.
    """
    flat = _read_labels_file(rows, names)
    cells: dict[tuple[str, int], dict[str, list[Any]]] = {}  # of a row group, by column
    wanted: dict[str, dict[int, ParquetRow]] = defaultdict(dict)  # a row of each row group, by file
    for row in rows:
        wanted[row.path].setdefault(row.group, row)
    for path, groups in wanted.items():
        any_row = next(iter(groups.values()))
        with _damage(any_row.where), _open(path) as (handle, options):
            parquet = pq.ParquetFile(handle, **options)
            inner = [name for name in names if name not in flat]
            _check_columns(any_row.where.partition(": ")[0], parquet.schema_arrow, inner)
            for group in groups if inner else ():
                table = parquet.read_row_group(group, columns=inner, use_threads=False)
                cells[path, group] = {name: table[name].to_pylist() for name in inner}
        _check_unchanged(any_row)
    return {
        name: flat[name] if name in flat else [_text(cells[row.path, row.group][name][row.number]) for row in rows]
        for name in names
    }


def _read_labels_file(rows: Sequence[ParquetRow], names: Sequence[str]) -> dict[str, list[str | None]]:
    """Returns those columns that `LABELS_FILE` has and the files with the images have not: values by row."""
    if not rows:
        return {}
    with _damage(rows[0].where), _open(rows[0].path) as (handle, options):
        inner = {*pq.ParquetFile(handle, **options).schema_arrow.names}
    address = address_in(rows[0].path.rpartition("/data/")[0], LABELS_FILE)
    filesystem, path = filesystem_of(address)
    if inner >= {*names} or not filesystem.exists(path):
        return {}
    with _damage(LABELS_FILE), _open(address) as (handle, options):
        parquet = pq.ParquetFile(handle, **options)
        known = [name for name in names if name not in inner and name in parquet.schema_arrow.names]
        _check_columns(LABELS_FILE, parquet.schema_arrow, known)
        table = parquet.read(columns=["filename", *known], use_threads=False)
        table.validate(full=True)  # as for texts that are not UTF-8
    number = {filename: number for number, filename in enumerate(table["filename"].to_pylist())}
    if missing := [row.where for row in rows if row.filename not in number]:
        raise SourceError(f"{LABELS_FILE} has no row of {listing(missing)}; convert the SOURCE again")
    columns = {name: table[name].to_pylist() for name in known}
    return {name: [_text(cells[number[row.filename]]) for row in rows] for name, cells in columns.items()}


def _list_names(source: str) -> tuple[str, set[str]]:
    """Returns a folder's address, pinned to a commit if it is on the Hub, and the names at its top and in `data/`."""
    with remote_errors(source):
        filesystem, root = filesystem_of(source)
        if "file" in filesystem.protocol:
            return root, _names_in(filesystem, root)
        if "hf" in filesystem.protocol:
            root = _pin_commit(filesystem, root)
        return filesystem.unstrip_protocol(root), _names_in(filesystem, root)


def _pin_commit(filesystem: Any, root: str) -> str:
    at = filesystem.resolve_path(root)
    if not hasattr(at, "repo_id"):  # a bucket
        return root
    hub = huggingface_hub.HfApi(filesystem.endpoint, token=filesystem.token)
    commit = hub.repo_info(at.repo_id, revision=at.revision, repo_type=at.repo_type).sha
    kind = f"{at.repo_type}s/" if at.repo_type != "model" else ""
    return f"{kind}{at.repo_id}@{commit}/{at.path_in_repo}".rstrip("/")


def _names_in(filesystem: Any, root: str) -> set[str]:
    """Lists two folders only: below the top of a SOURCE may be 75,649 images."""
    top = _names_of(filesystem, root)
    below = _names_of(filesystem, f"{root.rstrip('/')}/data") if "data" in top else set()
    return top | {f"data/{name}" for name in below}


def _names_of(filesystem: Any, folder: str) -> set[str]:
    folder = f"{folder.rstrip('/')}/" if folder.startswith("http") else folder  # as servers name folders
    try:
        found = filesystem.ls(folder, detail=False)
    except (FileNotFoundError, NotADirectoryError):
        return set()
    return {path.rstrip("/").rpartition("/")[2] for path in found}


def _plan_file(name: str, address: str) -> tuple[list[ParquetRow], list[_Problem]]:
    """Reads all but the images of a Parquet file: the rows, and what is wrong with it."""
    with remote_errors(address):
        info = {"type": "file"} if _PINNED.match(address) else file_info(address)
        if info["type"] != "file":
            return [], [_Problem(BROKEN_LINK if info["type"] == "broken link" else NO_FILE, name)]
        versions = ((address, info["version"]),) if "version" in info else ()
        try:
            with _open(address) as (handle, options):
                parquet = pq.ParquetFile(handle, **options)
                if refusal := _refusal(parquet):
                    return [], [_Problem(refusal[0], f"{name}: {refusal[1]}")]
                # As dictionaries, equal texts take memory only once, however often a small file repeats them.
                columns: dict[str, Any] = {"read_dictionary": TEXT_COLUMNS, "pre_buffer": True}
                small = pq.ParquetFile(handle, metadata=parquet.metadata, **options, **columns)
                table = small.read(columns=[*TEXT_COLUMNS, "labels_dict"], use_threads=False)
                return _rows_of(name, address, versions, parquet.metadata, table)
        except Exception as error:
            if "://" in address and re.search(r" HTTP |seekable", str(error)):
                return [], [_Problem(NO_RANGES, name)]
            if not _is_damage(error):
                raise
            return [], [_Problem(DAMAGED, f"{name}: {one_line(error)[:200]}")]


def _refusal(parquet: pq.ParquetFile) -> tuple[str, str] | None:
    """Returns why a file is not read, and what of it is wrong; None for a usable one."""
    schema, metadata = parquet.schema_arrow, parquet.metadata
    differing = [
        f"{field.name} is {one_line(found.type) if found else 'missing'}"
        for field in SCHEMA
        if not (found := _field(schema, field.name)) or found.type != field.type
    ]
    if differing:
        return "other columns than those that convert_to_parquet.py writes", listing(differing)
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    chunks = [[group.column(number) for number in range(group.num_columns)] for group in groups]
    images = [chunk for row in chunks for chunk in row if chunk.path_in_schema.startswith("image.")]
    others = [chunk for row in chunks for chunk in row if not chunk.path_in_schema.startswith("image.")]
    if max((chunk.total_uncompressed_size for chunk in images), default=0) > MAX_GROUP_BYTES:
        return "row group too large; convert the SOURCE again", f"images of more than {MAX_GROUP_BYTES:,} bytes in one"
    if sum(chunk.total_uncompressed_size for chunk in others) > MAX_CSV_BYTES:
        return "too large; split it", f"texts of more than {MAX_CSV_BYTES:,} bytes"
    if sum(group.num_rows for group in groups) != metadata.num_rows or metadata.num_rows > MAX_ROWS:
        return DAMAGED, f"{metadata.num_rows:,} rows are not those of its row groups, or more than {MAX_ROWS:,}"
    return None


def _field(schema: pa.Schema, name: str) -> pa.Field | None:
    return schema.field(name) if len(schema.get_all_field_indices(name)) == 1 else None


def _rows_of(
    name: str, address: str, versions: tuple, metadata: pq.FileMetaData, table: pa.Table
) -> tuple[list[ParquetRow], list[_Problem]]:
    """Returns the rows of a Parquet file, and what is wrong with them."""
    filenames, prompts = (_texts(table[column]) for column in TEXT_COLUMNS)
    labels = _labels(table["labels_dict"])
    places = []
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        images = next(c for c in map(group.column, range(group.num_columns)) if c.path_in_schema == "image.bytes")
        mean_size = images.total_uncompressed_size // max(1, group.num_rows)
        places += [(number, index, mean_size) for index in range(group.num_rows)]
    if len(places) != len(table):
        return [], [_Problem(DAMAGED, f"{name}: {len(table):,} rows instead of {len(places):,}")]
    rows, problems = [], []
    for number, (filename, prompt, raw, place) in enumerate(zip(filenames, prompts, labels, places)):
        if not filename or basename_of(filename) != filename or kind_of(filename) != "image":
            kind = "not the file name of a PNG or JPEG file, without its folder"
            problems.append(_Problem(kind, f"{name} row {number}: {filename!r:.200}"))
        if not prompt or not prompt.strip():
            problems.append(_Problem("empty prompt; write the text that generated the image", f"{name} row {number}"))
        if raw is None:
            problems.append(_Problem("bad labels; each of the 14 is 1, 0, -1 or null", f"{name} row {number}"))
        where = printable(f"{name}: {filename}")
        rows.append(ParquetRow(filename or "", address, where, *place, None, None, prompt or "", raw or (), versions))
    return rows, problems


def _texts(column: pa.ChunkedArray) -> Iterator[str | None]:
    """Yields the texts of a column that was read as a dictionary."""
    for chunk in column.chunks:
        values = chunk.dictionary.to_pylist()
        yield from (None if index is None else values[index] for index in chunk.indices.to_pylist())


def _labels(column: pa.ChunkedArray) -> list[tuple[int | None, ...] | None]:
    """Returns the labels of each row; None where they are no labels. Equal ones are one object, as most repeat."""
    raw = [child.cast(pa.int16()).fill_null(NOT_MENTIONED).to_numpy() for child in column.flatten()]
    different, indices = np.unique(np.stack(raw, axis=1), axis=0, return_inverse=True)
    values = {1: 1, 0: 0, -1: -1, NOT_MENTIONED: None}
    tuples = [tuple(values[value] for value in row) if values.keys() >= {*row} else None for row in different.tolist()]
    has_labels = column.is_valid().to_pylist()
    return [tuples[index] if is_there else None for index, is_there in zip(indices.ravel().tolist(), has_labels)]


def _read_images(rows: list[ParquetRow]) -> Generator[bytes]:
    """Reads images of one Parquet file."""
    address = rows[0].path
    with _damage(rows[0].where), _open(address) as (handle, options):
        size = REMOTE_BUFFER if "://" in address else LOCAL_BUFFER
        # Without `pre_buffer=False`, a row group would be read at once.
        parquet = pq.ParquetFile(handle, buffer_size=size, pre_buffer=False, **options)
        pages = None
        group, number, images = -1, 0, iter(())  # the next image of the pass over a row group is that of this row
        for row in rows:
            skipped = row.number - (number if row.group == group else 0)
            if not 0 <= skipped * row.mean_size <= MAX_SKIPPED:
                pages = pages or PageFile(_reader_of(handle), _image_chunks(row.path, row.versions))
                if (found := pages.read_value(row.group, row.number)) is not None:
                    yield _checked(found, row)
                    continue
            if row.group != group or row.number < number:
                group, number, images = row.group, 0, _images_of(parquet, row.group)
            with _damage(row.where):
                value = next(itertools.islice(images, row.number - number, None), None)
                image: bytes = (value and value.as_py()) or b""
            number = row.number + 1
            yield _checked(image, row)


def _checked(image: bytes, row: ParquetRow) -> bytes:
    """Returns an image that is a whole file."""
    if not 0 < len(image) <= MAX_IMAGE_BYTES:
        problem = f"image over {MAX_IMAGE_BYTES >> 20} MiB" if image else "no image"
        raise SourceError(f"{row.where}: {problem}; convert the SOURCE again")
    check_image(image, row)
    return image


@functools.lru_cache(64)
def _image_chunks(address: str, versions: tuple) -> list[Chunk]:
    """Returns where the page indexes of the images are, of one version of a file."""
    with _open(address) as (handle, _):
        size = handle.size if "://" in address else handle.size()
        return read_chunks(_reader_of(handle), size, ("image", "bytes"))


def _reader_of(handle: Any) -> Callable[[int, int], bytes]:
    def read(offset: int, length: int) -> bytes:
        handle.seek(offset)
        return bytes(handle.read(length))

    return read


def _images_of(parquet: pq.ParquetFile, group: int) -> Iterator[Any]:
    batches = parquet.iter_batches(ROWS_IN_MEMORY, row_groups=[group], columns=["image.bytes"], use_threads=False)
    for batch in batches:
        yield from batch["image"].field("bytes")


def _check_columns(where: str, schema: pa.Schema, names: Sequence[str]) -> None:
    known = [field.name for field in schema if any(is_kind(field.type) for is_kind in CELL_TYPES)]
    if missing := [name for name in names if known.count(name) != 1]:
        raise StepError(f"{where}: no column {', '.join(missing)}; it has {', '.join(known)}")


def _text(value: Any) -> str | None:
    text = "" if value is None else str(value)
    return text if text.strip() else None


@contextlib.contextmanager
def _open(address: str) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Opens a Parquet file, and yields options for pyarrow beside it."""
    options = {"page_checksum_verification": True}
    if "://" not in address:
        with pa.OSFile(os.fsencode(address)) as local:  # pyarrow would encode a text as UTF-8, which not every path is
            yield local, options
        return
    filesystem, path = filesystem_of(address)
    with filesystem.open(path, "rb", cache_type="none") as remote:  # a request for each read, of exactly its bytes
        yield remote, options


@contextlib.contextmanager
def _damage(where: str) -> Iterator[None]:
    """Turns pyarrow's errors for a damaged file into a SourceError."""
    try:
        yield
    except Exception as error:
        if isinstance(error, (SourceError, StepError)) or not _is_damage(error):
            raise
        raise SourceError(f"{where}: {DAMAGED} ({one_line(error)[:200]})") from error


def _is_damage(error: Exception) -> bool:
    """True for pyarrow's errors about the content of a file; those of the system and of a network are others."""
    is_of_content = type(error) is OSError and error.errno is None
    return is_of_content or isinstance(error, (pa.ArrowException, ValueError))


@contextlib.contextmanager
def remote_errors(address: str) -> Iterator[None]:
    """Turns errors of a remote file system into a SourceError of one line, as the loading script does.

    Args:
        address: Of a file or folder; errors of a local one stay as they are.

    Raises:
        SourceError: The remote file system failed.
    """
    try:
        yield
    except Exception as error:  # each network client has error classes of its own
        mistake = type(error).__module__ == "builtins" and not isinstance(error, OSError)
        if mistake or "://" not in address or isinstance(error, (SourceError, StepError)):
            raise
        cause = error.__cause__ or error
        what = one_line(f"{type(cause).__name__}: {cause}")[:300].rstrip(".")
        login = ", and your login (`hf auth login`)" * address.startswith("hf://")
        raise SourceError(f"{address} cannot be read: {what}. Check the network and the address{login}.") from error


def _check_unchanged(row: ParquetRow) -> None:
    for address, version in row.versions:
        if file_info(address)["version"] != version:
            raise SourceError(f"{printable(address)}: it changed while it was read; start again")


def _refuse(source: str, problems: list[_Problem]) -> None:
    """Raises a SourceError that lists problems by kind, if there are any."""
    places: dict[str, list[str]] = defaultdict(list)
    for problem in problems:
        places[problem.kind].append(problem.place)
    lines = [
        f"- {kind}{f' ({len(found):,} in all)' * (len(found) > 1)}: {'; '.join(map(printable, found[:5]))}"
        for kind, found in places.items()
    ]
    if lines:
        raise SourceError("\n".join([f"{source} cannot be used as it is", *lines]))
