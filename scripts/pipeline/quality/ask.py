"""Asks a judge about images from threads of this process, and appends the answers to LABELS_CSV as they come."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import Any, NamedTuple

from pipeline.errors import StepError
from pipeline.progress import progress_bar
from pipeline.quality.answers import parse_quality, question
from pipeline.quality.judges import Judge, JudgeError, JudgeOptions
from pipeline.quality.labels_csv import LabelsFile, QualityLabel
from pipeline.rows import read
from pipeline.table import check_field
from synthchex_75k import Row, SourceError

MAX_CONSECUTIVE_FAILURES = 20


class Questions(NamedTuple):
    """What the judge is asked about each row: a task of `engine`.

    Attributes:
        judge: The judge to make.
        meta_prompt: The meta-prompt.
    """

    judge: JudgeOptions
    meta_prompt: str

    @property
    def items_at_once(self) -> int:
        """How many rows a worker gets at once."""
        return self.judge.images_at_once

    def load(self) -> Callable[[list[Row]], Iterator[BatchResult]]:
        """Makes the judge, and returns the function that asks it about rows."""
        judge = self.judge.make()
        return lambda rows: ask_in_threads(rows, judge, self.judge.model, self.meta_prompt)


class BatchResult(NamedTuple):
    """Labels of a batch, or why it has none by file name; `image_specific` as in `JudgeError`."""

    labels: list[QualityLabel]
    failed: dict[str, str]
    image_specific: bool = True


def ask_in_threads(rows: list[Row], judge: Judge, model: str, meta_prompt: str) -> Iterator[BatchResult]:
    """Asks about rows from threads of this process.

    Args:
        rows: The rows.
        judge: The model.
        model: Its name.
        meta_prompt: The meta-prompt.

    Yields:
        The results, as they come.

    Raises:
        StepError: No image will get an answer.
        OSError: A file cannot be read.
    """
    threads = ThreadPoolExecutor(judge.concurrency)
    try:
        running: set[Future[BatchResult]] = set()
        for batch, damaged in _batches(rows, judge.batch_size):
            yield from damaged
            if not batch:
                continue
            running.add(threads.submit(ask_batch, judge, batch, model, meta_prompt))
            while len(running) >= 2 * judge.concurrency:  # half of them are requests, half are images read ahead
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


def ask_batch(judge: Judge, batch: list[dict[str, Any]], model: str, meta_prompt: str) -> BatchResult:
    """Asks about a batch of rows, as `synthchex_75k.examples` yields them."""
    images = [example["image"]["bytes"] for example in batch]
    questions = [question(example["prompt"], meta_prompt) for example in batch]
    names = [example["filename"] for example in batch]
    start = time.monotonic()
    try:
        responses = judge.ask(images, questions)
    except JudgeError as error:
        if len(batch) > 1 and error.image_specific:  # to find the image, ask about each
            results = [ask_batch(judge, [example], model, meta_prompt) for example in batch]
            failed = {name: why for result in results for name, why in result.failed.items()}
            return BatchResult([label for result in results for label in result.labels], failed)
        return BatchResult([], dict.fromkeys(names, str(error)), error.image_specific)
    seconds = time.monotonic() - start
    if len(responses) != len(batch):
        raise StepError(f"{model} returned {len(responses)} answers to {len(batch)} questions")
    if strange := [response for response in responses if not isinstance(response, str)]:
        raise StepError(f"{model} returned an answer that is no text: {strange[0]!r}")
    labels, failed = [], {}
    for name, response in zip(names, responses, strict=True):
        try:
            check_field(response)
        except ValueError as error:
            failed[name] = f"the answer is no text that LABELS_CSV can hold unchanged: {error}"
        else:
            labels.append(QualityLabel(name, parse_quality(response), response, model, seconds))
    return BatchResult(labels, failed)


def write_answers(results: Iterator[BatchResult], labels: LabelsFile, remaining: int) -> dict[str, str]:
    """Appends answers to LABELS_CSV as they come, with a progress bar.

    Args:
        results: The results of all batches.
        labels: The file.
        remaining: Number of images that are asked about.

    Returns:
        Why images have no label, by file name.

    Raises:
        StepError: Too many questions in a row failed.
    """
    failed: dict[str, str] = {}
    failures = 0  # in a row
    counts = Counter(label.quality for label in labels.labels)
    before = len(labels.labels)
    with progress_bar("Labelling", before + remaining, "img", initial=before) as bar:
        for result in results:
            labels.append(result.labels)
            failed |= result.failed
            counts.update(label.quality for label in result.labels)
            shown = {**counts, **({"failed": len(failed)} if failed else {})}
            bar.set_postfix_str(", ".join(f"{name} {count:,}" for name, count in shown.items()), refresh=False)
            bar.update(len(result.labels))
            failures = 0 if result.labels else failures + 1
            # Tolerate more consecutive rejected images than connection failures.
            if failures >= MAX_CONSECUTIVE_FAILURES * (10 if result.image_specific else 1):
                why = next(reversed(failed.values()))
                raise StepError(f"{failures} questions in a row failed, the last one with: {why}")
    return failed


def _batches(rows: list[Row], size: int) -> Iterator[tuple[list[dict[str, Any]], list[BatchResult]]]:
    """Yields batches of rows, and a result with the reason for each damaged image."""
    examples = _read_each(rows)
    while batch := [*islice(examples, size)]:
        yield (
            [example for example in batch if not isinstance(example, BatchResult)],
            [example for example in batch if isinstance(example, BatchResult)],
        )


def _read_each(rows: list[Row]) -> Iterator[dict[str, Any] | BatchResult]:
    done = 0
    while done < len(rows):
        try:
            for _, example in read(rows[done:]):
                yield example
                done += 1
        except SourceError as error:
            yield BatchResult([], {rows[done].filename: str(error)})
            done += 1
