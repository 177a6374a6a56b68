"""What the programs have in common: how they read rows, take arguments and end."""

from __future__ import annotations

import argparse
import io
import signal
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import PIL.Image
from _jobs import WorkerDiedError, available_cpus
from datasets.utils.py_utils import convert_file_size_to_int

import synthchex_75k
from synthchex_75k import Row, SourceError

GO_ON = "What is finished is kept: run the same command again to go on."
READ_AHEAD = 16 << 20  # bytes that a request to a remote source asks for: some 60 images


class StepError(Exception):
    """A step that cannot start or go on; the message says what is wrong, where, and what to do."""


def read(rows: list[Row], uncertainty: str = "keep") -> Iterator[tuple[int, dict[str, Any]]]:
    """Reads rows of a plan.

    Args:
        rows: The rows.
        uncertainty: Label policy, a key of `synthchex_75k.UNCERTAINTY`.

    Yields:
        The CRC-32 of the image, in a zip the one that it says and that reading checks; the row as
        `synthchex_75k.examples` yields it.

    Raises:
        SourceError: An image is not what the plan found.
        StepError: A remote source failed.
        OSError: Something could not be read.
    """
    examples = synthchex_75k.examples(rows, uncertainty, read_ahead=READ_AHEAD)
    for row in rows:
        try:
            example = next(examples)
        except (SourceError, OSError):
            raise
        except Exception as error:  # of a network client, each with classes of its own
            raise StepError(f"{row.where}: {type(error).__name__}: {error}") from error
        yield row.zipped[2] if row.zipped else zlib.crc32(example["image"]["bytes"]), example


def crcs_of(rows: list[Row]) -> Iterator[int]:
    """Yields the CRC-32 of each image. One in a zip is what the zip says; nothing but reading them tells of others."""
    loose = (crc for crc, _ in read([row for row in rows if not row.zipped]))
    return (row.zipped[2] if row.zipped else next(loose) for row in rows)


def decode(image: bytes, where: str) -> PIL.Image.Image:
    """Decodes a PNG file.

    Args:
        image: The file.
        where: Where it lies, for messages.

    Raises:
        SourceError: It cannot be decoded.
    """
    try:
        decoded = PIL.Image.open(io.BytesIO(image))
        decoded.load()
    except (OSError, SyntaxError, ValueError):  # what Pillow raises of a damaged file
        raise SourceError(f"{where}: not an image that Pillow opens; generate it again") from None
    return decoded


def one_line(text: object) -> str:
    """Returns a text, such as a message of somebody else's, in one line."""
    return " ".join(str(text).split())


# The command line


def exit_code(step: Callable[[], int | None]) -> int:
    """Runs a step, and says what goes wrong.

    Args:
        step: What to run; it may return an exit code.

    Returns:
        The exit code: that of the step, else 0; 1 after an error, 130 after Ctrl-C.
    """
    try:
        return step() or 0
    except KeyboardInterrupt:
        print(f"\ninterrupted. {GO_ON}", file=sys.stderr)
        return 128 + signal.SIGINT
    except (SourceError, StepError) as error:
        print(f"error: {error}", file=sys.stderr)
    except (WorkerDiedError, OSError, MemoryError) as error:
        print(f"error: {error or type(error).__name__}. {GO_ON}", file=sys.stderr)
    return 1


def end_at_sigterm() -> None:
    """Makes of a SIGTERM an orderly end, with exit code 143."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def positive(text: str) -> int:
    """Reads a positive number."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return number


def file_size(text: str) -> int:
    """Reads a size as `datasets` does, such as 500MB or 1GiB: bytes."""
    try:
        return positive(str(convert_file_size_to_int(text)))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def local_folder(text: str) -> Path:
    """Reads the path of a folder."""
    if "://" in text:
        raise argparse.ArgumentTypeError(f"{text} is no folder of this machine; write into one, then upload it")
    return Path(text)


def add_sharding(add: Callable[..., Any], of: str) -> None:
    """Adds the options of how files are written."""
    add("--num-proc", type=positive, default=available_cpus(), help="processes; default: all cores, %(default)s here")
    add("--max-shard-size", type=file_size, default="500MB", help=f"upper bound of a {of} (%(default)s)")


def add_on_mismatch(add: Callable[..., Any]) -> None:
    """Adds the option of `synthchex_75k.plan`."""
    add(
        "--on-mismatch",
        choices=["error", "skip"],
        default="error",
        help="images without a row and rows without an image",
    )
