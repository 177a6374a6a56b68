"""Reads the images of pairs from their sources, each once, and keeps little of each: a thumbnail, and 128 numbers.

Training images come first, and what is kept of them waits for the synthetic ones, which are compared and forgotten. So
memory grows with the number of training images alone: 4 KB each, and 512 bytes for re-identification.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import PIL.Image

from pipeline.errors import StepError, counted, listing
from pipeline.evaluate.embedding.encoding import Encoding, Item
from pipeline.evaluate.encoders.encoder import FEATURE, Encoder, Outputs
from pipeline.evaluate.features import Features
from pipeline.evaluate.privacy.reid import ReidEncoder, resolve_reid
from pipeline.machine import device_name, versions_of
from pipeline.progress import progress_bar
from pipeline.rows import AnyRow, plan_any
from synthchex_75k import printable

SIDE = 64  # of a thumbnail: pixels
PIXELS = "pixels"  # name of the measure's encoder


class Thumbnails(NamedTuple):
    """Images as grey thumbnails; see `Encoder`."""

    name: str = PIXELS
    uses_prompts: bool = False

    def describe(self) -> dict[str, Any]:
        """See `Encoder`."""
        return {
            "model": None,
            "preprocessing": {
                "backend": "Pillow",
                "colour": "grey, 8 bits",
                "size": [SIDE, SIDE],
                "resampling": "bilinear, with antialiasing; the aspect ratio is lost",
            },
            "output": f"{FEATURE}: the grey values",
            "dtype": "float32",
            "versions": versions_of("pillow"),
        }

    def load(self) -> ThumbnailModel:
        """See `Encoder`."""
        return ThumbnailModel()


class ThumbnailModel:
    """See `EncoderModel`."""

    device = device_name("cpu")

    def encode(self, images: list[PIL.Image.Image], prompts: list[str]) -> Outputs:
        """See `EncoderModel`."""
        return {FEATURE: np.stack([_thumbnail(image).astype(np.float32).ravel() for image in images])}


def _thumbnail(image: PIL.Image.Image) -> np.ndarray:
    return np.asarray(image.convert("L").resize((SIDE, SIDE), PIL.Image.Resampling.BILINEAR))


class PairedSources(NamedTuple):
    """Where the images of pairs are.

    Attributes:
        train: The planned rows of the training images.
        synthetic: The planned rows of the synthetic images.
        reid: The network for re-identification; None: only pixels are compared.
        batch_size: Images at once.
    """

    train: list[AnyRow]
    synthetic: list[AnyRow]
    reid: ReidEncoder | None = None
    batch_size: int = 16

    @property
    def encoders(self) -> tuple[Encoder, ...]:
        """What looks at the images."""
        return (Thumbnails(), *([self.reid] if self.reid else []))

    def describe(self) -> dict[str, Any]:
        """Returns what decides the numbers, as JSON holds it, by name of the measure."""
        return {encoder.name.lstrip("-"): encoder.describe() for encoder in self.encoders}


def open_paired_sources(
    train: str, synthetic: str, reid: str | None = None, on_mismatch: str = "error", batch_size: int = 16
) -> PairedSources:
    """Plans the two sources and checks the network, before the long work.

    Args:
        train: SOURCE of the training images.
        synthetic: SOURCE of the synthetic images.
        reid: See `resolve_reid`. Default: none.
        on_mismatch: `"error"` or `"skip"`, as in `synthchex_75k.plan`.
        batch_size: Images at once; halved when memory runs out.

    Raises:
        SourceError: A source cannot be used.
        StepError: The network cannot be used, or a package for it is missing.
    """
    network = resolve_reid(reid) if reid else None
    return PairedSources(plan_any(train, on_mismatch), plan_any(synthetic, on_mismatch), network, batch_size)


class Look(NamedTuple):
    """What is kept of an image.

    Attributes:
        side: "train" or "synthetic".
        row: Its row in the features.
        arrays: What each of `PairedSources.encoders` gives: grey values, 8 bits, of shape (4096,), and the numbers of
            the network.
    """

    side: str
    row: int
    arrays: tuple[np.ndarray, ...]


def look_at_images(
    sources: PairedSources, train: tuple[Features, np.ndarray], synthetic: tuple[Features, np.ndarray]
) -> Iterator[Look]:
    """Reads images, all training images before the synthetic ones, and shows progress.

    Args:
        sources: Where they are.
        train: Features of the training images, and which rows of them to read.
        synthetic: The same of the synthetic images.

    Yields:
        What is kept of each.

    Raises:
        StepError: A source lacks an image, or the image has changed since it was embedded. What the plan tells is told
            before the first image.
        SourceError: An image is damaged.
    """
    chosen = [
        _chosen(sources.train, "train", *train),
        _chosen(sources.synthetic, "synthetic", *synthetic),
    ]
    encoders = tuple(range(len(sources.encoders)))
    ask = Encoding(sources.encoders, encoders, sources.batch_size).load()
    with progress_bar("images of pairs", sum(map(len, chosen)), "image") as bar:
        for side, (features, _), found in zip(("train", "synthetic"), (train, synthetic), chosen):
            rows = (row for _, row in found)
            for encoded, row in zip(ask([Item(planned, encoders) for planned, _ in found]), rows):
                if encoded.features[0].crc32 != features.crc32[row]:
                    raise StepError(_changed(side, [encoded.filename]))
                if encoded.note:
                    bar.write(printable(encoded.note))
                grey, *others = (encoded.features[number].outputs[FEATURE] for number in encoders)
                yield Look(side, row, (grey.astype(np.uint8), *others))
                bar.update()


def _chosen(planned: list[AnyRow], side: str, features: Features, rows: np.ndarray) -> list[tuple[AnyRow, int]]:
    """Returns the planned rows of images in the order of their source, with their rows in the features."""
    wanted = dict(zip(features.filenames[rows].tolist(), rows.tolist()))
    found = [(row, wanted.pop(row.filename)) for row in planned if row.filename in wanted]
    if wanted:
        raise StepError(
            f"--{side}: the source lacks {counted(len(wanted), 'image')} that the features have: "
            f"{listing([*wanted], 3)}; name the source that was embedded"
        )
    changed = [row.filename for row, number in found if row.zipped and row.zipped[2] != features.crc32[number]]
    if changed:
        raise StepError(_changed(side, changed))
    return found


def _changed(side: str, names: list[str]) -> str:
    return (
        f"--{side}: not the image that was embedded, by its CRC-32: {listing(names, 3)}; name the source that was "
        "embedded, or embed again"
    )
