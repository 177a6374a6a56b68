"""FRD: the logarithm of FD on radiomics features (frd-score), which are scaled first."""

from __future__ import annotations

import math

import numpy as np

from pipeline.errors import listing
from pipeline.evaluate.encoders.encoder import FEATURE
from pipeline.evaluate.features import Features
from pipeline.evaluate.metrics.estimate import Estimate, normal_estimate, refused
from pipeline.evaluate.metrics.features import row_blocks

RADIOMICS = "radiomics"  # the encoder whose FD is reported as `frd`


def log_estimate(estimate: Estimate) -> Estimate:
    """Returns the estimate of the natural logarithm of a positive metric, by the delta method."""
    sizes = estimate.n_real, estimate.n_synthetic
    if estimate.value is None:
        return estimate
    if not estimate.value > 0:
        return refused(*sizes, "FD is 0, which has no logarithm")
    se = math.inf if estimate.se is None else estimate.se / estimate.value
    return normal_estimate(math.log(estimate.value), se, *sizes, estimate.notes)


def scaled_radiomics(real: Features, synthetic: Features) -> tuple[tuple[np.ndarray, np.ndarray], tuple[str, ...]]:
    """Scales features by the mean and the standard deviation of the real set, as FRD does.

    Args:
        real: The real side.
        synthetic: The synthetic side.

    Returns:
        Both sides in float64, without the columns that are not finite or that do not vary; notes that name them.
    """
    sides = real.outputs[FEATURE], synthetic.outputs[FEATURE]
    kept = np.ones(sides[0].shape[1], bool)
    for values in sides:
        for _, block in row_blocks(values):
            kept &= np.isfinite(block).all(axis=0)
    columns = np.flatnonzero(kept)
    wide = sides[0][:, columns].astype(np.float64)
    mean, sd = wide.mean(axis=0), wide.std(axis=0)
    varies = np.ptp(wide, axis=0) > 0
    kept[columns[~varies]] = False
    columns = columns[varies]
    scaled = tuple((values[:, columns].astype(np.float64) - mean[varies]) / sd[varies] for values in sides)
    names = list((real.encoder.about.get("classes") or {}).get(FEATURE, []))
    if len(names) != len(kept):
        names = [f"column {i}" for i in range(len(kept))]
    dropped = [names[i] for i in np.flatnonzero(~kept)]
    notes: tuple[str, ...] = ("features scaled by the real set",)
    if dropped:
        notes += (f"left out, as not finite on a side or constant on the real one: {listing(dropped, 20, ', ')}",)
    return (scaled[0], scaled[1]), notes
