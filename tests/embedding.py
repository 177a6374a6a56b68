"""Functions for `--encoder`: encoders that need numpy only, and encoders that fail."""

import time
from typing import Any

import numpy as np
import PIL.Image

Images = list[PIL.Image.Image]
SEEN: dict[str, list[int]] = {"pixels": [], "edges": []}  # the identity of each image that was asked about


def pixels(images: Images) -> np.ndarray:
    """Returns the image at 4x4 pixels."""
    SEEN["pixels"] += map(id, images)
    return np.stack([np.asarray(image.convert("L").resize((4, 4)), np.float32).ravel() for image in images])


def edges(images: Images) -> np.ndarray:
    """Returns the differences of its rows, in float64."""
    SEEN["edges"] += map(id, images)
    return np.stack([np.diff(np.asarray(image.convert("L").resize((4, 4)), float), axis=0).ravel() for image in images])


def slowly(images: Images) -> np.ndarray:
    """Returns the pixels, in 50 ms an image."""
    time.sleep(0.05 * len(images))
    return pixels(images)


def raise_for_bright(images: Images) -> np.ndarray:
    """Fails for images that are white."""
    if any(image.getpixel((0, 0)) == (255, 255, 255) for image in images):
        raise ValueError("too\nbright")
    return pixels(images)


def nan_for_bright(images: Images) -> np.ndarray:
    """Returns NaN for images that are white."""
    found = pixels(images)
    found[[image.getpixel((0, 0)) == (255, 255, 255) for image in images]] = np.nan
    return found


def flat(images: Images) -> np.ndarray:
    """Returns a number for each image."""
    return pixels(images)[:, 0]


def one_too_few(images: Images) -> np.ndarray:
    """Loses an image."""
    return pixels(images)[1:]


def nothing(images: Images) -> None:
    """Returns no array."""


def texts(images: Images) -> list[list[str]]:
    """Returns texts."""
    return [["a"]] * len(images)


def of_any_width(images: Images) -> np.ndarray:
    """Returns arrays that differ in width from call to call."""
    SEEN["pixels"] += map(id, images)
    return np.zeros((len(images), len(SEEN["pixels"])))


def with_little_memory(images: Images) -> np.ndarray:
    """Takes at most three images at once."""
    if len(images) > 3:
        raise MemoryError("three at most")
    return pixels(images)


def with_no_memory(images: Images) -> Any:
    """Takes no image."""
    raise MemoryError("0 bytes are free")


def empty(images: Images) -> np.ndarray:
    """Empties the list that it gets."""
    found = pixels(images)
    images.clear()
    return found


constant = "no function"
