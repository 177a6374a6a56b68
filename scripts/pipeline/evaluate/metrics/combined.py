"""All metrics that need all pairs of rows, from one pass over them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pipeline.evaluate.metrics.kernel import KERNELS, Halves, KernelSums, KernelVisitor
from pipeline.evaluate.metrics.neighbours import Neighbours, NeighbourVisitor
from pipeline.evaluate.metrics.pairs import all_subsets, sweep, two_sides


class PairStatistics(NamedTuple):
    """What one pass over all pairs yields.

    Attributes:
        neighbours: For each subset, what precision, recall, density and coverage take; of all rows under ''.
        kernels: For "kid" and "cmmd" and for each subset, what these metrics take; of all rows under ''.
        floors: For "kid" and "cmmd" and for each name of `halves`, the metric between the two halves of each pair.
    """

    neighbours: dict[str, Neighbours]
    kernels: dict[str, dict[str, KernelSums]]
    floors: dict[str, dict[str, list[float]]]


def pair_statistics(
    real: np.ndarray,
    synthetic: np.ndarray,
    ks: Sequence[int] = (5,),
    kernels: Sequence[str] = KERNELS,
    subsets: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
    kernel_subsets: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
    halves: Mapping[str, Halves] | None = None,
    groups: np.ndarray | None = None,
    progress: Callable[[int], object] | None = None,
) -> PairStatistics:
    """Finds neighbours and sums kernels in one pass, which makes the products of each pair once.

    Args:
        real: Real features, of shape (n, d).
        synthetic: Synthetic features, of shape (m, d).
        ks: Numbers of neighbours.
        kernels: Of "kid" and "cmmd".
        subsets: For each name, such as a label, the real and the synthetic rows as indices or as masks.
        kernel_subsets: Those of the kernels, if they are others than those of the neighbours.
        halves: Pairs of disjoint parts of the real set by name, for the floors of the kernels' metrics.
        groups: The unit of each real row, such as its patient: the kernels leave out pairs within one.
        progress: See `pairs.sweep`.

    Returns:
        The same as `neighbours.neighbours` and `kernel.kernel_sums`, and the floors.

    Example:
        >>> from pipeline.evaluate.metrics.kernel import kid
        >>> from pipeline.evaluate.metrics.prdc import coverage
        >>> rng = np.random.default_rng(0)
        >>> real, synthetic = rng.normal(size=(300, 4)), rng.normal(size=(200, 4))
        >>> found = pair_statistics(real, synthetic, subsets={"Edema": (real[:, 0] > 0, synthetic[:, 0] > 0)})
        >>> bool(abs(kid(found.kernels["kid"][""]).value) < 0.1), coverage(found.neighbours["Edema"]).value > 0.9
        (True, True)
    """
    sides = two_sides(real, synthetic)
    rows = all_subsets(*sides, subsets)
    kernel_rows = rows if kernel_subsets is None else all_subsets(*sides, kernel_subsets)
    near, sums = NeighbourVisitor(*sides, ks, rows), KernelVisitor(*sides, kernels, kernel_rows, halves, groups)
    sweep(*sides, [near, *([sums] if kernels else [])], progress)
    return PairStatistics(near.results(), sums.results(), sums.floors())
