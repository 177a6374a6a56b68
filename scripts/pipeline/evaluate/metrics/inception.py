"""The Inception Score, from the logits of a classifier."""

from __future__ import annotations

import math

import numpy as np

from pipeline.evaluate.metrics.estimate import Estimate, mean_variance, normal_estimate, refused
from pipeline.evaluate.metrics.features import check_features, check_groups, row_blocks

SPLITS = 10
MIN_ROWS = 50  # below it, 10 splits score less than 5, whatever the images are
ENOUGH = 10  # rows of a split for each class, at which the score is at most 9 % too low


def inception_score(
    logits: np.ndarray,
    splits: int = SPLITS,
    seed: int | None = 0,
    min_rows: int = MIN_ROWS,
    groups: np.ndarray | None = None,
    real: bool = False,
) -> Estimate:
    """Returns exp(mean_i KL(p(y|x_i) || p(y))), the mean over random splits (Salimans et al. 2016).

    p(y|x) is the softmax of the classifier's logits, p(y) its mean over a split. The score uses no real image: compare
    it with that of as many real ones (`real=True`). It grows with the size of a split, and with Inception it tells how
    sure and how varied the classes of ImageNet are, which say nothing of radiographs. Logits, not features before the
    last layer: see `chexgenbench.feature_inception_score`.

    A split of s rows scores at most s, since its KL is the information of a class about the row, at most ln s. And with
    K classes its expected logarithm is too low by E KL(p_s(y) || p(y)) <= ln(1 + (K - 1) / s), with p_s the mean over
    the split: the variance of p_s(y) is at most p(y) (1 - p(y)) / s. So a note marks splits of less than 10 K rows.

    Args:
        logits: Logits of the images, of shape (m, classes).
        splits: Number of splits of about m / splits rows.
        seed: Seeds the order of rows before they are split; None keeps their order.
        min_rows: Below it the score is refused, and below two rows a split in any case.
        groups: The unit of each row, such as its patient, of shape (m,).
        real: Whether the images are real; it only decides on which side the estimate counts its rows.

    Returns:
        The score, from 1 to the number of classes, with the standard error of the delta method over all rows or their
        groups.

    Example:
        >>> round(inception_score(100 * np.eye(4)[np.arange(400) % 4], seed=None).value, 6)
        4.0
    """
    logits = check_features(logits)[0]
    groups = check_groups(groups, len(logits))
    m, least = len(logits), max(min_rows, 2 * splits)
    sizes = (m, 0) if real else (0, m)
    if m < least:
        return refused(*sizes, f"needs at least {least} rows: a split scores at most its number of rows")
    order = np.arange(m) if seed is None else np.random.default_rng(seed).permutation(m)
    values = [math.exp(_divergences(logits, rows).mean()) for rows in np.array_split(order, splits)]
    value = float(np.mean(values))
    se = value * math.sqrt(mean_variance(_divergences(logits, np.arange(m)), groups))
    spread = float(np.std(values, ddof=1)) if splits > 1 else 0.0
    notes = (
        *_warnings(m // splits, -(-m // splits), logits.shape[1]),
        f"mean of {splits} splits, whose standard deviation is {spread:.4g}",
        "standard error: delta method",
    )
    return normal_estimate(value, se, *sizes, notes, (1, logits.shape[1]))


def _warnings(rows: int, most_rows: int, classes: int) -> tuple[str, ...]:
    """Returns a note if splits of `rows` to `most_rows` rows are small for so many classes."""
    if rows >= ENOUGH * classes:
        return ()
    most, share = min(most_rows, classes), (classes - 1) / (rows + classes - 1)
    limits = f"at most {most:,}, and up to {100 * share:.1f} % too low"
    return (f"splits of {rows:,} rows for {classes:,} classes: {limits}; compare at one n",)


def _divergences(logits: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Returns KL(p(y|x_i) || p(y)) of each row, with p(y) the mean over these rows."""
    total, negative_entropies = np.zeros(logits.shape[1]), np.empty(len(rows))
    for start, block in row_blocks(logits, rows):
        logs = _log_softmax(block)
        total += np.exp(logs).sum(axis=0)
        negative_entropies[start : start + len(block)] = (np.exp(logs) * logs).sum(axis=1)
    marginal = np.log(np.maximum(total / len(rows), np.finfo(np.float64).tiny))
    for start, block in row_blocks(logits, rows):
        negative_entropies[start : start + len(block)] -= np.exp(_log_softmax(block)) @ marginal
    return negative_entropies


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
