"""Generates the images of PROMPTS_CSV that are missing."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pipeline.engine import check_engine, start_engine
from pipeline.errors import StepError, counted, listing
from pipeline.files import sha256_of
from pipeline.generate.ask import Batch, Generation
from pipeline.generate.models import FunctionTask, PipelineTask
from pipeline.generate.options import ModelOptions
from pipeline.generate.output import FAILED, GeneratedFolder
from pipeline.generate.prompts import NAME_BY_LINE, Prompts, Request, read_prompts, request_images
from pipeline.generate.tokens import cut_prompts
from pipeline.jobs import available_cpus
from pipeline.progress import notice, progress_bar, write_line

MAX_CONSECUTIVE_FAILURES = 20


def generate(
    prompts_csv: Path,
    output: Path,
    *,
    model: str | None = None,
    function: str | None = None,
    revision: str | None = None,
    lora: str | None = None,
    size: int | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    complex_human_instruction: str = "default",
    images_per_prompt: int = 1,
    seed: int = 0,
    name_by: str | None = None,
    batch_size: int = 8,
    dtype: str = "auto",
    engine: str = "local",
    workers: int = 2,
    limit: int | None = None,
    overwrite: bool = False,
) -> int:
    """Generates the images that are missing, and writes each with its row.

    An image depends on the model, the options of a call, its prompt, and its seed: a hash of `seed`, what names the
    prompt, and the number of the image. It does not depend on the batch, the order, the other prompts or the number of
    workers, as far as the hardware computes alike.

    Args:
        prompts_csv: The prompts, with the columns of a SOURCE's metadata.
        output: The folder to write; created where it does not exist.
        model: A preset, a folder, or a name on the Hub; with `function`, the name of the model.
        function: A model with code of its own, as `MODULE:FUNCTION`.
        revision: Commit, branch or tag of a model on the Hub. Default: the main branch.
        lora: Folder, file or name on the Hub of a LoRA. Default: that of the preset, if it has one.
        size: Width and height: pixels. Default: that of the preset, else 512.
        steps: Denoising steps. Default: those of the preset, else of the pipeline.
        guidance: Scale of classifier-free guidance. Default: that of the preset, else of the pipeline.
        complex_human_instruction: Sana puts a text before each prompt: its `"default"`, or `"none"`.
        images_per_prompt: Number of images of each prompt.
        seed: Seed of the run.
        name_by: Name images by this column, or by the number of the `"line"`. Default: file name, `id`, line.
        batch_size: Images at once; halved when memory runs out.
        dtype: `"auto"` (bf16 on a GPU that has it, fp16 on others, fp32 without a GPU), `"bf16"`, `"fp16"`, `"fp32"`.
        engine: `"local"`, or `"ray"` for Ray Data.
        workers: Processes of Ray; each has a model of its own.
        limit: Generate at most this number of images now.
        overwrite: Replace finished images of another model, other prompts or other options; all of them are removed
            when the first new one has come.

    Returns:
        The exit code: 0, 1 if an image failed.

    Raises:
        StepError: Prompts, model or folder cannot be used, or many images in a row failed.
        WorkerDiedError: A process that checked finished files was killed.
        OSError: A file cannot be read or written.
    """
    prompts_csv, folder_path = Path(os.path.abspath(prompts_csv)), Path(os.path.abspath(output))  # models may chdir
    options = ModelOptions(model, function, revision, lora, size, steps, guidance, dtype, complex_human_instruction)
    options.check()
    check_engine(engine)
    if folder_path in prompts_csv.parents:
        raise StepError(f"{prompts_csv} is in {output}, a folder for the result alone; move it elsewhere")
    prompts = read_prompts(prompts_csv, name_by)
    requests = request_images(prompts.rows, images_per_prompt, seed)
    task = options.resolve()
    about: dict[str, Any] = {"seed": seed, "images_per_prompt": images_per_prompt}
    about["prompts"] = {"name": prompts_csv.name, "sha256": sha256_of(prompts_csv), "rows": len(prompts.rows)}
    with GeneratedFolder(folder_path, requests, task.describe(), about, overwrite) as folder:
        missing = folder.find_missing(available_cpus())
        before, failed, start = len(folder.finished), 0, time.monotonic()
        if not folder.is_done:
            _tell(prompts, prompts_csv)
            about["truncated_prompts"] = _count_cut(task, requests)  # for the provenance; no part of the request
            if missing:
                ask = start_engine(Generation(task, batch_size), engine, workers)
                start = time.monotonic()
                todo = missing[:limit]
                failed = _write_all(ask(todo), folder, len(todo))
            else:
                folder.finish()
        _report(output, folder, len(requests), len(folder.finished) - before, time.monotonic() - start)
    return min(failed, 1)


def _tell(prompts: Prompts, path: Path) -> None:
    """Prints what the user may not expect of PROMPTS_CSV."""
    if prompts.names_from == NAME_BY_LINE:
        print(f"{path} names no images: they get the number of their line; see --name-by", file=sys.stderr)
    if not prompts.have_labels:
        print(f"{path} has no labels: metadata.csv has none (not mentioned)", file=sys.stderr)


def _count_cut(task: PipelineTask | FunctionTask, requests: list[Request]) -> dict[str, int]:
    """Prints which prompts are too long for the model, and returns their number by text encoder."""
    if isinstance(task, FunctionTask):
        return {}
    with notice("counting the tokens of the prompts …"):
        cut = cut_prompts(task, requests)
    for encoder, prompts in cut.items():
        print(f"{counted(len(prompts), 'prompt')} will be cut for {encoder}: {listing(prompts)}", file=sys.stderr)
    return {encoder: len(prompts) for encoder, prompts in cut.items()}


def _write_all(batches: Iterator[Batch], folder: GeneratedFolder, asked: int) -> int:
    """Writes batches as they come, in a thread, while the model draws the next one; prints and counts failures."""
    failed: dict[str, str] = {}
    known = {*folder.failed}
    in_a_row = 0  # of requests that did not fail before
    writing: Future[None] | None = None
    before = len(folder.finished)
    try:
        with ThreadPoolExecutor(1) as thread, progress_bar("Generating", before + asked, "img", initial=before) as bar:
            for batch in batches:
                if writing:
                    writing.result()
                writing = thread.submit(folder.add, batch)
                if batch.note:
                    write_line(batch.note)
                for request, png, why in batch.images:
                    failed |= {} if png else {request.filename: why}
                    in_a_row = 0 if png else in_a_row + (request.filename not in known)
                bar.set_postfix_str(f"failed {len(failed):,}" if failed else "", refresh=False)
                bar.update(sum(bool(image.png) for image in batch.images))
                if in_a_row >= MAX_CONSECUTIVE_FAILURES:
                    name, why = [*failed.items()][-1]
                    advice = "if other prompts may succeed, move them to the top of PROMPTS_CSV"
                    raise StepError(f"{in_a_row} images in a row failed, the last one, {name}, with: {why}; {advice}")
            if writing:
                writing.result()
    finally:
        folder.finish()
    if failed:
        reasons = listing([f"{name}: {why}" for name, why in failed.items()], separator="\n- ")
        more = f"; all are in {FAILED}" if len(failed) > 5 and folder.finished else ""
        print(f"error: no image for {counted(len(failed), 'request')}{more}:\n- {reasons}", file=sys.stderr)
    return len(failed)


def _report(output: Path, folder: GeneratedFolder, asked: int, made: int, seconds: float) -> None:
    speed = f" in {seconds:.1f} s, {made / seconds:.2f} images/s" if made else ""
    print(f"{output}: {len(folder.finished):,} of {asked:,} images, {made:,} generated{speed}")
    if folder.finished:
        print(f"load: synthchex_75k.load({str(output)!r})")
