"""Distances between training, synthetic and held-out rows, from a pass over each two of the sets that are compared.

The rows of a tile's stripe are finished before the next stripe begins, so the many neighbours of a row are kept no
longer than its stripe: the memory does not grow with their number.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from pipeline.errors import StepError
from pipeline.evaluate.metrics.features import check_features, check_groups, row_blocks
from pipeline.evaluate.metrics.neighbours import Closest, LowerBounds, bound_width, rounded_up
from pipeline.evaluate.metrics.pairs import Side, Tile, exact_squares, tiles

NUM_NEAREST = 50  # of the ratio of Carlini et al.
SAMPLES = 4  # of the larger set, of the size of the smaller one

Update = Callable[[int], object]
Watch = Callable[[str, int], "contextlib.AbstractContextManager[Update]"]


class ToTrain(NamedTuple):
    """The distances of each row of a set to the training rows.

    Attributes:
        squares: Squared distance to the nearest, of shape (n,).
        indices: The nearest, of shape (n,); among equally near ones, any.
        means: Mean distance of the nearest `NUM_NEAREST`, of shape (n,); infinite if there are fewer.
    """

    squares: np.ndarray
    indices: np.ndarray
    means: np.ndarray


class NearestRow(NamedTuple):
    """Of each synthetic row, the nearest row of a set.

    Attributes:
        squares: The squared distance to it, of shape (m,).
        indices: Which it is, of shape (m,); among equally near ones, any.
        rows: The rows of the set.
    """

    squares: np.ndarray
    indices: np.ndarray
    rows: np.ndarray


class PrivacyDistances(NamedTuple):
    """What the metrics of memorisation are computed from. Squared distances are exact: ties tie, and a copy has 0.

    Attributes:
        synthetic: Of the synthetic rows to the training rows.
        heldout: Of the held-out rows to the training rows; None without held-out rows.
        to_heldout: Of the synthetic rows to the held-out rows; None without held-out rows.
        nearer: Of the larger of training and held-out set, the number of groups with a row that is nearer to the
            synthetic row than all rows of the smaller set are, and with one that is not farther, of shape (m, 2); None
            without held-out rows.
        to_samples: Of the synthetic rows to random samples of the larger set, of whole groups, that have about as many
            rows as the smaller set; none where the sets are equal, or without held-out rows.
        train_to_synthetic: Squared distance of each training row to the nearest synthetic row, of shape (n,).
        heldout_to_synthetic: The same of each held-out row; or None.
        train_to_train: Squared distance to the nearest other training row, of shape (n,); NaN for a row that is the
            nearest of no row, infinite if there is no other row.
        train_groups: The group of each training row, such as its patient, as a number, of shape (n,).
        heldout_groups: The group of each held-out row; or None.
    """

    synthetic: ToTrain
    heldout: ToTrain | None
    to_heldout: NearestRow | None
    nearer: np.ndarray | None
    to_samples: list[NearestRow]
    train_to_synthetic: np.ndarray
    heldout_to_synthetic: np.ndarray | None
    train_to_train: np.ndarray
    train_groups: np.ndarray
    heldout_groups: np.ndarray | None


@contextlib.contextmanager
def _unwatched(title: str, pairs: int) -> Iterator[Update]:
    yield lambda count: None


def privacy_distances(
    train: np.ndarray,
    synthetic: np.ndarray,
    heldout: np.ndarray | None = None,
    train_groups: np.ndarray | None = None,
    heldout_groups: np.ndarray | None = None,
    seed: int = 0,
    watch: Watch = _unwatched,
) -> PrivacyDistances:
    """Finds the neighbours that the metrics of memorisation need.

    Args:
        train: Features of the images that the generator was trained on, of shape (n, d).
        synthetic: Features of synthetic images, of shape (m, d).
        heldout: Features of real images that the generator did not see, of shape (h, d).
        train_groups: The group of each training row, such as its patient, of shape (n,). Default: each row is its own.
        heldout_groups: The same of the held-out rows.
        seed: Seeds the samples of the larger set.
        watch: Gets the title of a pass and its number of pairs, and returns a context whose value is called with the
            number of pairs that were seen.

    Raises:
        StepError: Shapes differ, a set is empty, or a feature is not finite.

    Example:
        >>> line = np.arange(8.0)[:, None]
        >>> found = privacy_distances(line[:4], line[1:3] + 0.25, line[4:])
        >>> found.synthetic.indices.tolist(), found.synthetic.squares.tolist(), found.to_heldout.squares.tolist()
        ([1, 2], [0.0625, 0.0625], [7.5625, 3.0625])
        >>> found.nearer.tolist(), found.train_to_train.tolist()
        ([[4, 4], [3, 3]], [nan, 1.0, 1.0, 1.0])
    """
    sets = check_features(*(part for part in (train, synthetic, heldout) if part is not None))
    if not all(len(part) for part in sets):
        raise StepError(f"no features to compare: {', '.join(f'{len(part):,}' for part in sets)} rows")
    centre = sum(block.sum(axis=0, dtype=np.float64) for _, block in row_blocks(sets[0])) / len(sets[0])
    made, mine = Side(sets[1], centre), _Grouped(sets[0], centre, train_groups)
    theirs = None if heldout is None else _Grouped(sets[2], centre, heldout_groups)
    titles = "synthetic to training", "synthetic to held-out"
    if theirs is None:
        scan = _scan(made, mine, NUM_NEAREST, watch, titles[0])
        others = _to_others(mine, np.unique(scan.indices), watch)
        back = mine.in_given_order(scan.back)
        return PrivacyDistances(scan.to_train(mine), None, None, None, [], back, None, others, mine.given, None)
    # The smaller set first: its distances limit what is counted in the larger one.
    if len(theirs) <= len(mine):
        second = _scan(made, theirs, 1, watch, titles[1])
        samples = mine.samples(len(theirs), seed)
        first = larger = _scan(made, mine, NUM_NEAREST, watch, titles[0], second.squares[:, 0], samples)
    else:
        first = _scan(made, mine, NUM_NEAREST, watch, titles[0])
        samples = theirs.samples(len(mine), seed)
        second = larger = _scan(made, theirs, 1, watch, titles[1], first.squares[:, 0], samples)
    order = mine.order if larger is first else theirs.order
    between = _scan(theirs, mine, NUM_NEAREST, watch, "held-out to training", back=False)
    return PrivacyDistances(
        first.to_train(mine),
        ToTrain(*(theirs.in_given_order(values) for values in between.to_train(mine))),
        NearestRow(second.squares[:, 0], theirs.order[second.indices], np.arange(len(theirs))),
        larger.counts,
        [NearestRow(part.squares, order[part.indices], order[part.rows]) for part in larger.samples],
        mine.in_given_order(first.back),
        theirs.in_given_order(second.back),
        _to_others(mine, np.union1d(first.indices, between.indices), watch),
        mine.given,
        theirs.given,
    )


class _Grouped(Side):
    """A side whose rows are ordered by group, so that the groups among the hits of a row are counted as they come."""

    def __init__(self, features: np.ndarray, centre: np.ndarray, groups: np.ndarray | None) -> None:
        checked = check_groups(groups, len(features))
        self.given = np.arange(len(features)) if checked is None else checked
        self.order = np.argsort(self.given, kind="stable")
        in_order = bool((self.order == np.arange(len(features))).all())
        super().__init__(features, centre, None if in_order else self.order)
        self.groups = self.given[self.order]

    def in_given_order(self, values: np.ndarray) -> np.ndarray:
        """Returns values of this side's rows in the order of the features as they were given."""
        found = np.empty_like(values)
        found[self.order] = values
        return found

    def samples(self, size: int, seed: int) -> list[np.ndarray]:
        """Returns disjoint random samples of whole groups with about as many rows; none if it has no more rows."""
        if size >= len(self):
            return []
        rank = np.random.default_rng(seed).permutation(int(self.groups[-1]) + 1)[self.groups]
        order = np.argsort(rank, kind="stable")
        ends = np.searchsorted(rank[order], np.arange(rank.max() + 2))  # of the groups in their random order
        found, start = [], 0
        for _ in range(min(SAMPLES, max(1, len(self) // size))):
            stop = int(ends[np.abs(ends - start - size).argmin()])
            found.append(np.sort(order[start:stop]))
            start = stop
        return [part for part in found if len(part)]


class _Scan(NamedTuple):
    """What a pass over all pairs of two sides found.

    Attributes:
        squares: Squared distances to the nearest rows of the second side, ascending, of shape (n, k).
        indices: The nearest, of shape (n,).
        back: Squared distance of each row of the second side to the nearest of the first one; empty if not asked for.
        counts: See `_Nearer`; None if not asked for.
        samples: The nearest row of each sample of the second side.
    """

    squares: np.ndarray
    indices: np.ndarray
    back: np.ndarray
    counts: np.ndarray | None
    samples: list[NearestRow]

    def to_train(self, train: _Grouped) -> ToTrain:
        """Returns the distances to the training rows, in the order in which they were given."""
        means = np.sqrt(self.squares).mean(axis=1)
        return ToTrain(self.squares[:, 0], train.order[self.indices], means)


def _scan(
    one: Side,
    two: _Grouped,
    k: int,
    watch: Watch,
    title: str,
    limits: np.ndarray | None = None,
    samples: Sequence[np.ndarray] = (),
    back: bool = True,
) -> _Scan:
    """Passes over all pairs of two sides.

    Args:
        one: The rows.
        two: The side in which neighbours are looked for.
        k: Number of neighbours.
        watch: See `privacy_distances`.
        title: Of the pass.
        limits: Squared distances below which the groups of `two` are counted, of shape (rows of one,).
        samples: Ascending rows of `two`, in each of which the nearest is looked for too.
        back: Whether to find the nearest row of `one` for each of `two` too.
    """
    squares, indices = np.empty((len(one), k)), np.empty(len(one), np.int32)
    nearest = [NearestRow(np.empty(len(one)), np.empty(len(one), np.int32), rows) for rows in samples]
    every, columns = np.arange(len(one)), np.arange(len(two))
    returning = [Closest(two, one, columns, every, 1)] if back else []
    counters = [] if limits is None else [_Nearer(one, two, limits)]
    bounds, stripes = LowerBounds(one), list[Closest]()
    with watch(title, len(one) * len(two)) as update:
        for tile in tiles(one, two):
            if tile.columns.start == 0:
                rows = every[tile.rows]
                stripes = [Closest(one, two, rows, columns, k), *(Closest(one, two, rows, s, 1) for s in samples)]
            low = bounds.of(tile)
            for closest in (*stripes, *returning):
                closest.offer(tile, low)
            for counter in counters:
                counter.offer(tile, low)
            if tile.columns.stop == len(two):
                for stripe in stripes:
                    stripe.settle()
                squares[tile.rows], indices[tile.rows] = stripes[0].squares, stripes[0].indices[:, 0]
                for part, stripe in zip(nearest, stripes[1:]):
                    part.squares[tile.rows], part.indices[tile.rows] = stripe.squares[:, 0], stripe.indices[:, 0]
            update(tile.products.size)
    for closest in returning:
        closest.settle()
    reached = returning[0].squares[:, 0] if returning else np.empty(0)
    return _Scan(squares, indices, reached, counters[0].counts if counters else None, nearest)


def _to_others(train: _Grouped, wanted: np.ndarray, watch: Watch) -> np.ndarray:
    """Returns the squared distance of some training rows to the nearest other one, NaN for the others.

    It is the second smallest distance to all training rows, the row itself among them: a duplicate has 0, as it should.

    Args:
        train: The training side.
        wanted: Rows of it, in its order.
        watch: See `privacy_distances`.
    """
    rows = train.order[wanted]
    found = np.full(len(train), np.nan)
    scan = _scan(Side(train.features, train.centre, rows), train, 2, watch, "training to training", back=False)
    found[rows] = scan.squares[:, 1]
    return found


class _Nearer:
    """Counts for each row of one side the groups of another that are nearer than a limit, and not farther."""

    def __init__(self, one: Side, two: _Grouped, squares: np.ndarray) -> None:
        self.one, self.two, self.squares = one, two, squares
        self.counts = np.zeros((len(one), 2), np.int64)
        self.last = np.full((len(one), 2), -1)  # the group that was counted last; groups ascend from tile to tile

    def offer(self, tile: Tile, low: np.ndarray) -> None:
        """Counts the groups of a tile."""
        limits = self.squares[tile.rows]
        found = np.flatnonzero(low <= rounded_up(limits, low.dtype)[:, None])
        if not len(found):
            return
        i, j = np.divmod(found, low.shape[1])
        below, rows, columns = low.ravel()[found].astype(np.float64), i + tile.rows.start, j + tile.columns.start
        squares = below + bound_width(self.one, self.two, rows, columns)
        open_ = (below <= limits[i]) & (squares >= limits[i])
        squares[open_] = exact_squares(self.one, self.two, rows[open_], columns[open_])
        groups = self.two.groups[columns]
        for column, inside in enumerate((squares < limits[i], squares <= limits[i])):
            self._count(column, rows[inside], groups[inside])

    def _count(self, column: int, rows: np.ndarray, groups: np.ndarray) -> None:
        """Counts groups, ascending in each row, that have not been counted."""
        if not len(rows):
            return
        first = np.concatenate([[True], rows[1:] != rows[:-1]])
        before = np.concatenate([[-1], groups[:-1]])
        before[first] = self.last[rows[first], column]
        new = rows[groups != before]
        self.counts[:, column] += np.bincount(new, minlength=len(self.counts))
        ends = np.concatenate([first[1:], [True]])
        self.last[rows[ends], column] = groups[ends]
