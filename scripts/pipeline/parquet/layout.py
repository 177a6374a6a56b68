"""Names of the files in a converted folder."""

from __future__ import annotations

import re

CARD = "README.md"
CROISSANT = "croissant.json"
FIGURES = ("figures/labels.png", "figures/examples.png")
PUBLISHED_DATA_FILES = re.compile(r"data/train-[^/]*\.parquet")  # those that any tool has published
