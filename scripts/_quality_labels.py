"""LABELS_CSV: one row for each image that a model has judged, appended as the answers come."""

from __future__ import annotations

import csv
import io
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from _files import appearing, naming
from _quality import QUALITIES, UNPARSED
from _steps import StepError

from synthchex_75k import Row

FLUSH_EVERY = 1  # seconds between what is brought to the disk


class QualityLabel(NamedTuple):
    """What a model said of an image.

    Args:
        filename: Of the image.
        quality: One of `QUALITIES`, or `UNPARSED`.
        response: The answer, as it came.
        model: Name of the model.
        latency_s: Seconds from the question to the answer; of a batch, of all its images together.
    """

    filename: str
    quality: str
    response: str
    model: str
    latency_s: float


class LabelsFile:
    """LABELS_CSV, open to be continued; use it as a context.

    Args:
        path: The CSV; made if it is not there. Beside it, `PATH.json` says which model and meta-prompt it is of.
        model: Name of the model.
        meta_prompt: The meta-prompt.

    Raises:
        StepError: The file is of another model or meta-prompt, is no such file, or somebody else is writing to it.
    """

    def __init__(self, path: Path, model: str, meta_prompt: str) -> None:
        self.labels: list[QualityLabel] = []
        self._path = path
        self._file = open(path, "a+b")  # noqa: SIM115 - closed with the context
        try:
            _lock(self._file, path)
            self.repaired = _repair(self._file)
            if self._file.tell() == 0:
                self._write(QualityLabel._fields)
            self.labels = read_labels(path)
            _check_run(path, {"model": model, "meta_prompt": meta_prompt}, is_new=not self.labels)
        except BaseException:
            self._file.close()
            raise
        self._flushed = time.monotonic()

    def __enter__(self) -> LabelsFile:
        return self

    def __exit__(self, *_: object) -> None:
        with naming(self._path):
            os.fsync(self._file.fileno())
            self._file.close()

    def append(self, labels: Iterable[QualityLabel]) -> None:
        """Appends labels; after a kill they are there, after a power cut all but those of the last second."""
        for label in labels:
            self._write([*label[:-1], f"{label.latency_s:.3f}"])
            self.labels.append(label)
        if time.monotonic() - self._flushed > FLUSH_EVERY:
            os.fsync(self._file.fileno())
            self._flushed = time.monotonic()

    def _write(self, values: Iterable[str]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(values)
        with naming(self._path):
            self._file.write(text.getvalue().encode())
            self._file.flush()


def read_labels(path: Path) -> list[QualityLabel]:
    """Reads LABELS_CSV.

    Raises:
        StepError: It is no such file, or an image is in it twice.
    """
    if not path.is_file():
        raise StepError(f"{path}: no such file; make it with `filter_quality.py label`")
    with open(path, newline="", encoding="utf-8") as file:
        lines = csv.reader(file)
        header = next(lines, [])
        if tuple(header) != QualityLabel._fields:
            raise StepError(f"{path}: not a CSV of labels: its columns are not {', '.join(QualityLabel._fields)}")
        labels: dict[str, QualityLabel] = {}
        for values in lines:
            at = f"{path} line {lines.line_num}"
            try:
                filename, quality, response, model, latency = values
                label = QualityLabel(filename, quality, response, model, float(latency))
            except ValueError:
                raise StepError(
                    f"{at}: not a row of {len(header)} columns with a number at its end: {values}"
                ) from None
            if label.quality not in (*QUALITIES, UNPARSED):
                raise StepError(f"{at}: {label.quality!r} is not one of {', '.join((*QUALITIES, UNPARSED))}")
            if label.filename in labels:
                raise StepError(f"{at}: {label.filename} has a label already; remove one")
            labels[label.filename] = label
    return [*labels.values()]


def check_belongs(labels: Iterable[QualityLabel], rows: Iterable[Row], path: Path) -> None:
    """Checks that labels are of the images of a SOURCE.

    Raises:
        StepError: There are others.
    """
    strange = sorted({label.filename for label in labels} - {row.filename for row in rows})
    if strange:
        raise StepError(
            f"{path} is of another source: it has labels of images that are not in this one "
            f"({len(strange):,} in all): {'; '.join(strange[:5])}"
        )


def _check_run(path: Path, run: dict[str, str], is_new: bool) -> None:
    """Checks that a file is of this model and meta-prompt, or writes down that it is."""
    beside = path.with_name(f"{path.name}.json")
    if is_new:
        with appearing(beside) as incomplete:
            incomplete.write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
    if not beside.is_file():
        raise StepError(f"{beside} is missing, which says what {path.name} is of; put it back, or name another file")
    before = json.loads(beside.read_text(encoding="utf-8"))
    for key, value in run.items():
        if before.get(key) != value:
            raise StepError(
                f"{path} is of another {key.replace('_', '-')}, {before.get(key)!r}; name another file for {value!r}"
            )


def _repair(file: io.BufferedRandom) -> int:
    """Cuts off a half-written last line, and returns how many bytes that were."""
    file.seek(0)
    end = position = 0
    in_quotes = False
    for line in file:
        position += len(line)
        in_quotes ^= line.count(b'"') % 2 == 1  # a line break in quotes ends no row
        if line.endswith(b"\n") and not in_quotes:
            end = position
    file.truncate(end)
    file.seek(0, os.SEEK_END)
    return position - end


def _lock(file: io.BufferedRandom, path: Path) -> None:
    if os.name != "posix":
        return
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StepError(f"{path}: another run is writing to it") from None
