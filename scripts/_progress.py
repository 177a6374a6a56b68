"""Progress bars: in a terminal a bar, elsewhere a line now and then."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import Any

from tqdm import tqdm

LINE_EVERY = 10  # seconds, where the output is no terminal


@contextlib.contextmanager
def progress_bar(about: str, total: int, unit: str, **options: Any) -> Iterator[tqdm]:
    """Shows progress on the standard error.

    Args:
        about: What the bar says.
        total: How much there is.
        unit: Of what.
        **options: More for tqdm.

    Yields:
        The bar.
    """
    tqdm.set_lock(threading.RLock())  # tqdm's own is shared with forked processes, and one that is killed may hold it
    options |= {"total": total, "desc": about, "unit": unit}
    if sys.stderr.isatty():
        bar = tqdm(**options)
    else:
        line = "{desc}: {n_fmt}/{total_fmt}, {rate_fmt}{postfix}, {remaining} left"
        bar = _Lines(**options, bar_format=line, mininterval=LINE_EVERY, delay=LINE_EVERY, leave=False)
    with bar:
        yield bar


class _Lines(tqdm):
    """A progress bar for a log: a line now and then."""

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Writes a line; none where a terminal's would be cleared."""
        if msg is None:
            self.fp.write(f"{self}\n")
            self.fp.flush()
