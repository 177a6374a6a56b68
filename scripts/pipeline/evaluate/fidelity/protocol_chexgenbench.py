"""The protocol `chexgenbench`: the metrics of one encoder as the authors' code defines them, in `metrics/fid.py`.

Real rows whose prompt came before are left out; the authors keep the first in the order of their CSV, this the first
by file name. The rows of a label are the real ones whose raw value is 1, and the synthetic ones whose prompt is among
theirs. Nothing has an interval or a floor, and sizes differ from label to label.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from pipeline.evaluate.comparison import Rows
from pipeline.evaluate.encoders.encoder import FEATURE, TEXT
from pipeline.evaluate.features import Features
from pipeline.evaluate.fidelity.frd import RADIOMICS, log_estimate, scaled_radiomics
from pipeline.evaluate.metrics.chexgenbench import (
    NAMED,
    feature_inception_score,
    rounded_alignment,
    whole_fd,
    whole_kid,
)
from pipeline.evaluate.metrics.combined import PairStatistics, pair_statistics
from pipeline.evaluate.metrics.estimate import Estimate, refused, refused_unless_finite
from pipeline.evaluate.metrics.kernel import kid
from pipeline.evaluate.metrics.pairs import count_pairs
from pipeline.evaluate.metrics.prdc import coverage, density, precision, recall
from pipeline.evaluate.results.results_fidelity import MetricResult
from pipeline.progress import progress_bar
from synthchex_75k import LABELS

PROTOCOL = "chexgenbench"
K = 5  # neighbours
INCEPTION = "inception"  # the encoder whose features the authors take for logits
OVERALL = "all"  # name of the comparison without a label; no label has it
WHOLE_KID_ROWS = 5_000  # of the smaller side; above, 100 kernel matrices of the authors' take too long


def chexgenbench_metrics(real: Features, synthetic: Features, labels: Sequence[str], seed: int) -> list[MetricResult]:
    """Computes the metrics of one encoder.

    Args:
        real: The real side, ordered by file name.
        synthetic: The synthetic side, ordered by file name.
        labels: The labels whose rows are compared for themselves too.
        seed: Seeds what is drawn.

    Returns:
        The metrics of all rows, then those of each label.

    Raises:
        StepError: Features are not finite.
    """
    name = real.encoder.name
    compared = {OVERALL: conditional_rows(real, synthetic, None)}
    if name == RADIOMICS:  # the authors have no FRD of a label
        return [_entry(name, OVERALL, "frd", _frd(real, synthetic, compared[OVERALL], seed))]
    compared |= {label: conditional_rows(real, synthetic, label) for label in labels}
    pairs = _pairs(real, synthetic, compared)
    found = []
    with progress_bar(f"{name}: other metrics", len(compared), "set of rows") as bar:
        for key, rows in compared.items():
            estimates = _estimates(real, synthetic, key, rows, pairs, seed)
            found += [_entry(name, key, metric, estimate) for metric, estimate in estimates]
            bar.update()
    return found


def conditional_rows(real: Features, synthetic: Features, label: str | None) -> Rows:
    """Returns the rows that the authors' code compares.

    Args:
        real: The real side, ordered by file name.
        synthetic: The synthetic side, ordered by file name.
        label: Of the rows with this label; None: of all rows.
    """
    first = np.zeros(len(real.prompts), bool)
    first[np.unique(real.prompts.astype(str), return_index=True)[1]] = True
    if label is None:
        return np.flatnonzero(first), np.arange(len(synthetic.prompts))
    mine = np.flatnonzero(first & (real.labels[:, LABELS.index(label)] == 1))
    prompts = {*real.prompts[mine].tolist()}
    return mine, np.flatnonzero([prompt in prompts for prompt in synthetic.prompts.tolist()])


def _entry(encoder: str, key: str, metric: str, estimate: Estimate) -> MetricResult:
    estimate = refused_unless_finite(estimate)
    notes = tuple(dict.fromkeys((NAMED, *estimate.notes)))
    label = None if key == OVERALL else key
    sizes = estimate.n_real, estimate.n_synthetic
    return MetricResult(metric, encoder, label, estimate.value, None, None, None, *sizes, None, PROTOCOL, notes)


def _pairs(real: Features, synthetic: Features, compared: dict[str, Rows]) -> PairStatistics:
    x, y = real.outputs[FEATURE], synthetic.outputs[FEATURE]
    large = any(min(len(part) for part in rows) > WHOLE_KID_ROWS for rows in compared.values())
    title, total = f"{real.encoder.name}: pairs", count_pairs(len(x), len(y))
    with progress_bar(title, total, "pair", unit_scale=True) as bar:
        kernels = ("kid",) if large else ()
        return pair_statistics(x, y, ks=(K,), kernels=kernels, subsets=compared, progress=bar.update)


def _estimates(
    real: Features, synthetic: Features, key: str, rows: Rows, pairs: PairStatistics, seed: int
) -> Iterator[tuple[str, Estimate]]:
    mine, theirs = rows
    x, y = real.outputs[FEATURE][mine], synthetic.outputs[FEATURE][theirs]
    yield "fd", whole_fd(x, y)
    if min(len(x), len(y)) <= WHOLE_KID_ROWS:
        yield "kid", whole_kid(x, y, seed=seed)
    else:
        note = "over all pairs, which has the expectation of the authors' subsets of all rows"
        estimate = kid(pairs.kernels["kid"][key])
        yield "kid", estimate._replace(notes=(note,))
    for metric, compute in {"precision": precision, "recall": recall, "density": density, "coverage": coverage}.items():
        estimate = compute(pairs.neighbours[key], K)
        yield metric, estimate._replace(notes=estimate.notes if estimate.value is None else ())
    if real.encoder.name == INCEPTION:
        yield "inception_score", feature_inception_score(y, seed=seed)
    if TEXT in synthetic.outputs:
        yield "alignment", rounded_alignment(y, synthetic.outputs[TEXT][theirs])


def _frd(real: Features, synthetic: Features, rows: Rows, seed: int) -> Estimate:
    """Returns the logarithm of FD on equal numbers of rows, drawn from the larger side, as the authors' code does."""
    scaled, notes = scaled_radiomics(real, synthetic)
    n = min(len(part) for part in rows)
    if not scaled[0].shape[1]:
        return refused(n, n, *notes)
    rng = np.random.default_rng(seed)
    mine, theirs = (np.sort(rng.choice(part, n, replace=False)) for part in rows)
    estimate = log_estimate(whole_fd(scaled[0][mine], scaled[1][theirs]))
    return estimate._replace(notes=(*estimate.notes, *notes))
