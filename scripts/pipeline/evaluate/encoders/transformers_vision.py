"""Vision models of `transformers`, by folder or name on the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import PIL.Image

from pipeline.checkpoint import Checkpoint
from pipeline.errors import StepError
from pipeline.evaluate.encoders.encoder import FEATURE, TEXT
from pipeline.evaluate.encoders.transformers_model import (
    TOKENIZER_FILES,
    TransformersModel,
    check_tokenizer,
    check_transformers,
    missing_in,
)
from pipeline.evaluate.encoders.weights import UnfitError, check_complete, fetch_weights, read_json
from pipeline.machine import versions_of

CONFIG = "config.json"
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
PROCESSOR_TYPES = ("image_processor_type", "feature_extractor_type")  # the name before transformers 4.26
# With the index and the parts of those that are cut into several files.
SAFE_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors")
PICKLED_WEIGHTS = ("pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*-of-*.bin")
POOLER_IS_CLS = {"dinov2", "dinov2_with_registers", "dinov3_vit"}
UNUSED = ("mask_token", "logit_scale", "logit_bias")  # weights that training alone uses


class TextSide(NamedTuple):
    """How prompts become tokens: the most tokens, where the checkpoint does not tell, and the padding in training."""

    tokens: int
    padding: str


TEXT_SIDES = {"clip": TextSide(77, "longest"), "siglip": TextSide(64, "max_length")}


class VisionEncoder(NamedTuple):
    """A vision model of `transformers`.

    Attributes:
        name: See `Encoder`.
        checkpoint: Its weights, pinned.
        model_type: Its kind, as `config.json` names it.
        preprocessing: The configuration of its image processor.
        max_tokens: The most tokens of a prompt; 0 without a text side.
    """

    name: str
    checkpoint: Checkpoint
    model_type: str
    preprocessing: dict[str, Any]
    max_tokens: int

    @property
    def uses_prompts(self) -> bool:
        """See `Encoder`."""
        return self.max_tokens > 0

    def describe(self) -> dict[str, Any]:
        """See `Encoder`."""
        weights = self.checkpoint.describe()
        return {
            "model": weights.pop("name"),
            **weights,
            "preprocessing": {**self.preprocessing, "backend": "pil"},
            "output": self._output(),
            "dtype": "float32",
            "versions": versions_of("torch", "transformers", "pillow", *["tokenizers"] * self.uses_prompts),
        }

    def load(self) -> VisionModel:
        """See `Encoder`."""
        return VisionModel(self)

    def _output(self) -> str:
        if self.uses_prompts:
            return (
                "projected image features, not normalised; text: projected text features, not normalised, "
                f"prompts cut at {self.max_tokens} tokens"
            )
        if self.model_type in POOLER_IS_CLS:
            return "pooler_output: the CLS token of the last layer after the layer norm"
        return (
            "pooler_output; without one, or without weights of it, the CLS token of last_hidden_state; "
            "without a CLS token, the mean of last_hidden_state over places"
        )


class VisionModel(TransformersModel):
    """A vision model in this process; see `TorchModel`."""

    def __init__(self, encoder: VisionEncoder) -> None:
        self._encoder = encoder
        super().__init__(encoder.name, encoder.checkpoint)

    def build(self) -> None:
        """See `TorchModel`."""
        encoder = self._encoder
        others = (CONFIG, *PROCESSORS, *TOKENIZER_FILES)
        folder = fetch_weights(self.checkpoint, SAFE_WEIGHTS, PICKLED_WEIGHTS, *others)
        local = {"trust_remote_code": False, "local_files_only": True}
        self._processor = self._processor_class().from_pretrained(folder, local_files_only=True)
        if encoder.uses_prompts:
            check_tokenizer(folder)
            self._tokenizer = self.transformers.AutoTokenizer.from_pretrained(folder, **local)
        model, found = self.transformers.AutoModel.from_pretrained(
            folder, dtype=self.torch.float32, weights_only=True, output_loading_info=True, **local
        )
        if not encoder.uses_prompts and model.main_input_name != "pixel_values":
            raise UnfitError(f"is no vision model: a {type(model).__name__} reads {model.main_input_name}")
        missing = missing_in(found)
        pooler = {key for key in missing if key.startswith("pooler.")}
        check_complete({key for key in missing - pooler if not key.endswith(UNUSED)})
        self._has_pooler = not pooler
        self._has_cls = any("cls_token" in key or "class_embedding" in key for key in model.state_dict())
        self._model = self.ready(model)

    def compute(self, images: list[PIL.Image.Image], prompts: list[str]) -> dict[str, Any]:
        """See `TorchModel`."""
        pixels = [self._processor(images=image, return_tensors="np")["pixel_values"][0] for image in images]
        (features,) = self.apply(lambda batch: [self._see(batch)], pixels)
        outputs = {FEATURE: features}
        if self._encoder.uses_prompts:
            options = {"max_length": self._encoder.max_tokens, "truncation": True, "return_tensors": "pt"}
            tokens = self._tokenizer(prompts, padding=TEXT_SIDES[self._encoder.model_type].padding, **options)
            outputs[TEXT] = _pooled(self._model.get_text_features(**tokens.to(self.place)))
        return outputs

    def _processor_class(self) -> Any:
        """Returns the class of the image processor that computes with PIL; torchvision resizes to other values."""
        name = next(
            str(self._encoder.preprocessing[key]) for key in PROCESSOR_TYPES if key in self._encoder.preprocessing
        )
        found = getattr(self.transformers, f"{_base_name(name)}Pil", None)
        if not found:
            raise UnfitError(f"has an image processor that transformers does not have with PIL: {name}")
        return found

    def _see(self, pixels: Any) -> Any:
        pixels = pixels.float()
        if self._encoder.uses_prompts:
            return _pooled(self._model.get_image_features(pixel_values=pixels))
        found = self._model(pixel_values=pixels)
        if self._has_pooler and getattr(found, "pooler_output", None) is not None:
            return found.pooler_output.flatten(1)
        hidden = found.last_hidden_state
        if hidden.ndim == 4:
            return hidden.mean((2, 3))
        return hidden[:, 0] if self._has_cls else hidden.mean(1)


def resolve_vision_model(name: str, checkpoint: Checkpoint, *model_types: str) -> VisionEncoder:
    """Pins a vision model and reads its preprocessing; see `registry.resolve_encoder`.

    Args:
        name: Of the encoder.
        checkpoint: A folder, or a name on the Hub.
        *model_types: The kinds that `config.json` may name. Default: any.

    Raises:
        StepError: A package is missing, or it is no such model.
    """
    check_transformers()
    checkpoint = checkpoint.pin()
    folder = checkpoint.fetch(CONFIG, *PROCESSORS)
    config = read_json(folder / CONFIG, f"{checkpoint.name} is no model of transformers")
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise StepError(f"{checkpoint.name} is no model of transformers: its config.json has no model_type")
    if model_types and model_type not in model_types:
        wanted = " or ".join(model_types)
        raise StepError(f"--encoder {name}: {checkpoint.name} is of type {model_type}, not {wanted}; name it alone")
    return VisionEncoder(name, checkpoint, model_type, _preprocessing(checkpoint.name, folder), _tokens(config))


def _preprocessing(name: str, folder: Path) -> dict[str, Any]:
    """Returns the configuration of the image processor, which a processor of images and text has inside its own."""
    no_processor = f"{name} has no preprocessor_config.json, so the preprocessing of its images is not known"
    for path in (folder / file for file in PROCESSORS):
        if path.is_file():
            content = read_json(path, no_processor)
            found = content.get("image_processor", content)
            if isinstance(found, dict) and {*PROCESSOR_TYPES} & {*found}:
                return found
    raise StepError(no_processor)


def _base_name(processor: str) -> str:
    """Returns the name of an image processor without what tells its age or how it computes.

    Example:
        >>> [_base_name(name) for name in ("CLIPFeatureExtractor", "ViTImageProcessorFast", "BitImageProcessor")]
        ['CLIPImageProcessor', 'ViTImageProcessor', 'BitImageProcessor']
    """
    return processor.replace("FeatureExtractor", "ImageProcessor").removesuffix("Fast").removesuffix("Pil")


def _tokens(config: dict[str, Any]) -> int:
    side = TEXT_SIDES.get(config["model_type"])
    text = config.get("text_config") or {}
    return int(text.get("max_position_embeddings", side.tokens)) if side else 0


def _pooled(found: Any) -> Any:
    """Returns the features, which some versions of transformers wrap."""
    return getattr(found, "pooler_output", found)
