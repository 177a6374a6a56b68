"""Formats and sizes of images, measured in the workers while they write or compare."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from synthchex_75k import PNG, dimensions

Kind = tuple[str, int, int]  # format, width and height in pixels


class Pixels(NamedTuple):
    """Formats of images, and width and height of the smallest and the largest, in pixels."""

    formats: tuple[str, ...]
    smallest: tuple[int, int]
    largest: tuple[int, int]

    def __str__(self) -> str:
        """Returns this as text, such as `PNG, 512x512 pixels`."""
        sizes = [f"{width}x{height}" for width, height in dict.fromkeys([self.smallest, self.largest])]
        return f"{' and '.join(self.formats)}, {' to '.join(sizes)} pixels"

    @property
    def entry(self) -> dict[str, Any]:
        """This as the manifest holds it."""
        return {"formats": [*self.formats], "smallest": [*self.smallest], "largest": [*self.largest]}


def kind_of_image(image: bytes) -> Kind:
    """Returns format, width and height of a PNG or JPEG file that was checked."""
    return ("PNG" if image.startswith(PNG) else "JPEG", *dimensions(image))


def summarize(kinds: Iterable[Kind]) -> Pixels:
    """Summarizes the kinds of images, at least one.

    Example:
        >>> print(summarize([("PNG", 512, 512)]))
        PNG, 512x512 pixels
        >>> print(summarize([("PNG", 30, 20), ("JPEG", 10, 20), ("PNG", 20, 20)]))
        JPEG and PNG, 10x20 to 30x20 pixels
    """
    kinds = [*kinds]
    sizes = sorted({(width * height, width, height) for _, width, height in kinds})
    formats = tuple(sorted({name for name, _, _ in kinds}))
    return Pixels(formats, sizes[0][1:], sizes[-1][1:])


def merge_pixels(entries: Iterable[dict[str, Any]]) -> Pixels:
    """Merges what the manifest holds of several files, as `Pixels.entry`.

    Example:
        >>> one, other = summarize([("PNG", 8, 8)]), summarize([("JPEG", 9, 9)])
        >>> print(merge_pixels([one.entry, other.entry]))
        JPEG and PNG, 8x8 to 9x9 pixels
    """
    kinds: set[Kind] = set()
    for entry in entries:
        for width, height in (entry["smallest"], entry["largest"]):
            kinds |= {(name, width, height) for name in entry["formats"]}
    return summarize(kinds)
