"""LABELS_CSV: a row for each image that a model has judged, appended as the answers come."""

from __future__ import annotations

import csv
import io
import json
import os
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.errors import StepError, counted, listing, one_line
from pipeline.files import atomic_write, filename_in_errors
from pipeline.lock import lock_file
from pipeline.quality.answers import QUALITIES, UNPARSED
from pipeline.table import check_field, csv_bytes
from synthchex_75k import Row

FSYNC_INTERVAL = 1  # seconds
MAX_BYTES = 256 << 20  # of LABELS_CSV: 3,500 for each image of SynthCheX-75K


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
    """LABELS_CSV, open for appending; use it as a context. A file without a label is removed at the end.

    Args:
        path: The CSV; created where it does not exist. `PATH.json` beside it holds the model and the meta-prompt.
        model: Name of the model.
        meta_prompt: The meta-prompt.

    Attributes:
        labels: All labels.
        repaired: Bytes of a half-written last line that were cut off.

    Raises:
        StepError: The file is of another model or meta-prompt, is no such file, or another run is writing to it; or the
            model's name cannot be written to it.
    """

    def __init__(self, path: Path, model: str, meta_prompt: str) -> None:
        self.labels: list[QualityLabel] = []
        self._path = path
        check_run(path, model, meta_prompt)
        self._file = open(path, "a+b")  # noqa: SIM115 - closed with the context
        try:
            if not lock_file(self._file):
                raise StepError(f"{path}: another run is writing to it")
            self.repaired = _cut_half_line(self._file)
            if self._file.tell() == 0:
                self._append_lines([QualityLabel._fields])
            self.labels = read_labels(path)
            if not self.labels:
                run = {"model": model, "meta_prompt": meta_prompt}
                atomic_write(_run_json(path), json.dumps(run, indent=2).encode() + b"\n")
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
            _run_json(self._path).unlink(missing_ok=True)

    def append(self, labels: Iterable[QualityLabel]) -> None:
        """Appends labels. A kill loses none of them; a power cut may lose those of the last second.

        Raises:
            ValueError: A text of a label cannot be written, see `check_field`.
            StepError: The file would be longer than `MAX_BYTES`.
        """
        for label in labels:
            self._append_lines([[*label[:-1], f"{label.latency_s:.3f}"]])
            self.labels.append(label)
        if time.monotonic() - self._fsynced > FSYNC_INTERVAL:
            os.fsync(self._file.fileno())
            self._fsynced = time.monotonic()

    def _append_lines(self, lines: Iterable[Iterable[str]]) -> None:
        data = csv_bytes(lines)
        if self._file.tell() + len(data) > MAX_BYTES:
            raise StepError(f"{self._path} would be longer than {MAX_BYTES:,} bytes; ask for shorter answers")
        with filename_in_errors(self._path):
            self._file.write(data)
            self._file.flush()


def read_labels(path: Path) -> list[QualityLabel]:
    """Reads LABELS_CSV.

    Raises:
        StepError: It is no such file, or has two labels of an image.
    """
    if not _exists(path):
        raise StepError(f"{path}: no such file; create it with `filter_quality.py label`")
    _check_header(path)
    labels: dict[str, QualityLabel] = {}
    with open(path, "rb") as file:
        lines = csv.reader(line.decode() for line in file)
        try:
            next(lines, None)
            for values in lines:
                label = _parse_label(values)
                if label.filename in labels:
                    raise ValueError(f"{one_line(label.filename)} has a label already; remove one")
                labels[label.filename] = label
        except (csv.Error, ValueError) as error:
            line = lines.line_num + isinstance(error, UnicodeDecodeError)  # the reader has not counted that line
            raise StepError(f"{path} line {line}: {error}") from None
    return [*labels.values()]


def check_run(path: Path, model: str, meta_prompt: str) -> None:
    """Checks that LABELS_CSV can hold a model's name and, if it exists, is of that model and meta-prompt.

    Raises:
        StepError: It cannot, is of others, is no such file, or the JSON file beside it is missing or damaged.
    """
    try:
        check_field(model)
    except ValueError as error:
        raise StepError(f"--model: {error}") from None
    if not _exists(path) or not _check_header(path):
        return
    before = _read_run(path)
    for key, value in {"model": model, "meta_prompt": meta_prompt}.items():
        if before.get(key) != value:
            other = key.replace("_", "-")
            raise StepError(f"{path} is of another {other}, {before.get(key)!r}; name another file for {value!r}")


def read_meta_prompt(path: Path) -> str | None:
    """Returns the meta-prompt of a LABELS_CSV; None where no JSON file beside it holds it.

    Raises:
        StepError: That file is damaged.
    """
    meta_prompt = _read_run(path).get("meta_prompt") if _exists(_run_json(path)) else None
    return meta_prompt if isinstance(meta_prompt, str) else None


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


def _parse_label(values: list[str]) -> QualityLabel:
    try:
        filename, quality, response, model, latency = values
        label = QualityLabel(filename, quality, response, model, float(latency))
    except ValueError:
        columns = len(QualityLabel._fields)
        raise ValueError(f"not a row of {columns} columns with a number at its end: {str(values)[:200]}") from None
    if quality not in (*QUALITIES, UNPARSED):
        raise ValueError(f"{quality[:40]!r} is not one of {', '.join((*QUALITIES, UNPARSED))}")
    return label


def _exists(path: Path) -> bool:
    """Checks that nothing is at a path, or a file that can be read in a short time; returns True for a file."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(status.st_mode):
        raise StepError(f"{path}: not a regular file; name another one")
    if status.st_size > MAX_BYTES:
        raise StepError(f"{path}: longer than {MAX_BYTES:,} bytes, so it is no CSV of labels; name another file")
    return True


def _check_header(path: Path) -> bool:
    """Checks that a file is a LABELS_CSV, perhaps with half a header; returns True if it has more than the header."""
    with open(path, "rb") as file:
        first = file.readline(1000)
        columns = next(csv.reader([first.decode("utf-8", "replace")]), [])
        if tuple(columns) != QualityLabel._fields and not csv_bytes([QualityLabel._fields]).startswith(first):
            raise StepError(f"{path}: not a CSV of labels: its columns are not {', '.join(QualityLabel._fields)}")
        return bool(file.readline())


def _read_run(path: Path) -> dict[str, Any]:
    run_json, remedy = _run_json(path), "restore it, or name another file"
    if not _exists(run_json):
        raise StepError(f"{run_json} is missing: it holds model and meta-prompt of {path.name}; {remedy}")
    try:
        run = json.loads(run_json.read_bytes())
    except (ValueError, RecursionError):
        run = None
    if not isinstance(run, dict):
        raise StepError(f"{run_json} is damaged: it holds model and meta-prompt of {path.name}; {remedy}")
    return run


def _run_json(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _cut_half_line(file: io.BufferedRandom) -> int:
    """Cuts off a half-written last row, and returns its length: bytes. Any other damage is left to `read_labels`."""
    file.seek(0)
    end = position = 0
    line = b""

    def lines() -> Iterator[str]:
        nonlocal line, position
        for line in file:
            position += len(line)
            yield line.decode("utf-8", "replace").replace("\0", "")  # which a power cut may leave

    try:
        for row in csv.reader(lines()):
            if line.endswith(b"\n") and len(row) == len(QualityLabel._fields):  # else the row ends within quotes
                end = position
    except csv.Error:
        end = position = file.seek(0, os.SEEK_END)
    file.truncate(end)
    file.seek(0, os.SEEK_END)
    return position - end
