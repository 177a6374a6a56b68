"""One Parquet file of a converted folder."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

import pyarrow as pa

from pipeline.errors import StepError
from pipeline.files import NewFile
from pipeline.jobs import advance
from pipeline.parquet.pixels import Kind, kind_of_image, summarize
from pipeline.parquet.writer import CHUNKING, WRITER_OPTIONS, parquet_writer
from pipeline.parquet_source import data_file
from pipeline.rows import image_size, read, total_size
from pipeline.shards import cut
from synthchex_75k import FEATURES, LABELS, Row

SCHEMA = FEATURES.arrow_schema  # its `huggingface` metadata make an Image of the struct
LABEL_COLUMNS = [f"labels_dict.{label}" for label in LABELS]
TEXT_COLUMNS = ["image.path", "filename", "prompt"]
OPTIONS: dict[str, Any] = {
    **WRITER_OPTIONS,
    "compression": {"image.bytes": "none", **dict.fromkeys(TEXT_COLUMNS + LABEL_COLUMNS, "zstd")},  # PNG is compressed
    "use_dictionary": LABEL_COLUMNS,
    "write_statistics": ["filename", *LABEL_COLUMNS],
    # An image of more than 16 KiB ends its page, which has only smaller ones before it: whatever is inserted further
    # up, its page is the same, and one image can be read alone. Chunks of several images could not follow the content
    # better. Large ones save pyarrow's hash, which it computes beyond the least size of a chunk only.
    # `benchmark.py --chunking` compares.
    "write_batch_size": 1,
    "data_page_size": 16 << 10,
    CHUNKING: {"min_chunk_size": 15 << 20, "max_chunk_size": 16 << 20, "norm_level": 0},
}
ENTRY_FORMAT = 3  # of what the manifest holds of a file; with another one, the file is written again
MAX_ROW_GROUP_BYTES = 64 << 20  # three of them fit in memory, and the dataset viewer takes 286 MiB
# Bytes of a row, a row group and a file beside their values, rounded up, so that no file is larger than computed.
ROW_OVERHEAD, GROUP_OVERHEAD, FILE_OVERHEAD = 512, 8192, 32768

Item = TypeVar("Item")
Result = TypeVar("Result")


class ParquetShard(NamedTuple):
    """One Parquet file: its path, its rows, the largest row group in rows, and the label policy."""

    path: Path
    rows: list[Row]
    rows_per_group: int
    uncertainty: str

    @property
    def row_groups(self) -> Iterator[list[Row]]:
        """The rows of each row group: at most `rows_per_group` and, together, `MAX_ROW_GROUP_BYTES`."""
        group: list[Row] = []
        size = 0
        for row in self.rows:
            if group and (len(group) == self.rows_per_group or size + max_row_bytes(row) > MAX_ROW_GROUP_BYTES):
                yield group
                group, size = [], 0
            group.append(row)
            size += max_row_bytes(row)
        yield group

    @property
    def max_bytes(self) -> int:
        """An upper bound of the file's size: bytes."""
        return sum(map(max_row_bytes, self.rows)) + GROUP_OVERHEAD * sum(1 for _ in self.row_groups) + FILE_OVERHEAD

    def fingerprint(self, crcs: Iterable[int]) -> str:
        """Returns a hash of everything that the file's bytes depend on."""
        content = hashlib.sha256(SCHEMA.serialize())
        layout = (pa.__version__, OPTIONS, MAX_ROW_GROUP_BYTES, ENTRY_FORMAT, self.rows_per_group, self.uncertainty)
        content.update(repr(layout).encode())
        for row, crc in zip(self.rows, crcs, strict=True):
            content.update(repr((row.filename, row.size, crc, row.prompt, row.labels)).encode())
        return content.hexdigest()

    def write(self, file: NewFile) -> tuple[list[int], dict[str, Any]]:
        """Writes the file, in a worker.

        Args:
            file: Where to write it.

        Returns:
            The CRC-32 of each image; and `num_bytes`, the rows' size in memory as Arrow has them, and `pixels`, formats
            and sizes of the images.

        Raises:
            SourceError: An image differs from the plan.
            StepError: A remote source failed.
            OSError: A file cannot be read or written.
        """
        crcs: list[int] = []
        kinds: set[Kind] = set()
        num_bytes = 0
        sink = Sink(file)
        with parquet_writer(sink, SCHEMA, OPTIONS) as writer:
            tables = one_ahead(self.row_groups, lambda group: read_table(group, self.uncertainty, crcs, kinds))
            for group, table in zip(self.row_groups, tables):
                writer.write_table(table, row_group_size=len(group))
                sink.check()
                file.sync()
                num_bytes += table.nbytes
                advance(len(group), total_size(group))
        sink.check()
        return crcs, {"num_bytes": num_bytes, "pixels": summarize(kinds).entry}


def parquet_shards(
    rows: list[Row], folder: Path, max_size: int, rows_per_group: int, uncertainty: str
) -> list[ParquetShard]:
    """Cuts a plan into files with `shards.cut`.

    Args:
        rows: The plan.
        folder: The converted folder.
        max_size: Upper bound of a file: bytes.
        rows_per_group: Upper bound of the rows of a row group.
        uncertainty: Label policy, a key of `UNCERTAINTY`.

    Returns:
        The files. Their number and cuts depend on the arguments alone.

    Raises:
        StepError: A row alone is larger than `max_size`.
    """

    def shard(start: int, end: int, name: str = "") -> ParquetShard:
        return ParquetShard(folder / name, rows[start:end], rows_per_group, uncertainty)

    sizes = [max_row_bytes(row) for row in rows]
    largest = sizes.index(max(sizes))
    needed = shard(largest, largest + 1).max_bytes
    if needed > max_size:
        raise StepError(f"--max-shard-size is too small: one row ({rows[largest].where}) needs {needed:,} bytes")
    parts = cut(sizes, max_size, lambda start, end: shard(start, end).max_bytes)
    return [shard(*part, data_file(number, len(parts))) for number, part in enumerate(parts)]


def max_row_bytes(row: Row) -> int:
    """Returns an upper bound of a row's size in a file: bytes."""
    return image_size(row) + 2 * len(row.filename.encode()) + len(row.prompt.encode()) + ROW_OVERHEAD


class Sink(io.RawIOBase):
    """Writes to a file; `write` never fails, `check` raises the error.

    pyarrow (seen in 26.0.1, with a full disk) ends the whole process when its sink raises an error while it cuts
    content-defined chunks.

    Args:
        file: The file.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._error: OSError | None = None

    def writable(self) -> bool:
        """Tells pyarrow that it can write."""
        return True

    def write(self, data: Any) -> int:
        """Writes bytes; after an error it drops them."""
        if self._error is None:
            try:
                self._file.write(data)
            except OSError as error:
                self._error = error
        return len(data)

    def check(self) -> None:
        """Raises the error of an earlier `write`."""
        if self._error:
            raise self._error


def one_ahead(items: Iterable[Item], function: Callable[[Item], Result]) -> Iterator[Result]:
    """Yields the result of a function for each item, while a thread computes the next one."""
    with ThreadPoolExecutor(1) as thread:
        ahead: Future[Result] | None = None
        for item in items:
            ready, ahead = ahead, thread.submit(function, item)
            if ready:
                yield ready.result()
        if ahead:
            yield ahead.result()


def read_table(group: list[Row], uncertainty: str, crcs: list[int], kinds: set[Kind]) -> pa.Table:
    """Reads rows into a table of `SCHEMA`, with one image in memory beside it.

    Args:
        group: The rows.
        uncertainty: Label policy, a key of `UNCERTAINTY`.
        crcs: The CRC-32 of each image is appended.
        kinds: The kind of each image is added.
    """
    images = pa.allocate_buffer(total_size(group))
    view, rows, ends = memoryview(images).cast("B"), [], [0]
    for crc, example in read(group, uncertainty):
        image = example["image"].pop("bytes")
        ends.append(ends[-1] + len(image))
        view[ends[-2] : ends[-1]] = image
        rows.append(example)
        kinds.add(kind_of_image(image))
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
