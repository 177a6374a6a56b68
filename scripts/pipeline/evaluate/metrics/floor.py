"""The floor of a metric: what it is between two halves of the real set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from pipeline.evaluate.metrics.features import check_groups

SPLITS = 10


class Floor(NamedTuple):
    """A metric between disjoint random parts of the real set.

    Attributes:
        value: Mean over the splits; None if the metric was refused.
        sd: Standard deviation over the splits; None with fewer than two.
        n: Rows of each part; less than asked for where the real set has fewer than twice as many.
        splits: Number of splits.
    """

    value: float | None
    sd: float | None
    n: int
    splits: int


def random_halves(
    rows: int, n: int, splits: int = SPLITS, groups: np.ndarray | None = None, seed: int = 0
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns pairs of disjoint random parts of the real set; no group has rows in both parts of a pair.

    Args:
        rows: Number of real rows.
        n: Rows of each part: those of the comparison, since metrics depend on them. It is lowered to what two parts
            can have.
        splits: Number of pairs.
        groups: The unit of each real row, such as its patient, of shape (rows,).
        seed: Seeds the choice.

    Returns:
        Ascending indices of both parts of each pair, of equal numbers.

    Example:
        >>> [(one, two)] = random_halves(6, 2, splits=1, groups=np.array([0, 0, 0, 1, 1, 1]))
        >>> len(one), len(two), bool(one[0] // 3 != two[0] // 3)
        (2, 2, True)
    """
    groups = np.arange(rows) if groups is None else check_groups(groups, rows)
    assert groups is not None
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(splits):
        rank = rng.permutation(int(groups.max(initial=-1)) + 1)[groups]
        order = np.argsort(rank, kind="stable")
        middle = np.searchsorted(rank[order], rank[order[rows // 2]]) if rows else 0  # before the group in the middle
        size = min(n, middle, rows - middle)
        found.append((np.sort(rng.permutation(order[:middle])[:size]), np.sort(rng.permutation(order[middle:])[:size])))
    size = min((len(one) for one, _ in found), default=0)
    return [(one[:size], two[:size]) for one, two in found]


def real_floor(
    metric: Callable[[np.ndarray, np.ndarray], float | None], halves: list[tuple[np.ndarray, np.ndarray]]
) -> Floor:
    """Returns the mean of a metric over pairs of parts of the real set.

    Args:
        metric: Takes the row numbers of two parts and returns a value, or None if it is refused.
        halves: What `random_halves` returned; one list for all metrics makes their floors comparable.

    Example:
        >>> data = np.random.default_rng(0).normal(size=1000)
        >>> found = real_floor(lambda a, b: abs(data[a].mean() - data[b].mean()), random_halves(1000, 300))
        >>> found.n, found.splits, found.value < 0.2
        (300, 10, True)
    """
    n = len(halves[0][0]) if halves else 0
    return summarised([metric(one, two) for one, two in halves] if n else [], n, len(halves))


def summarised(values: Sequence[float | None], n: int, splits: int) -> Floor:
    """Returns the floor that values of a metric make.

    Args:
        values: The metric between the parts of each pair; None where it was refused.
        n: Rows of each part.
        splits: Number of pairs.
    """
    numbers = [value for value in values if value is not None]
    if not numbers or len(numbers) < len(values):
        return Floor(None, None, n, splits)
    sd = float(np.std(numbers, ddof=1)) if len(numbers) > 1 else None
    return Floor(float(np.mean(numbers)), sd, n, splits)


def affordable_splits(n: int, splits: int = SPLITS) -> int:
    """Returns how many splits a metric of all pairs should have, so that its floor costs less than its value.

    All of them up to 4,000 rows a part, and then as many as cost the same, at least one. At such sizes one split tells
    the floor well: its deviation falls as n^-1/2 at least.

    Example:
        >>> affordable_splits(3_000), affordable_splits(8_000), affordable_splits(40_000)
        (10, 2, 1)
    """
    return max(1, min(splits, round(splits * (4_000 / max(n, 1)) ** 2)))
