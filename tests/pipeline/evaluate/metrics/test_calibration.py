"""Calibration by real pairs: draws, thresholds, intervals that hold what they should."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluate.metrics.calibration import (
    closer_auc,
    closer_share,
    draw_partners,
    expected_rate,
    match_rate,
    mean_over_sources,
)
from pipeline.evaluate.metrics.estimate import Estimate


def draws(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def rate(closeness: np.ndarray, strangers: np.ndarray, groups: np.ndarray | None = None) -> Estimate:
    """Returns the rate of pairs of as many patients, against pairs of other patients each."""
    others = np.arange(2 * len(strangers)).reshape(-1, 2)
    return match_rate(closeness, np.arange(len(closeness)) if groups is None else groups, strangers, others)


# Draws


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30),
    st.integers(0, 9),
)
def test_a_partner_fits_and_is_missing_only_where_there_is_none(rows: list[tuple[int, ...]], seed: int) -> None:
    keys, one, two = (np.array(column) for column in zip(*rows))
    found = draw_partners(np.arange(len(rows)), keys, [one, two], draws(seed))
    for row, partner in enumerate(found):
        fits = (keys == keys[row]) & (one != one[row]) & (two != two[row])
        assert fits[partner] if partner >= 0 else not fits.any()


def test_every_partner_that_fits_is_as_likely() -> None:
    keys = np.array([0, 0, 0, 0, 1])
    found = draw_partners(np.zeros(6000, np.intp), keys, [np.array([0, 1, 2, 0, 3])], draws())
    counts = np.bincount(found, minlength=5)
    assert counts[[0, 3, 4]].tolist() == [0, 0, 0] and abs(counts[1] - 3000) < 200


def test_a_rare_partner_is_found() -> None:
    barred = np.zeros(5000, np.intp)
    barred[4321] = 1
    assert draw_partners(np.arange(3), np.zeros(5000, np.intp), [barred], draws()).tolist() == [4321] * 3


# Means


def test_each_training_image_counts_once() -> None:
    closeness, sources = np.array([1.0, 3, 5, 10]), np.array([7, 7, 7, 2])
    found = mean_over_sources(closeness, sources, sources)
    assert (found.value, found.n_real, found.n_synthetic) == (6.5, 2, 4)
    assert mean_over_sources(closeness, sources, sources, extreme=True).value == 7.5


def test_patients_are_the_units() -> None:
    closeness = draws().normal(size=60)
    own = mean_over_sources(closeness, np.arange(60), np.arange(60))
    copied = mean_over_sources(np.repeat(closeness, 4), np.arange(240), np.repeat(np.arange(60), 4))
    assert own.value == pytest.approx(copied.value) and own.se == pytest.approx(copied.se)
    assert own.se == pytest.approx(closeness.std(ddof=1) / 60**0.5)


def test_one_patient_has_no_interval() -> None:
    found = mean_over_sources(np.array([1.0, 2.0]), np.array([0, 1]), np.zeros(2))
    assert (found.value, found.se, found.ci_low) == (1.5, None, None)


# Thresholds


def test_the_rate_of_more_strangers_is_the_expected_one() -> None:
    rates = list[float]()
    for seed in range(300):
        closeness = draws(seed).normal(size=1400)
        rates.append(rate(closeness[:1000], closeness[1000:]).value or 0)
    assert expected_rate(400) == pytest.approx(4 / 401)
    assert np.mean(rates) == pytest.approx(expected_rate(400), abs=3 * np.std(rates) / 300**0.5)


@pytest.mark.parametrize(("strangers", "pairs"), [(1000, 300), (10_000, 5000)])
@pytest.mark.parametrize("shift", [0, 1])
def test_the_interval_counts_the_threshold(strangers: int, pairs: int, shift: int) -> None:
    """It holds the rate beyond the true threshold; that of a share alone would do so too seldom."""
    held = 0
    for seed in range(200):
        closeness = draws(seed).normal(size=strangers + pairs)
        found = rate(closeness[strangers:] + shift, closeness[:strangers])
        true = {0: 0.01, 1: 0.0923}[shift]  # P(z + shift > 2.326)
        assert found.ci_low is not None and found.ci_high is not None
        held += found.ci_low <= true <= found.ci_high
    assert held / 200 >= 0.92


def test_ties_pass_in_proportion() -> None:
    """Of 200 strangers 20 are as close as can be: a tenth of such pairs passes, not all and not none."""
    strangers = np.where(np.arange(200) < 20, 1.0, 0.0)
    assert rate(np.ones(50), strangers).value == pytest.approx(0.1)
    assert rate(strangers, strangers).value == pytest.approx(0.01)
    assert rate(np.zeros(50), strangers).value == 0


@given(st.integers(99, 400), st.lists(st.integers(0, 5), min_size=99, max_size=99), st.integers(0, 9))
def test_strangers_against_themselves(size: int, values: list[int], seed: int) -> None:
    strangers = draws(seed).choice(np.array(values, float), size)
    found = rate(strangers, strangers)
    assert found.value == pytest.approx(max(1, round((size + 1) / 100)) / size)


def test_copies_pass_and_few_strangers_are_refused() -> None:
    strangers = draws().normal(size=99)
    assert rate(np.full(30, 9.0), strangers).value == 1
    few = rate(np.full(30, 9.0), strangers[:98])
    assert few.value is None and "99 pairs of different patients" in few.notes[0] and "98" in few.notes[0]


def test_patients_widen_the_interval() -> None:
    strangers, closeness = draws().normal(size=40_000), np.repeat(draws(1).normal(1.5, size=100), 8)
    one, eight = (rate(closeness, strangers, groups) for groups in (np.arange(800), np.repeat(np.arange(100), 8)))
    assert one.value == eight.value and one.se and eight.se and eight.se > one.se
    assert one.ci_low is not None and one.ci_high is not None and eight.ci_low is not None and eight.ci_high is not None
    assert eight.ci_high - eight.ci_low > 2 * (one.ci_high - one.ci_low)


def test_few_images_in_many_pairs_make_a_rough_threshold() -> None:
    """40 training images in 1,560 pairs: the pairs of one image are near together, or far."""
    held = {True: 0, False: 0}
    for seed in range(150):
        images = draws(seed).normal(size=(40, 8))
        one, two = np.array([(a, b) for a in range(40) for b in range(40) if a != b]).T
        strangers = -np.linalg.norm(images[one] - images[two], axis=1)
        closeness = -np.linalg.norm(np.subtract(*draws(seed + 1000).normal(size=(2, 400, 8))), axis=1)
        for counts in held:
            groups = np.stack([one, two], axis=1) if counts else np.arange(2 * len(one)).reshape(-1, 2)
            found = match_rate(closeness, np.arange(400), strangers, groups)
            assert found.ci_low is not None and found.ci_high is not None
            held[counts] += found.ci_low <= 0.01 <= found.ci_high
    assert held[True] / 150 > 0.88 and held[True] >= held[False]


# AUC and share


def test_the_auc_by_hand_and_by_chance() -> None:
    found = closer_auc(np.array([3.0, 1.0]), np.arange(2), np.array([2.0, 1.0]), np.arange(2, 4))
    assert found.value == pytest.approx((2 + 0.5) / 4)
    closeness = draws().normal(size=4000)
    found = closer_auc(closeness[:2000], np.arange(2000), closeness[2000:], np.arange(2000, 4000))
    assert found.ci_low is not None and found.ci_high is not None and found.ci_low < 0.5 < found.ci_high


def test_the_share_is_free_of_what_all_synthetic_images_have() -> None:
    own = draws().normal(size=500)
    other = own + draws(1).normal(size=500)
    near, far = (closer_share(own + shift, other + shift, np.arange(500)) for shift in (-40, 40))
    assert near.value == far.value and near.ci_low is not None and near.ci_high is not None
    assert near.ci_low < 0.5 < near.ci_high
    assert closer_share(own + 5, own, np.arange(500)).value == 1
    assert closer_share(own, own, np.arange(500)).value == 0.5
    assert closer_share(np.empty(0), np.empty(0), np.empty(0)).value is None
