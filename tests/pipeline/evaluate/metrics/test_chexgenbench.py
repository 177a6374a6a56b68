"""The protocol `chexgenbench`: equal to the authors' formulas on the same features, faults included."""

import numpy as np
import pytest

from pipeline.evaluate.metrics.chexgenbench import feature_inception_score, rounded_alignment, whole_fd, whole_kid
from pipeline.evaluate.metrics.frechet import fd_value


def drawn(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.5, 1.0, size=(n, d))


def mmd(x: np.ndarray, y: np.ndarray) -> float:
    """The MMD of torchmetrics, for two sets of one size."""
    n = len(x)
    of_x, of_y, between = ((one @ two.T / x.shape[1] + 1) ** 3 for one, two in ((x, x), (y, y), (x, y)))
    within = of_x.sum() - np.trace(of_x) + of_y.sum() - np.trace(of_y)
    return float(within / (n * (n - 1)) - 2 * between.sum() / n**2)


def test_kid_has_subsets_of_the_whole_smaller_set() -> None:
    x, y = drawn(40, 6), drawn(40, 6, 1)
    found = whole_kid(x, y)
    assert found.value == pytest.approx(mmd(x, y), rel=1e-10) and found.se is None
    assert found.notes == ("protocol: chexgenbench", "subsets of all 40 rows")
    more = drawn(55, 6, 2)
    rng = np.random.default_rng(7)
    expected = np.mean([mmd(x, more[rng.permutation(55)[:40]]) for _ in range(100)])
    assert whole_kid(x, more, seed=7).value == pytest.approx(expected, rel=1e-10)
    assert whole_kid(x[:1], y).value is None


def test_inception_score_takes_features_for_logits() -> None:
    features = np.abs(drawn(60, 30))
    probabilities = np.exp(features) / np.exp(features).sum(axis=1, keepdims=True)
    parts = np.array_split(probabilities, 10)
    expected = np.mean([np.exp((p * np.log(p / p.mean(axis=0))).sum(axis=1).mean()) for p in parts])
    found = feature_inception_score(features, seed=None)
    assert found.value == pytest.approx(expected, rel=1e-10) and "not over class logits" in found.notes[1]


def test_fd_is_that_of_all_rows_from_two_on() -> None:
    x, y = drawn(403, 10), drawn(400, 10, 1)
    found = whole_fd(x, y)
    assert (found.value, found.se, found.notes) == (fd_value(x, y), None, ("protocol: chexgenbench",))
    assert whole_fd(x[:2], y).value and whole_fd(x[:1], y).value is None


def test_alignment_is_rounded_row_by_row() -> None:
    images, texts = drawn(9, 4), drawn(9, 4, 1)
    cosines = [float(i @ t / np.linalg.norm(i) / np.linalg.norm(t)) for i, t in zip(images, texts)]
    assert rounded_alignment(images, texts).value == pytest.approx(np.mean(np.round(cosines, 3)), rel=1e-12)
    assert rounded_alignment(images[:0], texts[:0]).value is None
