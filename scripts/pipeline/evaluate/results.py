"""RESULTS_JSON: the schema, reading and writing it.

    {
      "format": 1,
      "protocol": "sound" or "chexgenbench",
      "created": "2026-11-27T10:00:00+00:00",
      "seed": 0,
      "labels": ["Atelectasis", ...],          those that were asked for
      "real": SIDE, "synthetic": SIDE,
      "versions": {"python": "3.11.7", "numpy": "2.4.6", ...},
      "metrics": [METRIC, ...],
      "images": {ENCODER: {"adds_most_to_fd": [IMAGE, ...], "least_like_real": [IMAGE, ...]}}
    }

    SIDE    {"name": last part of FEATURES_DIR, "source": address, "rows": n, "patients": number or null,
             "encoders": {NAME: {"fingerprint": ..., "about": what decides the features}}}
    METRIC  {"metric", "encoder", "label" or null, "value", "se", "ci_low", "ci_high", "n_real", "n_synthetic",
             "floor": {"value", "sd", "n", "splits"} or null, "protocol", "notes": [...]}
             A value of null: refused, for the reason in the notes.
    IMAGE   {"filename", "crc32", "prompt", "value",
             "nearest_real": {"filename", "crc32", "prompt", "distance"} or null}
             `value` is the influence on FD, or the distance to the nearest real image.

Names of metrics: fd, kid, kid_subsets, precision, recall, density, coverage, cmmd, vendi, inception_score, alignment,
alignment_shuffled, retrieval_1, retrieval_5, retrieval_10, label_auroc, frd. Those that compare with the same on real
images (alignment, retrieval, label_auroc) have that value as a metric of their own, with n_synthetic 0, and its name
ends in `_real`.
"""

from __future__ import annotations

FORMAT = 1
