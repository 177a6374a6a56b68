"""Fine-tunes a model that writes reports on the images of each setting, and scores what it writes of real images."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pipeline.checkpoint import Checkpoint
from pipeline.errors import StepError, counted
from pipeline.evaluate.reports.report_model import (
    INSTRUCTION,
    LANGUAGE_MODEL,
    LoraOptions,
    check_report_model,
    compute_type,
)
from pipeline.evaluate.reports.report_runs import TEXTS_CSV, ReportRun, crc32_of, images_fingerprint, run_all
from pipeline.evaluate.reports.report_scores import check_scorers, measure_texts, test_side, write_section
from pipeline.evaluate.reports.report_texts import runs_of
from pipeline.evaluate.reports.report_training import ReportRecipe, losses_of, process_state
from pipeline.evaluate.results.results import check_results_path
from pipeline.evaluate.results.results_parts import source_name
from pipeline.evaluate.settings import (
    SETTINGS,
    Example,
    Split,
    examples_side,
    limited,
    plan_examples,
    split_about,
    split_cautions,
    splits,
)
from pipeline.folder import local_source
from pipeline.imports import check_installed
from pipeline.machine import device_name, versions_of
from pipeline.progress import write_line
from pipeline.table import check_field

PACKAGES = ("torch", "transformers", "peft", "accelerate")


def reports(
    real_train: str,
    synthetic: str,
    real_test: str,
    results_json: Path,
    *,
    model: str,
    revision: str | None = None,
    settings: tuple[str, ...] = SETTINGS,
    seeds: int = 1,
    seed: int = 0,
    patient_column: str | None = None,
    instruction: str = INSTRUCTION,
    epochs: float = 5,
    batch_size: int = 16,
    device_batch_size: int = 4,
    learning_rate: float = 1e-4,
    lora_rank: int = 64,
    lora_alpha: int = 128,
    lora_dropout: float = 0.05,
    target_modules: tuple[str, ...] = (LANGUAGE_MODEL,),
    gradient_checkpointing: bool = False,
    max_new_tokens: int = 256,
    limit: int | None = None,
    work: Path | None = None,
    on_mismatch: str = "error",
    overwrite: bool = False,
) -> None:
    """Fine-tunes a model on images and prompts of each setting, and scores the reports that it writes of real images.

    Args:
        real_train: Real training images with reports as prompts: a SOURCE or PARQUET REPO.
        synthetic: Synthetic images with the prompts that they were made from.
        real_test: Real images of other patients, to write reports of.
        results_json: Gets the section `reports`; other sections stay.
        model: An image-text-to-text model of `transformers`: a folder, or a name on the Hub.
        revision: Commit, branch or tag on the Hub. Default: main.
        settings: Some of `settings.SETTINGS`.
        seeds: Training runs of each setting.
        seed: The first seed.
        patient_column: Column of the metadata of the real images that names the patient. Default: none.
        instruction: What the model is asked about each image.
        epochs: Passes over the images of setting `real`; all settings take as many steps.
        batch_size: Images of a step, on all devices together.
        device_batch_size: Images at once on a device, in training and in writing.
        learning_rate: The highest.
        lora_rank: See `LoraOptions`.
        lora_alpha: See `LoraOptions`.
        lora_dropout: See `LoraOptions`.
        target_modules: See `LoraOptions`.
        gradient_checkpointing: Compute activations twice instead of storing them.
        max_new_tokens: Upper bound of a report's length, in training and in writing: tokens.
        limit: Take this number of images of each source, chosen at random by a hash of the file name. Default: all.
        work: Folder for adapters and texts. Default: beside `results_json`, with the ending `.reports`.
        on_mismatch: `"error"` or `"skip"`, as in `synthchex_75k.plan`.
        overwrite: Replace runs of other images or other options.

    Raises:
        SourceError: A source cannot be used, or an image is damaged.
        StepError: An option, the model or a file cannot be used.
        OSError: A file cannot be read or written.
    """
    check_installed(*PACKAGES)
    check_results_path(results_json)
    _check_numbers(epochs, batch_size, device_batch_size, learning_rate, lora_dropout)
    work = work or results_json.with_suffix(".reports")
    if work.exists() and not work.is_dir():
        raise StepError(f"{work} is a file; name a folder with --work")
    sources = {"train": real_train, "synthetic": synthetic, "test": real_test}
    sides = {
        "train": plan_examples(real_train, "real", patient_column, on_mismatch),
        "synthetic": plan_examples(synthetic, "synthetic", None, on_mismatch),
        "test": plan_examples(real_test, "real", patient_column, on_mismatch),
    }
    sides = {name: limited(side, limit) for name, side in sides.items()}
    planned = splits(sides["train"], sides["synthetic"], sides["test"], settings, seeds, seed)
    _check_references(planned[0].test)
    checkpoint = Checkpoint(model, revision).pin()
    check_report_model(checkpoint)
    state = process_state()
    _check_batches(batch_size, device_batch_size, state.num_processes)
    if state.is_main_process:
        check_scorers()
        for line in split_cautions(planned, patient_column):
            write_line(line)
    lora = LoraOptions(lora_rank, lora_alpha, lora_dropout, target_modules)
    options = {
        "model": checkpoint.describe(),
        "dtype": compute_type(),
        "instruction": instruction,
        "epochs": epochs,
        "batch_size": batch_size,
        "device_batch_size": device_batch_size,
        "learning_rate": learning_rate,
        "lora": {**lora._asdict(), "target_modules": [*target_modules]},
        "max_new_tokens": max_new_tokens,
    }
    crc32 = crc32_of([one.row for split in planned for one in (*split.train, *split.test)])
    runs = []
    for split in planned:
        steps = max(1, math.ceil(epochs * split.real_images / batch_size))
        about = {**options, "setting": split.setting, "seed": split.seed, "steps": steps}
        about["images"] = images_fingerprint(split.train, crc32)
        how = (steps, batch_size, device_batch_size, learning_rate, lora, gradient_checkpointing, split.seed)
        runs.append(ReportRun(work / f"{split.setting}-{split.seed}", about, split, ReportRecipe(*how)))
    texts = run_all(work, runs, checkpoint, crc32, overwrite)
    if not state.is_main_process:
        return
    of_runs = runs_of(texts, str(work / TEXTS_CSV))
    scores = measure_texts(of_runs, Path(model).name, _most_frequent(sides["train"]), _notes(planned), seed)
    described = {name: examples_side(sources[name], sides[name]) for name in ("train", "synthetic")}
    described["test"] = test_side(source_name(real_test), local_source(real_test), of_runs[0].texts)
    recorded = {
        **options,
        "limit": limit,
        "steps": {run.folder.name: run.recipe.steps for run in runs},
        "last_loss": {run.folder.name: losses_of(run.folder)[-1][1] for run in runs},
        "splits": [split_about(split) for split in planned],
        "device": device_name(state.device.type),
        "packages": versions_of(*PACKAGES),
    }
    write_section(results_json, scores, described, recorded, seed)


def _check_numbers(
    epochs: float, batch_size: int, device_batch_size: int, learning_rate: float, dropout: float
) -> None:
    if not epochs > 0 or not learning_rate > 0:
        raise StepError("--epochs and --learning-rate must be positive")
    if not 0 <= dropout < 1:
        raise StepError(f"--lora-dropout {dropout} is no share below 1")
    _check_batches(batch_size, device_batch_size, 1)


def _check_batches(batch_size: int, device_batch_size: int, processes: int) -> None:
    if batch_size % (device_batch_size * processes):
        times = f" times {counted(processes, 'process', 'processes')}" if processes > 1 else ""
        raise StepError(f"--batch-size {batch_size} is no multiple of --device-batch-size {device_batch_size}{times}")


def _check_references(test: Sequence[Example]) -> None:
    """Checks that a CSV can hold the reports of the test images.

    Raises:
        StepError: It cannot.
    """
    for one in test:
        try:
            check_field(one.row.prompt)
        except ValueError as error:
            raise StepError(f"{one.row.where}: {error}") from None


def _most_frequent(examples: Sequence[Example]) -> str:
    """Returns the most frequent report, the first in the alphabet of several."""
    counts = Counter(" ".join(one.row.prompt.split()) for one in examples)
    return min(counts, key=lambda prompt: (-counts[prompt], prompt))


def _notes(planned: Sequence[Split]) -> dict[str | None, list[str]]:
    """Returns the notes of the splits of each setting."""
    notes: dict[str | None, list[str]] = {split.setting: [] for split in planned}
    for split in planned:
        notes[split.setting] += [f"seed {split.seed}: {note}" for note in split.notes]
    return notes
