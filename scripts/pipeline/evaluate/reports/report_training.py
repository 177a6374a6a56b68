"""Fine-tunes a model on images and their reports, with the Trainer of `transformers`: resumable, on several GPUs."""

from __future__ import annotations

import json
import math
import shutil
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import PIL.Image

from pipeline.errors import StepError
from pipeline.evaluate.reports.report_model import LANGUAGE_MODEL, LoraOptions, ReportModel
from pipeline.files import atomic_write, fsync, fsync_folder
from pipeline.imports import import_optional
from pipeline.jobs import available_cpus
from pipeline.machine import OutOfMemoryError, memory_errors
from pipeline.progress import progress_bar
from pipeline.rows import AnyRow, decode, read, to_rgb

CHECKPOINTS, ADAPTER = "checkpoints", "adapter"  # folders of a run
TRAINING_JSON = "training.json"  # written last
COMPLETE = "complete"  # file that is written last into a checkpoint
SAVES = 20  # checkpoints of a run; two are kept
WARM_UP = 0.03  # share of the steps, as LLaVA-Rad has it


class ReportRecipe(NamedTuple):
    """How a model is trained.

    Attributes:
        steps: Number of steps of the optimiser.
        batch_size: Images of a step, on all devices together.
        device_batch_size: Images at once on a device.
        learning_rate: The highest; it rises linearly in `WARM_UP` of the steps, then falls to 0 as a cosine.
        lora: The adapters.
        gradient_checkpointing: Computes activations twice instead of storing them.
        seed: Of everything that is drawn.
    """

    steps: int
    batch_size: int
    device_batch_size: int
    learning_rate: float
    lora: LoraOptions
    gradient_checkpointing: bool
    seed: int


def train_reports(model: ReportModel, rows: Sequence[AnyRow], recipe: ReportRecipe, folder: Path, title: str) -> None:
    """Trains adapters, and saves them in `folder / ADAPTER`, then the losses. All processes call it.

    Checkpoints are in `folder / CHECKPOINTS` meanwhile; a run that was killed continues from the last complete one, and
    ends as it would have without that.

    Args:
        model: The model; it has adapters afterwards.
        rows: Images and reports to train on.
        recipe: How to train.
        folder: Of the run.
        title: For the progress bar.

    Raises:
        StepError: A package is missing, memory does not suffice, or the loss is not finite.
        SourceError: An image is damaged, or its source has changed.
        OSError: A file cannot be read or written.
    """
    state, checkpoints = process_state(), folder / CHECKPOINTS
    if state.is_main_process:
        _remove_incomplete(checkpoints)
    state.wait_for_everyone()
    with warnings.catch_warnings(), progress_bar(title, recipe.steps, "step", disable=not state.is_main_process) as bar:
        warnings.simplefilter("ignore", FutureWarning)  # peft calls what transformers renames
        model.add_adapters(recipe.lora, recipe.seed)
        trainer = _make_trainer(model, rows, recipe, checkpoints, bar)
        last = _newest(checkpoints)
        try:
            with memory_errors():
                trainer.train(resume_from_checkpoint=str(last) if last else None)
        except OutOfMemoryError as error:
            advice = "pass a smaller --device-batch-size, or --gradient-checkpointing"
            raise StepError(f"out of memory: {advice}: {error}") from None
    if state.is_main_process:
        losses = [(entry["step"], entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
        _save_adapter(model, folder)
        atomic_write(folder / TRAINING_JSON, (json.dumps({"losses": losses}) + "\n").encode())
        shutil.rmtree(checkpoints)
    state.wait_for_everyone()


def is_trained(folder: Path) -> bool:
    """Whether `train_reports` has finished in a folder."""
    return (folder / TRAINING_JSON).exists()


def losses_of(folder: Path) -> list[tuple[int, float]]:
    """Returns the mean loss of each step of a finished training, with its number."""
    return [(step, loss) for step, loss in json.loads((folder / TRAINING_JSON).read_bytes())["losses"]]


def process_state() -> Any:
    """Returns accelerate's state of this process: its number, and that of all processes of `torchrun`.

    Raises:
        StepError: `accelerate` is missing.
    """
    cpu = not import_optional("torch").cuda.is_available()
    return import_optional("accelerate").PartialState(cpu=cpu)


def decode_images(rows: Sequence[AnyRow]) -> list[tuple[int, PIL.Image.Image]]:
    """Returns CRC-32 and decoded image of rows, in 8-bit RGB; threads decode them.

    Raises:
        SourceError: An image is damaged, or its source has changed.
        OSError: A file cannot be read.
    """

    def one(row: AnyRow) -> tuple[int, PIL.Image.Image]:
        crc32, example = next(read([row]))
        return crc32, to_rgb(decode(example["image"]["bytes"], row.where))

    with ThreadPoolExecutor(min(len(rows), available_cpus())) as threads:
        return [*threads.map(one, rows)]


class _Images:
    """Images with their reports, as a dataset of torch; a batch is read at once."""

    def __init__(self, rows: Sequence[AnyRow]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> tuple[PIL.Image.Image, str]:
        return self.__getitems__([number])[0]

    def __getitems__(self, numbers: list[int]) -> list[tuple[PIL.Image.Image, str]]:
        rows = [self._rows[number] for number in numbers]
        return [(image, row.prompt) for (_, image), row in zip(decode_images(rows), rows)]


def _make_trainer(model: ReportModel, rows: Sequence[AnyRow], recipe: ReportRecipe, checkpoints: Path, bar: Any) -> Any:
    transformers, state = import_optional("transformers"), process_state()
    options = _arguments(recipe, model, checkpoints, state.num_processes)
    if recipe.gradient_checkpointing:  # newer versions call it activation checkpointing, and warn of the other name
        fields = transformers.TrainingArguments.__dataclass_fields__
        name = "activation_checkpointing" if "activation_checkpointing" in fields else "gradient_checkpointing"
        options |= {name: True, f"{name}_kwargs": {"use_reentrant": False}}
    arguments = transformers.TrainingArguments(**options)
    if state.num_processes == 1:
        arguments._n_gpu = min(arguments.n_gpu, 1)  # else all GPUs at hand would share one process, in larger batches
    trainer = transformers.Trainer(
        model=model.model,
        args=arguments,
        train_dataset=_Images(rows),
        data_collator=lambda pairs: model.training_batch(*zip(*pairs)),
        callbacks=[_make_callback(transformers, state, checkpoints, bar)],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer


def _arguments(recipe: ReportRecipe, model: ReportModel, checkpoints: Path, processes: int) -> dict[str, Any]:
    return {
        "output_dir": str(checkpoints),
        "max_steps": recipe.steps,
        "per_device_train_batch_size": recipe.device_batch_size,
        "gradient_accumulation_steps": recipe.batch_size // (recipe.device_batch_size * processes),
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": math.ceil(WARM_UP * recipe.steps),
        "weight_decay": 0.0,
        "optim": "adamw_torch",
        "bf16": model.dtype == "bfloat16",
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        "save_strategy": "steps",
        "save_steps": max(1, recipe.steps // SAVES),
        "save_total_limit": 2,
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
        "log_level": "error",
        "report_to": "none",
        "remove_unused_columns": False,
        "label_names": ["labels"],
        "dataloader_pin_memory": model.device.type == "cuda",
        # Other parts may have layers without a gradient: LLaVA takes the last layer but one of its vision network.
        "ddp_find_unused_parameters": recipe.lora.target_modules != (LANGUAGE_MODEL,),
        "use_cpu": model.device.type == "cpu",
    }


def _make_callback(transformers: Any, state: Any, checkpoints: Path, bar: Any) -> Any:
    class Callback(transformers.TrainerCallback):
        """Shows progress, ends on a loss that is not finite, and marks complete checkpoints."""

        def on_train_begin(self, args: Any, trainer_state: Any, control: Any, **_: Any) -> None:
            bar.initial = bar.n = trainer_state.global_step  # of a run that continues

        def on_step_end(self, args: Any, trainer_state: Any, control: Any, **_: Any) -> None:
            bar.update(trainer_state.global_step - bar.n)

        def on_log(self, args: Any, trainer_state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if (loss := (logs or {}).get("loss")) is None:
                return
            if not math.isfinite(loss):
                raise StepError(
                    f"the loss is {loss} at step {trainer_state.global_step:,}: pass a smaller --learning-rate"
                )
            bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)

        def on_save(self, args: Any, trainer_state: Any, control: Any, **_: Any) -> None:
            state.wait_for_everyone()  # each process writes a file
            if state.is_main_process:
                _mark_complete(checkpoints / f"checkpoint-{trainer_state.global_step}")

    return Callback()


def _mark_complete(folder: Path) -> None:
    for path in (path for path in folder.rglob("*") if path.is_file()):
        fsync(path)
    (folder / COMPLETE).write_bytes(b"")
    fsync(folder / COMPLETE)
    fsync_folder(folder)


def _steps_of(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])


def _newest(checkpoints: Path) -> Path | None:
    found = [path.parent for path in checkpoints.glob(f"checkpoint-*/{COMPLETE}")]
    return max(found, key=_steps_of, default=None)


def _remove_incomplete(checkpoints: Path) -> None:
    for folder in checkpoints.glob("checkpoint-*"):
        if not (folder / COMPLETE).exists():
            shutil.rmtree(folder)


def _save_adapter(model: ReportModel, folder: Path) -> None:
    """Saves the adapters; the folder has its name only when they are on the disk."""
    temporary = folder / f".{ADAPTER}.tmp"
    for path in (temporary, folder / ADAPTER):  # of a run that was killed at this point
        if path.exists():
            shutil.rmtree(path)
    model.model.save_pretrained(str(temporary))
    for path in temporary.iterdir():
        fsync(path)
    temporary.rename(folder / ADAPTER)
    fsync_folder(folder)
