"""The bootstrap over patients, against what is known of means; scores as functions of sums."""

import numpy as np
import pytest

from pipeline.evaluate.metrics.estimate import mean_variance
from pipeline.evaluate.metrics.resampling import percentile_interval, sums_and_resamples
from pipeline.evaluate.metrics.text_scores import (
    FIVE,
    bleu_scores,
    finding_scores,
    finding_statistics,
    mean_score,
    shuffled_order,
    with_ones,
)
from pipeline.evaluate.report_meanings import MEANINGS
from synthchex_75k import LABELS


def test_the_standard_error_of_a_mean_is_the_cluster_robust_one() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 150, 600)
    values = rng.normal(size=600) + rng.normal(size=150)[groups]
    sums, resampled = sums_and_resamples(with_ones(values), groups, 4000)
    mean = mean_score("m").value
    assert mean(sums) == pytest.approx(values.mean())
    found = percentile_interval(mean(resampled))
    assert found is not None
    assert found[0] == pytest.approx(mean_variance(values, groups) ** 0.5, rel=0.1)
    assert found[0] > 1.3 * mean_variance(values) ** 0.5, "patients matter here"


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    mean, held = mean_score("m").value, 0
    for seed in range(200):
        patients = rng.normal(size=60)
        groups = np.repeat(np.arange(60), rng.integers(1, 4, 60))
        values = patients[groups] + rng.normal(size=len(groups))
        found = percentile_interval(mean(sums_and_resamples(with_ones(values), groups, 300, seed)[1]))
        assert found is not None
        held += found[1] <= 0 <= found[2]
    assert 0.9 <= held / 200 <= 0.99


def test_draws_depend_on_the_seed_and_the_number_of_groups_alone() -> None:
    one, other = np.arange(12.0).reshape(6, 2), np.ones((6, 3))
    both = sums_and_resamples(np.concatenate([one, other], axis=1), resamples=250, seed=3)[1]
    assert np.array_equal(both[:, :2], sums_and_resamples(one, resamples=250, seed=3)[1])
    assert np.array_equal(both[:, 2:], np.full((250, 3), 6.0))
    assert not np.array_equal(both[:, :2], sums_and_resamples(one, resamples=250, seed=4)[1])
    by_name = sums_and_resamples(one, np.array(list("abcdef")), 250, 3)[1]
    assert np.array_equal(both[:, :2], by_name)


def test_a_value_that_is_not_finite_has_no_interval() -> None:
    assert percentile_interval(np.array([1.0, np.nan])) is None


def test_findings_in_no_text_have_no_f1_and_no_part_in_the_mean() -> None:
    references, texts = np.zeros((2, 4, 14), np.int8)
    edema, fracture = LABELS.index("Edema"), LABELS.index("Fracture")
    references[:, edema], texts[:, edema] = [1, 1, 0, 0], [1, 0, 1, 0]
    references[0, fracture] = texts[0, fracture] = -1
    sums = finding_statistics(references, texts).sum(0)
    found = {(score.metric, score.label): float(score.value(sums)) for score in finding_scores()}
    assert found["chexbert_f1", "Edema"] == found["chexbert_f1_macro_14", None] == 0.5
    assert found["chexbert_f1_macro_5", None] == found["chexbert_f1_micro_5", None] == 0.5
    assert found["chexbert_f1_macro_14_uncertain_positive", None] == 0.75
    assert found["chexbert_f1_micro_14_uncertain_positive", None] == pytest.approx(4 / 6)
    assert {label for (_, label), value in found.items() if np.isnan(value)} == {*LABELS} - {"Edema"}
    assert len(FIVE) == 5


@pytest.mark.parametrize("seed", range(5))
def test_shuffled_reports_are_of_other_patients(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 12, 60).astype(str)
    order = shuffled_order(groups, seed)
    assert sorted(order) == [*range(60)]
    assert (groups[order] != groups).all()
    assert not np.array_equal(order, shuffled_order(groups, seed + 1))


def test_each_score_has_a_meaning() -> None:
    names = {"rouge_l", "f1_radgraph", *(score.metric for score in (*bleu_scores(), *finding_scores()))}
    assert {*MEANINGS} == names
