"""Single values of a Parquet file, by its page index: a page for a value, where libraries read a row group.

pyarrow (26.0) reads a row group's images up to the wanted one, DuckDB (2.0) all of them; a row group of 100 images has
26 MB, a page one image, or a few small ones. Neither tells where the page index is. Only what
`convert_to_parquet.py` writes is read here: uncompressed pages of plain values, none of them null. For anything else
`read_value` returns None, and the caller reads with pyarrow.

The structures are those of Parquet's `parquet.thrift`, by their field numbers, in Thrift's compact protocol.
"""

from __future__ import annotations

import functools
import itertools
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

Read = Callable[[int, int], bytes]  # bytes of a file: offset, length
MAX_FOOTER, MAX_INDEX, MAX_PAGE = 256 << 20, 16 << 20, 512 << 20  # bytes
MAX_DEPTH = 16  # of structures in one another
BOOLS, INTS, DOUBLE, BINARY, LISTS, STRUCT = (1, 2), (3, 4, 5, 6), 7, 8, (9, 10), 12
DAMAGE = (IndexError, KeyError, ValueError, TypeError, OverflowError, RecursionError, StopIteration)


class Chunk(NamedTuple):
    """A column of a row group."""

    offset: int | None  # of its page index; None: it has none
    length: int  # of the page index: bytes
    rows: int
    is_plain: bool  # uncompressed
    start: int  # of its first page
    end: int  # of its last page


class _Page(NamedTuple):
    offset: int
    size: int  # bytes, header included
    rows: range


class PageFile:
    """A Parquet file whose values are read page by page.

    Args:
        read: Reads a part of the file.
        chunks: The column, from `read_chunks`.
    """

    def __init__(self, read: Read, chunks: list[Chunk]) -> None:
        self._read = read
        self._chunks = chunks
        self._pages = functools.cache(self._read_pages)
        self._last: tuple[tuple[int, int], list[bytes]] = ((-1, -1), [])

    def read_value(self, group: int, row: int) -> bytes | None:
        """Returns the value of a row of a row group, both from 0; None where it cannot be read in this way."""
        try:
            pages = self._pages(group)
            number = next(number for number, page in enumerate(pages) if row in page.rows)
            page = pages[number]
            if self._last[0] != (group, number):
                values = _values_of(self._read(page.offset, page.size))
                if len(values) != len(page.rows):
                    raise ValueError("a page index of other pages")
                self._last = (group, number), values
            return self._last[1][row - page.rows.start]
        except DAMAGE:
            return None

    def _read_pages(self, group: int) -> list[_Page]:
        chunk = self._chunks[group]
        if chunk.offset is None or not chunk.is_plain or not 0 < chunk.length <= MAX_INDEX:
            raise ValueError("no page index, or compressed pages")
        index = _Compact(self._read(chunk.offset, chunk.length)).struct()
        starts = [*(place[3] for place in index[1]), chunk.rows]
        pages = [_Page(place[1], place[2], range(*rows)) for place, rows in zip(index[1], itertools.pairwise(starts))]
        if starts != sorted(starts) or starts[0] != 0:
            raise ValueError("no usable page index")
        # An index of other pages, such as another column's, would give other values.
        ends = [chunk.start, *(page.offset + page.size for page in pages)]
        if ends[:-1] != [page.offset for page in pages] or ends[-1] != chunk.end:
            raise ValueError("the pages are not those of the column")
        if not all(0 < page.size <= MAX_PAGE for page in pages):
            raise ValueError("no usable page index")
        return pages


def read_chunks(read: Read, size: int, column: tuple[str, ...]) -> list[Chunk]:
    """Returns a column of each row group, from the file's footer; nothing if it cannot be read.

    Args:
        read: Reads a part of the file.
        size: Of the file: bytes.
        column: Path of the column in the schema, such as `("image", "bytes")`.
    """
    try:
        tail = read(size - 8, 8)
        length = int.from_bytes(tail[:4], "little")
        if tail[4:] != b"PAR1" or not 0 < length <= min(MAX_FOOTER, size - 8):
            return []
        reader = _Compact(read(size - 8 - length, length))
        path = [name.encode() for name in column]
        chunks: list[Chunk] = []
        place = None
        for number, kind in reader.fields():
            if number != 4:
                reader.skip(kind)
                continue
            for _ in range(reader.list_head()[0]):
                place, chunk = _chunk_of_group(reader, path, place)
                chunks.append(_read_chunk(chunk))
        places = [(one.start, one.end) for one in chunks]
        places += [(one.offset, one.offset + one.length) for one in chunks if one.offset is not None]
        return chunks if all(0 <= start < end <= size for start, end in places) else []
    except DAMAGE:
        return []


def _read_chunk(chunk: dict[int, Any]) -> Chunk:
    about = chunk[3]
    return Chunk(chunk.get(4), chunk.get(5, 0), about[5], about[4] == 0, about[9], about[9] + about[7])


def _chunk_of_group(reader: _Compact, path: list[bytes], place: int | None) -> tuple[int, dict[int, Any]]:
    """Reads one column of a row group, and skips the others, which takes most of the time.

    Args:
        reader: At the row group.
        path: Of the column.
        place: Its place among the columns, where a row group before has told it.

    Returns:
        Its place, and its structure.
    """
    found = None
    for number, kind in reader.fields():
        if number != 1:
            reader.skip(kind)
            continue
        for index in range(reader.list_head()[0]):
            if place not in (None, index):
                reader.skip(STRUCT)
            elif (chunk := reader.struct())[3][3] == path:
                found = index, chunk
    if found is None:
        raise ValueError("no such column")
    return found


def _values_of(page: bytes) -> list[bytes]:
    """Returns the values of a data page of version 1.

    Raises:
        ValueError: It is of another kind, or its checksum is wrong.
    """
    reader = _Compact(page)
    header = reader.struct()
    about, body = header[5], page[reader.position :]
    if header[1] != 0 or about[2] != 0 or len(body) != header[3] or header[2] != header[3]:
        raise ValueError("no uncompressed data page of plain values")
    if 4 in header and zlib.crc32(body) != header[4] & 0xFFFFFFFF:
        raise ValueError("wrong checksum")
    levels_end = 4 + int.from_bytes(body[:4], "little")
    levels = _Compact(body[4:levels_end])
    run = levels.varint()
    if run != about[1] << 1 or levels.data[levels.position :] != b"\x02":  # one run: each value is there
        raise ValueError("nulls")
    values, position = [], levels_end
    for _ in range(about[1]):
        start = position + 4
        position = start + int.from_bytes(body[position:start], "little")
        values.append(body[start:position])
    if position != len(body):
        raise ValueError("values of another length than the page")
    return values


class _Compact:
    """Reads Thrift's compact protocol; structures become dictionaries by field number."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0
        self._depth = 0

    def struct(self) -> dict[int, Any]:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ValueError("nested too deep")
        found = {number: kind == 1 if kind in BOOLS else self._value(kind) for number, kind in self.fields()}
        self._depth -= 1
        return found

    def fields(self) -> Iterator[tuple[int, int]]:
        """Yields number and type of each field of a structure; the caller reads or skips its value."""
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._integer()
            yield number, head & 15

    def list_head(self) -> tuple[int, int]:
        """Reads the length of a list and the type of what it holds."""
        head = self._byte()
        count = head >> 4 if head >> 4 < 15 else self.varint()
        if count > len(self.data):
            raise ValueError("a list longer than its file")
        return count, head & 15

    def skip(self, kind: int) -> None:
        """Skips a value of a field."""
        data = self.data
        if kind in INTS[1:]:
            while data[self.position] > 127:
                self.position += 1
            self.position += 1
        elif kind == STRUCT:
            while head := data[self.position]:
                self.position += 1
                if not head >> 4:
                    self.varint()
                self.skip(head & 15)
            self.position += 1
        elif kind not in BOOLS:
            self._value(kind)

    def varint(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 128:
            value |= (byte & 127) << shift
            shift += 7
            if shift > 63:
                raise ValueError("a number of more than 64 bits")
        return value | byte << shift

    def _value(self, kind: int) -> Any:
        if kind in INTS:
            return self._byte() if kind == INTS[0] else self._integer()
        if kind == DOUBLE:
            return self._take(8)
        if kind == BINARY:
            return self._take(self.varint())
        if kind in LISTS:
            count, inner = self.list_head()
            return [self._byte() == 1 if inner in BOOLS else self._value(inner) for _ in range(count)]
        if kind == STRUCT:
            return self.struct()
        raise ValueError(f"unknown type {kind}")

    def _integer(self) -> int:
        value = self.varint()
        return value >> 1 ^ -(value & 1)

    def _byte(self) -> int:
        self.position += 1
        return self.data[self.position - 1]

    def _take(self, count: int) -> bytes:
        if count > len(self.data) - self.position:
            raise ValueError("cut off")
        self.position += count
        return self.data[self.position - count : self.position]
