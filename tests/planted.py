"""Sources of small gray images in which some labels can be seen."""

import io
from pathlib import Path

import numpy as np
import PIL.Image

from conftest import to_csv, to_files, to_zip
from synthchex_75k import LABELS

PIXELS = 48
SHOWN = ("Cardiomegaly", "Edema", "Pneumothorax")  # each as a square at a place of its own
PATIENTS = "patientID"
PER_PATIENT = 2


def write_planted(folder: Path, name: str, count: int, strength: float = 120, seed: int = 0, wrong: float = 0) -> Path:
    """Writes a source of images with patients.

    Of the labels that are not shown, all are 0, apart from `Fracture`, which is uncertain in each third image.

    Args:
        folder: Where the source will lie.
        name: Of the source; its files begin with it, and its patients.
        count: Number of images.
        strength: How much brighter a shown label makes its square.
        seed: Of everything that is drawn.
        wrong: Share of the images whose labels are drawn again after the image was.
    """
    random = np.random.default_rng(seed)
    images, table = {}, []
    for number in range(count):
        labels = random.random(len(SHOWN)) < 0.5
        pixels = random.normal(90, 30, (PIXELS, PIXELS))
        for place, shown in enumerate(labels):
            top = 3 + 12 * place
            pixels[top : top + 9, top : top + 9] += strength * shown
        if random.random() < wrong:
            labels = random.random(len(SHOWN)) < 0.5
        saved = io.BytesIO()
        PIL.Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(saved, "PNG")
        filename = f"{name}-{number:05d}.png"
        images[filename] = saved.getvalue()
        values = dict.fromkeys(LABELS, "0") | {label: str(int(on)) for label, on in zip(SHOWN, labels)}
        values["Fracture"] = "-1" if number % 3 == 0 else "0"
        patient = f"{name}-{number // PER_PATIENT}"
        table.append({"filename": filename, "prompt": f"Radiograph {filename}.", **values, PATIENTS: patient})
    source = folder / name
    to_files(source, {"metadata.csv": to_csv(table)})
    to_zip(source / "images-0.zip", images)
    return source
