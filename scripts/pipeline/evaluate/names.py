"""File names of synthetic images, and the training image that one names."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

PREFIX = "SyntheticImg_"  # of SynthCheX-75K's file names
ENDING = re.compile(r"\.(png|jpe?g)$", re.IGNORECASE)
REPLICATE = re.compile(r"_[1-9][0-9]*$")  # of the second and further images of a prompt, as `generate_images.py` names
DOUBLED = "training images differ in the ending of their names only"  # why there are no pairs


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


class NamedPairs(NamedTuple):
    """Training images that synthetic ones are named for.

    Attributes:
        train: For each synthetic image the number of its training image; -1: none.
        doubled: Names of training images that differ in their ending only, where a synthetic one is named for both:
            which of them it was made for is unknown, and `train` has the first.
    """

    train: list[int]
    doubled: list[str]

    @property
    def has_pairs(self) -> bool:
        """Whether there is a pair."""
        return any(number >= 0 for number in self.train)


def pair_by_names(train: Iterable[tuple[str, str]], synthetic: Iterable[tuple[str, str]]) -> NamedPairs:
    """Finds the training image that each synthetic image is named for.

    Of several names that the training image may have, the one counts whose image has the same prompt, else the
    likeliest one.

    Args:
        train: File name and prompt of each training image.
        synthetic: File name and prompt of each synthetic image.

    Example:
        >>> pair_by_names([("a.jpg", "Edema."), ("b.jpg", "")], [("SyntheticImg_b_1.png", ""), ("c.png", "")])
        NamedPairs(train=[1, -1], doubled=[])
    """
    images = [*train]
    by_stem: dict[str, list[int]] = defaultdict(list)
    for number, (name, _) in enumerate(images):
        by_stem[stem_of(name)].append(number)
    found, doubled = list[int](), set[str]()
    for name, prompt in synthetic:
        candidates = [by_stem[stem] for stem in training_stems(name) if stem in by_stem]
        same_prompt = (numbers for numbers in candidates if any(images[number][1] == prompt for number in numbers))
        numbers = next(same_prompt, candidates[0] if candidates else [-1])
        found.append(numbers[0])
        if len(numbers) > 1:
            doubled.update(images[number][0] for number in numbers)
    return NamedPairs(found, sorted(doubled))
