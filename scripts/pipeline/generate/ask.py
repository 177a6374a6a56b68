"""Asks a model for images, in batches, and encodes them as PNG beside it."""

from __future__ import annotations

import io
import platform
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import metadata
from typing import Any, NamedTuple

import PIL.Image

from pipeline.errors import StepError, describe_error
from pipeline.generate.models import FunctionTask, Model, OutOfMemoryError, PipelineTask
from pipeline.generate.prompts import Request

# Files are 8 % larger than at Pillow's level 6 and encoded in a third of the time: 17 ms for 512x512 pixels.
PNG_LEVEL = 3
ENCODERS = 4  # threads; Pillow's encoder runs beside the model
MODES = ("L", "RGB", "I;16")
PACKAGES = ("torch", "diffusers", "transformers", "peft", "pillow")


class Image(NamedTuple):
    """An image that was asked for: its PNG file, or why there is none."""

    request: Request
    png: bytes
    failure: str


class Batch(NamedTuple):
    """Images that were generated at once.

    Attributes:
        images: The images.
        machine: Where: `hardware`, `dtype` and `versions`.
        note: What the user should know, or "".
    """

    images: list[Image]
    machine: dict[str, Any]
    note: str


class Generation(NamedTuple):
    """Which model to ask for images: a task of `engine`.

    Attributes:
        model: The model.
        batch_size: Images at once.
    """

    model: PipelineTask | FunctionTask
    batch_size: int

    @property
    def items_at_once(self) -> int:
        """How many images a worker is asked for at once."""
        return self.batch_size

    def load(self) -> Callable[[list[Request]], Iterator[Batch]]:
        """Loads the model, and returns the function that asks it for images."""
        batches = _Batches(self.model.load(), self.batch_size)
        return batches.generate


class _Batches:
    """A loaded model, the size of its batches, which shrinks when memory runs out, and where it runs."""

    def __init__(self, model: Model, size: int) -> None:
        self._model, self._size = model, size
        self._machine = {"hardware": model.device, "dtype": model.dtype, "versions": _versions()}

    def generate(self, requests: list[Request]) -> Iterator[Batch]:
        """Yields batches of images; while one is encoded, the model draws the next one."""
        with ThreadPoolExecutor(ENCODERS) as threads:
            encoding: deque[tuple[list[Future[Image]], str]] = deque()
            while requests:
                drawn, note = self._draw(requests[: self._size])
                requests = requests[len(drawn) :]
                encoding.append(([threads.submit(_encode, request, image) for request, image in drawn], note))
                if len(encoding) > 1:
                    yield self._finish(*encoding.popleft())
            while encoding:
                yield self._finish(*encoding.popleft())

    def _finish(self, images: list[Future[Image]], note: str) -> Batch:
        return Batch([image.result() for image in images], self._machine, note)

    def _draw(self, requests: list[Request]) -> tuple[list[tuple[Request, PIL.Image.Image | str]], str]:
        """Draws the first images of a list: of a batch, or of a smaller one where memory runs out."""
        note = ""
        while True:
            try:
                images = self._model.generate([one.prompt for one in requests], [one.seed for one in requests])
                return [*zip(requests, images, strict=True)], note
            except OutOfMemoryError as error:
                if len(requests) == 1:
                    raise StepError(f"out of memory with one image at a time: {error}; try a smaller --size") from None
                self._size = len(requests) // 2
                note = f"out of memory: batches of {self._size} from now on"
                requests = requests[: self._size]
            except StepError:
                raise
            except Exception as error:  # any model may raise anything
                if len(requests) == 1:
                    return [(requests[0], describe_error(error, with_place=True))], note
                requests = requests[:1]  # to find the prompt, ask for each image alone


def _encode(request: Request, image: PIL.Image.Image | str) -> Image:
    if isinstance(image, str):
        return Image(request, b"", image)
    if not isinstance(image, PIL.Image.Image):
        return Image(request, b"", f"the model returned no PIL image but {type(image).__name__}")
    if image.mode not in MODES:
        return Image(request, b"", f"the model returned an image of mode {image.mode}; it must be {', '.join(MODES)}")
    if _is_uniform(image):
        reason = "all its pixels are equal: an overflow (try --dtype bf16 or fp32), or a safety checker"
        return Image(request, b"", reason)
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=PNG_LEVEL)
    return Image(request, file.getvalue(), "")


def _is_uniform(image: PIL.Image.Image) -> bool:
    extrema: Any = image.getextrema()
    bands = extrema if isinstance(extrema[0], tuple) else [extrema]
    return all(low == high for low, high in bands)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
