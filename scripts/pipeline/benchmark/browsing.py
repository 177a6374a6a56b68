"""The configuration `labels` and `browse_images.py` at the size of the dataset: bytes, seconds, memory."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline.benchmark.measure import (
    PEERS,
    SCRIPTS,
    Measurement,
    described,
    in_turns,
    make_environment,
    measure,
    used_memory,
)
from pipeline.benchmark.sources import make_many_rows, small_png
from pipeline.errors import StepError

PACKAGES = ["datasets", "pillow", "duckdb", "polars", "gradio>=6.31"]
QUERIES = {
    "number of rows, DuckDB": "count_with_duckdb",
    "file names and prompts, DuckDB": "find_with_duckdb",
    "file names and prompts, Polars": "find_with_polars",
}
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # the server is on this machine


class Served(NamedTuple):
    """What a run of `browse_images.py` takes: seconds until it listens, for a page and for a filter; memory: bytes."""

    start: float
    page: float
    filter: float
    memory: float


def compare_browsing(work: Path, rows: int, rounds: int) -> Iterator[str]:
    """Measures queries of the configuration `labels`, and the page.

    Args:
        work: An empty folder.
        rows: Of the dataset.
        rounds: How often each is measured.

    Yields:
        Lines of Markdown.

    Raises:
        StepError: `browse_images.py` does not start.
    """
    python = make_environment(work / "env", PACKAGES)
    make_many_rows(work / "release", rows, small_png)  # neither labels nor the index depend on the images
    converter = SCRIPTS / "convert_to_parquet.py"
    measure([python, converter, work / "release", work / "parquet", "--no-figures"], work / "home")
    (file,) = (work / "parquet" / "labels").iterdir()

    def query(task: str) -> Callable[[], Measurement]:
        return lambda: measure([python, PEERS, task, file], work / "home")

    queries = in_turns({name: query(task) for name, task in QUERIES.items()}, rounds)
    served = [serve_once(python, work / "parquet") for _ in range(rounds)]
    yield f"{rows:,} rows; medians of {rounds} runs; {described(python, 'pyarrow', 'duckdb', 'polars', 'gradio')}"
    yield ""
    yield f"The file of the configuration `labels` has {file.stat().st_size / 1e6:.1f} MB."
    yield ""
    yield "| rows with a label | first query of a process | later ones, median of 20 |"
    yield "|---|---|---|"
    for name, runs in queries.items():
        first, later = (statistics.median(run.figures[place] for run in runs) for place in range(2))
        yield f"| {name} | {first * 1e3:.0f} ms | {later * 1e3:.1f} ms |"
    yield ""
    yield "| `browse_images.py` | median |"
    yield "|---|---|"
    one = Served(*(statistics.median(run[place] for run in served) for place in range(len(Served._fields))))
    yield f"| until it listens | {one.start:.1f} s |"
    yield f"| first page: the document and its images | {one.page:.2f} s |"
    yield f"| a filter by label and word | {one.filter:.3f} s |"
    yield f"| memory, at the end | {one.memory / 1e6:,.0f} MB |"


def serve_once(python: str, folder: Path) -> Served:
    """Starts `browse_images.py`, asks for the first page and for a filter as the page does, and ends it."""
    command = [python, str(SCRIPTS / "browse_images.py"), str(folder), "--port", "0"]
    begin = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        try:
            assert program.stdout
            found = next((found for line in program.stdout if (found := re.search(r"http://\S+/", line))), None)
            if not found:
                raise StepError("browse_images.py ended before it listened")
            started, url = time.monotonic(), found[0]
            OPENER.open(url, timeout=60).read()
            _show(url, "")
            shown = time.monotonic()
            _show(url, "?label=Edema:positive&words=effusion")
            filtered = time.monotonic()
            return Served(started - begin, shown - started, filtered - shown, used_memory(program.pid))
        finally:
            program.terminate()


def _show(url: str, query: str) -> None:
    event = {"data": [query], "fn_index": 0, "event_data": None, "session_hash": "a", "trigger_id": 0}
    request = urllib.request.Request(
        f"{url}gradio_api/run/predict", json.dumps(event).encode(), {"Content-Type": "application/json"}
    )
    answer = OPENER.open(request, timeout=60).read()
    assert b" images" in answer, answer[:1000]
