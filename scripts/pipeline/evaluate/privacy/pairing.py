"""Which training image each synthetic image was made for, and which real pairs they are compared with."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from typing import NamedTuple

import numpy as np

from pipeline.errors import StepError, counted, listing
from pipeline.evaluate.comparison import patient_groups
from pipeline.evaluate.features import Features
from pipeline.evaluate.metrics.calibration import draw_partners
from pipeline.evaluate.names import DOUBLED, PREFIX, pair_by_names

PAIRED_BY = ("filename", "prompt")

REAL_PAIRS = 10_000  # of one patient, and of different ones: at most
NO_PATIENTS = "patients are unknown (embed with --patient-column): different images stand for different patients"


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
    pairs = pair_by_names(*(zip(side.filenames.tolist(), side.prompts.tolist()) for side in (train, synthetic)))
    if pairs.doubled:
        raise StepError(
            f"--pair filename: {DOUBLED}: {listing(pairs.doubled)}; which of them an image was made for is unknown"
        )
    found = np.array(pairs.train, np.intp)
    paired = np.flatnonzero(found >= 0)
    others = int((synthetic.prompts[paired] != train.prompts[found[paired]]).sum())
    return found, (f"{counted(others, 'pair')} by name with two different prompts",) if others else ()


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


class PlannedPairs(NamedTuple):
    """Which images are compared: rows of the features.

    Attributes:
        synthetic: Synthetic images, of shape (n,).
        own: The training image of each.
        other: A training image of another patient for each, the same for all of one training image; -1: none.
        strangers: Pairs of training images of different patients, of shape (m, 2).
        relatives: Pairs of training images of one patient, of shape (k, 2).
        groups: Of each training image the patient: a number.
        knows_patients: Whether the numbers are those of patients.
        notes: What is to be told of the pairs.
    """

    synthetic: np.ndarray
    own: np.ndarray
    other: np.ndarray
    strangers: np.ndarray
    relatives: np.ndarray
    groups: np.ndarray
    knows_patients: bool
    notes: tuple[str, ...]

    @property
    def train(self) -> np.ndarray:
        """The training images that are in any pair, ascending."""
        parts = (self.own, self.other[self.other >= 0], self.strangers.ravel(), self.relatives.ravel())
        return np.unique(np.concatenate(parts))


def plan_pairs(train: Features, synthetic: Features, pair: str, seed: int, most: int = REAL_PAIRS) -> PlannedPairs:
    """Finds the training images of synthetic ones, and draws real pairs to compare with.

    A pair of different patients is a training image that has a synthetic one, and an image of another patient with the
    same positive labels, if there is one. A pair of one patient is such a training image and another image of its
    patient. Images of one content, by their CRC-32, are no pair.

    Args:
        train: The training images; without patients, each image counts as one.
        synthetic: The synthetic images.
        pair: One of `PAIRED_BY`.
        seed: Seeds the draws.
        most: Real pairs of each kind, at most.

    Raises:
        StepError: See `pair_images`.
    """
    pairing = pair_images(train, synthetic, pair, seed)
    rng = np.random.default_rng(seed)
    known = patient_groups(train)
    groups = np.arange(len(train.filenames)) if known is None else known
    contents, labels = (
        np.unique(values, axis=0, return_inverse=True)[1].ravel() for values in (train.crc32, train.labels == 1)
    )
    sources, of = np.unique(pairing.train, return_inverse=True)
    other, _ = _draw_strangers(sources, labels, (groups, contents), rng)

    lefts = np.tile(rng.permutation(sources), math.ceil(most / len(sources)))
    rights, unlike = _draw_strangers(lefts[:most], labels, (groups, contents), rng)
    strangers = _distinct(lefts[:most], rights, most)
    relatives = _distinct(lefts, draw_partners(lefts, groups, [contents], rng), most)

    notes = list(pairing.notes)
    if known is None:
        notes.append(NO_PATIENTS)
    if unlike:
        notes.append(f"no image of another patient has the same positive labels as {counted(unlike, 'training image')}")
    if not np.isfinite(train.labels).any():
        notes.append("labels are unknown: images of other patients are drawn from all")
    return PlannedPairs(
        pairing.synthetic,
        pairing.train,
        other[of.ravel()],
        strangers,
        relatives,
        groups,
        known is not None,
        tuple(notes),
    )


def _draw_strangers(
    rows: np.ndarray, labels: np.ndarray, barred: tuple[np.ndarray, ...], rng: np.random.Generator
) -> tuple[np.ndarray, int]:
    """Returns an image of another patient for each row, and for how many rows none has the same labels."""
    found = draw_partners(rows, labels, barred, rng)
    without = np.flatnonzero(found < 0)
    found[without] = draw_partners(rows[without], np.zeros_like(labels), barred, rng)
    return found, len(np.unique(rows[without]))


def _distinct(lefts: np.ndarray, rights: np.ndarray, most: int) -> np.ndarray:
    """Returns the first pairs, each once, whichever image comes first; of shape (pairs, 2)."""
    pairs = np.stack([lefts, rights], axis=1)[rights >= 0]
    _, first = np.unique(np.sort(pairs, axis=1), axis=0, return_index=True)
    return pairs[np.sort(first)[:most]]
