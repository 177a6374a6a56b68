"""The metrics beside prdc, torchmetrics and scikit-learn.

Needs prdc, scikit-learn, torch and torchmetrics.
"""

import contextlib
import importlib
import io
from typing import Any

import numpy as np
import pytest

from pipeline.evaluate.metrics.auroc import label_auroc
from pipeline.evaluate.metrics.chexgenbench import feature_inception_score
from pipeline.evaluate.metrics.combined import pair_statistics
from pipeline.evaluate.metrics.frechet import fd_value
from pipeline.evaluate.metrics.kernel import kid, polynomial_mmd
from pipeline.evaluate.metrics.prdc import coverage, density, precision, recall

pytestmark = pytest.mark.slow

SHAPES = [(500, 400, 32), (1500, 1200, 64), (300, 300, 200)]


def drawn(n: int, d: int, seed: int) -> np.ndarray:
    """Correlated features, far from the origin."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) @ np.random.default_rng(9).normal(size=(d, d)) / np.sqrt(d) + 3


def tensor(features: np.ndarray) -> Any:
    return importlib.import_module("torch").from_numpy(features)


@pytest.mark.parametrize(("n", "m", "d"), SHAPES)
def test_fd_is_that_of_torchmetrics(n: int, m: int, d: int) -> None:
    x, y = drawn(n, d, 0), drawn(m, d, 1) * 1.1
    reference = importlib.import_module("torchmetrics.image.fid")._compute_fid(
        tensor(x.mean(axis=0)), tensor(np.cov(x.T)), tensor(y.mean(axis=0)), tensor(np.cov(y.T))
    )
    assert fd_value(x, y) == pytest.approx(reference.item(), rel=1e-8)


@pytest.mark.parametrize(("n", "m", "d"), SHAPES)
def test_kid_is_that_of_torchmetrics(n: int, m: int, d: int) -> None:
    size = min(n, m)
    x, y = drawn(size, d, 0), drawn(size, d, 1) * 1.1
    reference = importlib.import_module("torchmetrics.image.kid").poly_mmd(tensor(x), tensor(y)).item()
    assert polynomial_mmd(x, y) == pytest.approx(reference, rel=1e-8)
    assert kid(pair_statistics(x, y).kernels["kid"][""]).value == pytest.approx(reference, rel=1e-8)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("k", [3, 5, 10])
@pytest.mark.parametrize(("n", "m", "d"), SHAPES)
def test_neighbours_are_those_of_prdc(n: int, m: int, d: int, k: int, kind: type) -> None:
    x: np.ndarray = drawn(n, d, 0).astype(kind)
    y: np.ndarray = (drawn(m, d, 1) * 1.1).astype(kind)
    with contextlib.redirect_stdout(io.StringIO()):
        reference = importlib.import_module("prdc").compute_prdc(x, y, k)
    found = pair_statistics(x, y, ks=(3, 5, 10)).neighbours[""]
    for metric in (precision, recall, density, coverage):
        assert metric(found, k).value == pytest.approx(reference[metric.__name__], rel=1e-12)


def test_the_feature_inception_score_is_that_of_torchmetrics() -> None:
    torch = importlib.import_module("torch")
    features = np.abs(drawn(200, 64, 0))
    prob, log_prob = tensor(features).softmax(dim=1), tensor(features).log_softmax(dim=1)
    scores = [
        (p * (q - p.mean(dim=0, keepdim=True).log())).sum(dim=1).mean().exp()
        for p, q in zip(prob.chunk(10), log_prob.chunk(10))
    ]
    assert feature_inception_score(features, seed=None).value == pytest.approx(torch.stack(scores).mean().item())


def test_auroc_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    scores, targets = np.round(rng.normal(size=(300, 1)), 1), rng.random((300, 1)) < 0.3
    reference = importlib.import_module("sklearn.metrics").roc_auc_score(targets[:, 0], scores[:, 0])
    assert label_auroc(scores, targets, ["Edema"])["Edema"].value == pytest.approx(reference, rel=1e-12)
