"""One Parquet file of a converted folder: how it is written, and what it says of itself."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from _checksum import PLACEHOLDER, Crc32Writer, seal, sha256_if_intact, sha256_of
from _files import appearing, flushing_behind
from _jobs import advance
from _steps import StepError, crcs_of, read

from synthchex_75k import FEATURES, LABELS, Row

SCHEMA = FEATURES.arrow_schema  # with the `huggingface` metadata that makes of the struct an Image
LABEL_COLUMNS = [f"labels_dict.{label}" for label in LABELS]
TEXT_COLUMNS = ["image.path", "filename", "prompt"]
WRITER_OPTIONS: dict[str, Any] = {
    "compression": {"image.bytes": "none", **dict.fromkeys(TEXT_COLUMNS + LABEL_COLUMNS, "zstd")},  # a PNG is one
    "use_dictionary": LABEL_COLUMNS,
    "write_statistics": ["filename", *LABEL_COLUMNS],
    "write_page_index": True,  # the dataset viewer reads pages, not row groups
    "write_page_checksum": True,
    "use_content_defined_chunking": True,  # Xet storage transfers the chunks that it has not
}
FOOTER_KEY = "convert_to_parquet"  # what a file says of itself, as JSON
MAX_ROW_GROUP_BYTES = 64 << 20  # three of them fit in memory, and none is over what the viewer takes
# What a row, a row group and a file take beside their values, rounded up: a file may be smaller than said, not larger.
ROW_OVERHEAD, GROUP_OVERHEAD, FILE_OVERHEAD = 512, 8192, 32768

Item = TypeVar("Item")
Result = TypeVar("Result")


class Shard(NamedTuple):
    """One Parquet file: where it goes, which rows, and how they are written."""

    path: Path
    rows: list[Row]
    rows_per_group: int
    uncertainty: str

    @property
    def groups(self) -> Iterator[list[Row]]:
        """The rows of each row group: at most `rows_per_group` and, together, `MAX_ROW_GROUP_BYTES`."""
        group: list[Row] = []
        size = 0
        for row in self.rows:
            if group and (len(group) == self.rows_per_group or size + row_size(row) > MAX_ROW_GROUP_BYTES):
                yield group
                group, size = [], 0
            group.append(row)
            size += row_size(row)
        yield group

    @property
    def size(self) -> int:
        """An upper bound of the file's size: bytes."""
        return sum(map(row_size, self.rows)) + GROUP_OVERHEAD * sum(1 for _ in self.groups) + FILE_OVERHEAD


def row_size(row: Row) -> int:
    """Returns an upper bound of what a row takes in a file: bytes."""
    if row.size is None:
        raise StepError(f"{row.where}: the server does not say how large it is; download it, then convert that")
    return row.size + 2 * len(row.filename.encode()) + len(row.prompt.encode()) + ROW_OVERHEAD


def write_shard(shard: Shard) -> str:
    """Writes a Parquet file.

    Returns:
        Its SHA-256.

    Raises:
        SourceError: An image is not what the plan found.
        StepError: A remote source failed.
        OSError: Something could not be read or written.
    """
    crcs: list[int] = []
    with appearing(shard.path) as incomplete:
        with Crc32Writer(incomplete) as file, flushing_behind(file) as flush, parquet_writer(file) as writer:
            num_bytes = 0
            tables = one_ahead(shard.groups, lambda group: read_table(group, shard.uncertainty, crcs))
            for group, table in zip(shard.groups, tables):
                writer.write_table(table, row_group_size=len(group))
                file.check()
                flush()
                num_bytes += table.nbytes
                advance(len(group), sum(row.size or 0 for row in group))
            footer = {**describe(shard, crcs), "num_bytes": num_bytes, "crc32": PLACEHOLDER}
            writer.add_key_value_metadata({FOOTER_KEY: json.dumps(footer)})
        seal(incomplete, file.crc32)
        return sha256_of(incomplete)  # which the system has in memory still


@contextlib.contextmanager
def parquet_writer(file: IO[bytes]) -> Iterator[pq.ParquetWriter]:
    """Opens a file for tables of `SCHEMA`, and closes the writer after an error too: else it tries when collected."""
    writer = pq.ParquetWriter(file, SCHEMA, **WRITER_OPTIONS)
    try:
        yield writer
    except BaseException:
        with contextlib.suppress(Exception):
            writer.close()
        raise
    writer.close()


def one_ahead(items: Iterable[Item], function: Callable[[Item], Result]) -> Iterator[Result]:
    """Yields what a function returns for each item, while it is at work on the next in a thread of its own."""
    with ThreadPoolExecutor(1) as thread:
        ahead: Future[Result] | None = None
        for item in items:
            ready, ahead = ahead, thread.submit(function, item)
            if ready:
                yield ready.result()
        if ahead:
            yield ahead.result()


def read_table(group: list[Row], uncertainty: str, crcs: list[int]) -> pa.Table:
    """Reads rows into a table of `SCHEMA`, no more than one image in memory beside it, and appends their CRC-32."""
    images = pa.allocate_buffer(sum(row.size or 0 for row in group))
    view, rows, ends = memoryview(images).cast("B"), [], [0]
    for crc, example in read(group, uncertainty):
        image = example["image"].pop("bytes")
        ends.append(ends[-1] + len(image))
        view[ends[-2] : ends[-1]] = image
        rows.append(example)
        crcs.append(crc)
    data = [None, pa.array(ends, pa.int32()).buffers()[1], images]
    names = pa.array([row["filename"] for row in rows], pa.string())
    image_column = [pa.Array.from_buffers(pa.binary(), len(rows), data), names]
    columns = {
        "image": pa.StructArray.from_arrays(image_column, fields=list(SCHEMA.field("image").type)),
        "filename": names,
        "prompt": pa.array([row["prompt"] for row in rows], pa.string()),
        "labels_dict": pa.array([row["labels_dict"] for row in rows], SCHEMA.field("labels_dict").type),
    }
    return pa.Table.from_arrays([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def sha256_if_finished(shard: Shard) -> str | None:
    """Returns the SHA-256 of the file that is there, if it is what would be written now and intact."""
    is_same = describe(shard, crcs_of(shard.rows)).items() <= read_footer(shard.path).items()
    sha256 = sha256_if_intact(shard.path) if is_same else None
    advance(len(shard.rows), sum(row.size or 0 for row in shard.rows))
    return sha256


def describe(shard: Shard, crcs: Iterable[int]) -> dict[str, Any]:
    """Returns what a file says of itself: all that its bytes depend on.

    Args:
        shard: The file.
        crcs: CRC-32 of the image of each row.
    """
    content = hashlib.sha256(SCHEMA.serialize())
    content.update(repr(WRITER_OPTIONS).encode())
    for row, crc in zip(shard.rows, crcs, strict=True):
        content.update(repr((row.filename, row.size, crc, row.prompt, row.labels)).encode())
    return {
        "version": 1,
        "pyarrow": pa.__version__,
        "uncertainty": shard.uncertainty,
        "rows_per_group": shard.rows_per_group,
        "sha256_of_rows": content.hexdigest(),
    }


def read_footer(path: Path) -> dict[str, Any]:
    """Returns what a Parquet file says of itself, or nothing if it is not one of ours."""
    try:
        return json.loads((pq.read_metadata(path).metadata or {}).get(FOOTER_KEY.encode(), "{}"))
    except PermissionError:
        raise
    except (pa.ArrowException, OSError, ValueError):
        return {}
