"""KID and CMMD: the squared maximum mean discrepancy (MMD) with a polynomial and with a Gaussian kernel."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pipeline.errors import StepError
from pipeline.evaluate.metrics.estimate import Estimate, mean_variance, normal_estimate, refused, size_notes
from pipeline.evaluate.metrics.features import check_features, check_groups
from pipeline.evaluate.metrics.floor import random_order
from pipeline.evaluate.metrics.pairs import Side, Subset, Tile, Visitor, all_subsets, sweep, two_sides

KERNELS = ("kid", "cmmd")
SIGMA = 10.0  # bandwidth of CMMD's Gaussian kernel, on rows of length 1
SCALES = {"kid": 1.0, "cmmd": 1000.0}
SUBSETS, SUBSET_SIZE = 100, 1000  # of KID

Halves = Sequence[tuple[np.ndarray, np.ndarray]]  # what `floor.random_halves` returns


class KernelSums(NamedTuple):
    """Sums of k(x, y) - 1 over the pairs of one subset; the constant cancels in the MMD, and small values keep digits.

    Attributes:
        real: For each real row, over the other real rows, those of its group left out, of shape (n,).
        synthetic: For each synthetic row, over the other synthetic rows, of shape (m,).
        real_synthetic: For each real row, over the synthetic rows, of shape (n,).
        synthetic_real: For each synthetic row, over the real rows, of shape (m,).
        partners: For each real row, the number of rows that `real` sums over, of shape (n,).
    """

    real: np.ndarray
    synthetic: np.ndarray
    real_synthetic: np.ndarray
    synthetic_real: np.ndarray
    partners: np.ndarray


def kernel_sums(
    real: np.ndarray,
    synthetic: np.ndarray,
    kernels: Sequence[str] = KERNELS,
    subsets: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
    groups: np.ndarray | None = None,
) -> dict[str, dict[str, KernelSums]]:
    """Sums kernels over all pairs, and over the pairs of each subset, in one pass over tiles.

    Args:
        real: Real features, of shape (n, d).
        synthetic: Synthetic features, of shape (m, d).
        kernels: "kid" for (x'y/d + 1)³, "cmmd" for exp(-|x/|x| - y/|y||² / (2 sigma²)) with sigma = 10.
        subsets: For each name, the real and the synthetic rows as indices or as masks.
        groups: The unit of each real row, such as its patient, of shape (n,).

    Returns:
        For each kernel, the sums of each subset by its name, and those of all rows under ''.
    """
    sides = two_sides(real, synthetic)
    visitor = KernelVisitor(*sides, kernels, all_subsets(*sides, subsets), groups=groups)
    sweep(*sides, [visitor])
    return visitor.results()


class KernelVisitor(Visitor):
    """Sums kernels while tiles pass; of all subsets at once, by a product with their indicators.

    The MMD between two parts of the real set needs pairs of real rows only, which pass anyway. So floors cost a few
    columns of indicators instead of passes of their own.

    Pairs within a group, such as two images of a patient, are left out: they are more alike than two independent draws,
    and an MMD with them would be above 0 where both distributions are equal.
    """

    def __init__(
        self,
        real: Side,
        synthetic: Side,
        kernels: Sequence[str],
        subsets: Mapping[str, Subset],
        halves: Mapping[str, Halves] | None = None,
        groups: np.ndarray | None = None,
    ) -> None:
        unknown = {*kernels} - {*KERNELS}
        if unknown:
            raise ValueError(f"unknown kernels {sorted(unknown)}; known are {KERNELS}")
        self.kernels, self.subsets = tuple(kernels), subsets
        self.groups = check_groups(groups, len(real))
        kind = real.features.dtype
        self.members = {
            id(side): _indicators(len(side), [getattr(rows, name) for rows in subsets.values()], kind)
            for side, name in ((synthetic, "synthetic"), (real, "real"))
        }
        shapes = {"real": real, "synthetic": synthetic, "real_synthetic": real, "synthetic_real": synthetic}
        self.sums = {
            kernel: {part: np.zeros((len(side), len(subsets))) for part, side in shapes.items()} for kernel in kernels
        }
        # With z = x - c and w = y - c, x'y = z'w + z'c + w'c + c'c.
        self.shifts = {id(side): side.shifts.astype(kind) for side in (real, synthetic)}
        self.constant = float(np.square(real.centre, dtype=np.float64).sum())
        lengths = {id(side): np.where(side.lengths > 0, side.lengths, np.inf) for side in (real, synthetic)}
        self.scales = {key: (1 / found).astype(kind) for key, found in lengths.items()}
        self.buffers = [np.empty(0, kind), np.empty(0, kind)]
        self.halves = dict(halves or {})
        parts = [part for pairs in self.halves.values() for pair in pairs for part in pair]
        self.halves_members = _indicators(len(real), parts, np.dtype(np.int8))
        self.halves_sums = {kernel: np.zeros((3, len(parts) // 2)) for kernel in kernels}  # one, two, one x two

    def within(self, tile: Tile, is_real: bool) -> None:
        """Sees pairs within one set."""
        part = "real" if is_real else "synthetic"
        members = self.members[id(tile.one)]
        alike = None
        if is_real and self.groups is not None:
            alike = np.equal.outer(self.groups[tile.rows], self.groups[tile.columns])
        for kernel, values in self._values(tile):
            if alike is not None:
                np.copyto(values, 0, where=alike)
            elif tile.diagonal:
                np.fill_diagonal(values, 0)
            self.sums[kernel][part][tile.rows] += values @ members[tile.columns]
            if not tile.diagonal:
                self.sums[kernel][part][tile.columns] += values.T @ members[tile.rows]
            if is_real and self.halves_members.shape[1]:
                self._add_halves(kernel, tile, values)

    def _add_halves(self, kernel: str, tile: Tile, values: np.ndarray) -> None:
        of_rows = self.halves_members[tile.rows]
        sums = values @ self.halves_members[tile.columns].astype(values.dtype)
        sums = sums.astype(np.float64)
        one, two = of_rows[:, ::2], of_rows[:, 1::2]

        def total(members: np.ndarray, partners: np.ndarray) -> np.ndarray:
            return np.einsum("ij,ij->j", members, partners)

        within = [total(one, sums[:, ::2]), total(two, sums[:, 1::2])]
        across = total(one, sums[:, 1::2])
        if not tile.diagonal:  # each pair of rows comes once, and counts in both orders
            within = [2 * part for part in within]
            across = across + total(two, sums[:, ::2])
        self.halves_sums[kernel] += [*within, across]

    def between(self, tile: Tile) -> None:
        """Sees real x synthetic pairs."""
        for kernel, values in self._values(tile):
            self.sums[kernel]["real_synthetic"][tile.rows] += values @ self.members[id(tile.two)][tile.columns]
            self.sums[kernel]["synthetic_real"][tile.columns] += values.T @ self.members[id(tile.one)][tile.rows]

    def results(self) -> dict[str, dict[str, KernelSums]]:
        """Returns the sums, when all tiles have passed."""
        found: dict[str, dict[str, KernelSums]] = {kernel: {} for kernel in self.kernels}
        for column, (name, rows) in enumerate(self.subsets.items()):
            for kernel, sums in self.sums.items():
                found[kernel][name] = KernelSums(
                    sums["real"][rows.real, column],
                    sums["synthetic"][rows.synthetic, column],
                    sums["real_synthetic"][rows.real, column],
                    sums["synthetic_real"][rows.synthetic, column],
                    self._partners(rows.real),
                )
        return found

    def floors(self) -> dict[str, dict[str, list[float]]]:
        """Returns the MMD of each pair of halves by kernel and name, when all tiles have passed."""
        found: dict[str, dict[str, list[float]]] = {kernel: {} for kernel in self.kernels}
        column = 0
        for name, pairs in self.halves.items():
            values: dict[str, list[float]] = {kernel: [] for kernel in self.kernels}
            for one, two in pairs:
                counts = self._partners(one).sum(), self._partners(two).sum(), len(one) * len(two)
                if min(counts) > 0:
                    for kernel, sums in self.halves_sums.items():
                        of_one, of_two, across = sums[:, column] / counts
                        values[kernel].append(float(SCALES[kernel] * (of_one + of_two - 2 * across)))
                column += 1
            for kernel in self.kernels:
                found[kernel][name] = values[kernel]
        return found

    def _partners(self, rows: np.ndarray) -> np.ndarray:
        """Returns of how many of some real rows each of them makes a pair with."""
        if self.groups is None:
            return np.full(len(rows), len(rows) - 1)
        groups = self.groups[rows]
        return len(rows) - np.bincount(groups)[groups]

    def _values(self, tile: Tile) -> list[tuple[str, np.ndarray]]:
        """Returns k(x, y) - 1 of the pairs of a tile for each kernel, in buffers that are used again."""
        first, second = id(tile.one), id(tile.two)
        inner = self._buffer(0, tile)
        np.add(tile.products, self.shifts[first][tile.rows, None], out=inner)
        inner += self.shifts[second][tile.columns] + self.constant
        found = []
        if "cmmd" in self.kernels:
            cosines = self._buffer(1, tile)
            np.multiply(inner, self.scales[first][tile.rows, None], out=cosines)
            cosines *= self.scales[second][tile.columns]
            cosines -= 1
            cosines *= 1 / SIGMA**2
            found.append(("cmmd", np.expm1(cosines, out=cosines)))
        if "kid" in self.kernels:
            inner *= 1 / tile.one.features.shape[1]
            # (1 + t)³ - 1 = t (3 + t (3 + t))
            cube = inner + 3
            cube *= inner
            cube += 3
            cube *= inner
            found.append(("kid", cube))
        return found

    def _buffer(self, number: int, tile: Tile) -> np.ndarray:
        count = tile.products.size
        if len(self.buffers[number]) < count:
            self.buffers[number] = np.empty(count, tile.products.dtype)
        return self.buffers[number][:count].reshape(tile.products.shape)


def _indicators(count: int, rows: Sequence[np.ndarray], kind: np.dtype) -> np.ndarray:
    found = np.zeros((count, len(rows)), kind)
    for column, members in enumerate(rows):
        found[members, column] = 1
    return found


def kid(
    sums: KernelSums, real_groups: np.ndarray | None = None, synthetic_groups: np.ndarray | None = None
) -> Estimate:
    """Returns KID over all pairs: the unbiased MMD² with the kernel (x'y/d + 1)³ (Bińkowski et al. 2018).

    KID = mean_{i≠i'} k(r_i, r_i') + mean_{j≠j'} k(s_j, s_j') - 2 mean_{ij} k(r_i, s_j). Its expectation does not depend
    on n, so that it compares sets of different sizes, and it is negative about every second time for two samples of
    one distribution. Where patients have several images, that holds because pairs within a group are left out
    (`kernel_sums`). The cube gives far rows great weight. It says nothing of which rows differ.

    Args:
        sums: What `kernel_sums` returns for "kid".
        real_groups: The unit of each real row, such as its patient, of shape (n,).
        synthetic_groups: The same of the synthetic rows.

    Returns:
        KID, with the standard error of a two-sample U-statistic (the variance of its projections on each row). Where
        both distributions are equal, the projections vanish, and the standard error is about 1.4 times too large.
    """
    return _mmd(sums, SCALES["kid"], real_groups, synthetic_groups)


def cmmd(
    sums: KernelSums, real_groups: np.ndarray | None = None, synthetic_groups: np.ndarray | None = None
) -> Estimate:
    """Returns CMMD: 1000 times the unbiased MMD² with a Gaussian kernel on rows of length 1 (Jayasumana et al. 2024).

    The kernel is exp(-|x - y|² / (2 sigma²)) with sigma = 10. The paper takes features of CLIP ViT-L/14 at 336 pixels;
    with other features, name them. Verified in the authors' code (google-research, cmmd): sigma, the factor, the
    kernel and the encoder. That code averages over all pairs including each row with itself (see `cmmd_biased`), which
    adds a positive bias of about 1000 (1 - mean k) (1/n + 1/m). Not verified: that their CLIP features come with length
    1; here rows are scaled to it. On the unit sphere this kernel is nearly linear: CMMD is close to
    10 |mean x - mean y|².

    Args:
        sums: What `kernel_sums` returns for "cmmd".
        real_groups: The unit of each real row, such as its patient, of shape (n,).
        synthetic_groups: The same of the synthetic rows.

    Returns:
        CMMD, with the standard error of a two-sample U-statistic.
    """
    return _mmd(sums, SCALES["cmmd"], real_groups, synthetic_groups)


def cmmd_biased(sums: KernelSums) -> float:
    """Returns CMMD as the authors' code computes it: each row is also paired with itself.

    Args:
        sums: What `kernel_sums` returns for "cmmd".
    """
    n, m = len(sums.real), len(sums.synthetic)
    within = sums.real.sum() / n**2 + sums.synthetic.sum() / m**2
    return float(SCALES["cmmd"] * (within - 2 * sums.real_synthetic.sum() / (n * m)))


def _mmd(
    sums: KernelSums, scale: float, real_groups: np.ndarray | None, synthetic_groups: np.ndarray | None
) -> Estimate:
    n, m = len(sums.real), len(sums.synthetic)
    groups = check_groups(real_groups, n), check_groups(synthetic_groups, m)
    if min(n, m) < 2:
        return refused(n, m, "needs at least 2 rows a side")
    pairs = sums.partners.sum()
    if not pairs:
        return refused(n, m, "needs real rows of at least 2 groups, such as patients")
    within, between = sums.real.sum() / pairs, sums.real_synthetic.sum() / (n * m)
    value = within + sums.synthetic.sum() / (m * (m - 1)) - 2 * between
    of_real = 2 * ((sums.real - within * sums.partners) * n / pairs - sums.real_synthetic / m)
    of_synthetic = 2 * (sums.synthetic / (m - 1) - sums.synthetic_real / n)
    se = math.sqrt(mean_variance(of_real, groups[0]) + mean_variance(of_synthetic, groups[1]))
    return normal_estimate(scale * value, scale * se, n, m, (*size_notes(n, m), "standard error: U-statistic"))


def polynomial_mmd(real: np.ndarray, synthetic: np.ndarray, groups: np.ndarray | None = None) -> float:
    """Returns the unbiased MMD² with the kernel (x'y/d + 1)³ of two small sets, whose kernel matrices fit into memory.

    Args:
        real: Real features, of shape (n, d).
        synthetic: Synthetic features, of shape (m, d).
        groups: The unit of each real row; pairs within one are left out. There must be at least two.

    Example:
        >>> polynomial_mmd(np.array([[0.0], [1.0]]), np.array([[0.0], [1.0]]))
        -3.5
    """
    n, m = len(real), len(synthetic)
    alike = None if groups is None else np.equal.outer(groups, groups)
    pairs = n * (n - 1) if alike is None else n * n - np.count_nonzero(alike)
    of_real, of_synthetic = _cubes_of_others(real, alike) / pairs, _cubes_of_others(synthetic) / (m * (m - 1))
    return float(of_real + of_synthetic - 2 * _sum_of_cubes(_shifted(real, synthetic)) / (n * m))


def _cubes_of_others(features: np.ndarray, alike: np.ndarray | None = None) -> float:
    """Returns the sum of (x'y/d + 1)³ over the pairs of different rows, or of those that are not alike."""
    shifted = _shifted(features, features)
    if alike is None:
        np.fill_diagonal(shifted, 0)
    else:
        np.copyto(shifted, 0, where=alike)
    return _sum_of_cubes(shifted)


def _shifted(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Returns x'y/d + 1 of all pairs."""
    shifted = (one @ two.T).astype(np.float64)
    shifted *= 1 / one.shape[1]
    shifted += 1
    return shifted


def _sum_of_cubes(values: np.ndarray) -> float:
    return float(np.vdot(np.square(values), values))


def kid_of_subsets(
    real: np.ndarray,
    synthetic: np.ndarray,
    subsets: int = SUBSETS,
    size: int = SUBSET_SIZE,
    seed: int = 0,
    rows: tuple[np.ndarray, np.ndarray] | None = None,
    groups: np.ndarray | None = None,
) -> Estimate:
    """Returns KID as the mean over random subsets, as it is usually reported (Bińkowski et al. 2018).

    It has the expectation of `kid`, and costs the same however large the sets are, but for drawing groups. Rows are
    drawn without replacement within a subset; with groups, whole groups are, but for the last.

    Args:
        real: Real features, of shape (n, d).
        synthetic: Synthetic features, of shape (m, d).
        subsets: Number of subsets.
        size: Rows of a subset on each side; at most the smaller set.
        seed: Seeds the choice.
        rows: Indices of the real and of the synthetic rows to use, such as those of a label, without copies of large
            sets; all by default.
        groups: The unit of each real row, such as its patient, of shape (n,); pairs within one are left out.

    Returns:
        KID, with the standard error sd (1/B + size / (n - size))^½ of B subsets with deviation sd and the smaller n:
        the usual sd / B^½ is only the error of drawing subsets, and leaves out that of the sets themselves. Subsets of
        groups differ as sets of groups do, so that it is the error over groups (Politis and Romano 1994). With a size
        of more than n / 2 there is none: see `kid`.
    """
    real, synthetic = check_features(real, synthetic, rows=rows)
    mine, theirs = rows or (np.arange(len(real)), np.arange(len(synthetic)))
    n, m = len(mine), len(theirs)
    groups = check_groups(groups, len(real))
    if subsets < 2:
        raise StepError(f"KID needs at least 2 subsets: {subsets}")
    size = min(size, n, m)
    if size < 2:
        return refused(n, m, "needs at least 2 rows a side")
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(subsets):
        one = _drawn(mine, groups, size, rng)
        two = _drawn(theirs, None, size, rng)
        units = None if groups is None else groups[one]
        if units is not None and (units == units[0]).all():
            return refused(n, m, "needs subsets with real rows of at least 2 groups, such as patients")
        values.append(polynomial_mmd(real[one], synthetic[two], units))
    value, sd, smaller = float(np.mean(values)), float(np.std(values, ddof=1)), min(n, m)
    notes = (*size_notes(n, m), f"{subsets} subsets of {size:,}")
    if 2 * size > smaller:
        return Estimate(value, None, None, None, n, m, (*notes, "no standard error: subsets of most of the rows"))
    se = sd * math.sqrt(1 / subsets + size / (smaller - size))
    return normal_estimate(value, se, n, m, (*notes, "standard error: subsampling"))


def _drawn(rows: np.ndarray, groups: np.ndarray | None, size: int, rng: np.random.Generator) -> np.ndarray:
    """Returns some rows, drawn at random; with groups, whole ones but for the last."""
    if groups is None:
        return rng.choice(rows, size, replace=False)
    return rows[random_order(len(rows), groups[rows], rng)[:size]]
