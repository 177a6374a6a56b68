"""The training runs of `reports`: a folder for each, with adapters and the texts that the model wrote; resumable."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.checkpoint import Checkpoint
from pipeline.errors import StepError, counted, listing
from pipeline.evaluate.features import fingerprint_of
from pipeline.evaluate.reports.report_model import ReportModel
from pipeline.evaluate.reports.report_texts import ReportText, write_texts
from pipeline.evaluate.reports.report_training import (
    ADAPTER,
    ReportRecipe,
    decode_images,
    is_trained,
    process_state,
    train_reports,
)
from pipeline.evaluate.settings import Example, Split
from pipeline.files import append, atomic_write
from pipeline.lock import FolderLock
from pipeline.machine import OutOfMemoryError
from pipeline.progress import progress_bar, write_line
from pipeline.rows import AnyRow, iter_crc32

RUN_JSON, TEXTS_CSV, TEXTS_JSONL = "run.json", "texts.csv", "texts-{}.jsonl"


class ReportRun(NamedTuple):
    """A training run.

    Attributes:
        folder: Its folder.
        about: Everything that decides its outcome, as JSON holds it.
        split: Its images.
        recipe: How to train.
    """

    folder: Path
    about: dict[str, Any]
    split: Split
    recipe: ReportRecipe


def run_all(
    work: Path, runs: Sequence[ReportRun], checkpoint: Checkpoint, crc32: dict[str, int], overwrite: bool
) -> list[ReportText]:
    """Trains all runs and lets each write its reports, as far as that is not done. All processes call it.

    Args:
        work: Folder of the folders of the runs.
        runs: The runs.
        checkpoint: The model, pinned.
        crc32: Of each image, by place.
        overwrite: Replace runs of other images or options.

    Returns:
        The texts, in the order of the runs and of the test images; they are in `work / TEXTS_CSV` too. Other processes
        than the first get none.

    Raises:
        SourceError: An image is damaged, or its source has changed.
        StepError: A folder has another run, another program writes to it, the model cannot be loaded or trained.
        OSError: A file cannot be read or written.
    """
    state = process_state()
    with FolderLock(work) if state.is_main_process else contextlib.nullcontext():
        if state.is_main_process:
            _open_all(runs, overwrite)
        state.wait_for_everyone()
        texts = []
        for number, run in enumerate(runs, 1):
            title = f"{run.folder.name} ({number} of {len(runs)})"
            if not is_trained(run.folder):
                _train(run, checkpoint, title)
            _write_missing(run, checkpoint, crc32, title)
            if state.is_main_process:
                found = _collect(run, crc32)
                write_texts(run.folder / TEXTS_CSV, found)
                texts += found
        if state.is_main_process:
            write_texts(work / TEXTS_CSV, texts)
        return texts


def crc32_of(rows: Sequence[AnyRow]) -> dict[str, int]:
    """Returns the CRC-32 of images by place: rows of several sources may be of several kinds."""
    found: dict[str, int] = {}
    for kind in {type(row) for row in rows}:
        of_kind = [*{row.where: row for row in rows if type(row) is kind}.values()]
        found |= {row.where: crc for row, crc in zip(of_kind, iter_crc32(of_kind))}
    return found


def images_fingerprint(examples: Sequence[Example], crc32: dict[str, int]) -> str:
    """Returns a hash of images with their reports, in their order."""
    return fingerprint_of({"images": [[one.row.filename, crc32[one.row.where], one.row.prompt] for one in examples]})


def _open_all(runs: Sequence[ReportRun], overwrite: bool) -> None:
    """Makes the folders of runs; those of other images or options are replaced, if that is wanted.

    Raises:
        StepError: It is not, or a folder has other files.
    """
    outdated = [run.folder for run in runs if _is_outdated(run, overwrite)]
    for folder in outdated:
        shutil.rmtree(folder)
    for run in runs:
        run.folder.mkdir(exist_ok=True)
        atomic_write(run.folder / RUN_JSON, (json.dumps(run.about, indent=1) + "\n").encode())


def _is_outdated(run: ReportRun, overwrite: bool) -> bool:
    path = run.folder / RUN_JSON
    if not path.exists():
        if run.folder.exists() and any(run.folder.iterdir()):
            raise StepError(f"{run.folder} has no {RUN_JSON}, so it is of another program; name a folder with --work")
        return False
    try:
        before = json.loads(path.read_bytes())
    except ValueError:
        before = {}
    if before == run.about:
        return False
    if not overwrite:
        differing = [name for name in run.about if not isinstance(before, dict) or before.get(name) != run.about[name]]
        raise StepError(
            f"{run.folder} is of another run: {listing(differing, separator=', ')} differ. Name another folder with "
            "--work, or pass --overwrite."
        )
    return True


def _load(run: ReportRun, checkpoint: Checkpoint) -> ReportModel:
    return ReportModel(checkpoint, run.about["instruction"], run.about["max_new_tokens"])


def _train(run: ReportRun, checkpoint: Checkpoint, title: str) -> None:
    model = _load(run, checkpoint)
    rows = [one.row for one in run.split.train]
    if process_state().is_main_process and (cut := model.too_long([row.prompt for row in rows])):
        limit = run.about["max_new_tokens"]
        write_line(f"{run.folder.name}: {counted(cut, 'report')} cut at {limit} tokens; see --max-new-tokens")
    train_reports(model, rows, run.recipe, run.folder, f"Training {title}")


def _write_missing(run: ReportRun, checkpoint: Checkpoint, crc32: dict[str, int], title: str) -> None:
    """Writes the reports of the test images that have none yet, each process a part of them."""
    state = process_state()
    known = _read_lines(run.folder)
    test = [one.row for one in run.split.test]
    size = run.recipe.device_batch_size
    # Batches are the same after an interruption: rounding depends on what else is in a batch.
    batches = [test[start : start + size] for start in range(0, len(test), size)]
    missing = [batch for batch in batches if any((row.filename, crc32[row.where]) not in known for row in batch)]
    state.wait_for_everyone()  # all have read what is known
    if missing:
        model = _load(run, checkpoint)
        model.load_adapters(run.folder / ADAPTER)
        own = missing[state.process_index :: state.num_processes]
        path = run.folder / TEXTS_JSONL.format(state.process_index)
        total = sum(map(len, own))
        with progress_bar(f"Writing {title}", total, "report", disable=not state.is_main_process) as bar:
            for batch in own:
                append(path, _lines_of(model, batch))
                bar.update(len(batch))
    state.wait_for_everyone()


def _lines_of(model: ReportModel, rows: Sequence[AnyRow]) -> bytes:
    """Returns what the model writes of images, a line of JSON for each."""
    decoded = decode_images(rows)
    try:
        texts = model.write([image for _, image in decoded])
    except OutOfMemoryError as error:
        raise StepError(f"out of memory: pass a smaller --device-batch-size: {error}") from None
    entries = [
        {"filename": row.filename, "crc32": crc, "text": text} for row, (crc, _), text in zip(rows, decoded, texts)
    ]
    return b"".join(json.dumps(entry).encode() + b"\n" for entry in entries)


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


def _collect(run: ReportRun, crc32: dict[str, int]) -> list[ReportText]:
    """Returns the texts of a run in the order of the test images."""
    known, split = _read_lines(run.folder), run.split
    return [
        ReportText(
            *(one.row.filename, split.setting, split.seed, one.patient, one.row.prompt),
            known[one.row.filename, crc32[one.row.where]],
        )
        for one in split.test
    ]
