"""`benchmark.py --evaluation`: what it calls all metrics is all of them, and its tables are medians."""

import json

from pipeline.benchmark import evaluation
from pipeline.benchmark.measure import Measurement
from pipeline.benchmark.metrics import growth_table, whole_table
from pipeline.evaluate.fidelity.fidelity import compare
from pipeline.evaluate.meanings import MEANINGS


def runs(*seconds: float) -> list[Measurement]:
    return [Measurement(one, 0, json.dumps(evaluation.Cost(2 * one, one, 10**6, 10**9))) for one in seconds]


def test_the_run_of_all_metrics_leaves_out_none() -> None:
    """But FRD, which is FD of radiomics features."""
    sides = [evaluation.made_up_features(name, 400, 6, seed, True) for seed, name in enumerate(("real", "synthetic"))]
    assert sides[0].outputs["logits"].shape == (400, 1008)
    found = compare([(sides[0], sides[1])], ("real", "synthetic"))
    measured = {metric.metric for metric in found.metrics if metric.value is not None}
    assert {*MEANINGS} - measured == {"frd"}
    assert {"inception_score_real", "alignment_shuffled_real", "label_auroc_real"} < measured


def test_growth_is_that_of_medians() -> None:
    results = {f"prdc {n}": runs(seconds, 99, seconds / 2) for n, seconds in ((5000, 1), (10000, 4), (20000, 16))}
    lines = [*growth_table(results)]
    assert lines[0] == "| metric | 5,000 rows | 10,000 rows | 20,000 rows | as n to the power of |"
    assert lines[2:] == ["| precision, recall, density, coverage | 2.00 | 8.00 | 32.00 | 2.0 |"]


def test_whole_runs_are_medians_too() -> None:
    lines = [*whole_table({"all_privacy 400": runs(3, 50, 7)})]
    assert lines[-1].endswith("| 400 | 7 | 14 | 1,000 MB | 1 MB |")
