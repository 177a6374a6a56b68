"""A file that says its own CRC-32, so that a flipped bit anywhere in it is found without a second file.

The sum covers every byte of the file, its own eight hexadecimal digits taken as zeros. It stands near the end as
`"crc32": "…"`: in the footer of a Parquet file, in the last line of a card.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

FIELD = re.compile(rb'"crc32": "([0-9a-f]{8})"')
PLACEHOLDER = "00000000"
BLOCK = 1 << 20  # bytes that are read at once
TAIL = 64 << 10  # bytes at the end of a file in which the sum is looked for


class Crc32Writer(io.BufferedWriter):
    """A new file that counts the CRC-32 of what is written to it.

    An error of writing is not raised by `write` but by `check` and `close`: pyarrow, which calls `write`, ends the
    whole process when that fails while it cuts content-defined chunks (seen in 26.0.1, with a full disk).

    Args:
        path: The file; it must not exist.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path, "xb"))
        self.crc32 = 0
        self._error: OSError | None = None

    def write(self, data: Any) -> int:
        """Writes bytes, in order."""
        if self._error is None:
            try:
                super().write(data)
            except OSError as error:
                self._error = error
        self.crc32 = zlib.crc32(data, self.crc32)
        return len(data)

    def check(self) -> None:
        """Raises what went wrong in writing."""
        if self._error:
            raise self._error

    def close(self) -> None:
        """Closes the file, and raises what went wrong in writing."""
        if not self.closed:
            super().close()
            self.check()


def seal(path: Path, crc32: int) -> None:
    """Puts the sum into a file that was written with the placeholder.

    Args:
        path: The file.
        crc32: Sum of the file as it is.

    Raises:
        ValueError: The file has no placeholder.
    """
    position = _find(path)[0]
    with open(path, "r+b") as file:
        file.seek(position)
        file.write(b"%08x" % crc32)


def sealed(text: bytes) -> bytes:
    """Returns a text that was written with the placeholder, with the sum in its place."""
    found = [*FIELD.finditer(text)][-1]
    return text[: found.start(1)] + b"%08x" % zlib.crc32(text) + text[found.end(1) :]


def is_intact(path: Path) -> bool:
    """Tells whether a file is, to the bit, what it says of itself.

    Args:
        path: The file.

    Returns:
        False too where the file says no sum.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "card.md")
        >>> with Crc32Writer(path) as file:
        ...     _ = file.write(b'text <!-- "crc32": "00000000" -->')
        >>> seal(path, file.crc32)
        >>> is_intact(path)
        True
        >>> _ = path.write_bytes(path.read_bytes().replace(b"text", b"tuxt"))
        >>> is_intact(path)
        False
    """
    return sha256_if_intact(path) is not None


def sha256_if_intact(path: Path) -> str | None:
    """Reads a file once, for both sums.

    Args:
        path: The file.

    Returns:
        Its SHA-256 in hexadecimal digits; nothing if it is not, to the bit, what it says of itself.
    """
    try:
        position, said = _find(path)
    except ValueError:
        return None
    crc32, sha256 = 0, hashlib.sha256()
    with open(path, "rb") as file:
        for length, stands_for in ((position, None), (len(PLACEHOLDER), PLACEHOLDER.encode()), (None, None)):
            for block in _blocks(file, length):
                crc32 = zlib.crc32(stands_for or block, crc32)
                sha256.update(block)
    return sha256.hexdigest() if crc32 == int(said, 16) else None


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal digits."""
    sha256 = hashlib.sha256()
    with open(path, "rb") as file:
        for block in _blocks(file):
            sha256.update(block)
    return sha256.hexdigest()


def _blocks(file: IO[bytes], length: int | None = None) -> Iterator[bytes]:
    """Yields so many bytes of a file, or the rest of it."""
    end = None if length is None else file.tell() + length
    while block := file.read(BLOCK if end is None else min(BLOCK, end - file.tell())):
        yield block


def _find(path: Path) -> tuple[int, bytes]:
    """Returns where in a file its sum stands, and the sum."""
    with open(path, "rb") as file:
        start = max(0, file.seek(0, os.SEEK_END) - TAIL)
        file.seek(start)
        found = [*FIELD.finditer(file.read())]
    if not found:
        raise ValueError(f"{path} says no checksum")
    return start + found[-1].start(1), found[-1][1]
