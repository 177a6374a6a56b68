"""Image-text alignment: cosines of images with their prompts, what chance gives, and retrieval.

None of it is biased with few rows, so that nothing is refused from two rows on. Below 50 a note marks the interval: it
takes the deviation of these few cosines for that of all, and their mean for normal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pipeline.errors import StepError
from pipeline.evaluate.metrics.estimate import (
    Estimate,
    count_groups,
    mean_variance,
    normal_estimate,
    proportion_estimate,
    refused,
    size_notes,
)
from pipeline.evaluate.metrics.features import check_features, check_groups, row_blocks, unit_rows

RANKS = (1, 5, 10)
BLOCK = 2048  # images and prompts compared at once
TIE = 1e-5  # cosines closer than this are equal: prompts that are the same text have the same embedding


def prompt_cosines(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Returns the cosine of each image with its own prompt, without copies of large sets.

    Args:
        images: Image embeddings, of shape (n, d).
        texts: Embeddings of the prompts in the same order, of shape (n, d).

    Returns:
        Cosines of shape (n,), in float64.

    Example:
        >>> prompt_cosines(np.eye(2), np.array([[3.0, 0.0], [-2.0, 0.0]]))
        array([1., 0.])
    """
    found = np.empty(len(images))
    for start, block in row_blocks(images):
        rows = slice(start, start + len(block))
        found[rows] = np.einsum("ij,ij->i", unit_rows(block), unit_rows(texts[rows]), dtype=np.float64)
    return found


def alignment(images: np.ndarray, texts: np.ndarray, groups: np.ndarray | None = None, real: bool = False) -> Estimate:
    """Returns the mean cosine of images and their prompts, in the space of an image-text encoder.

    alignment = mean_i cos(image_i, text_i). A cosine has no natural zero: compare it with `shuffled_alignment` of the
    same rows, and with that of real images and their own prompts (`real=True`). It tells whether an image fits its
    text as the encoder sees both; of fine findings the encoder may see nothing.

    Args:
        images: Image embeddings, of shape (n, d).
        texts: Embeddings of the prompts in the same order, of shape (n, d).
        groups: The unit of each row, such as its patient, of shape (n,).
        real: Whether the images are real; it only decides on which side the estimate counts its rows.

    Example:
        >>> alignment(np.eye(3), 2 * np.eye(3)).value, shuffled_alignment(np.eye(3), np.eye(3)).value
        (1.0, 0.0)
    """
    images, texts = _pairs(images, texts)
    groups, count = check_groups(groups, len(images)), len(images)
    if count < 2:
        return refused(*_sides(count, real), "needs at least 2 rows")
    cosines = prompt_cosines(images, texts)
    se = math.sqrt(mean_variance(cosines, groups))
    notes = (*size_notes(count), "standard error: over rows or their groups")
    return normal_estimate(float(cosines.mean()), se, *_sides(count, real), notes, (-1, 1))


def shuffled_alignment(
    images: np.ndarray, texts: np.ndarray, groups: np.ndarray | None = None, real: bool = False
) -> Estimate:
    """Returns the mean cosine of each image with the prompts of all other images: the floor of `alignment`.

    It is mean_{i≠j} cos(image_i, text_j), the expectation over all shuffles that leave no prompt in its place, in
    closed form: no seed, and no more work than the alignment itself.

    Args:
        images: Image embeddings, of shape (n, d).
        texts: Embeddings of the prompts in the same order, of shape (n, d).
        groups: The unit of each row, such as its patient, of shape (n,).
        real: Whether the images are real.
    """
    images, texts = _pairs(images, texts)
    groups, count = check_groups(groups, len(images)), len(images)
    if count < 2:
        return refused(*_sides(count, real), "needs at least 2 rows")
    own = prompt_cosines(images, texts)
    of_image = (_with_sum(images, texts) - own) / (count - 1)
    of_text = (_with_sum(texts, images) - own) / (count - 1)
    se = math.sqrt(mean_variance(of_image + of_text, groups))
    notes = (*size_notes(count), "standard error: U-statistic")
    return normal_estimate(float(of_image.mean()), se, *_sides(count, real), notes, (-1, 1))


def retrieval(
    images: np.ndarray,
    texts: np.ndarray,
    ranks: Sequence[int] = RANKS,
    groups: np.ndarray | None = None,
    real: bool = False,
) -> dict[int, Estimate]:
    """Returns R@k: the share of images whose own prompt is among the k nearest prompts of the set.

    The rank of a prompt is one more than the number of prompts with a greater cosine; prompts as near as the own one,
    such as the same text, do not push it back. Chance gives about k / n: compare sets of one size only.

    Args:
        images: Image embeddings, of shape (n, d).
        texts: Embeddings of the prompts in the same order, of shape (n, d).
        ranks: The k's.
        groups: The unit of each row, such as its patient, of shape (n,).
        real: Whether the images are real.

    Returns:
        R@k for each k, with the binomial standard error over rows or groups, for the prompts as they are.

    Example:
        >>> retrieval(np.eye(3), np.eye(3)[[0, 2, 1]], ranks=(1, 3))[1].value
        0.3333333333333333
    """
    images, texts = _pairs(images, texts)
    groups, count = check_groups(groups, len(images)), len(images)
    if count < 2:
        return {k: refused(*_sides(count, real), "needs at least 2 rows") for k in ranks}
    limits = (prompt_cosines(images, texts) + TIE).astype(images.dtype)[:, None]
    nearer = np.zeros(count, np.int64)
    for start in range(0, count, BLOCK):
        rows = slice(start, start + BLOCK)
        block = unit_rows(texts[rows])  # prompts in the outer loop: each is scaled once
        for first in range(0, count, BLOCK):
            ranked = slice(first, first + BLOCK)
            nearer[ranked] += np.count_nonzero(unit_rows(images[ranked]) @ block.T > limits[ranked], axis=1)
    found = {}
    for k in ranks:
        hits = (nearer < k).astype(np.float64)
        chance = f"chance: {min(1.0, k / count):.4g}"
        notes = (*size_notes(count), chance, "standard error: binomial, prompts fixed")
        se, units = math.sqrt(mean_variance(hits, groups)), count_groups(count, groups)
        found[k] = proportion_estimate(float(hits.mean()), se, units, *_sides(count, real), notes)
    return found


def _pairs(images: np.ndarray, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    images, texts = check_features(images, texts)
    if len(images) != len(texts):
        raise StepError(f"each image needs its prompt: {len(images)} images, {len(texts)} prompts")
    return images, texts


def _with_sum(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Returns for each row of one set the sum of its cosines with all rows of the other."""
    total = sum(unit_rows(block).sum(axis=0, dtype=np.float64) for _, block in row_blocks(two))
    return np.concatenate([unit_rows(block) @ total for _, block in row_blocks(one)])


def _sides(count: int, real: bool) -> tuple[int, int]:
    return (count, 0) if real else (0, count)
