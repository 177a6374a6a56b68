"""What each metric returns: a value with its standard error, its interval, and the sample sizes."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

Z95 = 1.959963984540054  # the normal distribution's 97.5 % quantile
FEW = 50
UNKNOWN = "fewer than two rows or groups on a side: no standard error"


class Estimate(NamedTuple):
    """A metric's value and how far it can be trusted.

    Attributes:
        value: The value; None if the metric is refused, for a reason in `notes`.
        se: The standard error of the value; None if unknown.
        ci_low: Lower end of the 95 % interval; None if unknown.
        ci_high: Upper end of the 95 % interval; None if unknown.
        n_real: Number of real rows.
        n_synthetic: Number of synthetic rows.
        notes: Warnings, and the method of the standard error.
    """

    value: float | None
    se: float | None
    ci_low: float | None
    ci_high: float | None
    n_real: int
    n_synthetic: int
    notes: tuple[str, ...] = ()


def refused(n_real: int, n_synthetic: int, *reasons: str) -> Estimate:
    """Returns the estimate of a metric that means nothing for these data."""
    return Estimate(None, None, None, None, n_real, n_synthetic, reasons)


def refused_unless_finite(estimate: Estimate) -> Estimate:
    """Returns the estimate, or a refusal if a number of it is infinite or NaN, as of features that are too large."""
    if all(math.isfinite(number) for number in estimate[:4] if number is not None):
        return estimate
    return refused(estimate.n_real, estimate.n_synthetic, "not a finite number: the features are too large")


def normal_estimate(
    value: float,
    se: float,
    n_real: int,
    n_synthetic: int,
    notes: tuple[str, ...] = (),
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Estimate:
    """Returns an estimate with the interval value ± 1.96 se, cut at the bounds of the metric."""
    if not math.isfinite(se):
        return Estimate(float(value), None, None, None, n_real, n_synthetic, (*notes, UNKNOWN))
    low, high = (min(max(value + sign * Z95 * se, bounds[0]), bounds[1]) for sign in (-1, 1))
    return Estimate(float(value), float(se), float(low), float(high), n_real, n_synthetic, notes)


def proportion_estimate(
    value: float, se: float, units: float, n_real: int, n_synthetic: int, notes: tuple[str, ...] = ()
) -> Estimate:
    """Returns the estimate of a proportion, with Wilson's interval.

    Args:
        value: The proportion.
        se: Its standard error. With groups it exceeds the binomial one; the interval then is that of the effective
            number of rows, p (1 - p) / se² with p = (value units + 1) / (units + 2).
        units: Number of independent units; the effective number is not greater.
        n_real: Number of real rows.
        n_synthetic: Number of synthetic rows.
        notes: Notes of the estimate.

    Returns:
        The estimate; the interval lies in 0 to 1, and has a width at 0 and at 1 too.

    Example:
        >>> zero = proportion_estimate(0.0, 0.0, 100, 100, 100)
        >>> zero.ci_low, round(zero.ci_high, 3)
        (0.0, 0.037)
    """
    if not math.isfinite(se):
        return Estimate(float(value), None, None, None, n_real, n_synthetic, (*notes, UNKNOWN))
    smooth = (value * units + 1) / (units + 2)
    n = min(units, smooth * (1 - smooth) / se**2) if se > 0 else units
    centre = (value + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * math.sqrt(value * (1 - value) / n + Z95**2 / (4 * n * n))
    low, high = max(0.0, min(value, centre - half)), min(1.0, max(value, centre + half))
    return Estimate(float(value), float(se), float(low), float(high), n_real, n_synthetic, notes)


def size_notes(*sizes: int) -> tuple[str, ...]:
    """Returns a warning if a set is so small that a standard error from its rows is a guess.

    Example:
        >>> size_notes(49, 500), size_notes(50)
        (('fewer than 50 rows: value and interval are rough',), ())
    """
    return (f"fewer than {FEW} rows: value and interval are rough",) if min(sizes) < FEW else ()


def mean_variance(influence: np.ndarray, groups: np.ndarray | None = None) -> float:
    """Returns the variance of a mean, from the influence of each row on it.

    It is Σ_g (Σ_{i in g} ψ_i)² / n² times G / (G - 1), with the influences ψ centred: the variance of the mean of n
    independent rows if each row is a group of its own, and the cluster-robust one (Liang and Zeger 1986) if not.

    Args:
        influence: The influence of each row, of shape (n,).
        groups: The group of each row, such as its patient, of shape (n,); each row is its own group by default.

    Returns:
        The variance; infinite if there are fewer than two groups.

    Example:
        >>> values = np.array([1.0, 2.0, 3.0, 6.0])
        >>> bool(np.isclose(mean_variance(values), values.var(ddof=1) / 4))
        True
        >>> mean_variance(np.repeat(values, 2), np.repeat([0, 1, 2, 3], 2)) == mean_variance(values)
        True
    """
    centred = np.asarray(influence, np.float64) - np.mean(influence, dtype=np.float64)
    if groups is not None:
        centred = np.bincount(np.unique(groups, return_inverse=True)[1].ravel(), weights=centred).astype(np.float64)
    count = len(centred)
    return float(np.square(centred).sum() * count / (count - 1) / len(influence) ** 2) if count > 1 else math.inf


def count_groups(rows: int, groups: np.ndarray | None) -> int:
    """Returns the number of independent units among rows."""
    return rows if groups is None else len(np.unique(groups))
