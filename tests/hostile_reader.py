"""Reads hostile sources in a process that has imported the module under test, and nothing of the tests."""

import os
import re
import resource
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import synthchex_75k

NET = 4 << 30  # bytes of address space
SHOWN = 100  # rows that are compared one by one


class Outcome(NamedTuple):
    """What came of a source."""

    error: str = ""
    total: int = 0
    rows: tuple[tuple[str, str, bytes], ...] = ()
    seconds: float = 0
    megabytes: int = 0


def peak() -> int:
    """Returns the peak of this process's resident memory, in MB."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) >> 10


def read(source: Path, limit: int | None) -> Outcome:
    """Plans and reads a source."""
    count, rows = 0, []
    try:
        planned = synthchex_75k.plan(str(source))
        for example in synthchex_75k.examples(planned[:limit]):
            if count < SHOWN:
                rows.append((example["filename"], example["prompt"], example["image"]["bytes"]))
            count += 1
    except synthchex_75k.SourceError as error:
        return Outcome(str(error))
    return Outcome("", count if limit is None else len(planned), tuple(rows))


def attempt(sources: list[Path], limit: int | None, results: Connection) -> None:
    """Reads sources in this process and sends what came of each; what is no SourceError ends the process."""
    os.setpgid(0, 0)
    resource.setrlimit(resource.RLIMIT_AS, (NET, NET))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    start, base = time.process_time(), peak()
    try:
        for source in sources:
            outcome = read(source, limit)
            results.send(outcome._replace(seconds=time.process_time() - start, megabytes=peak() - base))
    except BaseException as error:
        results.send(f"{type(error).__name__}: {str(error)[:300]}, after {peak() - base} MB")
