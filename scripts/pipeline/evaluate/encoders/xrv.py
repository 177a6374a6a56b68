"""DenseNet-121 of TorchXRayVision, trained on radiographs of eight collections: features, and 18 pathologies."""

from __future__ import annotations

import contextlib
import pickle
import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL.Image

from pipeline.checkpoint import Checkpoint
from pipeline.errors import StepError
from pipeline.evaluate.encoders.encoder import FEATURE
from pipeline.evaluate.encoders.torch_model import TorchModel
from pipeline.evaluate.encoders.weights import pin_weights_file, read_tensors
from pipeline.imports import check_installed, import_optional
from pipeline.machine import versions_of

PACKAGES = ("torchxrayvision", "torchvision", "torch")
WEIGHTS = "densenet121-res224-all"
SIZE = 224  # pixels
PATHOLOGIES = "pathologies"  # the output
# Its columns, in order; checked against the package's own list when the model is loaded.
PATHOLOGY_NAMES = (
    *("Atelectasis", "Consolidation", "Infiltration", "Pneumothorax", "Edema", "Emphysema", "Fibrosis", "Effusion"),
    *("Pneumonia", "Pleural_Thickening", "Cardiomegaly", "Nodule", "Mass", "Hernia", "Lung Lesion", "Fracture"),
    *("Lung Opacity", "Enlarged Cardiomediastinum"),
)
# By label of this dataset: the pathology that is the same finding. The network knows nothing of `No Finding` and
# `Support Devices`; `Pleural Other` is more than `Pleural_Thickening`.
XRV_LABELS: dict[str, str] = {
    "Atelectasis": "Atelectasis",
    "Cardiomegaly": "Cardiomegaly",
    "Consolidation": "Consolidation",
    "Edema": "Edema",
    "Enlarged Cardiomediastinum": "Enlarged Cardiomediastinum",
    "Fracture": "Fracture",
    "Lung Lesion": "Lung Lesion",
    "Lung Opacity": "Lung Opacity",
    "Pleural Effusion": "Effusion",
    "Pneumonia": "Pneumonia",
    "Pneumothorax": "Pneumothorax",
}
# What the pickle of a whole network may name: parts of tensors; and, without effect since `_Layer` takes their place,
# layers, and arrays that were kept beside them.
TENSOR_PARTS = {
    *(("torch._utils", f"_rebuild_{part}") for part in ("tensor", "tensor_v2", "parameter")),
    *(("collections", "OrderedDict"), ("builtins", "set"), ("__builtin__", "set")),
}
INERT = ("torch.nn.", "numpy", "_codecs")
LAYERS = {"DenseNet", "_DenseBlock", "_DenseLayer", "_Transition"}


class XrvEncoder(NamedTuple):
    """See `Encoder`; the weights are a file, pinned."""

    checkpoint: Checkpoint
    name: str = "xrv"
    uses_prompts: bool = False

    def describe(self) -> dict[str, Any]:
        """See `Encoder`."""
        weights = self.checkpoint.describe()
        return {
            "model": weights.pop("name"),
            **weights,
            "preprocessing": {
                "backend": "torchxrayvision with scikit-image",
                "colour": "the first channel, 0 to 255 scaled to -1024 to 1024",
                "crop": "square in the centre",
                "size": [SIZE, SIZE],
                "resampling": "XRayResizer: bilinear, with antialiasing",
            },
            "output": f"{FEATURE}: the last dense block after batch norm and ReLU, averaged over the image "
            f"(features2, 1024); {PATHOLOGIES}: the classifier's logits, neither sigmoid nor calibrated to operating "
            "points, which keep their order",
            "dtype": "float32",
            "versions": versions_of("torch", "torchxrayvision", "scikit-image", "scipy"),
            "classes": {PATHOLOGIES: [*PATHOLOGY_NAMES]},
        }

    def load(self) -> XrvModel:
        """See `Encoder`."""
        return XrvModel(self.name, self.checkpoint)


class XrvModel(TorchModel):
    """DenseNet-121 in this process; see `TorchModel`."""

    def build(self) -> None:
        """See `TorchModel`."""
        self._library = _import_library()
        network = self._library.models.DenseNet()
        tensors = _tensors_of_network(Path(self.checkpoint.name))
        tensors.pop("op_threshs", None)  # thresholds of calibration, which some files have
        network.load_state_dict(tensors)
        if tuple(network.targets) != PATHOLOGY_NAMES:
            raise StepError("this version of torchxrayvision has other pathologies: pip install torchxrayvision==1.5.7")
        self._network = self.ready(network)

    def compute(self, images: list[PIL.Image.Image], prompts: list[str]) -> dict[str, Any]:
        """See `TorchModel`."""
        feature, logits = self.apply(self._see, [self._prepare(image) for image in images])
        return {FEATURE: feature, PATHOLOGIES: logits}

    def _see(self, pixels: Any) -> tuple[Any, Any]:
        feature = self._network.features2(pixels)
        return feature, self._network.classifier(feature)

    def _prepare(self, image: PIL.Image.Image) -> np.ndarray:
        """Returns an image as the package's readers and transformations do, of shape (1, 224, 224)."""
        pixels = self._library.utils.normalize(np.asarray(image), 255, reshape=True)
        square = self._library.datasets.XRayCenterCrop()(pixels)
        return np.asarray(self._library.datasets.XRayResizer(SIZE)(square), np.float32)


def resolve_xrv(model: str | None, revision: str | None) -> XrvEncoder:
    """Returns the encoder `xrv`, with its weights pinned.

    Args:
        model: File of the weights of `densenet121-res224-all`: a state dict, or the whole network as the authors saved
            it. Default: TorchXRayVision's own, in its cache or downloaded to it.
        revision: None; a file has none.

    Raises:
        StepError: A package is missing, or the file is.
    """
    check_installed(*PACKAGES)
    return XrvEncoder(pin_weights_file(model, revision, _own_weights))


def _own_weights() -> Path:
    """Returns TorchXRayVision's own file in its cache, which is downloaded if it is not there."""
    library = _import_library()
    with contextlib.redirect_stdout(sys.stderr):
        return Path(library.models.get_weights(WEIGHTS))


def _import_library() -> Any:
    """Imports torchxrayvision, which turns all warnings off, and leaves them on."""
    with warnings.catch_warnings():
        return import_optional("torchxrayvision")


def _tensors_of_network(path: Path) -> dict[str, Any]:
    """Returns the tensors by name of a state dict, or of a whole network, as the authors save theirs.

    Raises:
        pickle.UnpicklingError: It names something that is neither a tensor nor a layer.
        Exception: Whatever torch raises for a damaged file.
    """
    try:
        return read_tensors(path)
    except pickle.UnpicklingError:
        torch = import_optional("torch")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the source code of a layer has changed
            # `weights_only` takes no whole networks of before torch 1.6; this unpickler allows less than it does.
            found = torch.load(path, "cpu", pickle_module=_TENSORS_ONLY, weights_only=False)
        if isinstance(found, _Layer):
            return dict(found.tensors())
        raise


class _Layer:
    """Takes the place of every class and function of a pickled network: it keeps its state and runs nothing."""

    dump_patches = False  # torch asks each class of a pickled network whether to write its changes to a file

    def __init__(self, *_: Any) -> None:
        self._state: dict[str, Any] = {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._state = state

    def tensors(self, prefix: str = "") -> Iterator[tuple[str, Any]]:
        """Yields the tensors by name, as a state dict has them."""
        for kind in ("_parameters", "_buffers"):
            for name, tensor in self._state.get(kind, {}).items():
                if tensor is not None:
                    yield f"{prefix}{name}", tensor
        for name, layer in self._state.get("_modules", {}).items():
            yield from layer.tensors(f"{prefix}{name}.")


class _TensorsUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in TENSOR_PARTS:
            return super().find_class(module, name)
        if module.startswith(INERT) or name in LAYERS:
            return _Layer
        raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")  # as torch says it


_TENSORS_ONLY = types.SimpleNamespace(
    __name__="tensors_only",
    Unpickler=_TensorsUnpickler,
    load=lambda file, **options: _TensorsUnpickler(file, **options).load(),
)
