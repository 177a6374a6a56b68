"""FD: closed forms, the rank-deficient case, influences, refusals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import StepError
from pipeline.evaluate.metrics.frechet import fd, fd_influences, fd_value, frechet_distance
from pipeline.evaluate.metrics.moments import Moments, moments_of


def drawn(n: int, d: int, seed: int = 0) -> np.ndarray:
    """Rows of a distribution with correlated features, far from the origin."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) @ np.random.default_rng(99).normal(size=(d, d)) / np.sqrt(d) + 5


def by_definition(x: np.ndarray, y: np.ndarray) -> float:
    """FD from the eigenvalues of the product of the covariances, as most libraries compute it."""
    one, two = np.cov(x.T), np.cov(y.T)
    roots = np.sqrt(np.linalg.eigvals(one @ two).astype(complex)).real.sum()
    return float(np.square(x.mean(axis=0) - y.mean(axis=0)).sum() + np.trace(one) + np.trace(two) - 2 * roots)


def test_two_gaussians_with_commuting_covariances() -> None:
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    ones, twos = rng.uniform(0.1, 4, size=(2, 6))
    means = rng.normal(size=(2, 6))
    gaussians = [Moments(2, mean, axes * spread**2 @ axes.T) for mean, spread in zip(means, (ones, twos))]
    expected = np.square(means[0] - means[1]).sum() + np.square(ones - twos).sum()
    assert frechet_distance(*gaussians) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("n", "m", "d"), [(300, 200, 8), (60, 90, 20), (400, 55, 30)])
def test_value_is_that_of_the_definition(n: int, m: int, d: int) -> None:
    x, y = drawn(n, d), drawn(m, d, 1) * 1.3
    assert fd_value(x, y) == pytest.approx(by_definition(x, y), rel=1e-8)


@pytest.mark.parametrize(("n", "m"), [(20, 30), (20, 200), (200, 20), (39, 40), (40, 41)])
def test_fewer_rows_than_features_give_what_the_full_matrices_give(n: int, m: int) -> None:
    x, y = drawn(n, 40), drawn(m, 40, 1) + 0.5
    assert fd_value(x, y) == pytest.approx(frechet_distance(moments_of(x), moments_of(y)), rel=1e-6)


@pytest.mark.parametrize(("n", "d"), [(500, 6), (60, 100), (200, 100)])
def test_a_set_has_no_distance_from_itself_and_a_shift_adds_its_square(n: int, d: int) -> None:
    x = drawn(n, d)
    scale = np.trace(np.cov(x.T))
    assert fd_value(x, x[::-1]) == pytest.approx(0, abs=1e-9 * scale)
    assert fd_value(x, x + 0.5) == pytest.approx(0.25 * d, abs=1e-9 * scale)


@settings(max_examples=30)
@given(st.integers(0, 1000), st.sampled_from([5, 70]), st.floats(0.1, 10))
def test_invariances(seed: int, d: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(60, d)), rng.normal(0.3, 1.5, size=(60, d))
    value = fd_value(x, y)
    rotation = np.linalg.qr(rng.normal(size=(d, d)))[0]
    assert fd_value(y, x) == pytest.approx(value, rel=1e-8)
    assert fd_value(x[rng.permutation(60)], y) == pytest.approx(value, rel=1e-8)
    assert fd_value(x @ rotation + 7, y @ rotation + 7) == pytest.approx(value, rel=1e-7)
    assert fd_value(x * scale, y * scale) == pytest.approx(value * scale**2, rel=1e-7)


def test_float32_features_are_summed_in_float64() -> None:
    x, y = drawn(400, 8).astype(np.float32), drawn(300, 8, 1).astype(np.float32)
    assert fd_value(x, y) == pytest.approx(by_definition(x.astype(np.float64), y.astype(np.float64)), rel=1e-8)


def test_influence_is_the_change_when_a_row_gains_weight() -> None:
    x, y = drawn(200, 4), drawn(150, 4, 1) + 0.3
    result = fd(x, y)
    assert result.synthetic is not None and result.real is not None

    def reweighted(weights: np.ndarray) -> float:
        mean = weights @ y
        m2 = (y - mean).T @ ((y - mean) * weights[:, None])
        return frechet_distance(moments_of(x), Moments(151, mean, m2 * 150))

    step, base = 1e-6, np.full(150, 1 / 150)
    for row in (0, 17):
        moved = (1 - step) * base + step * (np.arange(150) == row)
        slope = (reweighted(moved) - reweighted(base)) / step
        assert slope == pytest.approx(result.synthetic[row], rel=0.02, abs=0.02)
    assert abs(result.synthetic.mean()) < 1e-9 and abs(result.real.mean()) < 1e-9


def test_the_image_that_fits_worst_adds_most() -> None:
    x, y = drawn(500, 5), drawn(300, 5, 1)
    y[42] += 30
    found = fd(x, y).synthetic
    assert found is not None and found.argmax() == 42


def test_few_rows_are_refused_or_marked() -> None:
    few = fd(drawn(49, 4), drawn(500, 4, 1)).estimate
    assert few.value is None and few.se is None and "at least 50" in few.notes[0] and few[4:6] == (49, 500)
    singular = fd(drawn(60, 70), drawn(60, 70, 1)).estimate
    assert "singular" in singular.notes[0] and "jackknife" in singular.notes[-1]
    biased = fd(drawn(200, 30), drawn(200, 30, 1)).estimate
    assert "bias" in biased.notes[0] and "delta" in biased.notes[-1]
    assert fd(drawn(200, 10), drawn(200, 10, 1)).estimate.notes == ("standard error: delta method",)


def test_copies_of_patients_widen_the_interval() -> None:
    x, y = drawn(200, 4), drawn(400, 4, 1)
    patients = np.arange(200)
    alone = fd(x, y, patients).estimate
    assert alone == fd(x, y).estimate
    copied = fd(np.repeat(x, 4, axis=0), y, np.repeat([f"p{n}" for n in patients], 4)).estimate
    ignored = fd(np.repeat(x, 4, axis=0), y).estimate
    assert alone.se and copied.se and ignored.se
    assert copied.se == pytest.approx(alone.se, rel=0.05) and ignored.se < 0.8 * copied.se


def test_constant_features_are_no_trouble() -> None:
    x, y = drawn(300, 5), drawn(300, 5, 1)
    padded = fd(np.hstack([x, np.ones((300, 2))]), np.hstack([y, np.ones((300, 2))])).estimate
    plain = fd(x, y).estimate
    assert padded.value == pytest.approx(plain.value, rel=1e-8) and padded.se == pytest.approx(plain.se, rel=1e-6)


@pytest.mark.parametrize("d", [4, 30, 90])
def test_chosen_rows_are_those_of_the_copies(d: int) -> None:
    x, y, patients = drawn(200, d), drawn(150, d, 1), np.arange(200) // 3
    rows = np.arange(0, 200, 2), np.arange(20, 100)
    chosen, copied = fd(x, y, patients, rows=rows), fd(x[rows[0]], y[rows[1]], patients[rows[0]])
    assert chosen.estimate == copied.estimate
    assert fd_value(x, y, rows) == pytest.approx(copied.estimate.value, rel=1e-10)
    assert (chosen.real is None) == (copied.real is None) == (d > 26)


def test_wrong_groups_are_an_error() -> None:
    with pytest.raises(StepError, match="groups must have the shape"):
        fd(drawn(60, 3), drawn(60, 3, 1), np.arange(59))


def test_influences_of_wide_features_are_those_of_all_their_columns() -> None:
    """Few rows are taken to the space that they span."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 30)), rng.normal(0.3, 1.2, size=(25, 30))
    turned = np.linalg.qr(rng.normal(size=(60, 30)))[0].T
    for narrow, wide in zip(fd_influences(x, y), fd_influences(x @ turned, y @ turned)):
        assert wide == pytest.approx(narrow, abs=1e-6)
