"""Files that appear under their names when they are complete and on the disk."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

NO_ROOM = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
INCOMPLETE = re.compile(r"\.(?P<name>.+)\.\d+\.incomplete")


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Says of an error for want of room which file it is of, for the system does not."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM and error.filename is None:
            error.filename = str(path)
        raise


@contextlib.contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """Gives a name in the same folder to write to, and renames it to `path` at the end.

    Args:
        path: The file to be; one that is there is replaced.

    Yields:
        The name under which to write; it matches `INCOMPLETE` and is gone after an error.
    """
    incomplete = path.with_name(f".{path.name}.{os.getpid()}.incomplete")
    try:
        with naming(path):
            yield incomplete
            flush(incomplete)
        os.replace(incomplete, path)
    except BaseException:
        incomplete.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # elsewhere a folder cannot be flushed
        flush(path.parent)


@contextlib.contextmanager
def flushing_behind(file: IO[bytes]) -> Iterator[Callable[[], None]]:
    """Brings a file to the disk while it is written, so that neither waits for the other at the end.

    Args:
        file: The file, open for writing.

    Yields:
        What to call now and then: it starts to flush what is written so far, unless it is still at that.
    """
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(os.fsync, file.fileno())

        def start() -> None:
            nonlocal running
            if running.done():
                running.result()
                file.flush()
                running = thread.submit(os.fsync, file.fileno())

        yield start
        running.result()  # what a disk has to say, it says once


def flush(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
