"""Training: how fast a `DataLoader` of PyTorch gets images from each form of the data, and what decoding costs."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.benchmark.measure import HERE, SCRIPTS, Measurement, check_imports, described, in_turns, measure
from pipeline.benchmark.sources import SIZE, make_forms, make_release
from pipeline.errors import StepError

LOADERS = HERE / "loaders.py"
SMALL = 224  # pixels that the model wants
SIZES = (SIZE, SMALL)
WORKERS = (0, 2, 4)
FILES = 4  # of a stream: one for each worker
MIN_IMAGES = 256  # of which each of four workers gets two batches: the first is not counted
ROWS = {  # of the table: function of `loaders.py`, and the sizes for which it means something
    "`synthchex_75k.load` (Arrow cache)": ("arrow", SIZES),
    "Parquet": ("parquet", SIZES),
    "Parquet, streaming": ("parquet_stream", SIZES),
    "`imagefolder`": ("imagefolder", SIZES),
    "WebDataset, streaming": ("webdataset", SIZES),
    "Arrow cache, `map` to 224 pixels and grey before": ("mapped", (SMALL,)),
    'Arrow cache, `with_format("torch")`, resized after the loader': ("torch_format", (SIZE,)),
    "Arrow cache, decoded and not resized": ("whole", (SIZE,)),
    "Arrow cache, not decoded": ("undecoded", SIZES),
}


def compare_loaders(work: Path, images: int, rounds: int, python: str | None) -> Iterator[str]:
    """Measures loaders at the size of the images, and after they were packed at the size of the model.

    Args:
        work: An empty folder.
        images: How many to make.
        rounds: How often each loader is measured.
        python: One with torch, `datasets` and pillow.

    Yields:
        Lines of Markdown.

    Raises:
        StepError: There are too few images, or a package is missing.
    """
    if images < MIN_IMAGES:
        raise StepError(f"--images: at least {MIN_IMAGES}, of which each of 4 workers gets two batches")
    if not python:
        raise StepError("--training: name a Python that has torch, datasets and pillow with --python")
    check_imports(python, "torch", "datasets", "PIL")
    sizes = prepare_forms(work, images, python)
    results = in_turns(loaders(work, python), rounds)
    spaces = ", ".join(f"{size} pixels: {count / images / 1e3:,.0f} KB" for size, count in sizes.items())
    machine = described(python, "torch", "datasets", "pillow", "pyarrow")
    yield f"{images:,} images ({spaces} each); medians of {rounds} runs in turns; {machine}"
    yield ""
    yield from loader_table(results)


def prepare_forms(work: Path, images: int, python: str) -> dict[int, int]:
    """Writes all forms of the data at both sizes.

    Args:
        work: An empty folder; gets a subfolder for each size.
        images: How many to make.
        python: Runs the programs.

    Returns:
        Size of all images, by their width: bytes.
    """
    large, small = (work / str(size) for size in SIZES)
    sizes = {SIZE: make_release(large / "release", images)}
    make_forms(large / "release", large, -(-images // FILES))
    loose = large / "imagefolder" / "train"
    pack, convert = SCRIPTS / "pack_shards.py", SCRIPTS / "convert_to_parquet.py"
    measure(
        [python, pack, loose, loose / "metadata.csv", small / "release", "--size", str(SMALL)],
        work / "home",
    )
    sizes[SMALL] = make_forms(small / "release", small, -(-images // FILES))
    for size, folder in ((SIZE, large), (SMALL, small)):
        one_file = f"{int(sizes[size] * 1.1 / FILES / 1e3) + 100}KB"  # more than a FILES-th: images differ in size
        measure(
            [python, convert, folder / "release", folder / "parquet", "--no-figures", "--max-shard-size", one_file],
            work / "home",
        )
        measure([python, LOADERS, folder, "prepare", *[large] * (folder == small)], work / "home")
    return sizes


def loaders(work: Path, python: str) -> dict[str, Callable[..., Measurement]]:
    """Returns the runs of all loaders, one after the other, by the size of the images."""

    def method(size: int) -> Callable[..., Measurement]:
        functions = [function for function, sizes in ROWS.values() if size in sizes]
        workers = ",".join(map(str, WORKERS))
        return lambda: measure([python, LOADERS, work / str(size), workers, *functions], work / "home")

    return {str(size): method(size) for size in SIZES}


def loader_table(results: dict[str, list[Measurement]]) -> Iterator[str]:
    """Yields the lines of the table of loaders: images a second, and memory."""
    heads = [f"{size} pixels, {WORKERS[0]} workers | {' | '.join(map(str, WORKERS[1:]))} | memory" for size in SIZES]
    yield f"| read from | {' | '.join(heads)} |"
    yield "|---" * (1 + len(SIZES) * (len(WORKERS) + 1)) + "|"
    for name, (function, sizes) in ROWS.items():
        cells = [name]
        for size in SIZES:
            if size not in sizes:
                cells += [""] * (len(WORKERS) + 1)
                continue
            runs = [run.figures[function] for run in results[str(size)]]
            *speeds, memory = map(statistics.median, zip(*runs))
            cells += [*(f"{speed:,.0f}" for speed in speeds), f"{memory / 1e6:,.0f} MB"]
        yield f"| {' | '.join(cells)} |"
