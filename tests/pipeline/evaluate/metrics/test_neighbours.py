"""Precision, recall, density, coverage: equal to brute force, with ties, duplicates, subsets and any tiles."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pipeline.errors import StepError
from pipeline.evaluate.metrics import neighbours as module
from pipeline.evaluate.metrics import pairs
from pipeline.evaluate.metrics.combined import pair_statistics
from pipeline.evaluate.metrics.neighbours import Neighbours, neighbours
from pipeline.evaluate.metrics.prdc import coverage, density, precision, recall

METRICS = (precision, recall, density, coverage)


def squares(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Squared distances from differences, in float64; exact for small integers."""
    return np.square(x[:, None].astype(np.float64) - y[None]).sum(axis=2)


def brute_force(x: np.ndarray, y: np.ndarray, k: int) -> tuple[float, float, float, float]:
    """The four metrics from their definitions."""
    reals, synthetics = (np.sort(squares(rows, rows), axis=1)[:, k] for rows in (x, y))
    between = squares(x, y)
    in_real = between < reals[:, None]
    return (
        in_real.any(axis=0).mean(),
        (between < synthetics).any(axis=1).mean(),
        in_real.sum() / (k * len(y)),
        in_real.any(axis=1).mean(),
    )


def values(found: Neighbours, k: int) -> tuple[float | None, ...]:
    return tuple(metric(found, k).value for metric in METRICS)


@pytest.fixture(params=[False, True], ids=["one tile", "many tiles"])
def tile_size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param:
        monkeypatch.setattr(pairs, "TILE_ROWS", 16)
        monkeypatch.setattr(pairs, "TILE_COLUMNS", 23)
        monkeypatch.setattr(module, "WAITING", 1)


@pytest.mark.usefixtures("tile_size")
@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize(("n", "m", "d"), [(90, 70, 6), (40, 120, 50), (16, 17, 2)])
def test_values_are_those_of_brute_force(n: int, m: int, d: int, kind: type) -> None:
    rng = np.random.default_rng(n)
    x: np.ndarray = (rng.normal(size=(n, d)) + 50).astype(kind)
    y: np.ndarray = (rng.normal(0.2, 0.9, size=(m, d)) + 50).astype(kind)
    found = neighbours(x, y, ks=(5, 3, 10))[""]
    assert found.ks == (3, 5, 10)
    for k in found.ks:
        assert values(found, k) == pytest.approx(brute_force(x, y, k), rel=1e-12)
    np.testing.assert_allclose(found.real_radii[:, 1], np.sqrt(np.sort(squares(x, x), axis=1)[:, 5]), rtol=1e-12)


@pytest.mark.usefixtures("tile_size")
def test_nearest_neighbours_in_both_directions() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 5)), rng.normal(size=(45, 5))
    nearest = neighbours(x, y)[""].nearest
    own, between = squares(x, x), squares(x, y)
    np.fill_diagonal(own, np.inf)
    for name, distances in (("real to real", own), ("real to synthetic", between), ("synthetic to real", between.T)):
        np.testing.assert_array_equal(nearest[name].indices, distances.argmin(axis=1))
        np.testing.assert_allclose(nearest[name].distances, np.sqrt(distances.min(axis=1)), rtol=1e-12)


@settings(max_examples=40)
@given(
    arrays.arrays(np.int8, st.tuples(st.integers(7, 40), st.just(2)), elements=st.integers(-2, 2)),
    arrays.arrays(np.int8, st.tuples(st.integers(7, 40), st.just(2)), elements=st.integers(-2, 2)),
)
def check_ties(x: np.ndarray, y: np.ndarray) -> None:
    found = neighbours(x, y, ks=(1, 5))[""]
    for k in (1, 5):
        assert values(found, k) == pytest.approx(brute_force(x, y, k), rel=1e-12)


@pytest.mark.usefixtures("tile_size")
def test_ties_and_duplicates_are_those_of_brute_force() -> None:
    check_ties()


def test_copies_are_not_in_a_ball_that_other_copies_have_shrunk_to_nothing() -> None:
    x = np.random.default_rng(0).normal(size=(1, 12)).astype(np.float32).repeat(1200, axis=0) + 100
    found = neighbours(x, x[:50])[""]
    assert values(found, 5) == (0, 0, 0, 0)
    assert not found.nearest["synthetic to real"].distances.any() and not found.real_radii.any()


def test_a_ball_does_not_hold_its_own_edge() -> None:
    x = np.arange(10.0)[:, None]
    assert precision(neighbours(x, x[:8] - 0.0, ks=(1,))[""], 1).value == 1
    assert coverage(neighbours(x, np.full((8, 1), 11.0), ks=(2,))[""], 2).value == 0  # 9 reaches to 7, as far as to 11


@settings(max_examples=25)
@given(st.integers(0, 1000), st.floats(0.01, 100))
def test_invariances(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(30, 3)), rng.normal(0.5, size=(25, 3))
    expected = values(neighbours(x, y)[""], 5)
    assert values(neighbours(x[rng.permutation(30)], y[rng.permutation(25)])[""], 5) == pytest.approx(expected)
    assert values(neighbours(x * scale, y * scale)[""], 5) == pytest.approx(expected)
    assert values(neighbours(x + 3, y + 3)[""], 5) == pytest.approx(expected)


def test_a_set_against_itself_is_all_in_all() -> None:
    x = np.random.default_rng(0).normal(size=(200, 4))
    found = neighbours(x, x)[""]
    assert values(found, 5) == pytest.approx((1, 1, 1, 1))
    assert found.nearest["real to synthetic"].indices.tolist() == [*range(200)]
    far = neighbours(x, x + 1000)[""]
    assert values(far, 5) == (0, 0, 0, 0)
    assert recall(far).ci_low == 0 and recall(far).ci_high != 0


@pytest.mark.usefixtures("tile_size")
def test_a_subset_has_the_values_of_its_rows_alone() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(150, 4)), rng.normal(size=(120, 4))
    subsets = {
        "Edema": (x[:, 0] > 0.3, y[:, 0] > 0.3),
        "Fracture": (np.arange(6), np.arange(50)),
        "Pneumonia": (np.array([], int), np.arange(50)),
    }
    found = pair_statistics(x, y, ks=(3, 5), subsets=subsets).neighbours
    assert [*found] == ["", *subsets]
    assert values(found[""], 5) == pytest.approx(brute_force(x, y, 5))
    mine, theirs = subsets["Edema"]
    alone = neighbours(x[mine], y[theirs], ks=(3, 5))[""]
    for metric in METRICS:
        assert metric(found["Edema"], 5)[:6] == pytest.approx(metric(alone, 5)[:6])
    for name, n in (("Fracture", 6), ("Pneumonia", 0)):
        few = coverage(found[name])
        assert few.value is None and few.n_real == n and few.notes == ("needs more than 6 rows a side",)
    assert coverage(found["Fracture"], 3).value == pytest.approx(brute_force(x[:6], y[:50], 3)[3])


def test_no_more_rows_than_neighbours_are_refused() -> None:
    x = np.random.default_rng(0).normal(size=(6, 2))
    found = neighbours(x, x)[""]
    assert [metric(found).value for metric in METRICS] == [None] * 4
    assert neighbours(x[:1], x)[""].nearest["real to real"].indices.tolist() == [-1]
    assert np.isnan(neighbours(x[:5], x)[""].real_radii).all()
    with pytest.raises(StepError, match="0 real"):
        neighbours(x[:0], x)


def test_patients_are_the_unit_of_the_real_side() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(300, 4)), rng.normal(0.8, size=(300, 4))
    found = neighbours(x, y)[""]
    alone, grouped = coverage(found), coverage(found, real_groups=np.arange(300) // 100)
    assert alone.value == grouped.value and alone.se != grouped.se
    assert coverage(found, real_groups=np.zeros(300)).se is None
    with pytest.raises(StepError, match="groups"):
        density(found, real_groups=np.arange(3))
