"""Atomic writes, fsync and checksums of files."""

import errno
import hashlib
import os
import resource
import threading
from pathlib import Path

import pytest

from conftest import contents, to_files
from pipeline.files import (
    BLOCK,
    TEMPORARY,
    NewFile,
    append,
    atomic_write,
    filename_in_errors,
    remove,
    sha256_of,
    temporary_path,
)


def test_temporary_names_are_recognised() -> None:
    path = temporary_path(Path("data/a.parquet"))
    assert path.parent == Path("data")
    assert TEMPORARY.fullmatch(path.name)
    for name in (".gitattributes", ".a.tmp", "a.parquet", ".manifest.jsonl", "a.1.tmp"):
        assert not TEMPORARY.fullmatch(name)


def test_atomic_write_replaces_a_file(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a", b"1")
    atomic_write(tmp_path / "a", b"2")
    assert contents(tmp_path) == {"a": b"2"}


def test_failed_atomic_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    to_files(tmp_path, {"a": b"1"})

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for name in ("fsync", "replace"):
        with monkeypatch.context() as full_disk:
            full_disk.setattr(os, name, fail)
            with pytest.raises(OSError, match=rf"No space left on device: '{tmp_path}/a'"):
                atomic_write(tmp_path / "a", b"2")
        assert contents(tmp_path) == {"a": b"1"}


def test_append_creates_and_extends_a_file(tmp_path: Path) -> None:
    append(tmp_path / "a", b"1\n")
    append(tmp_path / "a", b"2\n")
    assert contents(tmp_path) == {"a": b"1\n2\n"}


def test_append_to_a_full_disk_leaves_no_part(tmp_path: Path) -> None:
    append(tmp_path / "a", b"1\n")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5, limits[1]))  # bytes of a file: the third of the data has no room
    try:
        for name in ("a", "b"):
            with pytest.raises(OSError, match=f"File too large: '{tmp_path}/{name}'"):
                append(tmp_path / name, b"2345678\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    append(tmp_path / "a", b"2\n")
    assert contents(tmp_path) == {"a": b"1\n2\n", "b": b""}


def test_remove_ignores_missing_files(tmp_path: Path) -> None:
    to_files(tmp_path, {"a": b"", "b/c": b"", "d": b""})
    remove([tmp_path / name for name in ("a", "b/c", "missing", "no/such/folder")])
    assert contents(tmp_path) == {"d": b""}


def test_filename_in_errors_for_lack_of_space_only() -> None:
    for number, name in ((errno.ENOSPC, "a"), (errno.EFBIG, "a"), (errno.EIO, None)):
        with pytest.raises(OSError) as caught, filename_in_errors(Path("a")):
            raise OSError(number, "text")
        assert caught.value.filename == name


def test_a_new_file_is_hashed_while_it_is_written(tmp_path: Path) -> None:
    parts = [bytes([number]) * (number * BLOCK // 3) for number in range(9)]
    with NewFile(tmp_path / "a") as file:
        for part in parts:
            file.write(part)
            file.sync()
        file.write(b"the end")
        sha256 = file.finish()
    content = (tmp_path / "a").read_bytes()
    assert content == b"".join([*parts, b"the end"])
    assert sha256 == hashlib.sha256(content).hexdigest()
    with pytest.raises(FileExistsError):
        NewFile(tmp_path / "a")


@pytest.mark.parametrize("fails_at_end", [False, True])
def test_a_new_file_raises_an_error_of_the_disk(
    fails_at_end: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system reports it once, to the call of fsync that comes first."""
    errors = [OSError(errno.EIO, "Input/output error")]
    was_called, is_at_end = threading.Event(), threading.Event()

    def fsync(_: int) -> None:
        fails = errors and is_at_end.is_set() == fails_at_end
        was_called.set()  # the end may come now
        if fails:
            raise errors.pop()

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="Input/output"), NewFile(tmp_path / "a") as file:
        file.write(b"1")
        file.sync()
        was_called.wait()
        if fails_at_end:
            file._fsyncing.wait()
        is_at_end.set()
        file.finish()


def test_a_new_file_that_another_program_cuts_off(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="cut off"), NewFile(tmp_path / "a") as file:
        file.write(bytes(10))
        file.flush()
        os.truncate(tmp_path / "a", 3)
        file.finish()


@pytest.mark.parametrize("size", [0, 1, BLOCK, BLOCK + 1])
def test_sha256(size: int, tmp_path: Path) -> None:
    to_files(tmp_path, {"a": bytes(size)})
    assert sha256_of(tmp_path / "a") == hashlib.sha256(bytes(size)).hexdigest()
