"""How `pyarrow` cuts a file into pages: what an edit of the dataset then transfers, and what writing and reading take.

Xet storage, which the Hub keeps files in, transfers only the chunks that it does not have. Its own client counts them
here, into a store in a folder. It cuts every file where its bytes say so, whatever the pages; but a page that begins
elsewhere puts its header between other images, and each header that moves makes one or two chunks of 64 KiB new.
"""

from __future__ import annotations

import io
import itertools
import random
import shutil
import statistics
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from pipeline.benchmark.measure import described
from pipeline.benchmark.sources import PHRASES
from pipeline.errors import StepError
from pipeline.imports import check_installed
from pipeline.parquet_pages import PageFile, read_chunks
from pipeline.rows import plan, total_size
from pipeline.table import csv_bytes
from synthchex_75k import LABELS, Row

# Writes rows, with a label policy and options of `pyarrow.parquet.ParquetWriter`, into a new folder; returns the files.
Write = Callable[[list[Row], str, dict[str, Any], Path], list[Path]]

WIDTH = 512  # of an image; one byte a pixel
HEIGHT, SPREAD = 517, 100  # mean and standard deviation: images have 265 KB, and differ in size as PNGs do
PAGE = range(150, 250)  # rows, of two row groups
MIN_IMAGES, MAX_IMAGES = 300, 1500


def _options(smallest: int = 0, largest: int = 0, page_per_image: bool = False) -> dict[str, Any]:
    """Returns options of the writer: bounds of the chunks in KiB, 0: no chunks; and whether images share a page."""
    sizes = {"min_chunk_size": smallest << 10, "max_chunk_size": largest << 10, "norm_level": 0}
    pages = (1, 16 << 10) if page_per_image else (None, None)  # None: `pyarrow`'s own, 1,024 values and 1 MiB
    return dict(zip(["write_batch_size", "data_page_size"], pages)) | {
        "use_content_defined_chunking": sizes if largest else False
    }


SETTINGS: dict[str, dict[str, Any]] = {
    "`convert_to_parquet.py`": {},
    "off": _options(),
    "off, a page per image": _options(page_per_image=True),
    "4 to 16 KiB": _options(4, 16),
    "256 KiB to 1 MiB, `pyarrow`'s and `datasets`' own": _options(256, 1024),
    "the same, a page per image": _options(256, 1024, page_per_image=True),
    "1 to 4 MiB": _options(1024, 4096),
    "4 to 16 MiB": _options(4096, 16384),
}


class Reads(NamedTuple):
    """What reading the images of a file page by page takes: sizes of pages, and bytes read for 1 and for 100 rows."""

    pages: list[int]
    one_row: int
    page_of_rows: int


def compare_chunkings(work: Path, images: int, rounds: int, write: Write) -> Iterator[str]:
    """Measures each setting of the writer.

    Args:
        work: An empty folder.
        images: How many the dataset has before the edits.
        rounds: How often writing is timed, in turns; the least counts, for other programs only add.
        write: Writes Parquet files as the converter does.

    Yields:
        Lines of Markdown.

    Raises:
        StepError: There are too few or too many images, or `hf_xet` is missing.
    """
    if not MIN_IMAGES <= images <= MAX_IMAGES:
        raise StepError(f"--images: {MIN_IMAGES} to {MAX_IMAGES}: a page of 100 rows to read, in one file")
    check_installed("hf_xet", needed_by="--chunking")
    draw_source(work / "source", images + 1)
    old, edits = edits_of(plan(str(work / "source")))
    seconds = _cpu_seconds(work / "timed", old, rounds, write)
    costs, transfers = [], []
    for name, options in tqdm(SETTINGS.items(), "Edits", unit="setting"):
        before = write(old, "keep", options, work / "before")
        with XetStore(work / "xet") as store:
            store.upload(before)
            after = [_transferred(work / "after", store, edit, options, write) for edit in edits.values()]
        costs.append(_cost_line(name, page_reads(before[0]), seconds[name], total_size(old)))
        transfers.append(_line(name, *(f"{size / 1e6:,.1f} MB" for size in after)))
        shutil.rmtree(work / "before")
    machine = described(sys.executable, "pyarrow", "hf_xet")
    yield f"{images:,} images, {total_size(old) / 1e6:,.0f} MB; CPU seconds, best of {rounds} runs; {machine}"
    yield ""
    yield from _head("chunks", "pages of images", "their median", "write 1 GB", "read 1 row", "read 100 rows")
    yield from costs
    yield ""
    yield from _head("bytes transferred after", *edits)
    yield from transfers


def draw_source(folder: Path, count: int) -> None:
    """Writes a SOURCE whose images are as large as real ones, and as random: noise that no PNG makes smaller."""
    folder.mkdir(parents=True)
    rng, choose = np.random.default_rng(0), random.Random(0)
    rows = [["img_savename", "annotated_prompt", "chexpert_labels"]]
    with zipfile.ZipFile(folder / "ALL_FILES.zip", "w") as archive:
        for number in range(count):
            height = max(WIDTH // 4, round(rng.normal(HEIGHT, SPREAD)))
            png = io.BytesIO()
            noise = rng.integers(0, 256, (height, WIDTH), dtype=np.uint8)
            Image.fromarray(noise).save(png, "PNG", compress_level=0)
            name = f"image-{number:06}-{choose.getrandbits(64):016x}.png"
            archive.writestr(name, png.getvalue())
            labels = dict(zip(LABELS, choose.choices([None, 0.0, 1.0], [82, 5, 13], k=len(LABELS))))
            rows.append([name, " ".join(choose.choices(PHRASES, k=choose.randint(2, 10))), str(labels)])
        archive.writestr("metadata.csv", csv_bytes(rows))


def edits_of(rows: list[Row]) -> tuple[list[Row], dict[str, tuple[list[Row], str]]]:
    """Returns the rows before an edit, one fewer than given, and the rows and the label policy after each edit."""
    middle = len(rows) // 2
    old = rows[:middle] + rows[middle + 1 :]
    kept = sorted(random.Random(0).sample(range(len(old)), len(old) * 3 // 4))
    changed = old[middle]._replace(prompt="A prompt of other words.")
    return old, {
        "a row inserted": (rows, "keep"),
        "a row removed": (old[:middle] + old[middle + 1 :], "keep"),
        "a prompt changed": ([*old[:middle], changed, *old[middle + 1 :]], "keep"),
        "a quarter filtered out": ([old[index] for index in kept], "keep"),
        "another label policy": (old, "zeros"),
    }


class XetStore:
    """Xet storage in a folder, as the client of the Hub fills it; the folder lives as long as the context.

    Args:
        folder: A new folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._session: Any = None
        self._no_sha256: Any = None

    def __enter__(self) -> XetStore:
        import hf_xet  # an optional package

        self._folder.mkdir(parents=True)
        config = {"log.dest": str(self._folder / "log"), "telemetry.enabled": False}
        self._no_sha256 = hf_xet.SKIP_SHA256
        self._session = hf_xet.XetSession(hf_xet.XetConfig().with_config(config))
        return self

    def __exit__(self, *_: object) -> None:
        self._session = None  # and its threads
        shutil.rmtree(self._folder)

    def upload(self, files: Sequence[Path]) -> int:
        """Uploads files; returns the bytes of their chunks that were new."""
        commit, _ = self._start(files)
        return commit.wait_to_finish().dedup_metrics.new_bytes

    def new_bytes(self, files: Sequence[Path]) -> int:
        """Returns what `upload` would; the store then does not have the chunks."""
        commit, uploads = self._start(files)
        found = sum(upload.result().dedup_metrics.new_bytes for upload in uploads)
        commit.abort()
        return found

    def _start(self, files: Sequence[Path]) -> tuple[Any, list[Any]]:
        commit = self._session.new_upload_commit(endpoint=f"local://{self._folder.absolute()}")
        return commit, [commit.start_upload_file(str(file), sha256=self._no_sha256) for file in files]


def page_reads(path: Path) -> Reads:
    """Reads the images of a file by its page index, as the dataset viewer does, and counts the bytes, footer included.

    Raises:
        StepError: Its pages cannot be read one by one, or it has fewer than 250 rows.
    """
    done: list[tuple[int, int]] = []
    with open(path, "rb") as file:

        def read(offset: int, length: int) -> bytes:
            done.append((offset, length))
            file.seek(offset)
            return file.read(length)

        chunks = read_chunks(read, path.stat().st_size, ("image", "bytes"))
        places = [(group, row) for group, chunk in enumerate(chunks) for row in range(chunk.rows)]
        footer = [*done]

        def take(rows: range) -> list[tuple[int, int]]:
            done[:] = footer
            pages = PageFile(read, chunks)
            if len(places) < PAGE.stop or any(pages.read_value(*places[row]) is None for row in rows):
                raise StepError(f"{path}: its pages cannot be read one by one")
            return [*done]

        one, some = (sum(length for _, length in take(rows)) for rows in (PAGE[:1], PAGE))
        indexes = {chunk.offset for chunk in chunks}
        every = take(range(len(places)))[len(footer) :]
    return Reads([length for offset, length in every if offset not in indexes], one, some)


def _cpu_seconds(folder: Path, rows: list[Row], rounds: int, write: Write) -> dict[str, float]:
    """Returns the CPU seconds of writing, the least of all rounds, for each setting."""
    found: dict[str, list[float]] = {name: [] for name in SETTINGS}
    for _, (name, options) in tqdm([*itertools.product(range(rounds), SETTINGS.items())], "Timing", unit="run"):
        start = time.process_time()
        write(rows, "keep", options, folder)
        found[name].append(time.process_time() - start)
        shutil.rmtree(folder)
    return {name: min(runs) for name, runs in found.items()}


def _transferred(
    folder: Path, store: XetStore, edit: tuple[list[Row], str], options: dict[str, Any], write: Write
) -> int:
    """Returns the bytes that the store does not have of the files after an edit."""
    files = write(*edit, options, folder)
    size = store.new_bytes(files)
    shutil.rmtree(folder)
    return size


def _cost_line(name: str, reads: Reads, seconds: float, size: int) -> str:
    pages = f"{len(reads.pages):,}", f"{statistics.median(reads.pages) / 1e6:.1f} MB"
    bytes_read = (f"{part / 1e6:.1f} MB" for part in (reads.one_row, reads.page_of_rows))
    return _line(name, *pages, f"{seconds / size * 1e9:.2f} s", *bytes_read)


def _head(*names: str) -> Iterator[str]:
    yield _line(*names)
    yield "|" + "---|" * len(names)


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
