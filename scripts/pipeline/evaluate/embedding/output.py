"""Writes FEATURES_DIR: which files are wanted, what is known of their rows, and what has to be embedded.

Files have `ROWS_PER_FILE` rows each, in the order of the source. Where the rows of a file have changed, because the
source has, or for another limit, what is known of an image by its name, its CRC-32 and its encoder is copied from
earlier files, and the rest is embedded.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.errors import StepError
from pipeline.evaluate.embedding.encoding import Encoded, Item
from pipeline.evaluate.encoders.encoder import Encoder
from pipeline.evaluate.features import (
    FEATURES_JSON,
    EncodedWith,
    FeatureFile,
    ImageFeatures,
    KnownRow,
    index_json,
    read_images,
    read_index,
    read_known,
    write_features,
)
from pipeline.files import filename_in_errors, fsync, remove_on_error, sha256_of, temporary_path
from pipeline.folder import DATA, OutputFolder
from pipeline.jobs import WorkerPool
from pipeline.progress import notice, progress_bar, write_line
from pipeline.rows import AnyRow, iter_crc32
from pipeline.shards import check_space, find_finished

ROWS_PER_FILE = 256  # what a power cut costs, with a slow encoder
BYTES_PER_ROW = 1000  # of a file, beside the outputs, rounded up

Key = tuple[str, str, int, str]  # encoder's fingerprint, file name, CRC-32, and the prompt if the encoder uses it
Place = tuple[Path, int]  # a row of a file


class Resolved(NamedTuple):
    """An encoder, what it depends on, and the hash of that."""

    encoder: Encoder
    about: dict[str, Any]
    fingerprint: str

    @property
    def name(self) -> str:
        """Its name."""
        return self.encoder.name

    def key(self, filename: str, crc32: int, prompt: str) -> Key:
        """Returns what decides the features of an image."""
        return self.fingerprint, filename, crc32, prompt if self.encoder.uses_prompts else ""


class _Pending:
    """A file that is missing: where its rows are known from, and those that were embedded now.

    Args:
        file: The file.
        known: For each row, where its features are already; None: nowhere.

    Attributes:
        left: The rows to embed, by file name.
        devices: Where its rows were embedded.
    """

    def __init__(self, file: FeatureFile, known: list[Place | None]) -> None:
        self.file, self.known = file, known
        self.left = {row.filename: row for row, place in zip(file.rows, known) if place is None}
        self.devices: set[str] = set()
        self._embedded: dict[str, ImageFeatures] = {}

    def add(self, filename: str, features: ImageFeatures, device: str) -> None:
        """Adds an image that was embedded."""
        del self.left[filename]
        self._embedded[filename] = features
        self.devices.add(device)

    def images(self) -> list[ImageFeatures]:
        """Returns the features of all rows; each earlier file is read once."""
        wanted: dict[Path, list[int]] = defaultdict(list)
        for place in filter(None, self.known):
            wanted[place[0]].append(place[1])
        copied = {path: iter(read_images(path, numbers)) for path, numbers in wanted.items()}
        return [
            next(copied[place[0]]) if place else self._embedded[row.filename]
            for row, place in zip(self.file.rows, self.known)
        ]

    def forget(self) -> None:
        """Frees the features, once they are written."""
        self._embedded.clear()

    def embedded_rows(self) -> tuple[list[AnyRow], list[str | None]]:
        """Returns the rows that were embedded so far, and their patients."""
        pairs = [pair for pair in zip(self.file.rows, self.file.patients) if pair[0].filename in self._embedded]
        return [row for row, _ in pairs], [patient for _, patient in pairs]

    def part(self, file: FeatureFile) -> _Pending:
        """Returns a complete file of the rows that were embedded so far."""
        found = _Pending(file, [None] * len(file.rows))
        found.left, found.devices, found._embedded = {}, self.devices, self._embedded
        return found


class FeaturesWriter:
    """What a run has to do in a FEATURES_DIR, and doing it.

    Args:
        folder: The folder, opened.
        pool: Workers that read finished files.
        rows: The rows that are asked for.
        patients: The patient of each, or None.
        encoders: The encoders that are asked for; features of others stay.

    Attributes:
        items: The images to embed, with the numbers of the encoders that need them.
        needed: The numbers of those encoders.
        embedded: How many images this run has embedded.

    Raises:
        StepError: Features of another request would be lost.
    """

    def __init__(
        self,
        folder: OutputFolder,
        pool: WorkerPool,
        rows: list[AnyRow],
        patients: list[str | None],
        encoders: list[Resolved],
    ) -> None:
        self._folder, self._encoders = folder, encoders
        self._numbers = {one.name: number for number, one in enumerate(encoders)}
        self._files = [
            _file(folder.path, rows[start:end], patients[start:end], one)
            for start, end in _parts(len(rows))
            for one in encoders
        ]
        has_some = any(folder.entry_of(file.path) for file in self._files)
        finished = find_finished(pool, folder, self._files) if has_some else set()
        earlier = [path for path in self._paths() if self._entry(path)["encoder"] in self._numbers]
        self._outdated = [path for path in earlier if path not in finished]
        self._devices = {path: self._entry(path)["devices"] for path in self._outdated}
        self._missing = self._find_known([file for file in self._files if file.path not in finished])
        self._pending = {(one.file.encoder, row.filename): one for one in self._missing for row in one.left.values()}
        self._widths = {self._entry(path)["encoder"]: self._entry(path)["outputs"] for path in finished}
        self._has_begun = False
        self.items, self.embedded = self._items(), 0
        self.needed = tuple(sorted({number for item in self.items for number in item.encoders}))

    def write(self, results: Iterator[Encoded]) -> None:
        """Writes files when all their rows are embedded; after an error, also what was embedded of the others."""
        try:
            with progress_bar("Embedding", len(self.items), "img") as bar:
                for encoded in results:
                    if encoded.note:
                        write_line(encoded.note)
                    for number, features in encoded.features.items():
                        pending = self._pending[self._encoders[number].name, encoded.filename]
                        pending.add(encoded.filename, features, encoded.devices[number])
                        if not pending.left:
                            self._write(pending)
                    self.embedded += 1
                    bar.update()
        except BaseException:
            self._write_parts()
            raise

    def finish(self, source: str, source_rows: int) -> None:
        """Writes the files whose rows are all known, removes what is out of date, and writes `features.json`.

        Args:
            source: Address of the source.
            source_rows: Number of its images.
        """
        with notice("copying known features …"):
            for pending in self._missing:
                if not self._is_written(pending):
                    self._write(pending)
        wanted = {file.path for file in self._files}
        outdated = [path for path in self._outdated if path not in wanted]
        if outdated or self._folder.leftovers:
            self._folder.begin(outdated)
        index = read_index(self._folder.path) if (self._folder.path / FEATURES_JSON).is_file() else {}
        index |= {one.name: self._encoded_with(one, source, source_rows) for one in self._encoders}
        kept = [one for one in index.values() if is_whole(one, self._folder)]
        self._folder.finish({FEATURES_JSON: index_json(kept)})

    def _entry(self, path: Path) -> dict[str, Any]:
        return self._folder.entries[self._folder.name_of(path)]

    def _paths(self) -> list[Path]:
        """Returns the files of features that are there."""
        paths = [self._folder.path / name for name in self._folder.entries if name.startswith(f"{DATA}/")]
        return [path for path in paths if path.is_file()]

    def _find_known(self, missing: list[FeatureFile]) -> list[_Pending]:
        """Finds the rows of missing files in outdated ones that are not damaged."""
        known = {path: read_known(path) for path in self._outdated if sha256_of(path) == self._entry(path)["sha256"]}
        names = {row.filename for rows in known.values() for row in rows}
        crcs = crc32_by_name([row for file in missing for row in file.rows if row.filename in names])
        self._check_replaceable(known, crcs)
        places: dict[Key, Place] = {}
        for path, rows in known.items():
            if one := self._encoder_of(path):
                places |= {one.key(*row[:3]): (path, number) for number, row in enumerate(rows)}
        found = []
        for file in missing:
            one = self._encoders[self._numbers[file.encoder]]
            wanted = [one.key(row.filename, crcs.get(row.filename, -1), row.prompt) for row in file.rows]
            found.append(_Pending(file, [places.get(key) for key in wanted]))
        return found

    def _encoder_of(self, path: Path) -> Resolved | None:
        """Returns the encoder of an earlier file; None if its features depended on something else."""
        entry = self._entry(path)
        one = self._encoders[self._numbers[entry["encoder"]]]
        return one if one.fingerprint == entry["encoder_fingerprint"] else None

    def _check_replaceable(self, known: dict[Path, list[KnownRow]], crcs: dict[str, int]) -> None:
        """Checks that no outdated file is lost, or that its encoder was asked about the same before."""
        patients = {row.filename: patient for file in self._files for row, patient in zip(file.rows, file.patients)}

        def is_kept(row: KnownRow) -> bool:
            is_same_image = row.filename in patients and crcs.get(row.filename, row.crc32) == row.crc32
            return is_same_image and (row.patient is None or patients[row.filename] is not None)

        lost = [path for path, rows in known.items() if not self._encoder_of(path) or not all(map(is_kept, rows))]
        for one in self._encoders:
            of_one = [path for path in lost if self._entry(path)["encoder"] == one.name]
            self._folder.check_replaceable(of_one, f"{one.name} ")

    def _items(self) -> list[Item]:
        needed: dict[str, tuple[AnyRow, list[int]]] = {}
        for pending in self._missing:
            for row in pending.left.values():
                needed.setdefault(row.filename, (row, []))[1].append(self._numbers[pending.file.encoder])
        return [Item(row, tuple(numbers)) for row, numbers in needed.values()]

    def _is_written(self, pending: _Pending) -> bool:
        entry = self._folder.entry_of(pending.file.path)
        return entry is not None and pending.file.path not in self._outdated

    def _write(self, pending: _Pending) -> None:
        """Writes a file and adds it to the folder, in place of an earlier one with the same images."""
        file, images = pending.file, pending.images()
        widths = {name: len(values) for name, values in images[0].outputs.items()}
        known = self._widths.setdefault(file.encoder, widths)
        if widths != known:
            raise StepError(f"--encoder {file.encoder} returned outputs of widths {widths}, and before {known}")
        if not self._has_begun:
            row = 4 * sum(widths.values()) + BYTES_PER_ROW  # those of other encoders are alike, near enough
            check_space(self._folder.path, row * sum(len(one.file.rows) for one in self._missing), 0)
            self._folder.begin([])
            self._has_begun = True
        if file.path in self._outdated:  # what was known from it is in memory
            self._folder.begin([file.path])
            self._outdated.remove(file.path)
        temporary = temporary_path(file.path)
        with remove_on_error(temporary), filename_in_errors(file.path):
            write_features(temporary, file, images)
            fsync(temporary)
            entry = {"size": temporary.stat().st_size, "sha256": sha256_of(temporary)}
            entry |= {"fingerprint": file.fingerprint(image.crc32 for image in images), "rows": len(images)}
            entry |= {"encoder": file.encoder, "encoder_fingerprint": file.encoder_fingerprint, "outputs": widths}
            copied = (self._devices[place[0]] for place in pending.known if place)
            entry |= {"devices": sorted(pending.devices.union(*copied))}
            self._folder.add(temporary, file.path, entry)
        pending.forget()

    def _write_parts(self) -> None:
        """Writes the rows that were embedded of files that are not complete: the next run copies them."""
        for pending in self._missing:
            if pending.left and pending.devices:
                encoder = self._encoders[self._numbers[pending.file.encoder]]
                self._write(pending.part(_file(self._folder.path, *pending.embedded_rows(), encoder)))

    def _encoded_with(self, one: Resolved, source: str, source_rows: int) -> EncodedWith:
        paths = [file.path for file in self._files if file.encoder == one.name]
        entries = [self._entry(path) for path in paths]
        files = [(self._folder.name_of(path), entry["sha256"], entry["rows"]) for path, entry in zip(paths, entries)]
        devices = sorted({device for entry in entries for device in entry["devices"]})
        rows, outputs = sum(entry["rows"] for entry in entries), entries[0]["outputs"]
        return EncodedWith(one.name, one.fingerprint, one.about, outputs, rows, source, source_rows, devices, files)


def _parts(count: int) -> list[tuple[int, int]]:
    return [(start, min(start + ROWS_PER_FILE, count)) for start in range(0, count, ROWS_PER_FILE)]


def _file(folder: Path, rows: list[AnyRow], patients: list[str | None], encoder: Resolved) -> FeatureFile:
    """Returns the file of some rows; its name depends on the encoder and their file names."""
    names = "\n".join([encoder.fingerprint, *(row.filename for row in rows)])
    short = hashlib.sha256(names.encode()).hexdigest()[:16]
    return FeatureFile(
        folder / DATA / f"{encoder.name}-{short}.parquet", rows, patients, encoder.name, encoder.fingerprint
    )


def is_whole(encoder: EncodedWith, folder: OutputFolder) -> bool:
    """Returns whether all files of an encoder are there: a run that was killed while it replaced some leaves others."""
    return all(path in folder.entries for path, _, _ in encoder.files)


def crc32_by_name(rows: list[AnyRow]) -> dict[str, int]:
    """Returns the CRC-32 of images by file name; those that are in no zip are read."""
    rows = [*{row.filename: row for row in rows}.values()]  # each encoder has a file with it
    unread = sum(not row.zipped for row in rows)
    with progress_bar("Checking images", unread, "img", disable=not unread) as bar:
        found = {}
        for row, crc32 in zip(rows, iter_crc32(rows)):
            found[row.filename] = crc32
            bar.update(not row.zipped)
        return found
