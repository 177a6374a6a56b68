"""Puts the question to a model for every image that has no label yet."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import Any, NamedTuple

from _judges import Judge, JudgeError
from _progress import progress_bar
from _quality import parse_quality, question
from _quality_labels import LabelsFile, QualityLabel
from _steps import StepError, read

from synthchex_75k import Row, SourceError

MAX_FAILURES_IN_A_ROW = 20


class Run(NamedTuple):
    """What is asked of whom: the rows without a label, the model's name, the meta-prompt, all rows that there are."""

    rows: list[Row]
    model: str
    meta_prompt: str
    total: int


class Answer(NamedTuple):
    """Labels of a batch, or why it has none, by file name."""

    labels: list[QualityLabel]
    failed: dict[str, str]
    is_of_image: bool = True


def run_here(run: Run, judge: Judge) -> Iterator[Answer]:
    """Asks from threads of this process.

    Args:
        run: What is asked.
        judge: Whom.

    Yields:
        The answers, as they come.

    Raises:
        StepError: No image will get an answer.
        OSError: An image could not be read.
    """
    threads = ThreadPoolExecutor(judge.concurrency)
    try:
        running: set[Future[Answer]] = set()
        for batch, damaged in _batches(run.rows, judge.batch_size):
            yield from damaged
            if not batch:
                continue
            running.add(threads.submit(ask, judge, batch, run.model, run.meta_prompt))
            while len(running) >= 2 * judge.concurrency:  # half of them in flight, half of them read already
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
            raise StepError(f"{model} gave {len(responses)} answers to {len(batch)} questions")
        if strange := [response for response in responses if not isinstance(response, str)]:
            raise StepError(f"{model} gave an answer that is no text: {strange[0]!r}")
    except JudgeError as error:
        if len(batch) > 1 and error.is_of_image:  # of which one: ask about each
            answers = [ask(judge, [example], model, meta_prompt) for example in batch]
            failed = {name: why for answer in answers for name, why in answer.failed.items()}
            return Answer([label for answer in answers for label in answer.labels], failed)
        return Answer([], dict.fromkeys(names, str(error)), error.is_of_image)
    seconds = time.monotonic() - start
    labels = [
        QualityLabel(name, parse_quality(response), response, model, seconds)
        for name, response in zip(names, responses, strict=True)
    ]
    return Answer(labels, {})


def write_answers(answers: Iterator[Answer], run: Run, labels: LabelsFile) -> dict[str, str]:
    """Appends answers to LABELS_CSV as they come, and shows how far it is.

    Returns:
        Why images have no label, by file name.

    Raises:
        StepError: The model fails all the time.
    """
    failed: dict[str, str] = {}
    failures_in_a_row = 0
    counts = Counter(label.quality for label in labels.labels)
    with progress_bar("Labelling", run.total, "img", initial=run.total - len(run.rows)) as bar:
        for answer in answers:
            labels.append(answer.labels)
            failed |= answer.failed
            counts.update(label.quality for label in answer.labels)
            bar.set_postfix_str(", ".join(f"{name} {count:,}" for name, count in counts.items()), refresh=False)
            bar.update(len(answer.labels) + len(answer.failed))
            failures_in_a_row = 0 if answer.labels else failures_in_a_row + 1
            # Images that a server will not have are passed over for longer than a server that is down.
            if failures_in_a_row >= MAX_FAILURES_IN_A_ROW * (10 if answer.is_of_image else 1):
                why = next(reversed(failed.values()))
                raise StepError(f"{failures_in_a_row} questions in a row failed, the last with: {why}")
    return failed


def _batches(rows: list[Row], size: int) -> Iterator[tuple[list[dict[str, Any]], list[Answer]]]:
    """Yields so many rows at a time; those whose image is damaged apart, as answers that say so."""
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
