"""The floor: disjoint parts of the real set at the size of the comparison, without a patient in both."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluate.metrics.floor import affordable_splits, random_halves, real_floor
from pipeline.evaluate.metrics.frechet import fd_value


@given(st.lists(st.integers(0, 8), max_size=60), st.integers(1, 40), st.booleans())
def test_parts_are_disjoint_of_one_size_and_share_no_patient(patients: list[int], n: int, grouped: bool) -> None:
    groups, rows = np.array(patients, int), len(patients)
    halves = random_halves(rows, n, splits=3, groups=groups if grouped else None)
    assert len(halves) == 3 and len({len(part) for pair in halves for part in pair}) == 1
    for one, two in halves:
        assert len({*one} | {*two}) == 2 * len(one) <= min(2 * n, rows)
        assert not grouped or not {*groups[one]} & {*groups[two]}
    if not grouped:
        assert len(halves[0][0]) == min(n, rows // 2)


def test_parts_are_seeded() -> None:
    one, other = (random_halves(100, 30, seed=seed)[0][0].tolist() for seed in (0, 1))
    assert one == random_halves(100, 30)[0][0].tolist() != other


def test_the_floor_of_fd_is_its_bias_at_this_size() -> None:
    x = np.random.default_rng(0).normal(size=(4000, 20))
    small, large = (
        real_floor(lambda one, two: fd_value(x[one], x[two]), random_halves(len(x), n)) for n in (100, 2000)
    )
    assert small.value and large.value and small.sd
    assert small.n == 100 and small.splits == 10 and small.value > 10 * large.value and small.sd < 0.3 * small.value


def test_a_refused_metric_has_no_floor() -> None:
    assert real_floor(lambda one, two: None, random_halves(100, 30)) == (None, None, 30, 10)
    assert real_floor(lambda one, two: 1.0, random_halves(1, 30)) == (None, None, 0, 10)


@given(st.integers(0, 10**6))
def test_a_floor_of_pairs_costs_no_more_than_ten_splits_of_four_thousand_rows(n: int) -> None:
    splits = affordable_splits(n)
    assert 1 <= splits <= 10 and (splits == 1 or splits * n**2 <= 10 * 4_000**2 * 1.5)
