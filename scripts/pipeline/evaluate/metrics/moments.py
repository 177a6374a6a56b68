"""Mean and covariance of features, from blocks and shards, in float64."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from pipeline.errors import StepError
from pipeline.evaluate.metrics.features import row_blocks


class Moments(NamedTuple):
    """What the Frechet distance needs to know of a set of features.

    Attributes:
        n: Number of rows.
        mean: Mean row, of shape (d,), in float64.
        m2: Sum of (x - mean)(x - mean)' over the rows, of shape (d, d), in float64.
    """

    n: int
    mean: np.ndarray
    m2: np.ndarray

    @property
    def covariance(self) -> np.ndarray:
        """The unbiased covariance, m2 / (n - 1)."""
        return self.m2 / (self.n - 1)


def moments_of(features: np.ndarray, rows: np.ndarray | None = None) -> Moments:
    """Returns the moments of features, block by block, without a float64 copy of all.

    Args:
        features: An array of shape (n, d), in float32 or float64.
        rows: Indices of the rows to use, in this order; all by default.

    Example:
        >>> found = moments_of(np.array([[0.0, 1.0], [2.0, 5.0]]))
        >>> found.n, found.mean.tolist(), found.covariance.tolist()
        (2, [1.0, 3.0], [[2.0, 4.0], [4.0, 8.0]])
    """
    parts = []
    for _, block in row_blocks(features, rows):
        mean = block.mean(axis=0, dtype=np.float64)
        centred = block - mean
        parts.append(Moments(len(block), mean, centred.T @ centred))
        # Two blocks of one level merge at once, so that a tree needs log2(blocks) matrices at a time.
        while len(parts) > 1 and parts[-1].n >= parts[-2].n:
            right = parts.pop()
            parts.append(_add(parts.pop(), right))
    if not parts:
        raise StepError("moments need at least one row")
    while len(parts) > 1:
        right = parts.pop()
        parts.append(_add(parts.pop(), right))
    return parts[0]


def merge_moments(shards: Iterable[Moments]) -> Moments:
    """Merges the moments of shards (Chan, Golub and LeVeque 1983).

    mean = (n_a mean_a + n_b mean_b) / n and m2 = m2_a + m2_b + δδ' n_a n_b / n, with δ = mean_b - mean_a. Sums of
    floats depend on their order. So the shards are sorted by their content first, and merged in pairs: the result has
    the same bits in whatever order they come. Shards that are cut elsewhere give other last bits.

    Args:
        shards: Moments of disjoint sets of rows.

    Example:
        >>> data = np.random.default_rng(0).normal(size=(30, 3))
        >>> shards = [moments_of(data[:10]), moments_of(data[10:13]), moments_of(data[13:])]
        >>> merged, backwards = merge_moments(shards), merge_moments(shards[::-1])
        >>> bool(np.allclose(merged.covariance, np.cov(data.T))), bool((merged.m2 == backwards.m2).all())
        (True, True)
    """
    level = sorted((shard for shard in shards if shard.n), key=lambda m: (m.n, m.mean.tobytes(), m.m2.tobytes()))
    if not level:
        raise StepError("moments need at least one row")
    while len(level) > 1:
        pairs = [level[start : start + 2] for start in range(0, len(level), 2)]
        level = [_add(*pair) if len(pair) == 2 else pair[0] for pair in pairs]
    return level[0]


def _add(a: Moments, b: Moments) -> Moments:
    n = a.n + b.n
    delta = b.mean - a.mean
    return Moments(n, a.mean + delta * (b.n / n), a.m2 + b.m2 + np.outer(delta, delta) * (a.n * b.n / n))
