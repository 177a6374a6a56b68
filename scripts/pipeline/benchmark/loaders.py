"""Loaders of PyTorch, which `benchmark.py --training` runs: `python loaders.py FOLDER WORKERS,… FUNCTION…`.

FOLDER has the forms of one source: `release`, `parquet`, `imagefolder`, `webdataset`. Each function is one way to load,
and runs in a process of its own, forked from one that has imported all packages. Printed are, for each function, images
a second for each number of workers, and the memory with the last: bytes. `python loaders.py FOLDER prepare [LARGE]`
builds the Arrow caches; the `mapped` images are made of those of the folder LARGE.

The clock starts when each worker has delivered its first batch, so that neither the start of the workers nor the
first rows count, and stops after some seconds or at the end of the epoch; short epochs are added up.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
import torch
from torch.utils.data import DataLoader, default_collate

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import synthchex_75k

SIDE = 224  # pixels of the model's input
BATCH = 32  # images
SECONDS = 1.2  # of each measurement
MAX_EPOCHS = 5  # of each measurement
BETWEEN = 0.3  # seconds between two looks at the memory, which take time


class Way(NamedTuple):
    """One way to load: a dataset, how rows become a batch, and what is done to a batch after the loader."""

    dataset: Any
    collate: Callable[[list], Any]
    after: Callable[[Any], Any] = lambda batch: batch


def arrow(folder: Path) -> Way:
    """The Arrow cache that the loading script builds."""
    return Way(_load(folder), small_images)


def parquet(folder: Path) -> Way:
    """The converted folder, map-style: `datasets` builds an Arrow cache of it."""
    return Way(_load_dataset(str(folder / "parquet"), folder), small_images)


def parquet_stream(folder: Path) -> Way:
    """The converted folder, read row group by row group."""
    return Way(_load_dataset(str(folder / "parquet"), folder, streaming=True), small_images)


def imagefolder(folder: Path) -> Way:
    """Loose files, map-style."""
    return Way(_load_dataset("imagefolder", folder, data_dir=str(folder / "imagefolder")), small_images)


def webdataset(folder: Path) -> Way:
    """Tars, in order."""
    data_dir = str(folder / "webdataset")
    return Way(_load_dataset("webdataset", folder, data_dir=data_dir, streaming=True), small_images)


def mapped(folder: Path) -> Way:
    """Images that `map` made small and grey, once."""
    return Way(datasets.load_from_disk(str(folder / "mapped")), small_images)


def torch_format(folder: Path) -> Way:
    """Whole colour images as tensors from the dataset, made small and grey in the main process."""
    return Way(_load(folder).with_format("torch"), default_collate, small_tensors)


def whole(folder: Path) -> Way:
    """Images of their own size."""
    return Way(_load(folder), grey_images)


def undecoded(folder: Path) -> Way:
    """Bytes of the files, of which only the length leaves the worker."""
    dataset = _load(folder).cast_column("image", datasets.Image(decode=False))
    return Way(dataset, lambda rows: torch.tensor([len(row["image"]["bytes"]) for row in rows]))


def _load(folder: Path) -> Any:
    return synthchex_75k.load(folder / "release", cache_dir=folder / "cache")


def _load_dataset(path: str, folder: Path, **options: Any) -> Any:
    return datasets.load_dataset(path, split="train", cache_dir=str(folder / "cache"), **options)


def small_images(rows: list[dict[str, Any]]) -> Any:
    """Returns a batch of grey images of the size of the model's input, as README does it."""
    return grey_images(rows, (SIDE, SIDE))


def grey_images(rows: list[dict[str, Any]], size: tuple[int, int] | None = None) -> Any:
    """Returns a batch of grey images from 0 to 1.

    Args:
        rows: Rows of the dataset, whose image is `image` or, of WebDataset, `png`.
        size: Resize to this: pixels. Default: leave the size.
    """
    images = [(row["image"] if "image" in row else row["png"]).convert("L") for row in rows]
    arrays = [np.asarray(image.resize(size) if size else image, dtype=np.float32) for image in images]
    return torch.from_numpy(np.stack(arrays))[:, None] / 255


def small_tensors(batch: dict[str, Any]) -> Any:
    """Returns a batch of grey images of the size of the model's input, from one of colour images as integers."""
    grey = batch["image"].float().mean(1, keepdim=True) / 255
    return torch.nn.functional.interpolate(grey, (SIDE, SIDE), mode="bilinear", antialias=True)


def prepare(folder: Path, large: Path | None = None) -> None:
    """Builds the Arrow caches of a folder, and the `mapped` images from those of the folder `large`."""
    for open_form in (arrow, parquet, imagefolder):
        open_form(folder)
    if large:
        grey = _load(large).map(lambda image: {"image": image.convert("L").resize((SIDE, SIDE))}, input_columns="image")
        grey.save_to_disk(str(folder / "mapped"))


def measure_way(name: str, folder: Path, workers: list[int]) -> list[float]:
    """Returns images a second for each number of workers, and the memory of all processes with the last: bytes."""
    way: Way = globals()[name](folder)
    # The largest number first: a process that has read something itself, and so has threads, is not one to fork.
    found = [_speed(way, count, watch_memory=count == workers[-1]) for count in reversed(workers)]
    return [*(speed for speed, _ in reversed(found)), found[0][1]]


def _speed(way: Way, workers: int, watch_memory: bool) -> tuple[float, int]:
    """Returns images a second, and the memory that the processes hold: bytes."""
    count, seconds, memory = 0, 0.0, 0
    shuffle = not isinstance(way.dataset, datasets.IterableDataset)
    for _ in range(MAX_EPOCHS):
        loader = DataLoader(way.dataset, BATCH, shuffle or None, num_workers=workers, collate_fn=way.collate)
        start = looked = last = 0.0
        for number, batch in enumerate(loader, 1):
            size = len(way.after(batch))
            last = time.monotonic()
            if number <= max(workers, 1):
                start = last
                continue
            count += size
            if watch_memory and last - looked > BETWEEN:
                memory, looked = max(memory, held_memory()), last
            if seconds + last - start > SECONDS:
                break
        seconds += last - start
        if seconds > SECONDS:
            break
    return count / seconds, memory


def held_memory() -> int:
    """Returns the memory of this process, its workers and the one that imported all packages: bytes.

    Pages that processes share count once. Those of mapped files, such as an Arrow cache, are left out: the system can
    drop them at any time.
    """
    total = 0
    for process in (os.getppid(), os.getpid(), *(child.pid for child in multiprocessing.active_children())):
        with contextlib.suppress(OSError):  # a worker that has read its part of a stream ends
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))
    return 1024 * total


def main(folder: Path, workers: str, *functions: str) -> None:
    """Runs the functions, one after the other."""
    found = {}
    for name in functions:
        with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
            found[name] = pool.submit(measure_way, name, folder, [*map(int, workers.split(","))]).result()
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    place, second, *others = sys.argv[1:]
    if second == "prepare":
        prepare(Path(place), *map(Path, others))
    else:
        main(Path(place), second, *others)
    os._exit(0)  # as in `peers.py`
