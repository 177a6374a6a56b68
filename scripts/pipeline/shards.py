"""Files with a part of the rows each: where to cut, and writing those that are missing or out of date.

`write_missing` is the one mechanism with which every program continues after an interruption.
"""

from __future__ import annotations

import bisect
import itertools
import math
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from pipeline.errors import StepError
from pipeline.files import NewFile, filename_in_errors, remove_on_error, sha256_of, temporary_path
from pipeline.folder import DATA, Entry, OutputFolder
from pipeline.jobs import WorkerPool, advance
from pipeline.rows import AnyRow, iter_crc32, total_size


class AnyFile(Protocol):
    """A file of `data/`."""

    @property
    def path(self) -> Path:
        """Where it goes."""

    @property
    def rows(self) -> Sequence[AnyRow]:
        """The rows of a source that it is made of."""

    def fingerprint(self, crcs: Iterable[int]) -> str:
        """Returns a hash of everything that its bytes depend on, the CRC-32 of the image of each row included."""


class AnyShard(AnyFile, Protocol):
    """A file that a worker writes."""

    @property
    def max_bytes(self) -> int:
        """An upper bound of its size: bytes."""

    def write(self, file: NewFile) -> tuple[list[int], dict[str, Any]]:
        """Writes the file, in a worker, and calls its `sync` now and then.

        Returns:
            The CRC-32 of each image, and more for the file's entry in the manifest.
        """


MAX_JOBS = 1000  # of one check
MAX_SHARD_SIZE = 500_000_000  # bytes, where the user names no other bound

Shard = TypeVar("Shard", bound=AnyShard)


class Outcome(NamedTuple):
    """Result of `write_missing`.

    Attributes:
        entries: The manifest's entry of each file, in order.
        written: Those of the files that this run wrote.
        seconds: How long it wrote.
    """

    entries: list[Entry]
    written: list[Entry]
    seconds: float


def cut(sizes: list[int], max_size: int, measure: Callable[[int, int], int]) -> list[tuple[int, int]]:
    """Cuts rows into files of roughly even size.

    Cuts lie at multiples of a power of two, about a 16th of a file's rows, so that an image that grows or shrinks a
    little moves no cut, and changes no other file.

    Args:
        sizes: Upper bound of each row's size: bytes. No row alone exceeds the bound of a file.
        max_size: Upper bound of a file: bytes.
        measure: Returns the upper bound of a file with the rows `start` to `end`: bytes.

    Returns:
        Start and end of each file. They depend on the arguments alone.

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
    raise AssertionError("every row alone fits")


def check_space(folder: Path, needed: int, freed: int) -> None:
    """Checks that the disk has room.

    Args:
        folder: Where files will be written.
        needed: Size of the new files: bytes.
        freed: Size of the files that will be removed: bytes.

    Raises:
        StepError: It has not.
    """
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free + freed
    if needed > free:
        raise StepError(
            f"{existing}: {needed:,} bytes are needed and {free:,} are free; free some, or use another disk"
        )


def write_missing(pool: WorkerPool, folder: OutputFolder, shards: list[Shard], title: str) -> Outcome:
    """Writes the files of `data/` that are missing or out of date, and removes all others.

    Args:
        pool: The workers.
        folder: The folder.
        shards: The files wanted, in order.
        title: Text before the progress bar of writing.

    Returns:
        The outcome. If anything changed, the marker of the folder is gone; `OutputFolder.finish` writes it.

    Raises:
        StepError: The disk has no room, or finished files of another source or other options would be replaced.
        Exception: What writing raises. Then no worker runs any more and no temporary file is left.
    """
    finished = find_finished(pool, folder, shards)
    missing = [shard for shard in shards if shard.path not in finished]
    known = [folder.path / name for name in folder.entries if name.startswith(f"{DATA}/")]
    outdated = [path for path in known if path not in finished]
    folder.check_replaceable(outdated)
    freed = [path for path in (*outdated, *folder.leftovers) if path.exists()]
    check_space(folder.path, sum(shard.max_bytes for shard in missing), sum(path.stat().st_size for path in freed))
    if missing or outdated or freed:
        folder.begin(outdated)
    start = time.monotonic()
    rows = [row for shard in missing for row in shard.rows]
    try:
        for shard, (temporary, entry) in pool.run(_write, missing, title, len(rows), total_size(rows)):
            folder.add(temporary, shard.path, entry)
    except BaseException:
        pool.stop()
        folder.remove_leftovers()  # of workers that were killed while they wrote
        raise
    entries = {shard.path: folder.entries[folder.name_of(shard.path)] for shard in shards}
    return Outcome([*entries.values()], [entries[shard.path] for shard in missing], time.monotonic() - start)


def find_finished(pool: WorkerPool, folder: OutputFolder, files: Sequence[AnyFile]) -> set[Path]:
    """Returns the paths of those files that are finished: they are, to the bit, what would be written now.

    Args:
        pool: The workers, which read them.
        folder: The folder.
        files: The files wanted.
    """
    known = [(file, entry) for file in files if (entry := folder.entry_of(file.path))]
    of_rows = [[*files] for _, files in itertools.groupby(known, key=lambda pair: pair[0].rows or pair[0].path)]
    step = math.ceil(len(of_rows) / MAX_JOBS) or 1
    jobs = [of_rows[start : start + step] for start in range(0, len(of_rows), step)]
    rows = sum(len(file.rows) for file, _ in known)
    checked = pool.run(_finished_among, jobs, "Checking", rows or len(known), sum(entry["size"] for _, entry in known))
    return {path for _, paths in checked for path in paths}


def _finished_among(known: list[list[tuple[AnyFile, Entry]]]) -> list[Path]:
    """In a worker: returns the paths of those files that are the ones that would be written now, to the bit.

    Args:
        known: Lists of files, each of the same rows, whose images are read once.
    """
    finished = []
    for files in known:
        rows = files[0][0].rows
        for (file, entry), crcs in zip(files, itertools.tee(iter_crc32(rows), len(files))):
            if file.fingerprint(crcs) == entry["fingerprint"] and sha256_of(file.path) == entry["sha256"]:
                finished.append(file.path)
            advance(len(rows) or 1, entry["size"])
    return finished


def _write(shard: Shard) -> tuple[Path, Entry]:
    """In a worker: writes and fsyncs a file under a temporary name, and returns that name and the file's entry."""
    temporary = temporary_path(shard.path)
    with remove_on_error(temporary), filename_in_errors(shard.path), NewFile(temporary) as file:
        crcs, more = shard.write(file)
        sha256, size = file.finish(), file.tell()
    return temporary, {"size": size, "sha256": sha256, "fingerprint": shard.fingerprint(crcs), **more}
