"""Writes a SOURCE: `metadata.csv`, and images in `data/images-00000-of-000NN.zip`, as the design has it."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import PIL
import PIL.Image
from _files import INCOMPLETE, appearing, flushing_behind
from _jobs import Jobs, advance
from _shards import cut, write_missing
from _steps import StepError, crcs_of, decode, read

from synthchex_75k import LABELS, Row, SourceError

METADATA = "metadata.csv"
ZIP = re.compile(r"images-\d{5}-of-\d{5}\.zip")
TIMESTAMP = (1980, 1, 1, 0, 0, 0)  # of every member: the first that a zip can say
# What a member and a file take beside the images, rounded up.
ROW_OVERHEAD, FILE_OVERHEAD = 512, 4096
COMMENT_KEY = "images_of_a_source"  # what a zip says of itself in its comment, as JSON


class ImageShard(NamedTuple):
    """A zip of images: where it goes, which rows, and to how many pixels each way they are resized, if at all."""

    path: Path
    rows: list[Row]
    pixels: int | None

    @property
    def size(self) -> int:
        """An upper bound of the file's size: bytes."""
        return sum(row_size(row, self.pixels) for row in self.rows) + FILE_OVERHEAD


class Written(NamedTuple):
    """What a run has done: all zips, those that it wrote and how many bytes they have."""

    shards: int
    new: int
    num_bytes: int


def write_source(rows: list[Row], output: Path, jobs: Jobs, max_shard_size: int, pixels: int | None = None) -> Written:
    """Writes rows as a SOURCE, or what of it is not written yet.

    Args:
        rows: Rows of a plan, in order.
        output: The folder; made if it is not there.
        jobs: Who writes.
        max_shard_size: Upper bound of a zip: bytes.
        pixels: Resize each image to so many pixels each way. Default: leave the bytes as they are.

    Returns:
        What was done.

    Raises:
        SourceError: An image cannot be used.
        StepError: The folder cannot be used, or an image is larger than `max_shard_size`.
        OSError: Something could not be read or written.
    """
    data, metadata = output / "data", to_csv(rows)
    present, leftovers = look_at(output, metadata)
    shards = cut_shards(rows, data, max_shard_size, pixels)
    _, written = write_missing(
        jobs, output, shards, present, leftovers, [], output / METADATA, is_finished, write_shard, "Packing"
    )
    with appearing(output / METADATA) as incomplete:
        incomplete.write_bytes(metadata)
    return Written(len(shards), len(written), sum(shard.path.stat().st_size for shard in written))


def to_csv(rows: list[Row]) -> bytes:
    """Returns the metadata of rows: file name, prompt and the 14 raw labels, nothing where one is not mentioned."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["filename", "prompt", *LABELS])
    writer.writerows(
        [row.filename, row.prompt, *("" if value is None else value for value in row.labels)] for row in rows
    )
    return text.getvalue().encode()


def look_at(output: Path, metadata: bytes) -> tuple[set[Path], list[Path]]:
    """Looks at what is in the folder already.

    Args:
        output: The folder.
        metadata: The CSV that is to be written.

    Returns:
        Zips of an earlier run, and what an interrupted run has left.

    Raises:
        StepError: The folder holds anything else that is not hidden.
    """
    if not output.is_dir():
        if output.exists():
            raise StepError(f"{output} is a file; name a folder")
        return set(), []
    data = output / "data"
    entries = [path for folder in (output, data) if folder.is_dir() for path in folder.iterdir() if path != data]
    leftovers = [path for path in entries if INCOMPLETE.fullmatch(path.name)]
    visible = {path for path in entries if not path.name.startswith(".")}
    present = {path for path in visible if path.parent == data and ZIP.fullmatch(path.name) and read_comment(path)}
    same = {path for path in visible if path == output / METADATA and path.read_bytes() == metadata}
    foreign = sorted(str(path.relative_to(output)) for path in visible - present - same)
    if foreign:
        raise StepError(
            f"{output} holds what this run would not write, or what is of other images and labels; move it away, or "
            f"name another folder ({len(foreign)} in all): {'; '.join(foreign[:5])}"
        )
    return present, leftovers


def cut_shards(rows: list[Row], folder: Path, max_size: int, pixels: int | None) -> list[ImageShard]:
    """Cuts rows into zips, as `cut` does.

    Raises:
        StepError: An image alone is larger than `max_size`.
    """
    sizes = [row_size(row, pixels) for row in rows]
    largest = max(sizes) + FILE_OVERHEAD
    if largest > max_size:
        where = rows[sizes.index(max(sizes))].where
        raise StepError(f"--max-shard-size: {where} alone may take {largest:,} bytes; allow as much")
    parts = cut(sizes, max_size, lambda start, end: sum(sizes[start:end]) + FILE_OVERHEAD)
    names = [f"images-{number:05d}-of-{len(parts):05d}.zip" for number in range(len(parts))]
    return [ImageShard(folder / name, rows[start:end], pixels) for name, (start, end) in zip(names, parts)]


def row_size(row: Row, pixels: int | None) -> int:
    """Returns an upper bound of what a row takes in a zip: bytes. A resized PNG is at most as large as its pixels."""
    if row.size is None:
        raise StepError(f"{row.where}: the server does not say how large it is; download it, then pack that")
    image = row.size if pixels is None else max(row.size, 3 * pixels * pixels + 2 * pixels)
    return image + 2 * len(row.filename.encode()) + ROW_OVERHEAD


# In a worker


def write_shard(shard: ImageShard) -> None:
    """Writes a zip.

    Raises:
        SourceError: An image is not what the plan found, or cannot be resized.
        StepError: A remote source failed.
        OSError: Something could not be read or written.
    """
    with appearing(shard.path) as incomplete, open(incomplete, "xb") as file, flushing_behind(file) as flush:
        crcs = []
        with zipfile.ZipFile(file, "w") as archive:
            for (crc, example), row in zip(read(shard.rows), shard.rows):
                image = example["image"]["bytes"]
                member = zipfile.ZipInfo(row.filename, TIMESTAMP)
                member.external_attr, member.create_system = 0o644 << 16, 3  # the same on every system
                archive.writestr(member, image if shard.pixels is None else resize(image, shard.pixels, row.where))
                crcs.append(crc)
                flush()
                advance(1, row.size or 0)
            archive.comment = json.dumps({COMMENT_KEY: describe(shard, crcs)}).encode()


def is_finished(shard: ImageShard) -> bool:
    """Tells whether the zip that is there is what would be written now, and intact."""
    is_same = read_comment(shard.path) == describe(shard, crcs_of(shard.rows))
    if is_same:
        with zipfile.ZipFile(shard.path) as archive:
            is_same = archive.testzip() is None
    advance(len(shard.rows), sum(row.size or 0 for row in shard.rows))
    return is_same


def describe(shard: ImageShard, crcs: Iterable[int]) -> dict[str, Any]:
    """Returns what a zip says of itself: all that its bytes depend on.

    Args:
        shard: The zip.
        crcs: CRC-32 of the image of each row, before it is resized.
    """
    content = hashlib.sha256()
    for row, crc in zip(shard.rows, crcs, strict=True):
        content.update(repr((row.filename, row.size, crc)).encode())
    resized = {"pixels": shard.pixels, "pillow": PIL.__version__} if shard.pixels else {}
    return {"version": 1, "sha256_of_rows": content.hexdigest(), **resized}


def read_comment(path: Path) -> dict[str, Any]:
    """Returns what a zip says of itself, or nothing if it is not one of ours."""
    try:
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.comment or b"{}").get(COMMENT_KEY, {})
    except (zipfile.BadZipFile, ValueError, AttributeError):
        return {}


def resize(image: bytes, pixels: int, where: str) -> bytes:
    """Resizes a PNG: Lanczos, RGB, optimised; one that is so already stays as it is.

    Args:
        image: The PNG file.
        pixels: Width and height.
        where: Where the image lies, for messages.

    Returns:
        The PNG file.

    Raises:
        SourceError: It cannot be decoded, or something of it would be lost: its proportions, transparency or 16 bits.
    """
    decoded = decode(image, where)
    if decoded.width != decoded.height:
        raise SourceError(f"{where}: {decoded.width}x{decoded.height} pixels, not square; --size would distort it")
    if decoded.mode not in ("1", "L", "P", "RGB"):
        raise SourceError(f"{where}: mode {decoded.mode}; --size takes 8-bit gray, palette and RGB, convert it first")
    if decoded.size == (pixels, pixels) and decoded.mode == "RGB":
        return image
    saved = io.BytesIO()
    decoded.convert("RGB").resize((pixels, pixels), PIL.Image.Resampling.LANCZOS).save(saved, "PNG", optimize=True)
    return saved.getvalue()
