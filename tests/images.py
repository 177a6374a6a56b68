"""PNG files of kinds that Pillow does not write, and JPEG files."""

import io
import struct
import zlib
from typing import Any

import PIL.Image

GRAY, RGB, PALETTE, GRAY_ALPHA, RGBA = 0, 2, 3, 4, 6  # colour types
CHANNELS = {GRAY: 1, RGB: 3, PALETTE: 1, GRAY_ALPHA: 2, RGBA: 4}
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(name: bytes, data: bytes) -> bytes:
    """Returns a chunk of a PNG file."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def to_png(size: tuple[int, int], kind: int, depth: int, pixels: bytes, *chunks: bytes) -> bytes:
    """Returns a PNG file.

    Args:
        size: Width and height.
        kind: Colour type.
        depth: Bits of a channel, 8 or 16.
        pixels: The values, big-endian, row after row.
        chunks: More chunks, before the pixels.
    """
    width, height = size
    row = width * CHANNELS[kind] * depth // 8
    rows = b"".join(b"\0" + pixels[start : start + row] for start in range(0, row * height, row))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    return b"".join([SIGNATURE, header, *chunks, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")])


def values_16(values: list[int], kind: int) -> bytes:
    """Returns an image of one row, with each value in all channels; an alpha channel is opaque."""
    opaque = [65535] * (kind in (GRAY_ALPHA, RGBA))
    pixels = b"".join(
        struct.pack(">H", channel) for value in values for channel in [value] * (CHANNELS[kind] - len(opaque)) + opaque
    )
    return to_png((len(values), 1), kind, 16, pixels)


def gray_16(pixels: int, kind: int = GRAY) -> bytes:
    """Returns a square ramp of 16 bits from black to white."""
    row = b"".join(struct.pack(">H", 65535 * x // (pixels - 1)) * CHANNELS[kind] for x in range(pixels))
    return to_png((pixels, pixels), kind, 16, row * pixels)


def rgb_16(pixels: int) -> bytes:
    """Returns the same ramp in colour."""
    return gray_16(pixels, RGB)


def to_jpeg(image: PIL.Image.Image, **options: Any) -> bytes:
    """Returns an image as a JPEG file, saved with Pillow's options."""
    saved = io.BytesIO()
    image.save(saved, "JPEG", **options)
    return saved.getvalue()
