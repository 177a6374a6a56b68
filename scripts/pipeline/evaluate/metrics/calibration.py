"""What a closeness of pairs means: the same closeness of real pairs, of one patient and of different ones.

A network's probability that two images are of one patient, or a distance of 40 grey values, says nothing by itself. The
same measure of pairs of real images that are known to be of one patient, or of different ones, gives it a scale.

The functions take closeness: the greater, the closer. A distance is given as its negative.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pipeline.errors import counted
from pipeline.evaluate.metrics.auroc import label_auroc
from pipeline.evaluate.metrics.estimate import (
    Z95,
    Estimate,
    count_groups,
    mean_variance,
    normal_estimate,
    proportion_estimate,
    refused,
    size_notes,
)

FALSE_MATCHES = 0.01  # share of pairs of different patients beyond the threshold
FEW_RANKS = 10  # pairs beyond a threshold, below which it is rough
MIN_PAIRS = 99  # of different patients, for a threshold that 1 % of them pass
TRIES = 16  # random draws before the partners that are left are looked through


def draw_partners(
    rows: np.ndarray, keys: np.ndarray, barred: Sequence[np.ndarray], rng: np.random.Generator
) -> np.ndarray:
    """Draws for each row another one, at random among those with the same key that differ in everything barred.

    Args:
        rows: The rows that need a partner, of shape (n,); a row may be there several times.
        keys: Of all rows: a number; partners share it. That of patients gives images of one patient.
        barred: Arrays of numbers of all rows; partners differ in each. Those of patients and of contents give images
            of different patients that are different images.
        rng: Draws.

    Returns:
        The partner of each, of shape (n,); -1 where there is none.

    Example:
        >>> patients, contents = np.array([0, 0, 1, 1]), np.array([5, 6, 7, 7])
        >>> draw_partners(np.arange(4), patients, [contents], np.random.default_rng(0)).tolist()
        [1, 0, -1, -1]
    """
    found = np.full(len(rows), -1, np.intp)
    order = np.argsort(keys, kind="stable")
    starts = np.searchsorted(keys[order], keys[rows], "left")
    ends = np.searchsorted(keys[order], keys[rows], "right")
    waiting = np.arange(len(rows))
    for _ in range(TRIES):
        drawn = order[rng.integers(starts[waiting], ends[waiting])] if len(waiting) else waiting
        fit = _differ(rows[waiting], drawn, barred)
        found[waiting[fit]] = drawn[fit]
        waiting = waiting[~fit]
    without: dict[tuple[int, ...], bool] = {}  # rows alike in everything that decides have no partner alike
    for place in waiting.tolist():
        row = rows[place]
        alike = (int(keys[row]), *(int(values[row]) for values in barred))
        if without.get(alike):
            continue
        pool = order[starts[place] : ends[place]]
        pool = pool[_differ(np.full(len(pool), row), pool, barred)]
        without[alike] = not len(pool)
        if len(pool):
            found[place] = rng.choice(pool)
    return found


def _differ(one: np.ndarray, two: np.ndarray, barred: Sequence[np.ndarray]) -> np.ndarray:
    return np.logical_and.reduce([values[one] != values[two] for values in barred])


def mean_over_sources(
    closeness: np.ndarray, sources: np.ndarray, groups: np.ndarray, extreme: bool = False
) -> Estimate:
    """Returns the mean over training images of the mean, or of the greatest, closeness of their synthetic images.

    Each training image counts once, however many images were made for it. The greatest of several grows with their
    number: compare it with that of as many other images.

    Args:
        closeness: Of each pair, of shape (n,).
        sources: Which training image the pair has: a number, of shape (n,).
        groups: The patient of each pair: a number, of shape (n,).
        extreme: The greatest closeness, not the mean.

    Returns:
        The estimate; the standard error and the interval, value ± 1.96 errors, count patients.

    Example:
        >>> found = mean_over_sources(np.array([1.0, 3.0, 8.0]), np.array([0, 0, 1]), np.array([0, 0, 1]))
        >>> found.value, found.n_real, found.n_synthetic
        (5.0, 2, 3)
    """
    _, first, of = np.unique(sources, return_index=True, return_inverse=True)
    of, count = of.ravel(), len(first)
    if not count:
        return refused(0, 0, "no pairs")
    if extreme:
        values = np.full(count, -np.inf)
        np.maximum.at(values, of, closeness)
    else:
        values = np.bincount(of, closeness) / np.bincount(of)
    units = groups[first]
    se = math.sqrt(mean_variance(values, units))
    return normal_estimate(float(values.mean()), se, count, len(closeness), size_notes(count_groups(count, units)))


def match_rate(
    closeness: np.ndarray,
    groups: np.ndarray,
    strangers: np.ndarray,
    stranger_groups: np.ndarray,
    false_matches: float = FALSE_MATCHES,
) -> Estimate:
    """Returns the share of pairs that are closer than all but 1 % of the pairs of different patients.

    The threshold is the j-th closest of the m pairs of different patients, with j = round(0.01 (m + 1)). If the pairs
    are no closer than those, j / (m + 1) of them pass on average: that is `expected_rate`. A pair at the threshold
    counts as the share of those of different patients there that makes them j. Verification by a threshold at a given
    rate of false matches is usual in biometrics; CheXGenBench counts pairs above a threshold that it does not name.

    Args:
        closeness: Of the pairs of synthetic and training images, of shape (n,).
        groups: The patient of each pair: a number, of shape (n,).
        strangers: Closeness of pairs of real images of different patients, of shape (m,).
        stranger_groups: The two patients of each: numbers, of shape (m, 2).
        false_matches: The rate of false matches.

    Returns:
        The rate. Each end of its interval has the distance of two ends from the rate, added as squares (Zou and Donner
        2008): that of Wilson's interval by patients, and that of the rates at the ends of an interval of j, in which
        both patients of a pair count (Cameron et al. 2011). Refused with fewer than 99 pairs of different patients.

    Example:
        >>> pairs = np.arange(398).reshape(199, 2)
        >>> found = match_rate(np.array([0.5, 200.0]), np.arange(2), np.arange(199.0), pairs)
        >>> found.value, expected_rate(199)
        (0.5, 0.01)
    """
    count, pairs = len(closeness), len(strangers)
    if pairs < MIN_PAIRS or not count:
        return refused(0, count, f"needs {MIN_PAIRS} pairs of different patients for a threshold; there are {pairs}")
    ranked = np.sort(strangers)[::-1]
    rank = _rank(pairs, false_matches)
    hits = _beyond(closeness, ranked, rank)
    value, units = float(hits.mean()), count_groups(count, groups)
    share = proportion_estimate(value, math.sqrt(mean_variance(hits, groups)), units, 0, count)
    low, high = (
        float(_beyond(closeness, ranked, end).mean()) for end in _rank_interval(rank, strangers, stranger_groups)
    )
    notes = (
        f"threshold: the closest {rank:,} of {pairs:,} pairs of different patients",
        "interval: Wilson by patients, and the uncertainty of the threshold",
        *((f"the threshold is that of {counted(rank, 'pair')}: rough",) if rank < FEW_RANKS else ()),
    )
    if share.se is None or share.ci_low is None or share.ci_high is None:
        return share._replace(notes=(*share.notes, *notes))
    return share._replace(
        se=math.hypot(share.se, (high - low) / (2 * Z95)),
        ci_low=max(0.0, value - math.hypot(value - share.ci_low, value - low)),
        ci_high=min(1.0, value + math.hypot(share.ci_high - value, high - value)),
        notes=notes,
    )


def expected_rate(strangers: int, false_matches: float = FALSE_MATCHES) -> float:
    """Returns the value of `match_rate` to expect of pairs that are no closer than those of different patients.

    Args:
        strangers: Number of pairs of different patients.
        false_matches: The rate of false matches.
    """
    return _rank(strangers, false_matches) / (strangers + 1)


def _rank(pairs: int, false_matches: float) -> int:
    return max(1, round(false_matches * (pairs + 1)))


def _rank_interval(rank: int, strangers: np.ndarray, groups: np.ndarray) -> tuple[int, int]:
    """Returns between which ranks the true threshold lies, by the score interval of a Poisson count.

    The count varies more where both images of a pair are in other pairs too.
    """
    beyond = (strangers >= np.sort(strangers)[-rank]).astype(np.float64)
    independent, by_one, by_other = (mean_variance(beyond, part) for part in (None, groups[:, 0], groups[:, 1]))
    spread = Z95**2 * max(1.0, (by_one + by_other) / independent - 1) if 0 < independent < math.inf else Z95**2
    centre, half = rank + spread / 2, math.sqrt(spread * (rank + spread / 4))
    return max(0, math.floor(centre - half)), min(len(strangers), math.ceil(centre + half))


def _beyond(closeness: np.ndarray, ranked: np.ndarray, rank: int) -> np.ndarray:
    """Returns 1 for each value beyond that of a rank, and a share for those that equal it; beyond rank 0 is nothing."""
    if not rank:
        return np.zeros(len(closeness))
    threshold = ranked[rank - 1]
    beyond, equal = (ranked > threshold).sum(), (ranked == threshold).sum()
    return np.where(closeness > threshold, 1.0, (closeness == threshold) * ((rank - beyond) / equal))


def closer_auc(
    closeness: np.ndarray, groups: np.ndarray, strangers: np.ndarray, stranger_groups: np.ndarray
) -> Estimate:
    """Returns how often a pair is closer than a pair of different patients: the AUROC of closeness.

    AUC = P(closer) + P(equal) / 2. 0.5: the pairs are no closer. Of pairs of one patient it tells how well the measure
    knows a patient at all: where that is near 0.5, a low value of synthetic pairs means nothing.

    Args:
        closeness: Of the pairs, of shape (n,).
        groups: The patient of each: a number.
        strangers: Closeness of pairs of different patients, of shape (m,).
        stranger_groups: The patient of the first image of each: a number.

    Returns:
        The AUC; standard error and interval as of `label_auroc`, by patients.
    """
    if not len(closeness) or not len(strangers):
        return refused(0, len(closeness), "needs pairs of both kinds")
    targets = np.repeat([1.0, 0.0], [len(closeness), len(strangers)])
    values, units = np.concatenate([closeness, strangers]), np.concatenate([groups, stranger_groups])
    found = label_auroc(values[:, None], targets[:, None], ["auc"], units)["auc"]
    return found._replace(notes=found.notes[1:])  # without the numbers of positives and negatives


def closer_share(closeness: np.ndarray, others: np.ndarray, groups: np.ndarray) -> Estimate:
    """Returns the share of synthetic images that are closer to their own training image than to another patient's.

    Both distances are of one synthetic image, so that what tells all synthetic images from real ones has no part in
    it. 0.5: no closer to the own one; ties count half. The prompt tells more than the labels do: above 0.5, an image
    may fit its prompt only. It is no sign of memory by itself; at 0.5 the measure sees no link.

    Args:
        closeness: Of each synthetic image to its training image, of shape (n,).
        others: The same to a training image of another patient, of shape (n,).
        groups: The patient of each training image: a number, of shape (n,).

    Returns:
        The share, with Wilson's interval by patients.

    Example:
        >>> closer_share(np.array([3.0, 1.0]), np.array([2.0, 1.0]), np.arange(2)).value
        0.75
    """
    count = len(closeness)
    if not count:
        return refused(0, 0, "no synthetic image has a training image of another patient to compare with")
    hits = (closeness > others) + 0.5 * (closeness == others)
    se, units = math.sqrt(mean_variance(hits, groups)), count_groups(count, groups)
    notes = ("interval: Wilson, by patients", *size_notes(units))
    return proportion_estimate(float(hits.mean()), se, units, 0, count, notes)
