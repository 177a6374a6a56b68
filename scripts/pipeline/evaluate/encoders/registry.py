"""Which encoder a name means."""

from __future__ import annotations

from pipeline.errors import StepError
from pipeline.evaluate.encoders.encoder import Encoder
from pipeline.evaluate.encoders.function import resolve_function


def resolve_encoder(name: str, model: str | None, revision: str | None) -> Encoder:
    """Returns an encoder by its name."""
    if ":" in name:
        return resolve_function(name)
    raise StepError(name)
