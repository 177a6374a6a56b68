"""Worker processes with one progress bar; none of them outlives the process that started them."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from pathlib import Path
from typing import Any, TypeVar

import fsspec.asyn

from pipeline.progress import progress_bar

Job = TypeVar("Job")
Result = TypeVar("Result")

MIN_PROCESSES_ALLOWED = 16  # on few cores too, for a remote source keeps processes waiting

_done: list[Any] = []  # in a worker: counters of rows and bytes, in memory shared with the main process


class WorkerDiedError(RuntimeError):
    """A worker process was killed, for example by the system when memory ran out."""


class WorkerPool:
    """Worker processes.

    They start at once, before this process holds a plan in memory and, better, before it starts a thread. Use the pool
    as a context: when it ends, in whatever way, no worker is left.

    Args:
        num_proc: Number of processes, at most twice the CPUs or 16: the number of jobs is not known yet, and idle
            processes take time and memory.

    Raises:
        WorkerDiedError: At the end of the context: a worker process has died.
    """

    def __init__(self, num_proc: int) -> None:
        # A fork has done the imports already. On macOS it is not safe; on Linux it is, before any thread.
        context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
        num_proc = min(num_proc, max(2 * available_cpus(), MIN_PROCESSES_ALLOWED))
        self._done = [context.Value("q"), context.Value("q")]
        self._pool = ProcessPoolExecutor(num_proc, context, _start_worker, (self._done,))
        try:
            with _without_sigint():
                self._pool.submit(os.getpid)  # the first job starts all processes
        except BaseException:  # too many processes or open files
            self.stop()
            raise

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.stop()
        if kind and issubclass(kind, BrokenProcessPool):
            raise WorkerDiedError("a worker process was killed, possibly out of memory") from None

    def stop(self) -> None:
        """Kills the workers and waits until they have ended."""
        for child in multiprocessing.active_children():
            child.kill()
        # A worker may be killed while it sends a result or receives a job. The threads of the pool wait for the rest
        # until nobody has the other end of the pipe: neither a worker, nor this process, which never uses it.
        results, calls = (getattr(self._pool, name) for name in ("_result_queue", "_call_queue"))
        if results and calls:  # None after the first call
            results._writer.close()
            calls._reader.close()
        self._pool.shutdown(cancel_futures=True)

    def run(
        self, function: Callable[[Job], Result], jobs: Iterable[Job], title: str, rows: int = 0, size: int = 0
    ) -> Iterator[tuple[Job, Result]]:
        """Runs a function on each job; the function calls `advance` as it goes.

        Args:
            function: A function of a module, since only its name is sent to the workers.
            jobs: Its argument, for each call.
            title: Text before the progress bar.
            rows: Number of rows in all jobs.
            size: Bytes in all jobs. Default: no progress bar.

        Yields:
            Each job with its result, in the order in which they finish.

        Raises:
            Exception: What the function raised. The other jobs are killed at the end of the context.
        """
        before = self._counts()
        waiting: dict[Future, Job] = {self._pool.submit(function, job): job for job in jobs}
        if not waiting:
            return
        with progress_bar(title, size, "B", unit_scale=True, disable=not size) as bar:
            while waiting:
                finished = wait(waiting, timeout=0.1, return_when=FIRST_COMPLETED).done
                rows_done, bytes_done = (now - then for now, then in zip(self._counts(), before))
                bar.set_postfix_str(f"{rows_done:,}/{rows:,} rows", refresh=False)
                bar.update(bytes_done - bar.n)
                for future in finished:
                    yield waiting.pop(future), future.result()
                if not finished and self._has_lost_a_worker():
                    raise BrokenProcessPool

    def _has_lost_a_worker(self) -> bool:
        """True if a worker has ended. The pool does not notice it in the middle of a result: it waits for the rest."""
        return bool(connection.wait([worker.sentinel for worker in [*self._pool._processes.values()]], timeout=0))

    def _counts(self) -> list[int]:
        return [counter.get_obj().value for counter in self._done]  # without its lock, which a killed worker may hold


def advance(rows: int, size: int) -> None:
    """Adds to the progress of the main process, from a worker: rows, and bytes."""
    for counter, done in zip(_done, (rows, size)):
        with counter.get_lock():
            counter.value += done


def available_cpus() -> int:
    """Returns how many CPUs this process may use: by its affinity, and by the quota of its container (cgroup)."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cpus, _cgroup_quota(Path("/sys/fs/cgroup")) or cpus)


def _cgroup_quota(root: Path) -> int | None:
    """Returns the CPU quota of cgroup 2 or 1, in whole CPUs and at least one; None where there is no quota.

    Args:
        root: Where the system mounts the cgroups.
    """
    v2, v1 = root / "cpu.max", root / "cpu"
    try:
        if v2.is_file():
            quota, period = v2.read_text().split()
        else:
            quota, period = ((v1 / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        return None if quota in ("max", "-1") else max(1, int(quota) // int(period))
    except (OSError, ValueError):  # no cgroup, or one that is hidden
        return None


@contextlib.contextmanager
def _without_sigint() -> Iterator[None]:
    """Holds back Ctrl-C: a process that is forked meanwhile never gets it, this one gets it at the end."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(done: list[Any]) -> None:
    _done[:] = done
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the main one ends the workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    fsspec.asyn.reset_lock()  # a fork has no thread of the network client, whose older versions would wait for it
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        connection.wait([parent.sentinel])
        os._exit(1)
