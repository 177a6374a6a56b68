"""Which rows are compared: overall and for each label, at a common n, and the halves of the real set for the floors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pipeline.errors import StepError, counted, listing
from pipeline.evaluate.encoders.encoder import FEATURE, LOGITS, TEXT
from pipeline.evaluate.features import EncodedWith, Features
from pipeline.evaluate.fidelity.frd import RADIOMICS
from pipeline.evaluate.metrics.features import row_blocks
from pipeline.evaluate.metrics.floor import random_halves, random_order
from pipeline.evaluate.metrics.frechet import MIN_ROWS
from synthchex_75k import LABELS, printable

Rows = tuple[np.ndarray, np.ndarray]  # indices of real and of synthetic rows, ascending


class ComparedRows(NamedTuple):
    """The rows of one comparison, overall or of a label.

    A metric whose expectation does not depend on n takes all rows. The others take samples of one size, which all
    labels share, so that they compare with one another.

    Attributes:
        label: The label; None: all rows.
        rows: All real and all synthetic rows.
        sample: As many of both, drawn at random, of the real ones whole patients; None: too few, see `refusal`.
        refusal: Why there is no sample.
        halves: Pairs of disjoint parts of the real rows, of the size of the comparison, or what there is.
        sample_halves: The same, of the size of the sample.
    """

    label: str | None
    rows: Rows
    sample: Rows | None
    refusal: str
    halves: list[Rows]
    sample_halves: list[Rows]

    @property
    def name(self) -> str:
        """The label; empty for all rows."""
        return self.label or ""

    @property
    def n(self) -> int:
        """Rows of the sample on each side."""
        return len(self.sample[0]) if self.sample else 0


def in_order(features: Features) -> Features:
    """Returns features ordered by file name; as they are if they are in order."""
    order = np.argsort(features.filenames, kind="stable")
    if (order == np.arange(len(order))).all():
        return features
    patients = None if features.patients is None else features.patients[order]
    return Features(
        features.encoder,
        features.filenames[order],
        features.crc32[order],
        features.sizes[order],
        features.prompts[order],
        patients,
        features.labels[order],
        {name: values[order] for name, values in features.outputs.items()},
    )


def check_same_encoder(
    real: EncodedWith, synthetic: EncodedWith, sides: tuple[str, str] = ("real", "synthetic")
) -> None:
    """Checks that the features of both sides come from one encoder.

    Args:
        real: Of one side.
        synthetic: Of the other side.
        sides: What to call them.

    Raises:
        StepError: Something else than the images differs; the message names it.
    """
    one, two = real.about, synthetic.about
    if real.fingerprint == synthetic.fingerprint:
        return
    keys = [key for key in dict.fromkeys([*one, *two]) if one.get(key) != two.get(key)]
    raise StepError(
        f"{real.name}: the {sides[0]} and the {sides[1]} features differ in more than the images: "
        f"{listing(keys) or 'the fingerprint'}; embed both sides alike"
    )


def check_same_images(first: Features, other: Features, side: str) -> None:
    """Checks that two encoders of one side saw the same images, with the same patients.

    Args:
        first: Features of one encoder, ordered by file name.
        other: Features of another one.
        side: "real" or "synthetic".

    Raises:
        StepError: They saw other ones, and the message names some; or patients differ, which decide standard errors.
    """
    same = len(first.filenames) == len(other.filenames)
    if same and (first.filenames == other.filenames).all() and (first.crc32 == other.crc32).all():
        if _as_list(first.patients) == _as_list(other.patients):
            return
        raise StepError(
            f"the {side} features of {first.encoder.name} and {other.encoder.name} have other patients; embed with "
            "both encoders and one --patient-column"
        )
    one, two = (dict(zip(side.filenames.tolist(), side.crc32.tolist())) for side in (first, other))
    names = sorted(name for name in {*one, *two} if one.get(name) != two.get(name))
    raise StepError(
        f"the {side} features of {first.encoder.name} and {other.encoder.name} are of other images: "
        f"{listing(names, 3)}; embed with both encoders"
    )


def _as_list(patients: np.ndarray | None) -> list[object]:
    return [] if patients is None else patients.tolist()


def check_finite(features: Features, side: str) -> None:
    """Checks that outputs which must be numbers are, before the long work.

    Radiomics features may be undefined, and a classifier may not know a label; the metrics leave those out.

    Args:
        features: Features of one encoder.
        side: "real" or "synthetic".

    Raises:
        StepError: One is not; the message names the image.
    """
    for name in (FEATURE, TEXT, LOGITS):
        if name not in features.outputs or (name == FEATURE and features.encoder.name == RADIOMICS):
            continue
        for start, block in row_blocks(features.outputs[name]):
            if len(bad := np.flatnonzero(~np.isfinite(block).all(axis=1))):
                image = printable(str(features.filenames[start + bad[0]]))
                raise StepError(
                    f"{features.encoder.name}: {image} of the {side} images: {name} is not finite; embed it once more"
                )


def patient_groups(features: Features) -> np.ndarray | None:
    """Returns the patient of each row as a number, or None if no patient is known; a row without one is its own."""
    if features.patients is None:
        return None
    numbers: dict[object, int] = {}
    keys = (("row", i) if patient is None else patient for i, patient in enumerate(features.patients.tolist()))
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.intp)


def comparisons(
    real: Features, synthetic: Features, labels: Sequence[str], groups: np.ndarray | None, seed: int
) -> list[ComparedRows]:
    """Returns the comparison of all rows, and that of each label; a row has a label where its raw value is 1.

    The common n of the labels is the number of rows that the rarest of them has on either side. Labels with fewer than
    50 rows on a side do not lower it: they have no sample.

    Args:
        real: The real side, ordered by file name.
        synthetic: The synthetic side, ordered by file name.
        labels: Which labels.
        groups: The patient of each real row.
        seed: Seeds what is drawn, for each label on its own.
    """
    found: list[tuple[str | None, Rows]] = [
        (None, (np.arange(len(real.filenames)), np.arange(len(synthetic.filenames))))
    ]
    for label in labels:
        column = LABELS.index(label)
        mine, theirs = (np.flatnonzero(side.labels[:, column] == 1) for side in (real, synthetic))
        found.append((label, (mine, theirs)))
    sizes = [min(len(part) for part in rows) for label, rows in found if label]
    common = min((size for size in sizes if size >= MIN_ROWS), default=0)
    return [_comparison(label, rows, common, groups, seed) for label, rows in found]


def _comparison(label: str | None, rows: Rows, common: int, groups: np.ndarray | None, seed: int) -> ComparedRows:
    smaller = min(len(part) for part in rows)
    n, refusal = smaller, ""
    if label:
        n = min(smaller, common)
        if smaller < MIN_ROWS:
            n, refusal = 0, f"fewer than {MIN_ROWS} rows on a side: {len(rows[0]):,} real, {len(rows[1]):,} synthetic"
    elif not n:
        refusal = "no rows on a side"
    # Of each use a generator of its own: the halves of a label do not depend on what other labels there are.
    streams = np.random.SeedSequence((seed, LABELS.index(label) + 1 if label else 0)).spawn(3)
    rng, *seeds = np.random.default_rng(streams[0]), *(int(stream.generate_state(1)[0]) for stream in streams[1:])
    sample = None
    if n:
        units = (None if groups is None else groups[rows[0]]), None
        mine, theirs = (
            part[np.sort(random_order(len(part), unit, rng)[:n])] if len(part) > n else part
            for part, unit in zip(rows, units)
        )
        sample = mine, theirs
    halves, sample_halves = (_halves(rows[0], size, groups, number) for size, number in zip((smaller, n), seeds))
    return ComparedRows(label, rows, sample, refusal, halves, sample_halves)


def _halves(rows: np.ndarray, n: int, groups: np.ndarray | None, seed: int) -> list[Rows]:
    pairs = random_halves(len(rows), n, groups=None if groups is None else groups[rows], seed=seed)
    return [(rows[one], rows[two]) for one, two in pairs if len(one)]


def sample_note(comparison: ComparedRows) -> tuple[str, ...]:
    """Returns how many rows a metric that depends on n was computed from, if it is not all of them."""
    sizes = [len(part) for part in comparison.rows]
    if comparison.n == max(sizes):
        return ()
    drawn = " and ".join(f"{size:,} {side}" for size, side in zip(sizes, ("real", "synthetic")) if size > comparison.n)
    reason = "labels are compared at a common n" if comparison.label else "this metric depends on n"
    return (f"{reason}: {counted(comparison.n, 'row')} a side, drawn from {drawn}",)
