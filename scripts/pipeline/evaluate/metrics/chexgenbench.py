"""The definitions of the CheXGenBench code, for numbers that compare with the paper's (arXiv 2505.10496).

Read in the authors' repository (metrics/fid.py of 2025-09-28) and in torchmetrics 1.7, which it calls. Precision,
recall, density and coverage are those of `prdc` with k = 5, as in `neighbours`, and CMMD is not there. Put none of
these values beside one of the other modules: they have the same names and other meanings.
"""

from __future__ import annotations

import numpy as np

from pipeline.evaluate.metrics.estimate import Estimate, refused
from pipeline.evaluate.metrics.features import check_features, unit_rows
from pipeline.evaluate.metrics.frechet import fd_value
from pipeline.evaluate.metrics.inception import inception_score
from pipeline.evaluate.metrics.kernel import polynomial_mmd

KID_SUBSETS = 100
NAMED = "protocol: chexgenbench"


def whole_fd(real: np.ndarray, synthetic: np.ndarray) -> Estimate:
    """Returns FD as `metrics/fid.py` reports it over all rows.

    The README of CheXGenBench also advises 4 shards to save memory (`tools/combine_shards.py`). The mean of their FDs
    is not computed here: FD of a quarter of the rows has four times the bias, and the mean keeps it.

    Args:
        real: Real features, of shape (n, d).
        synthetic: Synthetic features, of shape (m, d).

    Returns:
        FD, without standard error; refused below 2 rows a side.
    """
    real, synthetic = check_features(real, synthetic)
    n, m = len(real), len(synthetic)
    if min(n, m) < 2:
        return refused(n, m, NAMED, "needs at least 2 rows a side")
    return Estimate(fd_value(real, synthetic), None, None, None, n, m, (NAMED,))


def whole_kid(real: np.ndarray, synthetic: np.ndarray, subsets: int = KID_SUBSETS, seed: int = 0) -> Estimate:
    """Returns KID as `metrics/fid.py` reports it: the mean over "subsets" of min(n, m) rows.

    The fault: each subset is the whole smaller set in another order, so that the deviation over subsets, which
    torchmetrics returns as its error, is about 0. With n = m all subsets are equal, and one is computed. The memory
    grows as min(n, m)²; for large sets, `kernel.kid` has the same expectation.

    Args:
        real: Real features, of shape (n, d).
        synthetic: Synthetic features, of shape (m, d).
        subsets: Number of subsets.
        seed: Seeds which rows of the larger set are drawn.

    Returns:
        KID, without standard error.
    """
    real, synthetic = check_features(real, synthetic)
    n, m = len(real), len(synthetic)
    size = min(n, m)
    if size < 2:
        return refused(n, m, NAMED, "needs at least 2 rows a side")
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(1 if n == m else subsets):
        one = real if n == size else real[rng.permutation(n)[:size]]
        two = synthetic if m == size else synthetic[rng.permutation(m)[:size]]
        values.append(polynomial_mmd(one, two))
    return Estimate(float(np.mean(values)), None, None, None, n, m, (NAMED, f"subsets of all {size:,} rows"))


def feature_inception_score(features: np.ndarray, splits: int = 10, seed: int | None = 0) -> Estimate:
    """Returns the "Inception Score" of `metrics/fid.py`: that of the 2,048 pool features taken for logits.

    The fault: `InceptionScore(feature=2048)` applies the softmax to features before the last layer. The result is no
    Inception Score and compares with none; it has the sampling error of `inception_score`.

    Args:
        features: Pool features of the synthetic images, of shape (m, d).
        splits: Number of splits.
        seed: Seeds the order of rows before they are split; None keeps their order.
    """
    found = inception_score(features, splits, seed, min_rows=0)
    return found._replace(notes=(NAMED, "softmax over features, not over class logits", *found.notes))


def rounded_alignment(images: np.ndarray, texts: np.ndarray) -> Estimate:
    """Returns the alignment of `metrics/img_text_alignment_scores.py`: the mean of cosines rounded to 3 digits.

    Args:
        images: Image embeddings, of shape (n, d).
        texts: Embeddings of the prompts in the same order, of shape (n, d).
    """
    images, texts = check_features(images, texts)
    if not len(images):
        return refused(0, 0, NAMED, "needs rows")
    cosines = np.einsum("ij,ij->i", unit_rows(images), unit_rows(texts), dtype=np.float64)
    return Estimate(float(np.round(cosines, 3).mean()), None, None, None, 0, len(images), (NAMED, "cosines rounded"))
