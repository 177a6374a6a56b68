"""File names of synthetic images, and the training image that one names."""

from __future__ import annotations

import re
from collections.abc import Iterator

PREFIX = "SyntheticImg_"  # of SynthCheX-75K's file names
ENDING = re.compile(r"\.(png|jpe?g)$", re.IGNORECASE)
REPLICATE = re.compile(r"_[1-9][0-9]*$")  # of the second and further images of a prompt, as `generate_images.py` names


def stem_of(filename: str) -> str:
    """Returns the name of an image without its ending.

    Example:
        >>> stem_of("a.b.JPG"), stem_of("a.b")
        ('a.b', 'a.b')
    """
    return ENDING.sub("", filename)


def training_stems(filename: str) -> Iterator[str]:
    """Yields the names without ending that the training image of a synthetic one may have, the likeliest first.

    Example:
        >>> [*training_stems("SyntheticImg_a_1.png")]
        ['SyntheticImg_a_1', 'a_1', 'SyntheticImg_a', 'a']
    """
    stem = stem_of(filename)
    for name in dict.fromkeys((stem, stem.removeprefix(PREFIX))):
        yield name
    for name in dict.fromkeys((stem, stem.removeprefix(PREFIX))):
        if REPLICATE.search(name):
            yield REPLICATE.sub("", name)
