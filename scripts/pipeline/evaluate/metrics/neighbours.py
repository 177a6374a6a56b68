"""Nearest neighbours and the balls that reach to them, exact, from tiles of float32 products; see `prdc`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pipeline.evaluate.metrics.pairs import (
    ALL,
    Side,
    Subset,
    Tile,
    Visitor,
    all_subsets,
    exact_squares,
    sweep,
    two_sides,
)

WAITING = 1 << 16  # pairs of a subset that may wait for their distance, at least; 12 bytes each


class Nearest(NamedTuple):
    """The nearest neighbour of each row.

    Attributes:
        distances: Euclidean distances, of shape (n,); infinite without any neighbour.
        indices: Rows of the other set, of shape (n,); -1 without any neighbour. Among equally near ones, any.
    """

    distances: np.ndarray
    indices: np.ndarray


class Neighbours(NamedTuple):
    """Who lies in whose ball, for the rows of one subset.

    The ball of a row reaches to its k-th nearest neighbour in its own set, the row itself left out; a point lies in it
    if its distance is strictly smaller. A set of k or fewer rows has no balls; its radii are NaN.

    Attributes:
        ks: The numbers of neighbours, ascending; the last axis below.
        real_radii: Radius of each real row, of shape (n, k's).
        synthetic_radii: Radius of each synthetic row, of shape (m, k's).
        in_real_balls: For each synthetic row, the number of real balls it lies in, of shape (m, k's).
        held_by_real: For each real row, the number of synthetic rows in its ball, of shape (n, k's).
        in_synthetic_balls: For each real row, the number of synthetic balls it lies in, of shape (n, k's).
        only_real: For each real row, the number of synthetic rows that lie in its ball and in no other, (n, k's).
        only_held: For each synthetic row, the number of real balls that hold it and no other row, (m, k's).
        only_synthetic: For each synthetic row, the number of real rows in its ball and in no other, (m, k's).
        nearest: For the set of all rows: "real to real", "synthetic to synthetic", "real to synthetic" and
            "synthetic to real"; empty for other subsets.
    """

    ks: tuple[int, ...]
    real_radii: np.ndarray
    synthetic_radii: np.ndarray
    in_real_balls: np.ndarray
    held_by_real: np.ndarray
    in_synthetic_balls: np.ndarray
    only_real: np.ndarray
    only_held: np.ndarray
    only_synthetic: np.ndarray
    nearest: dict[str, Nearest]


def neighbours(
    real: np.ndarray,
    synthetic: np.ndarray,
    ks: Sequence[int] = (5,),
    subsets: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
    rows: tuple[np.ndarray, np.ndarray] | None = None,
) -> dict[str, Neighbours]:
    """Finds the neighbours of all rows, and of the rows of each subset among themselves, in one pass.

    Distances are bounded in the type of the features with the error of their sums. Where the bound leaves open who is
    nearer, the distance is computed from the features in float64. So duplicates and ties are right: a copy lies at
    distance 0, and two equal distances are equal.

    Args:
        real: Real features, of shape (n, d).
        synthetic: Synthetic features, of shape (m, d).
        ks: Numbers of neighbours; several cost no more products than one.
        subsets: For each name, the real and the synthetic rows as indices or as masks.
        rows: Indices of the real and of the synthetic rows to use, without copies of large sets; all by default. The
            subsets and the results count among them.

    Returns:
        The neighbours for each name, and those of all rows under ''.

    Example:
        >>> line = np.arange(8.0)[:, None]
        >>> found = neighbours(line, line[:4] + 0.25, ks=(1,))[""]
        >>> found.real_radii[:, 0].tolist(), found.in_real_balls[:, 0].tolist()
        ([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0], [2, 2, 2, 2])
        >>> found.nearest["synthetic to real"].distances.tolist()
        [0.25, 0.25, 0.25, 0.25]
    """
    sides = two_sides(real, synthetic, rows)
    visitor = NeighbourVisitor(*sides, ks, all_subsets(*sides, subsets))
    sweep(*sides, [visitor])
    return visitor.results()


class NeighbourVisitor(Visitor):
    """Finds neighbours while tiles pass."""

    def __init__(self, real: Side, synthetic: Side, ks: Sequence[int], subsets: Mapping[str, Subset]) -> None:
        self.ks = tuple(sorted({*ks}))
        self.lower_bounds = LowerBounds(real)
        self.subsets = subsets
        self.sides = {"real": real, "synthetic": synthetic}
        self.closest: dict[str, Closest] = {}  # of the set that passes
        self.radii: dict[str, dict[str, np.ndarray]] = {}
        self.nearest: dict[str, Nearest] = {}
        self.balls: dict[str, _Balls] = {}

    def within(self, tile: Tile, is_real: bool) -> None:
        """Sees pairs within one set."""
        if not self.closest:
            self._begin("real")
        if not is_real and "real" not in self.radii:
            self._finish("real")
            self._begin("synthetic")
        low = self.lower_bounds.of(tile)
        for closest in self.closest.values():
            closest.offer(tile, low)

    def between(self, tile: Tile) -> None:
        """Sees real x synthetic pairs."""
        if not self.balls:
            self._finish("synthetic")
            self.balls = {
                name: _Balls(rows, self.radii["real"][name], self.radii["synthetic"][name])
                for name, rows in self.subsets.items()
            }
            rows = self.subsets[ALL]
            self.to_synthetic = Closest(tile.one, tile.two, rows.real, rows.synthetic, 1)
            self.to_real = Closest(tile.two, tile.one, rows.synthetic, rows.real, 1)
        low = self.lower_bounds.of(tile)
        self.to_synthetic.offer(tile, low)
        self.to_real.offer(tile, low)
        for balls in self.balls.values():
            balls.offer(tile, low)

    def _begin(self, name: str) -> None:
        side, k = self.sides[name], self.ks[-1]
        for subset, both in self.subsets.items():
            rows = both.real if name == "real" else both.synthetic
            self.closest[subset] = Closest(side, side, rows, rows, k)

    def _finish(self, name: str) -> None:
        self.radii[name] = {subset: closest.radii(self.ks) for subset, closest in self.closest.items()}
        self.nearest[f"{name} to {name}"] = self.closest[ALL].nearest()
        self.closest = {}

    def results(self) -> dict[str, Neighbours]:
        """Returns what was found, when all tiles have passed."""
        nearest = {
            **self.nearest,
            "real to synthetic": self.to_synthetic.nearest(),
            "synthetic to real": self.to_real.nearest(),
        }
        return {
            name: Neighbours(
                self.ks,
                np.sqrt(balls.real_squares),
                np.sqrt(balls.synthetic_squares),
                balls.in_real_balls.counts,
                balls.held_by_real.counts,
                balls.in_synthetic_balls.counts,
                balls.in_real_balls.partners(len(balls.rows.real)),
                balls.held_by_real.partners(len(balls.rows.synthetic)),
                balls.in_synthetic_balls.partners(len(balls.rows.synthetic)),
                nearest if name == ALL else {},
            )
            for name, balls in self.balls.items()
        }


class LowerBounds:
    """What the squared distances of a tile are at least.

    The sum of d products in floating point is off by at most d/2 eps |x||y|, and |x||y| <= (|x|² + |y|²) / 2.
    """

    def __init__(self, side: Side) -> None:
        self.share, self.scratch = 1 - _slack(side), np.empty(0, side.features.dtype)

    def of(self, tile: Tile) -> np.ndarray:
        """Returns the bounds of a tile, in a buffer that is used again."""
        count = tile.products.size
        if len(self.scratch) < count:
            self.scratch = np.empty(count, tile.products.dtype)
        low = self.scratch[:count].reshape(tile.products.shape)
        np.multiply(tile.products, -2, out=low)
        low += (self.share * tile.one.squares[tile.rows]).astype(low.dtype)[:, None]
        low += (self.share * tile.two.squares[tile.columns]).astype(low.dtype)
        return low


def bound_width(one: Side, two: Side, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Returns how far the upper bound of a squared distance lies above the lower one, at most.

    Args:
        one: The side of `i`.
        two: The side of `j`.
        i: Rows of `one`, of shape (p,).
        j: Rows of `two`, of shape (p,).
    """
    return 3 * _slack(one) * (one.squares[i] + two.squares[j])


def _slack(side: Side) -> float:
    """Returns the error of a squared distance in the features' type, as a share of |x|² + |y|²."""
    return float((side.features.shape[1] / 2 + 8) * np.finfo(side.features.dtype).eps)


def rounded_up(values: np.ndarray, kind: np.dtype) -> np.ndarray:
    """Returns numbers of a type that exceed some float64 values."""
    with np.errstate(over="ignore"):
        return np.nextafter(values.astype(kind), np.array(np.inf, kind))


class _Place(NamedTuple):
    """The part of a tile that belongs to a subset."""

    low: np.ndarray
    rows: slice  # positions in the subset's first list
    columns: slice  # positions in its second


def _place(tile: Tile, low: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> _Place | None:
    first = slice(*np.searchsorted(rows, (tile.rows.start, tile.rows.stop)))
    second = slice(*np.searchsorted(columns, (tile.columns.start, tile.columns.stop)))
    mine, theirs = rows[first] - tile.rows.start, columns[second] - tile.columns.start
    if not len(mine) or not len(theirs):
        return None
    if len(mine) < low.shape[0]:
        low = low.take(mine, axis=0)
    if len(theirs) < low.shape[1]:
        low = low.take(theirs, axis=1)
    return _Place(low, first, second)


class Closest:
    """The exact k smallest distances of each row of one list to the rows of another.

    A pair whose lower bound exceeds the k-th smallest upper bound of its row cannot be among the k. The others wait,
    and most of them are dropped as the bounds fall; the distances of those that remain are computed in float64.
    """

    def __init__(self, one: Side, two: Side, rows: np.ndarray, columns: np.ndarray, k: int) -> None:
        self.one, self.two, self.rows, self.columns = one, two, rows, columns
        self.kind = one.features.dtype
        self.squares = np.full((len(rows), k), np.inf)  # exact, ascending
        self.indices = np.full((len(rows), k), -1, np.int32)
        self.highs = np.full((len(rows), k), np.inf, self.kind)  # the k smallest upper bounds, ascending
        self.bounds = np.full(len(rows), np.inf, self.kind)  # a pair must have a smaller lower bound
        self.waiting: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # rows, columns, lower bounds
        self.count, self.limit = 0, max(WAITING, 3 * k * len(rows) // 2)

    def offer(self, tile: Tile, low: np.ndarray) -> None:
        """Takes the pairs of a tile that may be among the nearest."""
        if tile.one is self.one:
            self._offer(tile, low, turned=False)
        if tile.two is self.one and not tile.diagonal:
            self._offer(tile, low, turned=True)

    def _offer(self, tile: Tile, low: np.ndarray, turned: bool) -> None:
        place = _place(tile, low, *((self.columns, self.rows) if turned else (self.rows, self.columns)))
        if place is None:
            return
        mine, theirs = (place.columns, place.rows) if turned else (place.rows, place.columns)
        if np.isposinf(self.bounds[mine]).any():
            self._first_bounds(place.low.T if turned else place.low, mine, theirs, tile.diagonal)
        limits = self.bounds[mine]
        hits = place.low < (limits if turned else limits[:, None])
        if tile.diagonal:
            np.fill_diagonal(hits, False)
        found = np.flatnonzero(hits)
        if not len(found):
            return
        i, j = np.divmod(found, hits.shape[1])
        lows = place.low.ravel()[found]
        if turned:
            order = np.argsort(j, kind="stable")
            i, j, lows = j[order], i[order], lows[order]
        i, j = i + mine.start, j + theirs.start
        self._lower(i, rounded_up(lows + self._width(i, j), self.kind))
        self.waiting.append((i.astype(np.int32), j.astype(np.int32), lows))
        self.count += len(i)
        if self.count > self.limit:
            self._drop()
            if self.count > 0.75 * self.limit:
                self.settle()

    def _first_bounds(self, low: np.ndarray, mine: slice, theirs: slice, diagonal: bool) -> None:
        """Bounds the k-th distance of rows that have no bound yet, by those of one tile."""
        k = self.squares.shape[1]
        if low.shape[1] < k + diagonal:
            return
        values = low.copy(order="C")
        if diagonal:
            np.fill_diagonal(values, np.inf)
        values.partition(k - 1, axis=1)
        squares = self.two.squares[self.columns[theirs]].max() + self.one.squares[self.rows[mine]]
        bounds = rounded_up(values[:, k - 1] + 3 * _slack(self.one) * squares, self.kind)
        self.bounds[mine] = np.minimum(self.bounds[mine], np.maximum(bounds, np.finfo(self.kind).tiny))

    def _width(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        return bound_width(self.one, self.two, self.rows[i], self.columns[j])

    def _lower(self, i: np.ndarray, highs: np.ndarray) -> None:
        """Lowers the bounds of rows by the upper bounds of pairs, sorted by row."""
        touched, line, place = _lines(i)
        k = self.highs.shape[1]
        table = np.full((len(touched), k + int(place.max()) + 1), np.inf, self.kind)
        table[:, :k] = self.highs[touched]
        table[line, k + place] = highs
        table.partition(k - 1, axis=1)
        self.highs[touched] = table[:, :k]
        # A distance that equals the bound must pass the strict comparison.
        limits = np.maximum(rounded_up(table[:, k - 1], self.kind), np.finfo(self.kind).tiny)
        self.bounds[touched] = np.minimum(self.bounds[touched], limits)

    def _drop(self) -> None:
        """Drops the pairs that cannot be among the nearest any more."""
        i, j, lows = (np.concatenate(part) for part in zip(*self.waiting))
        kept = lows < self.bounds[i]
        self.waiting = [(i[kept], j[kept], lows[kept])]
        self.count = len(self.waiting[0][0])

    def settle(self) -> None:
        """Computes the distances of the pairs that still may be among the nearest."""
        if not self.count:
            return
        self._drop()
        [(i, j, _)] = self.waiting
        self.waiting, self.count = [], 0
        if not len(i):
            return
        order = np.argsort(i, kind="stable")  # rows that are read together lie together
        i, j = i[order], j[order]
        new, k = exact_squares(self.one, self.two, self.rows[i], self.columns[j]), self.squares.shape[1]
        touched = np.unique(i)
        rows = np.concatenate([np.repeat(touched, k), i])
        squares = np.concatenate([self.squares[touched].ravel(), new])
        indices = np.concatenate([self.indices[touched].ravel(), self.columns[j]])
        order = np.lexsort((squares, rows))
        _, line, place = _lines(rows[order])
        kept = place < k
        at = touched[line[kept]], place[kept]
        self.squares[at], self.indices[at] = squares[order[kept]], indices[order[kept]]
        best = self.squares[touched]
        limits = rounded_up(best[:, -1], self.kind)
        limits[best[:, -1] == 0] = -np.inf  # nothing is nearer than a copy
        self.bounds[touched] = np.minimum(self.bounds[touched], limits)

    def radii(self, ks: Sequence[int]) -> np.ndarray:
        """Returns the squared distances to the k-th neighbours; NaN where there are fewer."""
        self.settle()
        found = self.squares[:, [k - 1 for k in ks]]
        return np.where(np.isfinite(found), found, np.nan)

    def nearest(self) -> Nearest:
        """Returns the nearest rows."""
        self.settle()
        return Nearest(np.sqrt(self.squares[:, 0]), self.indices[:, 0].copy())


def _lines(i: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the different values of sorted numbers, and for each number which value it is and how often it came."""
    touched, starts, counts = np.unique(i, return_index=True, return_counts=True)
    return touched, np.repeat(np.arange(len(touched)), counts), np.arange(len(i)) - np.repeat(starts, counts)


class _Balls:
    """Counts the points in the balls of one subset."""

    def __init__(self, rows: Subset, real_squares: np.ndarray, synthetic_squares: np.ndarray) -> None:
        self.rows, self.real_squares, self.synthetic_squares = rows, real_squares, synthetic_squares
        self.in_real_balls = _Tally(synthetic_squares.shape)
        self.held_by_real = _Tally(real_squares.shape)
        self.in_synthetic_balls = _Tally(real_squares.shape)

    def offer(self, tile: Tile, low: np.ndarray) -> None:
        """Counts the pairs of a real x synthetic tile."""
        place = _place(tile, low, self.rows.real, self.rows.synthetic)
        if place is None:
            return
        i, j, inside = self._inside(tile, place, self.real_squares[place.rows], 0)
        self.held_by_real.add(place.rows, i, j + place.columns.start, inside)
        self.in_real_balls.add(place.columns, j, i + place.rows.start, inside)
        i, j, inside = self._inside(tile, place, self.synthetic_squares[place.columns], 1)
        self.in_synthetic_balls.add(place.rows, i, j + place.columns.start, inside)

    def _inside(
        self, tile: Tile, place: _Place, squares: np.ndarray, axis: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the pairs that may lie in a ball, and whether they do for each k."""
        largest = rounded_up(squares[:, -1], place.low.dtype)
        hits = place.low < (largest[:, None] if axis == 0 else largest)
        found = np.flatnonzero(hits)
        i, j = np.divmod(found, hits.shape[1])
        rows, columns = self.rows.real[i + place.rows.start], self.rows.synthetic[j + place.columns.start]
        below = place.low.ravel()[found].astype(np.float64)
        above = below + bound_width(tile.one, tile.two, rows, columns)
        limits = squares[i if axis == 0 else j]
        open_ = ((below[:, None] < limits) & (above[:, None] >= limits)).any(axis=1)
        above[open_] = exact_squares(tile.one, tile.two, rows[open_], columns[open_])
        return i, j, above[:, None] < limits


class _Tally:
    """Counts the partners of each row, and knows the partner of a row that has one only: the sum of its partners."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.counts, self.sums = np.zeros(shape, np.int64), np.zeros(shape)

    def add(self, part: slice, rows: np.ndarray, partners: np.ndarray, inside: np.ndarray) -> None:
        size = part.stop - part.start
        for column in range(self.counts.shape[1]):
            chosen = inside[:, column]
            self.counts[part, column] += np.bincount(rows[chosen], minlength=size)
            self.sums[part, column] += np.bincount(rows[chosen], partners[chosen], minlength=size)

    def partners(self, size: int) -> np.ndarray:
        """Returns for each possible partner how many rows have it as their only one."""
        columns = [
            np.bincount(self.sums[self.counts[:, column] == 1, column].astype(np.intp), minlength=size)
            for column in range(self.counts.shape[1])
        ]
        return np.stack(columns, axis=1)
