"""Writes a SOURCE: `metadata.csv`, images in `data/images-00000-of-000NN.zip`, and small files that say what it is."""

from __future__ import annotations

import hashlib
import io
import math
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import PIL
import PIL.Image

from pipeline.errors import StepError
from pipeline.files import background_fsync
from pipeline.folder import OutputFolder
from pipeline.jobs import WorkerPool, advance
from pipeline.rows import decode, image_size, not_in_rgb, read, to_rgb
from pipeline.shards import Outcome, cut, write_missing
from pipeline.table import csv_bytes
from synthchex_75k import LABELS, Row, SourceError

METADATA = "metadata.csv"
TIMESTAMP = (1980, 1, 1, 0, 0, 0)  # of every member: the first that a zip can hold
ROW_OVERHEAD, FILE_OVERHEAD = 512, 4096  # bytes of a member and of a file beside the images, rounded up
# Resizing costs CPU, not bytes: rows that would fit in a few zips go into about `RESIZED_ZIPS`, of at least
# `MIN_RESIZED_ROWS` rows, whatever the number of processes, so that each process gets work.
RESIZED_ZIPS, MIN_RESIZED_ROWS = 64, 32
BIT_DEPTH = 24  # its place in a PNG file


class ImageShard(NamedTuple):
    """A zip of images: its path, its rows, and the width and height to resize to, or None."""

    path: Path
    rows: list[Row]
    pixels: int | None

    @property
    def max_bytes(self) -> int:
        """An upper bound of the file's size: bytes."""
        return sum(max_member_size(row, self.pixels) for row in self.rows) + FILE_OVERHEAD

    def fingerprint(self, crcs: Iterable[int]) -> str:
        """Returns a hash of everything that the zip's bytes depend on; `crcs` are those of the source's images."""
        content = hashlib.sha256(b"images.zip 1")
        if self.pixels:
            content.update(repr(("resize 2", self.pixels, PIL.__version__)).encode())
        for row, crc in zip(self.rows, crcs, strict=True):
            content.update(repr((row.filename, row.size, crc)).encode())
        return content.hexdigest()

    def write(self, path: Path) -> tuple[list[int], dict[str, Any]]:
        """Writes the zip, in a worker.

        Raises:
            SourceError: An image differs from the plan, or cannot be resized.
            StepError: A remote source failed.
            OSError: A file cannot be read or written.
        """
        crcs = []
        with open(path, "xb") as file, background_fsync(file) as flush, zipfile.ZipFile(file, "w") as archive:
            for (crc, example), row in zip(read(self.rows), self.rows):
                image = example["image"]["bytes"]
                member = zipfile.ZipInfo(row.filename, TIMESTAMP)
                member.external_attr, member.create_system = 0o644 << 16, 3  # the same on every system
                archive.writestr(member, image if self.pixels is None else resize(image, self.pixels, row.where))
                crcs.append(crc)
                flush()
                advance(1, row.size or 0)
        return crcs, {}


def write_source(
    rows: list[Row],
    folder: OutputFolder,
    pool: WorkerPool,
    max_shard_size: int,
    pixels: int | None = None,
    *,
    beside: dict[str, bytes],
) -> Outcome:
    """Writes rows as a SOURCE, as far as it is missing or out of date.

    Args:
        rows: Rows of a plan, in order.
        folder: The folder; its marker is `METADATA`.
        pool: The workers.
        max_shard_size: Upper bound of a zip: bytes.
        pixels: Width and height to resize to. Default: copy each file byte for byte.
        beside: Content of more files beside `METADATA` by name, as `SourceFacts.files_after` returns it.

    Returns:
        The outcome: an entry for each zip.

    Raises:
        SourceError: An image cannot be used.
        StepError: The folder cannot be used, or an image is larger than `max_shard_size`.
        OSError: A file cannot be read or written.
    """
    contents = {**beside, METADATA: metadata_csv(rows)}
    existing = {folder.path / name: content for name, content in contents.items() if (folder.path / name).is_file()}
    folder.check_replaceable(path for path, content in existing.items() if path.read_bytes() != content)
    outcome = write_missing(pool, folder, cut_zips(rows, folder.path / "data", max_shard_size, pixels), "Packing")
    folder.finish(contents)
    return outcome


def metadata_csv(rows: list[Row]) -> bytes:
    """Returns the metadata of rows: file name, prompt and the 14 raw labels, empty where not mentioned."""
    return csv_bytes([["filename", "prompt", *LABELS], *([row.filename, row.prompt, *row.labels] for row in rows)])


def cut_zips(rows: list[Row], folder: Path, max_size: int, pixels: int | None) -> list[ImageShard]:
    """Cuts rows into zips with `shards.cut`.

    Raises:
        StepError: An image alone is larger than `max_size`.
    """
    sizes = [max_member_size(row, pixels) for row in rows]
    largest = max(sizes) + FILE_OVERHEAD
    if largest > max_size:
        where = rows[sizes.index(max(sizes))].where
        raise StepError(f"--max-shard-size is too small: one image ({where}) needs {largest:,} bytes")
    max_rows = max(MIN_RESIZED_ROWS, math.ceil(len(rows) / RESIZED_ZIPS)) if pixels else len(rows)

    def size_of(start: int, end: int) -> int:
        return sum(sizes[start:end]) + FILE_OVERHEAD if end - start <= max_rows else max_size + 1

    parts = cut(sizes, max_size, size_of)
    names = [f"images-{number:05d}-of-{len(parts):05d}.zip" for number in range(len(parts))]
    return [ImageShard(folder / name, rows[start:end], pixels) for name, (start, end) in zip(names, parts)]


def max_member_size(row: Row, pixels: int | None) -> int:
    """Returns an upper bound of a row's size in a zip: bytes. A resized PNG is at most as large as its pixels."""
    size = image_size(row)
    image = size if pixels is None else max(size, 3 * pixels * pixels + 2 * pixels)
    return image + 2 * len(row.filename.encode()) + ROW_OVERHEAD


def resize(image: bytes, pixels: int, where: str) -> bytes:
    """Resizes a PNG: Lanczos, 8-bit RGB, optimised; an 8-bit RGB image of that size is returned unchanged.

    Args:
        image: The PNG file.
        pixels: Width and height.
        where: Where the image lies, for messages.

    Returns:
        The PNG file.

    Raises:
        SourceError: It cannot be decoded, or would lose its proportions or what 8-bit RGB does not hold.
    """
    decoded = decode(image, where)
    if decoded.width != decoded.height:
        raise SourceError(f"{where}: {decoded.width}x{decoded.height} pixels, not square; --size would distort it")
    if decoded.size == (pixels, pixels) and decoded.mode == "RGB" and image[BIT_DEPTH] == 8:
        return image
    if lost := not_in_rgb(decoded):
        raise SourceError(f"{where}: {lost}, which --size would drop; convert the image to plain sRGB first")
    saved = io.BytesIO()
    resized = to_rgb(decoded).resize((pixels, pixels), PIL.Image.Resampling.LANCZOS)
    resized.save(saved, "PNG", optimize=True, icc_profile=None)  # which would only say sRGB
    return saved.getvalue()
