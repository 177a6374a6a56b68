"""Output folders and their manifests."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import contents, to_files
from pipeline.errors import StepError
from pipeline.files import fsync, sha256_of, temporary_path
from pipeline.folder import MANIFEST, OutputFolder, local_source, read_manifest

REQUEST = {"source": "/no/such/source", "size": 1}


def write(path: Path, version: str = "1", request: dict[str, Any] = REQUEST, overwrite: bool = False) -> None:
    """Writes a folder as a program does: two data files, two small files, the marker; some depend on the version."""
    with OutputFolder(path, "README.md", request, overwrite) as folder:
        wanted = {"data/a": b"same", "data/b": f"data {version}".encode()}
        known = [path / name for name in folder.entries if name.startswith("data/")]
        outdated = [file for file in known if not file.is_file() or file.read_bytes() != wanted[folder.name_of(file)]]
        folder.check_replaceable(outdated)
        if outdated or len(known) < len(wanted) or folder.leftovers:
            folder.begin(outdated)
        for name, content in wanted.items():
            if folder.entry_of(path / name) is None:
                temporary = temporary_path(path / name)
                temporary.write_bytes(content)
                fsync(temporary)
                folder.add(temporary, path / name, {"size": len(content), "sha256": sha256_of(temporary)})
        about = f"version {version}".encode()
        folder.finish({"README.md": about, "croissant.json": b"{}", f"figures/{version}.png": about})


@pytest.fixture
def output(tmp_path: Path) -> Path:
    write(tmp_path / "o")
    return tmp_path / "o"


def test_folder_and_manifest(output: Path) -> None:
    assert [*contents(output)] == [MANIFEST, "README.md", "croissant.json", "data/a", "data/b", "figures/1.png"]
    manifest = read_manifest(output)
    assert (manifest["marker"], manifest["request"], manifest["damaged"]) == ("README.md", REQUEST, [])
    assert manifest["files"]["data/a"] == {"size": 4, "sha256": sha256_of(output / "data/a")}
    assert {*manifest["files"]} == {*contents(output)} - {MANIFEST}


def test_nothing_is_written_again(output: Path) -> None:
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in output.rglob("*")}
    write(output)
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in output.rglob("*")} == before


def test_update_writes_what_a_fresh_run_does(output: Path, tmp_path: Path) -> None:
    unchanged = (output / "data/a").stat().st_ino, (output / "croissant.json").stat().st_ino
    write(output, "2")
    write(tmp_path / "fresh", "2")
    assert contents(output) == contents(tmp_path / "fresh")
    assert ((output / "data/a").stat().st_ino, (output / "croissant.json").stat().st_ino) == unchanged
    assert [path.name for path in (output / "figures").iterdir()] == ["2.png"]


# Killed before any operation


def killed_before(number: int, write_folder: Callable[[], None]) -> bool:
    """Runs a function in a process that is killed before its nth operation on the disk; returns whether it was."""
    pid = os.fork()
    if pid == 0:
        count = 0

        def counting(operation: Callable[..., Any]) -> Callable[..., Any]:
            def counted(*arguments: Any, **options: Any) -> Any:
                nonlocal count
                count += 1
                if count == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return operation(*arguments, **options)

            return counted

        for name in ("replace", "unlink", "fsync", "mkdir", "rmdir"):
            setattr(os, name, counting(getattr(os, name)))
        try:
            write_folder()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("update", [False, True])
def test_resumes_after_sigkill_before_every_operation(update: bool, output: Path, tmp_path: Path) -> None:
    write(tmp_path / "fresh", "2")
    whole = contents(tmp_path / "fresh")
    number, was_killed = 0, True
    while was_killed:
        number += 1
        path = tmp_path / f"o{number}"
        if update:
            shutil.copytree(output, path)
        was_killed = killed_before(number, lambda path=path: write(path, "2"))  # type: ignore[misc]
        complete = {name: content for name, content in contents(path).items() if not name.startswith(".")}
        if (path / "README.md").exists() and complete["README.md"] == b"version 2":
            assert complete.items() <= whole.items(), "the marker is written last"
        write(path, "2")
        assert contents(path) == whole
        assert {file.name for file in path.rglob("*") if file.is_dir()} == {"data", "figures"}
    assert number > 20


def test_torn_line_at_the_end_is_ignored(output: Path) -> None:
    whole = contents(output)
    with open(output / MANIFEST, "ab") as file:
        file.write(b'{"path": "data/c", "size": 4, "sha')  # killed or without space while it was appended
    assert read_manifest(output)["damaged"] == [7]
    write(output)
    assert contents(output) == whole


# Damage


def test_every_flipped_bit_of_the_manifest_is_found(output: Path) -> None:
    path = output / MANIFEST
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        assert read_manifest(output)["damaged"], at


def test_damaged_request_is_written_again(output: Path) -> None:
    whole = contents(output)
    (output / MANIFEST).write_bytes(whole[MANIFEST].replace(b'"size": 1}', b'"size": 2}'))
    write(output)
    assert contents(output) == whole
    (output / MANIFEST).write_bytes(whole[MANIFEST].replace(b'"size": 1}', b'"size": 2}'))
    with pytest.raises(StepError, match=r"size was None and is now 1.*would replace 1 finished file"):
        write(output, "2")


def test_damaged_line_makes_one_file_unknown(output: Path) -> None:
    whole = contents(output)
    (output / MANIFEST).write_bytes(whole[MANIFEST].replace(b"data/b", b"data/c"))
    with pytest.raises(
        StepError, match=rf"1 file that .*: data/b\. {MANIFEST} is damaged, which may be the reason\. Move or delete it"
    ):
        write(output)
    (output / "data/b").unlink()
    write(output)
    assert contents(output) == whole


# Refused


@pytest.mark.parametrize("name", ["notes.txt", "data/c", "figures/2.png"])
def test_foreign_files_are_refused(name: str, output: Path) -> None:
    to_files(output, {name: b"mine"})
    for overwrite in (False, True):
        with pytest.raises(StepError, match=rf"1 file that .*: {name}\. Move or delete it and run the command again"):
            write(output, "2", overwrite=overwrite)


def test_foreign_folder_is_refused(output: Path) -> None:
    (output / "mine").mkdir()
    with pytest.raises(StepError, match=r"1 file that .*: mine\."):
        write(output)


def test_many_foreign_files_are_counted(tmp_path: Path) -> None:
    to_files(tmp_path, {f"{number:02}": b"" for number in range(12)})
    with pytest.raises(StepError, match=r"12 files that .*: 00; 01; 02; 03; 04; and 7 more\. Move or delete them"):
        write(tmp_path)


@pytest.mark.parametrize("name", ["README.md", "croissant.json", "figures/1.png"])
def test_edited_small_files_are_refused(name: str, output: Path) -> None:
    (output / name).write_bytes((output / name).read_bytes()[::-1])  # of the same size
    with pytest.raises(StepError, match=rf"changed since then: {name}\."):
        write(output)


def test_data_file_of_another_size_is_refused(output: Path) -> None:
    (output / "data/a").write_bytes(b"edited")
    with pytest.raises(StepError, match=r"changed since then: data/a\."):
        write(output)


def test_hidden_files_stay(output: Path) -> None:
    hidden = {".git/config": b"git's", ".gitattributes": b"", "data/.DS_Store": b"Bud1", "data/.mine.tmp": b"mine"}
    to_files(output, hidden)
    write(output, "2")
    assert hidden.items() <= contents(output).items()


def test_leftovers_are_removed(output: Path) -> None:
    whole = contents(output)
    names = ("data/.a.123.tmp", ".README.md.123.tmp", "figures/.1.png.123.tmp", f".{MANIFEST}.123.tmp")
    to_files(output, dict.fromkeys(names, b"left"))
    with OutputFolder(output, "README.md", REQUEST) as folder:
        assert {folder.name_of(path) for path in folder.leftovers} == {*names}
    write(output)
    assert contents(output) == whole


def test_file_as_folder(tmp_path: Path) -> None:
    to_files(tmp_path, {"o": b""})
    with pytest.raises(StepError, match="o is a file; name a folder"):
        write(tmp_path / "o")


def test_source_as_folder(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(output)
    (output.parent / "link").symlink_to(output)
    for source in (output, output.parent / "link"):
        with pytest.raises(StepError, match="o is the source as well; name another folder"):
            write(output, request={"source": local_source(source)}, overwrite=True)
    monkeypatch.chdir(output.parent)
    write(output, request={"source": "https://host/o", "policy": "o"}, overwrite=True)  # an option, and no path
    assert contents(output).keys() == before.keys()


def test_result_of_another_program(output: Path) -> None:
    before = contents(output)
    with pytest.raises(StepError, match="o contains the result of another program; name another folder"):
        OutputFolder(output, "metadata.csv", REQUEST, overwrite=True)
    assert contents(output) == before


def test_another_request(output: Path, tmp_path: Path) -> None:
    other = {"source": "/other", "size": 1}
    write(output, request=other)
    assert read_manifest(output)["request"] == other, "nothing had to be replaced"
    with pytest.raises(
        StepError, match=r"size was 1 and is now 2; more was None and is now 3\. This run would replace"
    ):
        write(output, "2", request={**other, "size": 2, "more": 3})
    write(output, "2", request={**other, "size": 2}, overwrite=True)
    write(tmp_path / "fresh", "2", request={**other, "size": 2})
    assert contents(output) == contents(tmp_path / "fresh")


@pytest.mark.parametrize("source", ["hf://datasets/a/b@c", "https://host/x.zip"])
def test_remote_source_keeps_its_address(source: str) -> None:
    assert local_source(source) == source


def test_local_source_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert {local_source(path) for path in ("a", "./a/", tmp_path / "b/../a")} == {str(tmp_path / "a")}


def test_editable_file_is_written_until_somebody_edits_it(tmp_path: Path) -> None:
    path = tmp_path / "o"

    def finish(contents: dict[str, bytes], editable: tuple[str, ...] = ("facts.json",)) -> None:
        with OutputFolder(path, "README.md", REQUEST, editable=editable) as folder:
            folder.finish({"README.md": b"", **contents})

    finish({"facts.json": b"1"})
    finish({"facts.json": b"2"})
    assert (path / "facts.json").read_bytes() == b"2"
    (path / "facts.json").write_bytes(b"mine")
    finish({"facts.json": b"3"})
    finish({})
    assert (path / "facts.json").read_bytes() == b"mine"
    with pytest.raises(StepError, match=r"contains 1 file that this program did not write .*: facts\.json"):
        finish({}, editable=())
    (path / "facts.json").unlink()
    finish({"facts.json": b"4"})
    assert (path / "facts.json").read_bytes() == b"4"
