"""Locks of the system, so that no two runs write to one file or folder; they end with the processes that hold them."""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
import platform
import sys
import time
from pathlib import Path
from typing import IO

from pipeline.errors import StepError
from pipeline.files import filename_in_errors

LOCK = ".lock"
PATIENCE = 3  # seconds in which the workers of a killed run end, even on a busy machine
WITHOUT_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}  # NFS and Lustre, as some mount them


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
    if os.name != "posix":
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        print(f"{file.name}: no lock ({error.strerror}); start no second run meanwhile", file=sys.stderr)
    return True


class FolderLock:
    """The right of one run to write to a folder.

    The file `LOCK` in it names the run, for those who are refused. Only the system's lock on that file counts, so a
    file that a killed run left behind locks nothing.

    Workers that are forked later hold the lock too. If one of them is stopped when its main process is killed, the
    folder stays locked until that worker ends, which it does as soon as it can run (see `jobs`). Workers that are
    spawned (macOS) hold no lock, and the next run starts at once. Even then there are no two writers: a worker writes
    only temporary files under names of its own, and none but its main process renames them.

    Args:
        folder: The folder; created where it does not exist, and removed at the end if it is empty.

    Raises:
        StepError: Another run holds the lock.
        OSError: Folder or file cannot be created.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK
        self._file: IO[bytes] | None = None
        self._created: list[Path] = []
        if os.name != "posix" or (folder.exists() and not os.access(folder, os.W_OK)):
            return  # a run that may not write there can still find that nothing is left to do
        try:
            self._acquire()
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Ends the lock, and removes its file first: the next run locks a file of its own."""
        try:
            self._remove()
        except (KeyboardInterrupt, SystemExit):  # a signal; `cli` ignores others now
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
        while not (file := self._try_to_lock()):
            if time.monotonic() > deadline:
                raise StepError(
                    f"another run is writing to {self._path.parent}: {self._path.read_text(encoding='utf-8')}. Wait "
                    "until it and its workers have ended, or end them, or name another folder."
                )
            time.sleep(0.05)
        self._file = file
        now = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
        program = Path(sys.argv[0]).name
        with filename_in_errors(self._path):
            file.truncate(0)  # a killed run has left it
            file.write(f"process {os.getpid()} on {platform.node()}, {program}, since {now}".encode())
            file.flush()

    def _try_to_lock(self) -> IO[bytes] | None:
        """Returns the locked file; None if another run holds the lock, or is removing file and folder at its end."""
        folder = self._path.parent
        self._created += [path for path in (folder, *folder.parents) if not path.exists()]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = open(self._path, "a+b")  # noqa: SIM115 - closed by `release`
        except (FileExistsError, FileNotFoundError):
            return None
        if lock_file(file) and self._is_in_place(file):
            return file
        file.close()
        return None

    def _is_in_place(self, file: IO[bytes]) -> bool:
        """False if another run removed the file after it was opened here."""
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(file.fileno()), self._path.stat())
        return False
