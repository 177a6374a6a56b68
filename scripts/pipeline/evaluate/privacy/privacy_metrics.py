"""The privacy metrics of one encoder, each with what it is compared with, and the pairs that a person should see."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pipeline.evaluate.comparison import patient_groups
from pipeline.evaluate.encoders.encoder import FEATURE
from pipeline.evaluate.features import Features
from pipeline.evaluate.metrics.copying import copying_cells, copying_test
from pipeline.evaluate.metrics.distances import PrivacyDistances, Update, privacy_distances
from pipeline.evaluate.metrics.estimate import Estimate, refused, refused_unless_finite
from pipeline.evaluate.metrics.membership import membership_auroc, membership_rate
from pipeline.evaluate.metrics.memorisation import (
    THRESHOLD,
    authenticity,
    below_threshold,
    distance_ratios,
    nearer_to_training,
    ratio_below_one,
)
from pipeline.evaluate.results.results_section import ImagePair, Measured, PairedImage, Reference
from pipeline.progress import progress_bar

SHOWN = 12  # pairs of a list for the page
LISTED = 100  # pairs at or below the threshold
NO_HELDOUT = "needs --heldout: images of other patients that the generator did not see"
NO_REFERENCE = "no reference: how many held-out images are like this is unknown without --heldout"
ONE_DISTRIBUTION = "training and held-out images must be of one kind: another case mix looks like memory, or hides it"
NO_PATIENTS = "patients are unknown (embed with --patient-column): each image counts as a patient"
RATES = {"membership_tpr_1": 0.01, "membership_tpr_01": 0.001}  # by false positive rate
NOTHING = "without memorisation"
HELDOUT = "held-out images"


class PrivacySides(NamedTuple):
    """Features of one encoder.

    Attributes:
        train: Of the images that the generator was trained on.
        synthetic: Of the synthetic images.
        heldout: Of real images of other patients; None without any.
    """

    train: Features
    synthetic: Features
    heldout: Features | None

    def sizes(self, *names: str) -> dict[str, int]:
        """Returns the number of images by name of the side."""
        found = {name: features for name, features in self._asdict().items() if features is not None}
        return {name: len(found[name].filenames) for name in names or found if name in found}


def privacy_metrics(sides: PrivacySides, seed: int) -> tuple[list[Measured], dict[str, list[ImagePair]]]:
    """Computes the privacy metrics of one encoder, from one pass over the pairs of each two sides.

    Args:
        sides: The features, each ordered by file name.
        seed: Seeds the samples of the larger side and the cells of C_T.

    Returns:
        The metrics; and the closest pairs by name of the list.

    Raises:
        StepError: Features are not finite.
    """
    train, synthetic, heldout = sides
    groups = patient_groups(train), None if heldout is None else patient_groups(heldout)

    @contextlib.contextmanager
    def watch(title: str, pairs: int) -> Iterator[Update]:
        with progress_bar(f"{train.encoder.name}: {title}", pairs, "pair", unit_scale=True) as bar:
            yield bar.update

    found = privacy_distances(
        train.outputs[FEATURE],
        synthetic.outputs[FEATURE],
        None if heldout is None else heldout.outputs[FEATURE],
        groups[0],
        groups[1],
        seed,
        watch,
    )
    near = below_threshold(found)
    metrics = [
        _measured(sides, "nearer_to_training", nearer_to_training(found), [Reference(NOTHING, 0.5)], True),
        _measured(sides, "below_threshold", near[0], [Reference(NOTHING, 1 / THRESHOLD), *_reference(near[1])], True),
        _measured(sides, "copying_test", _copying(sides, found, groups[1], seed), [Reference(NOTHING, 0.0)], True),
        _measured(sides, "membership_auroc", membership_auroc(found), [Reference("chance", 0.5)], True),
        *(
            _measured(sides, name, membership_rate(found, rate), [Reference("chance", rate)], True)
            for name, rate in RATES.items()
        ),
        *(
            _measured(sides, name, one, _reference(other))
            for name, (one, other) in (
                ("distance_ratio", ratio_below_one(found)),
                ("authenticity", authenticity(found)),
            )
        ),
    ]
    return metrics, _lists(sides, found, near[2])


def _measured(
    sides: PrivacySides, metric: str, estimate: Estimate, references: list[Reference], needs_heldout: bool = False
) -> Measured:
    """Returns a metric with its references and notes; without what it needs, as refused."""
    estimate = refused_unless_finite(estimate)
    notes = [*estimate.notes]
    if sides.heldout is None:
        notes = [NO_HELDOUT] if needs_heldout else [*notes, NO_REFERENCE]
    elif estimate.value is not None:
        if needs_heldout:
            notes.append(ONE_DISTRIBUTION)
        if sides.train.patients is None or sides.heldout.patients is None:
            notes.append(NO_PATIENTS)
    known = estimate.value is not None
    return Measured(
        metric,
        sides.train.encoder.name,
        None,
        None,
        *estimate[:4],
        sides.sizes(),
        tuple(references) if known else (),
        tuple(dict.fromkeys(notes)),
    )


def _reference(estimate: Estimate | None) -> list[Reference]:
    if estimate is None or estimate.value is None:
        return []
    return [Reference(HELDOUT, estimate.value, estimate.ci_low, estimate.ci_high)]


def _copying(sides: PrivacySides, found: PrivacyDistances, groups: np.ndarray | None, seed: int) -> Estimate:
    if sides.heldout is None or found.heldout is None:
        return refused(0, len(found.synthetic.squares))
    features = [side.outputs[FEATURE] for side in (sides.heldout, sides.synthetic)]
    cells = copying_cells(sides.train.outputs[FEATURE], features, len(features[0]), seed)
    heldout, synthetic = (np.sqrt(of.squares) for of in (found.heldout, found.synthetic))
    return copying_test(heldout, synthetic, cells[0], cells[1], groups)


def _lists(sides: PrivacySides, found: PrivacyDistances, near: np.ndarray) -> dict[str, list[ImagePair]]:
    """Returns the nearest pairs, relative to held-out images where there are any, and those below the threshold."""
    distances, ratios = np.sqrt(found.synthetic.squares), distance_ratios(found.synthetic)
    to_heldout = None if found.to_heldout is None else np.sqrt(found.to_heldout.squares)
    relative = distances
    if to_heldout is not None:
        same = np.where(distances > 0, np.inf, 1.0)  # as near to both, if both are copies
        relative = np.divide(distances, to_heldout, out=same, where=to_heldout > 0)

    def listed(rows: np.ndarray, values: np.ndarray) -> list[ImagePair]:
        pairs = []
        for row in rows:
            about = {"Distance": float(distances[row])}
            if to_heldout is not None:
                about["Distance to the nearest held-out image"] = float(to_heldout[row])
            if np.isfinite(ratios[row]):
                about["Ratio to the 50 nearest"] = float(ratios[row])
            images = _image(sides.synthetic, row), _image(sides.train, found.synthetic.indices[row])
            if values is distances:
                about.pop("Distance")
            pairs.append(ImagePair(*images, float(values[row]), about))
        return pairs

    order = np.lexsort((distances, relative))
    order = order[np.isfinite(relative[order])][:SHOWN]
    name = "nearest" if to_heldout is None else "nearest_relative"
    lists = {name: listed(order, relative)}
    return {**lists, "below_threshold": listed(near[:LISTED], distances)} if len(near) else lists


def _image(features: Features, row: int) -> PairedImage:
    return PairedImage(str(features.filenames[row]), int(features.crc32[row]), str(features.prompts[row]))
