"""Precision, recall, density and coverage, from the neighbours that `neighbours` finds."""

from __future__ import annotations

import numpy as np

from pipeline.evaluate.metrics.estimate import (
    Estimate,
    count_groups,
    mean_variance,
    normal_estimate,
    proportion_estimate,
    refused,
    size_notes,
)
from pipeline.evaluate.metrics.features import check_groups
from pipeline.evaluate.metrics.neighbours import Neighbours


def precision(
    found: Neighbours, k: int = 5, real_groups: np.ndarray | None = None, synthetic_groups: np.ndarray | None = None
) -> Estimate:
    """Returns the share of synthetic rows that lie in a real ball (Kynkäänniemi et al. 2019).

    precision = mean_j [any_i |r_i - s_j| < radius_k(r_i)]. One real outlier with a large ball raises it; compare with
    density. It depends on the sizes of both sets: compare only values of equal sizes, and with the floor.

    Args:
        found: Neighbours of a subset.
        k: One of `found.ks`.
        real_groups: The unit of each real row, such as its patient, of shape (n,).
        synthetic_groups: The same of the synthetic rows.

    Returns:
        The share; for its standard error see `coverage`.
    """
    groups = real_groups, synthetic_groups
    return _share(found, k, found.in_real_balls, found.only_real, groups, counted_side=1)


def recall(
    found: Neighbours, k: int = 5, real_groups: np.ndarray | None = None, synthetic_groups: np.ndarray | None = None
) -> Estimate:
    """Returns the share of real rows that lie in a synthetic ball (Kynkäänniemi et al. 2019).

    recall = mean_i [any_j |r_i - s_j| < radius_k(s_j)]. Outliers of the synthetic set raise it; compare with coverage.

    Args:
        found: Neighbours of a subset.
        k: One of `found.ks`.
        real_groups: The unit of each real row, such as its patient, of shape (n,).
        synthetic_groups: The same of the synthetic rows.

    Returns:
        The share; for its standard error see `coverage`.
    """
    groups = real_groups, synthetic_groups
    return _share(found, k, found.in_synthetic_balls, found.only_synthetic, groups, counted_side=0)


def coverage(
    found: Neighbours, k: int = 5, real_groups: np.ndarray | None = None, synthetic_groups: np.ndarray | None = None
) -> Estimate:
    """Returns the share of real rows whose ball holds a synthetic row (Naeem et al. 2020).

    coverage = mean_i [min_j |r_i - s_j| < radius_k(r_i)]. Of two samples of one distribution and of one size it is
    about 1 - 2^-k, not 1.

    Args:
        found: Neighbours of a subset.
        k: One of `found.ks`.
        real_groups: The unit of each real row, such as its patient, of shape (n,).
        synthetic_groups: The same of the synthetic rows.

    Returns:
        The share, with the standard error of a jackknife over both sides with the radii fixed: the binomial variance of
        the rows that are counted, and that of the rows whose loss would change the count. In trials of 200 draws it was
        0.95 to 1.5 times the deviation over draws, most where the share is near 1; the binomial one alone 0.4 to 0.8.
    """
    groups = real_groups, synthetic_groups
    return _share(found, k, found.held_by_real, found.only_held, groups, counted_side=0)


def density(
    found: Neighbours, k: int = 5, real_groups: np.ndarray | None = None, synthetic_groups: np.ndarray | None = None
) -> Estimate:
    """Returns the mean number of real balls that a synthetic row lies in, over k (Naeem et al. 2020).

    density = 1 / (k m) Σ_j Σ_i [|r_i - s_j| < radius_k(r_i)]. It is about 1 for two samples of one distribution, and
    exceeds 1 where synthetic rows crowd in dense places, as a model without diversity makes them.

    Args:
        found: Neighbours of a subset.
        k: One of `found.ks`.
        real_groups: The unit of each real row, such as its patient, of shape (n,).
        synthetic_groups: The same of the synthetic rows.

    Returns:
        The density, with the standard error of a two-sample U-statistic whose radii are fixed.
    """
    n, m = len(found.real_radii), len(found.synthetic_radii)
    groups = check_groups(real_groups, n), check_groups(synthetic_groups, m)
    reason = _refusal(found, k)
    if reason:
        return refused(n, m, reason)
    column = found.ks.index(k)
    by_synthetic = found.in_real_balls[:, column] / k
    by_real = found.held_by_real[:, column] * (n / (k * m))
    se = np.sqrt(mean_variance(by_synthetic, groups[1]) + mean_variance(by_real, groups[0]))
    notes = (*size_notes(n, m), *_tie_notes(found, k), "standard error: U-statistic, radii fixed")
    return normal_estimate(float(by_synthetic.mean()), float(se), n, m, notes, (0, np.inf))


def _share(
    found: Neighbours,
    k: int,
    counts: np.ndarray,
    only: np.ndarray,
    groups: tuple[np.ndarray | None, np.ndarray | None],
    counted_side: int,
) -> Estimate:
    """Returns the share of rows with a count above 0, of the real (0) or the synthetic (1) side."""
    sizes = len(found.real_radii), len(found.synthetic_radii)
    checked = [check_groups(units, size) for units, size in zip(groups, sizes)]
    reason = _refusal(found, k)
    if reason:
        return refused(*sizes, reason)
    column, other_side = found.ks.index(k), 1 - counted_side
    hits = (counts[:, column] > 0).astype(np.float64)
    losses = only[:, column] * (sizes[other_side] / len(hits))
    variance = mean_variance(hits, checked[counted_side]) + mean_variance(losses, checked[other_side])
    units = count_groups(len(hits), checked[counted_side])
    notes = (*size_notes(*sizes), *_tie_notes(found, k), "standard error: jackknife over both sides, radii fixed")
    return proportion_estimate(float(hits.mean()), float(np.sqrt(variance)), units, *sizes, notes)


def _tie_notes(found: Neighbours, k: int) -> tuple[str, ...]:
    """Returns a warning if many rows have a radius in common, as with copies or features of few values.

    Two rows that are each other's k-th neighbour share one; more than that is rare where distances do not tie.
    """
    column = found.ks.index(k)
    for radii in (found.real_radii[:, column], found.synthetic_radii[:, column]):
        if len(np.unique(radii)) < len(radii) / 4:
            return ("many distances are equal: the interval is too narrow",)
    return ()


def _refusal(found: Neighbours, k: int) -> str:
    n, m = len(found.real_radii), len(found.synthetic_radii)
    if k not in found.ks:
        raise ValueError(f"neighbours were found for k in {found.ks}, not for {k}")
    return "" if min(n, m) > k + 1 else f"needs more than {k + 1} rows a side"
