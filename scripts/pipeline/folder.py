"""An output folder, and its manifest: which files a program wrote there, with fingerprints and checksums.

The manifest lets a rerun recognise finished files after an interruption at any point, find a flipped bit in any of
them, and never replace a file that somebody else wrote or edited. It is `.manifest.jsonl`: a line for the request, that
is the source and the options, then a line for each finished file, appended before the file is renamed into place. Each
line has a CRC-32 of its own, so that damage to the manifest costs the files of the damaged lines and no others.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypedDict

from pipeline.errors import StepError, counted, listing
from pipeline.files import (
    TEMPORARY,
    append,
    atomic_write,
    filename_in_errors,
    fsync,
    fsync_folder,
    remove,
    remove_on_error,
    sha256_of,
    temporary_path,
)
from pipeline.lock import FolderLock

MANIFEST = ".manifest.jsonl"
DATA = "data"  # the subfolder of the large files, which a rerun repairs; a change of any other file is refused
SUBFOLDERS = (DATA, "figures", "labels")

Entry = dict[str, Any]  # of a file: "size" in bytes, "sha256", for data files "fingerprint" and what `Shard.write` adds


class Manifest(TypedDict):
    """What a manifest holds.

    Attributes:
        marker: That of the `OutputFolder`; empty where there is no manifest.
        request: Source and options of the last run.
        files: An entry by relative path.
        damaged: Numbers of damaged lines, from 1.
    """

    marker: str
    request: dict[str, Any]
    files: dict[str, Entry]
    damaged: list[int]


def read_manifest(folder: Path) -> Manifest:
    """Reads the manifest of a folder.

    Args:
        folder: The folder; it need not have a manifest.

    Returns:
        The manifest, without what its damaged lines held.

    Raises:
        OSError: It cannot be read.
    """
    manifest: Manifest = {"marker": "", "request": {}, "files": {}, "damaged": []}
    path = folder / MANIFEST
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    for number, line in enumerate(lines, 1):
        record = _from_line(line)
        if record is None:
            manifest["damaged"].append(number)
        elif "request" in record:
            manifest["marker"], manifest["request"] = record["marker"], record["request"]
        else:
            manifest["files"][record.pop("path")] = record
    return manifest


def local_source(source: str | Path) -> str:
    """Returns the address of a source in the form that a manifest keeps: a local path becomes absolute."""
    return str(source) if "://" in str(source) else os.path.abspath(source)


class OutputFolder:
    """A folder that a program writes, locked until the end of the context.

    Args:
        path: The folder; it need not exist.
        marker: Relative path of the file that is written last and removed before the first change: where it exists, the
            folder is complete.
        request: Source and options, as far as they decide what is written; local paths as `local_source` returns them.
        overwrite: Replace finished files of another request.
        live: Names of files at the top that the caller writes and checks while the folder is not complete, and always
            if `finish` gets none of that name. If the marker is one of them, it is never removed, only replaced.
        editable: Names of files that people may add or edit; then they are theirs, and stay as they are.

    Attributes:
        entries: The manifest's entries, by relative path.

    Raises:
        StepError: The folder is the source, contains a file that this program did not write or that has changed, or
            another run is writing to it.
    """

    def __init__(
        self,
        path: Path,
        marker: str,
        request: dict[str, Any],
        overwrite: bool = False,
        live: tuple[str, ...] = (),
        editable: tuple[str, ...] = (),
    ) -> None:
        self.path, self.marker, self.request, self.overwrite = path, marker, request, overwrite
        self._live = live
        if path.exists() and not path.is_dir():
            raise StepError(f"{path} is a file; name a folder")
        if any(isinstance(value, str) and _is_same(path, value) for value in request.values()):
            raise StepError(f"{path} is the source as well; name another folder")
        self._lock = FolderLock(path)  # before anything in it is read
        try:
            manifest = read_manifest(path)
            self._previous_request, self.entries = manifest["request"], manifest["files"]
            self._live_now = live if manifest["marker"] == marker else ()  # else they are somebody else's
            self._edited = {name for name in editable if (path / name).is_file() and not self._belongs(path / name)}
            for name in self._edited:
                self.entries.pop(name, None)
            self._check(manifest)
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> OutputFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def _check(self, manifest: Manifest) -> None:
        """Checks that the folder holds the result of this program and nothing else."""
        path = self.path
        if manifest["marker"] not in ("", self.marker):
            raise StepError(f"{path} contains the result of another program; name another folder")
        foreign = sorted({self.name_of(file) for file in self._list() if not self._belongs(file)} - self._edited)
        if foreign:
            damaged = f" {MANIFEST} is damaged, which may be the reason." if manifest["damaged"] else ""
            raise StepError(
                f"{path} contains {counted(len(foreign), 'file')} that this program did not write or that changed "
                f"since then: {listing(foreign)}.{damaged} Move or delete {'it' if len(foreign) == 1 else 'them'} and "
                "run the command again, or name another folder."
            )

    @property
    def leftovers(self) -> list[Path]:
        """Temporary files, of a run that was killed."""
        return [path for path in self._list() if TEMPORARY.fullmatch(path.name)]

    def name_of(self, path: Path) -> str:
        """Returns the relative path of a file, as the manifest has it."""
        return path.relative_to(self.path).as_posix()

    def entry_of(self, path: Path) -> Entry | None:
        """Returns the entry of a file; None where the file does not exist."""
        return self.entries.get(self.name_of(path)) if path.is_file() else None

    def check_replaceable(self, paths: Iterable[Path], options: str = "") -> None:
        """Checks that finished files may be replaced or removed.

        Args:
            paths: The files.
            options: How the names of the options that decide these files begin. Default: all options do.

        Raises:
            StepError: They are the result of another source or other options, and `overwrite` is off.
        """
        count = sum(self.entry_of(path) is not None for path in paths)
        before, now = self._previous_request, self.request
        differing = [
            f"{name} was {before.get(name)!r} and is now {now.get(name)!r}"
            for name in {**before, **now}
            if name.startswith(options) and before.get(name) != now.get(name)
        ]
        if count and differing and not self.overwrite:
            raise StepError(
                f"{self.path} contains the result of another source or other options: {listing(differing)}. This run "
                f"would replace {counted(count, 'finished file')}. Name another folder, or pass --overwrite."
            )

    def begin(self, outdated: Iterable[Path]) -> None:
        """Starts to change the folder: removes first the marker, then files and leftovers.

        Args:
            outdated: The files to remove.
        """
        (self.path / DATA).mkdir(parents=True, exist_ok=True)
        marker = self.path / self.marker
        if self.marker not in self._live:
            remove([marker])
        outdated = [*outdated, *self.leftovers]
        remove(outdated)
        for path in (marker, *(self.path / name for name in self._live), *outdated):
            self.entries.pop(self.name_of(path), None)
        self._save()
        self._live_now = self._live

    def add(self, temporary: Path, path: Path, entry: Entry) -> None:
        """Adds a finished file: appends its entry to the manifest, then renames it into place.

        Args:
            temporary: The file, fsynced.
            path: Its final path; `begin` removed what was there.
            entry: Its entry.
        """
        self.add_all([(temporary, path, entry)])

    def add_all(self, finished: list[tuple[Path, Path, Entry]]) -> None:
        """Adds finished files, as `add` does, with one fsync of the manifest and one of the folder.

        Args:
            finished: Of each file, in one folder: its temporary path, fsynced; its final path; its entry.
        """
        self._add_entries({self.name_of(path): entry for _, path, entry in finished})
        for temporary, path, _ in finished:
            os.replace(temporary, path)
        fsync_folder(finished[0][1].parent)

    def _add_entries(self, entries: dict[str, Entry]) -> None:
        append(self.path / MANIFEST, b"".join(_to_line({"path": name, **entry}) for name, entry in entries.items()))
        self.entries |= entries

    def remove_leftovers(self) -> None:
        """Removes temporary files."""
        remove(self.leftovers)

    def finish(self, contents: dict[str, bytes]) -> None:
        """Writes the small files beside the data files, as far as they differ, the marker last; removes all others.

        Args:
            contents: Content by relative path, that of the marker included.
        """
        contents = {name: content for name, content in contents.items() if name not in self._edited}
        unwanted = {name for name in self.entries if not name.startswith(f"{DATA}/")} - {*contents}
        changed = {name for name, content in contents.items() if not self._has(name, content)}
        if unwanted or changed:
            self.begin(self.path / name for name in (unwanted | changed) - {*self._live})
            for name in (*sorted(changed - {self.marker}), self.marker):
                self._write(self.path / name, contents[name])
        for folder in (self.path / name for name in SUBFOLDERS):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        self._save()

    def _write(self, path: Path, content: bytes) -> None:
        entry = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        if path.name in self._live:  # in place first: without an entry it is live, with a wrong one it would be foreign
            atomic_write(path, content)
            self._add_entries({self.name_of(path): entry})
            return
        path.parent.mkdir(exist_ok=True)
        temporary = temporary_path(path)
        with remove_on_error(temporary), filename_in_errors(path):
            temporary.write_bytes(content)
            fsync(temporary)
            self.add(temporary, path, entry)

    def _list(self) -> list[Path]:
        """Lists files and unknown folders. Hidden ones belong to git or a file manager, temporary files to a run."""
        subfolders = [folder for folder in (self.path / name for name in SUBFOLDERS) if folder.is_dir()]
        folders = [self.path, *subfolders] if self.path.is_dir() else []
        found = [path for folder in folders for path in folder.iterdir() if path not in subfolders]
        return [path for path in found if not path.name.startswith(".") or TEMPORARY.fullmatch(path.name)]

    def _belongs(self, path: Path) -> bool:
        """True for a file of the manifest, unchanged; a data file may have flipped bits, not another size."""
        entry = self.entry_of(path)
        if entry is None:
            is_live = path.parent == self.path and path.name in self._live_now and path.is_file()
            return is_live or TEMPORARY.fullmatch(path.name) is not None
        if path.stat().st_size != entry["size"]:
            return False
        return path.parent.name == DATA or sha256_of(path) == entry["sha256"]

    def _has(self, name: str, content: bytes) -> bool:
        path = self.path / name
        return self.entry_of(path) is not None and path.read_bytes() == content

    def _save(self) -> None:
        """Writes the whole manifest, if it differs: the request, then the entries by path."""
        records = [{"path": path, **entry} for path, entry in sorted(self.entries.items())]
        lines = map(_to_line, [{"marker": self.marker, "request": self.request}, *records])
        path, content = self.path / MANIFEST, b"".join(lines)
        if not path.exists() or path.read_bytes() != content:
            atomic_write(path, content)


def _is_same(folder: Path, path: str) -> bool:
    return os.path.isabs(path) and os.path.exists(path) and folder.exists() and os.path.samefile(path, folder)


def _to_line(record: dict[str, Any]) -> bytes:
    crc32 = f"{zlib.crc32(json.dumps(record).encode()):08x}"
    return json.dumps({**record, "crc32": crc32}).encode() + b"\n"


def _from_line(line: bytes) -> dict[str, Any] | None:
    """Reads a line of a manifest; None where it is damaged, so that `_to_line` would not return the same bytes."""
    try:
        record = json.loads(line)
        del record["crc32"]
        return record if _to_line(record) == line else None
    except (ValueError, KeyError, TypeError):
        return None
