"""What the programs have in common: how they read rows, cut them into files, take arguments and end."""

from __future__ import annotations

import argparse
import bisect
import itertools
import math
import shutil
import signal
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from _jobs import WorkerDiedError
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


def cut(sizes: list[int], max_size: int, measure: Callable[[int, int], int]) -> list[tuple[int, int]]:
    """Cuts rows into files of roughly even size.

    Cuts lie at multiples of a power of two, about a 16th of a file's rows, so that an image that has grown or shrunk a
    little moves no cut, and changes no other file.

    Args:
        sizes: Upper bound of what each row takes: bytes. No row alone makes a file that is too large.
        max_size: Upper bound of a file: bytes.
        measure: Returns the upper bound of a file with the rows from a place to another: bytes.

    Returns:
        Where each file starts and ends. It depends on the arguments alone.

    Example:
        >>> cut([10] * 8, 45, lambda start, end: 10 * (end - start))
        [(0, 4), (4, 8)]
    """
    ends = list(itertools.accumulate(sizes))
    for count in itertools.count(math.ceil(ends[-1] / max_size)):
        step = 1 << max(0, (len(sizes) // count // 16).bit_length() - 1)
        nearest = (round(bisect.bisect(ends, ends[-1] * part / count) / step) * step for part in range(1, count))
        parts = [*itertools.pairwise(sorted({0, *nearest, len(sizes)}))]
        if all(measure(*part) <= max_size for part in parts):
            return parts
    raise AssertionError("a row alone fits")


def check_space(output: Path, needed: int, replaced: list[Path]) -> None:
    """Checks that what is to be written fits on the disk.

    Raises:
        StepError: It does not.
    """
    folder = next(path for path in (output.absolute(), *output.absolute().parents) if path.exists())
    free = shutil.disk_usage(folder).free + sum(path.stat().st_size for path in replaced)
    if needed > free:
        raise StepError(f"{folder}: {needed:,} bytes are needed and {free:,} free; free some, or name another disk")


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
