"""Whether the distance to the nearest synthetic image tells training images from held-out ones."""

from __future__ import annotations

import math

import numpy as np

from pipeline.evaluate.metrics.auroc import label_auroc
from pipeline.evaluate.metrics.distances import PrivacyDistances
from pipeline.evaluate.metrics.estimate import (
    Estimate,
    count_groups,
    mean_variance,
    proportion_estimate,
    refused,
    size_notes,
)

NEEDED = 1  # held-out images that may be taken for training images, at least


def membership_scores(found: PrivacyDistances) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns the scores of the training and of the held-out rows: minus the distance to the nearest synthetic row."""
    if found.heldout_to_synthetic is None:
        return None
    return -np.sqrt(found.train_to_synthetic), -np.sqrt(found.heldout_to_synthetic)


def membership_auroc(found: PrivacyDistances) -> Estimate:
    """Returns how well `membership_scores` tell training from held-out rows: 0.5 is chance, 1 is always.

    It is the attack of somebody who has the synthetic images alone, and wants to know whether an image was among those
    that the generator was trained on. The mean over all images hides a few that are found with certainty: see
    `membership_rate`. Training and held-out rows must be of one distribution.

    Args:
        found: What `privacy_distances` returned.

    Returns:
        The AUROC for these synthetic images, with the interval of `label_auroc`, by groups.
    """
    scores, n, m = membership_scores(found), len(found.train_groups), len(found.synthetic.squares)
    if scores is None or found.heldout_groups is None:
        return refused(n, m, "needs held-out images")
    targets = np.repeat([1.0, 0.0], [len(part) for part in scores])
    groups = np.concatenate([found.train_groups, found.heldout_groups + found.train_groups.max() + 1])
    name = "member"
    estimate = label_auroc(np.concatenate(scores)[:, None], targets[:, None], [name], groups, real=True)[name]
    notes = tuple(note for note in estimate.notes if "positive" not in note)
    return estimate._replace(n_synthetic=m, notes=notes)


def membership_rate(found: PrivacyDistances, share: float) -> Estimate:
    """Returns the share of training rows that `membership_scores` find where few held-out ones are taken for them.

    That is the true positive rate at a fixed false positive rate (Carlini et al. 2022): the share of training rows with
    as high a score as the first `share` of the held-out rows have. Without memory it is that share too.

    Args:
        found: What `privacy_distances` returned.
        share: The false positive rate, such as 0.01.

    Returns:
        The rate, with an interval of two parts: of the rate at this threshold, by groups, and of the threshold, whose
        own false positive rate is known from the held-out rows only. The parts are joined as independent ones
        (Zou and Donner 2008). Refused with too few held-out rows to have one false positive.
    """
    scores, n, m = membership_scores(found), len(found.train_groups), len(found.synthetic.squares)
    if scores is None or found.heldout_groups is None:
        return refused(n, m, "needs held-out images")
    members, others = scores
    if share * len(others) < NEEDED - 1e-9:
        needed = math.ceil(NEEDED / share - 1e-9)
        return refused(n + len(others), m, f"needs {needed:,} held-out images: {len(others):,}")
    thresholds = np.sort(others)[::-1]
    hits, false = (_taken(scores, thresholds, share) for scores in (members, others))
    value = float(hits.mean())
    at_threshold = _share(hits, found.train_groups)
    of_threshold = _share(false, found.heldout_groups)
    notes = size_notes(n, len(others))
    ends = at_threshold.ci_low, at_threshold.ci_high, of_threshold.ci_low, of_threshold.ci_high
    if None in ends:
        return Estimate(value, None, None, None, n + len(others), m, (*notes, *at_threshold.notes, *of_threshold.notes))
    low, high, low_share, high_share = (float(end or 0) for end in ends)
    fewest, most = (_rate_at(members, thresholds, part) for part in (low_share, high_share))
    low = value - math.hypot(value - low, value - min(fewest, value))
    high = value + math.hypot(high - value, max(most, value) - value)
    notes = (*notes, "interval: by patients, of the rate and of the threshold")
    return Estimate(value, at_threshold.se, max(low, 0.0), min(high, 1.0), n + len(others), m, notes)


def _taken(scores: np.ndarray, thresholds: np.ndarray, share: float) -> np.ndarray:
    """Returns which rows are taken for training rows, if at most a share of the held-out ones may be.

    Args:
        scores: Of shape (n,).
        thresholds: Scores of the held-out rows, descending.
        share: The share.
    """
    place = math.floor(share * len(thresholds) + 1e-9)
    if not place:
        return scores > thresholds[0]
    last = thresholds[place - 1]  # a row must be as near as this one
    if place < len(thresholds) and thresholds[place] == last:
        return scores > last  # else a tie would exceed the share
    return scores >= last


def _rate_at(scores: np.ndarray, thresholds: np.ndarray, share: float) -> float:
    """Returns the rate at any false positive rate, on the line between those that the held-out rows can tell."""
    place = min(share * len(thresholds), len(thresholds) - 1)
    lower = math.floor(place)
    ends = [float((scores >= thresholds[k - 1]).mean()) if k else 0.0 for k in (lower, lower + 1)]
    return ends[0] + (place - lower) * (ends[1] - ends[0])


def _share(hits: np.ndarray, groups: np.ndarray) -> Estimate:
    variance = mean_variance(hits.astype(np.float64), groups)
    return proportion_estimate(
        float(hits.mean()), math.sqrt(variance), count_groups(len(hits), groups), len(hits), 0, ()
    )
