"""Images for the tests of settings and utility: rows of a plan without files."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.evaluate.settings import Example
from synthchex_75k import LABELS, Row


def example(
    filename: str,
    side: str = "real",
    patient: str | None = None,
    prompt: str | None = None,
    targets: Sequence[float] | None = None,
) -> Example:
    """Returns an image whose prompt no other has, and whose labels are all negative, unless given."""
    values = np.zeros(len(LABELS), np.float32) if targets is None else np.asarray(targets, np.float32)
    raw = tuple(-1 if np.isnan(value) else int(value) for value in values)
    row = Row(filename, "", filename, 0, None, None, prompt=prompt or f"Radiograph {filename}.", labels=raw)
    return Example(row, side, patient, values)
