"""What encoders in torch share: the processor, full float32, batches, a trial, images as torchvision resizes them."""

from __future__ import annotations

import abc
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import PIL.Image

from pipeline.checkpoint import Checkpoint
from pipeline.errors import StepError
from pipeline.evaluate.encoders.encoder import Outputs, option_of
from pipeline.evaluate.encoders.weights import UnfitError, check_unchanged, why_unusable
from pipeline.imports import import_optional
from pipeline.machine import device_name, memory_errors
from pipeline.progress import notice

TRIAL = (96, 80)  # width and height of the image that a model is tried with: pixels


class TorchModel(abc.ABC):
    """A model of torch in this process, on a GPU if there is one, in float32 without TF32.

    Without a GPU each image is encoded alone: a batch would be no faster, and its size would change the last bits.

    Args:
        name: Of the encoder, for messages.
        checkpoint: Its weights, pinned.

    Attributes:
        torch: The package.
        checkpoint: The weights.
        place: `"cuda"`, `"mps"` or `"cpu"`.
        device: See `EncoderModel`.

    Raises:
        StepError: A package is missing, or the weights cannot be loaded, or give other features each time.
    """

    def __init__(self, name: str, checkpoint: Checkpoint) -> None:
        torch = self.torch = import_optional("torch")
        self.checkpoint = checkpoint
        # TF32, which torch uses for convolutions unless told otherwise, has three digits; see `encode` too.
        torch.backends.cuda.matmul.allow_tf32 = False
        has_mps = torch.backends.mps.is_available()
        self.place = "cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu"
        self.device = device_name(self.place)
        try:
            check_unchanged(checkpoint)
            with notice(f"loading {checkpoint.name} …"):
                self.build()
            self._try_out()
        except StepError:
            raise
        except Exception as error:  # any model may raise anything
            raise StepError(f"{option_of(name)}: {checkpoint.name} {why_unusable(error)}") from error

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

    def apply(self, network: Callable[[Any], Sequence[Any]], inputs: list[np.ndarray]) -> list[Any]:
        """Applies a network to images, to all of one size at once.

        Args:
            network: Takes a batch, and returns tensors with a row for each image.
            inputs: Arrays of shape (channels, height, width), of one type; heights and widths may differ.

        Returns:
            The tensors, in the order of the images.
        """
        same = defaultdict(list)
        for number, array in enumerate(inputs):
            same[array.shape].append(number)
        batches = [self.torch.from_numpy(np.stack([inputs[n] for n in numbers])) for numbers in same.values()]
        outputs = zip(*(network(batch.to(self.place)) for batch in batches))
        order = np.argsort(np.concatenate([*same.values()])).tolist()
        return [self.torch.cat(parts)[order] for parts in outputs]

    def _try_out(self) -> None:
        image = PIL.Image.linear_gradient("L").resize(TRIAL).convert("RGB")
        first, second = (self.encode([image], ["No change."]) for _ in range(2))
        for name, values in first.items():
            if values.ndim != 2 or not np.isfinite(values).all():
                raise UnfitError(f"gives no finite vector as {name}")
            if abs(values - second[name]).max() > 1e-3 * abs(values).max():
                raise UnfitError("gives other features of the same image each time, so it is no encoder")


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
