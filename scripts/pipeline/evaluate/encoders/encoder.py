"""What an encoder is: a description that decides its features, and a model that is loaded later."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import PIL.Image

FEATURE, TEXT, LOGITS = "feature", "text", "logits"  # names of outputs; an encoder may have more

Outputs = dict[str, np.ndarray]  # by name of output: float32 of shape (images, width)


def option_of(encoder: str) -> str:
    """Returns how the command line names an encoder, for messages.

    Args:
        encoder: Its name; one that no `--encoder` names is an option itself.

    Example:
        >>> option_of("rad-dino"), option_of("--reid")
        ('--encoder rad-dino', '--reid')
    """
    return encoder if encoder.startswith("--") else f"--encoder {encoder}"


class EncoderModel(Protocol):
    """A loaded encoder."""

    device: str  # its name, as `machine.device_name` returns it

    def encode(self, images: list[PIL.Image.Image], prompts: list[str]) -> Outputs:
        """Encodes images.

        Args:
            images: Images of any size, in 8-bit RGB.
            prompts: The prompt of each; of use to encoders with a text side.

        Returns:
            Each output, in float32, with one row for each image. `FEATURE` is always there; `TEXT` is the embedding of
            the prompt in the space of `FEATURE`; `LOGITS` are those of a classifier.

        Raises:
            OutOfMemoryError: The batch is too large.
            StepError: No image will be encoded.
            Exception: Whatever the model raises.
        """


class Encoder(Protocol):
    """An encoder, as a value that can be pickled; nothing is loaded before `load`."""

    @property
    def name(self) -> str:
        """Its name in files and results, such as `rad-dino`: of a to z, 0 to 9, `.`, `_` and `-`."""

    @property
    def uses_prompts(self) -> bool:
        """Whether an output depends on the prompt."""

    def describe(self) -> dict[str, Any]:
        """Returns everything that decides the outputs, as JSON holds it; two that are equal have equal features.

        The keys are:
            model: Name of the weights, a folder only by its last part.
            revision or weights_sha256: What `Checkpoint.describe` returns beside the name.
            preprocessing: What happens to an image, as an object: backend, size, crop, mean, standard deviation,
                resampling, colour, as far as the encoder has them.
            output: Which layer the features come from, in words.
            dtype: Always float32.
            versions: Of the packages that compute it, as `machine.versions_of` returns them.
            classes: With more outputs than `FEATURE` and `TEXT`: the names of their columns by output, where they
                have names.
        """

    def load(self) -> EncoderModel:
        """Loads the model, on a GPU if there is one.

        Raises:
            StepError: A package is missing (the message tells what to install), or the weights cannot be used.
        """
