"""Atomic writes, fsync and checksums of files."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

NO_SPACE = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
TEMPORARY = re.compile(r"\..+\.\d+\.tmp")  # names of `temporary_path`
BLOCK = 1 << 20  # bytes read at once


def temporary_path(path: Path) -> Path:
    """Returns a path beside `path` that matches `TEMPORARY`, one for each process."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def atomic_write(path: Path, data: bytes) -> None:
    """Writes a file under a temporary name, fsyncs and renames it; at any moment `path` is the old or the new file.

    Args:
        path: The file; an existing one is replaced.
        data: Its content.

    Raises:
        OSError: It cannot be written; no temporary file is left.
    """
    temporary = temporary_path(path)
    with remove_on_error(temporary), filename_in_errors(path):
        temporary.write_bytes(data)
        fsync(temporary)
        rename(temporary, path)


def append(path: Path, data: bytes) -> None:
    """Appends to a file, which need not exist, and fsyncs it; after an error the file is as before."""
    size = path.stat().st_size if path.exists() else 0
    try:
        with filename_in_errors(path), open(path, "ab") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:  # on a full disk, with a part of the data written
        if path.exists():
            os.truncate(path, size)
        raise


def rename(temporary: Path, path: Path) -> None:
    """Renames a file that was fsynced, and fsyncs the folder."""
    os.replace(temporary, path)
    fsync_folder(path.parent)


def remove(paths: Iterable[Path]) -> None:
    """Removes files, as far as they exist, and fsyncs their folders."""
    existing = [path for path in paths if os.path.lexists(path)]
    for path in existing:
        path.unlink()
    for folder in {path.parent for path in existing}:
        fsync_folder(folder)


@contextlib.contextmanager
def remove_on_error(path: Path) -> Iterator[None]:
    """Removes a file when the context ends with an error."""
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def filename_in_errors(path: Path) -> Iterator[None]:
    """Adds the file's name to an error for lack of disk space, in which the system names none."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE and error.filename is None:
            error.filename = str(path)
        raise


class NewFile(io.BufferedWriter):
    """A new file that threads hash and fsync while it is written, so that little of both is left at its end.

    Args:
        path: The file; it must not exist.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path, "xb"))
        self._path = path
        self._sha256, self._hashed = hashlib.sha256(), 0  # and how many bytes of the file are in it
        self._hashing, self._fsyncing = _Background(self._hash), _Background(os.fsync)

    def sync(self) -> None:
        """Starts to hash and to fsync what is written so far and never changes again, each unless it is going on.

        Raises:
            OSError: An earlier call failed.
        """
        self.flush()
        self._hashing.start(self.tell())
        self._fsyncing.start(self.fileno())

    def finish(self) -> str:
        """Waits until the whole file is on the disk, and returns its SHA-256 in hexadecimal digits.

        Raises:
            OSError: It, or an earlier `sync`, failed; the system reports an error of the disk only once.
        """
        self._hashing.wait()
        self._fsyncing.wait()
        self.sync()
        self._hashing.wait()
        self._fsyncing.wait()
        return self._sha256.hexdigest()

    def close(self) -> None:
        """Waits for the threads, and closes the file."""
        if not self.closed:
            self._hashing.end()
            self._fsyncing.end()
            super().close()

    def _hash(self, end: int) -> None:
        with open(self._path, "rb", buffering=0) as file:
            file.seek(self._hashed)
            while size := end - self._hashed:
                block = file.read(min(size, BLOCK))
                if not block:
                    raise OSError(f"{self._path}: cut off by another program while it was written")
                self._sha256.update(block)
                self._hashed += len(block)


class _Background:
    """Runs a function in a thread, one call at a time."""

    def __init__(self, function: Callable[[int], None]) -> None:
        self._function, self._thread = function, ThreadPoolExecutor(1)
        self._running: Future[None] | None = None

    def start(self, argument: int) -> None:
        """Calls the function, unless it is running; raises the error of the last call."""
        if self._running is None or self._running.done():
            self.wait()
            self._running = self._thread.submit(self._function, argument)

    def wait(self) -> None:
        """Waits for the last call, and raises its error."""
        if self._running:
            self._running.result()

    def end(self) -> None:
        """Ends the thread."""
        self._thread.shutdown()


def fsync(path: Path) -> None:
    """Waits until a file is on the disk."""
    with open(path, "r+b") as file:
        os.fsync(file.fileno())


def fsync_folder(path: Path) -> None:
    """Waits until the names in a folder are on the disk; elsewhere than on POSIX a folder cannot be fsynced."""
    if os.name == "posix":
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal digits."""
    sha256 = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            sha256.update(block)
    return sha256.hexdigest()
