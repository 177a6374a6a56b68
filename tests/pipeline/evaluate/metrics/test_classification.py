"""AUROC, average precision and F1 of classifiers: by hand, by derivatives, paired, and what their intervals hold."""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import StepError
from pipeline.evaluate.metrics.auroc import label_auroc
from pipeline.evaluate.metrics.classification import (
    METRICS,
    Run,
    Score,
    auroc_influence,
    average_precision_influence,
    best_threshold,
    classification_scores,
    f1_influence,
)


def measured(
    runs: dict[str, list[Run]], targets: np.ndarray, names: Sequence[str], groups: np.ndarray | None = None
) -> dict[tuple[str, str, str | None], Score]:
    scores = classification_scores(runs, targets, names, groups)
    return {(one.metric, one.setting, one.label): one for one in scores}


def runs_of(*tests: np.ndarray, validation: np.ndarray | None = None, targets: np.ndarray | None = None) -> list[Run]:
    """Runs whose validation set has one positive row above a negative one, unless given."""
    width = tests[0].shape[1]
    values = np.tile([[1.0], [0.0]], width) if validation is None else validation
    return [Run(test, values, np.tile([[1.0], [0.0]], width) if targets is None else targets) for test in tests]


# Values


def weighted_auroc(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> float:
    wins = (scores[positive][:, None] > scores[~positive]) + (scores[positive][:, None] == scores[~positive]) / 2
    pairs = weights[positive][:, None] * weights[~positive]
    return float((wins * pairs).sum() / pairs.sum())


def weighted_precision(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> float:
    called = scores >= scores[:, None]  # at the threshold of each row
    precision = (called * (weights * positive)).sum(axis=1) / (called * weights).sum(axis=1)
    return float((weights * positive * precision).sum() / (weights * positive).sum())


def weighted_f1(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> float:
    called = scores >= 0
    hits = (weights * (called & positive)).sum()
    return float(2 * hits / ((weights * called).sum() + (weights * positive).sum()))


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=25))
def test_values_and_influences_are_those_of_weighted_rows(rows: list[tuple[int, bool]]) -> None:
    scores, positive = np.array([row[0] for row in rows], float), np.array([row[1] for row in rows])
    positive[:2] = True, False
    ones = np.ones(len(rows))
    for weighted, (value, influence) in (
        (weighted_auroc, auroc_influence(scores, positive)),
        (weighted_precision, average_precision_influence(scores, positive)),
        (weighted_f1, f1_influence(scores >= 0, positive)),
    ):
        assert value == pytest.approx(weighted(scores, positive, ones), abs=1e-12)
        assert influence.sum() == pytest.approx(0, abs=1e-12)
        for row in range(len(rows)):
            step = np.zeros(len(rows))
            step[row] = 1e-6
            derivative = (weighted(scores, positive, ones + step) - weighted(scores, positive, ones - step)) / 2e-6
            assert influence[row] == pytest.approx(derivative, abs=1e-7)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=1, max_size=15))
def test_no_other_threshold_has_a_higher_f1(rows: list[tuple[int, bool]]) -> None:
    scores, positive = np.array([row[0] for row in rows], float), np.array([row[1] for row in rows])
    positive[0] = True
    found = f1_influence(scores >= best_threshold(scores, positive), positive)[0]
    others = [f1_influence(scores >= threshold, positive)[0] for threshold in np.arange(-4.5, 5)]
    assert found == pytest.approx(max(others), abs=1e-12)


def test_a_threshold_comes_from_the_validation_images() -> None:
    targets = np.array([[1.0], [1.0], [0.0], [0.0]])
    test = np.array([[4.0], [2.0], [1.0], [0.0]])
    validation, of_validation = np.array([[3.5], [3.0], [9.0]]), np.array([[1.0], [0.0], [np.nan]])
    runs = runs_of(test, validation=validation, targets=of_validation)
    found = measured({"real": runs}, targets, ["Edema"])
    assert found["f1", "real", "Edema"].estimate.value == pytest.approx(2 / 3)  # at 3.25, one of two is found


def test_a_value_is_the_mean_over_seeds_and_a_difference_is_paired() -> None:
    targets = np.array([[1.0], [0.0], [1.0], [0.0]])
    ranks = [np.array([[3.0], [1.0], [2.0], [0.0]]), np.array([[1.0], [2.0], [3.0], [0.0]])]
    found = measured({"real": runs_of(*ranks), "synthetic": runs_of(*ranks[::-1])}, targets, ["Edema"])
    assert found["auroc", "real", "Edema"].estimate.value == pytest.approx((1 + 0.75) / 2)
    difference = found["auroc_difference", "synthetic", "Edema"]
    assert difference.estimate.value == 0 and difference.chance == 0
    assert ("auroc_difference", "real", "Edema") not in found
    # Of the two paired differences, -0.25 and 0.25: the seeds' part of the variance.
    assert difference.estimate.se == pytest.approx(np.sqrt(np.var([-0.25, 0.25], ddof=1) / 2))


def test_the_same_scores_have_no_difference_and_no_interval_of_it() -> None:
    targets, test = drawn(100, 3, np.random.default_rng(0))
    found = measured({"real": runs_of(test), "mixed": runs_of(test)}, targets, ["a", "b", "c"])
    for metric in METRICS:
        for label in (None, "a"):
            one = found[f"{metric}_difference", "mixed", label].estimate
            assert one[:4] == (0, None, None, None) and "no interval" in one.notes[-1]


def test_auroc_is_that_of_label_auroc_with_its_error() -> None:
    rng = np.random.default_rng(0)
    targets, test = drawn(400, 1, rng)
    groups = rng.integers(0, 150, 400)
    for given_ in (None, groups):
        mine = measured({"real": runs_of(test)}, targets, ["Edema"], given_)["auroc", "real", "Edema"]
        other = label_auroc(test, targets, ["Edema"], given_)["Edema"]
        assert mine.estimate.value == pytest.approx(other.value, rel=1e-12)
        assert mine.estimate.se == pytest.approx(other.se, rel=0.02)


def test_the_mean_is_over_labels() -> None:
    targets, test = drawn(200, 3, np.random.default_rng(1))
    found = measured({"real": runs_of(test)}, targets, ["a", "b", "c"])
    for metric in METRICS:
        parts = [found[metric, "real", label] for label in ("a", "b", "c")]
        mean = found[metric, "real", None]
        assert mean.estimate.value == pytest.approx(
            np.mean([one.estimate.value for one in parts if one.estimate.value])
        )
        assert mean.chance == pytest.approx(np.mean([one.chance for one in parts if one.chance]))
        assert mean.estimate.se is not None and all(
            one.estimate.se and mean.estimate.se < one.estimate.se for one in parts
        )


def test_chance_is_that_of_scores_without_information() -> None:
    rng = np.random.default_rng(0)
    targets = (rng.random((20_000, 1)) < 0.2).astype(float)
    noise = np.abs(rng.normal(size=(20_000, 1)))  # all above the threshold
    runs = runs_of(noise, validation=np.array([[0.0], [-1.0]]), targets=np.array([[1.0], [0.0]]))
    found = measured({"real": runs}, targets, ["Edema"])
    for metric, wanted in (("auroc", 0.5), ("average_precision", targets.mean()), ("f1", 2 * 0.2 / 1.2)):
        one = found[metric, "real", "Edema"]
        assert one.chance == pytest.approx(wanted, abs=0.01) and one.estimate.value == pytest.approx(
            one.chance, abs=0.015
        )


# Refusals


def test_a_refused_label_shifts_no_other_and_is_in_no_mean() -> None:
    targets, test = drawn(300, 4, np.random.default_rng(2))
    names = ["a", "b", "c", "d"]
    whole = measured({"real": runs_of(test), "mixed": runs_of(test)}, targets, names)
    unlearnt, no_positives = test.copy(), targets.copy()
    unlearnt[:, 1] = np.nan
    no_positives[:, 2] = 0
    found = measured({"real": runs_of(test), "mixed": runs_of(unlearnt)}, no_positives, names)
    for metric in METRICS:
        for label in ("a", "d"):
            assert found[metric, "mixed", label] == whole[metric, "mixed", label]
        assert found[metric, "real", "b"] == whole[metric, "real", "b"]
        assert (
            found[metric, "mixed", "b"].estimate.value is None
            and "not learnt" in found[metric, "mixed", "b"].estimate.notes[0]
        )
        assert found[metric, "real", "c"].estimate.notes == ("the test set has 0 positive and 300 negative images",)
        for setting in ("real", "mixed"):
            mean = found[metric, setting, None].estimate
            assert "mean of 2 labels, without b, c" in mean.notes
        assert found[f"{metric}_difference", "mixed", "b"].estimate.value is None
        assert found[f"{metric}_difference", "mixed", None].estimate.value == 0


def test_without_a_positive_validation_image_there_is_no_f1() -> None:
    targets, test = drawn(100, 1, np.random.default_rng(3))
    runs = [*runs_of(test), *runs_of(test, targets=np.array([[0.0], [np.nan]]))]
    found = measured({"real": runs}, targets, ["Edema"])
    assert found["f1", "real", "Edema"].estimate.notes == ("no threshold: 1 seed without a positive validation image",)
    assert found["f1", "real", None].estimate.value is None
    assert found["auroc", "real", "Edema"].estimate.value is not None


def test_few_positives_are_marked_and_one_has_no_interval() -> None:
    _, test = drawn(100, 1, np.random.default_rng(4))
    for positives, note in ((9, "fewer than 10"), (1, "one positive patient: no interval")):
        targets = (np.arange(100) < positives).astype(float)[:, None]
        one = measured({"real": runs_of(test)}, targets, ["Edema"])["auroc", "real", "Edema"]
        assert any(note in text for text in one.estimate.notes)
        assert (one.estimate.ci_low is None) == (positives == 1)
    patients = np.where(np.arange(100) < 5, 0, np.arange(100))
    targets = (np.arange(100) < 5).astype(float)[:, None]
    one = measured({"real": runs_of(test)}, targets, ["Edema"], patients)["auroc", "real", "Edema"]
    assert one.estimate.se is None and one.patients == 96


@pytest.mark.parametrize("swapped", [False, True])
def test_perfect_and_nearly_perfect_scores_have_a_wide_interval(swapped: bool) -> None:
    targets = (np.arange(40) < 20).astype(float)[:, None]
    scores = np.arange(40.0)[::-1, None] - 19.5
    if swapped:
        scores[[19, 20]] = scores[[20, 19]]  # one pair of 400 is in the wrong order
    found = measured({"real": runs_of(scores, targets * 2)}, targets, ["Edema"])
    for metric in ("auroc", "average_precision"):
        for label in (None, "Edema"):
            one = found[metric, "real", label].estimate
            assert one.value is not None and 0.99 < one.value <= 1 and (one.value < 1) == swapped
            assert (
                one.ci_low is not None and 0.7 < one.ci_low < 0.95 and one.ci_high is not None and one.ci_high > 0.999
            )


@pytest.mark.parametrize(
    ("runs", "targets", "message"),
    [
        ({}, np.zeros((3, 1)), "same number of runs"),
        ({"real": runs_of(np.zeros((3, 1))), "mixed": []}, np.zeros((3, 1)), "same number of runs"),
        ({"real": runs_of(np.zeros((2, 1)))}, np.zeros((3, 1)), "shape"),
        ({"real": runs_of(np.zeros((3, 2)))}, np.zeros((3, 1)), "shape"),
        ({"real": runs_of(np.zeros((3, 1)), targets=np.zeros((3, 1)))}, np.zeros((3, 1)), "validation"),
        ({"real": runs_of(np.zeros((3, 1)))}, np.full((3, 1), -1.0), "1, 0 or NaN"),
    ],
)
def test_shapes_and_targets_are_checked(runs: dict[str, list[Run]], targets: np.ndarray, message: str) -> None:
    with pytest.raises(StepError, match=message):
        classification_scores(runs, targets, ["Edema"])


# Intervals


def drawn(n: int, labels: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns targets, of which 30 % are positive, and scores that tell something of them."""
    targets = (rng.random((n, labels)) < 0.3).astype(float)
    return targets, targets + rng.normal(size=(n, labels))


def test_intervals_hold_the_true_value_with_patients_and_seeds() -> None:
    """AUROC of normal scores is known. Ignoring patients or seeds, the interval would hold it far less often."""
    draws, patients, seeds = 150, 120, 3
    truth = [NormalDist().cdf(shift / np.sqrt(2 * (0.25 + 0.25 + 0.5))) for shift in (1.5, 1.0)]
    held = {"auroc": 0, "auroc_difference": 0}
    for draw in range(draws):
        rng = np.random.default_rng(draw)
        groups = np.repeat(np.arange(patients), rng.integers(1, 6, patients))
        n = len(groups)
        of_patient, of_image = rng.normal(size=(2, patients))[:, groups] / 2, rng.normal(size=n) / 2
        # Images of a patient share their label more often than not.
        targets = (of_patient[0] + rng.normal(size=n) * 0.4 > 0.6).astype(float)[:, None]
        runs = {}
        for setting, shift in (("real", 1.5), ("synthetic", 1.0)):
            scores = [
                (shift + 0.1 * rng.normal()) * targets[:, 0] + of_patient[1] + of_image + rng.normal(size=n) * 0.5**0.5
                for _ in range(seeds)
            ]
            runs[setting] = runs_of(*(one[:, None] for one in scores))
        found = measured(runs, targets, ["Edema"], groups)
        for metric, setting, wanted in (
            ("auroc", "real", truth[0]),
            ("auroc_difference", "synthetic", truth[1] - truth[0]),
        ):
            one = found[metric, setting, "Edema"].estimate
            assert one.ci_low is not None and one.ci_high is not None
            held[metric] += one.ci_low <= wanted <= one.ci_high
    assert all(0.89 * draws <= count <= draws for count in held.values()), held


def test_order_of_rows_and_groups_does_not_matter() -> None:
    rng = np.random.default_rng(5)
    targets, test = drawn(200, 2, rng)
    groups, order = rng.integers(0, 60, 200), rng.permutation(200)
    one, other = (
        measured({"real": runs_of(test[rows])}, targets[rows], ["a", "b"], groups[rows])
        for rows in (np.arange(200), order)
    )
    for place, score in one.items():
        assert score.estimate[:4] == pytest.approx(other[place].estimate[:4], rel=1e-10)
