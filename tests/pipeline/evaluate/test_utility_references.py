"""Metrics of classifiers beside scikit-learn's, with ties, uncertain rows and several seeds.

Needs scikit-learn.
"""

import importlib

import numpy as np
import pytest

from pipeline.evaluate.metrics.classification import Run, best_threshold, classification_scores

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("decimals", [1, 8])
@pytest.mark.parametrize("share", [0.03, 0.5, 0.9])
def test_metrics_are_those_of_scikit_learn(share: float, decimals: int) -> None:
    reference = importlib.import_module("sklearn.metrics")
    rng = np.random.default_rng(0)
    targets = (rng.random((500, 2)) < share).astype(float)
    targets[rng.random((500, 2)) < 0.1] = np.nan
    runs = []
    for _ in range(3):
        of_validation = (rng.random((300, 2)) < share).astype(float)
        scores = [
            np.round(rng.normal(size=part.shape) + np.nan_to_num(part), decimals) for part in (targets, of_validation)
        ]
        runs.append(Run(scores[0], scores[1], of_validation))
    found = {
        (one.metric, one.label): one.estimate.value
        for one in classification_scores({"real": runs}, targets, ["a", "b"])
    }
    for column, label in enumerate("ab"):
        known = ~np.isnan(targets[:, column])
        truth = targets[known, column]
        auroc, precision, f1 = [], [], []
        for run in runs:
            values = run.test[known, column]
            auroc.append(reference.roc_auc_score(truth, values))
            precision.append(reference.average_precision_score(truth, values))
            curve = reference.precision_recall_curve(run.targets[:, column], run.validation[:, column])
            of_validation, of_scores = run.targets[:, column] == 1, run.validation[:, column]
            threshold = best_threshold(of_scores, of_validation)
            best = np.max(2 * curve[0] * curve[1] / np.maximum(curve[0] + curve[1], 1e-12))
            assert reference.f1_score(of_validation, of_scores >= threshold) == pytest.approx(best, rel=1e-12)
            f1.append(reference.f1_score(truth, values >= threshold))
        for metric, wanted in (("auroc", auroc), ("average_precision", precision), ("f1", f1)):
            assert found[metric, label] == pytest.approx(np.mean(wanted), rel=1e-12)
