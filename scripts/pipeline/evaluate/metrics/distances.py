"""Distances between training, synthetic and held-out rows, from a pass over each two of the sets that are compared.

The rows of a tile's stripe are finished before the next stripe begins, so the many neighbours of a row are kept no
longer than its stripe: the memory does not grow with their number.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pipeline.errors import StepError
from pipeline.evaluate.metrics.features import check_features, check_groups, row_blocks
from pipeline.evaluate.metrics.neighbours import Closest, LowerBounds, bound_width, rounded_up
from pipeline.evaluate.metrics.pairs import Side, Tile, exact_squares, tiles

NUM_NEAREST = 50  # of the ratio of Carlini et al.

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


class PrivacyDistances(NamedTuple):
    """What the metrics of memorisation are computed from. Squared distances are exact: ties tie, and a copy has 0.

    Attributes:
        synthetic: Of the synthetic rows to the training rows.
        heldout: Of the held-out rows to the training rows; None without held-out rows.
        heldout_squares: Squared distance of each synthetic row to the nearest held-out row, of shape (m,); or None.
        heldout_indices: The nearest held-out row of each, of shape (m,); or None.
        nearer: Of the larger of training and held-out set, the number of groups with a row that is nearer to the
            synthetic row than all rows of the smaller set are, and with one that is not farther, of shape (m, 2); None
            without held-out rows.
        train_to_synthetic: Squared distance of each training row to the nearest synthetic row, of shape (n,).
        heldout_to_synthetic: The same of each held-out row; or None.
        train_to_train: Squared distance to the nearest other training row, of shape (n,); NaN for rows that are nobody's
            nearest, infinite if there is no other row.
        train_groups: The group of each training row, such as its patient, as a number, of shape (n,).
        heldout_groups: The group of each held-out row; or None.
    """

    synthetic: ToTrain
    heldout: ToTrain | None
    heldout_squares: np.ndarray | None
    heldout_indices: np.ndarray | None
    nearer: np.ndarray | None
    train_to_synthetic: np.ndarray
    heldout_to_synthetic: np.ndarray | None
    train_to_train: np.ndarray
    train_groups: np.ndarray
    heldout_groups: np.ndarray | None


@contextlib.contextmanager
def _unwatched(title: str, pairs: int):  # type: ignore[no-untyped-def]
    yield lambda count: None


def privacy_distances(
    train: np.ndarray,
    synthetic: np.ndarray,
    heldout: np.ndarray | None = None,
    train_groups: np.ndarray | None = None,
    heldout_groups: np.ndarray | None = None,
    watch: Watch = _unwatched,
) -> PrivacyDistances:
    """Finds the neighbours that the metrics of memorisation need.

    Args:
        train: Features of the images that the generator was trained on, of shape (n, d).
        synthetic: Features of synthetic images, of shape (m, d).
        heldout: Features of real images that the generator did not see, of shape (h, d).
        train_groups: The group of each training row, such as its patient, of shape (n,); each row is its own by default.
        heldout_groups: The same of the held-out rows.
        watch: Gets the title of a pass and its number of pairs, and returns a context whose value is called with the
            number of pairs that were seen.

    Raises:
        StepError: Shapes differ, a set is empty, or a feature is not finite.

    Example:
        >>> line = np.arange(8.0)[:, None]
        >>> found = privacy_distances(line[:4], line[1:3] + 0.25, line[4:])
        >>> found.synthetic.indices.tolist(), found.synthetic.squares.tolist(), found.heldout_squares.tolist()
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
    first: _Scan | None = None
    if theirs is not None and len(theirs) <= len(mine):
        # The smaller set first: its distances limit what is counted in the larger one.
        first = _watched(watch, "synthetic to held-out", made, theirs, 1)
    limits = None if first is None else first.squares[:, 0]
    to_train = _watched(watch, "synthetic to training", made, mine, NUM_NEAREST, limits)
    synthetic_ = to_train.to_train(mine)
    if theirs is None:
        others = _to_others(mine, np.unique(synthetic_.indices), watch)
        back = mine.in_given_order(to_train.back)
        return PrivacyDistances(synthetic_, None, None, None, None, back, None, others, mine.given, None)
    if first is None:
        first = _watched(watch, "synthetic to held-out", made, theirs, 1, synthetic_.squares)
    scan = _watched(watch, "held-out to training", theirs, mine, NUM_NEAREST, back=False)
    heldout_ = ToTrain(*(theirs.in_given_order(values) for values in scan.to_train(mine)))
    wanted = np.union1d(synthetic_.indices, heldout_.indices)
    return PrivacyDistances(
        synthetic_,
        heldout_,
        first.squares[:, 0],
        theirs.order[first.indices],
        to_train.counts if limits is not None else first.counts,
        mine.in_given_order(to_train.back),
        theirs.in_given_order(first.back),
        _to_others(mine, wanted, watch),
        mine.given,
        theirs.given,
    )


def _watched(
    watch: Watch, title: str, one: Side, two: _Grouped, k: int, limits: np.ndarray | None = None, back: bool = True
) -> _Scan:
    with watch(title, len(one) * len(two)) as update:
        return _scan(one, two, k, update, limits, back)


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


class _Scan(NamedTuple):
    """What a pass over all pairs of two sides found.

    Attributes:
        squares: Squared distances to the nearest row of the second side, ascending, of shape (n, k).
        indices: The nearest, of shape (n,).
        back: Squared distance of each row of the second side to the nearest of the first one; empty if not asked for.
        counts: See `_Nearer`; None if not asked for.
    """

    squares: np.ndarray
    indices: np.ndarray
    back: np.ndarray
    counts: np.ndarray | None

    def to_train(self, train: _Grouped) -> ToTrain:
        """Returns the distances to the training rows, in the order in which they were given."""
        means = np.sqrt(self.squares).mean(axis=1)
        return ToTrain(self.squares[:, 0], train.order[self.indices], means)


def _scan(
    one: Side, two: _Grouped, k: int, update: Update, limits: np.ndarray | None = None, back: bool = True
) -> _Scan:
    """Passes over all pairs of two sides.

    Args:
        one: The rows.
        two: The side in which neighbours are looked for.
        k: Number of neighbours.
        update: Is called with the number of pairs that were seen.
        limits: Squared distances below which the groups of `two` are counted, of shape (rows of one,).
        back: Whether to find the nearest row of `one` for each of `two` too.
    """
    squares, indices = np.empty((len(one), k)), np.empty(len(one), np.int32)
    every, columns = np.arange(len(one)), np.arange(len(two))
    returning = Closest(two, one, columns, every, 1) if back else None
    counter = None if limits is None else _Nearer(one, two, limits)
    bounds, stripe = LowerBounds(one), None
    for tile in tiles(one, two):
        if tile.columns.start == 0:
            stripe = Closest(one, two, every[tile.rows], columns, k)
        assert stripe is not None
        low = bounds.of(tile)
        for part in (stripe, returning, counter):
            if part is not None:
                part.offer(tile, low)
        if tile.columns.stop == len(two):
            stripe.settle()
            squares[tile.rows], indices[tile.rows] = stripe.squares, stripe.indices[:, 0]
        update(tile.products.size)
    reached = np.empty(0)
    if returning is not None:
        returning.settle()
        reached = returning.squares[:, 0]
    return _Scan(squares, indices, reached, None if counter is None else counter.counts)


def _to_others(train: _Grouped, wanted: np.ndarray, watch: Watch) -> np.ndarray:
    """Returns the squared distance of some training rows to the nearest other one, NaN for the others.

    It is the second smallest distance to all training rows, the row itself among them: a duplicate has 0, as it should.
    """
    found = np.full(len(train), np.nan)
    scan = _watched(watch, "training to training", Side(train.features, train.centre, wanted), train, 2, back=False)
    found[wanted] = scan.squares[:, 1]
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
