"""The paired part of `privacy`: each synthetic image against the training image that it was made for.

Three measures: pixel distance, latent distance, re-identification. Each is compared with real pairs, of one patient and
of different patients, and with the closeness of the synthetic image to another patient's training image.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pipeline.evaluate.encoders.encoder import FEATURE
from pipeline.evaluate.features import Features
from pipeline.evaluate.metrics.calibration import (
    closer_auc,
    closer_share,
    expected_rate,
    match_rate,
    mean_over_sources,
)
from pipeline.evaluate.metrics.estimate import Estimate, refused
from pipeline.evaluate.metrics.features import BLOCK_BYTES
from pipeline.evaluate.metrics.pixels import latent_distance, pixel_distance, reid_score
from pipeline.evaluate.privacy.paired_images import PIXELS, SIDE, PairedSources, look_at_images
from pipeline.evaluate.privacy.pairing import PlannedPairs, plan_pairs
from pipeline.evaluate.results.results_section import ImagePair, Measured, PairedImage, Reference

SHOWN = 12  # closest pairs of each list
CHANCE, SAME, DIFFERENT, ANOTHER = "chance", "same patient", "different patients", "another patient's image"

Distance = Callable[[np.ndarray, np.ndarray], np.ndarray]  # of rows and rows


class Measure(NamedTuple):
    """A measure of how close two images are.

    Attributes:
        name: The metric.
        title: Its name for people.
        method: What it is measured with.
        sign: 1 if a greater value is closer, -1 if a smaller one is.
    """

    name: str
    title: str
    method: str
    sign: int

    @property
    def extreme(self) -> str:
        """Name of the metric of the closest image of each training image."""
        return f"{self.name}_{'max' if self.sign > 0 else 'min'}"


class PairValues(NamedTuple):
    """Values of one measure for the pairs of `PlannedPairs`; `other` is NaN where there is none."""

    own: np.ndarray
    other: np.ndarray
    strangers: np.ndarray
    relatives: np.ndarray


def paired_metrics(
    train: Features, synthetic: Features, *, pair: str, images: PairedSources | None = None, seed: int = 0
) -> tuple[list[Measured], dict[str, list[ImagePair]]]:
    """Compares each synthetic image with its training image.

    Args:
        train: Features of the training images, with patients if they are known.
        synthetic: Features of the synthetic images, by the same encoder.
        pair: What names the training image: one of `pairing.PAIRED_BY`.
        images: The images, for pixel distance and re-identification. These do not depend on the encoder: with several
            encoders, give them once.
        seed: Seeds the draws of real pairs.

    Returns:
        The values; and the closest pairs by name of the list, `closest_pixel_distance` and so on.

    Raises:
        StepError: No image has its training image, an image is missing in its source or has changed, or the network
            cannot be used.
        SourceError: An image is damaged.
    """
    pairs = plan_pairs(train, synthetic, pair, seed)
    latent = Measure("latent_distance", "Latent distance", train.encoder.name, -1)
    values = {latent: _latent_values(train.outputs[FEATURE], synthetic.outputs[FEATURE], pairs)}
    if images:
        values |= _image_values(images, train, synthetic, pairs)
    metrics = [one for measure, found in values.items() for one in _measured(measure, found, pairs)]
    lists = {f"closest_{measure.name}": _closest(measure, values, train, synthetic, pairs) for measure in values}
    return metrics, lists


def _latent_values(train: np.ndarray, synthetic: np.ndarray, pairs: PlannedPairs) -> PairValues:
    def compare(one: np.ndarray, two: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return _in_blocks(latent_distance, one, two, first, second)

    return PairValues(
        compare(synthetic, train, pairs.synthetic, pairs.own),
        compare(synthetic, train, pairs.synthetic, pairs.other),
        compare(train, train, *pairs.strangers.T),
        compare(train, train, *pairs.relatives.T),
    )


def _in_blocks(
    distance: Distance, one: np.ndarray, two: np.ndarray, first: np.ndarray, second: np.ndarray
) -> np.ndarray:
    """Returns the distances of rows `first` of one array and `second` of another; NaN where `second` is -1."""
    found = np.full(len(first), np.nan)
    there = np.flatnonzero(second >= 0)
    step = max(1, BLOCK_BYTES // (8 * one.shape[1]))
    for start in range(0, len(there), step):
        block = there[start : start + step]
        with np.errstate(over="ignore", invalid="ignore"):  # features that are no numbers are refused, by name
            found[block] = distance(one[first[block]], two[second[block]])
    return found


def _image_values(
    images: PairedSources, train: Features, synthetic: Features, pairs: PlannedPairs
) -> dict[Measure, PairValues]:
    """Returns the values of the measures that need the images, which are read now."""
    measures = _image_measures(images)
    rows = pairs.train
    kept: list[np.ndarray] = []  # of the training images, for each measure
    own, other = np.full((2, len(measures), len(pairs.synthetic)), np.nan)
    for look in look_at_images(images, (train, rows), (synthetic, pairs.synthetic)):
        if look.side == "train":
            kept = kept or [np.empty((len(rows), len(array)), array.dtype) for array in look.arrays]
            for array, of_image in zip(kept, look.arrays):
                array[np.searchsorted(rows, look.row)] = of_image
            continue
        place = int(np.searchsorted(pairs.synthetic, look.row))
        for found, partner in ((own, pairs.own[place]), (other, pairs.other[place])):
            if partner >= 0:
                at = np.searchsorted(rows, [partner])
                for number, distance in enumerate(measures.values()):
                    found[number, place] = distance(look.arrays[number][None], kept[number][at])[0]
    strangers, relatives = (np.searchsorted(rows, part).T for part in (pairs.strangers, pairs.relatives))
    return {
        measure: PairValues(
            own[number],
            other[number],
            *(_in_blocks(distance, kept[number], kept[number], *part) for part in (strangers, relatives)),
        )
        for number, (measure, distance) in enumerate(measures.items())
    }


def _image_measures(images: PairedSources) -> dict[Measure, Distance]:
    """Returns the measures in the order of `images.encoders`."""
    pixels = Measure("pixel_distance", "Pixel distance", f"{PIXELS} {SIDE}x{SIDE}", -1)
    if not images.reid:
        return {pixels: pixel_distance}
    weight, bias = images.reid.head()
    reid = Measure("reid_score", "Re-ID score", str(images.reid.describe()["model"]), 1)
    return {pixels: pixel_distance, reid: lambda one, two: reid_score(one, two, weight, bias)}


def _measured(measure: Measure, values: PairValues, pairs: PlannedPairs) -> list[Measured]:
    """Returns the metrics of one measure."""
    sizes = {
        "synthetic": len(pairs.synthetic),
        "train": len(np.unique(pairs.own)),
        "same-patient pairs": len(pairs.relatives),
        "different-patient pairs": len(pairs.strangers),
    }
    if pairs.knows_patients:
        sizes["patients"] = len(np.unique(pairs.groups[pairs.own]))
    notes = (*pairs.notes, *(() if len(pairs.relatives) else (_no_relatives(pairs),)))
    if not all(np.isfinite(part).all() for part in values._replace(other=values.other[pairs.other >= 0])):
        reason = f"{measure.method} gives some images features that are no finite numbers"
        found: dict[str, Compared] = {measure.name: (refused(0, 0, reason), {})}
    else:
        found = _Estimates(measure, values, pairs).all()
    return [
        Measured(
            metric, measure.method, None, None, *estimate[:4], sizes, _references(compared), (*estimate.notes, *notes)
        )
        for metric, (estimate, compared) in found.items()
    ]


Compared = tuple[Estimate, dict[str, "Estimate | float"]]  # a metric, and what it is compared with by name


class _Estimates:
    """The metrics of one measure, from closeness: a distance counts as its negative."""

    def __init__(self, measure: Measure, values: PairValues, pairs: PlannedPairs) -> None:
        self._measure = measure
        there = pairs.other >= 0
        self._own, other, self._strangers, self._relatives = (measure.sign * part for part in values)
        self._other, self._beside_other = other[there], self._own[there]
        self._sources, self._sources_beside_other = pairs.own, pairs.own[there]
        self._pairs, self._groups = pairs, pairs.groups
        self._of_strangers = pairs.groups[pairs.strangers]
        self._of_relatives = pairs.groups[pairs.relatives[:, 0]]

    def all(self) -> dict[str, Compared]:
        name = self._measure.name
        return {
            name: self._mean(),
            self._measure.extreme: self._extreme(),
            f"{name}_auc": self._auc(),
            f"{name}_match_rate": self._match_rate(),
            f"{name}_closer_share": self._closer_share(),
        }

    def _mean(self) -> Compared:
        return self._over(self._own, self._sources), {
            SAME: self._over(self._relatives, self._pairs.relatives[:, 0]),
            DIFFERENT: self._over(self._strangers, self._pairs.strangers[:, 0]),
            ANOTHER: self._over(self._other, self._sources_beside_other),
        }

    def _extreme(self) -> Compared:
        if len(np.unique(self._sources)) == len(self._sources):
            return refused(0, 0, "one synthetic image for each training image: it is the mean"), {}
        another = self._over(self._other, self._sources_beside_other, extreme=True)
        return self._over(self._own, self._sources, extreme=True), {ANOTHER: another}

    def _over(self, closeness: np.ndarray, sources: np.ndarray, extreme: bool = False) -> Estimate:
        return _signed(mean_over_sources(closeness, sources, self._groups[sources], extreme), self._measure.sign)

    def _auc(self) -> Compared:
        strangers = self._strangers, self._of_strangers[:, 0]
        found = closer_auc(self._own, self._groups[self._sources], *strangers)
        return found, {CHANCE: 0.5, SAME: closer_auc(self._relatives, self._of_relatives, *strangers)}

    def _match_rate(self) -> Compared:
        strangers = self._strangers, self._of_strangers
        found = match_rate(self._own, self._groups[self._sources], *strangers)
        if found.value is None:
            return found, {}
        same = match_rate(self._relatives, self._of_relatives, *strangers)
        return found, {DIFFERENT: expected_rate(len(self._strangers)), SAME: same}

    def _closer_share(self) -> Compared:
        groups = self._groups[self._sources_beside_other]
        return closer_share(self._beside_other, self._other, groups), {CHANCE: 0.5}


def _references(compared: dict[str, Estimate | float]) -> tuple[Reference, ...]:
    found = []
    for name, one in compared.items():
        if isinstance(one, float):
            found.append(Reference(name, one))
        elif one.value is not None:
            found.append(Reference(name, one.value, one.ci_low, one.ci_high))
    return tuple(found)


def _no_relatives(pairs: PlannedPairs) -> str:
    if not pairs.knows_patients:
        return "no pairs of one patient: whether the measure knows a patient at all is not shown"
    return "no training image is one of several of its patient: whether the measure knows a patient is not shown"


def _signed(estimate: Estimate, sign: int) -> Estimate:
    """Returns the estimate of a closeness as that of the measure."""
    if sign > 0 or estimate.value is None:
        return estimate
    low, high = (None if end is None else 0.0 - end for end in (estimate.ci_high, estimate.ci_low))
    return estimate._replace(value=0.0 - estimate.value, ci_low=low, ci_high=high)


def _closest(
    measure: Measure, values: dict[Measure, PairValues], train: Features, synthetic: Features, pairs: PlannedPairs
) -> list[ImagePair]:
    """Returns the closest pairs by one measure, with the others' numbers."""
    own = values[measure].own
    order = np.argsort(-measure.sign * own, kind="stable")  # NaN comes last
    listed = []
    for place in order[np.isfinite(own[order])][:SHOWN].tolist():
        about = {other.title: found.own[place] for other, found in values.items() if other != measure}
        about[f"{measure.title} to {ANOTHER}"] = values[measure].other[place]
        listed.append(
            ImagePair(
                _image(synthetic, pairs.synthetic[place]),
                _image(train, pairs.own[place]),
                float(own[place]),
                {name: float(number) for name, number in about.items() if np.isfinite(number)},
            )
        )
    return listed


def _image(features: Features, row: int) -> PairedImage:
    return PairedImage(str(features.filenames[row]), int(features.crc32[row]), str(features.prompts[row]))
