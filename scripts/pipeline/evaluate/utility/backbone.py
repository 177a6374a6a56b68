"""Classifiers that are fine-tuned on the images of each setting: any network of `timm`."""

from __future__ import annotations

import contextlib
import datetime
import difflib
import hashlib
import io
import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.checkpoint import Checkpoint
from pipeline.errors import StepError, describe_error
from pipeline.evaluate.features import fingerprint_of
from pipeline.evaluate.settings import Example, Split
from pipeline.evaluate.utility.classifier import Scores
from pipeline.evaluate.utility.decoded import ABOUT, DecodedImages, image_identity
from pipeline.evaluate.utility.training import MAX_NORM, WARM_UP, WEIGHT_DECAY, Labelled, Recipe, Trainer
from pipeline.files import TEMPORARY, atomic_write, remove
from pipeline.imports import check_installed, import_optional
from pipeline.lock import FolderLock
from pipeline.machine import OutOfMemoryError, device_name, memory_errors, versions_of
from pipeline.progress import silence, write_line
from synthchex_75k import LABELS, printable

RANDOM = "random"  # of --weights
PRECISIONS = ("auto", "bf16", "fp32")
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # names of files in a folder or on the Hub
PACKAGES = ("torch", "torchvision", "timm", "accelerate")
IMAGES = "images"  # folder of decoded images
PATIENCE = datetime.timedelta(days=1)  # of processes that wait while the first one decodes images


class Backbone:
    """A network of `timm`, fine-tuned once for each setting and seed.

    Under `torchrun` or `accelerate launch`, each process has one of these and calls the same methods; the first process
    alone writes.

    Args:
        name: Name in `timm`, such as `resnet50`.
        folder: For decoded images, checkpoints and the scores of finished runs, which another run reuses; created if
            needed. It may be removed when no run is to be resumed.
        weights: First weights: a file or folder, a name on the Hub, or `RANDOM`. Default: those of `timm` on the Hub.
        revision: Commit, branch or tag of weights on the Hub. Default: main.
        epochs: How often the images of setting `real` are seen; the other settings take as many steps.
        batch_size: Images of a step, over all processes.
        learning_rate: The highest.
        image_size: Width and height: pixels. Default: those that the network was trained with.
        horizontal_flips: Mirror a half of the training images, with heart and stomach on the wrong side.
        precision: One of `PRECISIONS`; `"auto"` is bf16 on a GPU that has it.

    Raises:
        StepError: A package is missing, there is no such network, or the weights are not of it.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        weights: str | None = None,
        revision: str | None = None,
        epochs: int = 10,
        batch_size: int = 64,
        learning_rate: float = 1e-4,
        image_size: int | None = None,
        horizontal_flips: bool = False,
        precision: str = "auto",
    ) -> None:
        if not learning_rate > 0:
            raise StepError(f"--learning-rate {learning_rate:g} is not positive")
        check_installed("timm", "torch", "accelerate")
        self._timm, self._torch = import_optional("timm"), import_optional("torch")
        self.name, self._folder = name, folder
        self._epochs, self._batch_size, self._learning_rate = epochs, batch_size, learning_rate
        self._flips, self._precision = horizontal_flips, _resolve_precision(self._torch, precision)
        self._config = self._registered()
        self._checkpoint = self._resolve_weights(weights, revision)
        self._file = _weights_file(self._checkpoint, self._config.hf_hub_filename) if self._checkpoint else None
        self._size = image_size or self._config.input_size[-1]
        network = self._network(0)
        self._check_weights(network)
        self._check_size(network)
        data = import_optional("timm.data").resolve_model_data_config(network)
        self._mean, self._std, self._interpolation = data["mean"], data["std"], data["interpolation"]
        self._images = DecodedImages(folder / IMAGES, self._size, self._interpolation)
        self._accelerator = self._start()

    @property
    def is_main(self) -> bool:
        """True in the process that writes files."""
        return bool(self._accelerator.is_main_process)

    def describe(self) -> dict[str, Any]:
        """Returns all that decides the scores beside the images and the seed."""
        return {
            "backbone": self.name,
            "weights": self._checkpoint.describe() if self._checkpoint else RANDOM,
            "epochs": self._epochs,
            "batch_size": self._batch_size,
            "learning_rate": self._learning_rate,
            "schedule": f"AdamW, linear warm-up in {WARM_UP:.0%} of the steps, then cosine to 0",
            "weight_decay": WEIGHT_DECAY,
            "gradient_norm": MAX_NORM,
            "best_by": "macro AUROC of the validation images, after each epoch of setting real",
            "images": ABOUT,
            "image_size": self._size,
            "interpolation": self._interpolation,
            "mean": [*self._mean],
            "std": [*self._std],
            "horizontal_flips": self._flips,
            "precision": self._precision,
            **self._where(),
        }

    def scores(self, split: Split) -> Scores:
        """Trains on a split, or returns what an earlier run with the same options found.

        Args:
            split: The images.

        Returns:
            Outputs of the network; NaN for labels of which the training images are all positive or all negative.

        Raises:
            SourceError: An image is damaged.
            StepError: The network cannot be trained, or a file cannot be used.
            OSError: A file cannot be read or written.
        """
        per_epoch = math.ceil(split.real_images / self._batch_size)
        recipe = Recipe(
            self._epochs * per_epoch, self._batch_size, self._learning_rate, per_epoch, self._flips, split.seed
        )
        decided_by = self._decisive(split, recipe)
        path = self._folder / f"{split.setting}-{split.seed}-{fingerprint_of(decided_by)[:16]}"
        finished, checkpoint = path.with_suffix(".npz"), path.with_suffix(".pt")
        # The first process decides: another machine may see a file later.
        if import_optional("accelerate.utils").broadcast_object_list([finished.exists()])[0]:
            return _read_scores(finished)
        with self._lock(), _deterministic(self._torch):
            self._decode(split)
            found, history = self._train(split, recipe, checkpoint)
            if self.is_main:
                _write_scores(finished, found, {"decided_by": decided_by, **self._where(), "validations": history})
                remove([checkpoint])
        return found

    def _train(self, split: Split, recipe: Recipe, checkpoint: Path) -> tuple[Scores, list[dict[str, float]]]:
        data = [self._labelled(part) for part in (split.train, split.validation, split.test)]
        unknown = ~_have_both(data[0].targets)  # labels that cannot be learnt
        data[1].targets[:, unknown] = np.nan
        _check_validation(split, data[1].targets)
        title = f"{split.setting}, seed {split.seed}"
        network = self._network(split.seed)
        try:
            with memory_errors():
                trainer = Trainer(self._accelerator, network, self._mean, self._std, recipe)
                history = trainer.train(data[0], data[1], checkpoint, title)
                found = Scores(*(trainer.score(part) for part in data[1:]))
        except OutOfMemoryError as error:
            share = self._batch_size // self._accelerator.num_processes
            raise StepError(
                f"out of memory with {share} images of {self._size} pixels at once ({error}); choose a smaller "
                "--batch-size, and --learning-rate in proportion, or a smaller --image-size, or share the batch among "
                "more GPUs"
            ) from None
        except (StepError, OSError):
            raise
        except Exception as error:  # any network may raise anything
            raise StepError(f"--backbone {self.name}, {title}: {describe_error(error, with_place=True)}") from error
        finally:
            self._accelerator.free_memory()
        best = max(history, key=lambda one: one.auroc)
        if self.is_main:
            write_line(f"{title}: validation AUROC {best.auroc:.4f} at step {best.step:,} of {recipe.steps:,}")
        for scores in found:
            scores[:, unknown] = np.nan
        return found, [one._asdict() for one in history]

    def _where(self) -> dict[str, Any]:
        return {
            "device": device_name(self._accelerator.device.type),
            "processes": self._accelerator.num_processes,
        }

    def _labelled(self, examples: Sequence[Example]) -> Labelled:
        targets = np.stack([one.targets for one in examples]).astype(np.float32)
        return Labelled(self._images, self._images.places([one.row for one in examples]), targets)

    def _decode(self, split: Split) -> None:
        """Decodes the images of a split in the first process, for which the others wait."""
        if self.is_main:
            self._images.add(one.row for part in (split.train, split.validation, split.test) for one in part)
        self._accelerator.wait_for_everyone()
        self._images.refresh()

    def _decisive(self, split: Split, recipe: Recipe) -> dict[str, Any]:
        """Returns all that decides the scores of a run, apart from rounding on other hardware."""
        described = {key: value for key, value in self.describe().items() if key not in self._where()}
        return {
            **described,
            "versions": versions_of(*PACKAGES),
            "setting": split.setting,
            "steps": recipe.steps,
            "validate_every": recipe.validate_every,
            "seed": recipe.seed,
            "train": _hash(split.train),
            "validation": _hash(split.validation),
            "test": _hash(split.test),
        }

    def _registered(self) -> Any:
        """Returns what `timm` knows of the network."""
        if not self._timm.is_model(self.name):
            near = difflib.get_close_matches(self.name, self._timm.list_models(), n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else "timm.list_models() lists all"
            raise StepError(f"--backbone {printable(self.name)}: timm has no such model; {hint}")
        try:
            return self._timm.get_pretrained_cfg(self.name, allow_unregistered=False)
        except RuntimeError as error:
            raise StepError(f"--backbone {printable(self.name)}: {describe_error(error)}") from error

    def _resolve_weights(self, weights: str | None, revision: str | None) -> Checkpoint | None:
        if weights == RANDOM:
            return None
        name = weights or self._config.hf_hub_id
        if not name:
            raise StepError(f"--backbone {self.name} has no weights on the Hub; name a file with --weights")
        try:
            return Checkpoint(name, revision).pin()
        except StepError as error:
            raise StepError(f"--weights: {error}; name a file or folder, or --weights {RANDOM}") from error

    def _network(self, seed: int, pretrained: bool = True) -> Any:
        """Returns the network with its first weights; those of the last layer are drawn."""
        self._torch.manual_seed(seed)
        size = {"img_size": self._size} if self._config.fixed_input_size else {}
        try:
            overlay = {"state_dict": self._read_weights()} if self._file and pretrained else {}
            network = self._timm.create_model(
                self.name, pretrained=bool(overlay), pretrained_cfg_overlay=overlay, num_classes=len(LABELS), **size
            )
            network.pretrained_cfg.pop("state_dict", None)  # which takes memory
            return network
        except Exception as error:  # each network has errors of its own
            raise StepError(f"--backbone {self.name} cannot be loaded: {describe_error(error)}") from error

    def _read_weights(self) -> dict[str, Any]:
        read = import_optional("timm.models").load_state_dict
        return dict(read(str(self._file), weights_only=True))  # what a file could execute is refused

    def _check_weights(self, network: Any) -> None:
        """Checks that the weights are of this network: `timm` skips those with other names in silence."""
        if not self._file:
            return
        head = network.pretrained_cfg["classifier"]
        drawn = dict(self._network(0, pretrained=False).named_parameters())
        missing = [
            name
            for name, weight in network.named_parameters()
            if not name.startswith(head) and weight.unique().numel() > 1 and weight.equal(drawn[name])
        ]
        if missing:
            raise StepError(
                f"--weights {self._file}: no weights of {self.name} for {missing[0]} and {len(missing) - 1} others"
            )

    def _check_size(self, network: Any) -> None:
        """Checks that the network takes images of the size, and has a number for each label."""
        image = self._torch.zeros(1, self._config.input_size[0], self._size, self._size)
        try:
            with self._torch.inference_mode():
                shape = tuple(network.eval()(image).shape)
        except Exception as error:  # each network has errors of its own
            about = f"--image-size {self._size}: {describe_error(error)}"
            raise StepError(f"--backbone {self.name} takes no such image: {about}") from error
        if shape != (1, len(LABELS)):
            raise StepError(f"--backbone {self.name} is no classifier: its outputs have the shape {shape}")

    def _start(self) -> Any:
        """Returns the `Accelerator`, in one of several processes if the program was started so."""
        accelerate = import_optional("accelerate")
        kwargs = [accelerate.InitProcessGroupKwargs(timeout=PATIENCE)]
        mixed = "bf16" if self._precision == "bf16" else "no"
        # Without `cpu`, it would take several processes without a GPU for as many runs of their own.
        cpu = not self._torch.accelerator.is_available()
        found = accelerate.Accelerator(cpu=cpu, mixed_precision=mixed, kwargs_handlers=kwargs)
        if self._batch_size % found.num_processes:
            raise StepError(
                f"--batch-size {self._batch_size} cannot be shared among {found.num_processes} processes; choose a "
                "multiple of it"
            )
        if not found.is_main_process:
            silence()
        return found

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """Locks the folder and removes what a killed run was writing, in the first process."""
        if not self.is_main:
            yield
            return
        with FolderLock(self._folder):
            folders = [folder for folder in (self._folder, self._folder / IMAGES) if folder.is_dir()]
            remove(path for folder in folders for path in folder.iterdir() if TEMPORARY.fullmatch(path.name))
            yield


def _resolve_precision(torch: Any, precision: str) -> str:
    if precision != "auto":
        return precision
    has_bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if has_bf16 else "fp32"


def _weights_file(checkpoint: Checkpoint, hub_filename: str | None) -> Path:
    """Returns the file of weights; from the Hub, it is downloaded."""
    names = (*([hub_filename] if hub_filename else []), *WEIGHTS)
    for name in names:
        found = checkpoint.fetch(name)
        path = found if found.is_file() else found / name
        if path.is_file():
            return path
    raise StepError(f"--weights {checkpoint.name}: none of the files {', '.join(names)} in it")


def _check_validation(split: Split, targets: np.ndarray) -> None:
    if not _have_both(targets).any():
        raise StepError(
            f"setting {split.setting}, seed {split.seed}: no label has a positive and a negative validation image, so "
            "the best weights cannot be chosen; use more real training images"
        )


def _have_both(targets: np.ndarray) -> np.ndarray:
    """Returns of each label whether it has positive and negative images."""
    return np.asarray((targets == 1).any(axis=0) & (targets == 0).any(axis=0))


def _hash(examples: Sequence[Example]) -> str:
    """Returns the hash of images and their labels, in order."""
    content = hashlib.sha256()
    for one in examples:
        identity = repr((one.row.filename, image_identity(one.row), one.targets.tolist()))
        content.update(f"{identity}\n".encode(errors="surrogatepass"))
    return content.hexdigest()


def _write_scores(path: Path, found: Scores, about: dict[str, Any]) -> None:
    content = io.BytesIO()
    np.savez(content, validation=found.validation, test=found.test, about=np.array(json.dumps(about)))
    atomic_write(path, content.getvalue())


def _read_scores(path: Path) -> Scores:
    try:
        with np.load(path, allow_pickle=False) as file:
            return Scores(file["validation"], file["test"])
    except (ValueError, KeyError, OSError, EOFError) as error:
        raise StepError(f"{path}: {describe_error(error)}; remove it, it will be made again") from error


@contextlib.contextmanager
def _deterministic(torch: Any) -> Iterator[None]:
    """Makes torch choose algorithms that give equal results, where it has such, until the context ends."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
