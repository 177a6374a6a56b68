"""Image files and thumbnails of some rows. A damaged image is an answer, not an error."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import PIL.Image

from pipeline.errors import StepError, one_line
from pipeline.jobs import available_cpus
from pipeline.rows import AnyRow, decode, read, to_rgb
from synthchex_75k import SourceError

THUMBNAIL = 224  # pixels
LARGE = 1600  # pixels of an image that is shown large but not as it is
MAX_UNCHANGED = 4 << 20  # bytes of an image file that the page gets as it is
REQUESTS = 8  # parts of the rows that are read from a server at once


class Damage(NamedTuple):
    """Why an image cannot be shown."""

    reason: str


class File(NamedTuple):
    """An image file: its bytes, and their CRC-32."""

    content: bytes
    crc32: int


class ShownImage(NamedTuple):
    """An image for a page: a `data:` address, and what it is in plain text."""

    address: str
    about: str


def image_files(rows: Sequence[AnyRow]) -> list[File | Damage]:
    """Reads image files, in the order of the source so that a part of it that holds several is read once.

    Args:
        rows: Any rows of a plan, in any order.

    Returns:
        For each row its file, or why it cannot be read.
    """
    order = sorted(range(len(rows)), key=lambda place: _position(rows[place]))
    requests = min(REQUESTS, len(rows)) if any("://" in row.path for row in rows) else 1
    parts = [order[len(order) * i // requests : len(order) * (i + 1) // requests] for i in range(requests)]
    found: dict[int, File | Damage] = {}
    with ThreadPoolExecutor(requests) as threads:
        for part, files in zip(parts, threads.map(lambda part: _read_in_order([rows[place] for place in part]), parts)):
            found.update(zip(part, files))
    return [found[place] for place in range(len(rows))]


def thumbnails(rows: Sequence[AnyRow]) -> list[ShownImage | Damage]:
    """Returns small pictures, in the order of the rows."""
    files = image_files(rows)
    with ThreadPoolExecutor(min(4, available_cpus())) as threads:
        return [*threads.map(_thumbnail, files, rows)]


def large_picture(file: File | Damage, row: AnyRow) -> ShownImage | Damage:
    """Returns an image as it is, or a JPEG of at most `LARGE` pixels where its file has more than `MAX_UNCHANGED`."""
    if isinstance(file, Damage):
        return file
    try:
        image = decode(file.content, row.where)
    except SourceError as error:
        return Damage(one_line(error))
    kind = image.format or ("PNG" if file.content.startswith(b"\x89PNG") else "JPEG")
    about = f"{kind}, {image.width} x {image.height} pixels, mode {image.mode}, {len(file.content):,} bytes"
    if len(file.content) <= MAX_UNCHANGED:
        return ShownImage(_address(file.content, kind), about)
    return ShownImage(_small(image, LARGE, 92), f"{about}; shown as a smaller JPEG")


def _read_in_order(rows: list[AnyRow]) -> list[File | Damage]:
    found: list[File | Damage] = []
    while len(found) < len(rows):
        try:
            for crc32, example in read(rows[len(found) :]):
                found.append(File(example["image"]["bytes"], crc32))
        except (SourceError, StepError, OSError) as error:
            found.append(Damage(one_line(error)))
    return found


def _thumbnail(file: File | Damage, row: AnyRow) -> ShownImage | Damage:
    if isinstance(file, Damage):
        return file
    try:
        image = decode(file.content, row.where)
    except SourceError as error:
        return Damage(one_line(error))
    return ShownImage(_small(image, THUMBNAIL, 80), "")


def _small(image: PIL.Image.Image, pixels: int, quality: int) -> str:
    image = to_rgb(image)
    image.thumbnail((pixels, pixels), PIL.Image.Resampling.BILINEAR, reducing_gap=2)
    saved = io.BytesIO()
    image.save(saved, "JPEG", quality=quality)
    return _address(saved.getvalue(), "JPEG")


def _address(content: bytes, kind: str) -> str:
    return f"data:image/{kind.lower()};base64,{base64.b64encode(content).decode()}"


def _position(row: AnyRow) -> tuple[str, int, int]:
    """Returns a row's place in its source, to sort by."""
    return (row.path, getattr(row, "group", 0), getattr(row, "number", getattr(row, "offset", 0)))
