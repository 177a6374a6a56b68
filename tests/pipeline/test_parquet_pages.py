"""Single values by page index: equal to what pyarrow reads, or None; never another value."""

import io
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import convert, files_of, padded
from pipeline.parquet_pages import Chunk, PageFile, Read, read_chunks
from pipeline.parquet_source import plan_parquet, read_parquet_rows

USUAL = {"compression": "none", "use_dictionary": False, "write_page_index": True, "write_page_checksum": True}


def written(values: Sequence[bytes | None], per_group: int, **options: Any) -> bytes:
    """Writes a Parquet file with a struct of a text and bytes, as an image is, between two other columns."""
    image = pa.array(
        [{"path": "x", "bytes": value} for value in values], pa.struct({"bytes": "binary", "path": "string"})
    )
    table = pa.table({"a": range(len(values)), "image": image, "z": ["text"] * len(values)})
    file = io.BytesIO()
    pq.write_table(table, file, row_group_size=per_group, **{**USUAL, **options})
    return file.getvalue()


def opened(data: bytes) -> PageFile:
    def read(offset: int, length: int) -> bytes:
        return data[offset : offset + length]

    return PageFile(read, read_chunks(read, len(data), ("image", "bytes")))


@settings(max_examples=40)
@given(
    st.lists(st.binary(max_size=300), min_size=1, max_size=40), st.integers(1, 15), st.integers(1, 2000), st.booleans()
)
def test_each_value_is_that_of_the_file(values: list[bytes], per_group: int, page_size: int, cdc: bool) -> None:
    file = opened(written(values, per_group, data_page_size=page_size, use_content_defined_chunking=cdc))
    order = [*range(len(values))]
    random.Random(0).shuffle(order)
    for number in order:
        assert file.read_value(number // per_group, number % per_group) == values[number]
    assert file.read_value(len(values), 0) is None
    assert file.read_value(0, per_group) is None


@pytest.mark.parametrize(
    "options",
    [
        {"write_page_index": False},
        {"compression": "zstd"},
        {"use_dictionary": True},
        {"data_page_version": "2.0"},
        {"use_dictionary": False, "column_encoding": {"image.bytes": "DELTA_LENGTH_BYTE_ARRAY"}},
    ],
    ids=lambda options: "-".join(map(str, options)),
)
def test_other_files_are_left_to_pyarrow(options: dict[str, Any]) -> None:
    assert opened(written([b"one", b"two"], 2, **options)).read_value(0, 1) is None


def test_nulls_are_left_to_pyarrow() -> None:
    assert opened(written([b"one", None, b"three"], 3)).read_value(0, 2) is None


@settings(max_examples=150)
@given(st.data())
def test_a_damaged_file_gives_no_other_value(data: st.DataObject) -> None:
    values = [bytes([number]) * 50 for number in range(6)]
    whole = bytearray(written(values, 3, data_page_size=100))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.one_of(st.just(len(whole)), st.integers(0, len(whole))))])
    file = opened(cut)
    for number in range(6):
        assert file.read_value(number // 3, number % 3) in (None, values[number])


HUGE = b"\xfe" + b"\xff" * 8 + b"\x7f"  # more than any file system seeks to, as a varint
MINUS_ONE = b"\x01"


@pytest.mark.parametrize("place", [(b"\x08", HUGE, b"\x00"), (b"\x08", b"\x14", HUGE), (MINUS_ONE, b"\x14", b"\x00")])
@pytest.mark.parametrize("size", [b"\x28", MINUS_ONE, HUGE])
def test_a_page_index_that_leads_out_of_the_file(
    place: tuple[bytes, bytes, bytes], size: bytes, tmp_path: Path
) -> None:
    offset, _, row = place
    first = b"\x16" + offset + b"\x15" + size + b"\x16\x00\x00"
    second = b"\x16" + place[1] + b"\x15" + size + b"\x16" + row + b"\x00"
    index = b"\x19\x2c" + first + second + b"\x00"
    path = tmp_path / "x.parquet"
    path.write_bytes(b"PAR1" + bytes(60) + index)
    with pa.OSFile(str(path)) as handle:
        file = PageFile(reader_of(handle), [Chunk(64, len(index), 2**64, True, 4, 44)])
        assert [file.read_value(0, row) for row in (0, 1, 2**63, 2**64)] == [None] * 4


def test_a_chunk_that_leads_out_of_the_file(tmp_path: Path) -> None:
    data = written([b"one", b"two"], 2)
    path = tmp_path / "x.parquet"
    (chunk,) = read_chunks(lambda offset, length: data[offset : offset + length], len(data), ("image", "bytes"))
    assert chunk.offset
    before = _varint(chunk.offset << 1)
    assert data.count(before) == 1
    for after in (_varint(chunk.offset << 1 | 1), _varint(len(data) << 1)):
        path.write_bytes(data.replace(before, after))
        with pa.OSFile(str(path)) as handle:
            found = read_chunks(reader_of(handle), len(data), ("image", "bytes"))
            assert PageFile(reader_of(handle), found).read_value(0, 1) is None


def test_the_page_index_of_another_column_is_not_used() -> None:
    data = written([b"one", b"two"], 2)
    groups = pq.read_metadata(io.BytesIO(data)).row_group(0)
    assert [groups.column(number).has_offset_index for number in (1, 2)] == [True, True]

    def read(offset: int, length: int) -> bytes:
        return data[offset : offset + length]

    (images,), (paths,) = (read_chunks(read, len(data), ("image", name)) for name in ("bytes", "path"))
    assert PageFile(read, [paths]).read_value(0, 0) == b"x"
    assert PageFile(read, [images._replace(offset=paths.offset, length=paths.length)]).read_value(0, 0) is None


def _varint(number: int) -> bytes:
    head = b""
    while number > 127:
        head, number = head + bytes([number & 127 | 128]), number >> 7
    return head + bytes([number])


def reader_of(handle: Any) -> Read:
    """Returns a reader of a true file, which refuses places that a slice of bytes allows."""

    def read(offset: int, length: int) -> bytes:
        handle.seek(offset)
        return bytes(handle.read(length))

    return read


def test_rows_in_any_order_and_few_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    padded(tmp_path / "source", 120, 200_000)
    assert convert(tmp_path / "source", tmp_path / "parquet") == 0
    rows = plan_parquet(str(tmp_path / "parquet"))
    wanted = {row["filename"]: row["image"]["bytes"] for row in read_parquet_rows(rows)}
    order = random.Random(1).sample(rows, 40)
    found = [*read_parquet_rows(order)]
    assert [row["filename"] for row in found] == [row.filename for row in order]
    assert all(row["image"]["bytes"] == wanted[row["filename"]] for row in found)
    (path,) = files_of(tmp_path / "parquet")
    before = _bytes_read()
    next(read_parquet_rows([rows[95]]))
    assert _bytes_read() - before < 4_000_000 < path.stat().st_size / 5


def _bytes_read() -> int:
    """Returns how many bytes this process has read so far."""
    lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("rchar")).split()[1])
