# /// script
# requires-python = ">=3.10"
# dependencies = ["datasets", "hf-xet>=1.7", "numpy", "pillow", "psutil", "tqdm"]
# ///
"""Measures the converter beside the methods that its users would use instead, and how fast the results are read.

    uv run scripts/benchmark.py [--images 4000] [--num-proc N] [--before COMMIT]
    uv run scripts/benchmark.py --evaluation [--rows 75649] [--python PATH]
    uv run scripts/benchmark.py --training --python PATH [--images 512]
    uv run scripts/benchmark.py --chunking [--images 1000]
    uv run scripts/benchmark.py --browsing [--rows 75649]
    uv run scripts/benchmark.py --full-size [--rows 75649] [--num-proc N]

With --evaluation it measures the metrics of images instead, on random features: beside prdc and torchmetrics, and all
of them on as many rows as the dataset has. It counts CPU seconds of all threads, and the memory beyond the features.

With --training it measures how many images a second PyTorch's `DataLoader` gets from each form of the data, as they are
and after `pack_shards.py --size 224`.

With --chunking it measures how `pyarrow` cuts files into pages: what edits of the dataset then transfer to the Hub.

With --full-size it measures a conversion of a source as large as the dataset, the same again, and --verify, in minutes.

With --browsing it measures the configuration `labels` and the page of `browse_images.py`, on small images.

Without, it writes a source of images that differ, of the size of the real ones, and creates environments for the other
methods, in a folder that it removes at the end. It measures all methods in turns, several times, and prints Markdown
tables of medians. A conversion ends when its bytes are on the disk. Sources are in the page cache. Memory is that of
all processes, shared pages counted once (PSS), in separate runs, because watching it takes time.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from pipeline.benchmark.browsing import compare_browsing
from pipeline.benchmark.chunking import compare_chunkings
from pipeline.benchmark.conversion import compare_conversions
from pipeline.benchmark.full_size import measure_full_size
from pipeline.benchmark.metrics import compare_metrics
from pipeline.benchmark.training import compare_loaders
from pipeline.cli import end_on_signals
from pipeline.errors import StepError
from pipeline.files import NewFile
from pipeline.parquet import shard
from pipeline.shards import MAX_SHARD_SIZE
from synthchex_75k import Row


def main() -> None:
    """Runs the benchmark."""
    end_on_signals()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--images",
        type=int,
        help="of 265 KB each; the disk must hold eight times that; default: 4000, with --training 512, --chunking 1000",
    )
    parser.add_argument("--num-proc", type=int, default=os.cpu_count(), help="of the converter; default: all cores")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured")
    parser.add_argument("--conversions-only", action="store_true", help="leave out reading back, which takes longer")
    parser.add_argument("--before", metavar="COMMIT", help="measure the converter of an older commit too")
    parser.add_argument(
        "--work-dir", type=Path, help="where to make a folder; default: where the system has temporary files"
    )
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--evaluation", action="store_true", help="measure the metrics of images instead")
    modes.add_argument("--training", action="store_true", help="measure loaders of PyTorch instead")
    modes.add_argument("--chunking", action="store_true", help="measure the pages of Parquet files instead")
    modes.add_argument("--browsing", action="store_true", help="measure label queries and browse_images.py instead")
    modes.add_argument("--full-size", action="store_true", help="convert 20 GB; the disk of --work-dir must hold 40 GB")
    parser.add_argument(
        "--python",
        metavar="PATH",
        help="with --training: one with torch, datasets and pillow; "
        "with --evaluation: one with torch and torchmetrics (default: leave torchmetrics out)",
    )
    parser.add_argument(
        "--rows",
        type=int,
        default=75649,
        help="with --evaluation: a side, of the run of all metrics; with --browsing and --full-size: of the dataset",
    )
    options = parser.parse_args()
    others = (options.evaluation, options.training, options.chunking, options.browsing, options.full_size)
    if options.before and any(others):
        parser.error("--before measures conversions, which another mode leaves out")
    if options.work_dir and not options.work_dir.is_dir():
        parser.error(f"--work-dir: no folder {options.work_dir}")
    if options.images is None:
        options.images = 512 if options.training else 1000 if options.chunking else 4000
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=options.work_dir) as name:
        try:
            for line in tables(Path(name), options):
                print(line, flush=True)
        except StepError as error:
            parser.error(str(error))


def tables(work: Path, options: argparse.Namespace) -> Iterator[str]:
    """Measures what the options ask for, in an empty folder; yields lines of Markdown."""
    if options.evaluation:
        return compare_metrics(work, options.rows, options.rounds, options.python)
    if options.training:
        return compare_loaders(work, options.images, options.rounds, options.python)
    if options.chunking:
        return compare_chunkings(work, options.images, options.rounds, write_parquet)
    if options.full_size:
        return measure_full_size(work, options.rows, options.num_proc)
    if options.browsing:
        return compare_browsing(work, options.rows, options.rounds)
    with_readings = not options.conversions_only
    return compare_conversions(work, options.images, options.num_proc, options.rounds, with_readings, options.before)


def write_parquet(rows: list[Row], uncertainty: str, options: dict[str, Any], folder: Path) -> list[Path]:
    """Writes rows into a new folder as the converter does, but for some options of its `OPTIONS`."""
    (folder / "data").mkdir(parents=True)
    with patch.dict(shard.OPTIONS, options):
        shards = shard.parquet_shards(rows, folder, MAX_SHARD_SIZE, 100, uncertainty)
        for one in shards:
            with NewFile(one.path) as file:
                one.write(file)
                file.finish()
    return [one.path for one in shards]


if __name__ == "__main__":
    main()
