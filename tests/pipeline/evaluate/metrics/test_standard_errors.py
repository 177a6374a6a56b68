"""Standard errors: equal to the deviation of the metric over independent draws, with two images of each patient."""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import pytest

from pipeline.evaluate.metrics import frechet
from pipeline.evaluate.metrics.alignment import alignment, retrieval, shuffled_alignment
from pipeline.evaluate.metrics.auroc import label_auroc
from pipeline.evaluate.metrics.combined import pair_statistics
from pipeline.evaluate.metrics.estimate import Estimate
from pipeline.evaluate.metrics.inception import inception_score
from pipeline.evaluate.metrics.kernel import cmmd, kid, kid_of_subsets
from pipeline.evaluate.metrics.prdc import coverage, density, precision, recall
from pipeline.evaluate.metrics.vendi import vendi

DRAWS, ROWS, D = 200, 300, 6


def draw(seed: int) -> Iterator[tuple[str, Estimate]]:
    """Draws a real and a synthetic set and yields every metric."""
    rng = np.random.default_rng(seed)
    patients = np.arange(ROWS) // 2
    real = 0.8 * rng.normal(size=(ROWS, D)) + 0.6 * rng.normal(size=(ROWS // 2, D))[patients]
    synthetic = rng.normal(0.4, 1.2, size=(ROWS, D))
    yield "fd", frechet.fd(real, synthetic, patients).estimate
    found = pair_statistics(real, synthetic)
    for metric in (precision, recall, density, coverage):
        yield metric.__name__, metric(found.neighbours[""], real_groups=patients)
    yield "kid", kid(found.kernels["kid"][""], patients)
    yield "cmmd", cmmd(found.kernels["cmmd"][""], patients)
    yield "kid of subsets", kid_of_subsets(rng.normal(size=(ROWS, D)), synthetic, 20, 30)
    sixes = np.arange(ROWS) // 6  # images of a patient
    alike = 0.6 * rng.normal(size=(ROWS, D)) + 0.8 * rng.normal(size=(ROWS // 6, D))[sixes]
    yield "kid of subsets of patients", kid_of_subsets(alike, synthetic, 20, 60, groups=sixes)
    yield "vendi", vendi(real, synthetic, patients)
    yield "inception score", inception_score(2 * synthetic, splits=1)
    texts = synthetic + rng.normal(size=synthetic.shape)
    yield "alignment", alignment(synthetic, texts)
    yield "shuffled alignment", shuffled_alignment(synthetic, texts)
    yield "retrieval", retrieval(synthetic, texts, ranks=(5,))[5]
    targets = real[:, :1] + rng.normal(size=(ROWS, 1)) > 0.5
    yield "auroc", label_auroc(real[:, :1], targets, ["Edema"], patients)["Edema"]


@pytest.mark.slow
def test_standard_errors_are_the_deviations_over_draws() -> None:
    found = defaultdict(list)
    for seed in range(DRAWS):
        for name, estimate in draw(seed):
            assert estimate.value is not None and estimate.se is not None
            found[name].append((estimate.value, estimate.se))
    ratios = {}
    for name, pairs in found.items():
        values, errors = np.array(pairs).T
        ratios[name] = errors.mean() / values.std(ddof=1)
    # The jackknife of near neighbours is conservative, most for shares near 1.
    too_large = {name: 1.7 if name in ("recall", "precision", "coverage") else 1.25 for name in ratios}
    assert {name: ratio for name, ratio in ratios.items() if not 0.85 < ratio < too_large[name]} == {}


@pytest.mark.slow
def test_the_jackknife_of_fd_has_the_error_over_draws_with_few_rows() -> None:
    results = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        found = frechet.fd(rng.normal(size=(120, 60)), rng.normal(0.3, 1.3, size=(100, 60))).estimate
        assert "jackknife" in found.notes[-1] and found.value is not None and found.se is not None
        results.append((found.value, found.se))
    values, errors = np.array(results).T
    assert 0.8 < errors.mean() / values.std(ddof=1) < 1.3


def test_both_errors_of_fd_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    real, synthetic = rng.normal(size=(1000, 5)), rng.normal(0.4, 1.2, size=(800, 5))
    delta = frechet.fd(real, synthetic).estimate
    monkeypatch.setattr(frechet, "DELTA_FROM", 1000)
    jackknife = frechet.fd(real, synthetic).estimate
    assert jackknife.value == pytest.approx(delta.value, rel=1e-9) and jackknife.se == pytest.approx(delta.se, rel=0.3)
