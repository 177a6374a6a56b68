"""Other methods, which `benchmark.py` runs in environments of their own: `python peers.py FUNCTION ARGUMENT…`."""

from __future__ import annotations

import csv
import json
import math
import os
import statistics
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import datasets
import pyarrow.parquet as pq
from datasets.table import embed_table_storage

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

import synthchex_75k
from synthchex_75k import LABELS

SHARD_BYTES = 500_000_000
PAGE = range(200, 300)  # rows


def convert_script(release: str, output: str) -> None:
    """Converts as `datasets-cli convert_to_parquet` did: into the Arrow cache, then to Parquet, file by file."""
    script = str(ROOT / "synthchex_75k.py")
    dataset = datasets.load_dataset(script, data_dir=release, split="train", trust_remote_code=True)
    for shard, path in shards(dataset, dataset.data.nbytes, output):
        shard.to_parquet(path)


def convert_imagefolder(folder: str, output: str) -> None:
    """Converts with `imagefolder`, and embeds the images as `push_to_hub` does."""
    dataset = datasets.load_dataset("imagefolder", data_dir=folder, split="train")
    size = sum(path.stat().st_size for path in Path(folder).rglob("*.png"))
    for shard, path in shards(dataset.with_format("arrow"), size, output):
        embedded = shard.map(embed_table_storage, batched=True, batch_size=100, keep_in_memory=True)
        embedded.to_parquet(path)


def shards(dataset: datasets.Dataset, size: int, output: str) -> Iterator[tuple[datasets.Dataset, str]]:
    """Yields parts of at most 500 MB with their paths."""
    Path(output, "data").mkdir(parents=True)
    count = math.ceil(size / SHARD_BYTES)
    for index in range(count):
        name = f"{output}/data/train-{index:05d}-of-{count:05d}.parquet"
        yield dataset.shard(count, index, contiguous=True), name


def read_parquet(folder: str) -> datasets.IterableDataset:
    """Streams the converted folder."""
    return datasets.load_dataset(folder, split="train", streaming=True)


def read_release(folder: str) -> datasets.IterableDataset:
    """Streams the zip with the script."""
    script = str(ROOT / "synthchex_75k.py")
    return datasets.load_dataset(script, data_dir=folder, split="train", streaming=True, trust_remote_code=True)


def read_imagefolder(folder: str) -> datasets.IterableDataset:
    """Streams a folder of images and its metadata.csv."""
    return datasets.load_dataset("imagefolder", data_dir=folder, split="train", streaming=True)


def read_webdataset(folder: str) -> datasets.IterableDataset:
    """Streams tars."""
    return datasets.load_dataset("webdataset", data_dir=folder, split="train", streaming=True)


def stream(folder: str) -> datasets.IterableDataset:
    """Streams a folder, whose name tells its form."""
    return globals()[f"read_{Path(folder).name}"](folder)


def decode_all(folder: str) -> float:
    """Decodes every image; returns rows a second."""
    start, count = time.monotonic(), 0
    for row in stream(folder):
        (row["image"] if "image" in row else row["png"]).load()
        count += 1
    return count / (time.monotonic() - start)


def first_row(folder: str) -> float:
    """Returns the seconds until the first row."""
    start = time.monotonic()
    next(iter(stream(folder)))
    return time.monotonic() - start


def query_labels(folder: str) -> float:
    """Reads the labels of all rows, with DuckDB if it can read the form; returns seconds."""
    start = time.monotonic()
    form = Path(folder).name
    if form == "parquet":
        import duckdb

        counts = ", ".join(f'sum(labels_dict."{label}")' for label in LABELS)
        duckdb.execute(f"SELECT {counts} FROM '{folder}/data/*.parquet'").fetchall()
    else:
        columns = {"release": ["labels_dict"], "imagefolder": [*LABELS], "webdataset": ["json"]}
        for _ in stream(folder).select_columns(columns[form]):
            pass
    return time.monotonic() - start


def count_with_duckdb(file: str) -> list[float]:
    """Counts the rows with a label in the configuration `labels`; returns as `_first_and_later`."""
    import duckdb

    return _first_and_later(lambda: duckdb.execute(f"SELECT count(*) FROM '{file}' WHERE Edema = 1").fetchall())


def find_with_duckdb(file: str) -> list[float]:
    """Reads names and prompts of the rows with a label in the configuration `labels`."""
    import duckdb

    query = f"SELECT filename, prompt FROM '{file}' WHERE \"Pleural Effusion\" = 1"
    return _first_and_later(lambda: duckdb.execute(query).to_arrow_table())


def find_with_polars(file: str) -> list[float]:
    """Reads names and prompts of the rows with a label in the configuration `labels`."""
    import polars

    rows = polars.scan_parquet(file).filter(polars.col("Pleural Effusion") == 1).select("filename", "prompt")
    return _first_and_later(rows.collect)


def _first_and_later(query: Callable[[], object], later: int = 20) -> list[float]:
    """Returns the seconds of a first query, and the median of those of later ones."""
    seconds = []
    for _ in range(later + 1):
        start = time.monotonic()
        query()
        seconds.append(time.monotonic() - start)
    return [seconds[0], statistics.median(seconds[1:])]


def build_cache_of_release(folder: str) -> float:
    """Builds the Arrow cache of a zip; returns seconds."""
    start = time.monotonic()
    synthchex_75k.load(folder)
    return time.monotonic() - start


def build_cache_of_parquet(folder: str) -> float:
    """Builds the Arrow cache of Parquet files; returns seconds."""
    start = time.monotonic()
    datasets.load_dataset(folder, "default", split="train")
    return time.monotonic() - start


def filter_labels(folder: str) -> float:
    """Filters a loaded dataset by a function of the labels; returns seconds."""
    return _filter(folder, lambda labels: labels["Pleural Effusion"] == 1, input_columns="labels_dict")


def filter_rows(folder: str) -> float:
    """Filters a loaded dataset by a function of the whole row, which decodes every image; returns seconds."""
    return _filter(folder, lambda row: row["labels_dict"]["Pleural Effusion"] == 1)


def _filter(folder: str, keep: Callable[[dict], bool], **options: str) -> float:
    dataset = datasets.load_dataset(folder, split="train")
    start = time.monotonic()
    dataset.filter(keep, **options)
    return time.monotonic() - start


def read_examples(folder: str) -> float:
    """Reads every image of a source, with the checks of `synthchex_75k.examples`; returns images a second."""
    rows = synthchex_75k.plan(folder)
    start = time.monotonic()
    count = sum(1 for _ in synthchex_75k.examples(rows))
    return count / (time.monotonic() - start)


def read_zipfile(folder: str) -> float:
    """Reads every image of a zip with `zipfile`, which compares CRC-32; returns images a second."""
    with zipfile.ZipFile(next(Path(folder).glob("*.zip"))) as archive:
        names = [name for name in archive.namelist() if name.endswith(".png")]
        start = time.monotonic()
        count = sum(1 for name in names if archive.read(name))
        return count / (time.monotonic() - start)


def read_bytes(folder: str) -> float:
    """Reads every loose image, without a check; returns images a second."""
    paths = sorted(Path(folder).rglob("*.png"))
    start = time.monotonic()
    count = sum(1 for path in paths if path.read_bytes())
    return count / (time.monotonic() - start)


def read_page(folder: str) -> int:
    """Reads 100 rows that are not the first; returns how many bytes were read for them."""
    form = Path(folder).name
    before = bytes_read()
    if form == "parquet":
        path = min(Path(folder, "data").iterdir())
        pq.ParquetFile(path).read_row_group(PAGE.start // len(PAGE))
    elif form == "release":
        list(synthchex_75k.examples(synthchex_75k.plan(folder)[PAGE.start : PAGE.stop]))
    elif form == "imagefolder":
        with open(Path(folder, "train", "metadata.csv"), newline="") as file:
            rows = list(csv.DictReader(file))[PAGE.start : PAGE.stop]
        for row in rows:
            Path(folder, "train", row["file_name"]).read_bytes()
    else:  # a tar has no directory
        for _ in stream(folder).select_columns(["json"]).take(PAGE.stop):
            pass
    return bytes_read() - before


def bytes_read() -> int:
    """Returns how many bytes this process has read from files."""
    return int(Path("/proc/self/io").read_text().split()[1])


if __name__ == "__main__":
    result = globals()[sys.argv[1]](*sys.argv[2:])
    print(json.dumps(result), flush=True)
    os._exit(0)  # pyarrow can hang at the end of a process that has not read a stream to its end (Arrow's issue 45214)
