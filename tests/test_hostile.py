"""Hostile sources, listed in `hostile.py`: a SourceError that names the file and gives advice, or the right rows.

Each source is read in a process of its own, forked from a server that has imported `synthchex_75k`, with no standard
input. Its bounds are a CPU time and an amount of memory; what waits is killed after a time on the wall. Memory is the
growth of `VmHWM`, the peak of resident memory: address space (RLIMIT_AS) and data (RLIMIT_DATA) also count what the
libraries only reserve, 1.2 GB at import on two CPUs and more on more. RLIMIT_AS is set too, as a net: a reader
that runs wild meets a MemoryError at 4 GB and does not take the machine down. RLIMIT_FSIZE holds that nothing is
unpacked to the disk.
"""

import contextlib
import multiprocessing
import os
import re
import signal
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest

import hostile
import synthchex_75k
from conftest import ROOT
from hostile_reader import attempt
from processes import PATIENCE

ADVICE = re.compile(
    r"\b(add|check|choose|convert|copy|correct|download|generate|get|give|it has|it must|keep|leave|make|name|pack|pass"
    r"|put|remove|rename|repack|replace|restore|save|shorten|split|start|unpack|write)\b",
    re.IGNORECASE,
)
# What would clear a terminal, forge a line of the message, or not print at all.
UNPRINTABLE = re.compile("[\0-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServerContext]:
    """A server that has imported the module under test."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hostile_reader"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
        process = context.Process(target=time.time)  # the first one starts the server
        process.start()
        process.join()
    yield context


def outcomes(server: ForkServerContext, sources: list[Path], limit: int | None, seconds: float) -> Iterator[Any]:
    """Yields what came of each source, or one text that says how the process ended."""
    here, there = server.Pipe(duplex=False)
    process = server.Process(target=attempt, args=(sources, limit, there))
    process.start()
    there.close()
    deadline = time.monotonic() + seconds + PATIENCE
    try:
        for _ in sources:
            if not here.poll(max(0, deadline - time.monotonic())):
                memory = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())
                yield f"killed after {seconds + PATIENCE} s, with {int(memory[1]) >> 10 if memory else 0} MB in all"
                return
            yield here.recv()
    except EOFError:
        process.join()
        yield f"the process died: exit code {process.exitcode}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid or 0, signal.SIGKILL)
        process.join()


def faults(case: hostile.Case, outcome: Any) -> Iterator[str]:
    """Yields what is wrong with an outcome."""
    if isinstance(outcome, str):
        yield outcome
        return
    if outcome.seconds > case.seconds:
        yield f"took {outcome.seconds:.1f} s"
    if outcome.megabytes > case.megabytes:
        yield f"took {outcome.megabytes} MB"
    if outcome.error:
        head, *lines = outcome.error.split("\n")
        if not case.error:
            yield f"was refused: {outcome.error[:500]}"
        elif not re.search(case.error, outcome.error, re.DOTALL):
            yield f"no {case.error!r} in the message: {outcome.error[:500]}"
        if not all(ADVICE.search(line) for line in lines or [head]):
            yield f"no advice: {outcome.error[:500]}"
        if UNPRINTABLE.search(outcome.error) or not all(line.startswith("- ") for line in lines):
            yield f"not fit to print: {outcome.error[:500]!r}"
        if len(outcome.error) > 8000:
            yield f"a message of {len(outcome.error)} characters: {outcome.error[:500]}"
    elif case.rows is None:
        yield f"was accepted: {outcome.total} rows"
    elif isinstance(case.rows, int):
        if outcome.total != case.rows:
            yield f"{outcome.total} rows"
    else:
        right = {(name, hostile.prompt(name), hostile.pixels(hostile.png(name))) for name in case.rows}
        found = [(name, prompt, hostile.pixels(image)) for name, prompt, image in outcome.rows]
        if {*found} != right or len(found) != len(case.rows):
            yield f"wrong rows: {[row[:2] for row in outcome.rows]}"


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * case.slow) for name, case in hostile.CASES.items()]
)
def test_a_hostile_source_is_refused_or_read_right(name: str, server: ForkServerContext) -> None:
    case = hostile.CASES[name]
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder:  # pytest would keep half a GB of them
        sources = hostile.build(name, Path(folder))
        found = [
            f"{source.relative_to(folder)}: {fault}"
            for source, outcome in zip(sources, outcomes(server, sources, case.read, case.seconds))
            for fault in faults(case, outcome)
        ]
    assert not found, "\n".join(found[:20])


# Sources that change while they are read


@pytest.mark.parametrize("shape", ["loose", "zip", "tar"])
@pytest.mark.parametrize("change", ["other time", "longer", "shorter", "gone"])
def test_a_source_that_changes_after_the_plan_is_refused(shape: str, change: str, tmp_path: Path) -> None:
    makers: dict[str, tuple[hostile.Make, str]] = {
        "loose": (hostile.good, "0.png"),
        "zip": (hostile.zipped(), "x.zip"),
        "tar": (hostile.tarred(), "x.tar"),
    }
    make, name = makers[shape]
    make(tmp_path)
    rows = synthchex_75k.plan(str(tmp_path))
    file = tmp_path / name
    data, state = file.read_bytes(), file.stat()
    if change == "gone":
        file.unlink()
    else:
        file.write_bytes({"longer": data + b"\0", "shorter": data[:-1]}.get(change, data))
        os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns + 10**9 * (change == "other time")))
    with pytest.raises(synthchex_75k.SourceError, match=rf"{re.escape(name)}.*chang.*start again|{name}.*gone"):
        list(synthchex_75k.examples(rows))


def test_no_row_is_read_from_a_file_that_changed_between_rows(tmp_path: Path) -> None:
    hostile.good(tmp_path, [f"{number}.png" for number in range(9)])
    rows = iter(synthchex_75k.examples(synthchex_75k.plan(str(tmp_path))))
    next(rows)
    (tmp_path / "8.png").write_bytes(hostile.png("another"))
    os.utime(tmp_path / "8.png", (0, 0))
    with pytest.raises(synthchex_75k.SourceError, match=r"8\.png.*chang.*start again"):
        list(rows)
