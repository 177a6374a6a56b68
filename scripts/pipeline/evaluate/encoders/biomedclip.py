"""BiomedCLIP: images and captions in one space of 512 dimensions (Zhang et al., NEJM AI 2024).

open_clip, with which it was published, needs torchvision and timm, and reads the configuration of the text model from a
second repository at whatever its main branch is. The published weights are those of its classes, which begin with
`visual.trunk.` (a ViT as timm names it), `visual.head.proj.`, `text.transformer.` (a BERT) and `text.proj.`
(`open_clip/timm_model.py` and `hf_model.py`); here classes of transformers take them.
"""

from __future__ import annotations

import html
import re
from typing import Any, NamedTuple

import numpy as np
import PIL.Image

from pipeline.checkpoint import Checkpoint
from pipeline.errors import StepError
from pipeline.evaluate.encoders.encoder import FEATURE, TEXT
from pipeline.evaluate.encoders.torch_model import shrink_and_crop
from pipeline.evaluate.encoders.transformers_model import (
    HEAD_WIDTH,
    TOKENIZER_FILES,
    TransformersModel,
    check_tokenizer,
    check_transformers,
)
from pipeline.evaluate.encoders.weights import below, count_layers, fetch_weights, first_file, read_json, read_tensors
from pipeline.machine import versions_of

WEIGHTS = "microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224"
CONFIG = "open_clip_config.json"
SAFE_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")
PICKLED_FILES = ("open_clip_pytorch_model.bin",)
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]  # OpenAI's, open_clip's defaults
# What this module computes, with the defaults of open_clip; a checkpoint of another architecture is refused.
VISION = {"timm_pool": ("", "token"), "timm_proj": ("linear",)}
TEXT_MODEL = {"proj_type": ("mlp",), "pooler_type": ("cls_last_hidden_state_pooler",)}
RESIZING = {"interpolation": ("bicubic",), "resize_mode": ("shortest",)}
# Names of a ViT's tensors in timm, and in checkpoints of transformers.
VIT_NAMES = (
    (r"^cls_token$", "embeddings.cls_token"),
    (r"^pos_embed$", "embeddings.position_embeddings"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^norm\.", "layernorm."),
    (r"^blocks\.", "encoder.layer."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
)


class BiomedClipEncoder(NamedTuple):
    """BiomedCLIP, with pinned weights.

    Attributes:
        checkpoint: Its weights.
        size: Side of the square that it sees: pixels.
        mean: Of the pixels' values, by channel.
        std: Their standard deviation, by channel.
        max_tokens: The most tokens of a prompt.
    """

    checkpoint: Checkpoint
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    max_tokens: int
    name: str = "biomedclip"
    uses_prompts: bool = True

    def describe(self) -> dict[str, Any]:
        """See `Encoder`."""
        weights = self.checkpoint.describe()
        return {
            "model": weights.pop("name"),
            **weights,
            "preprocessing": {
                "backend": "pil",
                "size": {"shortest_edge": self.size},
                "resample": "bicubic",
                "crop": {"height": self.size, "width": self.size},
                "colour": "RGB",
                "scale": 1 / 255,
                "mean": [*self.mean],
                "std": [*self.std],
            },
            "output": (
                "projected image features, L2-normalised; text: projected text features, L2-normalised, prompts cut "
                f"at {self.max_tokens} tokens"
            ),
            "dtype": "float32",
            "versions": versions_of("torch", "transformers", "pillow", "tokenizers"),
        }

    def load(self) -> BiomedClipModel:
        """See `Encoder`."""
        return BiomedClipModel(self)


class BiomedClipModel(TransformersModel):
    """BiomedCLIP in this process; see `TorchModel`."""

    def __init__(self, encoder: BiomedClipEncoder) -> None:
        self._encoder = encoder
        super().__init__(encoder.name, encoder.checkpoint)

    def build(self) -> None:
        """See `TorchModel`."""
        nn = self.torch.nn
        folder = fetch_weights(self.checkpoint, SAFE_FILES, PICKLED_FILES, CONFIG, *TOKENIZER_FILES)
        check_tokenizer(folder)
        self._tokenizer = self.transformers.BertTokenizer.from_pretrained(folder, local_files_only=True)
        tensors = read_tensors(first_file(folder, *SAFE_FILES, *PICKLED_FILES))
        self._vit = self._make_vit(below("visual.trunk.", tensors))
        image_head, text_head = below("visual.head.proj.", tensors), below("text.proj.", tensors)
        self._project = self.stack({"0.weight": image_head["weight"]}, _linear(nn, image_head["weight"]))
        self._bert = self.bert(below("text.transformer.", tensors))
        layers = [_linear(nn, text_head["0.weight"]), nn.GELU(), _linear(nn, text_head["2.weight"])]
        self._project_text = self.stack(text_head, *layers)

    def compute(self, images: list[PIL.Image.Image], prompts: list[str]) -> dict[str, Any]:
        """See `TorchModel`."""
        normalize = self.torch.nn.functional.normalize
        return {FEATURE: normalize(self._see(images), dim=1), TEXT: normalize(self._read(prompts), dim=1)}

    def _make_vit(self, tensors: dict[str, Any]) -> Any:
        patches, positions = tensors["patch_embed.proj.weight"], tensors["pos_embed"].shape[1]
        config = self.transformers.ViTConfig(
            hidden_size=patches.shape[0],
            patch_size=patches.shape[-1],
            image_size=round((positions - 1) ** 0.5) * patches.shape[-1],
            num_hidden_layers=count_layers(tensors, "blocks."),
            num_attention_heads=patches.shape[0] // HEAD_WIDTH,
            intermediate_size=tensors["blocks.0.mlp.fc1.weight"].shape[0],
            layer_norm_eps=1e-6,
        )
        renamed = {name: value for pair in tensors.items() for name, value in _in_transformers(*pair)}
        return self.fill(self.transformers.ViTModel, config, renamed, add_pooling_layer=False)

    def _see(self, images: list[PIL.Image.Image]) -> Any:
        size, torch = self._encoder.size, self.torch
        squares = [shrink_and_crop(image, size, size, PIL.Image.Resampling.BICUBIC) for image in images]
        pixels = torch.from_numpy(np.stack([*map(np.asarray, squares)])).permute(0, 3, 1, 2).to(self.place)
        mean, std = (
            torch.tensor(values, device=self.place)[:, None, None] for values in (self._encoder.mean, self._encoder.std)
        )
        seen = self._vit(pixel_values=(pixels.float() / 255 - mean) / std)
        return self._project(seen.last_hidden_state[:, 0])

    def _read(self, prompts: list[str]) -> Any:
        texts = [" ".join(html.unescape(html.unescape(prompt)).split()) for prompt in prompts]
        options = {"max_length": self._encoder.max_tokens, "truncation": True, "return_tensors": "pt"}
        tokens = self._tokenizer(texts, padding=True, **options)
        return self._project_text(self._bert(**tokens.to(self.place)).last_hidden_state[:, 0])


def resolve_biomedclip(model: str | None, revision: str | None) -> BiomedClipEncoder:
    """Pins BiomedCLIP and reads its preprocessing; see `registry.resolve_encoder`.

    Args:
        model: A folder or name on the Hub, as open_clip saves a model. Default: the authors' weights.
        revision: See `Checkpoint`.

    Raises:
        StepError: A package is missing, or the checkpoint is of another architecture.
    """
    check_transformers()
    checkpoint = Checkpoint(model or WEIGHTS, revision).pin()
    prefix = f"--encoder biomedclip: {checkpoint.name}"
    content = read_json(checkpoint.fetch(CONFIG) / CONFIG, f"{prefix} is no model of open_clip")
    try:
        vision, text = content["model_cfg"]["vision_cfg"], content["model_cfg"]["text_cfg"]
        preprocess = content.get("preprocess_cfg") or {}
        # Older versions of open_clip name the settings of the text model without `hf_`.
        text = {name.removeprefix("hf_").replace("proj_type", "proj"): value for name, value in text.items()}
        text["proj_type"] = text.get("proj")
        for settings, allowed in ((vision, VISION), (text, TEXT_MODEL), (preprocess, RESIZING)):
            for name, values in allowed.items():
                if settings.get(name, values[0]) not in values:
                    raise StepError(f"{prefix} has {name} {settings[name]!r}; only {values[0]!r} is known")
        if not str(vision.get("timm_model_name")).startswith("vit_"):
            raise StepError(f"{prefix} has no ViT of timm")
        size, tokens = int(vision["image_size"]), int(text["context_length"])
        mean, std = (tuple(map(float, preprocess.get(name, usual))) for name, usual in (("mean", MEAN), ("std", STD)))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise StepError(f"{prefix} has an {CONFIG} that is not BiomedCLIP's: {error!r}") from error
    return BiomedClipEncoder(checkpoint, size, mean, std, tokens)


def _in_transformers(name: str, tensor: Any) -> list[tuple[str, Any]]:
    """Returns the names and tensors of a ViT in transformers for one in timm, which has query, key and value in one."""
    for pattern, replacement in VIT_NAMES:
        name = re.sub(pattern, replacement, name)
    if ".attn.qkv." not in name:
        return [(name, tensor)]
    parts = zip(("query", "key", "value"), tensor.chunk(3))
    return [(name.replace(".attn.qkv.", f".attention.attention.{part}."), chunk) for part, chunk in parts]


def _linear(nn: Any, weight: Any) -> Any:
    return nn.Linear(weight.shape[1], weight.shape[0], bias=False)
