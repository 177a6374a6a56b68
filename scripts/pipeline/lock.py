"""Locks of the system, so that no two runs write to one file or folder; they end with the processes that hold them."""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from pipeline.errors import StepError
from pipeline.files import filename_in_errors

LOCK = ".lock"
PATIENCE = 3  # seconds in which the workers of a killed run end, even on a busy machine
# NFS and Lustre, as some mount them; EBADF: NFS locks nothing that is only read, such as a folder
WITHOUT_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF}


def lock_file(file: IO[bytes]) -> bool:
    """Locks a file until it is closed, here and in each process that was forked meanwhile.

    Where the file system has no locks, and on Windows, nothing is locked: a run without this protection is better than
    none for those who have no other disk. A line on the standard error tells them.

    Args:
        file: The file, open for writing.

    Returns:
        False if another run has locked it.

    Raises:
        OSError: The system failed.
    """
    return _lock(file.fileno(), file.name, wait=False)


@contextlib.contextmanager
def change_in(folder: Path) -> Iterator[None]:
    """Waits for the other processes that change a small file in a folder, and lets none begin until the context ends.

    For a file that is read, changed and written again, so that the changes of two processes are both kept. The lock is
    one of the folder itself, leaves no file, and is free of that of `FolderLock`. Without locks: as in `lock_file`.

    Args:
        folder: The folder. It exists.

    Raises:
        OSError: The system failed.
    """
    if os.name != "posix":  # a folder cannot be opened there
        yield
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        _lock(opened, str(folder), wait=True)
        yield
    finally:
        os.close(opened)


def _lock(opened: int, name: str, wait: bool) -> bool:
    if os.name != "posix":
        return True
    import fcntl

    try:
        fcntl.flock(opened, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        print(f"{name}: no lock ({error.strerror}); start no second run meanwhile", file=sys.stderr)
    return True


class FolderLock:
    """The right of one run to write to a folder.

    The file `LOCK` in it names the run, for those who are refused. Only the system's lock on that file counts, so a
    file that a killed run left behind locks nothing.

    Workers that are forked later hold the lock too. If one of them is stopped when its main process is killed, the
    folder stays locked until that worker ends, which it does as soon as it can run (see `jobs`). Workers that are
    spawned (macOS) hold no lock, and the next run starts at once. Even then there are no two writers: a worker writes
    only temporary files under names of its own, and none but its main process renames them.

    Use it as a context, or call `release`.

    Args:
        folder: The folder; created where it does not exist, and removed at the end if it is empty.

    Raises:
        StepError: Another run holds the lock.
        OSError: Folder or file cannot be created.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK
        self._file: IO[bytes] | None = None
        self._holder = "a run that has just ended"
        self._created = [path for path in (folder, *folder.parents) if not path.exists()]
        if os.name != "posix":
            return
        try:
            self._acquire()
        except BaseException as error:
            self.release()
            # A run that may not write there can still find that nothing is left to do. Where it may, only the file is
            # somebody else's, who may be writing.
            if not (isinstance(error, OSError) and folder.is_dir() and not os.access(folder, os.W_OK)):
                raise

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Ends the lock, and removes its file first: the next run locks a file of its own."""
        try:
            self._remove()
        except (KeyboardInterrupt, SystemExit):  # a signal in the last moment; `cli` ignores others now
            self._remove()
            raise

    def _remove(self) -> None:
        if self._file:
            self._path.unlink(missing_ok=True)
            self._file.close()
            self._file = None
        for folder in self._created:
            with contextlib.suppress(OSError):  # it is not empty, or was not created
                folder.rmdir()

    def _acquire(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while not self._try():
            if time.monotonic() > deadline:
                raise StepError(
                    f"another run is writing to {self._path.parent}: {self._holder}. Wait until it and its workers "
                    "have ended, or end them, or name another folder."
                )
            time.sleep(0.05)
        assert self._file
        now = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
        with filename_in_errors(self._path):
            self._file.truncate(0)  # of a killed run
            self._file.write(
                f"process {os.getpid()} on {platform.node()}, {Path(sys.argv[0]).name}, since {now}".encode()
            )
            self._file.flush()

    def _try(self) -> bool:
        """Locks the file, unless another run holds it, or removes folder and file at this moment."""
        with contextlib.suppress(FileNotFoundError, FileExistsError):  # which `mkdir` raises for a folder that goes
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = open(self._path, "a+b")  # noqa: SIM115 - closed by `release`
            if lock_file(file) and self._is_in_place(file):
                self._file = file
                return True
            file.seek(0)
            self._holder = file.read().decode(errors="replace") or "a run that has just begun"
            file.close()
        return False

    def _is_in_place(self, file: IO[bytes]) -> bool:
        """False if the run before has removed this file, after it was opened here and before it was locked."""
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(file.fileno()), self._path.stat())
        return False
