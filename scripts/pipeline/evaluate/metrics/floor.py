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
    groups = check_groups(groups, rows)
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(splits):
        order = random_order(rows, groups, rng)
        middle = rows // 2
        if groups is not None and rows:
            middle = int(np.flatnonzero(groups[order] == groups[order[middle]])[0])  # before the group in the middle
        found.append((order[:middle], order[middle:]))
    size = min([n, *(len(part) for pair in found for part in pair)])
    return [(np.sort(one[:size]), np.sort(two[:size])) for one, two in found]


def random_order(rows: int, groups: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """Returns rows in random order, those of a group one after the other.

    The first n of them are a sample of whole groups, but for the last. So each sample, of a frequent label, of a rare
    one or for a floor, has about as many rows of a group; metrics depend on that as they depend on n.

    Args:
        rows: Number of rows.
        groups: The unit of each row, such as its patient, of shape (rows,); each row is its own by default.
        rng: What draws.
    """
    order = rng.permutation(rows)
    if groups is None:
        return order
    rank = rng.permutation(int(groups.max(initial=-1)) + 1)[groups]
    return order[np.argsort(rank[order], kind="stable")]


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
