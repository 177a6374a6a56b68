"""The networks of torch-fidelity and TorchXRayVision with random weights."""

import importlib
import io
from pathlib import Path
from typing import Any

import torch

import import_torchvision  # noqa: F401 - before what needs it

fidelity: Any = importlib.import_module("torch_fidelity")
xrv: Any = importlib.import_module("torchxrayvision")


class _Inception(fidelity.FeatureExtractorInceptionV3):
    """Without its weights."""

    def load_state_dict(self, *_: Any, **__: Any) -> None:
        """Does nothing."""


def save_inception(path: Path, seed: int = 0) -> Path:
    """Saves the weights of torch-fidelity's InceptionV3 as its own file has them.

    Args:
        path: Where to.
        seed: Of the weights.
    """
    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    network = _Inception("random", ["2048"], feature_extractor_weights_path=nothing)
    torch.save(_randomize(network, seed).state_dict(), path)
    return path


def densenet(seed: int = 0) -> Any:
    """Returns TorchXRayVision's DenseNet-121.

    Args:
        seed: Of the weights.
    """
    return _randomize(xrv.models.DenseNet(), seed)


def _randomize(network: Any, seed: int) -> Any:
    """Gives each layer random weights that keep the size of what passes through it."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear)):
                inputs = layer.weight[0].numel()
                layer.weight.copy_(torch.randn(layer.weight.shape, generator=random) * (2 / inputs) ** 0.5)
            elif isinstance(layer, torch.nn.BatchNorm2d):
                layer.bias.copy_(torch.randn(layer.bias.shape, generator=random) / 10)
    return network.eval()
