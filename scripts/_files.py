"""Files that appear under their names when they are complete and on the disk."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

INCOMPLETE = re.compile(r"\.(?P<name>.+)\.\d+\.incomplete")


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
        yield incomplete
        flush(incomplete)
        os.replace(incomplete, path)
    except BaseException:
        incomplete.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # elsewhere a folder cannot be flushed
        flush(path.parent)


def flush(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
