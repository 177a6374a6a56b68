"""Fine-tunes a model that writes reports on the images of each setting, and scores what it writes of real images."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.checkpoint import Checkpoint
from pipeline.errors import StepError, counted, listing
from pipeline.evaluate.embed import sample
from pipeline.evaluate.features import fingerprint_of
from pipeline.evaluate.report_model import INSTRUCTION, LANGUAGE_MODEL, LoraOptions, ReportModel
from pipeline.evaluate.report_scores import check_scorers, measure_texts, test_side, write_section
from pipeline.evaluate.report_texts import ReportText, runs_of, write_texts
from pipeline.evaluate.report_training import (
    ADAPTER,
    ReportRecipe,
    decode_images,
    is_trained,
    losses_of,
    process_state,
    train_reports,
)
from pipeline.evaluate.results import check_results_path
from pipeline.evaluate.results_parts import SideResult
from pipeline.evaluate.settings import SETTINGS, Example, Split, plan_examples, split_about, split_cautions, splits
from pipeline.files import append, atomic_write
from pipeline.folder import local_source
from pipeline.imports import check_installed
from pipeline.lock import FolderLock
from pipeline.machine import OutOfMemoryError, device_name, versions_of
from pipeline.progress import progress_bar, write_line
from pipeline.rows import AnyRow, iter_crc32
from pipeline.table import check_field

RUN_JSON, TEXTS_CSV, TEXTS_JSONL = "run.json", "texts.csv", "texts-{}.jsonl"
PACKAGES = ("torch", "transformers", "peft", "accelerate")


class _Folder(NamedTuple):
    """The folder of a training run, with what decides its outcome."""

    path: Path
    about: dict[str, Any]
    split: Split
    recipe: ReportRecipe


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
    lora = LoraOptions(lora_rank, lora_alpha, lora_dropout, target_modules)
    _check_numbers(epochs, batch_size, device_batch_size, learning_rate, lora_dropout)
    work = work or results_json.with_suffix(".reports")
    if work.exists() and not work.is_dir():
        raise StepError(f"{work} is a file; name a folder with --work")
    sides = {
        "train": plan_examples(real_train, "real", patient_column, on_mismatch),
        "synthetic": plan_examples(synthetic, "synthetic", None, on_mismatch),
        "test": plan_examples(real_test, "real", patient_column, on_mismatch),
    }
    sides = {name: _limited(side, limit) for name, side in sides.items()}
    planned = splits(sides["train"], sides["synthetic"], sides["test"], settings, seeds, seed)
    _check_references(planned[0].test)
    checkpoint = Checkpoint(model, revision).pin()
    state = process_state()
    is_main = state.is_main_process
    if is_main:
        check_scorers()
        for line in split_cautions(planned, patient_column):
            write_line(line)
    if batch_size % (device_batch_size * state.num_processes):
        raise StepError(
            f"--batch-size {batch_size} is no multiple of --device-batch-size {device_batch_size} times "
            f"{counted(state.num_processes, 'process', 'processes')}"
        )
    options = {
        "model": checkpoint.describe(),
        "instruction": instruction,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "lora": lora._asdict(),
        "max_new_tokens": max_new_tokens,
        "limit": limit,
    }
    crc32 = _crc32_of([one.row for side in sides.values() for one in side])
    lock = FolderLock(work) if is_main else None
    try:
        folders = []
        for split in planned:
            steps = max(1, math.ceil(epochs * split.real_images / batch_size))
            recipe = ReportRecipe(
                steps, batch_size, device_batch_size, learning_rate, lora, gradient_checkpointing, split.seed
            )
            about = {**options, "device_batch_size": device_batch_size, "setting": split.setting, "seed": split.seed}
            about |= {"steps": steps, "images": _images_fingerprint(split.train, crc32)}
            about = json.loads(json.dumps(about))
            folders.append(_Folder(work / f"{split.setting}-{split.seed}", about, split, recipe))
        if is_main:
            _open_all(folders, overwrite)
        state.wait_for_everyone()
        texts, losses = [], {}
        for number, folder in enumerate(folders, 1):
            title = f"{folder.path.name} ({number} of {len(folders)})"
            _train(folder, checkpoint, instruction, max_new_tokens, title)
            _write_all(folder, checkpoint, instruction, max_new_tokens, crc32, title)
            if is_main:
                found = _collect(folder, crc32)
                write_texts(folder.path / TEXTS_CSV, found)
                texts += found
                losses[folder.path.name] = losses_of(folder.path)[-1][1]
        if not is_main:
            return
        write_texts(work / TEXTS_CSV, texts)
    finally:
        if lock:
            lock.release()
    runs = runs_of(texts, str(work / TEXTS_CSV))
    constant = _most_frequent([one.row.prompt for one in planned[0].train if one.side == "real"])
    if constant is None:
        constant = _most_frequent([one.row.prompt for one in sides["train"]])
    notes: dict[str | None, tuple[str, ...]] = {
        split.setting: tuple(f"seed {split.seed}: {note}" for note in split.notes) for split in planned
    }
    scores = measure_texts(runs, Path(model).name, constant, notes, seed)
    described = {
        "train": _side(real_train, sides["train"]),
        "synthetic": _side(synthetic, sides["synthetic"]),
        "test": test_side(_name_of(real_test), local_source(real_test), runs[0].texts),
    }
    recorded = {
        **options,
        "steps": {folder.path.name: folder.recipe.steps for folder in folders},
        "last_loss": losses,
        "splits": [split_about(split) for split in planned],
        "device": device_name("cuda" if _has_cuda() else "cpu"),
        "packages": versions_of(*PACKAGES),
        "texts": str(work / TEXTS_CSV),
    }
    write_section(results_json, scores, described, recorded, seed)


def _check_numbers(
    epochs: float, batch_size: int, device_batch_size: int, learning_rate: float, dropout: float
) -> None:
    if not epochs > 0 or not learning_rate > 0:
        raise StepError("--epochs and --learning-rate must be positive")
    if not 0 <= dropout < 1:
        raise StepError(f"--lora-dropout {dropout} is no share below 1")
    if batch_size % device_batch_size:
        raise StepError(f"--batch-size {batch_size} is no multiple of --device-batch-size {device_batch_size}")


def _limited(examples: list[Example], limit: int | None) -> list[Example]:
    chosen = {row.filename for row in sample([one.row for one in examples], limit)}
    return [one for one in examples if one.row.filename in chosen]


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


def _crc32_of(rows: Sequence[AnyRow]) -> dict[str, int]:
    """Returns the CRC-32 of images by place: rows of several sources may be of several kinds."""
    found: dict[str, int] = {}
    for kind in {type(row) for row in rows}:
        of_kind = [row for row in rows if type(row) is kind]
        found |= {row.where: crc for row, crc in zip(of_kind, iter_crc32(of_kind))}
    return found


def _images_fingerprint(examples: Sequence[Example], crc32: dict[str, int]) -> str:
    return fingerprint_of({"images": [[one.row.filename, crc32[one.row.where], one.row.prompt] for one in examples]})


def _open_all(folders: Sequence[_Folder], overwrite: bool) -> None:
    """Makes the folders of runs; those of other images or options are replaced, if that is wanted.

    Raises:
        StepError: It is not.
    """
    outdated = []
    for folder in folders:
        if not folder.path.exists():
            continue
        path = folder.path / RUN_JSON
        try:
            before = json.loads(path.read_bytes()) if path.exists() else {}
        except ValueError:
            before = {}
        if before == folder.about:
            continue
        differing = [name for name in folder.about if before.get(name) != folder.about[name]]
        if not overwrite and (before or any(folder.path.iterdir())):
            raise StepError(
                f"{folder.path} is of another run: {listing(differing, separator=', ')} differ. Name another folder "
                "with --work, or pass --overwrite."
            )
        outdated.append(folder.path)
    for path in outdated:
        shutil.rmtree(path)
    for folder in folders:
        folder.path.mkdir(exist_ok=True)
        atomic_write(folder.path / RUN_JSON, (json.dumps(folder.about, indent=1) + "\n").encode())


def _train(folder: _Folder, checkpoint: Checkpoint, instruction: str, max_tokens: int, title: str) -> None:
    """Trains the adapters of a run, unless they are there."""
    if is_trained(folder.path):
        return
    model = ReportModel(checkpoint, instruction, max_tokens)
    rows = [one.row for one in folder.split.train]
    is_main = process_state().is_main_process
    if is_main and (cut := model.too_long([row.prompt for row in rows])):
        write_line(f"{folder.path.name}: {counted(cut, 'report')} cut at {max_tokens} tokens; see --max-new-tokens")
    train_reports(model, rows, folder.recipe, folder.path, f"Training {title}")


def _write_all(
    folder: _Folder, checkpoint: Checkpoint, instruction: str, max_tokens: int, crc32: dict[str, int], title: str
) -> None:
    """Writes the reports of the test images that have none yet, each process a part of them."""
    state = process_state()
    known = _read_lines(folder.path)
    test = [one.row for one in folder.split.test]
    size = folder.recipe.device_batch_size
    # Batches are the same after an interruption: rounding depends on what else is in a batch.
    batches = [test[start : start + size] for start in range(0, len(test), size)]
    missing = [batch for batch in batches if any((row.filename, crc32[row.where]) not in known for row in batch)]
    state.wait_for_everyone()  # all have read what is known
    if missing:
        model = ReportModel(checkpoint, instruction, max_tokens)
        model.load_adapters(folder.path / ADAPTER)
        own = missing[state.process_index :: state.num_processes]
        path = folder.path / TEXTS_JSONL.format(state.process_index)
        remaining = sum(map(len, own))
        with progress_bar(f"Writing {title}", remaining, "report", disable=not state.is_main_process) as bar:
            for batch in own:
                decoded = decode_images(batch)
                try:
                    texts = model.write([image for _, image in decoded])
                except OutOfMemoryError as error:
                    raise StepError(f"out of memory: pass a smaller --device-batch-size: {error}") from None
                lines = [
                    {"filename": row.filename, "crc32": crc, "text": text}
                    for row, (crc, _), text in zip(batch, decoded, texts)
                ]
                append(path, b"".join(json.dumps(line).encode() + b"\n" for line in lines))
                bar.update(len(batch))
    state.wait_for_everyone()


def _read_lines(folder: Path) -> dict[tuple[str, int], str]:
    """Returns the texts of all processes by file name and CRC-32 of the image.

    The last line of a file may be half-written, by a run that was killed; it is cut off, so that the next one begins a
    line.
    """
    found: dict[tuple[str, int], str] = {}
    for path in sorted(folder.glob(TEXTS_JSONL.format("*"))):
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content and process_state().is_main_process:
            atomic_write(path, whole)
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                entry = json.loads(line)
                found[entry["filename"], entry["crc32"]] = entry["text"]
            except (ValueError, KeyError, TypeError):
                raise StepError(f"{path} line {number} is damaged; delete the file, and run again") from None
    return found


def _collect(folder: _Folder, crc32: dict[str, int]) -> list[ReportText]:
    """Returns the texts of a run in the order of the test images."""
    known = _read_lines(folder.path)
    setting, seed = folder.split.setting, folder.split.seed
    return [
        ReportText(
            one.row.filename, setting, seed, one.patient, one.row.prompt, known[one.row.filename, crc32[one.row.where]]
        )
        for one in folder.split.test
    ]


def _most_frequent(prompts: Sequence[str]) -> str | None:
    """Returns the most frequent text, the first in the alphabet of several; None of no texts."""
    counts = Counter(" ".join(prompt.split()) for prompt in prompts)
    return min(counts, key=lambda prompt: (-counts[prompt], prompt)) if counts else None


def _side(source: str, examples: Sequence[Example]) -> SideResult:
    patients = {one.patient for one in examples}
    return SideResult(
        _name_of(source), local_source(source), len(examples), None if None in patients else len(patients), {}
    )


def _name_of(source: str) -> str:
    return source.rstrip("/").rpartition("/")[2]


def _has_cuda() -> bool:
    import torch

    return bool(torch.cuda.is_available())
