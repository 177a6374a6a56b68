"""The configuration `labels` and `browse_images.py` at the size of the dataset: bytes, seconds, memory."""

from __future__ import annotations

import io
import json
import random
import re
import statistics
import string
import subprocess
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

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
from pipeline.table import csv_bytes
from synthchex_75k import LABELS

PACKAGES = ["datasets", "pillow", "duckdb", "polars", "gradio>=6.31"]
QUERIES = {
    "number of rows, DuckDB": "count_with_duckdb",
    "file names and prompts, DuckDB": "find_with_duckdb",
    "file names and prompts, Polars": "find_with_polars",
}
IMAGES = 300  # that differ; small ones, because neither the labels nor the page's index depends on their size
PHRASE = "no effusion"  # at the end of each prompt; the filter is one of its words
WORDS, WORDS_PER_PROMPT = 2000, 38  # random, so that prompts compress worse than those of reports


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
    """
    python = make_environment(work / "env", PACKAGES)
    make_many_rows(work / "release", rows)
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


def make_many_rows(release: Path, count: int) -> None:
    """Writes a source of small images, with prompts of random words and with columns as real releases have them."""
    release.mkdir(parents=True)
    rng = random.Random(0)
    words = ["".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 9))) for _ in range(WORDS)]
    images = [small_png(seed) for seed in range(min(count, IMAGES))]
    table: list[list[Any]] = [["img_savename", "annotated_prompt", "chexpert_labels", "view", "patient", "seed"]]
    with zipfile.ZipFile(release / "ALL_FILES.zip", "w") as archive:
        for number in range(count):
            name = f"SyntheticImg_{'-'.join(f'{rng.getrandbits(32):08x}' for _ in range(5))}.png"
            labels = dict(zip(LABELS, rng.choices([None, 0.0, 1.0], [82, 5, 13], k=len(LABELS))))
            prompt = f"{' '.join(rng.choices(words, k=WORDS_PER_PROMPT))} {PHRASE}."
            table.append([name, prompt, labels, rng.choice(["PA", "AP"]), number // 3, rng.getrandbits(32)])
            archive.writestr(name, images[number % len(images)])
        archive.writestr("metadata.csv", csv_bytes(table))


def small_png(seed: int) -> bytes:
    """Returns a grey PNG of 64 x 64 pixels."""
    png = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (16, 16), dtype=np.uint8)
    Image.fromarray(pixels).resize((64, 64)).save(png, "PNG")
    return png.getvalue()


def serve_once(python: str, folder: Path) -> Served:
    """Starts `browse_images.py`, asks for the first page and for a filter as the page does, and ends it."""
    command = [python, str(SCRIPTS / "browse_images.py"), str(folder), "--port", "0"]
    begin = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        try:
            assert program.stdout
            line = next(line for line in program.stdout if "http://" in line)
            started = time.monotonic()
            url = re.findall(r"http://\S+/", line)[0]
            urllib.request.urlopen(url).read()
            _show(url, "")
            shown = time.monotonic()
            _show(url, "?label=Edema:positive&words=effusion")
            found = time.monotonic()
            return Served(started - begin, shown - started, found - shown, used_memory(program.pid))
        finally:
            program.terminate()


def _show(url: str, query: str) -> None:
    event = {"data": [query], "fn_index": 0, "event_data": None, "session_hash": "a", "trigger_id": 0}
    request = urllib.request.Request(
        f"{url}gradio_api/run/predict", json.dumps(event).encode(), {"Content-Type": "application/json"}
    )
    answer = urllib.request.urlopen(request).read()
    assert b" images" in answer, answer[:1000]
