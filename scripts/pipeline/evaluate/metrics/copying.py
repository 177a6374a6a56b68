"""C_T, the test of data-copying of Meehan et al. (2020), in cells that k-means finds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pipeline.evaluate.metrics.auroc import auroc_placements
from pipeline.evaluate.metrics.estimate import Estimate, mean_variance, normal_estimate, refused, size_notes
from pipeline.evaluate.metrics.features import check_features, row_blocks
from pipeline.evaluate.metrics.moments import moments_of

CELLS = 10
FEWEST = 20  # synthetic and held-out rows of a cell that counts
ROWS_PER_CELL = 100  # held-out rows for each cell, on average at least
COMPONENTS = 64
STARTS, STEPS = 5, 100  # of k-means; steps at most


def copying_test(
    heldout: np.ndarray,
    synthetic: np.ndarray,
    heldout_cells: np.ndarray,
    synthetic_cells: np.ndarray,
    heldout_groups: np.ndarray | None = None,
) -> Estimate:
    """Returns C_T: whether synthetic rows are nearer to training rows than held-out ones are, in the same places.

    In each cell, the Mann-Whitney test compares the distances of both to the nearest training row, as a z-score with
    the variance for ties; C_T is their mean, weighted by the share of held-out rows in the cell. Far below 0: copying;
    far above 0: the generator misses what is typical. As every z-score it grows with the numbers of rows. Cells with
    fewer than 20 rows of a side are left out. The authors look for the nearest training row in the cell alone.

    Args:
        heldout: Distance of each held-out row to the nearest training row, of shape (h,).
        synthetic: The same of the synthetic rows, of shape (m,).
        heldout_cells: The cell of each held-out row.
        synthetic_cells: The cell of each synthetic row.
        heldout_groups: The group of each held-out row, such as its patient.

    Returns:
        C_T, with the standard error of DeLong et al. (1988), by groups: near 1 / √cells where nothing was copied. A
        note has the probability that a synthetic row is farther than a held-out one, which does not grow with the rows.
    """
    sizes = len(heldout), len(synthetic)
    cells = np.unique(heldout_cells)
    counts = [(int((heldout_cells == cell).sum()), int((synthetic_cells == cell).sum())) for cell in cells]
    kept = [cell for cell, pair in zip(cells, counts) if min(pair) >= FEWEST]
    total = sum(pair[0] for pair in counts if min(pair) >= FEWEST)
    if not kept:
        return refused(sizes[0], sizes[1], f"needs a cell with {FEWEST} held-out and {FEWEST} synthetic images")
    score, farther = 0.0, 0.0
    influences = np.zeros(sizes[0]), np.zeros(sizes[1])  # of each row on the score
    for cell in kept:
        rows = np.flatnonzero(heldout_cells == cell), np.flatnonzero(synthetic_cells == cell)
        weight = len(rows[0]) / total
        distances = np.concatenate([heldout[rows[0]], synthetic[rows[1]]])
        positive = np.arange(len(distances)) >= len(rows[0])
        shares = auroc_placements(distances, positive)
        value = float(shares[positive].mean())
        deviation = _deviation(distances, *map(len, rows))
        farther += weight * value
        if deviation:
            score += weight * (value - 0.5) / deviation
            for side, part in enumerate((~positive, positive)):
                influences[side][rows[side]] = weight / deviation * (shares[part] - value) / len(rows[side])
    variance = mean_variance(influences[0] * sizes[0], heldout_groups) + mean_variance(influences[1] * sizes[1])
    notes = (
        *size_notes(*sizes),
        f"in {len(kept)} of {len(cells)} cells",
        f"a synthetic image is farther from training than a held-out one: {farther:.3f} (0.5: alike)",
        "standard error: DeLong, by patients",
    )
    return normal_estimate(score, math.sqrt(variance), *sizes, notes)


def _deviation(values: np.ndarray, n: int, m: int) -> float:
    """Returns the standard deviation of U / (n m) under the null hypothesis, with the correction for ties."""
    total = n + m
    ties = np.unique(values, return_counts=True)[1].astype(np.float64)
    return math.sqrt(max(total + 1 - float((ties**3 - ties).sum()) / (total * (total - 1)), 0) / (12 * n * m))


def copying_cells(train: np.ndarray, others: Sequence[np.ndarray], heldout: int, seed: int = 0) -> list[np.ndarray]:
    """Returns the cell of each row of some sets: that of the nearest centre which k-means finds in the training rows.

    Both work on the first 64 principal components of the training rows, or on the features if they have no more.

    Args:
        train: Training features, of shape (n, d).
        others: The sets.
        heldout: Number of held-out rows; there is a cell for each 100, at most 10.
        seed: Seeds the first centres.
    """
    train, *others = check_features(train, *others)
    cells = max(1, min(CELLS, heldout // ROWS_PER_CELL, len(train) // ROWS_PER_CELL))
    if cells == 1:
        return [np.zeros(len(part), np.intp) for part in others]
    centre, axes = _principal_axes(train)
    centres = k_means(_projected(train, centre, axes), cells, seed)
    return [_nearest_centre(_projected(part, centre, axes), centres) for part in others]


def _principal_axes(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and main directions of rows, the latter of shape (d, at most 64)."""
    n, d = features.shape
    if n <= d:  # no matrix of all features by all features
        centre = features.mean(axis=0, dtype=np.float64)
        return centre, np.linalg.svd(features - centre, full_matrices=False)[2][:COMPONENTS].T
    moments = moments_of(features)
    return moments.mean, np.linalg.eigh(moments.m2)[1][:, ::-1][:, :COMPONENTS]


def _projected(features: np.ndarray, centre: np.ndarray, axes: np.ndarray) -> np.ndarray:
    return np.concatenate([(block - centre) @ axes for _, block in row_blocks(features)])


def k_means(features: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Returns the centres that Lloyd's algorithm finds from the best of a few starts of k-means++.

    Args:
        features: Of shape (n, d), in float64.
        count: Number of centres, at most n.
        seed: Seeds the first centres.

    Example:
        >>> sorted(k_means(np.array([[0.0], [1.0], [10.0], [12.0]]), 2).ravel().tolist())
        [0.5, 11.0]
    """
    rng = np.random.default_rng(seed)
    centres = min((_first_centres(features, count, rng) for _ in range(STARTS)), key=lambda start: start[1])[0]
    for _ in range(STEPS):
        cells = _nearest_centre(features, centres)
        sizes = np.bincount(cells, minlength=count)
        sums = np.stack([np.bincount(cells, column, minlength=count) for column in features.T], axis=1)
        moved = np.where(sizes[:, None] > 0, sums / np.maximum(sizes, 1)[:, None], centres)
        if np.array_equal(moved, centres):
            break
        centres = moved
    return centres


def _first_centres(features: np.ndarray, count: int, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Returns rows that k-means++ draws, and the sum of the squared distances to the nearest of them."""
    centres = features[[rng.integers(len(features))]]
    squares = np.square(features - centres[0]).sum(axis=1)
    while len(centres) < count:
        total = squares.sum()
        chosen = rng.choice(len(features), p=squares / total if total else None)
        centres = np.concatenate([centres, features[[chosen]]])
        squares = np.minimum(squares, np.square(features - features[chosen]).sum(axis=1))
    return centres, float(squares.sum())


def _nearest_centre(features: np.ndarray, centres: np.ndarray) -> np.ndarray:
    return (np.square(centres).sum(axis=1) - 2 * features @ centres.T).argmin(axis=1)
