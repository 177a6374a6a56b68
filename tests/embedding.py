"""Functions for `--encoder`: encoders that need numpy only, and encoders that fail."""

import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

Images = list[PIL.Image.Image]
CALLS: list[int] = []  # how many images were asked about at once


def pixels(images: Images) -> np.ndarray:
    """Returns the image at 4x4 pixels."""
    return np.stack([np.asarray(image.convert("L").resize((4, 4)), np.float32).ravel() for image in images])


def edges(images: Images) -> np.ndarray:
    """Returns the differences of its rows, in float64."""
    return np.stack([np.diff(np.asarray(image.convert("L").resize((4, 4)), float), axis=0).ravel() for image in images])


def slowly(images: Images) -> np.ndarray:
    """Returns the pixels, in 0.1 s an image; never those of the fifth one, if SLOWLY_LOG names a file to make then."""
    time.sleep(0.1 * len(images))
    CALLS.append(len(images))
    if (log := os.environ.get("SLOWLY_LOG")) and sum(CALLS) > 4:
        Path(log).touch()
        time.sleep(600)
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
    CALLS.append(len(images))
    return np.zeros((len(images), len(CALLS)))


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


def of_any_size(images: Images) -> list[np.ndarray]:
    """Returns all pixels, which are more of a larger image."""
    return [np.asarray(image).ravel() for image in images]


def complex_numbers(images: Images) -> np.ndarray:
    """Returns numbers that are not real."""
    return pixels(images) * 1j


def too_large(images: Images) -> np.ndarray:
    """Returns numbers that float32 does not hold."""
    return pixels(images).astype(float) + 1e300


def in_place(images: Images) -> np.ndarray:
    """Makes each image smaller, and returns its pixels."""
    for image in images:
        image.thumbnail((4, 4))
    return pixels(images)


def elsewhere(images: Images) -> np.ndarray:
    """Changes the working directory."""
    os.chdir("/")
    return pixels(images)


def leave(images: Images) -> Any:
    """Ends the program as if all were done."""
    sys.exit(0)


constant = "no function"
