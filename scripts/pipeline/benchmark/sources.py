"""Sources to benchmark with: the same images as one zip, as an imagefolder and as WebDataset tars."""

from __future__ import annotations

import io
import json
import multiprocessing
import random
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from pipeline.table import csv_bytes
from synthchex_75k import LABELS

IMAGES_PER_TAR = 1000
PHRASES = ("No focal consolidation.", "The heart is of ordinary size.", "Small effusion on the left.", "No edema.")


def make_sources(folder: Path, count: int) -> int:
    """Writes the sources.

    Args:
        folder: Gets a subfolder for each: `release`, `imagefolder`, `webdataset`.
        count: Number of images.

    Returns:
        Size of the images: bytes.
    """
    release, loose, tars = (folder / name for name in ("release", "imagefolder", "webdataset"))
    for path in (release, loose / "train", tars):
        path.mkdir(parents=True)
    rng = random.Random(0)
    rows, size = [], 0
    with zipfile.ZipFile(release / "ALL_FILES.zip", "w") as archive, multiprocessing.Pool() as pool:
        for png in tqdm(pool.imap(noise_png, range(count), chunksize=16), "Drawing", count, unit="image"):
            name = f"SyntheticImg_{'-'.join(f'{rng.getrandbits(32):08x}' for _ in range(5))}.png"
            prompt = " ".join(rng.choices(PHRASES, k=rng.randint(2, 10)))
            labels = dict(zip(LABELS, rng.choices([None, 0.0, 1.0], [82, 5, 13], k=len(LABELS))))
            rows.append((name, prompt, labels))
            size += len(png)
            archive.writestr(name, png)
            (loose / "train" / name).write_bytes(png)
        archive.writestr("metadata.csv", csv_bytes([["img_savename", "annotated_prompt", "chexpert_labels"], *rows]))
    flat: list[tuple] = [
        (name, prompt, *(int(value == 1) for value in labels.values())) for name, prompt, labels in rows
    ]
    (loose / "train" / "metadata.csv").write_bytes(csv_bytes([["file_name", "prompt", *LABELS], *flat]))
    for start in range(0, count, IMAGES_PER_TAR):
        with tarfile.open(tars / f"train-{start // IMAGES_PER_TAR:04}.tar", "w") as tar:
            for row in flat[start : start + IMAGES_PER_TAR]:
                tar.add(loose / "train" / row[0], row[0])
                text = json.dumps(dict(zip(["prompt", *LABELS], row[1:]))).encode()
                member = tarfile.TarInfo(row[0].replace(".png", ".json"))
                member.size = len(text)
                tar.addfile(member, io.BytesIO(text))
    return size


def noise_png(seed: int) -> bytes:
    """Returns a PNG of 512x512 pixels and the size of a real one, about 265 KB."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 255, (16, 16), dtype=np.uint8)).resize(
        (512, 512), Image.Resampling.BICUBIC
    )
    grey = np.clip(np.asarray(coarse) + rng.normal(0, 3.2, (512, 512)), 0, 255).astype(np.uint8)
    png = io.BytesIO()
    Image.fromarray(np.repeat(grey[:, :, None], 3, 2)).save(png, "PNG", compress_level=1)
    return png.getvalue()
