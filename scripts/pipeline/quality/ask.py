"""Asks a model about every image that has no label yet, from threads of this process."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.errors import StepError, counted
from pipeline.facts import META_PROMPT
from pipeline.progress import progress_bar
from pipeline.quality.answers import parse_quality, question
from pipeline.quality.judges import (
    MAX_TOKENS,
    CallableJudge,
    Judge,
    JudgeError,
    ServerJudge,
    TransformersJudge,
)
from pipeline.quality.labels import LabelsFile, QualityLabel, check_belongs, check_run
from pipeline.quality.report import text_table
from pipeline.rows import plan, read
from synthchex_75k import Row, SourceError

MAX_CONSECUTIVE_FAILURES = 20
SHOWN = 5  # images without an answer that are named at the end


class Run(NamedTuple):
    """The questions of a run: rows without a label, the model's name, the meta-prompt, and the number of all rows."""

    rows: list[Row]
    model: str
    meta_prompt: str
    total: int


class Answer(NamedTuple):
    """Labels of a batch, or why it has none by file name; `image_specific` as in `JudgeError`."""

    labels: list[QualityLabel]
    failed: dict[str, str]
    image_specific: bool = True


def label(
    source: str,
    labels_csv: Path,
    model: str,
    base_url: str | None = None,
    function: str | None = None,
    concurrency: int = 16,
    batch_size: int = 8,
    max_tokens: int = MAX_TOKENS,
    limit: int | None = None,
    meta_prompt: Path | None = None,
    engine: str = "local",
    workers: int = 2,
    on_mismatch: str = "error",
) -> int:
    """Labels the images of a source that have no label yet.

    Args:
        source: The SOURCE, as in `synthchex_75k.plan`.
        labels_csv: File for the labels; an existing one is continued.
        model: Name of the model, for the server or the Hub, or its folder.
        base_url: Address of an OpenAI-compatible server.
        function: A model with code of its own, as `MODULE:FUNCTION`. Without it and `base_url`, the model is one of
            `transformers` in this process.
        concurrency: Parallel requests to a server.
        batch_size: Images at once, without a server.
        max_tokens: Upper bound of an answer's length, not with `function`: tokens.
        limit: Ask about at most this number of images.
        meta_prompt: File with another meta-prompt than `META_PROMPT`.
        engine: `"local"`, or `"ray"` for Ray Data.
        workers: Processes of Ray that ask; each has a model of its own.
        on_mismatch: `"error"` or `"skip"`, as in `synthchex_75k.plan`.

    Returns:
        The exit code: 0, 1 if an image has no label.

    Raises:
        SourceError: The source cannot be used.
        StepError: No image gets an answer, or LABELS_CSV cannot be continued.
        OSError: A file cannot be read or written.
    """
    text = meta_prompt.read_text(encoding="utf-8").strip() if meta_prompt else META_PROMPT
    check_run(labels_csv, model, text)

    def make() -> Judge:
        if base_url:
            return ServerJudge(model, base_url, concurrency, max_tokens)
        return CallableJudge(function, batch_size) if function else TransformersJudge(model, batch_size, max_tokens)

    rows = plan(source, on_mismatch)
    start = _starter(engine, make, workers)
    with LabelsFile(labels_csv, model, text) as labels:
        check_belongs(labels.labels, rows, labels_csv)
        if labels.repaired:
            print(f"{labels_csv}: cut off a half-written last line of {labels.repaired} bytes", file=sys.stderr)
        labelled = {label.filename for label in labels.labels}
        todo = [row for row in rows if row.filename not in labelled][:limit]
        run = Run(todo, model, text, len(labelled) + len(todo))
        failed = write_answers(start(run), run, labels) if todo else {}
        print(f"{labels_csv}: {len(labels.labels):,} of {len(rows):,} images have a label")
        print(text_table({"All images": Counter(label.quality for label in labels.labels)}))
    if failed:
        listed = "".join(f"\n- {name}: {why}" for name, why in islice(failed.items(), SHOWN))
        more = f"\n- and {len(failed) - SHOWN:,} more" if len(failed) > SHOWN else ""
        count = counted(len(failed), "image")
        print(f"error: no answer for {count}; run the command again to ask again:{listed}{more}", file=sys.stderr)
    return min(len(failed), 1)


def _starter(engine: str, make: Callable[[], Judge], workers: int) -> Callable[[Run], Iterator[Answer]]:
    """Prepares an engine, so that whatever it lacks is an error before LABELS_CSV is created."""
    if engine == "ray":
        from pipeline.quality.ray_engine import ask_with_ray, require_ray  # only here, since Ray is an extra

        require_ray()
        return lambda run: ask_with_ray(run, make, workers)
    judge = make()
    return lambda run: ask_locally(run, judge)


def ask_locally(run: Run, judge: Judge) -> Iterator[Answer]:
    """Asks from threads of this process.

    Args:
        run: The questions.
        judge: The model.

    Yields:
        The answers, as they come.

    Raises:
        StepError: No image will get an answer.
        OSError: A file cannot be read.
    """
    threads = ThreadPoolExecutor(judge.concurrency)
    try:
        running: set[Future[Answer]] = set()
        for batch, damaged in _batches(run.rows, judge.batch_size):
            yield from damaged
            if not batch:
                continue
            running.add(threads.submit(ask, judge, batch, run.model, run.meta_prompt))
            while len(running) >= 2 * judge.concurrency:  # half of them are requests, half are images read ahead
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


def ask(judge: Judge, batch: list[dict[str, Any]], model: str, meta_prompt: str) -> Answer:
    """Asks about a batch of rows, as `synthchex_75k.examples` yields them."""
    images = [example["image"]["bytes"] for example in batch]
    questions = [question(example["prompt"], meta_prompt) for example in batch]
    names = [example["filename"] for example in batch]
    start = time.monotonic()
    try:
        responses = judge.ask(images, questions)
        if len(responses) != len(batch):
            raise StepError(f"{model} returned {len(responses)} answers to {len(batch)} questions")
        if strange := [response for response in responses if not isinstance(response, str)]:
            raise StepError(f"{model} returned an answer that is no text: {strange[0]!r}")
    except JudgeError as error:
        if len(batch) > 1 and error.image_specific:  # to find the image, ask about each
            answers = [ask(judge, [example], model, meta_prompt) for example in batch]
            failed = {name: why for answer in answers for name, why in answer.failed.items()}
            return Answer([label for answer in answers for label in answer.labels], failed)
        return Answer([], dict.fromkeys(names, str(error)), error.image_specific)
    seconds = time.monotonic() - start
    labels = [
        QualityLabel(name, parse_quality(response), response, model, seconds)
        for name, response in zip(names, responses, strict=True)
    ]
    return Answer(labels, {})


def write_answers(answers: Iterator[Answer], run: Run, labels: LabelsFile) -> dict[str, str]:
    """Appends answers to LABELS_CSV as they come, with a progress bar.

    Args:
        answers: The answers.
        run: The questions.
        labels: The file.

    Returns:
        Why images have no label, by file name.

    Raises:
        StepError: Too many questions in a row failed.
    """
    failed: dict[str, str] = {}
    failures = 0  # in a row
    counts = Counter(label.quality for label in labels.labels)
    with progress_bar("Labelling", run.total, "img", initial=run.total - len(run.rows)) as bar:
        for answer in answers:
            labels.append(answer.labels)
            failed |= answer.failed
            counts.update(label.quality for label in answer.labels)
            shown = {**counts, **({"failed": len(failed)} if failed else {})}
            bar.set_postfix_str(", ".join(f"{name} {count:,}" for name, count in shown.items()), refresh=False)
            bar.update(len(answer.labels))
            failures = 0 if answer.labels else failures + 1
            # Tolerate more consecutive rejected images than connection failures.
            if failures >= MAX_CONSECUTIVE_FAILURES * (10 if answer.image_specific else 1):
                why = next(reversed(failed.values()))
                raise StepError(f"{failures} questions in a row failed, the last one with: {why}")
    return failed


def _batches(rows: list[Row], size: int) -> Iterator[tuple[list[dict[str, Any]], list[Answer]]]:
    """Yields batches of rows, and for damaged images answers with the reason."""
    examples = _read_each(rows)
    while batch := [*islice(examples, size)]:
        yield (
            [example for example in batch if not isinstance(example, Answer)],
            [example for example in batch if isinstance(example, Answer)],
        )


def _read_each(rows: list[Row]) -> Iterator[dict[str, Any] | Answer]:
    done = 0
    while done < len(rows):
        try:
            for _, example in read(rows[done:]):
                yield example
                done += 1
        except SourceError as error:
            yield Answer([], {rows[done].filename: str(error)})
            done += 1
