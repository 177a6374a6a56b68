"""Rows of a SOURCE or PARQUET REPO: plan and read them, with errors and progress for programs."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias, cast

import PIL.Image
import PIL.ImageChops
import PIL.ImageCms
import PIL.ImageOps

import synthchex_75k
from pipeline.errors import StepError, one_line
from pipeline.parquet_source import ParquetRow, is_parquet_source, plan_parquet, read_parquet_rows
from pipeline.progress import notice
from synthchex_75k import Row, SourceError

FORMATS = ("PNG", "JPEG")  # Pillow tries no other decoder
ORIENTATION = 0x0112  # tag of EXIF
READ_AHEAD = 16 << 20  # bytes of one request to a remote source: about 60 images
# Pillow's unpackers for 16-bit colours take the high byte; with the other byte order, the low one.
LOW_BYTES = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L"}
SRGB_GAMMA, SRGB_CHROMATICITY = 0.45455, (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)

AnyRow: TypeAlias = "Row | ParquetRow"


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


def plan_any(source: str, on_mismatch: str = "error") -> list[AnyRow]:
    """Plans a SOURCE or a PARQUET REPO, and prints a line if that takes long.

    Args:
        source: The SOURCE, or what `is_parquet_source` is true for.
        on_mismatch: `"error"` or `"skip"`. A PARQUET REPO has no mismatches.

    Returns:
        The rows in order, all of one kind.

    Raises:
        SourceError: It cannot be used.
    """
    with notice(f"checking {source} …"):
        if is_parquet_source(source):
            return [*plan_parquet(source)]
        return [*synthchex_75k.plan(source, on_mismatch)]


def read(rows: Sequence[AnyRow], uncertainty: str = "keep") -> Iterator[tuple[int, dict[str, Any]]]:
    """Reads rows of a plan.

    Args:
        rows: The rows, all of one kind.
        uncertainty: Label policy, a key of `synthchex_75k.UNCERTAINTY`; for a PARQUET REPO see `read_parquet_rows`.

    Yields:
        The CRC-32 of the image, which for an image in a zip is that of the zip's directory, checked while reading; and
        the row as `synthchex_75k.examples` yields it.

    Raises:
        SourceError: An image differs from the plan.
        StepError: A remote source failed.
        OSError: A file cannot be read.
    """
    examples = _examples(rows, uncertainty)
    for row in rows:
        try:
            example = next(examples)
        except (SourceError, OSError):
            raise
        except Exception as error:  # each network client has error classes of its own
            raise StepError(f"{row.where}: {type(error).__name__}: {error}") from error
        yield row.zipped[2] if row.zipped else synthchex_75k.crc32(example["image"]["bytes"]), example


def _examples(rows: Sequence[AnyRow], uncertainty: str) -> Iterator[dict[str, Any]]:
    if rows and isinstance(rows[0], ParquetRow):
        return read_parquet_rows(cast("Sequence[ParquetRow]", rows), uncertainty)
    return synthchex_75k.examples(cast("Sequence[Row]", rows), uncertainty, read_ahead=READ_AHEAD)


def iter_crc32(rows: Sequence[AnyRow]) -> Iterator[int]:
    """Yields the CRC-32 of each image: from the directory of a zip; other images are read."""
    loose = (crc for crc, _ in read([row for row in rows if not row.zipped]))
    return (row.zipped[2] if row.zipped else next(loose) for row in rows)


def total_size(rows: Sequence[AnyRow]) -> int:
    """Returns the size of the images, where it is known: bytes. In a PARQUET REPO, it is the mean of a row group."""
    return sum(row.mean_size if isinstance(row, ParquetRow) else row.size or 0 for row in rows)


def image_size(row: Row) -> int:
    """Returns the size of an image: bytes.

    Raises:
        StepError: It is unknown.
    """
    if row.size is None:
        raise StepError(f"{row.where}: unknown size, the server sends no Content-Length; download the source first")
    return row.size


def decode(image: bytes, where: str) -> PIL.Image.Image:
    """Decodes an image; of an animation, the first frame.

    An image with an orientation in EXIF is turned, as `datasets` and browsers do.

    Args:
        image: The file.
        where: Where it lies, for messages.

    Raises:
        SourceError: It cannot be decoded.
    """
    try:
        decoded = PIL.Image.open(io.BytesIO(image), formats=FORMATS)
        coding = str(decoded.tile[0][3])
        decoded.load()
        if coding in LOW_BYTES:
            decoded.paste(_round_16_bits(decoded, _read_as(image, LOW_BYTES[coding])))
        return decoded if decoded.getexif().get(ORIENTATION) is None else PIL.ImageOps.exif_transpose(decoded)
    except MemoryError:
        raise
    except Exception as error:  # of a damaged file Pillow raises errors of any class
        problem = f"Pillow cannot decode the image ({one_line(error)})"
        raise SourceError(f"{where}: {problem}; generate or copy it again") from None


def to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    """Converts an image to 8-bit RGB, for people and models to look at: transparent pixels are composed on black."""
    if image.mode.startswith("I"):  # 16-bit gray; Pillow would clip it at 255
        image = image.convert("I").point(lambda value: value * (255 / 65535) + 0.5).convert("L")
        image.info.pop("transparency", None)  # a colour of 16 bits
    if not _has_transparency(image):
        return image.convert("RGB")
    pixels = image.convert("RGBA")
    return PIL.Image.alpha_composite(PIL.Image.new("RGBA", pixels.size, "black"), pixels).convert("RGB")


def not_in_rgb(image: PIL.Image.Image) -> str | None:
    """Returns what `to_rgb` would lose of an image, apart from the low bits of 16; None if nothing.

    Args:
        image: The image, as `decode` returns it.
    """
    if getattr(image, "is_animated", False) and image.format == "PNG":  # a JPEG may have a preview beside its picture
        return "an animation"
    if _has_transparency(image):
        return "transparency"
    if not _is_srgb(image):
        return "a colour space other than sRGB (CMYK, a profile, gAMA or cHRM)"
    return None


def _read_as(image: bytes, coding: str) -> PIL.Image.Image:
    """Decodes a PNG file with another of Pillow's unpackers."""
    decoded = PIL.Image.open(io.BytesIO(image))
    tile: Any = (*decoded.tile[0][:3], coding)  # in newer Pillow a named tuple
    decoded.tile = [tile]
    decoded.load()
    return decoded


def _round_16_bits(high: PIL.Image.Image, low: PIL.Image.Image) -> PIL.Image.Image:
    """Returns 16-bit values scaled to 8 bits, `(256 * high + low) / 257` rounded; Pillow itself returns `high`."""
    bands = len(high.getbands())
    up, down = (
        PIL.ImageChops.subtract(*pair).point([int(value > 128) for value in range(256)] * bands)
        for pair in ((low, high), (high, low))
    )
    return PIL.ImageChops.subtract(PIL.ImageChops.add(high, up), down)


def _has_transparency(image: PIL.Image.Image) -> bool:
    return "A" in image.getbands() or "transparency" in image.info


def _is_srgb(image: PIL.Image.Image) -> bool:
    """True for sRGB, said or unsaid. A profile counts by what it does to colours, since its name may be any."""
    if image.mode == "CMYK":
        return False
    profile = image.info.get("icc_profile")
    if profile:
        modes = ("L", "RGB") if image.mode.startswith(("I", "L", "1")) else ("RGB",)  # programs give gray ones sRGB's
        return any(_is_srgb_profile(profile, mode) for mode in modes)
    if "srgb" in image.info:  # it overrides the others
        return True
    found = (image.info.get("gamma", SRGB_GAMMA), *image.info.get("chromaticity", SRGB_CHROMATICITY))
    return all(abs(a - b) < 0.001 for a, b in zip(found, (SRGB_GAMMA, *SRGB_CHROMATICITY)))


def _is_srgb_profile(profile: bytes, mode: str) -> bool:
    """True if an ICC profile changes no colour by more than rounding does."""
    colours = PIL.Image.frombytes("RGB", (16, 256), bytes(range(256)) * 48).convert(mode)
    try:
        srgb = PIL.ImageCms.createProfile("sRGB")
        seen: Any = PIL.ImageCms.profileToProfile(colours, io.BytesIO(profile), srgb, outputMode="RGB")
    except (PIL.ImageCms.PyCMSError, OSError, ImportError):  # no profile, not of such images, or no littlecms
        return False
    extrema: Any = PIL.ImageChops.difference(seen, colours.convert("RGB")).getextrema()
    return max(high for _, high in extrema) <= 2


def evenly_spaced(count: int, wanted: int) -> list[int]:
    """Returns indices of rows to show, evenly spaced among `count` rows.

    Example:
        >>> evenly_spaced(12, 6), evenly_spaced(2, 6)
        ([0, 2, 4, 6, 8, 10], [0, 1])
    """
    return [number * count // min(count, wanted) for number in range(min(count, wanted))]
