"""Memorisation, membership, C_T: equal to brute force with ties and duplicates, and intervals that hold the truth."""

import math
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pipeline.errors import StepError
from pipeline.evaluate.metrics import distances as module
from pipeline.evaluate.metrics import memorisation, neighbours, pairs
from pipeline.evaluate.metrics.copying import copying_cells, copying_test, k_means
from pipeline.evaluate.metrics.distances import PrivacyDistances, privacy_distances
from pipeline.evaluate.metrics.estimate import Estimate
from pipeline.evaluate.metrics.membership import membership_auroc, membership_rate
from pipeline.evaluate.metrics.memorisation import (
    authenticity,
    below_threshold,
    chance_of_none,
    distance_ratios,
    nearer_to_training,
    ratio_below_one,
)

NEAREST = 5  # of the ratio, in place of 50: small sets have so many


def squares(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Squared distances from differences, in float64; exact for small integers."""
    return np.square(x[:, None].astype(np.float64) - y[None]).sum(axis=2)


@pytest.fixture(autouse=True)
def few_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NUM_NEAREST", NEAREST)
    monkeypatch.setattr(memorisation, "NUM_NEAREST", NEAREST)


@pytest.fixture(params=[False, True], ids=["one tile", "many tiles"])
def tile_size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param:
        monkeypatch.setattr(pairs, "TILE_ROWS", 5)
        monkeypatch.setattr(pairs, "TILE_COLUMNS", 7)
        monkeypatch.setattr(neighbours, "WAITING", 1)


def sets(elements: Any, most: int = 14) -> st.SearchStrategy[np.ndarray]:
    return arrays.arrays(np.int8, st.tuples(st.integers(6, most), st.just(2)), elements=elements)


def grouped(rows: int, groups: int, seed: int) -> np.ndarray:
    """Groups of random size, each with a row."""
    rng = np.random.default_rng(seed)
    return rng.permutation(np.concatenate([np.arange(groups), rng.integers(0, groups, rows - groups)]))


def expected_share(t: np.ndarray, s: np.ndarray, h: np.ndarray, groups: np.ndarray) -> float:
    """The mean over all subsets of whole groups of T; of two sizes, so that the mean number of rows is that of H."""
    count = len(np.unique(groups))
    size = count * len(h) / len(t)
    to_heldout, found = squares(s, h).min(axis=1), 0.0
    for chosen, weight in ((int(size), 1 - size % 1), (int(size) + 1, size % 1)):
        if not weight:
            continue
        shares = []
        for subset in combinations(range(count), chosen):
            part = t[np.isin(groups, subset)]
            nearest = squares(s, part).min(axis=1) if len(part) else np.full(len(s), np.inf)
            shares.append(((nearest < to_heldout) + (nearest == to_heldout) / 2).mean())
        found += weight * float(np.mean(shares))
    return found


@settings(max_examples=12)
@given(sets(st.integers(-2, 2)), sets(st.integers(-2, 2)), sets(st.integers(-2, 2)), st.integers(0, 99))
def check_headline(t: np.ndarray, s: np.ndarray, h: np.ndarray, seed: int) -> None:
    groups = grouped(len(t), 5, seed), grouped(len(h), 5, seed + 1)
    value = nearer_to_training(privacy_distances(t, s, h, *groups)).value
    if len(t) >= len(h):
        assert value == pytest.approx(expected_share(t, s, h, groups[0]), abs=1e-12)
    else:
        assert value == pytest.approx(1 - expected_share(h, s, t, groups[1]), abs=1e-12)


@pytest.mark.usefixtures("tile_size")
def test_the_headline_is_the_mean_over_all_subsets_of_patients() -> None:
    check_headline()


@settings(max_examples=25)
@given(sets(st.integers(-3, 3)), sets(st.integers(-3, 3)), sets(st.integers(-3, 3)))
def check_others(t: np.ndarray, s: np.ndarray, h: np.ndarray) -> None:
    found = privacy_distances(t, s, h)
    own = squares(t, t)
    np.fill_diagonal(own, np.inf)
    assert found.heldout is not None and found.to_heldout is not None and found.heldout_to_synthetic is not None
    np.testing.assert_array_equal(found.to_heldout.squares, squares(s, h).min(axis=1))
    np.testing.assert_array_equal(found.train_to_synthetic, squares(t, s).min(axis=1))
    np.testing.assert_array_equal(found.heldout_to_synthetic, squares(h, s).min(axis=1))
    for rows, of in ((s, found.synthetic), (h, found.heldout)):
        between = squares(rows, t)
        np.testing.assert_array_equal(of.squares, between.min(axis=1))
        np.testing.assert_array_equal(between[np.arange(len(rows)), of.indices], of.squares)
        np.testing.assert_array_equal(found.train_to_train[of.indices], own.min(axis=1)[of.indices])
        nearest = np.sqrt(np.sort(between, axis=1)[:, :NEAREST])
        with np.errstate(invalid="ignore"):
            ratios = np.where(nearest[:, 0] == 0, 0, nearest[:, 0] / (0.5 * nearest.mean(axis=1)))
        np.testing.assert_allclose(distance_ratios(of), ratios, rtol=1e-12)
    for (value, reference), hits in (
        (ratio_below_one(found), [distance_ratios(found.synthetic) < 1, distance_ratios(found.heldout) < 1]),
        (
            authenticity(found),
            [own.min(axis=1)[of.indices] < of.squares for of in (found.synthetic, found.heldout)],
        ),
    ):
        assert reference is not None
        assert [value.value, reference.value] == pytest.approx([part.mean() for part in hits])
    to_synthetic = [squares(part, s).min(axis=1) for part in (t, h)]
    wins = [(x < y) + (x == y) / 2 for x in to_synthetic[0] for y in to_synthetic[1]]
    assert membership_auroc(found).value == pytest.approx(np.mean(wins))


@pytest.mark.usefixtures("tile_size")
def test_distances_are_those_of_brute_force_with_ties_and_duplicates() -> None:
    check_others()


@settings(max_examples=50)
@given(
    arrays.arrays(np.int8, st.integers(5, 60), elements=st.integers(0, 9)),
    arrays.arrays(np.int8, st.integers(20, 60), elements=st.integers(0, 9)),
    st.sampled_from([0.05, 0.1, 0.34]),
)
def check_rate(members: np.ndarray, others: np.ndarray, share: float) -> None:
    value = membership_rate(at(members, others), share).value
    place = int(share * len(others) + 1e-9)
    last, next_ = np.sort(others)[[place - 1, place]]
    found = members < last if last == next_ else members <= last  # a tie would take too many held-out rows
    assert value == pytest.approx(found.mean())
    assert (others < last if last == next_ else others <= last).mean() <= share + 1e-9


def test_the_rate_of_members_is_that_of_the_nearest_threshold_with_few_false_ones() -> None:
    check_rate()


def at(members: np.ndarray, others: np.ndarray) -> PrivacyDistances:
    """Training and held-out rows at some distances to the only synthetic row."""
    return privacy_distances(members[:, None].astype(float), np.zeros((1, 1)), others[:, None].astype(float))


def test_what_needs_held_out_images_is_refused_without_them() -> None:
    x = np.random.default_rng(0).normal(size=(40, 3))
    found = privacy_distances(x[:20], x[20:])
    for refused in (
        nearer_to_training(found),
        below_threshold(found)[0],
        membership_auroc(found),
        membership_rate(found, 0.01),
    ):
        assert refused.value is None and refused.notes == ("needs held-out images",)
    assert ratio_below_one(found)[1] is None and authenticity(found)[1] is None
    assert ratio_below_one(found)[0].value is not None and authenticity(found)[0].value is not None


def test_few_rows_are_refused() -> None:
    x = np.random.default_rng(0).normal(size=(999 + 20, 2))
    found = privacy_distances(x[:4], x[4:20], x[20:])
    assert "1,000 held-out images" in below_threshold(found)[0].notes[0]
    assert membership_rate(found, 0.001).value is None and membership_rate(found, 0.01).value is not None
    assert "needs 5 training images" in ratio_below_one(found)[0].notes[0]
    assert authenticity(privacy_distances(x[:1], x[1:3]))[0].value is None
    with pytest.raises(StepError, match="no features"):
        privacy_distances(x[:0], x)


def test_the_threshold_is_that_of_one_held_out_row_in_a_thousand() -> None:
    t, s = np.zeros((3, 1)), np.array([[0.5], [1.5], [2.0], [2.5], [9.0]])
    estimate, reference, rows = below_threshold(privacy_distances(t, s, np.arange(1, 2001)[:, None].astype(float)))
    assert estimate.value == pytest.approx(3 / 5) and rows.tolist() == [0, 1, 2]  # the second of 2,000 lies at 2
    assert reference.value == 0.001 and reference.ci_high is not None and 0.003 < reference.ci_high < 0.005


def test_copies_are_found_and_a_small_held_out_set_dilutes_them() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3000, 8)).astype(np.float32)
    t, h, s = x[:1000], x[1000:2000], x[2000:].copy()
    s[:200] = t[:200]
    whole, part = (nearer_to_training(privacy_distances(t, s, h[:size])) for size in (1000, 100))
    assert whole.value is not None and part.value is not None and whole.ci_low is not None
    assert whole.ci_low > 0.5 and part.value < whole.value
    assert any("a copy counts in 10.0%" in note for note in part.notes)
    assert below_threshold(privacy_distances(t, s, h))[2][:200].tolist() == [*range(200)]
    cells = copying_cells(t, [h, s], len(h))
    found = privacy_distances(t, s, h)
    assert found.heldout is not None
    test = copying_test(np.sqrt(found.heldout.squares), np.sqrt(found.synthetic.squares), *cells)
    assert test.ci_high is not None and test.ci_high < 0


@pytest.mark.usefixtures("tile_size")
def test_order_of_rows_and_scale_do_not_matter() -> None:
    rng = np.random.default_rng(1)
    t, s, h = rng.normal(size=(50, 4)), rng.normal(size=(40, 4)), rng.normal(size=(20, 4))
    groups, order = grouped(50, 12, 0), rng.permutation(50)
    first = nearer_to_training(privacy_distances(t, s, h, groups)).value
    assert nearer_to_training(privacy_distances(t[order] * 3, s[::-1] * 3, h * 3, groups[order])).value == (
        pytest.approx(first)
    )
    assert privacy_distances(t[order], s, h, groups[order]).synthetic.indices.tolist() == [
        int(np.flatnonzero(order == row)[0]) for row in privacy_distances(t, s, h, groups).synthetic.indices
    ]


def test_chances_are_those_of_all_subsets() -> None:
    for chosen in range(6):
        subsets = [*combinations(range(5), chosen)]
        none = [np.mean([not {*range(c)} & {*subset} for subset in subsets]) for c in range(6)]
        assert chance_of_none(5, chosen / 5) == pytest.approx(none)


# Intervals


def drawn(rng: np.random.Generator, rows: int, width: int, of_a_group: int = 1) -> tuple[np.ndarray, np.ndarray]:
    groups = np.arange(rows) // of_a_group
    middle = rng.normal(size=(groups[-1] + 1, width))[groups]
    spread = 0.9 if of_a_group > 1 else 0.0
    noise = rng.normal(size=(rows, width)) * math.sqrt(1 - spread**2)
    return (spread * middle + noise).astype(np.float32), groups


def draws(
    n: int, h: int, m: int, width: int, of_a_group: int = 1, count: int = 60
) -> Iterator[tuple[PrivacyDistances, list[np.ndarray]]]:
    """Yields the distances of three sets of one distribution."""
    for seed in range(count):
        rng = np.random.default_rng(seed)
        (t, mine), (x, theirs) = (drawn(rng, rows, width, of_a_group) for rows in (n, h))
        s = drawn(rng, m, width)[0]
        yield privacy_distances(t, s, x, mine, theirs), copying_cells(t, [x, s], h)


def held(estimates: list[Estimate], value: float) -> float:
    return float(np.mean([(one.ci_low or 0) <= value <= (one.ci_high or 0) for one in estimates]))


@pytest.mark.parametrize(
    ("n", "h", "m", "width", "of_a_group"),
    [(80, 80, 150, 4, 1), (40, 40, 500, 30, 1), (400, 80, 150, 4, 1), (80, 400, 150, 4, 1), (120, 120, 200, 4, 3)],
)
def test_intervals_hold_what_there_is_without_memory(n: int, h: int, m: int, width: int, of_a_group: int) -> None:
    found = [*draws(n, h, m, width, of_a_group)]
    headline = [nearer_to_training(distances) for distances, _ in found]
    values = np.array([one.value for one in headline])
    assert held(headline, 0.5) >= 0.88
    assert abs(values.mean() - 0.5) < 4 * values.std() / math.sqrt(len(values))
    assert np.mean([one.se for one in headline]) == pytest.approx(values.std(), rel=0.35)
    assert held([membership_auroc(distances) for distances, _ in found], 0.5) >= 0.88
    assert held([membership_rate(distances, 0.05) for distances, _ in found], 0.05) >= 0.88
    tests = []
    for distances, cells in found:
        assert distances.heldout is not None
        sides = np.sqrt(distances.heldout.squares), np.sqrt(distances.synthetic.squares)
        tests.append(copying_test(*sides, cells[0], cells[1], distances.heldout_groups))
    assert held(tests, 0) >= 0.88


def test_a_binomial_interval_would_be_too_narrow() -> None:
    """Many synthetic rows share few nearest real ones."""
    values = [nearer_to_training(distances).value or 0 for distances, _ in draws(40, 40, 500, 30, count=40)]
    assert np.mean(np.abs(np.array(values) - 0.5) < 1.96 * 0.5 / math.sqrt(500)) < 0.7


# C_T


def test_c_t_is_the_mean_z_score_of_the_cells() -> None:
    rng = np.random.default_rng(0)
    heldout, synthetic = rng.integers(0, 30, 90).astype(float), rng.integers(0, 28, 150).astype(float)
    cells = np.arange(90) % 2, np.arange(150) % 3  # the third has no held-out row
    scores = []
    for cell in (0, 1):
        x, y = heldout[cells[0] == cell], synthetic[cells[1] == cell]
        u = sum((y > value).sum() + (y == value).sum() / 2 for value in x)
        n, m = len(x), len(y)
        ties = sum(count**3 - count for count in np.unique(np.concatenate([x, y]), return_counts=True)[1])
        variance = n * m / 12 * (n + m + 1 - ties / ((n + m) * (n + m - 1)))
        scores.append((u - n * m / 2) / math.sqrt(variance))
    found = copying_test(heldout, synthetic, *cells)
    assert found.value == pytest.approx(np.mean(scores)) and found.se == pytest.approx(math.sqrt(0.5), rel=0.15)
    few = copying_test(heldout[:30], synthetic, cells[0][:30], cells[1])
    assert few.value is None and "20 held-out" in few.notes[0]
    assert copying_test(np.ones(50), np.ones(50), np.zeros(50), np.zeros(50)).value == 0


def test_cells_are_those_of_clusters() -> None:
    rng = np.random.default_rng(0)
    middles = rng.normal(size=(3, 200)) * 5
    train, other = (middles[np.arange(rows) % 3] + rng.normal(size=(rows, 200)) for rows in (900, 60))
    for width in (200, 20):  # with and without principal components
        (cells,) = copying_cells(train[:, :width], [other[:, :width]], 300)
        assert len({*zip(cells.tolist(), (np.arange(60) % 3).tolist())}) == 3
    assert copying_cells(train, [other], 199)[0].tolist() == [0] * 60
    assert len(copying_cells(train[:150], [other], 10_000)[0]) == 60
    wide = k_means(np.zeros((5, 2)), 3)
    assert wide.tolist() == [[0, 0]] * 3
