# /// script
# requires-python = ">=3.10"
# dependencies = ["numpy", "pillow", "psutil", "tqdm"]
# ///
"""Measures the converter beside what its users would use instead, and how fast the results are read.

    uv run scripts/benchmark.py [--images 4000] [--num-proc N]

It makes a source of images that differ, of the size of the real ones, and environments for the peers, all in a folder
that it removes at the end. Then it measures in turns, several times each, and prints Markdown tables of medians. A
conversion has ended when its bytes are on the disk. Sources are in the page cache. Memory is that of all processes,
pages that they share counted once (PSS), in a run of its own, for to watch it takes time.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import multiprocessing
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
from PIL import Image
from tqdm import tqdm

HERE = Path(__file__).resolve().parent
LABELS = (
    *("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum", "Fracture"),
    *("Lung Lesion", "Lung Opacity", "No Finding", "Pleural Effusion", "Pleural Other", "Pneumonia"),
    *("Pneumothorax", "Support Devices"),
)
ENVIRONMENTS = {  # by name: what uv installs
    "3.6.0": ["datasets==3.6.0", "pillow"],
    "newest": ["datasets", "pillow", "duckdb"],
}
IMAGES_A_TAR = 1000
PHRASES = ("No focal consolidation.", "The heart is of ordinary size.", "Small effusion on the left.", "No edema.")


class Measurement(NamedTuple):
    """One run of a command: seconds, or bytes of memory; to watch the memory takes time."""

    seconds: float
    memory: int
    output: str


# The sources: the same images in each form


def make_sources(folder: Path, count: int) -> int:
    """Writes the images as one zip, as an imagefolder and as WebDataset tars.

    Args:
        folder: Where.
        count: How many images.

    Returns:
        The images' size: bytes.
    """
    release, loose, tars = (folder / name for name in ("release", "imagefolder", "webdataset"))
    for path in (release, loose / "train", tars):
        path.mkdir(parents=True)
    rng = random.Random(0)
    rows, size = [], 0
    with zipfile.ZipFile(release / "ALL_FILES.zip", "w") as archive, multiprocessing.Pool() as pool:
        for png in tqdm(pool.imap(draw, range(count), chunksize=16), "Drawing", count, unit="image"):
            name = f"SyntheticImg_{'-'.join(f'{rng.getrandbits(32):08x}' for _ in range(5))}.png"
            prompt = " ".join(rng.choices(PHRASES, k=rng.randint(2, 10)))
            labels = dict(zip(LABELS, rng.choices([None, 0.0, 1.0], [82, 5, 13], k=len(LABELS))))
            rows.append((name, prompt, labels))
            size += len(png)
            archive.writestr(name, png)
            (loose / "train" / name).write_bytes(png)
        archive.writestr("metadata.csv", to_csv(["img_savename", "annotated_prompt", "chexpert_labels"], rows))
    flat: list[tuple] = [
        (name, prompt, *(int(value == 1) for value in labels.values())) for name, prompt, labels in rows
    ]
    (loose / "train" / "metadata.csv").write_bytes(to_csv(["file_name", "prompt", *LABELS], flat))
    for start in range(0, count, IMAGES_A_TAR):
        with tarfile.open(tars / f"train-{start // IMAGES_A_TAR:04}.tar", "w") as tar:
            for row in flat[start : start + IMAGES_A_TAR]:
                tar.add(loose / "train" / row[0], row[0])
                text = json.dumps(dict(zip(["prompt", *LABELS], row[1:]))).encode()
                member = tarfile.TarInfo(row[0].replace(".png", ".json"))
                member.size = len(text)
                tar.addfile(member, io.BytesIO(text))
    return size


def draw(seed: int) -> bytes:
    """Draws a picture of 512x512 whose PNG has the size of a real one, about 265 KB."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 255, (16, 16), dtype=np.uint8)).resize(
        (512, 512), Image.Resampling.BICUBIC
    )
    grey = np.clip(np.asarray(coarse) + rng.normal(0, 3.2, (512, 512)), 0, 255).astype(np.uint8)
    png = io.BytesIO()
    Image.fromarray(np.repeat(grey[:, :, None], 3, 2)).save(png, "PNG", compress_level=1)
    return png.getvalue()


def to_csv(header: list[str], rows: list[tuple]) -> bytes:
    """Writes a CSV."""
    text = io.StringIO()
    csv.writer(text).writerows([header, *rows])
    return text.getvalue().encode()


# Measuring


def make_environment(folder: Path, packages: list[str]) -> str:
    """Makes a virtual environment with uv and returns its Python."""
    subprocess.run(["uv", "venv", "--quiet", "--python", sys.executable, folder], check=True)
    python = str(folder / "bin" / "python")
    subprocess.run(["uv", "pip", "install", "--quiet", "--compile-bytecode", "--python", python, *packages], check=True)
    return python


def measure(command: list[str | Path], home: Path, watch_memory: bool = False) -> Measurement:
    """Runs a command until what it wrote is on the disk.

    Args:
        command: Program and arguments.
        home: Folder for the caches of `datasets`; emptied before.
        watch_memory: Whether to measure memory, and not time.
    """
    shutil.rmtree(home, ignore_errors=True)
    os.sync()  # what others wrote is not to be waited for here
    environment = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    start, memory = time.monotonic(), 0
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen([str(word) for word in command], stdout=said, stderr=said, env=environment)
        while watch_memory and process.poll() is None:
            memory = max(memory, used_memory(process.pid))
            time.sleep(0.05)
        process.wait()
        os.sync()
        seconds = time.monotonic() - start
        said.seek(0)
        output = said.read()
    if process.returncode:
        raise SystemExit(f"{command} failed:\n{output}")
    return Measurement(seconds, memory, output)


def used_memory(pid: int) -> int:
    """Returns the memory of a process and those that it started, shared pages counted once: bytes."""
    total = 0
    try:
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            total += process.memory_full_info().pss
    except psutil.Error:  # one has just ended
        pass
    return total


def in_turns(roads: dict[str, Callable[..., Measurement]], rounds: int) -> dict[str, list[Measurement]]:
    """Measures each, then each again, so that all share what the machine does meanwhile."""
    results: dict[str, list[Measurement]] = {name: [] for name in roads}
    turns = [name for _ in range(rounds) for name in roads]
    for name in (bar := tqdm(turns, unit="run")):
        bar.set_description(name)
        results[name].append(roads[name]())
    return results


# What is measured


def conversions(work: Path, pythons: dict[str, str], num_proc: int) -> dict[str, Callable[..., Measurement]]:
    """Returns what converts the source, by name."""

    def road(*command: str | Path) -> Callable[..., Measurement]:
        def run(watch_memory: bool = False) -> Measurement:
            shutil.rmtree(work / "output", ignore_errors=True)
            return measure([*command], work / "home", watch_memory)

        return run

    release, folder, output = work / "release", work / "imagefolder", work / "output"
    ours: list[str | Path] = [
        pythons["newest"],
        HERE / "convert_to_parquet.py",
        release,
        output,
        "--no-figures",
        "--num-proc",
    ]
    peers = HERE / "_benchmark_peers.py"
    return {
        f"convert_to_parquet.py, {num_proc} processes": road(*ours, str(num_proc)),
        "convert_to_parquet.py, 1 process": road(*ours, "1"),
        "`load_dataset` of the script + `to_parquet`, `datasets` 3.6.0": road(
            pythons["3.6.0"], peers, "convert_script", release, output
        ),
        "`imagefolder` + `to_parquet`, newest `datasets`": road(
            pythons["newest"], peers, "convert_imagefolder", folder, output
        ),
        "`cp -r`": road("cp", "-r", release, output),
        "`import datasets`, with which all but `cp` begin": road(pythons["newest"], "-c", "import datasets"),
    }


def readings(work: Path, pythons: dict[str, str]) -> dict[str, Callable[[], Measurement]]:
    """Returns what reads the data back, by what and how."""
    forms = {
        "Parquet": "parquet",
        "script, 3.6.0": "release",
        "`imagefolder`": "imagefolder",
        "WebDataset": "webdataset",
    }
    peers = HERE / "_benchmark_peers.py"

    def road(form: str, folder: str, how: str) -> Callable[[], Measurement]:
        python = pythons["3.6.0" if folder == "release" else "newest"]
        return lambda: measure([python, peers, how, work / folder], work / "home")

    hows = ("decode_all", "first_row", "query_labels", "read_page")
    return {f"{form} {how}": road(form, folder, how) for how in hows for form, folder in forms.items()}


# The tables


def conversion_table(results: dict[str, list[Measurement]], memory: dict[str, int], size: int) -> Iterator[str]:
    """Yields the lines of the table of conversions."""
    yield "| road | time | MB/s | peak memory | time, as a multiple of the first |"
    yield "|---|---|---|---|---|"
    medians = {name: statistics.median(run.seconds for run in runs) for name, runs in results.items()}
    first = next(iter(medians.values()))
    for name, seconds in medians.items():
        speed, peak = size / 1e6 / seconds, memory[name] / 1e6
        yield f"| {name} | {seconds:.1f} s | {speed:,.0f} | {peak:,.0f} MB | {seconds / first:.2f} |"


def reading_table(results: dict[str, list[Measurement]]) -> Iterator[str]:
    """Yields the lines of the table of readings."""
    yield "| form | full decoded pass | first row, streaming | labels of all rows | bytes read for 100 rows |"
    yield "|---|---|---|---|---|"
    forms = dict.fromkeys(name.rpartition(" ")[0] for name in results)
    for form in forms:
        decode, first, query, page = (
            statistics.median(json.loads(run.output.splitlines()[-1]) for run in results[f"{form} {how}"])
            for how in ("decode_all", "first_row", "query_labels", "read_page")
        )
        yield f"| {form} | {decode:,.0f} rows/s | {first:.2f} s | {query * 1e3:,.0f} ms | {page / 1e6:,.1f} MB |"


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4000, help="of 265 KB each; the disk must hold eight times that")
    parser.add_argument("--num-proc", type=int, default=os.cpu_count(), help="of the converter; default: all cores")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured")
    parser.add_argument("--conversions-only", action="store_true", help="leave out reading back, which takes longer")
    parser.add_argument(
        "--work-dir", type=Path, help="where to make a folder; default: where the system has temporary files"
    )
    options = parser.parse_args()
    if options.images < 400:
        parser.error("--images: at least 400, so that there is a page of 100 rows to read")
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=options.work_dir) as name:
        work = Path(name)
        pythons = {name: make_environment(work / "env" / name, packages) for name, packages in ENVIRONMENTS.items()}
        size = make_sources(work, options.images)
        roads = conversions(work, pythons, options.num_proc)
        memory = {name: run(watch_memory=True).memory for name, run in roads.items()}
        converted = in_turns(roads, options.rounds)
        read: dict[str, list[Measurement]] = {}
        if not options.conversions_only:
            convert: list[str | Path] = [
                pythons["newest"],
                HERE / "convert_to_parquet.py",
                "--no-figures",
                work / "release",
                work / "parquet",
            ]
            measure(convert, work / "home")
            read = in_turns(readings(work, pythons), options.rounds)
        versions = subprocess.run(
            [pythons["newest"], "-c", "import datasets, pyarrow; print(datasets.__version__, pyarrow.__version__)"],
            capture_output=True, text=True, check=True,
        ).stdout.split()  # fmt: skip
    print(
        f"{options.images:,} images, {size / 1e6:,.0f} MB; medians of {options.rounds} runs; {os.cpu_count()} cores, "
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB, {platform.system()}, Python {platform.python_version()}, "
        f"datasets {versions[0]}, pyarrow {versions[1]}\n"
    )
    print("\n".join([*conversion_table(converted, memory, size), "", *(reading_table(read) if read else [])]))


if __name__ == "__main__":
    main()
