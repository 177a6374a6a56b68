"""Whether synthetic images lie nearer to training images than they would if nothing had been memorised."""

from __future__ import annotations

import math

import numpy as np

from pipeline.evaluate.metrics.distances import NUM_NEAREST, NearestRow, PrivacyDistances, ToTrain
from pipeline.evaluate.metrics.estimate import (
    Estimate,
    count_groups,
    mean_variance,
    proportion_estimate,
    refused,
    size_notes,
)

ALPHA = 0.5  # of the ratio of Carlini et al.
THRESHOLD = 1000  # the nearest of so many held-out images is the threshold
GIVEN = "standard error: given the training images"


def nearer_to_training(found: PrivacyDistances) -> Estimate:
    """Returns the share of synthetic rows that are nearer to the training set than to a held-out set of equal size.

    Equal distances count half. 0.5 is what a generator reaches that knows the distribution and no image of it, since a
    held-out image is then as likely the nearest as a training image is; a copy of each training image gives 1. Training
    and held-out rows must be of one distribution: where they are not, the share differs from 0.5 without any memory.

    Where one set is larger, the share is the expectation over all its subsets of whole groups that have on average as
    many rows as the smaller set. It needs no draw: if c of G groups are nearer than the smaller set is, a subset of g
    groups has none of them with probability C(G - c, g) / C(G, g). A copy of a training image then counts only where
    the subset has that image, so that a small held-out set dilutes what was memorised; a note tells by how much.

    Args:
        found: What `privacy_distances` returned, with held-out rows.

    Returns:
        The share. Its standard error is that of a ratio of sums over groups, which says how unequally synthetic rows
        are spread over their nearest real rows: one real row in the middle may be the nearest to many, and on which
        side it is, is one toss of a coin. For equal sets without memory it is the standard error of the permutation
        test. Where one set is larger, it is that of samples of it that are as large as the other, times the ratio of
        the standard deviations of the rows' expected shares and of their shares in a sample. `test_memorisation.py`
        has the simulation, in which a binomial interval held 0.5 in as few as 0.43 of the draws.
    """
    to_heldout, groups = found.to_heldout, found.heldout_groups
    n, m = len(found.train_groups), len(found.synthetic.squares)
    if to_heldout is None or groups is None:
        return refused(n, m, "needs held-out images")
    h = len(groups)
    scores = _nearer_scores(found, to_heldout, groups)
    value, spread = float(scores.mean()), float(scores.var())
    variance = np.mean([_variance(found.train_groups, groups, *pair) for pair in _compared(found, to_heldout)])
    if spread:  # the expected shares of rows vary less than those in a sample
        variance *= spread / (value * (1 - value))
    nearest = {*found.train_groups[found.synthetic.indices].tolist()}, {*groups[to_heldout.indices].tolist()}
    units = m if variance else min(map(len, nearest))
    notes = [*size_notes(n, m, h), "standard error: by the nearest patients"]
    if n > h:
        notes.append(f"expectation over subsets of about {h:,} of {n:,} training images: a copy counts in {h / n:.1%}")
    elif h > n:
        notes.append(f"expectation over subsets of about {n:,} of {h:,} held-out images")
    return proportion_estimate(value, math.sqrt(variance), units, n + h, m, tuple(notes))


def _compared(found: PrivacyDistances, to_heldout: NearestRow) -> list[tuple[NearestRow, NearestRow]]:
    """Returns the nearest training and held-out rows, in sets of equal size."""
    n = len(found.train_groups)
    to_train = NearestRow(found.synthetic.squares, found.synthetic.indices, np.arange(n))
    if not found.to_samples:
        return [(to_train, to_heldout)]
    if n > len(to_heldout.rows):
        return [(part, to_heldout) for part in found.to_samples]
    return [(to_train, part) for part in found.to_samples]


def _variance(
    train_groups: np.ndarray, heldout_groups: np.ndarray, to_train: NearestRow, to_heldout: NearestRow
) -> float:
    """Returns the variance of the share nearer to training, a ratio of sums over groups."""
    scores = (to_train.squares < to_heldout.squares) + (to_train.squares == to_heldout.squares) / 2
    value, found = scores.mean(), 0.0
    for groups, near, nearer, part in (
        (train_groups, to_train, scores, 1 - value),
        (heldout_groups, to_heldout, 1 - scores, value),
    ):
        count = int(groups.max()) + 1
        sizes = np.bincount(groups[near.rows], minlength=count)
        won = np.bincount(groups[near.indices], nearer, minlength=count)
        excess = (won - sizes * (won.sum() / sizes.sum()))[sizes > 0]
        if len(excess) < 2:
            return math.inf
        found += float(part**2 * np.square(excess).sum() * len(excess) / (len(excess) - 1))
    return found / len(scores) ** 2


def _nearer_scores(found: PrivacyDistances, to_heldout: NearestRow, groups: np.ndarray) -> np.ndarray:
    """Returns for each synthetic row the probability that it is nearer to training than to held-out rows."""
    n, h = len(found.train_groups), len(groups)
    if n == h:
        mine, theirs = found.synthetic.squares, to_heldout.squares
        return (mine < theirs) + (mine == theirs) / 2
    assert found.nearer is not None
    larger = found.train_groups if n > h else groups
    none = chance_of_none(count_groups(len(larger), larger), min(n, h) / max(n, h))
    of_larger = none[found.nearer].mean(axis=1)
    return 1 - of_larger if n > h else of_larger


def chance_of_none(groups: int, share: float) -> np.ndarray:
    """Returns the probability that a random subset of groups has none of c given ones, for c from 0 to all.

    Args:
        groups: Number of groups.
        share: Mean share of the groups that a subset has. Where it makes no whole number of groups, the subset has
            one of the two next numbers, with the probabilities that make its mean right.

    Example:
        >>> chance_of_none(4, 0.5).round(3).tolist()
        [1.0, 0.5, 0.167, 0.0, 0.0]
    """
    size = share * groups
    lower = int(size)
    found = np.zeros(groups + 1)
    for chosen, weight in ((lower, 1 - (size - lower)), (min(lower + 1, groups), size - lower)):
        c = np.arange(groups)
        left = np.maximum(groups - chosen - c, 0) / (groups - c)  # that the next one is not chosen either
        found += weight * np.concatenate([[1.0], np.cumprod(left)])
    return found


def below_threshold(found: PrivacyDistances) -> tuple[Estimate, Estimate, np.ndarray]:
    """Returns the share of synthetic rows that are as near to training as one in a thousand held-out rows is.

    The threshold is the distance of the h/1000-th nearest of h held-out rows to the training set. Without memory about
    0.1 % of the synthetic rows lie at or below it, and their list is worth looking at. Synthetic images that are more
    alike or smoother than real ones lie nearer to everything, and exceed 0.1 % too.

    Args:
        found: What `privacy_distances` returned.

    Returns:
        The share; the same of the held-out rows, whose interval tells how certain the threshold is; and the synthetic
        rows at or below it, the nearest first.
    """
    n, m = len(found.train_groups), len(found.synthetic.squares)
    none = np.empty(0, np.intp)
    if found.heldout is None or found.heldout_groups is None:
        reason = refused(n, m, "needs held-out images")
        return reason, reason, none
    squares = found.heldout.squares
    place = len(squares) // THRESHOLD
    if not place:
        reason = refused(
            n + len(squares), m, f"needs {THRESHOLD:,} held-out images, of which one is the threshold: {len(squares):,}"
        )
        return reason, reason, none
    threshold = np.partition(squares, place - 1)[place - 1]
    near = np.flatnonzero(found.synthetic.squares <= threshold)
    estimate = _share_of_synthetic(found.synthetic.squares <= threshold, found, n + len(squares))
    distance = f"threshold: distance {math.sqrt(threshold):.4g}, of number {place} of {len(squares):,} held-out images"
    reference = _share(squares <= threshold, found.heldout_groups, n, len(squares))
    order = np.argsort(found.synthetic.squares[near], kind="stable")
    return estimate._replace(notes=(distance, *estimate.notes)), reference, near[order]


def distance_ratios(of: ToTrain) -> np.ndarray:
    """Returns for each row the distance to its nearest training row over half the mean of the nearest 50.

    That is the ratio of Carlini et al. (2023), section 5.1: d(s, nearest) / (0.5 mean of d(s, 50 nearest)), where the
    nearest is one of the 50. A row at distance 0 has the ratio 0, also where all 50 are copies of it.
    """
    distances = np.sqrt(of.squares)
    return np.divide(distances, ALPHA * of.means, out=np.zeros(len(distances)), where=distances > 0)


def ratio_below_one(found: PrivacyDistances) -> tuple[Estimate, Estimate | None]:
    """Returns the share of synthetic rows whose `distance_ratios` is below 1, and that of the held-out rows.

    Carlini et al. found copies by it among the pixels of CIFAR-10. Near-duplicates of one another in the training set
    hide a copy: all 50 neighbours are then near.

    Args:
        found: What `privacy_distances` returned.

    Returns:
        The share of the synthetic rows; that of the held-out rows, None without any.
    """
    n, m = len(found.train_groups), len(found.synthetic.squares)
    if n < NUM_NEAREST:
        return refused(n, m, f"needs {NUM_NEAREST} training images: {n:,}"), None
    estimate = _share_of_synthetic(distance_ratios(found.synthetic) < 1, found, n)
    if found.heldout is None or found.heldout_groups is None:
        return estimate, None
    return estimate, _share(distance_ratios(found.heldout) < 1, found.heldout_groups, n, len(found.heldout.squares))


def authenticity(found: PrivacyDistances) -> tuple[Estimate, Estimate | None]:
    """Returns the share of authentic synthetic rows, AuthPct of Alaa et al. (2022), and that of the held-out rows.

    A row is authentic if it is farther from its nearest training row r than r is from the nearest other training row.
    With several images of a patient in the training set, r has a near neighbour anyway, and more rows are authentic:
    only the difference to the held-out rows counts.

    Args:
        found: What `privacy_distances` returned.

    Returns:
        The share of the synthetic rows; that of the held-out rows, None without any.
    """
    n, m = len(found.train_groups), len(found.synthetic.squares)
    if n < 2:
        return refused(n, m, f"needs 2 training images: {n}"), None
    authentic = [
        None if of is None else found.train_to_train[of.indices] < of.squares for of in (found.synthetic, found.heldout)
    ]
    assert authentic[0] is not None
    estimate = _share_of_synthetic(authentic[0], found, n)
    if authentic[1] is None:
        return estimate, None
    assert found.heldout_groups is not None
    return estimate, _share(authentic[1], found.heldout_groups, n, len(authentic[1]))


def _share_of_synthetic(hits: np.ndarray, found: PrivacyDistances, n_real: int) -> Estimate:
    """Returns a share of the synthetic rows, which are independent draws given the training rows."""
    estimate = _share(hits, np.arange(len(hits)), n_real, len(hits))
    return estimate._replace(notes=(*estimate.notes, GIVEN))


def _share(hits: np.ndarray, groups: np.ndarray, n_real: int, rows: int) -> Estimate:
    variance = mean_variance(hits.astype(np.float64), groups)
    units = count_groups(rows, groups)
    return proportion_estimate(float(hits.mean()), math.sqrt(variance), units, n_real, rows, size_notes(n_real, rows))
