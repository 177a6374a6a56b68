"""Which training image each synthetic image was made for: by file names, or by equal prompts."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pipeline.errors import StepError, counted, listing
from pipeline.evaluate.features import Features

PAIRED_BY = ("filename", "prompt")
PREFIX = "SyntheticImg_"  # of SynthCheX-75K's file names
ENDING = re.compile(r"\.(png|jpe?g)$", re.IGNORECASE)
REPLICATE = re.compile(r"_[1-9][0-9]*$")  # of the second and further images of a prompt, as `generate_images.py` names


class Pairing(NamedTuple):
    """Synthetic images and the training image of each.

    Attributes:
        synthetic: Rows of the synthetic images that have one, ascending, of shape (n,).
        train: The row of the training image of each, of shape (n,).
        notes: How many have none, and what else was decided, in words.
    """

    synthetic: np.ndarray
    train: np.ndarray
    notes: tuple[str, ...]


def pair_images(train: Features, synthetic: Features, pair: str, seed: int = 0) -> Pairing:
    """Finds the training image of each synthetic image.

    By `filename`, the names are equal but for `SyntheticImg_` before the synthetic one, the number of a replicate after
    it (`_1`, `_2`, …) and the ending. A name that is that of a training image with the number and of another one
    without it counts for the one with the same prompt, else for the one with the number.

    By `prompt`, the prompts are equal, apart from white space. Of several training images with one prompt, one is drawn
    by a hash of the seed and the file name, the same for all synthetic images of the prompt. The closest of them would
    be closer by choice, not by memory.

    Args:
        train: The training images.
        synthetic: The synthetic images.
        pair: One of `PAIRED_BY`.
        seed: Seeds the draw.

    Raises:
        StepError: No image has a training image, or two training images would be one by their names.
    """
    if pair not in PAIRED_BY:
        raise StepError(f"--pair {pair}: images are paired by {listing(PAIRED_BY, separator=' or ')}")
    find = _find_by_names if pair == "filename" else _find_by_prompts
    found, notes = find(train, synthetic, seed)
    rows = np.flatnonzero(found >= 0)
    missing = [str(name) for name in synthetic.filenames[found < 0]]
    if not len(rows):
        wanted = (
            f"a training image named as a synthetic one, without {PREFIX}, ending and number of a replicate"
            if pair == "filename"
            else "a training image with the prompt of a synthetic one"
        )
        raise StepError(
            f"--pair {pair}: no pair: looked among {counted(len(train.filenames), 'training image')} for {wanted}, "
            f"for {listing(missing, 3)}; the training images are {listing([str(n) for n in train.filenames], 3)}"
        )
    if missing:
        notes = (*notes, f"{counted(len(missing), 'synthetic image')} without a training image, not counted")
    return Pairing(rows, found[rows], notes)


def _find_by_names(train: Features, synthetic: Features, seed: int) -> tuple[np.ndarray, tuple[str, ...]]:
    by_stem: dict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(train.filenames.tolist()):
        by_stem[ENDING.sub("", name)].append(row)
    found, doubled = np.full(len(synthetic.filenames), -1, np.intp), list[str]()
    for row, name in enumerate(synthetic.filenames.tolist()):
        candidates = [by_stem[stem] for stem in _stems(name) if stem in by_stem]
        if not candidates:
            continue
        prompt = synthetic.prompts[row]
        rows = next((rows for rows in candidates if any(train.prompts[i] == prompt for i in rows)), candidates[0])
        found[row] = rows[0]
        doubled += [str(train.filenames[i]) for i in rows] if len(rows) > 1 else []
    if doubled:
        raise StepError(
            f"--pair filename: training images differ in the ending of their names only: {listing(sorted({*doubled}))}; "
            "which of them an image was made for is unknown"
        )
    rows = np.flatnonzero(found >= 0)
    others = int((synthetic.prompts[rows] != train.prompts[found[rows]]).sum())
    return found, (f"{counted(others, 'pair')} by name with two different prompts",) if others else ()


def _stems(filename: str) -> Iterator[str]:
    """Yields the names without ending that the training image may have, the likeliest first."""
    stem = ENDING.sub("", filename)
    for name in dict.fromkeys((stem, stem.removeprefix(PREFIX))):
        yield name
    for name in dict.fromkeys((stem, stem.removeprefix(PREFIX))):
        if REPLICATE.search(name):
            yield REPLICATE.sub("", name)


def _find_by_prompts(train: Features, synthetic: Features, seed: int) -> tuple[np.ndarray, tuple[str, ...]]:
    by_prompt: dict[str, list[int]] = defaultdict(list)
    for row, prompt in enumerate(train.prompts.tolist()):
        if key := _text(prompt):
            by_prompt[key].append(row)
    keys = [_text(prompt) for prompt in synthetic.prompts.tolist()]
    shared = {key for key in keys if len(by_prompt.get(key, ())) > 1}
    drawn = {
        key: min(rows, key=lambda row: hashlib.sha256(f"{seed}\n{train.filenames[row]}".encode()).digest())
        for key, rows in by_prompt.items()
    }
    found = np.array([drawn.get(key, -1) for key in keys], np.intp)
    count = sum(key in shared for key in keys)
    note = (
        f"{counted(count, 'synthetic image')} of {counted(len(shared), 'prompt')} with several training images: one "
        "of them was drawn at random, not the closest"
    )
    return found, (note,) if shared else ()


def _text(prompt: str) -> str:
    return " ".join(prompt.split())
