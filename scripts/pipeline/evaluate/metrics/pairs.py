"""All pairs of rows of two sets, in one pass: tiles of inner products that are made once and seen by every metric.

KID, CMMD and the metrics of nearest neighbours need the inner product of each real with each real, each synthetic with
each synthetic and each real with each synthetic row. The time grows as (n + m)², so the products are made once, by one
GEMM a tile, and the labels are parts of the same tiles. The memory does not grow with the number of pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pipeline.errors import StepError
from pipeline.evaluate.metrics.features import BLOCK_BYTES, check_features, row_blocks

TILE_ROWS, TILE_COLUMNS = 1024, 2048  # 8 MiB in float32
ALL = ""  # the name of the subset of all rows


class Subset(NamedTuple):
    """The rows of one label.

    Attributes:
        real: Indices of real rows, ascending.
        synthetic: Indices of synthetic rows, ascending.
    """

    real: np.ndarray
    synthetic: np.ndarray


class Side:
    """One set of features as the pass over pairs sees it: shifted by the mean of the real set.

    Distances do not change with the shift, and inner products in float32 lose less: features of a network lie far from
    the origin, close to each other. With `rows`, the set is these rows of the features, which are not copied.
    """

    def __init__(self, features: np.ndarray, centre: np.ndarray, rows: np.ndarray | None = None) -> None:
        self.features, self.rows, self.centre = features, rows, centre.astype(features.dtype)
        count = len(self)
        self.squares = np.empty(count)  # |x - c|²
        self.shifts = np.empty(count)  # (x - c)'c
        self.lengths = np.empty(count)  # |x|
        for start, block in row_blocks(features, rows):
            part = slice(start, start + len(block))
            wide, c = block.astype(np.float64), self.centre.astype(np.float64)
            self.lengths[part] = np.sqrt(np.einsum("ij,ij->i", wide, wide))
            wide -= c
            self.squares[part] = np.einsum("ij,ij->i", wide, wide)
            self.shifts[part] = wide @ c

    def __len__(self) -> int:
        return len(self.features if self.rows is None else self.rows)

    def take(self, rows: slice | np.ndarray) -> np.ndarray:
        """Returns rows of the set, as they were given."""
        return self.features[rows if self.rows is None else self.rows[rows]]

    def centred(self, rows: slice, out: np.ndarray) -> np.ndarray:
        """Returns the shifted rows in a buffer."""
        count = len(range(*rows.indices(len(self))))
        return np.subtract(self.take(rows), self.centre, out=out[:count])


class Tile(NamedTuple):
    """Inner products of shifted rows.

    Attributes:
        one: The side of the tile's rows.
        two: The side of the tile's columns.
        rows: Rows of `one`.
        columns: Rows of `two`.
        products: (x - c)'(y - c), of shape (rows, columns); a buffer that the next tile overwrites.
    """

    one: Side
    two: Side
    rows: slice
    columns: slice
    products: np.ndarray

    @property
    def within(self) -> bool:
        """Whether rows and columns are of one set; then only tiles on and above the diagonal come."""
        return self.one is self.two

    @property
    def diagonal(self) -> bool:
        """Whether the tile holds pairs of a row with itself."""
        return self.within and self.rows.start == self.columns.start


def two_sides(
    real: np.ndarray, synthetic: np.ndarray, rows: tuple[np.ndarray, np.ndarray] | None = None
) -> tuple[Side, Side]:
    """Checks two sets of features and returns them as sides with one centre, the mean of the real rows.

    Args:
        real: Real features, of shape (n, d).
        synthetic: Synthetic features, of shape (m, d).
        rows: Indices of the real and of the synthetic rows to use; all by default.
    """
    real, synthetic = check_features(real, synthetic, rows=rows)
    of_real, of_synthetic = rows or (None, None)
    sizes = [len(side if part is None else part) for side, part in ((real, of_real), (synthetic, of_synthetic))]
    if not all(sizes):
        raise StepError(f"no features to compare: {sizes[0]} real and {sizes[1]} synthetic rows")
    total = sum(block.sum(axis=0, dtype=np.float64) for _, block in row_blocks(real, of_real))
    return Side(real, total / sizes[0], of_real), Side(synthetic, total / sizes[0], of_synthetic)


def all_subsets(
    real: Side, synthetic: Side, subsets: Mapping[str, tuple[np.ndarray, np.ndarray]] | None
) -> dict[str, Subset]:
    """Returns the subset of all rows under the name '', and those asked for, as ascending indices.

    Args:
        real: The real side.
        synthetic: The synthetic side.
        subsets: For each name, the real and the synthetic rows as indices or as a mask.
    """
    if ALL in (subsets or {}):
        raise ValueError("the name '' is that of the subset of all rows")
    found = {ALL: Subset(np.arange(len(real)), np.arange(len(synthetic)))}
    for name, pair in (subsets or {}).items():
        parts = []
        for rows, side in zip(pair, (real, synthetic)):
            rows = np.asarray(rows)
            if rows.dtype == bool and rows.shape != (len(side),):
                raise StepError(f"the mask of {name!r} has the shape {rows.shape} instead of ({len(side)},)")
            parts.append(np.flatnonzero(rows) if rows.dtype == bool else np.unique(rows.astype(np.intp)))
        found[name] = Subset(*parts)
    return found


def tiles(one: Side, two: Side) -> Iterator[Tile]:
    """Yields the inner products of two sides tile by tile; of one side with itself, each pair once.

    Args:
        one: The side of the rows.
        two: The side of the columns; the same object for the pairs within a set.
    """
    kind, d = one.features.dtype, one.features.shape[1]
    left, right = np.empty((TILE_ROWS, d), kind), np.empty((TILE_COLUMNS, d), kind)
    buffer = np.empty(TILE_ROWS * TILE_COLUMNS, kind)
    for start in range(0, len(one), TILE_ROWS):
        rows = slice(start, min(start + TILE_ROWS, len(one)))
        x = one.centred(rows, left)
        # Within a set: the square on the diagonal first, and from there to the right.
        blocks = [rows, *_cuts(rows.stop, len(two))] if one is two else _cuts(0, len(two))
        for columns in blocks:
            y = two.centred(columns, right)
            products = buffer[: len(x) * len(y)].reshape(len(x), len(y))
            yield Tile(one, two, rows, columns, np.matmul(x, y.T, out=products))


def _cuts(start: int, stop: int) -> list[slice]:
    return [slice(begin, min(begin + TILE_COLUMNS, stop)) for begin in range(start, stop, TILE_COLUMNS)]


class Visitor:
    """A metric that sees the tiles of the three parts in their order: real, synthetic, real x synthetic."""

    def within(self, tile: Tile, is_real: bool) -> None:
        """Sees pairs within one set."""

    def between(self, tile: Tile) -> None:
        """Sees real x synthetic pairs; everything within the sets has been seen."""


def sweep(
    real: Side, synthetic: Side, visitors: Sequence[Visitor], progress: Callable[[int], object] | None = None
) -> None:
    """Makes each tile once and shows it to all visitors.

    Args:
        real: The real side.
        synthetic: The synthetic side.
        visitors: What sees the tiles; none may change the products.
        progress: Called after each tile with its number of pairs; `count_pairs` of them in all.
    """
    for side in (real, synthetic):
        for tile in tiles(side, side):
            for visitor in visitors:
                visitor.within(tile, side is real)
            if progress:
                progress(tile.products.size)
    for tile in tiles(real, synthetic):
        for visitor in visitors:
            visitor.between(tile)
        if progress:
            progress(tile.products.size)


def count_pairs(n: int, m: int) -> int:
    """Returns how many products `sweep` makes of n real and m synthetic rows: pairs on the diagonal squares twice."""
    found = n * m
    for size in (n, m):
        heights = [min(TILE_ROWS, size - start) for start in range(0, size, TILE_ROWS)]
        found += sum(height * (size - start) for height, start in zip(heights, range(0, size, TILE_ROWS)))
    return found


def exact_squares(one: Side, two: Side, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Returns |x_i - y_j|² of pairs, in float64 from the features as they were given.

    Args:
        one: The side of `i`.
        two: The side of `j`.
        i: Rows of `one`, of shape (p,).
        j: Rows of `two`, of shape (p,).
    """
    found = np.empty(len(i))
    step = max(1, BLOCK_BYTES // (8 * one.features.shape[1]))
    for start in range(0, len(i), step):
        part = slice(start, start + step)
        difference = np.subtract(one.take(i[part]), two.take(j[part]), dtype=np.float64)
        found[part] = np.einsum("ij,ij->i", difference, difference)
    return found
