"""What `utility` asks of a classifier: train on a split, and return scores of its validation and test images."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np

from pipeline.evaluate.settings import Split


class Scores(NamedTuple):
    """What a classifier that was trained on a split says of images, higher for positive.

    Attributes:
        validation: Of the validation images, of shape (n, 14); NaN in a whole column: it did not learn the label.
        test: Of the test images, of shape (m, 14); NaN in the same columns.
    """

    validation: np.ndarray
    test: np.ndarray


class Classifier(Protocol):
    """A way to train."""

    @property
    def name(self) -> str:
        """What results call it."""

    @property
    def is_main(self) -> bool:
        """Whether this process writes results; another one only takes part in the training."""

    def describe(self) -> dict[str, Any]:
        """Returns all that decides the scores beside the images and the seed, as JSON holds it."""

    def scores(self, split: Split) -> Scores:
        """Trains on a split, or returns what an earlier run has found.

        Raises:
            SourceError: An image is damaged.
            StepError: It cannot be trained.
            OSError: A file cannot be read or written.
        """
