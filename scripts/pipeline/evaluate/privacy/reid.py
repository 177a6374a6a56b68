"""Re-identification: the Siamese ResNet-50 that says whether two radiographs are of one patient.

    image -> ResNet-50 -> linear layer -> sigmoid: 128 numbers
    two images: |a - b| of their numbers -> linear layer -> sigmoid: the score

The network is that of Packhäuser et al. (2022), and CheXGenBench uses one that was trained on MIMIC-CXR:
`ResNet-50_epoch11_data_handling_RPN.pth` of raman07/Patient_ReIdentification_MIMIC on the Hub. An image is embedded
once; a pair of embedded images costs nothing.

The names of that file's tensors could not be checked here. So a layer is found by its shape: the ResNet by its first
convolution, whose prefix the others share, its linear layer by its 2,048 inputs, and the last layer by its one output.
Any tensor that has no place is an error.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL.Image

from pipeline.checkpoint import Checkpoint
from pipeline.errors import StepError, listing
from pipeline.evaluate.encoders.encoder import FEATURE
from pipeline.evaluate.encoders.torch_model import TorchModel
from pipeline.evaluate.encoders.weights import (
    UnfitError,
    below,
    check_complete,
    check_unchanged,
    read_tensors,
    why_unusable,
)
from pipeline.imports import check_installed, import_optional
from pipeline.machine import versions_of

OPTION = "--reid"
PACKAGES = ("torch", "torchvision")
ENDINGS = (".pth", ".pt", ".bin", ".safetensors")
FIRST_SIZE, SIZE = 512, 224  # pixels; see `describe`
WIDTH = 2048  # of ResNet-50's features
FIRST_LAYER, FIRST_SHAPE = "conv1.weight", (64, 3, 7, 7)
COUNTERS = "num_batches_tracked"  # of a batch norm's training; files of old versions of torch lack them


class PairHead(NamedTuple):
    """The last layer: weights, of shape (width,), and bias."""

    weight: np.ndarray
    bias: float


class SiameseParts(NamedTuple):
    """The tensors of a checkpoint: of the ResNet by torchvision's names, `fc` the linear layer; and the last layer."""

    resnet: dict[str, Any]
    head: PairHead


class ReidEncoder(NamedTuple):
    """The network up to its 128 numbers; see `Encoder`."""

    checkpoint: Checkpoint
    name: str = OPTION
    uses_prompts: bool = False

    def describe(self) -> dict[str, Any]:
        """See `Encoder`."""
        weights = self.checkpoint.describe()
        return {
            "model": weights.pop("name"),
            **weights,
            "preprocessing": {
                "backend": "Pillow",
                "colour": "RGB, 0 to 1, not normalised, as in CheXGenBench",
                "size": [SIZE, SIZE],
                "crop": None,
                "resampling": f"bicubic to {FIRST_SIZE}x{FIRST_SIZE}, as in CheXGenBench, then bilinear; the aspect "
                "ratio is lost",
            },
            "output": f"{FEATURE}: the linear layer after the last pooling, and the sigmoid",
            "dtype": "float32",
            "versions": versions_of("torch", "torchvision", "pillow"),
        }

    def load(self) -> ReidModel:
        """See `Encoder`."""
        return ReidModel(self.name, self.checkpoint)

    def head(self) -> PairHead:
        """Reads the last layer, and with it checks the file.

        Raises:
            StepError: The file cannot be read, or is no such network.
        """
        try:
            check_unchanged(self.checkpoint)
            return siamese_parts(read_tensors(_file_of(self.checkpoint))).head
        except StepError:
            raise
        except Exception as error:  # torch raises errors of any class for a damaged file
            raise StepError(f"{OPTION}: {self.checkpoint.name} {why_unusable(error)}") from error


class ReidModel(TorchModel):
    """ResNet-50 in this process; see `TorchModel`."""

    def build(self) -> None:
        """See `TorchModel`."""
        tensors = siamese_parts(read_tensors(_file_of(self.checkpoint))).resnet
        network = import_optional("torchvision").models.resnet50(weights=None)
        network.fc = self.torch.nn.Linear(WIDTH, len(tensors["fc.weight"]))
        found = network.load_state_dict(tensors, strict=False)
        check_complete({name for name in found.missing_keys if not name.endswith(COUNTERS)})
        if found.unexpected_keys:
            raise UnfitError(f"has tensors that ResNet-50 has not: {listing(sorted(found.unexpected_keys), 3)}")
        self._network = self.ready(network)

    def compute(self, images: list[PIL.Image.Image], prompts: list[str]) -> dict[str, Any]:
        """See `TorchModel`."""
        (feature,) = self.apply(self._see, [_prepare(image) for image in images])
        return {FEATURE: feature}

    def _see(self, pixels: Any) -> tuple[Any]:
        return (self._network(pixels.float() / 255).sigmoid(),)


def resolve_reid(name: str) -> ReidEncoder:
    """Returns the network, with its weights pinned, after a look into them.

    Args:
        name: A file of weights, a folder with one, or a name on the Hub.

    Raises:
        StepError: A package is missing, or the weights cannot be found or used.
    """
    check_installed(*PACKAGES)
    if name.endswith(ENDINGS) and not Path(name).is_file():
        raise StepError(f"{OPTION} {name}: no such file")
    encoder = ReidEncoder(Checkpoint(name).pin())
    encoder.head()
    return encoder


def _file_of(checkpoint: Checkpoint) -> Path:
    path = checkpoint.fetch(*(f"*{ending}" for ending in ENDINGS))
    if path.is_file():
        return path
    files = sorted(file for file in path.iterdir() if file.suffix in ENDINGS)
    if len(files) != 1:
        raise UnfitError(f"has {len(files)} files of weights instead of one: {listing([f.name for f in files])}")
    return files[0]


def _prepare(image: PIL.Image.Image) -> np.ndarray:
    """Returns an image of shape (3, 224, 224), 8 bits."""
    for side, resampling in ((FIRST_SIZE, PIL.Image.Resampling.BICUBIC), (SIZE, PIL.Image.Resampling.BILINEAR)):
        if image.size != (side, side):
            image = image.resize((side, side), resampling)
    return np.asarray(image.convert("RGB")).transpose(2, 0, 1)


def siamese_parts(content: dict[str, Any]) -> SiameseParts:
    """Sorts the tensors of a checkpoint.

    Args:
        content: A state dict; or a dict that holds one, beside an epoch, an optimizer and the like. All names may begin
            with `module.`, as those of a network that was trained on several GPUs.

    Raises:
        UnfitError: A layer is missing, or there are others.
    """
    tensors = _state_dict(content)
    firsts = [name for name in tensors if name.endswith(FIRST_LAYER) and _shape(tensors[name]) == FIRST_SHAPE]
    if len(firsts) != 1:
        raise UnfitError(f"is no Siamese ResNet: it has {len(firsts)} first convolutions, {FIRST_LAYER} of 64x3x7x7")
    prefix = firsts[0].removesuffix(FIRST_LAYER)
    linear = _layer(tensors, "linear layer of 2,048 inputs", lambda shape: len(shape) == 2 and shape[1] == WIDTH)
    width = len(tensors[f"{linear}.weight"])
    last = _layer(tensors, f"last layer of {width} inputs and one output", lambda shape: shape == (1, width))
    if not linear.startswith(prefix):
        raise UnfitError(f"is no Siamese ResNet: its linear layer {linear} is not beside {firsts[0]}")
    resnet = {
        name: value for name, value in below(prefix, tensors).items() if not f"{prefix}{name}".startswith(f"{last}.")
    }
    others = [name for name in tensors if not name.startswith((prefix, f"{last}."))]
    if others:
        raise UnfitError(f"has tensors that the network has not: {listing(sorted(others), 3)}")
    for part in ("weight", "bias"):
        resnet[f"fc.{part}"] = resnet.pop(f"{linear.removeprefix(prefix)}.{part}")
    weight, bias = (tensors[f"{last}.{part}"].double().numpy().ravel() for part in ("weight", "bias"))
    if not np.isfinite(weight).all() or not np.isfinite(bias).all():
        raise UnfitError("has a last layer of numbers that are not finite")
    return SiameseParts(resnet, PairHead(weight, float(bias[0])))


def _state_dict(content: dict[str, Any]) -> dict[str, Any]:
    """Returns the tensors by name, without a wrapper of the dict or of the names."""
    dicts = [content, *(value for value in content.values() if isinstance(value, dict))]
    found = [part for part in dicts if part and all(_shape(value) is not None for value in part.values())]
    if len(found) != 1:
        kinds = ", ".join(sorted({str(key) for key in content})[:5])
        raise UnfitError(f"holds {len(found)} sets of tensors by name instead of one, under {kinds}")
    tensors = {str(name): value for name, value in found[0].items()}
    wrapped = all(name.startswith("module.") for name in tensors)
    return below("module.", tensors) if wrapped else tensors


def _layer(tensors: dict[str, Any], what: str, fits: Any) -> str:
    """Returns the name of the only layer whose weight has a shape."""
    found = [name for name, value in tensors.items() if name.endswith(".weight") and fits(_shape(value))]
    if len(found) != 1:
        raise UnfitError(
            f"is no Siamese ResNet: it has {len(found)} times a {what}{': ' if found else ''}{listing(found, 3)}"
        )
    layer = found[0].removesuffix(".weight")
    if _shape(tensors.get(f"{layer}.bias")) != (len(tensors[found[0]]),):
        raise UnfitError(f"is no Siamese ResNet: {layer} has no bias")
    return layer


def _shape(value: Any) -> tuple[int, ...] | None:
    """Returns the shape of a tensor; of anything else None."""
    return tuple(value.shape) if hasattr(value, "shape") and hasattr(value, "dtype") else None
