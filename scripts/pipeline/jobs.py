"""Worker processes with one progress bar; none of them outlives the process that started them."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, TypeVar

import fsspec.asyn

from pipeline.errors import describe_error
from pipeline.progress import progress_bar

Job = TypeVar("Job")
Result = TypeVar("Result")

MIN_PROCESSES_ALLOWED = 16  # on few cores too, for a remote source keeps processes waiting

_done: list[Any] = []  # in a worker: counters of rows and bytes, in memory shared with the main process


class WorkerDiedError(RuntimeError):
    """A worker process was killed, for example by the system when memory ran out."""


class WorkerPool:
    """Worker processes, each of which has one job at a time.

    They start at once, before this process holds a plan in memory and, better, before it starts a thread. Use the pool
    as a context: when it ends, in whatever way, no worker is left.

    A pool of the standard library can wait for ever: it has threads in this process, and their locks stay locked if
    the exception of a signal is raised at the wrong moment. This one has no threads here, and waits without a lock.

    Args:
        num_proc: Number of processes, at most twice the CPUs or 16: the number of jobs is not known yet, and idle
            processes take time and memory.

    Raises:
        OSError: There are too many processes or open files.
    """

    def __init__(self, num_proc: int) -> None:
        # A fork has done the imports already. On macOS it is not safe; on Linux it is, before any thread.
        context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
        self._done = [context.Value("q"), context.Value("q")]
        self._workers: dict[Connection, Any] = {}  # their processes
        self._busy: dict[Connection, Any] = {}  # their jobs
        try:
            with _signals_held_back():
                for _ in range(min(num_proc, max(2 * available_cpus(), MIN_PROCESSES_ALLOWED))):
                    self._start_worker(context)
        except BaseException:
            self.stop()
            raise

    def _start_worker(self, context: Any) -> None:
        connection, of_worker = context.Pipe()
        with of_worker:  # then open in the worker alone, so the other end notices if it is killed
            process = context.Process(target=_work, args=(of_worker, self._done), daemon=True)
            process.start()
        self._workers[connection] = process

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Kills the workers and waits until they have ended."""
        for process in self._workers.values():
            process.kill()
        for connection, process in self._workers.items():
            process.join()
            connection.close()
        self._workers.clear()

    def run(
        self, function: Callable[[Job], Result], jobs: Iterable[Job], title: str, rows: int = 0, size: int = 0
    ) -> Iterator[tuple[Job, Result]]:
        """Runs a function on each job; the function calls `advance` as it goes.

        Args:
            function: A function of a module, or a `partial` of one, since its name is sent to the workers.
            jobs: Its argument, for each call.
            title: Text before the progress bar.
            rows: Number of rows in all jobs.
            size: Bytes in all jobs. Default: no progress bar.

        Yields:
            Each job with its result, in the order in which they finish.

        Raises:
            WorkerDiedError: A worker was killed. The other jobs are killed at the end of the context.
            Exception: What the function raised, likewise.
        """
        if self._busy or not self._workers:
            raise RuntimeError("the workers have other jobs, or were stopped")
        before = self._counts()
        waiting = iter([*jobs])  # the caller may change its list
        for connection in self._workers:
            self._send_next(connection, function, waiting)
        if not self._busy:
            return
        with progress_bar(title, size, "B", unit_scale=True, disable=not size) as bar:
            while self._busy:
                finished: list[Any] = wait([*self._busy], timeout=0.1)
                rows_done, bytes_done = (now - then for now, then in zip(self._counts(), before))
                bar.set_postfix_str(f"{rows_done:,}/{rows:,} rows", refresh=False)
                bar.update(bytes_done - bar.n)
                for connection in finished:
                    result = _receive(connection)
                    job = self._busy.pop(connection)
                    self._send_next(connection, function, waiting)
                    yield job, result
                if not finished and wait([process.sentinel for process in self._workers.values()], timeout=0):
                    raise _worker_died()  # one that had no job, or on Windows not yet a connection

    def _send_next(self, connection: Connection, function: Callable[..., Any], waiting: Iterator[Any]) -> None:
        for job in itertools.islice(waiting, 1):
            self._busy[connection] = job
            data = pickle.dumps((function, job))
            with _died_if_closed():
                connection.send_bytes(data)

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
def _signals_held_back() -> Iterator[None]:
    """Holds back Ctrl-C and SIGTERM: this thread gets them at the end, a process started meanwhile when it is ready."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _died_if_closed() -> Iterator[None]:
    """Raises that the worker died, if the connection to it is closed."""
    try:
        yield
    except (EOFError, OSError):
        raise _worker_died() from None


def _worker_died() -> WorkerDiedError:
    time.sleep(0.1)  # if all processes get SIGTERM, this one perhaps last, its exception is raised here instead
    return WorkerDiedError("a worker process was killed, possibly out of memory")


def _receive(connection: Connection) -> Any:
    """Returns the result of a worker, or raises its exception."""
    with _died_if_closed():
        data = connection.recv_bytes()
    result, error, where = pickle.loads(data)
    if error is not None:
        raise error from _WorkerTracebackError(where)
    return result


class _WorkerTracebackError(Exception):
    """Where an exception was raised in a worker."""


def _work(connection: Connection, done: list[Any]) -> None:
    """Does one job after another, in a worker."""
    _done[:] = done
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the main one ends the workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    fsspec.asyn.reset_lock()  # a fork has no thread of the network client, whose older versions would wait for it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(EOFError, OSError):  # the main process is gone; or `_end_with_parent` sees it
        while True:
            connection.send_bytes(_answer(connection.recv_bytes()))


def _answer(call: bytes) -> bytes:
    """Returns the result of a function and no exception, or no result, its exception and the traceback."""
    try:
        function, job = pickle.loads(call)
        return pickle.dumps((function(job), None, ""))
    except BaseException as error:
        where = f"\n{traceback.format_exc()}"
        try:
            answer = pickle.dumps((None, error, where))
            pickle.loads(answer)
        except Exception:  # this exception cannot be sent, but its text
            kind = OSError if isinstance(error, OSError) else RuntimeError
            answer = pickle.dumps((None, kind(describe_error(error)), where))
        return answer


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        wait([parent.sentinel])
        os._exit(1)
