"""An output folder, and its manifest: which files a program wrote there, with fingerprints and checksums.

`.manifest.json` has an entry for each finished file, saved before the file gets its name. So a rerun recognises
finished files after an interruption at any point, finds a flipped bit in any of them, and never replaces a file that
somebody else wrote or edited.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.errors import StepError, counted, listing
from pipeline.files import TEMPORARY, atomic_write, rename, sha256_of

MANIFEST = ".manifest.json"
DATA = "data"  # the subfolder of the large files, which a rerun repairs; a change of any other file is refused
SUBFOLDERS = (DATA, "figures")

Entry = dict[str, Any]  # of a file: "size" in bytes, "sha256", for data files "fingerprint" and what `Shard.write` adds


def local_source(source: str | Path) -> str:
    """Returns the address of a source in the form that a manifest keeps: a local path becomes absolute."""
    return str(source) if "://" in str(source) else os.path.abspath(source)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Reads the manifest of a folder.

    Args:
        folder: The folder.

    Returns:
        `request`, the source and options of the last run, and `files`, an entry by relative path; both are empty where
        there is no manifest.

    Raises:
        StepError: The manifest is damaged.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return {"request": {}, "files": {}}
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        return {"request": {**manifest["request"]}, "files": {**manifest["files"]}}
    except (ValueError, KeyError, TypeError) as error:
        raise StepError(f"{path} is damaged ({error}); remove OUTPUT_DIR and run the command again") from None


class OutputFolder:
    """A folder that a program writes.

    Args:
        path: The folder; it need not exist.
        marker: Relative path of the file that is written last and removed before the first change: where it exists, the
            folder is complete.
        request: Source and options, as far as they decide what is written.
        overwrite: Replace finished files of another request.

    Attributes:
        entries: The manifest's entries, by relative path.
        leftovers: Temporary files of a run that was killed.

    Raises:
        StepError: The folder contains a file that no program wrote, or that has changed since.
    """

    def __init__(self, path: Path, marker: str, request: dict[str, Any], overwrite: bool = False) -> None:
        self.path, self.marker, self.request, self.overwrite = path, marker, request, overwrite
        if path.exists() and not path.is_dir():
            raise StepError(f"{path} is a file; name a folder")
        manifest = read_manifest(path)
        self._previous: dict[str, Any] = manifest["request"]
        self.entries: dict[str, Entry] = manifest["files"]
        files = self._list()
        self.leftovers = [file for file in files if TEMPORARY.fullmatch(file.name)]
        foreign = sorted(self.name_of(file) for file in files if not self._belongs(file))
        if foreign:
            raise StepError(
                f"{path} contains {counted(len(foreign), 'file')} that this program did not write or that changed "
                f"since then: {listing(foreign)}. Move {'it' if len(foreign) == 1 else 'them'}, or choose another folder."
            )

    def name_of(self, path: Path) -> str:
        """Returns the relative path of a file, as the manifest has it."""
        return path.relative_to(self.path).as_posix()

    def entry_of(self, path: Path) -> Entry | None:
        """Returns the entry of a file that exists."""
        return self.entries.get(self.name_of(path)) if path.is_file() else None

    def check_replaceable(self, paths: Iterable[Path]) -> None:
        """Checks that finished files may be replaced or removed.

        Args:
            paths: The files.

        Raises:
            StepError: They are the result of another source or other options, and `overwrite` is off.
        """
        count = sum(self.entry_of(path) is not None for path in paths)
        differing = [
            f"{name} was {self._previous.get(name)!r} and is now {self.request.get(name)!r}"
            for name in {**self._previous, **self.request}
            if self._previous.get(name) != self.request.get(name)
        ]
        if count and self._previous and differing and not self.overwrite:
            raise StepError(
                f"{self.path} contains the result of another request: {listing(differing)}. This run would replace "
                f"{counted(count, 'finished file')}. Choose another folder, or pass --overwrite."
            )

    def begin(self, stale: Iterable[Path]) -> None:
        """Starts to change the folder: removes the marker, files that are not wanted and leftovers.

        Args:
            stale: Files that are not wanted.
        """
        (self.path / DATA).mkdir(parents=True, exist_ok=True)
        for path in (self.path / self.marker, *stale, *self.leftovers):
            path.unlink(missing_ok=True)
            self.entries.pop(self.name_of(path), None)
        self._save()

    def commit(self, temporary: Path, path: Path, entry: Entry) -> None:
        """Gives a finished file its name, after its entry is saved."""
        self.entries[self.name_of(path)] = entry
        self._save()
        rename(temporary, path)

    def finish(self, contents: dict[str, bytes]) -> None:
        """Writes the small files beside the data files, the marker last, and removes all others.

        Args:
            contents: Content by relative path; the marker is the last.
        """
        unwanted = {name for name in self.entries if not name.startswith(f"{DATA}/")} - {*contents}
        if not unwanted and all(self._has(name, data) for name, data in contents.items()):
            if self._previous != self.request:
                self._save()
            return
        self.begin(self.path / name for name in unwanted)
        for name, data in contents.items():
            path = self.path / name
            path.parent.mkdir(exist_ok=True)
            atomic_write(path, data)
            self.entries[name] = {"size": len(data), "sha256": sha256_of(path)}
            self._save()
        for folder in (self.path / name for name in SUBFOLDERS):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    def _list(self) -> list[Path]:
        """Lists files and unknown folders. Hidden ones belong to git or a file manager, temporary files to a run."""
        subfolders = [folder for folder in (self.path / name for name in SUBFOLDERS) if folder.is_dir()]
        folders = [self.path, *subfolders] if self.path.is_dir() else []
        found = [path for folder in folders for path in folder.iterdir() if path not in subfolders]
        return [path for path in found if not path.name.startswith(".") or TEMPORARY.fullmatch(path.name)]

    def _belongs(self, path: Path) -> bool:
        """True for a file of the manifest, unchanged; a data file may have flipped bits, not another size."""
        entry = self.entries.get(self.name_of(path))
        if entry is None or not path.is_file():
            return TEMPORARY.fullmatch(path.name) is not None
        if path.stat().st_size != entry["size"]:
            return False
        return path.parent.name == DATA or sha256_of(path) == entry["sha256"]

    def _has(self, name: str, data: bytes) -> bool:
        path = self.path / name
        return name in self.entries and path.is_file() and path.read_bytes() == data

    def _save(self) -> None:
        manifest = {"request": self.request, "files": dict(sorted(self.entries.items()))}
        atomic_write(self.path / MANIFEST, json.dumps(manifest, indent=1).encode() + b"\n")
