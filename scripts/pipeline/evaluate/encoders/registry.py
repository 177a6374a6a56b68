"""Encoders by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pipeline.checkpoint import Checkpoint
from pipeline.errors import StepError
from pipeline.evaluate.encoders.biomedclip import resolve_biomedclip
from pipeline.evaluate.encoders.biovil_t import resolve_biovil_t
from pipeline.evaluate.encoders.encoder import Encoder
from pipeline.evaluate.encoders.function import resolve_function
from pipeline.evaluate.encoders.inception import resolve_inception
from pipeline.evaluate.encoders.radiomics import resolve_radiomics
from pipeline.evaluate.encoders.transformers_vision import resolve_vision_model
from pipeline.evaluate.encoders.xrv import resolve_xrv
from pipeline.imports import INSTALL

TRANSFORMERS = f"pip install {INSTALL['transformers']}"
# Names for --help: weights, width of the features, other outputs, what to install.
ENCODERS = {
    "rad-dino": f"microsoft/rad-dino, chest radiographs; 768; {TRANSFORMERS}",
    "dinov2": f"facebook/dinov2-large, photographs; 1,024; {TRANSFORMERS}",
    "clip": f"openai/clip-vit-large-patch14-336, photographs and captions; 768, text; {TRANSFORMERS}",
    "biovil-t": f"microsoft/BiomedVLP-BioViL-T, chest radiographs and reports; 128, text; {TRANSFORMERS}",
    "biomedclip": f"microsoft/BiomedCLIP…, biomedical figures and captions; 512, text; {TRANSFORMERS}",
    "inception": f"Inception v3 of torch-fidelity, photographs; 2,048, logits; pip install {INSTALL['torch_fidelity']}",
    "xrv": "DenseNet-121 of torchxrayvision, chest radiographs; 1,024, pathologies; pip install torchxrayvision",
    "radiomics": "features of texture by pyradiomics, as frd-score configures it; 398; see scripts/README.md",
}


class VisionPreset(NamedTuple):
    """A vision model of `transformers` with a name of its own: its weights, and types that they may have."""

    weights: str
    model_types: tuple[str, ...]


VISION_MODELS = {
    "rad-dino": VisionPreset("microsoft/rad-dino", ("dinov2",)),
    "dinov2": VisionPreset("facebook/dinov2-large", ("dinov2", "dinov2_with_registers")),
    "clip": VisionPreset("openai/clip-vit-large-patch14-336", ("clip",)),
}
OTHERS: dict[str, Callable[[str | None, str | None], Encoder]] = {
    "biovil-t": resolve_biovil_t,
    "biomedclip": resolve_biomedclip,
    "inception": resolve_inception,
    "xrv": resolve_xrv,
    "radiomics": resolve_radiomics,
}


def resolve_encoder(name: str, model: str | None = None, revision: str | None = None) -> Encoder:
    """Finds an encoder, checks that its packages are installed, and pins its weights; loads none.

    Args:
        name: A name of `ENCODERS`; `MODULE:FUNCTION`; or a vision model of `transformers`, a folder or a name on the
            Hub with a `/`, which is stored under the last part of its path.
        model: Weights to use instead: a folder or file, or a name on the Hub.
        revision: Of weights on the Hub: commit, branch or tag. Default: the main branch.

    Returns:
        The encoder.

    Raises:
        StepError: There is no such encoder, a package is missing (the message tells what to install), or the weights
            cannot be pinned.
    """
    if name in VISION_MODELS:
        weights, model_types = VISION_MODELS[name]
        return resolve_vision_model(name, Checkpoint(model or weights, revision), *model_types)
    if name in OTHERS:
        return OTHERS[name](model, revision)
    if model:
        raise StepError(f"--model {model}: --encoder {name} takes no other weights, only {_names()} do")
    if Path(name).is_dir() or ("/" in name and ":" not in name):
        return resolve_vision_model(_stored_name(name), Checkpoint(name, revision))
    if ":" in name:
        if revision:
            raise StepError(f"--revision is for models on the Hub; --encoder {name} is a function")
        return resolve_function(name)
    raise StepError(
        f"--encoder {name}: no such encoder; name one of {_names()}, a folder, a model on the Hub as USER/NAME, or a "
        "function as MODULE:FUNCTION"
    )


def _stored_name(path: str) -> str:
    last = Path(path).resolve().name if Path(path).is_dir() else path.rstrip("/").rpartition("/")[2]
    name = re.sub(r"[^a-z0-9._-]+", "-", last.lower()).strip("-.")
    if not name:
        raise StepError(f"--encoder {path}: no name can be made of {last}; rename the folder")
    return name


def _names() -> str:
    return ", ".join(ENCODERS)
