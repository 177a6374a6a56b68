"""InceptionV3 as torch-fidelity has it: the network of the Fréchet Inception Distance and of the Inception Score."""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL.Image

from pipeline.checkpoint import Checkpoint
from pipeline.errors import StepError
from pipeline.evaluate.encoders.encoder import FEATURE, LOGITS
from pipeline.evaluate.encoders.torch_model import TorchModel
from pipeline.evaluate.encoders.weights import pin_weights_file, read_tensors
from pipeline.files import sha256_of
from pipeline.imports import check_installed, import_optional
from pipeline.machine import versions_of

PACKAGES = ("torch_fidelity", "torchvision", "torch")
LIBRARY = "torch_fidelity.feature_extractor_inceptionv3"
# torch-fidelity's names of its outputs; from these it computes FID and KID, and the Inception Score.
LAYERS = ("2048", "logits_unbiased")
DOWNLOAD_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"


class InceptionEncoder(NamedTuple):
    """See `Encoder`; the weights are a file, pinned."""

    checkpoint: Checkpoint
    name: str = "inception"
    uses_prompts: bool = False

    def describe(self) -> dict[str, Any]:
        """See `Encoder`."""
        weights = self.checkpoint.describe()
        return {
            "model": weights.pop("name"),
            **weights,
            "preprocessing": {
                "backend": "torch-fidelity",
                "colour": "RGB, 8 bits",
                "size": [299, 299],
                "crop": None,
                "resampling": "bilinear as TensorFlow 1 does it, without antialiasing; the aspect ratio is lost",
                "mean": 128,
                "std": 128,
            },
            "output": f"{FEATURE}: the last pooling layer (2048); {LOGITS}: 1008 classes, without the layer's bias",
            "dtype": "float32",
            "versions": versions_of("torch", "torch-fidelity"),
        }

    def load(self) -> InceptionModel:
        """See `Encoder`."""
        return InceptionModel(self.name, self.checkpoint)


class InceptionModel(TorchModel):
    """Inception v3 in this process; see `TorchModel`."""

    def build(self) -> None:
        """See `TorchModel`."""
        network = import_optional(LIBRARY).FeatureExtractorInceptionV3
        # The class reads its file with pickle: it gets one that has nothing but the tensors.
        tensors = io.BytesIO()
        self.torch.save(read_tensors(Path(self.checkpoint.name)), tensors)
        tensors.seek(0)
        self._network = self.ready(network("inception-v3-compat", [*LAYERS], feature_extractor_weights_path=tensors))

    def compute(self, images: list[PIL.Image.Image], prompts: list[str]) -> dict[str, Any]:
        """See `TorchModel`."""
        feature, logits = self.apply(self._network, [np.asarray(image).transpose(2, 0, 1) for image in images])
        return {FEATURE: feature, LOGITS: logits}


def resolve_inception(model: str | None, revision: str | None) -> InceptionEncoder:
    """Returns the encoder `inception`, with its weights pinned.

    Args:
        model: File of the weights, in the format of torch-fidelity. Default: torch-fidelity's own, in its cache or
            downloaded to it.
        revision: None; a file has none.

    Raises:
        StepError: A package is missing, or the file is.
    """
    check_installed(*PACKAGES)
    return InceptionEncoder(pin_weights_file(model, revision, _own_weights))


def _own_weights() -> Path:
    """Returns torch-fidelity's own file in its cache, which is downloaded if it is not there."""
    hub = import_optional("torch").hub
    url = import_optional(LIBRARY).URL_INCEPTION_V3
    path = Path(hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.redirect_stdout(sys.stderr):
            hub.download_url_to_file(url, str(path), DOWNLOAD_SHA256)
    elif sha256_of(path) != DOWNLOAD_SHA256:
        raise StepError(f"{path} is not what torch-fidelity downloads to there; delete it, or name a file with --model")
    return path
