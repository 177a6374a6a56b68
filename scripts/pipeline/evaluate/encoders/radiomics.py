"""Radiomic features, of pyradiomics with frd-score's configuration: those of the Fréchet Radiomic Distance."""

from __future__ import annotations

import copy
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import PIL.Image

from pipeline.errors import StepError, listing, one_line
from pipeline.evaluate.encoders.encoder import FEATURE, Outputs
from pipeline.imports import check_installed, import_optional
from pipeline.jobs import available_cpus
from pipeline.machine import device_name, memory_errors, versions_of

SIZE = 512  # pixels
NO_NUMBERS = (str, tuple, dict)  # diagnostics of these types are no features; the others are, such as the mean
GLCM = (
    *("Autocorrelation", "JointAverage", "ClusterProminence", "ClusterShade", "ClusterTendency", "Contrast"),
    *("Correlation", "DifferenceAverage", "DifferenceEntropy", "DifferenceVariance", "JointEnergy", "JointEntropy"),
    *("Imc1", "Imc2", "Idm", "Idmn", "Id", "Idn", "InverseVariance", "MaximumProbability", "SumEntropy", "SumSquares"),
)
# frd-score 1.0.1, extraction_2d.yaml
SETTINGS: dict[str, Any] = {
    "imageType": {"Original": {}, "LoG": {"sigma": [2.0, 3.0, 4.0, 5.0]}, "Wavelet": {}},
    "featureClass": {"firstorder": None, "glcm": [*GLCM], "glrlm": None, "glszm": None, "ngtdm": None},
    "setting": {
        "normalize": True,
        "normalizeScale": 100,
        "interpolator": "sitkBSpline",
        "resampledPixelSpacing": [2, 2, 0],
        "padDistance": 10,
        "preCrop": True,
        "force2D": True,
        "force2Ddimension": 0,
        "binWidth": 5,
        "voxelArrayShift": 300,
        "label": 1,
    },
}


class RadiomicsEncoder(NamedTuple):
    """See `Encoder`.

    Attributes:
        columns: Names of the features, in order, as frd-score has them.
    """

    columns: tuple[str, ...]
    name: str = "radiomics"
    uses_prompts: bool = False

    def describe(self) -> dict[str, Any]:
        """See `Encoder`."""
        return {
            "model": "frd-score 1.0.1, two dimensions",
            "revision": None,
            "preprocessing": {
                "backend": "pillow, then pyradiomics",
                "colour": "grey (ITU-R 601), 8 bits",
                "crop": "square in the centre",
                "size": [SIZE, SIZE],
                "resampling": "bicubic, with antialiasing",
                "mask": "all pixels but the first",
                "settings": SETTINGS,
                "image_types_without_features": _types_without_features(self.columns),
            },
            "output": f"{FEATURE}: {len(self.columns)} features by name, the numbers of pyradiomics' diagnostics first",
            "dtype": "float32",
            "versions": versions_of("pyradiomics", "SimpleITK", "PyWavelets", "numpy", "pillow"),
            "classes": {FEATURE: [*self.columns]},
        }

    def load(self) -> RadiomicsModel:
        """See `Encoder`."""
        return RadiomicsModel(self.columns)


class RadiomicsModel:
    """See `EncoderModel`; the images of a batch are encoded by threads, one for each CPU or OMP_NUM_THREADS.

    Args:
        columns: Names of the features that each image must have.

    Raises:
        StepError: A package is missing.
    """

    def __init__(self, columns: tuple[str, ...]) -> None:
        self._extractor, self._columns = _Extractor(), columns
        wanted = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]  # which Ray sets for its workers
        self._threads = int(wanted) if wanted.isdigit() and int(wanted) else available_cpus()
        self.device = device_name("cpu")

    def encode(self, images: list[PIL.Image.Image], prompts: list[str]) -> Outputs:
        """See `EncoderModel`.

        Raises:
            ValueError: An image has no such features, for it has one grey value only; or one of them is no number.
        """
        with memory_errors(), ThreadPoolExecutor(self._threads) as threads:
            return {FEATURE: np.stack([*threads.map(self._row, range(1, len(images) + 1), images)])}

    def _row(self, number: int, image: PIL.Image.Image) -> np.ndarray:
        try:
            return self._features(image)
        except MemoryError:
            raise
        except Exception as error:  # pyradiomics may raise anything
            raise ValueError(f"image {number} of its batch: {one_line(error)}") from error

    def _features(self, image: PIL.Image.Image) -> np.ndarray:
        values = self._extractor.features(image)
        if tuple(values) != self._columns:
            different = sorted({*values} ^ {*self._columns})
            raise ValueError(f"it has not the features of other images: {listing(different)}")
        row = np.array([*values.values()], np.float32)
        if not np.isfinite(row).all():
            names = [name for name, value in zip(self._columns, row) if not np.isfinite(value)]
            raise ValueError(f"these features are no numbers: {listing(names)}")
        return row


def resolve_radiomics(model: str | None, revision: str | None) -> RadiomicsEncoder:
    """Returns the encoder `radiomics`.

    Its columns are what pyradiomics returns for an image of noise: some image types, such as LoG, give no features in
    two dimensions, and pyradiomics says so only in its log.

    Args:
        model: None; it has no weights.
        revision: None.

    Raises:
        StepError: A package is missing.
    """
    if model or revision:
        raise StepError("--encoder radiomics has no weights: leave out --model and --revision")
    check_installed("radiomics")
    noise = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE)).astype(np.uint8)
    return RadiomicsEncoder(tuple(_Extractor().features(PIL.Image.fromarray(noise))))


class _Extractor:
    """The extractor of pyradiomics, with frd-score's configuration; it can be called from several threads."""

    def __init__(self) -> None:
        self._sitk = import_optional("SimpleITK")
        self._sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)  # threads of its own would make it slower
        library = import_optional("radiomics")
        library.setVerbosity(logging.CRITICAL + 1)  # it warns of each image that LoG gives no features
        features = import_optional("radiomics.featureextractor")
        self._extractor = features.RadiomicsFeatureExtractor(copy.deepcopy(SETTINGS))

    def features(self, image: PIL.Image.Image) -> dict[str, float]:
        """Returns the features of an image by name, as frd-score does: numbers of the diagnostics among them."""
        pixels = _grey_square(image)
        if pixels.min() == pixels.max():
            raise ValueError("it has one grey value only, and so no radiomic features")
        mask = np.ones_like(pixels, np.uint8)
        mask[0, 0] = 0  # of a mask of all pixels pyradiomics finds no edge
        found = self._extractor.execute(*(self._sitk.GetImageFromArray(array[None]) for array in (pixels, mask)))
        return {_short(name): float(value) for name, value in found.items() if not isinstance(value, NO_NUMBERS)}


def _grey_square(image: PIL.Image.Image) -> np.ndarray:
    """Returns the square in the centre of an image, in grey, of SIZE pixels a side."""
    side, (width, height) = min(image.size), image.size
    left, top = (width - side) // 2, (height - side) // 2
    square = image.convert("L").crop((left, top, left + side, top + side))
    return np.asarray(square.resize((SIZE, SIZE), PIL.Image.Resampling.BICUBIC), np.float32)


def _short(name: str) -> str:
    return name if name.startswith("diagnostics_") else name.replace("original_", "")


def _types_without_features(columns: tuple[str, ...]) -> list[str]:
    """Returns the image types of SETTINGS of which there is no column."""
    beginnings = {"LoG": "log-", "Wavelet": "wavelet-"}
    return [name for name, start in beginnings.items() if not any(column.startswith(start) for column in columns)]
