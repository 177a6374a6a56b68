"""BioViL-T: images and reports in one space of 128 dimensions (Bannur et al., CVPR 2023).

The authors' package, hi-ml-multimodal 0.2.2, calls `batch_encode_plus` of tokenizers, which transformers 5 has no more.
The published weights are those of its classes: an image model, whose state dict begins with `encoder.encoder.` (a
ResNet-50 as torchvision names it), `encoder.backbone_to_vit`, `encoder.missing_previous_emb` and `projector.model.`
(`health_multimodal/image/model/encoder.py` and `model.py`); and CXR-BERT with `cls_projection_head.`
(`health_multimodal/text/model/modelling_cxrbert.py`). The layers that compare with a prior image are of no use here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL.Image

from pipeline.checkpoint import Checkpoint
from pipeline.errors import StepError
from pipeline.evaluate.encoders.encoder import FEATURE, TEXT
from pipeline.evaluate.encoders.torch_model import shrink_and_crop
from pipeline.evaluate.encoders.transformers_model import (
    TOKENIZER_FILES,
    TransformersModel,
    check_tokenizer,
    check_transformers,
)
from pipeline.evaluate.encoders.weights import below, count_layers, fetch_weights, first_file, read_tensors
from pipeline.machine import versions_of

WEIGHTS, REVISION = "microsoft/BiomedVLP-BioViL-T", "v1.0"  # the tag that the authors' package names
IMAGE_FILE = "biovil_t_image_model_proj_size_128.pt"
TEXT_FILES = ("model.safetensors", "pytorch_model.bin")
SIZE, CROP = 512, 448  # of the shorter side, and of the square: pixels
PREPROCESSING = {
    "backend": "pil",
    "rescale": "all values of the image linearly, its smallest to 0 and its largest to 255, cut to integers",
    "colour": "L, repeated three times",
    "size": {"shortest_edge": SIZE},
    "resample": "bilinear",
    "crop": {"height": CROP, "width": CROP},
    "scale": 1 / 255,
}


class BioVilTEncoder(NamedTuple):
    """BioViL-T, with pinned weights."""

    checkpoint: Checkpoint
    name: str = "biovil-t"
    uses_prompts: bool = True

    def describe(self) -> dict[str, Any]:
        """See `Encoder`."""
        weights = self.checkpoint.describe()
        return {
            "model": weights.pop("name"),
            **weights,
            "preprocessing": PREPROCESSING,
            "output": (
                "joint projection of an image without a prior one, mean over places, L2-normalised; text: joint "
                "projection of the CLS token, L2-normalised, of the prompt without .!? at its end, cut at 512 tokens"
            ),
            "dtype": "float32",
            "versions": versions_of("torch", "transformers", "pillow", "tokenizers"),
        }

    def load(self) -> BioVilTModel:
        """See `Encoder`."""
        return BioVilTModel(self.name, self.checkpoint)


class BioVilTModel(TransformersModel):
    """BioViL-T in this process; see `TorchModel`."""

    def build(self) -> None:
        """See `TorchModel`."""
        folder = fetch_weights(self.checkpoint, TEXT_FILES[:1], TEXT_FILES[1:], IMAGE_FILE, *TOKENIZER_FILES)
        check_tokenizer(folder)
        self._tokenizer = self.transformers.BertTokenizer.from_pretrained(folder, local_files_only=True)
        self._build_image_side(read_tensors(first_file(folder, IMAGE_FILE)))
        self._build_text_side(read_tensors(first_file(folder, *TEXT_FILES)))

    def compute(self, images: list[PIL.Image.Image], prompts: list[str]) -> dict[str, Any]:
        """See `TorchModel`."""
        normalize = self.torch.nn.functional.normalize
        return {FEATURE: normalize(self._see(images), dim=1), TEXT: normalize(self._read(prompts), dim=1)}

    def _build_image_side(self, tensors: dict[str, Any]) -> None:
        nn = self.torch.nn
        self._resnet = self._make_resnet(below("encoder.encoder.", tensors))
        shrink, head = below("encoder.backbone_to_vit.", tensors), below("projector.model.", tensors)
        inner, outer = head["0.weight"].shape[0], head["3.weight"].shape[0]
        to_narrow = nn.Conv2d(shrink["weight"].shape[1], shrink["weight"].shape[0], 1, bias=False)
        self._narrow = self.stack({"0.weight": shrink["weight"]}, to_narrow)
        layers = [nn.Conv2d(head["0.weight"].shape[1], inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU()]
        self._project = self.stack(head, *layers, nn.Conv2d(inner, outer, 1))
        self._no_prior = tensors["encoder.missing_previous_emb"].float().to(self.place)

    def _make_resnet(self, tensors: dict[str, Any]) -> Any:
        stages = [below(f"layer{number}.", tensors) for number in range(1, 5)]
        config = self.transformers.ResNetConfig(
            embedding_size=tensors["conv1.weight"].shape[0],
            hidden_sizes=[stage["0.conv3.weight"].shape[0] for stage in stages],
            depths=[count_layers(stage, "") for stage in stages],
        )
        renamed = {_name_in_transformers(name): value for name, value in tensors.items() if not name.startswith("fc.")}
        return self.fill(self.transformers.ResNetModel, config, renamed)

    def _build_text_side(self, tensors: dict[str, Any]) -> None:
        nn = self.torch.nn
        self._bert = self.bert(below("bert.", tensors))
        head = below("cls_projection_head.", tensors)
        names = {"dense_to_hidden": "0", "LayerNorm": "2", "dense_to_output": "3"}
        numbered = {f"{names[name.split('.')[0]]}.{name.split('.')[1]}": value for name, value in head.items()}
        width, joint = head["dense_to_hidden.weight"].shape[1], head["dense_to_hidden.weight"].shape[0]
        layers = [nn.Linear(width, joint), nn.GELU(), nn.LayerNorm(joint, eps=1e-12), nn.Linear(joint, joint)]
        self._project_text = self.stack(numbered, *layers)

    def _see(self, images: list[PIL.Image.Image]) -> Any:
        pixels = np.stack([np.asarray(_prepare(image), np.float32) for image in images]) / 255
        tensor = self.torch.from_numpy(pixels)[:, None].repeat(1, 3, 1, 1).to(self.place)
        current = self._narrow(self._resnet(pixel_values=tensor).last_hidden_state)
        both = self.torch.cat([current, self._no_prior.expand_as(current)], dim=1)
        return self._project(both).mean((2, 3))

    def _read(self, prompts: list[str]) -> Any:
        texts = [prompt.rstrip("!?.") for prompt in prompts]
        most = self._bert.config.max_position_embeddings
        tokens = self._tokenizer(texts, padding=True, truncation=True, max_length=most, return_tensors="pt")
        return self._project_text(self._bert(**tokens.to(self.place)).last_hidden_state[:, 0])


def resolve_biovil_t(model: str | None, revision: str | None) -> BioVilTEncoder:
    """Pins BioViL-T; see `registry.resolve_encoder`.

    Args:
        model: A folder or name on the Hub with files as `microsoft/BiomedVLP-BioViL-T` has them, which is the default.
        revision: See `Checkpoint`. Default: the tag of the authors' package for their weights, else the main branch.

    Raises:
        StepError: A package is missing, or there is no such checkpoint.
    """
    check_transformers()
    checkpoint = Checkpoint(model or WEIGHTS, revision if model else revision or REVISION).pin()
    if checkpoint.is_local and not (Path(checkpoint.name) / IMAGE_FILE).is_file():
        raise StepError(f"--encoder biovil-t: {checkpoint.name} has no {IMAGE_FILE}")
    return BioVilTEncoder(checkpoint)


def _prepare(image: PIL.Image.Image) -> PIL.Image.Image:
    """Returns the grey square that the model sees; an image of one colour becomes black."""
    values = np.asarray(image, float)
    values = values - values.min()
    if values.any():
        values = values / values.max() * 255
    grey = PIL.Image.fromarray(values.astype(np.uint8)).convert("L")
    return shrink_and_crop(grey, SIZE, CROP, PIL.Image.Resampling.BILINEAR)


def _name_in_transformers(name: str) -> str:
    """Returns the name in transformers' ResNet of a tensor that torchvision's has.

    Example:
        >>> _name_in_transformers("layer2.0.conv3.weight"), _name_in_transformers("bn1.bias")
        ('encoder.stages.1.layers.0.layer.2.convolution.weight', 'embedder.embedder.normalization.bias')
    """
    kinds = {"conv": "convolution", "bn": "normalization"}
    if name.startswith("layer"):
        stage, block, rest = name.removeprefix("layer").split(".", 2)
        rest = re.sub(r"^downsample\.([01])", lambda found: f"shortcut.{[*kinds.values()][int(found[1])]}", rest)
        rest = re.sub(r"^(conv|bn)(\d)", lambda found: f"layer.{int(found[2]) - 1}.{kinds[found[1]]}", rest)
        return f"encoder.stages.{int(stage) - 1}.layers.{block}.{rest}"
    return re.sub(r"^(conv|bn)1", lambda found: f"embedder.embedder.{kinds[found[1]]}", name)
