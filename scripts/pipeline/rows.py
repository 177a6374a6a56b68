"""Rows of a SOURCE: plan and read them, with errors and progress for programs."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from typing import Any

import PIL.Image

import synthchex_75k
from pipeline.errors import StepError
from pipeline.progress import notice
from synthchex_75k import Row, SourceError

READ_AHEAD = 16 << 20  # bytes of one request to a remote source: about 60 images


def plan(source: str, on_mismatch: str = "error") -> list[Row]:
    """Calls `synthchex_75k.plan`, and prints a line if that takes long.

    Args:
        source: The SOURCE.
        on_mismatch: `"error"` or `"skip"`.

    Returns:
        The rows in order.

    Raises:
        SourceError: The source cannot be used.
    """
    with notice(f"checking {source} …"):
        return synthchex_75k.plan(source, on_mismatch)


def read(rows: list[Row], uncertainty: str = "keep") -> Iterator[tuple[int, dict[str, Any]]]:
    """Reads rows of a plan.

    Args:
        rows: The rows.
        uncertainty: Label policy, a key of `synthchex_75k.UNCERTAINTY`.

    Yields:
        The CRC-32 of the image, which for an image in a zip is that of the zip's directory, checked while reading; and
        the row as `synthchex_75k.examples` yields it.

    Raises:
        SourceError: An image differs from the plan.
        StepError: A remote source failed.
        OSError: A file cannot be read.
    """
    examples = synthchex_75k.examples(rows, uncertainty, read_ahead=READ_AHEAD)
    for row in rows:
        try:
            example = next(examples)
        except (SourceError, OSError):
            raise
        except Exception as error:  # each network client has error classes of its own
            raise StepError(f"{row.where}: {type(error).__name__}: {error}") from error
        yield row.zipped[2] if row.zipped else zlib.crc32(example["image"]["bytes"]), example


def iter_crc32(rows: list[Row]) -> Iterator[int]:
    """Yields the CRC-32 of each image: from the directory of a zip; other images are read."""
    loose = (crc for crc, _ in read([row for row in rows if not row.zipped]))
    return (row.zipped[2] if row.zipped else next(loose) for row in rows)


def total_size(rows: list[Row]) -> int:
    """Returns the size of the images, where it is known: bytes."""
    return sum(row.size or 0 for row in rows)


def image_size(row: Row) -> int:
    """Returns the size of an image: bytes.

    Raises:
        StepError: It is unknown.
    """
    if row.size is None:
        raise StepError(f"{row.where}: unknown size, the server sends no Content-Length; download the source first")
    return row.size


def decode(image: bytes, where: str) -> PIL.Image.Image:
    """Decodes a PNG file.

    Args:
        image: The file.
        where: Where it lies, for messages.

    Raises:
        SourceError: It cannot be decoded.
    """
    try:
        decoded = PIL.Image.open(io.BytesIO(image))
        decoded.load()
    except Exception:  # Pillow's errors for a damaged file are of any class, by version
        raise SourceError(f"{where}: Pillow cannot decode the image; generate it again") from None
    return decoded


def evenly_spaced(count: int, wanted: int) -> list[int]:
    """Returns indices of rows to show, evenly spaced among `count` rows.

    Example:
        >>> evenly_spaced(12, 6), evenly_spaced(2, 6)
        ([0, 2, 4, 6, 8, 10], [0, 1])
    """
    return [number * count // min(count, wanted) for number in range(min(count, wanted))]
