"""Networks that read reports: RadGraph and CheXbert, by the packages of their authors.

Both packages download weights and need `transformers` before version 5. What is called of them is the part that works
with the versions of other packages that pip installs beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from pipeline.imports import import_optional
from pipeline.progress import progress_bar
from synthchex_75k import LABELS

RADGRAPH = "radgraph-xl"  # the model that the package uses by default
LEVEL = "partial"  # entities count with whether they have a relation: RG_ER of Yu et al. 2023
TEXTS_AT_ONCE = 32  # of RadGraph, for progress; it takes one at a time


def annotate(texts: Iterable[str]) -> Callable[[str, str], float]:
    """Annotates texts with RadGraph.

    Args:
        texts: The texts; each is annotated once.

    Returns:
        A function of a reference and a text, both among the texts, that returns their F1-RadGraph: 0 to 1, and 0 where
        one of them is empty or has no entity.
    """
    package, rewards = import_optional("radgraph"), import_optional("radgraph.rewards")
    model = package.RadGraph(model_type=RADGRAPH)
    distinct = [text for text in dict.fromkeys(texts) if text.strip()]
    found: dict[str, Any] = {}
    with progress_bar("RadGraph", len(distinct), "text") as bar:
        for start in range(0, len(distinct), TEXTS_AT_ONCE):
            batch = distinct[start : start + TEXTS_AT_ONCE]
            annotations = model(batch)
            if lost := [text for number, text in enumerate(batch) if str(number) not in annotations]:
                raise ValueError(f"RadGraph cannot annotate {lost[0][:80]!r}")  # it goes on with the others
            found |= {text: annotations[str(number)] for number, text in enumerate(batch)}
            bar.update(len(batch))

    def reward(reference: str, text: str) -> float:
        if not reference.strip() or not text.strip():
            return 0.0
        return float(rewards.compute_reward(found[text], found[reference], LEVEL))

    return reward


def label_findings(texts: Iterable[str]) -> dict[str, np.ndarray]:
    """Labels texts with CheXbert.

    Args:
        texts: The texts; each is labelled once.

    Returns:
        For each text the findings in the order of `LABELS`: 1, 0 (negative or not mentioned) or -1 (uncertain).
    """
    model = import_optional("f1chexbert").F1CheXbert()
    places = [model.target_names.index(label) for label in LABELS]
    found = {}
    distinct = [*dict.fromkeys(texts)]
    with progress_bar("CheXbert", len(distinct), "text") as bar:
        for text in distinct:
            labels = model.get_label(text.strip(), mode="classification")  # "" is not mentioned
            found[text] = np.array([int(labels[place] or 0) for place in places], np.int8)
            bar.update()
    return found
