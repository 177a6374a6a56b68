"""The published values of CheXGenBench, from `published.json`."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any, NamedTuple

PUBLISHED = Path(__file__).with_name("published.json")


class Published(NamedTuple):
    """The published tables: of all images, FD of each label, and privacy.

    Attributes:
        encoders: The encoder of each metric.
        warnings: What a reader must know of them, in sentences.
        privacy_warnings: What a reader must know of the published values of privacy.
        models: The models. In the table of labels some rows are scrambled: their values are those of other labels.
    """

    encoders: dict[str, str]
    warnings: list[str]
    privacy_warnings: list[str]
    models: list[dict[str, Any]]

    @property
    def names(self) -> list[str]:
        """Names of the models, as heads."""
        return [f"{model['name']}, published" for model in self.models]

    def heads(self, encoder: str) -> list[str]:
        """Returns the heads of the columns of `overall`; none for an encoder of which nothing was published."""
        return self.names if encoder in self.encoders.values() else []

    def overall(self, metric: str, encoder: str) -> list[str]:
        """Returns a metric of all images for each of `heads`; empty texts for a metric that was not published."""
        in_table = self.encoders.get(metric) == encoder
        return [f"{model['overall'][metric]:.3f}" if in_table else "" for model in self.models if self.heads(encoder)]

    def privacy(self, metric: str) -> list[str]:
        """Returns a metric of privacy for each of `names`.

        Args:
            metric: `reid_score` or `latent_distance`.
        """
        return [f"{model['privacy'][metric]:.3f}" for model in self.models]

    def heads_of_labels(self) -> list[str]:
        """Returns the heads of the columns of `fd_of_label`."""
        sound, scrambled = self._by_state()
        names = [f"{model['name']}, published" for model in sound]
        return [f"median of these {len(sound)}", *names, *(f"{model['name']}, scrambled" for model in scrambled)]

    def fd_of_label(self, label: str) -> list[str]:
        """Returns FD of a label: the median of the models, each of them, and those with scrambled rows in brackets.

        Args:
            label: One of `LABELS`.
        """
        values, unsure = ([model["fd_by_label"][label] for model in models] for models in self._by_state())
        return [
            f"{statistics.median(values):.2f}",
            *(f"{value:.2f}" for value in values),
            *(f"({v:.2f})" for v in unsure),
        ]

    def _by_state(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        scrambled = [model for model in self.models if model["fd_by_label_is_scrambled"]]
        return [model for model in self.models if model not in scrambled], scrambled


def read_published() -> Published:
    """Reads the published values."""
    found = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    warnings, of_privacy = ([f"Source: {found['source']}.", *found[name]] for name in ("warnings", "privacy_warnings"))
    return Published(found["encoders"], warnings, of_privacy, found["models"])
