"""Checkpoints, folders or names on the Hub, and what identifies their weights."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import StepError, describe_error
from pipeline.files import sha256_of
from pipeline.hub import model_commit
from pipeline.progress import notice

COMMIT = re.compile(r"[0-9a-f]{40}")
ON_THE_HUB = re.compile(r"[\w.-]+/[\w.-]+")


class Checkpoint(NamedTuple):
    """Weights: a folder or file, or a name on the Hub.

    Attributes:
        name: Path, or name on the Hub.
        revision: On the Hub: commit, branch or tag. Default: the main branch.
        sha256: Of a folder or file, once it is pinned.
    """

    name: str
    revision: str | None = None
    sha256: str | None = None

    @property
    def is_local(self) -> bool:
        """True for a folder or file."""
        return Path(self.name).exists()

    def pin(self) -> Checkpoint:
        """Returns the checkpoint with the commit that its revision is now, or with the SHA-256 of its files.

        Raises:
            StepError: It does not exist.
        """
        if self.is_local:
            if self.revision:
                raise StepError(f"a revision is for models on the Hub; {self.name} is a local path")
            with notice(f"reading {self.name} …"):
                return self._replace(name=str(Path(self.name).resolve()), sha256=_sha256_of_all(Path(self.name)))
        if not ON_THE_HUB.fullmatch(self.name):
            raise StepError(f"{self.name}: no such folder, and not a name on the Hub (USER/NAME)")
        if self.revision and COMMIT.fullmatch(self.revision):
            return self
        return self._replace(revision=model_commit(self.name, self.revision))

    def fetch(self, *patterns: str) -> Path:
        """Returns the folder or file; of a checkpoint on the Hub, a folder with files of it, which are downloaded.

        Args:
            *patterns: Of the files' paths on the Hub.

        Raises:
            StepError: They cannot be downloaded.
        """
        if self.is_local:
            return Path(self.name)
        import huggingface_hub

        try:
            found = huggingface_hub.snapshot_download(self.name, revision=self.revision, allow_patterns=[*patterns])
        except Exception as error:  # each version has errors of its own
            raise StepError(f"{self.name} cannot be downloaded: {describe_error(error)}") from error
        return Path(found)

    def describe(self) -> dict[str, str | None]:
        """Returns what identifies the weights, as provenance has it: of a path only its last part."""
        if self.sha256:
            return {"name": Path(self.name).name, "weights_sha256": self.sha256}
        return {"name": self.name, "revision": self.revision}


def _sha256_of_all(path: Path) -> str:
    """Returns one hash of all files of a folder, names included, hidden ones not; of a file, its own."""
    if path.is_file():
        return sha256_of(path)
    content = hashlib.sha256()
    for file in sorted(_walk(path, (path.resolve(),))):
        content.update(f"{file.relative_to(path).as_posix()}\n{sha256_of(file)}\n".encode())
    return content.hexdigest()


def _walk(folder: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    """Yields the files below a folder; links are followed, but not into a folder above them."""
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_file():
            yield path
        elif path.is_dir() and path.resolve() not in above:
            yield from _walk(path, (*above, path.resolve()))
