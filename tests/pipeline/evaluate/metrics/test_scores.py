"""Vendi score, Inception Score, alignment with retrieval, AUROC: closed forms and definitions."""

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import StepError
from pipeline.evaluate.metrics.alignment import alignment, retrieval, shuffled_alignment
from pipeline.evaluate.metrics.auroc import label_auroc
from pipeline.evaluate.metrics.estimate import Estimate, proportion_estimate
from pipeline.evaluate.metrics.inception import inception_score
from pipeline.evaluate.metrics.vendi import vendi, vendi_score


def drawn(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits)
    return powers / powers.sum(axis=1, keepdims=True)


# Vendi


@pytest.mark.parametrize(("n", "d"), [(40, 7), (7, 40), (20, 20)])
def test_vendi_is_that_of_the_kernel_matrix(n: int, d: int) -> None:
    x = drawn(n, d)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    eigenvalues = np.linalg.eigvalsh(unit @ unit.T / n)
    eigenvalues = eigenvalues[eigenvalues > 1e-12]
    assert vendi_score(x).value == pytest.approx(np.exp(-(eigenvalues * np.log(eigenvalues)).sum()), rel=1e-10)
    assert abs(vendi_score(x).influence.mean()) < 1e-10


@settings(max_examples=30)
@given(st.integers(1, 12), st.integers(1, 5))
def test_vendi_counts_directions_whatever_the_copies_and_lengths(directions: int, copies: int) -> None:
    x = np.eye(12)[:directions].repeat(copies, axis=0)
    lengths = np.random.default_rng(copies).uniform(0.5, 9, size=(len(x), 1))
    assert vendi_score(x * lengths).value == pytest.approx(directions)


def test_a_set_of_few_different_images_is_less_diverse_at_one_number_of_rows() -> None:
    x = drawn(500, 16)
    poor = x[:10].repeat(100, axis=0)
    found = vendi(x, poor)
    assert found.ci_high is not None and found.ci_high < 0.8 and found.n_real == found.n_synthetic == 500
    same = vendi(x, x)
    assert same.value == 1 and found == vendi(x, poor) and vendi(x[:1], x).value is None


@pytest.mark.parametrize("d", [5, 60])
def test_vendi_of_chosen_rows_is_that_of_the_copies(d: int) -> None:
    x, y, patients = drawn(90, d), drawn(80, d, 1), np.arange(90) // 2
    rows = np.arange(0, 90, 2), np.arange(30)
    assert vendi(x, y, patients, rows=rows) == vendi(x[rows[0]], y[rows[1]], patients[rows[0]])


# Inception Score


def test_inception_score_is_that_of_the_definition() -> None:
    logits = 2 * drawn(100, 5)
    scores = []
    for part in np.split(softmax(logits), 10):
        scores.append(np.exp((part * np.log(part / part.mean(axis=0))).sum(axis=1).mean()))
    assert inception_score(logits, seed=None).value == pytest.approx(np.mean(scores), rel=1e-12)


def test_inception_score_of_sure_and_of_unsure_classifiers() -> None:
    sure = 1000.0 * np.eye(6)[np.arange(120) % 6]
    assert inception_score(sure, splits=1).value == pytest.approx(6)
    assert inception_score(np.zeros((120, 6))).value == pytest.approx(1)
    assert inception_score(sure + 5, seed=3) == inception_score(sure, seed=3)
    assert inception_score(sure[:19]).value is None


def test_an_inception_score_of_few_rows_is_refused_and_one_of_few_rows_for_the_classes_marked() -> None:
    few = inception_score(drawn(49, 30))
    assert few.value is None and few.notes == ("needs at least 50 rows: a split scores at most its number of rows",)
    marked = inception_score(50 * drawn(50, 30))
    assert marked.value and marked.value <= 5
    assert marked.notes[0] == "splits of 5 rows for 30 classes: at most 5, and up to 85.3 % too low; compare at one n"
    assert "splits of 299 rows" in inception_score(drawn(2999, 30)).notes[0]
    assert "mean of 10 splits" in inception_score(drawn(3000, 30)).notes[0]


@pytest.mark.parametrize("rows", [5, 30, 300])
def test_splits_of_few_rows_lower_the_inception_score_by_no_more_than_the_note_tells(rows: int) -> None:
    """The worst case is that of a sure classifier whose 30 classes are equally frequent."""
    rng = np.random.default_rng(0)
    logits = 1000.0 * np.eye(30)[rng.integers(0, 30, 100 * rows)]
    found = inception_score(logits, splits=100, seed=None)
    assert found.value is not None
    assert 30 * rows / (rows + 29) <= found.value <= min(rows, 30)


# Alignment


def test_alignment_and_its_floor_are_the_means_of_cosines() -> None:
    images, texts = drawn(30, 8), drawn(30, 8, 1) + 0.3
    cosines = images @ texts.T / np.linalg.norm(images, axis=1)[:, None] / np.linalg.norm(texts, axis=1)
    own = alignment(images, texts)
    assert own.value == pytest.approx(np.diag(cosines).mean()) and (own.n_real, own.n_synthetic) == (0, 30)
    others = (cosines.sum() - np.trace(cosines)) / (30 * 29)
    floor = shuffled_alignment(images, texts, real=True)
    assert floor.value == pytest.approx(others) and (floor.n_real, floor.n_synthetic) == (30, 0)


def test_retrieval_counts_the_prompts_that_are_nearer() -> None:
    images, texts = drawn(50, 6), drawn(50, 6, 1)
    texts[:25] += images[:25]
    cosines = images @ texts.T / np.linalg.norm(images, axis=1)[:, None] / np.linalg.norm(texts, axis=1)
    ranks = (cosines > np.diag(cosines)[:, None]).sum(axis=1)
    for k, found in retrieval(images, texts).items():
        assert found.value == pytest.approx((ranks < k).mean())


def test_the_same_prompt_of_another_image_is_not_a_miss() -> None:
    images = drawn(20, 6).astype(np.float32)
    texts = images[np.arange(20) // 2 * 2]
    assert retrieval(texts, texts)[1].value == 1


def test_alignment_needs_pairs() -> None:
    with pytest.raises(StepError, match="3 images, 2 prompts"):
        alignment(drawn(3, 2), drawn(2, 2))
    assert alignment(drawn(1, 2), drawn(1, 2)).value is None and retrieval(drawn(1, 2), drawn(1, 2))[1].value is None


@pytest.mark.parametrize("real", [False, True])
def test_alignment_and_retrieval_of_few_rows_are_marked(real: bool) -> None:
    for n, is_marked in ((3, True), (49, True), (50, False)):
        images, texts = drawn(n, 8), drawn(n, 8, 1)
        found = [metric(images, texts, real=real) for metric in (alignment, shuffled_alignment)]
        for estimate in (*found, *retrieval(images, texts, real=real).values()):
            assert estimate.ci_low is not None and any("rough" in note for note in estimate.notes) == is_marked


# AUROC


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=30))
def test_auroc_is_the_share_of_pairs_in_order_with_ties_as_halves(rows: list[tuple[int, bool]]) -> None:
    scores, targets = np.array([[score] for score, _ in rows]), np.array([[positive] for _, positive in rows])
    high, low = scores[targets], scores[~targets]
    found = label_auroc(scores, targets, ["Edema"])["Edema"]
    if len(high) and len(low):
        pairs = (high[:, None] > low).mean() + (high[:, None] == low).mean() / 2
        assert found.value == pytest.approx(pairs)
    else:
        assert found.value is None


def test_a_label_without_both_classes_is_null_and_the_others_keep_their_names() -> None:
    rng = np.random.default_rng(0)
    targets = np.stack([np.arange(40) % 2, np.zeros(40), np.arange(40) % 4 == 0, np.full(40, np.nan)], axis=1)
    scores = np.stack([targets[:, 0], rng.random(40), -targets[:, 2], rng.random(40)], axis=1)
    scores[:3] = np.nan
    found = label_auroc(scores, targets, ["Edema", "Fracture", "Pneumonia", "Lung Lesion"])
    assert {name: estimate.value for name, estimate in found.items()} == {
        "Edema": 1.0,
        "Fracture": None,
        "Pneumonia": 0.0,
        "Lung Lesion": None,
    }
    assert found["Fracture"].notes == ("0 positive, 37 negative", "needs positive and negative rows")
    scores[:, 0] = np.nan
    unknown = label_auroc(scores, targets, ["Edema", "Fracture", "Pneumonia", "Lung Lesion"])["Edema"]
    assert unknown.notes == ("the classifier does not know this label",)


def test_the_error_of_auroc_is_that_of_delong() -> None:
    rng = np.random.default_rng(0)
    targets = rng.random((80, 1)) < 0.4
    scores = np.round(rng.normal(size=(80, 1)) + targets, 1)
    high, low = scores[targets], scores[~targets]
    wins = (high[:, None] > low) + 0.5 * (high[:, None] == low)
    variance = wins.mean(axis=1).var(ddof=1) / len(high) + wins.mean(axis=0).var(ddof=1) / len(low)
    found = label_auroc(scores, targets, ["Edema"])["Edema"]
    assert found.se == pytest.approx(np.sqrt(variance), rel=1e-12)
    each = label_auroc(scores, targets, ["Edema"], groups=np.arange(80))["Edema"]
    assert each.se == pytest.approx(found.se, rel=0.02)
    twice = label_auroc(scores.repeat(2, 0), targets.repeat(2, 0), ["Edema"], groups=np.arange(80).repeat(2))["Edema"]
    assert twice.se == pytest.approx(each.se, rel=1e-6)


def test_separated_classes_of_few_rows_have_a_wide_interval() -> None:
    """DeLong's error is 0 there; the interval is not."""
    for positives, low in ((3, 0.6), (300, 0.98)):
        targets = np.arange(positives + 300)[:, None] < positives
        found = label_auroc(10.0 * targets, targets, ["Edema"])["Edema"]
        assert (found.value, found.se, found.ci_high) == (1, 0, 1) and found.ci_low is not None
        assert low < found.ci_low < low + 0.2 and ("rough" in " ".join(found.notes)) == (positives < 50)


@pytest.mark.slow
@pytest.mark.parametrize(("positives", "negatives", "shift"), [(3, 200, 1), (3, 200, 3), (12, 188, 3), (100, 300, 1)])
def test_the_interval_of_auroc_holds_the_true_value(positives: int, negatives: int, shift: float) -> None:
    rng, held = np.random.default_rng(0), 0
    targets = (np.arange(positives + negatives) < positives)[:, None]
    for _ in range(400):
        found = label_auroc(rng.normal(size=targets.shape) + shift * targets, targets, ["Edema"])["Edema"]
        assert found.ci_low is not None and found.ci_high is not None
        held += found.ci_low <= NormalDist().cdf(shift / 2**0.5) <= found.ci_high
    assert held / 400 > 0.93


def test_wrong_targets_are_an_error() -> None:
    with pytest.raises(StepError, match="1, 0 or NaN"):
        label_auroc(np.zeros((3, 1)), np.full((3, 1), -1), ["Edema"])
    with pytest.raises(StepError, match="must agree"):
        label_auroc(np.zeros((3, 1)), np.zeros((3, 2)), ["Edema", "Fracture"])


# Estimates


@given(st.integers(0, 50), st.integers(1, 50))
def test_the_interval_of_a_proportion_holds_it_and_stays_in_bounds(hits: int, more: int) -> None:
    n = hits + more
    value = hits / n
    found: Estimate = proportion_estimate(value, np.sqrt(value * (1 - value) / n), n, n, n)
    assert found.ci_low is not None and found.ci_high is not None
    assert 0 <= found.ci_low <= value <= found.ci_high <= 1 and found.ci_low < found.ci_high
