"""OUTPUT_DIR: a SOURCE from the first image on.

Images are in `data/`, `metadata.csv` has a row for each, and `provenance.json` tells how they were made. Rows are
appended as images come; when all are there, `metadata.csv` is written once more, in the order of the prompts.
"""

from __future__ import annotations

import csv
import datetime
import hashlib
import io
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.dataset_json import DATASET_JSON
from pipeline.errors import StepError
from pipeline.files import append, atomic_write, filename_in_errors, fsync, remove_on_error, temporary_path
from pipeline.folder import DATA, Entry, OutputFolder
from pipeline.generate.ask import Batch, Image
from pipeline.generate.prompts import Request
from pipeline.jobs import WorkerPool
from pipeline.provenance import PROVENANCE, new_step, provenance_json
from pipeline.shards import find_finished
from pipeline.table import csv_bytes
from synthchex_75k import LABELS, Row

METADATA = "metadata.csv"
HEADER = ["filename", "prompt", *LABELS, "seed"]
PROVENANCE_INTERVAL = 60  # seconds


class ImageFile(NamedTuple):
    """The file of an image, as `shards.find_finished` takes it."""

    path: Path
    identity: str

    @property
    def rows(self) -> list[Row]:
        """None: it is made of no source."""
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

    Raises:
        StepError: The folder has other content, or was edited.
    """

    def __init__(
        self,
        path: Path,
        requests: list[Request],
        model: dict[str, Any],
        about: dict[str, Any],
        overwrite: bool,
    ) -> None:
        names = {"unchecked": (METADATA, PROVENANCE), "editable": (DATASET_JSON,)}
        self._folder = OutputFolder(path, METADATA, {**model, **about}, overwrite, **names)
        self._requests, self._model, self._about = requests, model, about
        self._finished: set[str] = set()
        self._outdated: list[Path] = []
        self._runs: list[dict[str, Any]] = []
        self._saved = 0.0

    def __enter__(self) -> GeneratedFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.__exit__()

    def find_missing(self, num_proc: int) -> list[Request]:
        """Returns the images that are missing, damaged or out of date.

        Args:
            num_proc: Processes that read the finished files.

        Raises:
            StepError: Finished images of another request would be replaced, or the folder was edited.
        """
        folder = self._folder
        self._check_metadata()
        self._runs = self._read_runs()
        files = [ImageFile(self._path_of(request), self._identity(request)) for request in self._requests]
        if folder.entries:
            with WorkerPool(num_proc) as pool:
                self._finished = {path.name for path in find_finished(pool, folder, files)}
        if self._runs and self._runs[-1]["ended"] is None:  # it was killed
            self._runs[-1]["images"] = max(0, len(self._finished) - sum(run["images"] for run in self._runs[:-1]))
        known = [folder.path / name for name in folder.entries if name.startswith(f"{DATA}/")]
        self._outdated = [path for path in known if path.name not in self._finished]
        folder.check_replaceable(self._outdated)
        return [request for request in self._requests if request.filename not in self._finished]

    def begin(self) -> None:
        """Makes the folder ready for images: no file of it is out of date any more."""
        self._folder.begin([])  # a kill at any point leaves no row in metadata.csv that the manifest does not know
        atomic_write(self._folder.path / METADATA, self._metadata())
        for request in self._requests:  # labels may have changed
            if request.filename in self._finished:
                self._folder.entries[f"{DATA}/{request.filename}"]["row"] = _row_hash(_fields(request))
        self._folder.begin(self._outdated)
        self._runs.append({"started": _now(), "ended": None, "images": 0})
        self._write_provenance()

    def add(self, batch: Batch) -> None:
        """Writes the images of a batch, and then their rows."""
        run = self._runs[-1]
        hardware = _joined(run.get("hardware", ""), batch.machine["hardware"])
        is_new = hardware != run.get("hardware")
        run |= {**batch.machine, "hardware": hardware}
        images = [image for image in batch.images if image.png]
        if not images:
            return
        try:
            self._folder.add_all([self._write(image) for image in images])
        except BaseException:
            self._folder.remove_leftovers()
            raise
        append(self._folder.path / METADATA, csv_bytes(_fields(image.request) for image in images))
        self._finished |= {image.request.filename for image in images}
        run["images"] += len(images)
        if is_new or time.monotonic() - self._saved > PROVENANCE_INTERVAL:
            self._write_provenance()

    def finish(self) -> None:
        """Writes the small files in their final form, if all images are there."""
        if self._runs and self._runs[-1]["ended"] is None:
            self._runs[-1]["ended"] = _now()
            if not self._runs[-1]["images"]:
                self._runs.pop()
            self._write_provenance()
        if not self._finished:
            self._folder.clear()
        elif self._is_complete():
            self._folder.finish({METADATA: self._metadata(), PROVENANCE: self._provenance()})

    @property
    def count(self) -> int:
        """How many images are there."""
        return len(self._finished)

    @property
    def is_done(self) -> bool:
        """True if all files are as `finish` writes them."""
        path, entry = self._folder.path / METADATA, self._folder.entry_of(self._folder.path / METADATA)
        is_current = entry is not None and path.read_bytes() == self._metadata()
        return is_current and not (self._outdated or self._folder.leftovers)

    def _is_complete(self) -> bool:
        return len(self._finished) == len(self._requests)

    def _path_of(self, request: Request) -> Path:
        return self._folder.path / DATA / request.filename

    def _identity(self, request: Request) -> str:
        content = [request.filename, request.prompt, request.seed, self._model]  # not the labels: no model sees them
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def _write(self, image: Image) -> tuple[Path, Path, Entry]:
        path = self._path_of(image.request)
        temporary = temporary_path(path)
        with remove_on_error(temporary), filename_in_errors(path):
            temporary.write_bytes(image.png)
            fsync(temporary)
        entry: Entry = {"size": len(image.png), "sha256": hashlib.sha256(image.png).hexdigest()}
        known = {"fingerprint": self._identity(image.request), "row": _row_hash(_fields(image.request))}
        return temporary, path, {**entry, **known}

    def _metadata(self) -> bytes:
        rows = [_fields(request) for request in self._requests if request.filename in self._finished]
        return csv_bytes([HEADER, *rows])

    def _check_metadata(self) -> None:
        """Checks that an incomplete metadata.csv holds rows that this program wrote, perhaps half of the last one."""
        path = self._folder.path / METADATA
        if METADATA in self._folder.entries or not path.is_file():
            return
        known = {_row_hash(HEADER), *(entry.get("row") for entry in self._folder.entries.values())}
        known |= {_row_hash(_fields(request)) for request in self._requests}
        text = path.read_bytes().decode("utf-8", "replace")
        rows = csv.reader(io.StringIO(text, newline=""))
        unknown = [(rows.line_num, row) for row in rows if _row_hash(row) not in known]
        is_half = len(unknown) == 1 and (len(unknown[0][1]) < len(HEADER) or not text.endswith("\n"))
        if unknown and not (is_half and unknown[0][0] == rows.line_num):
            raise StepError(f"{path} line {unknown[0][0]} was not written by this program; move the file away")

    def _read_runs(self) -> list[dict[str, Any]]:
        """Reads the runs of before, if they were of the same model."""
        path = self._folder.path / PROVENANCE
        if not path.is_file():
            return []
        try:
            (step,) = json.loads(path.read_bytes())["steps"]
            is_same = all(step.get(name) == value for name, value in json.loads(json.dumps(self._model)).items())
            return [dict(run) for run in step["runs"]] if is_same else []
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StepError(f"{path} is damaged ({error!r}); restore it, or move it away") from None

    def _provenance(self) -> bytes:
        fields = {**self._model, **self._about, "images": len(self._finished), "runs": self._runs}
        return provenance_json([new_step("generate", **fields)])

    def _write_provenance(self) -> None:
        atomic_write(self._folder.path / PROVENANCE, self._provenance())
        self._saved = time.monotonic()


def _fields(request: Request) -> list[str]:
    labels = ("" if label is None else str(label) for label in request.labels)
    return [request.filename, request.prompt, *labels, str(request.seed)]


def _row_hash(fields: list[str]) -> str:
    return hashlib.sha256(json.dumps(fields).encode()).hexdigest()[:16]


def _joined(before: str, more: str) -> str:
    """Joins names of hardware, each once."""
    return ", ".join(dict.fromkeys([*filter(None, before.split(", ")), more]))


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
