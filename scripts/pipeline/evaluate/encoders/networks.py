"""What encoders share whose weights are one file of torch: pinned, read without running code, applied to images."""

from __future__ import annotations

import hashlib
import io
import pickle
import warnings
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.checkpoint import Checkpoint
from pipeline.errors import StepError, describe_error, one_line
from pipeline.imports import import_optional
from pipeline.machine import device_name, memory_errors


def pin_weights_file(model: str | None, revision: str | None, download: Callable[[], Path]) -> Checkpoint:
    """Returns a file of weights with its SHA-256.

    Args:
        model: The file. Default: what `download` returns.
        revision: None: a file has no revision.
        download: Returns the file in the cache of the package that the encoder is from, downloaded if need be.

    Raises:
        StepError: There is no such file, or it cannot be downloaded.
    """
    if revision:
        raise StepError("--revision is for models on the Hub; these weights are a file")
    if model is None:
        try:
            model = str(download())
        except StepError:
            raise
        except Exception as error:  # each package downloads in a way of its own
            raise StepError(
                f"the weights cannot be downloaded: {describe_error(error)}; name a file with --model"
            ) from error
    if not Path(model).is_file():
        raise StepError(f"--model {model}: no such file; these weights are one file")
    return Checkpoint(model).pin()


def read_weights(checkpoint: Checkpoint) -> bytes:
    """Returns the content of a pinned file.

    Raises:
        StepError: It is no longer the file that was pinned.
    """
    try:
        data = Path(checkpoint.name).read_bytes()
    except OSError as error:
        raise StepError(f"{checkpoint.name} cannot be read: {describe_error(error)}") from error
    if hashlib.sha256(data).hexdigest() != checkpoint.sha256:
        raise StepError(f"{checkpoint.name} has changed since this run began, or differs on this machine")
    return data


def tensors_in(data: bytes) -> dict[str, Any]:
    """Reads a state dict, tensors by name, in a way that runs no code of the file.

    Args:
        data: The content of the file.

    Raises:
        pickle.UnpicklingError: It has more than tensors.
        Exception: Whatever torch raises for a damaged file.
    """
    found = import_optional("torch").load(io.BytesIO(data), map_location="cpu", weights_only=True)
    if not isinstance(found, dict):
        raise pickle.UnpicklingError(f"it has one {type(found).__name__}, not tensors by name")
    return found


def unusable(encoder: str, name: str, error: Exception) -> StepError:
    """Returns the error for weights that a network cannot take.

    Args:
        encoder: Name of the encoder.
        name: The file.
        error: What was raised.
    """
    reason = describe_error(error)
    if isinstance(error, pickle.UnpicklingError):  # of which torch's has a page of advice that is of no use here
        what = one_line(error).partition("WeightsUnpickler error: ")
        reason = f"it has more than tensors, and is not loaded: {(what[2] or what[0])[:200]}"
    return StepError(f"--encoder {encoder}: {name} cannot be used: {reason}")


def import_library(package: str) -> Any:
    """Imports a package that imports torchvision, and leaves the filters of warnings as they are.

    Raises:
        StepError: It cannot be imported, as when torchvision is made for another version of torch.
    """
    try:
        with warnings.catch_warnings():  # torchxrayvision turns all warnings off
            return import_optional(package)
    except StepError:
        raise
    except Exception as error:
        raise StepError(f"the Python module {package} cannot be imported: {describe_error(error)}") from error


class Network:
    """A network of torch in this process, on a GPU if there is one.

    Without a GPU each image is encoded alone: a batch would be no faster, and its size would change the last bits.

    Args:
        module: The network, which takes a batch and returns a tuple of tensors.
        name: Of its method to call. Default: that of a call.
    """

    def __init__(self, module: Any, name: str = "__call__") -> None:
        torch = self._torch = import_optional("torch")
        has_mps = torch.backends.mps.is_available()
        self._place = "cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu"
        self.device = device_name(self._place)
        self._forward = getattr(module.requires_grad_(False).eval().to(self._place), name)

    def apply(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        """Applies it to images.

        Args:
            inputs: Arrays of shape (channels, height, width), of one type; heights and widths may differ.

        Returns:
            Each of its outputs in float32, with one row for each image.

        Raises:
            OutOfMemoryError: They are too many.
        """
        torch = self._torch
        rows: list[Any] = [None] * len(inputs)
        # Convolutions in TF32, which torch uses unless told otherwise, have three digits.
        exact = {"enabled": True, "benchmark": False, "deterministic": True, "allow_tf32": False}
        with memory_errors(), torch.inference_mode(), torch.backends.cudnn.flags(**exact):
            for numbers in self._batches(inputs):
                batch = torch.from_numpy(np.stack([inputs[number] for number in numbers])).to(self._place)
                outputs = [output.float().cpu().numpy() for output in self._forward(batch)]
                for number, row in zip(numbers, zip(*outputs)):
                    rows[number] = row
        return [np.stack(output) for output in zip(*rows)]

    def _batches(self, inputs: list[np.ndarray]) -> list[list[int]]:
        if self._place == "cpu":
            return [[number] for number in range(len(inputs))]
        same = defaultdict(list)
        for number, image in enumerate(inputs):
            same[image.shape].append(number)
        return [*same.values()]
