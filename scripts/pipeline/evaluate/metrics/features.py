"""Checks of arrays before the long work, and rows in blocks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pipeline.errors import StepError

BLOCK_BYTES = 1 << 23  # of a block of rows in float64


def check_features(*sets: np.ndarray, rows: tuple[np.ndarray, ...] | None = None) -> tuple[np.ndarray, ...]:
    """Returns feature arrays as they are, or in float32 if they have another type than float32 or float64.

    Args:
        sets: Arrays of shape (n, d), with one d.
        rows: Of each array, the indices of the rows to check for NaN; all by default.

    Returns:
        The arrays, all of one type: float64 if one of them is.

    Raises:
        StepError: If an array has another shape, or holds NaN or infinity.
    """
    for number, features in enumerate(sets, 1):
        if features.ndim != 2 or features.shape[1] != sets[0].shape[1] or not features.shape[1]:
            raise StepError(f"features must have the shape (rows, {sets[0].shape[-1]}): set {number}: {features.shape}")
    kind = np.float64 if any(features.dtype == np.float64 for features in sets) else np.float32
    checked = tuple(np.asarray(features, kind) for features in sets)
    for number, features in enumerate(checked, 1):
        part = rows[number - 1] if rows else None
        for start, block in row_blocks(features, part):
            if not np.isfinite(block).all():
                row = start + int(np.flatnonzero(~np.isfinite(block).all(axis=1))[0])
                row = row if part is None else int(part[row])
                raise StepError(f"features must be finite; embed the image once more: set {number}, row {row}")
    return checked


def check_groups(groups: np.ndarray | None, rows: int) -> np.ndarray | None:
    """Returns groups as integers from 0.

    Raises:
        StepError: If there is not one for each row.
    """
    if groups is None:
        return None
    if np.shape(groups) != (rows,):
        raise StepError(f"groups must have the shape ({rows},): {np.shape(groups)}")
    return np.unique(groups, return_inverse=True)[1].ravel()


def chosen_rows(
    features: np.ndarray, groups: np.ndarray | None, rows: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns the indices of the rows to use, and their groups as integers.

    Args:
        features: An array of shape (n, d).
        groups: The group of each row of the array, of shape (n,).
        rows: Indices of the rows; all by default.
    """
    groups = check_groups(groups, len(features))
    if rows is None:
        return np.arange(len(features)), groups
    return rows, None if groups is None else np.unique(groups[rows], return_inverse=True)[1].ravel()


def row_blocks(features: np.ndarray, rows: np.ndarray | None = None) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the rows of an array in blocks whose float64 copies have at most 8 MiB.

    Args:
        features: An array of shape (n, d).
        rows: Indices of the rows; all by default.

    Yields:
        The position of the block's first row among the rows, and the block.
    """
    count = len(features) if rows is None else len(rows)
    step = max(1, BLOCK_BYTES // (8 * features.shape[1]))
    for start in range(0, count, step):
        end = min(start + step, count)
        yield start, features[start:end] if rows is None else features[rows[start:end]]


def unit_rows(features: np.ndarray) -> np.ndarray:
    """Returns rows divided by their length, in the type of the array; a row of zeros stays as it is."""
    lengths = np.sqrt(np.einsum("ij,ij->i", features, features, dtype=np.float64))
    return features / np.where(lengths > 0, lengths, 1).astype(features.dtype)[:, None]
