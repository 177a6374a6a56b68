"""What encoders in torch share: the processor, full float32, a trial, images as torchvision resizes them."""

from __future__ import annotations

import abc
import pickle
import re
from importlib import metadata
from typing import Any

import numpy as np
import PIL.Image

from pipeline.checkpoint import Checkpoint
from pipeline.errors import StepError, describe_error
from pipeline.evaluate.encoders.encoder import Outputs
from pipeline.evaluate.encoders.weights import UnfitError, check_complete, count_layers, missing_in
from pipeline.imports import check_installed, import_optional
from pipeline.machine import device_name, memory_errors
from pipeline.progress import notice

OLDEST_TRANSFORMERS = (5, 4)  # the first with image processors that compute with PIL by their names
HEAD_WIDTH = 64  # of BERT-base and of ViT-B, whose checkpoints do not tell it
TRIAL = (96, 80)  # width and height of the image that a model is tried with: pixels


class TorchModel(abc.ABC):
    """A model of torch in this process, on a GPU if there is one, in float32 without TF32.

    Without a GPU each image is encoded alone: a batch would be no faster, and its size would change the last bits.

    Args:
        name: Of the encoder, for messages.
        checkpoint: Its weights.

    Raises:
        StepError: It cannot be loaded, or gives other features each time.
    """

    def __init__(self, name: str, checkpoint: Checkpoint) -> None:
        self.torch, self.transformers = import_optional("torch"), import_optional("transformers")
        torch = self.torch
        torch.backends.cuda.matmul.allow_tf32 = False
        has_mps = torch.backends.mps.is_available()
        self.place = "cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu"
        self.device = device_name(self.place)
        self.transformers.utils.logging.disable_progress_bar()
        self.transformers.utils.logging.set_verbosity_error()
        _check_unchanged(checkpoint)
        try:
            with notice(f"loading {checkpoint.name} …"):
                self.build()
            self._try_out()
        except StepError:
            raise
        except UnfitError as error:
            raise StepError(f"--encoder {name}: {checkpoint.name} {error}") from error
        except Exception as error:  # any model may raise anything
            raise StepError(f"--encoder {name}: {checkpoint.name} cannot be loaded: {_reason(error)}") from error

    @abc.abstractmethod
    def build(self) -> None:
        """Loads the weights."""

    @abc.abstractmethod
    def compute(self, images: list[PIL.Image.Image], prompts: list[str]) -> dict[str, Any]:
        """Returns the outputs as tensors."""

    def encode(self, images: list[PIL.Image.Image], prompts: list[str]) -> Outputs:
        """See `EncoderModel`."""
        if self.place == "cpu" and len(images) > 1:
            alone = [self.encode([image], [prompt]) for image, prompt in zip(images, prompts, strict=True)]
            return {name: np.concatenate([one[name] for one in alone]) for name in alone[0]}
        exact = {"enabled": True, "benchmark": False, "deterministic": True, "allow_tf32": False}
        with memory_errors(), self.torch.inference_mode(), self.torch.backends.cudnn.flags(**exact):
            outputs = self.compute(images, prompts)
            return {name: values.float().cpu().numpy() for name, values in outputs.items()}

    def ready(self, module: Any) -> Any:
        """Returns a module on the device, for inference."""
        return module.to(self.place).eval()

    def stack(self, tensors: dict[str, Any], *layers: Any) -> Any:
        """Makes a sequence of layers from tensors, which are named by the layers' numbers."""
        sequence = self.torch.nn.Sequential(*layers)
        sequence.load_state_dict(tensors)
        return self.ready(sequence)

    def fill(self, kind: Any, config: Any, tensors: dict[str, Any], **options: Any) -> Any:
        """Makes a model of `transformers` from tensors that are named as in checkpoints on the Hub.

        Raises:
            UnfitError: Some are missing or of another shape.
        """
        model, found = kind.from_pretrained(
            None, config=config, state_dict=tensors, output_loading_info=True, dtype=self.torch.float32, **options
        )
        check_complete(missing_in(found))
        return self.ready(model)

    def bert(self, tensors: dict[str, Any]) -> Any:
        """Makes a BERT of the size that its tensors have, with heads as wide as those of BERT-base."""
        words = tensors["embeddings.word_embeddings.weight"]
        config = self.transformers.BertConfig(
            vocab_size=words.shape[0],
            hidden_size=words.shape[1],
            num_hidden_layers=count_layers(tensors, "encoder.layer."),
            num_attention_heads=words.shape[1] // HEAD_WIDTH,
            intermediate_size=tensors["encoder.layer.0.intermediate.dense.weight"].shape[0],
            max_position_embeddings=tensors["embeddings.position_embeddings.weight"].shape[0],
            type_vocab_size=tensors["embeddings.token_type_embeddings.weight"].shape[0],
        )
        return self.fill(self.transformers.BertModel, config, tensors, add_pooling_layer=False)

    def _try_out(self) -> None:
        image = PIL.Image.linear_gradient("L").resize(TRIAL).convert("RGB")
        first, second = (self.encode([image], ["No change."]) for _ in range(2))
        for name, values in first.items():
            if values.ndim != 2 or not np.isfinite(values).all():
                raise UnfitError(f"gives no finite vector as {name}")
            if abs(values - second[name]).max() > 1e-3 * abs(values).max():
                raise UnfitError("gives other features of the same image each time, so it is no encoder")


def check_transformers() -> None:
    """Checks that torch and a transformers that is new enough are installed, without importing them.

    Raises:
        StepError: They are not.
    """
    check_installed("torch")
    check_installed("transformers")
    found = metadata.version("transformers")
    if tuple(int(number) for number in re.findall(r"\d+", found)[:2]) < OLDEST_TRANSFORMERS:
        oldest = ".".join(map(str, OLDEST_TRANSFORMERS))
        raise StepError(f"this encoder needs transformers {oldest} or newer, not {found}: pip install -U transformers")


def shrink_and_crop(image: PIL.Image.Image, size: int, crop: int, resampling: int) -> PIL.Image.Image:
    """Resizes an image by its shorter side and cuts out the centre, to the pixel as `Resize` and `CenterCrop` do.

    Args:
        image: Of any size.
        size: New length of its shorter side: pixels.
        crop: Side of the square to cut out, at most `size`: pixels.
        resampling: One of `PIL.Image.Resampling`.
    """
    width, height = image.size
    longer = int(size * max(width, height) / min(width, height))
    new_size = (size, longer) if width <= height else (longer, size)
    if new_size != image.size:
        image = image.resize(new_size, PIL.Image.Resampling(resampling))
    left, top = (round((length - crop) / 2) for length in image.size)
    return image.crop((left, top, left + crop, top + crop))


def _reason(error: Exception) -> str:
    """Returns why weights cannot be loaded; the libraries advise to execute code that comes with them."""
    if isinstance(error, pickle.UnpicklingError):
        return "a file of weights has more than tensors, which may be code, and is not read"
    if "trust_remote_code" in str(error):
        return "it needs code of its repository, which is not executed; write a function, --encoder MODULE:FUNCTION"
    return describe_error(error)


def _check_unchanged(checkpoint: Checkpoint) -> None:
    if checkpoint.sha256 and checkpoint._replace(sha256=None).pin() != checkpoint:
        raise StepError(f"{checkpoint.name} has changed since this run began, or differs on this machine")
