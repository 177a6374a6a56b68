"""Writes a SOURCE: `metadata.csv`, images in `data/images-00000-of-000NN.zip`, and small files that say what it is."""

from __future__ import annotations

import hashlib
import io
import itertools
import math
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import PIL
import PIL.Image

from pipeline.errors import StepError
from pipeline.files import NewFile
from pipeline.folder import OutputFolder
from pipeline.jobs import WorkerPool, advance
from pipeline.rows import decode, image_size, not_in_rgb, read, to_rgb
from pipeline.shards import Outcome, cut, write_missing
from pipeline.table import csv_bytes
from synthchex_75k import LABELS, PNG, Row, SourceError

METADATA = "metadata.csv"
TIMESTAMP = (1980, 1, 1, 0, 0, 0)  # of every member: the first that a zip can hold
ROW_OVERHEAD, FILE_OVERHEAD = 512, 4096  # bytes of a member and of a file beside the images, rounded up
# Resizing costs CPU, not bytes: rows that would fit in a few zips go into about `RESIZED_ZIPS`, of at least
# `MIN_RESIZED_ROWS` rows, whatever the number of processes, so that each process gets work.
RESIZED_ZIPS, MIN_RESIZED_ROWS = 64, 32
FITS = ("crop", "pad", "stretch")  # what `resize` does with images that are not square
RGB_OF_8_BITS = b"\x08\x02"  # bit depth and colour type in a PNG file, after its width and height


class ImageShard(NamedTuple):
    """A zip of images: its path, its rows, and the width and height to resize to, or None, with one of `FITS`."""

    path: Path
    rows: list[Row]
    pixels: int | None
    fit: str = FITS[0]

    @property
    def max_bytes(self) -> int:
        """An upper bound of the file's size: bytes."""
        return sum(max_member_size(row, self.pixels) for row in self.rows) + FILE_OVERHEAD

    def fingerprint(self, crcs: Iterable[int]) -> str:
        """Returns a hash of everything that the zip's bytes depend on; `crcs` are those of the source's images."""
        content = hashlib.sha256(b"images.zip 1")
        if self.pixels:
            more = () if self.fit == FITS[0] else (self.fit,)  # a zip of the time before `fit` had square images alone
            content.update(repr(("resize 2", self.pixels, PIL.__version__, *more)).encode())
        for row, crc in zip(self.rows, crcs, strict=True):
            content.update(repr((row.filename, row.size, crc)).encode())
        return content.hexdigest()

    def write(self, file: NewFile) -> tuple[list[int], dict[str, Any]]:
        """Writes the zip, in a worker.

        Args:
            file: Where to write it.

        Returns:
            The CRC-32 of each image of the source; and if some were not square and were resized, `"not_square"`, their
            number, and `"lost"`, the sum of what `resize` returns.

        Raises:
            SourceError: An image differs from the plan, or cannot be resized.
            StepError: A remote source failed.
            OSError: A file cannot be read or written.
        """
        crcs, lost = [], []
        with zipfile.ZipFile(file, "w") as archive:
            for (crc, example), row in zip(read(self.rows), self.rows):
                image = example["image"]["bytes"]
                if self.pixels:
                    image, share = resize(image, self.pixels, row.where, self.fit)
                    lost += [share] * (share > 0)
                member = zipfile.ZipInfo(_packed_name(row, self.pixels), TIMESTAMP)
                member.external_attr, member.create_system = 0o644 << 16, 3  # the same on every system
                archive.writestr(member, image)
                crcs.append(crc)
                file.sync()
                advance(1, row.size or 0)
        return crcs, {"not_square": len(lost), "lost": round(sum(lost), 6)} if lost else {}


def write_source(
    rows: list[Row],
    folder: OutputFolder,
    pool: WorkerPool,
    max_shard_size: int,
    pixels: int | None = None,
    fit: str = FITS[0],
    *,
    beside: dict[str, bytes],
    others: dict[str, list[str | None]] | None = None,
) -> Outcome:
    """Writes rows as a SOURCE, as far as it is missing or out of date.

    Args:
        rows: Rows of a plan, in order.
        folder: The folder; its marker is `METADATA`.
        pool: The workers.
        max_shard_size: Upper bound of a zip: bytes.
        pixels: Width and height to resize to; each image becomes a PNG. Default: copy each file byte for byte.
        fit: What to do then with images that are not square, one of `FITS`.
        beside: Content of more files beside `METADATA` by name, as `SourceFacts.files_after` returns it.
        others: Further columns of the metadata, as `columns.read_kept_columns` returns them.

    Returns:
        The outcome: an entry for each zip.

    Raises:
        SourceError: An image cannot be used.
        StepError: The folder cannot be used, an image is larger than `max_shard_size`, or two would get one name.
        OSError: A file cannot be read or written.
    """
    if pixels:
        _check_names(rows)
    metadata = metadata_csv([row._replace(filename=_packed_name(row, pixels)) for row in rows], others)
    contents = {**beside, METADATA: metadata}
    existing = {folder.path / name: content for name, content in contents.items() if (folder.path / name).is_file()}
    folder.check_replaceable(path for path, content in existing.items() if path.read_bytes() != content)
    outcome = write_missing(pool, folder, cut_zips(rows, folder.path / "data", max_shard_size, pixels, fit), "Packing")
    folder.finish(contents)
    return outcome


def metadata_csv(rows: list[Row], others: dict[str, list[str | None]] | None = None) -> bytes:
    """Returns the metadata of rows: file name, prompt, the 14 raw labels, empty where not mentioned; other columns."""
    cells = zip(*others.values(), strict=True) if others else itertools.repeat(())
    lines = ([row.filename, row.prompt, *row.labels, *more] for row, more in zip(rows, cells))
    return csv_bytes([["filename", "prompt", *LABELS, *(others or {})], *lines])


def cut_zips(rows: list[Row], folder: Path, max_size: int, pixels: int | None, fit: str = FITS[0]) -> list[ImageShard]:
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
    return [ImageShard(folder / name, rows[start:end], pixels, fit) for name, (start, end) in zip(names, parts)]


def max_member_size(row: Row, pixels: int | None) -> int:
    """Returns an upper bound of a row's size in a zip: bytes. A resized PNG is at most as large as its pixels."""
    size = image_size(row)
    image = size if pixels is None else max(size, 3 * pixels * pixels + 2 * pixels)
    return image + 2 * len(row.filename.encode()) + ROW_OVERHEAD


def _packed_name(row: Row, pixels: int | None) -> str:
    """Returns the name that a row's image gets: a resized one is a PNG."""
    stem, _, suffix = row.filename.rpartition(".")
    return row.filename if pixels is None or suffix.lower() == "png" else f"{stem}.png"


def _check_names(rows: list[Row]) -> None:
    """Checks that no two images get one name because a JPEG becomes a PNG, on a disk that ignores case either."""
    first: dict[str, Row] = {}
    for row in rows:
        name = _packed_name(row, 1)
        other = first.setdefault(name.lower(), row)
        if other is not row and (name != row.filename or _packed_name(other, 1) != other.filename):
            raise StepError(f"--size would name {other.where} and {row.where} {name}; rename one, in the CSV too")


def resize(image: bytes, pixels: int, where: str, fit: str = FITS[0]) -> tuple[bytes, float]:
    """Resizes an image to a square PNG: Lanczos, 8-bit RGB, optimised; such a PNG of that size is returned unchanged.

    Args:
        image: The PNG or JPEG file.
        pixels: Width and height.
        where: Where the image lies, for messages.
        fit: For an image that is not square: `"crop"` scales the shorter side to `pixels` and cuts the middle, `"pad"`
            scales the longer side and adds black bars, `"stretch"` scales both.

    Returns:
        The PNG file; and by how much the longer side exceeds the shorter one, as a share of the longer: of the image,
        what `"crop"` cuts off, and of the result, what `"pad"` adds.

    Raises:
        SourceError: It cannot be decoded, or would lose what 8-bit RGB does not hold.
    """
    decoded = decode(image, where)
    width, height = decoded.size
    if image.startswith(PNG) and image[24:26] == RGB_OF_8_BITS and width == height == pixels:
        return image, 0
    if lost := not_in_rgb(decoded):
        raise SourceError(f"{where}: {lost}, which --size would drop; convert the image to plain sRGB first")
    saved = io.BytesIO()
    _fit(to_rgb(decoded), pixels, fit).save(saved, "PNG", optimize=True, icc_profile=None, exif=b"")
    return saved.getvalue(), 1 - min(width, height) / max(width, height)


def _fit(image: PIL.Image.Image, pixels: int, fit: str) -> PIL.Image.Image:
    """Scales an image to a square, as `resize` tells."""
    width, height = image.size
    shorter, longer = min(image.size), max(image.size)
    if fit == "crop":  # only what remains is computed: of an image of 60,000x1 pixels the whole would take 50 GB
        left, top = (width - shorter) / 2, (height - shorter) / 2
        box = (left, top, left + shorter, top + shorter)
        return image.resize((pixels, pixels), PIL.Image.Resampling.LANCZOS, box)
    if fit == "stretch" or width == height:
        return image.resize((pixels, pixels), PIL.Image.Resampling.LANCZOS)
    size = [max(1, round(side * pixels / longer)) for side in image.size]
    padded = PIL.Image.new("RGB", (pixels, pixels))
    scaled = image.resize((size[0], size[1]), PIL.Image.Resampling.LANCZOS)
    padded.paste(scaled, ((pixels - size[0]) // 2, (pixels - size[1]) // 2))
    return padded
