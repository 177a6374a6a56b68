"""Asks a model for images, in batches, and encodes them as PNG beside it."""

from __future__ import annotations

import io
import platform
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import PIL.Image

from pipeline.errors import StepError, describe_error
from pipeline.generate.models import Drawn, Failure, FunctionTask, Model, PipelineTask
from pipeline.generate.prompts import Request
from pipeline.machine import OutOfMemoryError, versions_of
from synthchex_75k import MAX_IMAGE_BYTES, MAX_PIXELS

# Files are 8 % larger than at Pillow's level 6 and encoded in a third of the time: 17 ms for 512x512 pixels.
PNG_LEVEL = 3
ENCODERS = 4  # threads; Pillow's encoder runs beside the model
MODES = ("L", "RGB", "I;16")
LOST = {"transparency", "icc_profile"}  # what else a PIL image may carry
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
        self._machine = {
            "hardware": model.device,
            "dtype": model.dtype,
            "versions": {"python": platform.python_version(), **versions_of(*PACKAGES)},
        }

    def generate(self, requests: list[Request]) -> Iterator[Batch]:
        """Yields batches of images; while one is encoded, the model draws the next one."""
        with ThreadPoolExecutor(ENCODERS) as threads:
            encoding: deque[tuple[list[Future[Image]], str]] = deque()
            while requests:
                drawn, note = self._draw(requests[: self._size])
                encoding.append(([threads.submit(_encode, *pair) for pair in zip(requests, drawn)], note))
                requests = requests[len(drawn) :]
                if len(encoding) > 1:
                    yield self._finish(*encoding.popleft())
            while encoding:
                yield self._finish(*encoding.popleft())

    def _finish(self, images: list[Future[Image]], note: str) -> Batch:
        return Batch([image.result() for image in images], self._machine, note)

    def _draw(self, requests: list[Request]) -> tuple[list[Drawn], str]:
        """Draws the images of a batch, or the first ones if memory runs out; also returns a note about that."""
        note = ""
        while True:
            try:
                return self._ask(requests), note
            except OutOfMemoryError as error:
                if len(requests) == 1:
                    raise StepError(f"out of memory with one image at a time: {error}; try a smaller --size") from None
                self._size = len(requests) // 2
                note = f"out of memory: batches of {self._size} from now on"
                requests = requests[: self._size]

    def _ask(self, requests: list[Request]) -> list[Drawn]:
        """Asks the model for the images of a batch; if that fails, for each alone, to find the one that fails."""
        try:
            drawn = self._model.generate([one.prompt for one in requests], [one.seed for one in requests])
            # Copies, since a function may draw the next images into the same memory; copying loads a lazy image.
            return [image.copy() if isinstance(image, PIL.Image.Image) else image for image in drawn]
        except (StepError, OutOfMemoryError, BrokenPipeError):
            raise
        except Exception as error:  # any model may raise anything
            if len(requests) == 1:
                return [Failure(describe_error(error, with_place=True))]
            return [image for request in requests for image in self._ask([request])]


def _encode(request: Request, image: Drawn) -> Image:
    """Returns an image as a PNG file, or why it is none."""
    if problem := _problem_of(image):
        return Image(request, b"", problem)
    assert isinstance(image, PIL.Image.Image)
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=PNG_LEVEL)
    if file.tell() > MAX_IMAGE_BYTES:
        return Image(request, b"", f"its PNG file has {file.tell():,} bytes; a SOURCE allows {MAX_IMAGE_BYTES:,}")
    return Image(request, file.getvalue(), "")


def _problem_of(image: Drawn) -> str:
    """Returns why an image cannot be one of a SOURCE, or ""."""
    if isinstance(image, Failure):
        return image.reason
    if not isinstance(image, PIL.Image.Image):
        return f"the model returned no PIL image but {type(image).__name__}"
    if image.mode not in MODES or {*image.info} & LOST:
        kind = f"of mode {image.mode}" if image.mode not in MODES else "with transparency or a color profile"
        return f"the model returned an image {kind}; it must be plain {', '.join(MODES)}"
    if not 0 < image.width * image.height <= MAX_PIXELS:
        return f"it has {image.width:,} x {image.height:,} pixels; make it one of 1 to {MAX_PIXELS:,} pixels"
    if _is_uniform(image):
        return "all its pixels are equal: an overflow (try --dtype bf16 or fp32), or a safety checker"
    return ""


def _is_uniform(image: PIL.Image.Image) -> bool:
    extrema: Any = image.getextrema()
    bands = extrema if isinstance(extrema[0], tuple) else [extrema]
    return all(low == high for low, high in bands)
