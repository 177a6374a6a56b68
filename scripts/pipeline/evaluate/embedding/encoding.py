"""Asks encoders about the rows of a source: each image is read and decoded once."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import PIL.Image

from pipeline.errors import StepError, describe_error
from pipeline.evaluate.encoders.encoder import FEATURE, Encoder, EncoderModel, Outputs, option_of
from pipeline.evaluate.features import ImageFeatures
from pipeline.jobs import available_cpus
from pipeline.machine import OutOfMemoryError
from pipeline.rows import AnyRow, decode, read, to_rgb
from synthchex_75k import SourceError, dimensions, printable

BATCHES_AHEAD = 4  # of decoded images that wait for the encoders
MAX_PIXELS_AHEAD = 64 << 20  # of them


class Item(NamedTuple):
    """An image to embed, with the numbers of the encoders that need it."""

    row: AnyRow
    encoders: tuple[int, ...]


class Encoded(NamedTuple):
    """An embedded image.

    Attributes:
        filename: Its name.
        features: Its features by the number of the encoder.
        devices: Where they were computed, by the number of the encoder.
        note: What the user should know, or "".
    """

    filename: str
    features: dict[int, ImageFeatures]
    devices: dict[int, str]
    note: str


class Encoding(NamedTuple):
    """Which encoders to ask: a task of `engine`.

    Attributes:
        encoders: The encoders; those that no item needs are not loaded.
        needed: The numbers of those that some item needs.
        batch_size: Images at once.
    """

    encoders: tuple[Encoder, ...]
    needed: tuple[int, ...]
    batch_size: int

    @property
    def items_at_once(self) -> int:
        """How many images a worker is asked about at once: a few batches, since it decodes ahead."""
        return BATCHES_AHEAD * self.batch_size

    def load(self) -> Callable[[list[Item]], Iterator[Encoded]]:
        """Loads the encoders, and returns the function that asks them about images."""
        models = {number: _Model(self.encoders[number], self.batch_size) for number in self.needed}
        return lambda items: _encode_all(items, models, self.batch_size)


class _Decoded(NamedTuple):
    """An image in memory."""

    item: Item
    crc32: int
    image: PIL.Image.Image

    @property
    def filename(self) -> str:
        """Its file name."""
        return self.item.row.filename


def _encode_all(items: list[Item], models: dict[int, _Model], batch_size: int) -> Iterator[Encoded]:
    batch: list[_Decoded] = []
    for decoded in _decode_ahead(items, BATCHES_AHEAD * batch_size):
        batch.append(decoded)
        if len(batch) == batch_size:
            yield from _encode_batch(batch, models)
            batch = []
    yield from _encode_batch(batch, models)


def _decode_ahead(items: list[Item], most: int) -> Iterator[_Decoded]:
    """Yields decoded images, while threads decode the next ones: `most` at once, or fewer if they are large."""
    waiting: deque[tuple[Future[_Decoded], int]] = deque()
    pixels = 0
    with ThreadPoolExecutor(available_cpus()) as threads:
        try:
            for item, (crc32, example) in zip(items, read([item.row for item in items])):
                image = example["image"]["bytes"]
                size = math.prod(dimensions(image))
                while waiting and (pixels + size > MAX_PIXELS_AHEAD or len(waiting) >= most):
                    done, freed = waiting.popleft()
                    pixels -= freed
                    yield done.result()
                waiting.append((threads.submit(_decode, item, crc32, image), size))
                pixels += size
            while waiting:
                yield waiting.popleft()[0].result()
        finally:
            for future, _ in waiting:
                future.cancel()


def _decode(item: Item, crc32: int, image: bytes) -> _Decoded:
    return _Decoded(item, crc32, to_rgb(decode(image, item.row.where)))


def _encode_batch(batch: list[_Decoded], models: dict[int, _Model]) -> Iterator[Encoded]:
    features: list[dict[int, ImageFeatures]] = [{} for _ in batch]
    notes = []
    for number, model in models.items():
        wanted = [place for place, decoded in enumerate(batch) if number in decoded.item.encoders]
        outputs, note = model.encode([batch[place] for place in wanted])
        notes += [note] if note else []
        for row, place in enumerate(wanted):
            # Copies, so that a row of a large array does not keep it in memory.
            of_image = {name: values[row].copy() for name, values in outputs.items()}
            features[place][number] = ImageFeatures(batch[place].crc32, *batch[place].image.size, of_image)
    devices = {number: model.device for number, model in models.items()}
    for decoded, found in zip(batch, features):
        yield Encoded(decoded.filename, found, devices, "; ".join(notes))
        notes = []


class _Model:
    """A loaded encoder, and the size of its batches, which shrinks when memory runs out."""

    def __init__(self, encoder: Encoder, size: int) -> None:
        self._option, self._size = option_of(encoder.name), size
        self._model: EncoderModel = encoder.load()
        self.device = self._model.device

    def encode(self, batch: list[_Decoded]) -> tuple[Outputs, str]:
        """Encodes images; also returns a note if memory ran out."""
        parts, note = [], ""
        while batch:
            try:
                parts.append(self._encode_part(batch[: self._size]))
                batch = batch[self._size :]
            except OutOfMemoryError as error:
                if self._size == 1:
                    raise StepError(f"{self._option}: out of memory with one image at a time: {error}") from None
                self._size = (min(len(batch), self._size) + 1) // 2
                note = f"{self._option}: out of memory, batches of {self._size} from now on"
        return self._join(parts) if parts else {}, note

    def _encode_part(self, batch: list[_Decoded]) -> Outputs:
        try:
            outputs = self._model.encode([one.image for one in batch], [one.item.row.prompt for one in batch])
        except (StepError, SourceError, OutOfMemoryError, OSError):
            raise
        except Exception as error:  # any model may raise anything
            if len(batch) == 1:
                about = describe_error(error, with_place=True)
                raise StepError(f"{self._option}: {printable(batch[0].filename)}: {about}") from error
            return self._join([self._encode_part([one]) for one in batch])  # to find the image that fails
        self._check(outputs, batch)
        return outputs

    def _join(self, parts: list[Outputs]) -> Outputs:
        widths = [{name: values.shape[1] for name, values in part.items()} for part in parts]
        if differing := [found for found in widths if found != widths[0]]:
            raise StepError(f"{self._option} returned outputs of widths {differing[0]}, and before {widths[0]}")
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _check(self, outputs: Any, batch: list[_Decoded]) -> None:
        if FEATURE not in outputs:
            raise StepError(f"{self._option} returned no {FEATURE!r}, but {[*outputs]}")
        for name, values in outputs.items():
            if values.dtype != np.float32 or values.ndim != 2 or len(values) != len(batch) or not values.shape[1]:
                found = f"{values.dtype} of shape {values.shape}"
                raise StepError(f"{self._option} returned {found} as {name!r} of {len(batch)} images")
            finite = np.isfinite(values).all(axis=1)
            if not finite.all():
                filename = batch[int(np.flatnonzero(~finite)[0])].filename
                raise StepError(f"{self._option}: {name!r} of {printable(filename)} is not finite")
