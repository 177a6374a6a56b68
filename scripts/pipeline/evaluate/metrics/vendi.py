"""The Vendi score: the effective number of different images in a set."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from pipeline.evaluate.metrics.estimate import Estimate, mean_variance, normal_estimate, refused, size_notes
from pipeline.evaluate.metrics.features import check_features, chosen_rows, row_blocks, unit_rows

NEGLIGIBLE = 1e-12  # an eigenvalue below this share of the largest counts as 0


class VendiScore(NamedTuple):
    """A Vendi score and its influences.

    Attributes:
        value: exp(-Σ l ln l), from 1 (all rows point one way) to the number of rows or features.
        influence: The influence of each row on the logarithm of the value, of shape (n,).
    """

    value: float
    influence: np.ndarray


def vendi_score(features: np.ndarray, rows: np.ndarray | None = None) -> VendiScore:
    """Returns exp(-Σ l ln l) over the eigenvalues l of K/n, with the cosine kernel K (Friedman and Dieng 2023).

    The nonzero eigenvalues of K/n, n x n, are those of X'X/n, d x d, with rows of length 1; so the smaller is used. The
    score grows with n up to d: compare sets of one size. It does not tell whether the diversity is that of real images.

    Args:
        features: Features of shape (n, d), with at least one row.
        rows: Indices of the rows to use; all by default.

    Example:
        >>> round(vendi_score(np.eye(3)).value, 6), round(vendi_score(np.ones((5, 3))).value, 6)
        (3.0, 1.0)
    """
    features = check_features(features, rows=None if rows is None else (rows,))[0]
    count = len(features) if rows is None else len(rows)
    if count < features.shape[1]:
        unit = unit_rows((features if rows is None else features[rows]).astype(np.float64))
        values, vectors = np.linalg.eigh(unit @ unit.T / count)
        logs = _logarithms(values)
        # x' ln(C) x with C = X'X/n: row i of X ln(C) X' = n V (l ln l) V' for K/n = V l V'.
        quadratic = count * np.square(vectors) @ (np.clip(values, 0, None) * logs)
    else:
        gram = np.zeros((features.shape[1], features.shape[1]))
        for _, block in row_blocks(features, rows):
            unit = unit_rows(block.astype(np.float64))
            gram += unit.T @ unit
        values, vectors = np.linalg.eigh(gram / count)
        logs = _logarithms(values)
        quadratic = np.concatenate(
            [np.square(unit_rows(block.astype(np.float64)) @ vectors) @ logs for _, block in row_blocks(features, rows)]
        )
    entropy = -float((np.clip(values, 0, None) * logs).sum())
    return VendiScore(math.exp(entropy), -quadratic - entropy)


def vendi(
    real: np.ndarray,
    synthetic: np.ndarray,
    real_groups: np.ndarray | None = None,
    synthetic_groups: np.ndarray | None = None,
    seed: int = 0,
    rows: tuple[np.ndarray, np.ndarray] | None = None,
) -> Estimate:
    """Returns the Vendi score of the synthetic set over that of the real set, at one number of rows.

    Rows of the larger set are left out at random, since the score depends on the number of rows. A value below 1: the
    synthetic images are less diverse.

    Args:
        real: Real features, of shape (n, d).
        synthetic: Synthetic features, of shape (m, d).
        real_groups: The unit of each real row, such as its patient, of shape (n,).
        synthetic_groups: The same of the synthetic rows.
        seed: Seeds which rows of the larger set are left out.
        rows: Indices of the real and of the synthetic rows to use, such as those of a label, without copies of large
            sets; all by default.

    Returns:
        The ratio, with the standard error of the delta method; the numbers of rows are those used.
    """
    real, synthetic = check_features(real, synthetic, rows=rows)
    of_real, of_synthetic = rows or (None, None)
    sides = (
        (real, *chosen_rows(real, real_groups, of_real)),
        (
            synthetic,
            *chosen_rows(synthetic, synthetic_groups, of_synthetic),
        ),
    )
    sizes = [len(part) for _, part, _ in sides]
    count = min(sizes)
    if count < 2:
        return refused(sizes[0], sizes[1], "needs at least 2 rows a side")
    rng = np.random.default_rng(seed)
    scores, variance = [], 0.0
    for features, part, units in sides:
        chosen = np.sort(rng.choice(len(part), count, replace=False))
        score = vendi_score(features, part[chosen])
        scores.append(score.value)
        variance += mean_variance(score.influence, None if units is None else units[chosen])
    ratio = scores[1] / scores[0]
    notes: tuple[str, ...] = (
        *size_notes(count),
        f"{scores[1]:.4g} over {scores[0]:.4g}, at {count:,} rows",
        "standard error: delta method",
    )
    if count < real.shape[1]:
        notes += (f"fewer rows than features ({real.shape[1]}): bounded by the number of rows, interval too narrow",)
    return normal_estimate(ratio, ratio * math.sqrt(variance), count, count, notes, (0, math.inf))


def _logarithms(values: np.ndarray) -> np.ndarray:
    kept = values > NEGLIGIBLE * values.max()
    return np.where(kept, np.log(np.where(kept, values, 1)), 0)
