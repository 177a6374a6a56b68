"""Encoders by name: which there are, and what is said of the others. No package of an encoder is needed."""

import sys
from pathlib import Path

import pytest

from pipeline.errors import StepError
from pipeline.evaluate.encoders.registry import ENCODERS, VISION_MODELS, resolve_encoder


def error_of(name: str, model: str | None = None, revision: str | None = None) -> str:
    with pytest.raises(StepError) as caught:
        resolve_encoder(name, model, revision)
    return str(caught.value)


def test_names_are_those_of_files_and_each_tells_what_to_install() -> None:
    assert {*VISION_MODELS} < {*ENCODERS}
    for name, about in ENCODERS.items():
        assert name == name.lower()
        assert "pip install" in about or "README" in about


def test_an_unknown_name() -> None:
    message = error_of("raddino")
    assert message.startswith("--encoder raddino: no such encoder; name one of rad-dino, dinov2, clip, ")
    assert message.endswith("a folder, a model on the Hub as USER/NAME, or a function as MODULE:FUNCTION")


@pytest.mark.parametrize("name", ["rad-dino", "dinov2", "clip", "biovil-t", "biomedclip", "alice/model"])
def test_without_torch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # as if it were not installed
    assert error_of(name) == "this model needs the Python module torch: pip install torch 'transformers>=5'"


def test_weights_for_an_encoder_that_is_weights(tmp_path: Path) -> None:
    for name in ("alice/model", str(tmp_path), "module:function"):
        assert error_of(name, model="alice/other").startswith(f"--model alice/other: --encoder {name} takes no other")


def test_a_revision_of_a_function() -> None:
    message = error_of("module:function", revision="main")
    assert message == "--revision is for models on the Hub; --encoder module:function is a function"
