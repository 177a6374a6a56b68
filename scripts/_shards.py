"""Files that hold a part of the rows each: where to cut, which of them are finished, writing the others."""

from __future__ import annotations

import bisect
import itertools
import math
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

from _jobs import Jobs
from _steps import StepError

from synthchex_75k import Row


class AnyShard(Protocol):
    """A file to be: where it goes, which rows it holds, an upper bound of its size in bytes."""

    @property
    def path(self) -> Path: ...

    @property
    def rows(self) -> list[Row]: ...

    @property
    def size(self) -> int: ...


Shard = TypeVar("Shard", bound=AnyShard)


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


def write_missing(
    jobs: Jobs,
    output: Path,
    shards: list[Shard],
    present: set[Path],
    leftovers: list[Path],
    stale: Iterable[Path],
    marker: Path,
    finished: Callable[[Shard], Any],
    write: Callable[[Shard], Any],
    about: str,
) -> tuple[dict[Path, Any], list[Shard]]:
    """Writes those files that are not there as they should be, into `data/`.

    Args:
        jobs: Who writes.
        output: The folder.
        shards: The files that are to be there.
        present: Files of an earlier run.
        leftovers: What an interrupted run has left.
        stale: What else is to be removed.
        marker: The file that says that all is there; it goes before anything changes.
        finished: Returns of a file that is there something true if it is as it should be.
        write: Writes a file.
        about: What the progress bar says of writing.

    Returns:
        What `finished` or `write` has returned, by file; and the files that were written.

    Raises:
        StepError: The disk has no room.
        Exception: What `finished` and `write` raise. No worker runs by then, and no incomplete file is left.
    """
    folder = output / "data"
    try:
        checked = _run(jobs, finished, [shard for shard in shards if shard.path in present], "Checking")
        results = {shard.path: result for shard, result in checked if result}
        todo = [shard for shard in shards if shard.path not in results]
        check_space(output, sum(shard.size for shard in todo), [*leftovers, *present - {*results}])
        removed = [*leftovers, *present - {shard.path for shard in shards}, *stale]
        if todo or removed:
            marker.unlink(missing_ok=True)
        for path in removed:
            path.unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        for shard, result in _run(jobs, write, todo, about):
            results[shard.path] = result
    except BaseException:
        jobs.stop()
        for path in {*folder.glob(".*.incomplete")} - {*leftovers}:  # of workers that were ended half way
            path.unlink(missing_ok=True)
        raise
    return results, todo


def _run(jobs: Jobs, function: Callable[[Shard], Any], shards: list[Shard], about: str) -> Iterator[tuple[Shard, Any]]:
    rows = [row for shard in shards for row in shard.rows]
    return jobs.run(function, shards, about, len(rows), sum(row.size or 0 for row in rows))
