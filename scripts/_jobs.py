"""Jobs in worker processes, with one progress bar; none of the processes outlives the one that started them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from typing import Any, TypeVar

from _progress import progress_bar

Job = TypeVar("Job")
Result = TypeVar("Result")

_done: list[Any] = []  # in a worker: counters of rows and bytes, in memory that it shares with the main process


class WorkerDiedError(RuntimeError):
    """A worker process ended without a word, as when the system is out of memory."""


class Jobs:
    """Worker processes.

    They start at once and share nothing with what this process does later, so that it may hold a whole plan in memory
    and they do not. Use it as a context: at its end, however it comes, no worker is left.

    Args:
        num_proc: How many.

    Raises:
        WorkerDiedError: At the end of the context: a worker process has died.
    """

    def __init__(self, num_proc: int) -> None:
        # A fork has done the imports already. Elsewhere than on Linux it is not safe; here it is, before any thread.
        context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
        self._done = [context.Value("q"), context.Value("q")]
        self._pool = ProcessPoolExecutor(num_proc, context, _start_worker, (self._done,))
        self._pool.submit(os.getpid)  # the first job starts the processes

    def __enter__(self) -> Jobs:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.stop()
        if kind and issubclass(kind, BrokenProcessPool):
            raise WorkerDiedError("a worker process was killed, perhaps for want of memory") from None

    def stop(self) -> None:
        """Ends the workers, whatever they are at, and waits until they are gone."""
        for child in multiprocessing.active_children():
            child.kill()
        self._pool.shutdown(cancel_futures=True)

    def run(
        self, function: Callable[[Job], Result], jobs: Iterable[Job], about: str, rows: int, size: int
    ) -> Iterator[tuple[Job, Result]]:
        """Runs a function on each job; it calls `advance` as it goes.

        Args:
            function: One of a module, for its name goes to the workers.
            jobs: What to call it with.
            about: What the progress bar says.
            rows: How many rows there are in all jobs.
            size: How many bytes there are in all jobs.

        Yields:
            Jobs with their results, in the order in which they end.

        Raises:
            Exception: What the function raised. The other jobs end with the context.
        """
        before = self._counts()
        waiting: dict[Future, Job] = {self._pool.submit(function, job): job for job in jobs}
        if not waiting:
            return
        with progress_bar(about, size, "B", unit_scale=True, disable=not size) as bar:
            while waiting:
                ended = wait(waiting, timeout=0.1, return_when=FIRST_COMPLETED).done
                rows_done, bytes_done = (now - then for now, then in zip(self._counts(), before))
                bar.set_postfix_str(f"{rows_done:,}/{rows:,} rows", refresh=False)
                bar.update(bytes_done - bar.n)
                for future in ended:
                    yield waiting.pop(future), future.result()

    def _counts(self) -> list[int]:
        return [counter.get_obj().value for counter in self._done]  # without its lock, which a killed worker may hold


def advance(rows: int, size: int) -> None:
    """Says from a worker that so many more rows, of so many bytes, are done."""
    for counter, done in zip(_done, (rows, size)):
        with counter.get_lock():
            counter.value += done


def available_cpus() -> int:
    """Returns how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _start_worker(done: list[Any]) -> None:
    _done[:] = done
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the main process ends the others
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        connection.wait([parent.sentinel])
        os._exit(1)
