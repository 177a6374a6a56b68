"""KID and CMMD: equal to their definitions over all pairs, whatever the tiles and subsets."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evaluate.metrics import pairs
from pipeline.evaluate.metrics.kernel import cmmd, cmmd_biased, kernel_sums, kid, kid_of_subsets, polynomial_mmd


def drawn(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.4, 1.0, size=(n, d))


def polynomial(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x @ y.T / x.shape[1] + 1) ** 3


def gaussian(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, y = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (x, y))
    return np.exp(-np.square(x[:, None] - y[None]).sum(axis=2) / 200)


def unbiased(kernel: Any, x: np.ndarray, y: np.ndarray) -> float:
    within = 0.0
    for rows in (x, y):
        values = kernel(rows, rows)
        within += (values.sum() - np.trace(values)) / (len(rows) * (len(rows) - 1))
    return float(within - 2 * kernel(x, y).mean())


@pytest.fixture(params=[False, True], ids=["one tile", "many tiles"])
def tile_size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param:
        monkeypatch.setattr(pairs, "TILE_ROWS", 16)
        monkeypatch.setattr(pairs, "TILE_COLUMNS", 23)


@pytest.mark.usefixtures("tile_size")
@pytest.mark.parametrize(("n", "m", "d"), [(50, 70, 5), (33, 16, 40), (2, 2, 1)])
def test_values_are_those_of_the_definitions(n: int, m: int, d: int) -> None:
    x, y = drawn(n, d), drawn(m, d, 1) * 1.2
    sums = kernel_sums(x, y)
    assert kid(sums["kid"][""]).value == pytest.approx(unbiased(polynomial, x, y), rel=1e-10, abs=1e-12)
    assert cmmd(sums["cmmd"][""]).value == pytest.approx(1000 * unbiased(gaussian, x, y), rel=1e-9, abs=1e-9)
    biased = gaussian(x, x).mean() + gaussian(y, y).mean() - 2 * gaussian(x, y).mean()
    assert cmmd_biased(sums["cmmd"][""]) == pytest.approx(1000 * biased, rel=1e-9, abs=1e-9)
    assert polynomial_mmd(x, y) == pytest.approx(unbiased(polynomial, x, y), rel=1e-10, abs=1e-12)


@pytest.mark.usefixtures("tile_size")
def test_a_subset_has_the_value_of_its_rows_alone() -> None:
    x, y = drawn(60, 6), drawn(50, 6, 1)
    mine, theirs = x[:, 0] > 0.5, np.flatnonzero(y[:, 1] > 0)
    sums = kernel_sums(x, y, subsets={"Edema": (mine, theirs), "Fracture": (np.array([], int), theirs)})
    alone = kernel_sums(x[mine], y[theirs])
    for name, metric in (("kid", kid), ("cmmd", cmmd)):
        assert metric(sums[name]["Edema"])[:6] == pytest.approx(metric(alone[name][""])[:6], rel=1e-8)
        empty = metric(sums[name]["Fracture"])
        assert empty.value is None and empty.n_real == 0 and "at least 2 rows" in empty.notes[0]
    assert [*sums["kid"]] == ["", "Edema", "Fracture"]


@pytest.mark.usefixtures("tile_size")
def test_pairs_within_a_patient_are_left_out() -> None:
    x, y, patients = drawn(60, 4), drawn(50, 4, 1), np.random.default_rng(0).integers(0, 20, 60)
    others = patients[:, None] != patients
    found = kernel_sums(x, y, subsets={"Edema": (np.arange(40), np.arange(50))}, groups=patients)
    for name, metric, kernel, scale in (("kid", kid, polynomial, 1), ("cmmd", cmmd, gaussian, 1000)):
        for label, n in (("", 60), ("Edema", 40)):
            within, of_y = kernel(x, x)[:n, :n][others[:n, :n]].mean(), kernel(y, y)
            expected = within + (of_y.sum() - np.trace(of_y)) / (50 * 49) - 2 * kernel(x[:n], y).mean()
            value = metric(found[name][label], patients[:n]).value
            assert value == pytest.approx(scale * expected, rel=1e-9, abs=1e-9)
            if name == "kid":
                assert polynomial_mmd(x[:n], y, patients[:n]) == pytest.approx(expected, rel=1e-9)


def test_several_images_of_a_patient_do_not_move_kid_from_zero() -> None:
    values = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        patients = np.arange(120) // 4
        x = 0.9 * rng.normal(size=(30, 8))[patients] + 0.19**0.5 * rng.normal(size=(120, 8))
        y = rng.normal(size=(60, 8))
        found = kernel_sums(x, y, groups=patients)
        subsets = kid_of_subsets(x, y, subsets=3, groups=patients)
        values.append(
            np.array([kid(found["kid"][""], patients).value, cmmd(found["cmmd"][""]).value, subsets.value], float)
        )
    means, errors = np.mean(values, axis=0), np.std(values, axis=0) / 40**0.5
    assert (np.abs(means) < 3 * errors).all(), (means, errors)


def test_one_patient_has_no_pairs() -> None:
    x, y, patients = drawn(60, 4), drawn(60, 4, 1), np.zeros(60, int)
    assert "2 groups" in kid(kernel_sums(x, y, groups=patients)["kid"][""], patients).notes[0]
    assert "2 groups" in kid_of_subsets(x, y, groups=patients).notes[0]


def test_float32_keeps_six_digits_far_from_the_origin() -> None:
    x, y = (drawn(300, 64, seed) + 3 for seed in (0, 1))
    sums = kernel_sums(x.astype(np.float32), (1.05 * y).astype(np.float32))
    assert kid(sums["kid"][""]).value == pytest.approx(unbiased(polynomial, x, 1.05 * y), rel=1e-5)
    assert cmmd(sums["cmmd"][""]).value == pytest.approx(1000 * unbiased(gaussian, x, 1.05 * y), abs=1e-5)


@settings(max_examples=25)
@given(st.integers(0, 1000), st.floats(0.1, 10))
def test_invariances(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(20, 4)), rng.normal(0.5, size=(30, 4))
    sums = kernel_sums(x, y)
    shuffled = kernel_sums(x[rng.permutation(20)], y[rng.permutation(30)])
    assert kid(shuffled["kid"][""])[:4] == pytest.approx(kid(sums["kid"][""])[:4], rel=1e-7)
    scaled = kernel_sums(x * scale, y * scale, ["cmmd"])
    assert cmmd(scaled["cmmd"][""])[:4] == pytest.approx(cmmd(sums["cmmd"][""])[:4], rel=1e-6, abs=1e-9)
    swapped = kernel_sums(y, x)
    assert kid(swapped["kid"][""]).value == pytest.approx(kid(sums["kid"][""]).value, rel=1e-7)


def test_a_set_against_itself_is_below_zero_and_a_shift_is_seen() -> None:
    x = drawn(200, 8)
    same, moved = kernel_sums(x, x), kernel_sums(x, x + 1)
    below, above = kid(same["kid"][""]).value, kid(moved["kid"][""]).ci_low
    assert below and above and -0.5 < below < 0 < above
    assert cmmd_biased(same["cmmd"][""]) == pytest.approx(0, abs=1e-9)


def test_subsets_of_all_rows_are_the_whole() -> None:
    x, y = drawn(40, 5), drawn(40, 5, 1)
    found = kid_of_subsets(x, y)
    assert found.value == pytest.approx(polynomial_mmd(x, y), rel=1e-10)
    assert found.se is None and "no standard error" in found.notes[-1]


def test_subsets_are_seeded_and_agree_with_the_whole() -> None:
    x, y = drawn(2000, 5), drawn(1500, 5, 1) + 0.2
    found = kid_of_subsets(x, y, size=100)
    assert found == kid_of_subsets(x, y, size=100) != kid_of_subsets(x, y, size=100, seed=1)
    rows = np.arange(5, 1500), np.arange(900)
    assert kid_of_subsets(x, y, size=100, rows=rows) == kid_of_subsets(x[rows[0]], y[rows[1]], size=100)
    whole = kid(kernel_sums(x, y)["kid"][""])
    assert found.se == pytest.approx(whole.se, rel=0.4) and found.se and found.value and whole.value
    assert abs(found.value - whole.value) < 2 * found.se


def test_the_error_of_subsets_counts_patients() -> None:
    """The images of a patient tell as much as one of them, so that more of them make no smaller error."""
    one, y = drawn(200, 5), drawn(1200, 5, 1) + 0.4
    six, patients = one.repeat(6, axis=0) + drawn(1200, 5, 2) / 100, np.arange(200).repeat(6)
    whole = kid(kernel_sums(six, y, ["kid"], groups=patients)["kid"][""], patients)
    found = kid_of_subsets(six, y, 60, 200, groups=patients)
    assert found.se == pytest.approx(whole.se, rel=0.3) and whole.se
    shuffled = np.random.default_rng(0).permutation(1200)
    mixed = kid_of_subsets(six[shuffled], y, 60, 200, groups=patients[shuffled])
    assert mixed.se == pytest.approx(whole.se, rel=0.3)
    assert kid_of_subsets(six, y, 60, 200).se == pytest.approx(0, abs=0.7 * whole.se)  # of rows, it is too small


def test_few_rows_are_marked() -> None:
    few, enough = (kid(kernel_sums(drawn(n, 3), drawn(60, 3, 1))["kid"][""]) for n in (49, 50))
    assert "rough" in few.notes[0] and "rough" not in enough.notes[0]


def test_unknown_kernels_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown kernels"):
        kernel_sums(drawn(3, 2), drawn(3, 2), ["rbf"])
