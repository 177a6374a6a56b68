"""The bootstrap over patients, for metrics that are functions of sums over rows."""

from __future__ import annotations

import numpy as np

RESAMPLES = 1000
AT_ONCE = 100  # resamples drawn at once; each has a number for each group


def sums_and_resamples(
    statistics: np.ndarray, groups: np.ndarray | None = None, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Returns sums over rows, and the same sums in bootstrap resamples of groups.

    A resample draws as many groups as there are, with replacement, each with all its rows (Davison and Hinkley 1997,
    section 3.8). The draws depend on the number of groups and the seed alone: columns of one array, or of several with
    the same groups, are resampled alike, so that differences of metrics are paired.

    Args:
        statistics: Statistics of rows, of shape (n, k).
        groups: The group of each row, such as its patient, of shape (n,). Default: each row is its own group.
        resamples: How many resamples.
        seed: Seeds the draws.

    Returns:
        The sums, of shape (k,), and those of the resamples, of shape (resamples, k).

    Example:
        >>> total, drawn = sums_and_resamples(np.array([[1.0], [2.0], [4.0]]), resamples=4)
        >>> total, drawn.shape
        (array([7.]), (4, 1))
    """
    of_groups = np.asarray(statistics, np.float64)
    if groups is not None:
        numbers = np.unique(groups, return_inverse=True)[1].ravel()
        of_groups = np.zeros((numbers.max(initial=-1) + 1, of_groups.shape[1]))
        np.add.at(of_groups, numbers, np.asarray(statistics, np.float64))
    count = len(of_groups)
    rng = np.random.default_rng(seed)
    drawn = [
        rng.multinomial(count, np.full(count, 1 / count), min(AT_ONCE, resamples - done)) @ of_groups
        for done in range(0, resamples, AT_ONCE)
    ]
    return of_groups.sum(0), np.concatenate(drawn)


def percentile_interval(resampled: np.ndarray) -> tuple[float, float, float] | None:
    """Returns standard deviation, 2.5 % and 97.5 % quantile of the values of resamples; None if one is not finite."""
    if not np.isfinite(resampled).all():
        return None
    low, high = np.quantile(resampled, (0.025, 0.975))
    return float(resampled.std(ddof=1)), float(low), float(high)
