"""Functions for `--callable`: models that need no packages, and models that fail."""

import os
import random
import time

import PIL.Image

PIXELS = 8
_canvas = PIL.Image.new("RGB", (PIXELS, PIXELS))


def draw(prompts: list[str], seeds: list[int]) -> list[PIL.Image.Image]:
    """Draws noise, which depends on the prompt and the seed alone."""
    return [_noise(f"{prompt} {seed}") for prompt, seed in zip(prompts, seeds)]


def draw_slowly(prompts: list[str], seeds: list[int]) -> list[PIL.Image.Image]:
    """Draws the same, in 20 ms each; the prompt that NOT_DRAWN holds, if it is set, it never draws."""
    time.sleep(600 if os.environ.get("NOT_DRAWN") in prompts else 0.02 * len(prompts))
    return draw(prompts, seeds)


def in_other_words(prompts: list[str], seeds: list[int]) -> list[PIL.Image.Image]:
    """Draws something else."""
    return [_noise(f"other {prompt} {seed}") for prompt, seed in zip(prompts, seeds)]


def black_for_edema(prompts: list[str], seeds: list[int]) -> list[PIL.Image.Image]:
    """Draws a black image for some prompts, as an overflow or a safety checker does."""
    black = PIL.Image.new("RGB", (PIXELS, PIXELS))
    return [black if "edema" in prompt else image for prompt, image in zip(prompts, draw(prompts, seeds))]


def raise_for_edema(prompts: list[str], seeds: list[int]) -> list[PIL.Image.Image]:
    """Fails for some prompts."""
    if any("edema" in prompt for prompt in prompts):
        raise ValueError("no edema,\nplease")
    return draw(prompts, seeds)


def raise_oddly_for_edema(prompts: list[str], seeds: list[int]) -> list[PIL.Image.Image]:
    """Fails for some prompts, with a text that no CSV can hold."""
    if any("edema" in prompt for prompt in prompts):
        raise ValueError("no\udcff\0edema\r" + "x" * 200_000)
    return draw(prompts, seeds)


def transparent(prompts: list[str], seeds: list[int]) -> list[PIL.Image.Image]:
    """Draws images that a radiograph cannot be."""
    return [image.convert("RGBA") for image in draw(prompts, seeds)]


def nothing(prompts: list[str], seeds: list[int]) -> list[None]:
    """Returns no images."""
    return [None] * len(prompts)


def one_too_few(prompts: list[str], seeds: list[int]) -> list[PIL.Image.Image]:
    """Loses an image."""
    return draw(prompts, seeds)[1:]


def with_little_memory(prompts: list[str], seeds: list[int]) -> list[PIL.Image.Image]:
    """Draws at most three images at once."""
    if len(prompts) > 3:
        raise MemoryError("three at most")
    return draw(prompts, seeds)


class OutOfMemoryError(RuntimeError):
    """As torch has one."""


def with_no_memory(prompts: list[str], seeds: list[int]) -> list[PIL.Image.Image]:
    """Fails, in a way that hides the reason."""
    try:
        raise OutOfMemoryError("0 bytes are free")
    except OutOfMemoryError:
        raise UnboundLocalError("image") from None


def reuse_memory(prompts: list[str], seeds: list[int]) -> list[PIL.Image.Image]:
    """Draws each image into the same memory."""
    _canvas.paste(draw(prompts, seeds)[0])
    return [_canvas]


def lazily(prompts: list[str], seeds: list[int]) -> list[PIL.Image.Image]:
    """Returns images that are read from a file when they are needed."""
    draw(prompts, seeds)[0].save("lazy.png")
    return [PIL.Image.open("lazy.png")]


def too_large(prompts: list[str], seeds: list[int]) -> list[PIL.Image.Image]:
    """Draws an image with more pixels than a SOURCE may have."""
    return [PIL.Image.linear_gradient("L").resize((8200, 8200))] * len(prompts)


def transparent_by_key(prompts: list[str], seeds: list[int]) -> list[PIL.Image.Image]:
    """Draws images of which a color is transparent."""
    images = draw(prompts, seeds)
    for image in images:
        image.info["transparency"] = (0, 0, 0)
    return images


def texts(prompts: list[str], seeds: list[int]) -> list[str]:
    """Returns no images, but texts."""
    return [""] * len(prompts)


def pop(prompts: list[str], seeds: list[int]) -> list[PIL.Image.Image]:
    """Empties the lists that it gets."""
    return [draw([prompts.pop(0)], [seeds.pop(0)])[0] for _ in range(len(prompts))]


def leave(prompts: list[str], seeds: list[int]) -> list[PIL.Image.Image]:
    """Ends the program."""
    raise SystemExit("the license has expired")


def judge(images: list[PIL.Image.Image], questions: list[str]) -> list[str]:
    """Judges images by their prompts."""
    return ["Low Quality" if "edema" in question else "High Quality" for question in questions]


def _noise(text: str) -> PIL.Image.Image:
    return PIL.Image.frombytes("RGB", (PIXELS, PIXELS), random.Random(text).randbytes(3 * PIXELS**2))
