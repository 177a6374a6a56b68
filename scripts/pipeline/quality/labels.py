"""LABELS_CSV: a row for each image that a model has judged, appended as the answers come."""

from __future__ import annotations

import csv
import io
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.errors import StepError, counted, listing
from pipeline.files import atomic_write, filename_in_errors
from pipeline.quality.answers import QUALITIES, UNPARSED
from synthchex_75k import Row

FSYNC_INTERVAL = 1  # seconds


class QualityLabel(NamedTuple):
    """A model's answer about an image.

    Args:
        filename: Of the image.
        quality: One of `QUALITIES`, or `UNPARSED`.
        response: The answer, unchanged.
        model: Name of the model.
        latency_s: Seconds from the question to the answer; of a batch, of all its images together.
    """

    filename: str
    quality: str
    response: str
    model: str
    latency_s: float


class LabelsFile:
    """LABELS_CSV, open for appending; use it as a context. A new file without a label is removed at the end.

    Args:
        path: The CSV; created where it does not exist. `PATH.json` beside it holds the model and the meta-prompt.
        model: Name of the model.
        meta_prompt: The meta-prompt.

    Attributes:
        labels: All labels.
        repaired: Bytes of a half-written last line that were cut off.

    Raises:
        StepError: The file is of another model or meta-prompt, is no such file, or another run is writing to it.
    """

    def __init__(self, path: Path, model: str, meta_prompt: str) -> None:
        self.labels: list[QualityLabel] = []
        self._path = path
        self._file = open(path, "a+b")  # noqa: SIM115 - closed with the context
        try:
            _lock(self._file, path)
            self.repaired = _cut_half_line(self._file)
            if self._file.tell() == 0:
                self._write(QualityLabel._fields)
            self.labels = read_labels(path)
            if not self.labels:
                run = {"model": model, "meta_prompt": meta_prompt}
                atomic_write(_about(path), json.dumps(run, indent=2).encode() + b"\n")
            check_run(path, model, meta_prompt)
        except BaseException:
            self._file.close()
            raise
        self._fsynced = time.monotonic()

    def __enter__(self) -> LabelsFile:
        return self

    def __exit__(self, *_: object) -> None:
        with filename_in_errors(self._path):
            os.fsync(self._file.fileno())
            self._file.close()
        if not self.labels:
            self._path.unlink()
            _about(self._path).unlink()

    def append(self, labels: Iterable[QualityLabel]) -> None:
        """Appends labels. A kill loses none of them; a power cut may lose those of the last second."""
        for label in labels:
            self._write([*label[:-1], f"{label.latency_s:.3f}"])
            self.labels.append(label)
        if time.monotonic() - self._fsynced > FSYNC_INTERVAL:
            os.fsync(self._file.fileno())
            self._fsynced = time.monotonic()

    def _write(self, values: Iterable[str]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(values)
        with filename_in_errors(self._path):
            self._file.write(text.getvalue().encode())
            self._file.flush()


def read_labels(path: Path) -> list[QualityLabel]:
    """Reads LABELS_CSV.

    Raises:
        StepError: It is no such file, or has two labels of an image.
    """
    if not path.is_file():
        raise StepError(f"{path}: no such file; create it with `filter_quality.py label`")
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


def check_run(path: Path, model: str, meta_prompt: str) -> None:
    """Checks that LABELS_CSV, if it exists, is of a model and meta-prompt.

    Raises:
        StepError: It is of others, or the file that tells is missing.
    """
    if not path.is_file() or not _has_rows(path):
        return
    about = _about(path)
    if not about.is_file():
        raise StepError(
            f"{about} is missing: it holds model and meta-prompt of {path.name}; restore it, or name another file"
        )
    before: dict[str, Any] = json.loads(about.read_text(encoding="utf-8"))
    for key, value in {"model": model, "meta_prompt": meta_prompt}.items():
        if before.get(key) != value:
            other = key.replace("_", "-")
            raise StepError(f"{path} is of another {other}, {before.get(key)!r}; name another file for {value!r}")


def _has_rows(path: Path) -> bool:
    """True if a file has more than the header of LABELS_CSV."""
    with open(path, "rb") as file:
        file.readline()
        return bool(file.readline())


def check_belongs(labels: Iterable[QualityLabel], rows: Iterable[Row], path: Path) -> None:
    """Checks that labels are of the images of a SOURCE.

    Raises:
        StepError: Some are not.
    """
    strange = sorted({label.filename for label in labels} - {row.filename for row in rows})
    if strange:
        count = counted(len(strange), "image")
        raise StepError(
            f"{path} is of another source: it has labels of {count} that this one lacks: {listing(strange)}"
        )


def _about(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _cut_half_line(file: io.BufferedRandom) -> int:
    """Cuts off a half-written last line, and returns its length: bytes."""
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
