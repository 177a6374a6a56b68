"""The networks of torch-fidelity, TorchXRayVision and of re-identification with random weights."""

import importlib
import io
from pathlib import Path
from typing import Any

import torch

import import_torchvision  # noqa: F401 - before what needs it

fidelity: Any = importlib.import_module("torch_fidelity")
torchvision: Any = importlib.import_module("torchvision")
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


class Siamese(torch.nn.Module):
    """A Siamese ResNet-50.

    Args:
        resnet: Name of the part that sees one image; "": its layers are those of the network itself.
        last: Name of the layer that sees two.
        seed: Of the weights.
    """

    def __init__(self, resnet: str = "model", last: str = "fc_end", seed: int = 0) -> None:
        super().__init__()
        one: Any = _randomize(torchvision.models.resnet50(weights=None), seed)
        one.fc = _randomize(torch.nn.Linear(2048, 128), seed)
        for layer in one.modules():
            if isinstance(layer, torchvision.models.resnet.Bottleneck):
                torch.nn.init.constant_(layer.bn3.weight, 0.2)  # else values grow from block to block
        self.one, self.pair = [one], [_randomize(torch.nn.Linear(128, 1), seed + 1)]  # in lists, which register none
        for name, part in [(resnet, one)] if resnet else list(one.named_children()):
            self.add_module(name, part)
        self.add_module(last, self.pair[0])

    def forward(self, first: Any, second: Any) -> Any:
        """Returns the probability that two images are of one patient."""
        features = [self.one[0](image).sigmoid() for image in (first, second)]
        return self.pair[0]((features[0] - features[1]).abs()).sigmoid()


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
