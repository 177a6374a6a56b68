"""A function of a user as an encoder: it needs numpy only."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np
import PIL.Image

from pipeline.errors import StepError
from pipeline.evaluate.encoders.encoder import FEATURE, Outputs
from pipeline.files import sha256_of
from pipeline.imports import find_module, import_function
from pipeline.machine import device_name, memory_errors, versions_of

OPTION = "--encoder"


class FunctionEncoder(NamedTuple):
    """A function `images -> features`: of a list of PIL images, and an array of shape (images, width).

    Attributes:
        function: `MODULE:FUNCTION`.
        module_sha256: SHA-256 of the module's file; None where it has none. Weights and modules that it loads are not
            known here.
    """

    function: str
    module_sha256: str | None
    uses_prompts: bool = False

    @property
    def name(self) -> str:
        """See `Encoder`."""
        return re.sub(r"[^a-z0-9._-]+", "-", self.function.lower())

    def describe(self) -> dict[str, Any]:
        """See `Encoder`."""
        return {
            "model": self.function,
            "weights_sha256": self.module_sha256,
            "preprocessing": {},
            "output": "what the function returns",
            "dtype": "float32",
            "versions": versions_of("numpy", "pillow"),
        }

    def load(self) -> ImageFunction:
        """See `Encoder`."""
        return ImageFunction(self.function)


class ImageFunction:
    """An imported function.

    Args:
        name: `MODULE:FUNCTION`.
    """

    def __init__(self, name: str) -> None:
        self._function, self._name = import_function(name, OPTION), name
        self.device = device_name("cuda")

    def encode(self, images: list[PIL.Image.Image], prompts: list[str]) -> Outputs:
        """See `EncoderModel`."""
        with memory_errors():  # copies: other encoders get the same images, and a function may change its own
            features = np.asarray(self._function([image.copy() for image in images]))
        is_real = np.issubdtype(features.dtype, np.integer) or np.issubdtype(features.dtype, np.floating)
        if features.ndim != 2 or len(features) != len(images) or not is_real:
            found = f"{features.dtype} of shape {features.shape}"
            raise StepError(
                f"{OPTION} {self._name} returned {found} for {len(images)} images; return real numbers of "
                f"shape ({len(images)}, width)"
            )
        with np.errstate(over="ignore"):  # infinity is refused with the name of the image
            return {FEATURE: features.astype(np.float32)}


def resolve_function(name: str) -> FunctionEncoder:
    """Returns the encoder of a function.

    Args:
        name: `MODULE:FUNCTION`; the module is looked for in the working directory and on PYTHONPATH.

    Raises:
        StepError: There is no such module.
    """
    module = find_module(name, OPTION)
    return FunctionEncoder(name, sha256_of(module) if module else None)
