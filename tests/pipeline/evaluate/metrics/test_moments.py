"""Moments: equal to numpy's, to the same bits for shards in any order."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import StepError
from pipeline.evaluate.metrics import features
from pipeline.evaluate.metrics.features import check_features
from pipeline.evaluate.metrics.moments import Moments, merge_moments, moments_of


def drawn(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(3.0, 2.0, size=(n, d))


def bits(moments: Moments) -> tuple[int, bytes, bytes]:
    return moments.n, moments.mean.tobytes(), moments.m2.tobytes()


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_moments_are_those_of_numpy(kind: type) -> None:
    data: np.ndarray = (drawn(500, 7) + 1000).astype(kind)  # far from the origin, where sums of squares lose digits
    found = moments_of(data)
    assert found.n == 500
    np.testing.assert_allclose(found.mean, data.mean(axis=0, dtype=np.float64), rtol=1e-14)
    np.testing.assert_allclose(found.covariance, np.cov(data.T, dtype=np.float64), rtol=1e-9, atol=1e-12)


def test_many_blocks_give_what_one_block_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    data = drawn(700, 9).astype(np.float32)
    whole = moments_of(data)
    monkeypatch.setattr(features, "BLOCK_BYTES", 8 * 9 * 40)
    assert len([*features.row_blocks(data)]) == 18
    found = moments_of(data)
    assert found.n == 700
    np.testing.assert_allclose(found.mean, whole.mean, rtol=1e-14)
    np.testing.assert_allclose(found.m2, whole.m2, rtol=1e-10, atol=1e-9)


def test_chosen_rows_are_those_of_the_copy() -> None:
    data, rows = drawn(50, 3), np.array([4, 1, 33])
    assert bits(moments_of(data, rows)) == bits(moments_of(data[rows]))


def test_shards_in_any_order_give_the_same_bits() -> None:
    data = drawn(90, 5)
    shards = [moments_of(part) for part in np.split(data, [7, 20, 41, 60])]
    merged = {bits(merge_moments(order)) for order in itertools.permutations(shards)}
    assert len(merged) == 1
    np.testing.assert_allclose(merge_moments(shards).covariance, np.cov(data.T), rtol=1e-12)


@given(st.lists(st.integers(0, 30), max_size=6), st.randoms(use_true_random=False))
def test_where_the_shards_are_cut_changes_no_more_than_rounding(cuts: list[int], random: object) -> None:
    data = drawn(30, 3)
    shards = [moments_of(part) for part in np.split(data, sorted(cuts)) if len(part)]
    random.shuffle(shards)  # type: ignore[attr-defined]
    found = merge_moments(shards)
    assert found.n == 30
    np.testing.assert_allclose(found.covariance, np.cov(data.T), rtol=1e-10)


def test_no_rows_have_no_moments() -> None:
    with pytest.raises(StepError, match="at least one row"):
        moments_of(np.empty((0, 3)))
    with pytest.raises(StepError, match="at least one row"):
        merge_moments([])


def test_features_that_cannot_be_used_are_named() -> None:
    bad = np.ones((9, 2))
    bad[6, 1] = np.nan
    with pytest.raises(StepError, match="set 2, row 6"):
        check_features(np.ones((4, 2)), bad)
    with pytest.raises(StepError, match=r"set 2: \(4, 3\)"):
        check_features(np.ones((4, 2)), np.ones((4, 3)))
    assert check_features(np.ones((4, 2), np.float16))[0].dtype == np.float32
