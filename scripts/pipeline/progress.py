"""Progress on the standard error: a bar in a terminal, a line now and then in a log."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import Any

from tqdm import tqdm

from synthchex_75k import printable

LOG_INTERVAL = 10  # seconds between lines, where the standard error is no terminal
NOTICE_AFTER = 2  # seconds until `notice` prints

_silent: list[bool] = []  # not empty: nothing is shown


def silence() -> None:
    """Shows nothing from now on, in a process that works for one that shows the same."""
    _silent.append(True)


@contextlib.contextmanager
def progress_bar(title: str, total: int, unit: str, **options: Any) -> Iterator[tqdm]:
    """Shows progress.

    Args:
        title: Text before the bar.
        total: Number of units in all.
        unit: Name of the unit.
        **options: More for tqdm.

    Yields:
        The bar.
    """
    tqdm.set_lock(threading.RLock())  # tqdm's own lock is shared with forked processes; a killed one may hold it
    options |= {"total": total, "desc": title, "unit": unit}
    if _silent:
        options["disable"] = True
    if sys.stderr.isatty():
        bar = tqdm(**options)
    else:
        line = "{desc}: {n_fmt}/{total_fmt}, {rate_fmt}{postfix}, {remaining} left"
        bar = _LogLines(**options, bar_format=line, mininterval=LOG_INTERVAL, delay=LOG_INTERVAL, leave=False)
    with bar:
        yield bar


def write_line(text: str) -> None:
    """Prints a line on the standard output, above a progress bar if there is one in the terminal."""
    text = printable(text)
    if _silent:
        return
    if sys.stderr.isatty():
        tqdm.write(text)
    else:
        print(text)  # tqdm would write the bar again after each line
    sys.stdout.flush()  # whoever reads a pipe waits for it


@contextlib.contextmanager
def notice(text: str) -> Iterator[None]:
    """Prints a line if the context is still running after `NOTICE_AFTER` seconds."""
    timer = threading.Timer(NOTICE_AFTER, lambda: print(printable(text), file=sys.stderr, flush=True))
    timer.daemon = True
    if not _silent:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


class _LogLines(tqdm):
    """A progress bar that writes whole lines."""

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Writes a line; none where a terminal's would be cleared."""
        if msg is None:
            self.fp.write(f"{self}\n")
            self.fp.flush()
