"""OUTPUT_DIR: a SOURCE from the first image on.

Images are in `data/`, `metadata.csv` has a row for each, `provenance.json` tells how they were made, and `failed.csv`
which requests failed last. Rows are appended as images come; when all are there, `metadata.csv` is written once more,
in the order of the prompts. Nothing is changed before the first image has come.
"""

from __future__ import annotations

import csv
import datetime
import hashlib
import io
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.dataset_json import DATASET_JSON
from pipeline.errors import StepError
from pipeline.files import append, atomic_write, filename_in_errors, fsync, remove, remove_on_error, temporary_path
from pipeline.folder import DATA, Entry, OutputFolder
from pipeline.generate.ask import Batch, Image
from pipeline.generate.prompts import Request
from pipeline.jobs import WorkerPool
from pipeline.provenance import PROVENANCE, Step, new_step, parse_provenance, provenance_json
from pipeline.shards import find_finished
from pipeline.source_writer import METADATA
from pipeline.table import csv_bytes
from synthchex_75k import LABELS, Row

FAILED = "failed.csv"
HEADER = ["filename", "prompt", *LABELS, "seed"]
SAVE_INTERVAL = 60  # seconds between two writings of provenance.json and failed.csv
STEP = "generate"


class ImageFile(NamedTuple):
    """The file of an image, as `shards.find_finished` takes it."""

    path: Path
    identity: str

    @property
    def rows(self) -> list[Row]:
        """The rows of a source that it is made of: there are none."""
        return []

    def fingerprint(self, crcs: Iterable[int]) -> str:
        """Returns a hash of everything that the image depends on."""
        return self.identity


class GeneratedFolder:
    """The folder of a run, locked until the end of the context.

    Args:
        path: The folder; it need not exist.
        requests: All images that are asked for, in order.
        model: What the model's `describe` returns.
        about: More for the provenance; other values mean another request.
        overwrite: As in `OutputFolder`.

    Attributes:
        finished: Names of the images that are there.
        failed: Reasons by name of images that failed, in this run or before.

    Raises:
        StepError: The folder has other content, or was edited.
    """

    def __init__(
        self, path: Path, requests: list[Request], model: dict[str, Any], about: dict[str, Any], overwrite: bool
    ) -> None:
        request = {**model, **about}
        live = (METADATA, PROVENANCE, FAILED)
        self._folder = OutputFolder(path, METADATA, request, overwrite, live=live, editable=(DATASET_JSON,))
        self._requests, self._model, self._about = requests, model, about
        self.finished: set[str] = set()
        self.failed: dict[str, str] = {}
        self._outdated: list[Path] = []
        self._steps: list[Step] = []  # of provenance.json, but for that of this program
        self._before: Step = {}  # that of this program, before this run
        self._runs: list[dict[str, Any]] = []
        self._has_begun = False
        self._saved_at = 0.0

    def __enter__(self) -> GeneratedFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.__exit__()

    def find_missing(self, num_proc: int) -> list[Request]:
        """Returns the images that are missing, damaged or out of date; those that failed before come last.

        Args:
            num_proc: Processes that read the finished files.

        Raises:
            StepError: Finished images of another request would be replaced, or the folder was edited.
        """
        folder = self._folder
        self._check_metadata()
        self._read_provenance()
        self.failed = self._read_failed()
        files = [ImageFile(self._path_of(request), self._identity(request)) for request in self._requests]
        if folder.entries:
            with WorkerPool(num_proc) as pool:
                self.finished = {path.name for path in find_finished(pool, folder, files)}
        if self._runs and self._runs[-1]["ended"] is None:  # it was killed
            self._runs[-1]["images"] = max(0, len(self.finished) - sum(run["images"] for run in self._runs[:-1]))
        known = [folder.path / name for name in folder.entries if name.startswith(f"{DATA}/")]
        self._outdated = [path for path in known if path.name not in self.finished]
        folder.check_replaceable(self._outdated)
        missing = [request for request in self._requests if request.filename not in self.finished]
        return sorted(missing, key=lambda request: request.filename in self.failed)

    @property
    def is_done(self) -> bool:
        """True if all images are there, and all files are as `finish` writes them."""
        path = self._folder.path / METADATA
        is_current = self._folder.entry_of(path) is not None and path.read_bytes() == self._metadata()
        return is_current and self._is_complete() and not (self._outdated or self._folder.leftovers)

    def add(self, batch: Batch) -> None:
        """Writes the images of a batch, and then their rows. Before the first image, removes what is out of date."""
        images = [image for image in batch.images if image.png]
        self.failed |= {image.request.filename: image.failure for image in batch.images if not image.png}
        if images and not self._has_begun:
            self._begin()
        if not self._has_begun:
            return
        run = self._runs[-1]
        is_new = batch.machine["hardware"] not in run.get("hardware", [])
        run |= {**batch.machine, "hardware": [*run.get("hardware", []), *[batch.machine["hardware"]] * is_new]}
        if images:
            self._add_images(images)
        run["images"] += len(images)
        if is_new or time.monotonic() - self._saved_at > SAVE_INTERVAL:
            self._save()

    def finish(self) -> None:
        """Writes the small files in their final form; with images missing, as far as they go."""
        if not self._has_begun and self._is_complete() and not self.is_done:
            self._begin()
        if not self._has_begun:
            return
        self._runs[-1]["ended"] = _now()
        if not self._runs[-1]["images"]:
            self._runs.pop()
        self._save()
        if self._is_complete():
            self._folder.finish({METADATA: self._metadata()})

    def _begin(self) -> None:
        """Makes the folder ready for images: rows and files that are out of date go."""
        finished = [request for request in self._requests if request.filename in self.finished]
        entries = {request: self._folder.entries[f"{DATA}/{request.filename}"] for request in finished}
        # A kill at any point leaves only rows in metadata.csv that the manifest knows; labels may have changed.
        for request, entry in entries.items():
            entry["rows"] = sorted({*entry["rows"], _row_hash(_fields(request))})
        self._folder.begin([])
        atomic_write(self._folder.path / METADATA, self._metadata())
        for request, entry in entries.items():
            entry["rows"] = [_row_hash(_fields(request))]
        self._folder.begin(self._outdated)
        self._outdated, self._has_begun = [], True
        self._runs.append({"started": _now(), "ended": None, "images": 0})

    def _add_images(self, images: list[Image]) -> None:
        metadata = self._folder.path / METADATA
        size = metadata.stat().st_size
        try:
            self._folder.add_all([self._write(image) for image in images])
            append(metadata, csv_bytes(_fields(image.request) for image in images))
        except BaseException:  # such as a full disk: no half row
            self._folder.remove_leftovers()
            os.truncate(metadata, size)
            raise
        self.finished |= {image.request.filename for image in images}
        for image in images:
            self.failed.pop(image.request.filename, None)

    def _write(self, image: Image) -> tuple[Path, Path, Entry]:
        path = self._path_of(image.request)
        temporary = temporary_path(path)
        with remove_on_error(temporary), filename_in_errors(path):
            temporary.write_bytes(image.png)
            fsync(temporary)
        entry: Entry = {"size": len(image.png), "sha256": hashlib.sha256(image.png).hexdigest()}
        known = {"fingerprint": self._identity(image.request), "rows": [_row_hash(_fields(image.request))]}
        return temporary, path, {**entry, **known}

    def _is_complete(self) -> bool:
        return len(self.finished) == len(self._requests)

    def _path_of(self, request: Request) -> Path:
        return self._folder.path / DATA / request.filename

    def _identity(self, request: Request) -> str:
        """Returns a hash of what the image depends on: not the labels, which no model sees, nor a folder's name."""
        is_hashed = "weights_sha256" in self._model
        model = {name: value for name, value in self._model.items() if name != "model" or not is_hashed}
        content = [request.filename, request.prompt, request.seed, model]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def _metadata(self) -> bytes:
        rows = [_fields(request) for request in self._requests if request.filename in self.finished]
        return csv_bytes([HEADER, *rows])

    def _check_metadata(self) -> None:
        """Checks that an incomplete metadata.csv holds rows that this program wrote, perhaps half of the last one."""
        path = self._folder.path / METADATA
        if METADATA in self._folder.entries or not path.is_file():
            return
        known = {_row_hash(HEADER), *(row for entry in self._folder.entries.values() for row in entry.get("rows", []))}
        content, written = path.read_bytes(), []
        rows = csv.reader(io.StringIO(content.decode("utf-8", "replace"), newline=""))
        try:
            for row in rows:
                if _row_hash(row) not in known:
                    break
                written.append(csv_bytes([row]))
        except (csv.Error, ValueError):  # it was edited, or cut off within quotes
            pass
        ours = b"".join(written)
        rest = content[len(ours) :]
        is_half = rest and any(csv_bytes([_fields(request)]).startswith(rest) for request in self._requests)
        is_ours = content.startswith(ours) or content + b"\n" == ours
        if not is_ours or (rest and not is_half):
            raise StepError(f"{path} line {rows.line_num} was not written by this program; move the file away")

    def _read_provenance(self) -> None:
        """Reads what provenance.json held before; steps and fields that people added are kept."""
        path = self._folder.path / PROVENANCE
        if not path.is_file():
            return
        steps = parse_provenance(path.read_bytes(), str(path))
        self._before = next((step for step in steps if step["step"] == STEP), {})
        self._steps = [step for step in steps if step is not self._before]
        decides = json.loads(json.dumps({**self._model, "seed": self._about["seed"]}))
        runs = self._before.get("runs")
        if isinstance(runs, list) and all(self._before.get(name) == value for name, value in decides.items()):
            self._runs = [dict(run) for run in runs if {"started", "ended", "images"} <= {*run}]

    def _read_failed(self) -> dict[str, str]:
        """Reads why requests failed before."""
        path = self._folder.path / FAILED
        if not path.is_file():
            return {}
        with open(path, newline="", encoding="utf-8", errors="replace") as file:
            try:
                return {row["filename"]: row.get("reason") or "" for row in csv.DictReader(file) if row.get("filename")}
            except csv.Error as error:
                raise StepError(f"{path}: unreadable CSV: {error}; remove it") from None

    def _save(self) -> None:
        """Writes provenance.json and failed.csv."""
        fields = {**self._model, **self._about, "images": len(self.finished), "runs": self._runs}
        step = {**self._before, **new_step(STEP, **fields)}
        atomic_write(self._folder.path / PROVENANCE, provenance_json([step, *self._steps]))
        wanted = {request.filename for request in self._requests} - self.finished
        failed = [[name, reason] for name, reason in self.failed.items() if name in wanted]
        if failed:
            atomic_write(self._folder.path / FAILED, csv_bytes([["filename", "reason"], *failed]))
        else:
            remove([self._folder.path / FAILED])
        self._saved_at = time.monotonic()


def _fields(request: Request) -> list[str]:
    labels = ("" if label is None else str(label) for label in request.labels)
    return [request.filename, request.prompt, *labels, str(request.seed)]


def _row_hash(fields: list[str]) -> str:
    return hashlib.sha256(json.dumps(fields).encode()).hexdigest()[:16]


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
