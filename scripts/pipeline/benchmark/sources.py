"""Sources to benchmark with: the same images as one zip, as an imagefolder and as WebDataset tars."""

from __future__ import annotations

import io
import json
import random
import string
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

import synthchex_75k
from pipeline.jobs import WorkerPool, available_cpus
from pipeline.table import csv_bytes
from synthchex_75k import LABELS

SIZE = 512  # pixels
DIFFERENT = 300
DRAWN_TOGETHER = 16  # images
WORDS, WORDS_PER_PROMPT = 2000, 34  # random, so that they compress worse than those of reports
PHRASES = ("No focal consolidation.", "The heart is of ordinary size.", "Small effusion on the left.", "No edema.")


def make_sources(folder: Path, count: int) -> int:
    """Writes the sources.

    Args:
        folder: Gets a subfolder for each: `release`, `imagefolder`, `webdataset`.
        count: Number of images.

    Returns:
        Size of the images: bytes.
    """
    make_release(folder / "release", count)
    return make_forms(folder / "release", folder)


def make_release(release: Path, count: int) -> int:
    """Writes a source as one zip.

    Args:
        release: The folder to write.
        count: Number of images.

    Returns:
        Size of the images: bytes.
    """
    release.mkdir(parents=True)
    rng = random.Random(0)
    rows, size = [], 0
    with WorkerPool(available_cpus()) as pool, zipfile.ZipFile(release / "ALL_FILES.zip", "w") as archive:
        for png in tqdm(draw_all(pool, noise_png, count), "Drawing", count, unit="image"):
            name = random_name(rng)
            prompt = " ".join(rng.choices(PHRASES, k=rng.randint(2, 10)))
            labels = random_labels(rng)
            rows.append((name, prompt, labels))
            size += len(png)
            archive.writestr(name, png)
        archive.writestr("metadata.csv", csv_bytes([["img_savename", "annotated_prompt", "chexpert_labels"], *rows]))
    return size


def random_name(rng: random.Random) -> str:
    """Returns a file name of the form that the authors' have."""
    return f"SyntheticImg_{'-'.join(f'{rng.getrandbits(32):08x}' for _ in range(5))}.png"


def random_labels(rng: random.Random) -> dict[str, float | None]:
    """Returns raw labels, about as frequent as the authors' are."""
    return dict(zip(LABELS, rng.choices([None, 0.0, 1.0], [82, 5, 13], k=len(LABELS))))


def draw_all(pool: WorkerPool, draw: Callable[[int], bytes], count: int) -> Iterator[bytes]:
    """Draws images in several processes.

    Args:
        pool: The processes.
        draw: A function of a module, which returns a PNG for a number.
        count: Number of images.

    Yields:
        The PNGs of the numbers from 0 on.
    """
    jobs = [range(start, min(start + DRAWN_TOGETHER, count)) for start in range(0, count, DRAWN_TOGETHER)]
    drawn: dict[range, list[bytes]] = {}
    for numbers, images in pool.run(partial(_draw_each, draw), jobs, "Drawing"):
        drawn[numbers] = images  # in the order in which processes finish
        while jobs and jobs[0] in drawn:
            yield from drawn.pop(jobs.pop(0))


def _draw_each(draw: Callable[[int], bytes], numbers: range) -> list[bytes]:
    return [draw(number) for number in numbers]


def make_many_rows(release: Path, count: int, draw: Callable[[int], bytes]) -> None:
    """Writes a source as one zip, with prompts of random words, a view, a patient and a seed.

    Args:
        release: The folder to write.
        count: Number of images, of which at most `DIFFERENT` differ.
        draw: Returns a PNG for a number.
    """
    release.mkdir(parents=True)
    rng = random.Random(0)
    words = ["".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 9))) for _ in range(WORDS)]
    with WorkerPool(available_cpus()) as pool:
        images = [*draw_all(pool, draw, min(count, DIFFERENT))]
    rows: list[tuple] = [("img_savename", "annotated_prompt", "chexpert_labels", "view", "patient", "seed")]
    with zipfile.ZipFile(release / "ALL_FILES.zip", "w") as archive:
        for number in tqdm(range(count), "Packing", unit="image"):
            name = random_name(rng)
            labels = random_labels(rng)
            prompt = f"{' '.join(rng.choices(words, k=WORDS_PER_PROMPT))}. {PHRASES[number % len(PHRASES)]}"
            rows.append((name, prompt, labels, rng.choice(["PA", "AP"]), number // 3, rng.getrandbits(32)))
            archive.writestr(name, images[number % len(images)])
        archive.writestr("metadata.csv", csv_bytes(rows))


def make_forms(source: Path, folder: Path, images_per_tar: int = 1000) -> int:
    """Writes the images of a source as an imagefolder and as WebDataset tars.

    Args:
        source: The source.
        folder: Gets the subfolders `imagefolder` and `webdataset`.
        images_per_tar: The last tar may have fewer.

    Returns:
        Size of the images: bytes.
    """
    loose, tars = folder / "imagefolder" / "train", folder / "webdataset"
    for path in (loose, tars):
        path.mkdir(parents=True)
    plan = synthchex_75k.plan(str(source))
    flat: list[tuple] = [(row.filename, row.prompt, *(int(label == 1) for label in row.labels)) for row in plan]
    size = 0
    for example in synthchex_75k.examples(plan):
        size += loose.joinpath(example["filename"]).write_bytes(example["image"]["bytes"])
    loose.joinpath("metadata.csv").write_bytes(csv_bytes([["file_name", "prompt", *LABELS], *flat]))
    for start in range(0, len(flat), images_per_tar):
        with tarfile.open(tars / f"train-{start // images_per_tar:04}.tar", "w") as tar:
            for row in flat[start : start + images_per_tar]:
                tar.add(loose / row[0], row[0])
                text = json.dumps(dict(zip(["prompt", *LABELS], row[1:]))).encode()
                member = tarfile.TarInfo(row[0].replace(".png", ".json"))
                member.size = len(text)
                tar.addfile(member, io.BytesIO(text))
    return size


def small_png(seed: int) -> bytes:
    """Returns a grey PNG of 64 x 64 pixels."""
    png = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (16, 16), np.uint8)).resize((64, 64)).save(png, "PNG")
    return png.getvalue()


def noise_png(seed: int) -> bytes:
    """Returns a PNG of 512 x 512 pixels and the size of a real one, about 265 KB."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 255, (16, 16), dtype=np.uint8)).resize(
        (SIZE, SIZE), Image.Resampling.BICUBIC
    )
    grey = np.clip(np.asarray(coarse) + rng.normal(0, 3.2, (SIZE, SIZE)), 0, 255).astype(np.uint8)
    png = io.BytesIO()
    Image.fromarray(np.repeat(grey[:, :, None], 3, 2)).save(png, "PNG", compress_level=1)
    return png.getvalue()
