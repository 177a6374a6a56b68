"""FD: the Frechet distance between two sets of features, with its standard error and each image's part in it."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from pipeline.evaluate.metrics.estimate import Estimate, mean_variance, normal_estimate, refused
from pipeline.evaluate.metrics.features import check_features, chosen_rows, row_blocks
from pipeline.evaluate.metrics.moments import Moments, moments_of

MIN_ROWS = 50  # a side; below it FD is refused
DELTA_FROM = 3  # times d: from here on the delta method holds, below it the jackknife is used
ENOUGH = 10  # times d: below it the bias of FD is worth a warning
JACKKNIFE_BLOCKS = 50
NULL = 1e-10  # an eigenvalue below this share of the largest counts as 0 when a matrix is inverted


class FrechetResult(NamedTuple):
    """FD, and how much each image adds to it.

    Attributes:
        estimate: FD.
        real: The influence of each real row on FD, of shape (n,); None where the jackknife was used.
        synthetic: The same of each synthetic row. Large and positive: FD would shrink most without this image.
    """

    estimate: Estimate
    real: np.ndarray | None
    synthetic: np.ndarray | None


def frechet_distance(real: Moments, synthetic: Moments) -> float:
    """Returns the Frechet distance of two Gaussians (Dowson and Landau 1982; FID: Heusel et al. 2017).

    FD = |m1 - m2|² + tr S1 + tr S2 - 2 tr (S1 S2)^½. The last trace is the sum of the square roots of the eigenvalues
    of S1^½ S2 S1^½, which is symmetric: two symmetric eigenvalue problems, no `sqrtm`, no complex numbers, nothing
    added to the diagonal.

    Args:
        real: Moments of the real features, of at least two rows.
        synthetic: Moments of the synthetic features, of at least two rows.

    Returns:
        FD, in squared units of the features.

    Example:
        >>> unit, wide = (Moments(2, np.zeros(3), scale * np.eye(3)) for scale in (1.0, 4.0))
        >>> round(frechet_distance(unit, wide), 6)
        3.0
    """
    root = _root(real.covariance)
    return _distance(real, synthetic, _root_sum(root.T @ synthetic.covariance @ root))


def fd(
    real: np.ndarray,
    synthetic: np.ndarray,
    real_groups: np.ndarray | None = None,
    synthetic_groups: np.ndarray | None = None,
    seed: int = 0,
    rows: tuple[np.ndarray, np.ndarray] | None = None,
) -> FrechetResult:
    """Returns FD between two sets of features, with standard error.

    With at least 3 d rows on both sides, the standard error comes from the delta method: FD's influence function of a
    synthetic row x is 2 (x - m2)'(m2 - m1) + (x - m2)'(I - T)(x - m2) - tr (I - T) S2, where
    T = S1^½ (S1^½ S2 S1^½)^-½ S1^½ maps the synthetic Gaussian to the real one; the real side by symmetry. With fewer
    rows it comes from a jackknife over 50 blocks of groups for each side.

    With fewer than d rows, the covariance has no more than n - 1 nonzero eigenvalues, and the trace is a sum of
    singular values of matrices with n rows; if both sides are so small, no d x d matrix is made.

    FD has a bias that falls as 1/n and depends on the features: compare only values of one n, and with the floor
    (`floor.real_floor`). It sees means and covariances only. Below 50 rows a side it is refused.

    Args:
        real: Real features, of shape (n, d).
        synthetic: Synthetic features, of shape (m, d).
        real_groups: The unit of each real row, such as its patient, of shape (n,); each row by default.
        synthetic_groups: The same of the synthetic rows.
        seed: Seeds the blocks of the jackknife.
        rows: Indices of the real and of the synthetic rows to use, such as those of a label, without copies of large
            sets; all by default.

    Returns:
        FD and the influence of each row.

    Raises:
        StepError: If the features have different widths or are not finite.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> result = fd(rng.normal(size=(2000, 4)), rng.normal(1.0, size=(2000, 4)))
        >>> result.estimate.ci_low < 4.0 < result.estimate.ci_high, result.synthetic.shape
        (True, (2000,))
    """
    real, synthetic = check_features(real, synthetic, rows=rows)
    of_real, of_synthetic = rows or (None, None)
    real_rows, real_groups = chosen_rows(real, real_groups, of_real)
    synthetic_rows, synthetic_groups = chosen_rows(synthetic, synthetic_groups, of_synthetic)
    groups = real_groups, synthetic_groups
    n, m, d = len(real_rows), len(synthetic_rows), real.shape[1]
    if min(n, m) < MIN_ROWS:
        return FrechetResult(refused(n, m, f"FD needs at least {MIN_ROWS} rows a side; use KID"), None, None)
    notes = _warnings(min(n, m), d)
    if min(n, m) >= DELTA_FROM * d:
        value, influences = _delta(real, synthetic, real_rows, synthetic_rows)
        se = math.sqrt(sum(mean_variance(part, group) for part, group in zip(influences, groups)))
        notes += ("standard error: delta method",)
        return FrechetResult(normal_estimate(value, se, n, m, notes, (0, math.inf)), *influences)
    if rows is not None:
        real, synthetic = real[real_rows], synthetic[synthetic_rows]
    value = fd_value(real, synthetic)
    rng = np.random.default_rng(seed)
    sides = ((real, synthetic, groups[0]), (synthetic, real, groups[1]))
    se = math.sqrt(sum(_jackknife_variance(one, other, group, rng) for one, other, group in sides))
    notes += (f"standard error: jackknife over {JACKKNIFE_BLOCKS} blocks a side",)
    return FrechetResult(normal_estimate(value, se, n, m, notes, (0, math.inf)), None, None)


def fd_influences(real: np.ndarray, synthetic: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns how much each image adds to FD: the influence functions of `fd`, whatever the number of rows.

    With fewer than 3 d rows they are too rough for a standard error, but still tell which images matter.

    Args:
        real: Real features, of shape (n, d), with at least two rows.
        synthetic: Synthetic features, of shape (m, d), with at least two rows.

    Returns:
        The influence of each real and of each synthetic row, with mean 0.
    """
    real, synthetic = check_features(real, synthetic)
    if len(real) + len(synthetic) < real.shape[1]:
        # All rows lie in a space of fewer dimensions than there are features; there the matrices are small.
        centre = real.mean(axis=0, dtype=np.float64)
        wide = np.concatenate([real - centre, synthetic - centre])
        narrow = wide @ np.linalg.qr(wide.T)[0]
        real, synthetic = narrow[: len(real)], narrow[len(real) :]
    return _delta(real, synthetic, np.arange(len(real)), np.arange(len(synthetic)))[1]


def fd_value(real: np.ndarray, synthetic: np.ndarray, rows: tuple[np.ndarray, np.ndarray] | None = None) -> float:
    """Returns FD between two sets of features, of any size from two rows on, without standard error.

    Args:
        real: Real features, of shape (n, d).
        synthetic: Synthetic features, of shape (m, d).
        rows: Indices of the real and of the synthetic rows to use, such as those of a label, without copies of large
            sets; all by default.
    """
    of_real, of_synthetic = rows or (None, None)
    sizes = [len(all_rows if part is None else part) for all_rows, part in ((real, of_real), (synthetic, of_synthetic))]
    if min(sizes) >= real.shape[1]:
        return frechet_distance(moments_of(real, of_real), moments_of(synthetic, of_synthetic))
    if rows is not None:
        real, synthetic = real[rows[0]], synthetic[rows[1]]
    small, large = sorted((real, synthetic), key=len)
    few = _centred(small)
    roots = np.linalg.svd(few @ _factor(large), compute_uv=False).sum() / math.sqrt(len(small) - 1)
    gap = float(np.square(real.mean(axis=0, dtype=np.float64) - synthetic.mean(axis=0, dtype=np.float64)).sum())
    traces = _total_variance(real) + _total_variance(synthetic)
    return max(0.0, gap + traces - 2 * float(roots))


def _warnings(rows: int, d: int) -> tuple[str, ...]:
    if rows < d:
        return (f"fewer rows than features ({d}): the covariance is singular, FD is mostly bias; use KID",)
    if rows < ENOUGH * d:
        return (f"fewer than {ENOUGH} rows for each of the {d} features: the bias of FD matters; compare at equal n",)
    return ()


def _distance(real: Moments, synthetic: Moments, roots: float) -> float:
    gap = float(np.square(real.mean - synthetic.mean).sum())
    traces = float(np.trace(real.covariance) + np.trace(synthetic.covariance))
    return max(0.0, gap + traces - 2 * roots)


def _root(matrix: np.ndarray) -> np.ndarray:
    """Returns R with R R' = matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return vectors * np.sqrt(np.clip(values, 0, None))


def _root_sum(matrix: np.ndarray) -> float:
    return float(np.sqrt(np.clip(np.linalg.eigvalsh(matrix), 0, None)).sum())


def _centred(features: np.ndarray) -> np.ndarray:
    return features - features.mean(axis=0, dtype=np.float64)


def _total_variance(features: np.ndarray) -> float:
    mean = features.mean(axis=0, dtype=np.float64)
    return float(sum(np.square(block - mean).sum() for _, block in row_blocks(features))) / (len(features) - 1)


def _factor(features: np.ndarray) -> np.ndarray:
    """Returns F with F F' = covariance, of shape (d, min(n, d))."""
    if len(features) < features.shape[1]:
        return _centred(features).T / math.sqrt(len(features) - 1)
    return _root(moments_of(features).covariance)


def _delta(
    real: np.ndarray, synthetic: np.ndarray, real_rows: np.ndarray, synthetic_rows: np.ndarray
) -> tuple[float, tuple[np.ndarray, np.ndarray]]:
    one, two = moments_of(real, real_rows), moments_of(synthetic, synthetic_rows)
    values, vectors = np.linalg.eigh(one.covariance)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    inverse = (vectors * _inverse_root(values)) @ vectors.T
    inner, inner_vectors = np.linalg.eigh(root @ two.covariance @ root)
    inner_root = (inner_vectors * np.sqrt(np.clip(inner, 0, None))) @ inner_vectors.T
    inner_inverse = (inner_vectors * _inverse_root(inner)) @ inner_vectors.T
    value = _distance(one, two, float(np.sqrt(np.clip(inner, 0, None)).sum()))
    identity = np.eye(len(values))
    of_real = _influence(real, real_rows, one.mean, two.mean, identity - inverse @ inner_root @ inverse)
    of_synthetic = _influence(synthetic, synthetic_rows, two.mean, one.mean, identity - root @ inner_inverse @ root)
    return value, (of_real, of_synthetic)


def _inverse_root(values: np.ndarray) -> np.ndarray:
    kept = values > NULL * values.max()
    return np.where(kept, 1 / np.sqrt(np.where(kept, values, 1)), 0)


def _influence(
    features: np.ndarray, rows: np.ndarray, mean: np.ndarray, other_mean: np.ndarray, form: np.ndarray
) -> np.ndarray:
    found = np.empty(len(rows))
    for start, block in row_blocks(features, rows):
        centred = block - mean
        linear = 2 * centred @ (mean - other_mean)
        found[start : start + len(block)] = linear + np.einsum("ij,ij->i", centred @ form, centred)
    return found - found.mean()


def _jackknife_variance(
    features: np.ndarray, other: np.ndarray, groups: np.ndarray | None, rng: np.random.Generator
) -> float:
    """Returns the variance of FD over draws of one side.

    tr (S S_other)^½ is the sum of the square roots of the eigenvalues of F' S F with F F' = S_other, the covariance
    of the rows times F. So what a block adds is subtracted from sums, and each block costs one `eigvalsh`.
    """
    units = np.arange(len(features)) if groups is None else groups
    count = min(JACKKNIFE_BLOCKS, int(units.max()) + 1)
    block_of = (rng.permutation(int(units.max()) + 1) % count)[units]
    other_mean = other.mean(axis=0, dtype=np.float64)
    mean = features.mean(axis=0, dtype=np.float64)
    factor = _factor(other)
    parts = [np.flatnonzero(block_of == number) for number in range(count)]
    total = _total_variance(features) * (len(features) - 1)
    if len(features) < len(mean):
        projected = (features - mean) @ factor
        m2_of_all = projected.T @ projected
    else:
        m2_of_all = factor.T @ moments_of(features).m2 @ factor
    values = []
    for rows in parts:
        kept = len(features) - len(rows)
        left_out = features[rows] - mean
        shift = -left_out.sum(axis=0) / kept
        projected = left_out @ factor
        m2 = m2_of_all - projected.T @ projected - kept * np.outer(shift @ factor, shift @ factor)
        spread = total - np.square(left_out).sum() - kept * shift @ shift
        gap = np.square(mean + shift - other_mean).sum()
        values.append(gap + spread / (kept - 1) - 2 * _root_sum(m2 / (kept - 1)))
    return float((count - 1) / count * np.square(np.array(values) - np.mean(values)).sum())
