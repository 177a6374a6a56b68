"""A conversion that is interrupted in every way that we can think of, and goes on."""

import contextlib
import multiprocessing
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

import convert_to_parquet  # noqa: F401 - before a test changes the user
from conftest import Rows, Source, Write, contents, convert, files_of, loose, padded, tars, to_csv, zips
from pipeline.errors import StepError
from pipeline.shards import check_space

OPTIONS = ["--max-shard-size", "14MB", "--rows-per-group", "4", "--num-proc", "2"]
FILES = 14


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source whose conversion takes long enough to be interrupted."""
    folder = tmp_path_factory.mktemp("big")
    padded(folder, count=80, size=2_000_000)
    return folder


@pytest.fixture(scope="module")
def undisturbed(big: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What its conversion writes."""
    output = tmp_path_factory.mktemp("undisturbed") / "o"
    assert convert(big, output, *OPTIONS) == 0
    assert len(files_of(output)) == FILES
    return contents(output)


class Run:
    """A conversion in a process group of its own."""

    def __init__(self, source: Path, output: Path, prepare: Callable[[], Any] = int) -> None:
        self.output = output
        self.log = output.with_name(f"{output.name}.log")
        self.process = multiprocessing.get_context("fork").Process(target=self._run, args=(source, prepare))
        self.process.start()

    def _run(self, source: Path, prepare: Callable[[], Any]) -> None:
        os.setsid()
        with open(self.log, "w", buffering=1) as log:
            sys.stdout = sys.stderr = log
            prepare()
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
            sys.exit(convert(source, self.output, *OPTIONS))

    def wait_for(self, files: int) -> None:
        """Waits until so many files are there; of 0, until the first has been begun."""
        while self.process.is_alive():
            if len(files_of(self.output)) >= max(files, 0) and (files or list(self.output.glob("data/.*"))):
                return
        raise AssertionError(f"ended before it had {files} files: {self.log.read_text()}")

    def workers(self) -> list[int]:
        """The processes that it has started."""
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def end(self) -> tuple[int | None, str]:
        """Waits until it is gone with all its processes, at most two seconds; returns exit code and output."""
        deadline = time.monotonic() + 2
        self.process.join(2)
        while left := self._running():
            assert time.monotonic() < deadline, f"left after two seconds: {left}"
        return self.process.exitcode, self.log.read_text()

    def _running(self) -> list[str]:
        # What is dead and not yet buried by the system is a zombie, in state Z.
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                state, _, group = path.read_text().rpartition(")")[2].split()[:3]
                if int(group) == self.process.pid and state != "Z":
                    found.append(path.read_text())
        return found


def identities(output: Path) -> dict[Path, tuple[int, int]]:
    """What changes when a file is written again."""
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files_of(output)}


def leftovers(output: Path) -> list[Path]:
    return list(output.rglob(".*"))


def goes_on(source: Path, output: Path, wanted: dict[str, bytes]) -> None:
    """Runs again, and checks that nothing finished is written again and the result is that of an undisturbed run."""
    finished = identities(output)
    assert all(wanted[str(path.relative_to(output))] == path.read_bytes() for path in finished)
    assert not (output / "README.md").exists()
    assert convert(source, output, *OPTIONS) == 0
    assert finished.items() <= identities(output).items()
    assert contents(output) == wanted


@pytest.mark.parametrize("files", range(0, FILES - 1, 2))
def test_killed(files: int, big: Path, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    run = Run(big, tmp_path / "o")
    run.wait_for(files)
    os.kill(run.process.pid or 0, signal.SIGKILL)
    assert run.end()[0] == -signal.SIGKILL
    goes_on(big, tmp_path / "o", undisturbed)


def test_killed_again_and_again(big: Path, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    for files in range(0, FILES - 2, 3):
        run = Run(big, tmp_path / "o")
        run.wait_for(files)
        os.killpg(run.process.pid or 0, signal.SIGKILL)
        run.end()
    goes_on(big, tmp_path / "o", undisturbed)


@pytest.mark.parametrize("files", [0, 1, 7])
@pytest.mark.parametrize("whom", [os.kill, os.killpg], ids=["kill", "Ctrl-C"])  # a terminal tells the whole group
def test_interrupted(
    whom: Callable[[int, int], None], files: int, big: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    run = Run(big, tmp_path / "o")
    run.wait_for(files)
    whom(run.process.pid or 0, signal.SIGINT)
    code, said = run.end()
    assert code == 130
    assert said == "\ninterrupted. What is finished is kept: run the same command again to go on.\n"
    assert leftovers(tmp_path / "o") == []
    goes_on(big, tmp_path / "o", undisturbed)


def test_terminated(big: Path, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    run = Run(big, tmp_path / "o")
    run.wait_for(2)
    os.kill(run.process.pid or 0, signal.SIGTERM)
    assert run.end() == (143, "")
    assert leftovers(tmp_path / "o") == []
    goes_on(big, tmp_path / "o", undisturbed)


def test_a_worker_dies_before_its_first_file(big: Path, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    run = Run(big, tmp_path / "o")
    while not run.workers():
        assert run.process.is_alive()
    os.kill(run.workers()[0], signal.SIGKILL)
    code, said = run.end()
    assert code == 1
    assert re.fullmatch("error: a worker process was killed, perhaps for want of memory. What is finished .*\n", said)
    goes_on(big, tmp_path / "o", undisturbed)


def test_a_worker_dies(big: Path, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    run = Run(big, tmp_path / "o")
    run.wait_for(1)
    os.kill(run.workers()[0], signal.SIGKILL)
    code, said = run.end()
    assert code == 1
    assert re.fullmatch("error: a worker process was killed, perhaps for want of memory. What is finished .*\n", said)
    assert leftovers(tmp_path / "o") == []
    goes_on(big, tmp_path / "o", undisturbed)


@pytest.mark.parametrize("limit", [1_000, 1_000_000, 9_000_000, 10_012_000])
def test_a_file_cannot_grow(limit: int, big: Path, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    run = Run(big, tmp_path / "o", lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    run.process.join()
    code, said = run.end()
    assert code == 1
    # So little that the workers cannot share a counter, before there is a file to name.
    file = "" if limit == 1_000 else r": '.*/o/data/train-\d{5}-of-\d{5}\.parquet'"
    assert re.fullmatch(rf"error: \[Errno 27\] File too large{file}\. What is finished is kept: .*\n", said)
    assert leftovers(tmp_path / "o") == []
    goes_on(big, tmp_path / "o", undisturbed)


@contextlib.contextmanager
def small_disk(folder: Path, options: str) -> Iterator[Path | None]:
    """Mounts a disk in memory; None where that is not allowed."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_gets_full(big: Path, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=400m,nr_inodes=8") as disk:
        if disk is None:
            return test_a_file_cannot_grow(5_000_000, big, undisturbed, tmp_path)
        run = Run(big, disk / "o")
        run.process.join()
        code, said = run.end()
        assert code == 1
        assert re.fullmatch(r"error: \[Errno 28\] No space left on device: .*\. What is finished is kept: .*\n", said)
        assert leftovers(disk / "o") == []
        subprocess.run(["mount", "-o", "remount,nr_inodes=100", str(disk)], check=True)
        goes_on(big, disk / "o", undisturbed)
    return None


def test_a_disk_that_is_too_small(big: Path, tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(StepError, match="are needed"):
        check_space(tmp_path / "o", 1 << 60, [])
    with small_disk(tmp_path / "disk", "size=40m") as disk:
        if disk is None:
            return
        assert convert(big, tmp_path / "disk" / "o", *OPTIONS) == 1
        assert re.search(r"disk: 16\d,\d+,\d+ bytes are needed and [\d,]+ free; free some", capsys.readouterr().err)
        assert list((tmp_path / "disk").iterdir()) == []


def test_an_unwritable_folder(source: Source) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source().rename(folder / "source")
        (folder / "closed").mkdir(mode=0o555)
        for path in folder.rglob("*"):
            path.chmod(path.stat().st_mode | 0o444)
        folder.chmod(0o755)
        (folder / "logs").mkdir(mode=0o777)
        (folder / "logs").chmod(0o777)

        def drop() -> None:
            PIL.Image.preinit()  # which imports what it may not afterwards
            if os.geteuid() == 0:
                os.setuid(65534)

        run = Run(folder / "source", folder / "closed/o", drop)
        run.process.join()
        code, said = run.end()
        assert code == 1
        assert re.search(rf"error: \[Errno 13\] Permission denied: '{folder}/closed/o", said)


# A source that changes


def test_a_source_that_vanishes(big: Path, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    run = Run(big, tmp_path / "o")
    run.wait_for(1)
    (big / "a.zip").rename(big / "away")
    try:
        run.process.join()
        code, said = run.end()
    finally:
        (big / "away").rename(big / "a.zip")
    assert code == 1
    assert re.fullmatch(rf"error: \[Errno 2\] No such file or directory: '{big}/a.zip'. What is finished .*\n", said)
    assert leftovers(tmp_path / "o") == []
    goes_on(big, tmp_path / "o", undisturbed)


def test_a_source_that_is_damaged_half_way(tmp_path: Path) -> None:
    padded(tmp_path / "source", count=80, size=2_000_000)
    run = Run(tmp_path / "source", tmp_path / "o")
    run.wait_for(1)
    with open(tmp_path / "source" / "a.zip", "r+b") as archive:
        archive.seek(79 * 2_000_000)
        archive.write(b"damage")
    run.process.join()
    code, said = run.end()
    assert code == 1
    assert re.fullmatch(r"error: a.zip: 00\d\d.png: CRC error, the archive is damaged; get it again\n", said)
    assert leftovers(tmp_path / "o") == []
    assert not (tmp_path / "o/README.md").exists()


@pytest.mark.parametrize("shape", [zips, tars, loose])
def test_only_what_changes_is_written_again(
    shape: Write, source: Source, images: dict[str, bytes], tmp_path: Path
) -> None:
    options = ["--max-shard-size", "300kB", "--rows-per-group", "2"]
    assert convert(source(shape=shape), tmp_path / "o", *options) == 0
    before = identities(tmp_path / "o")
    assert len(before) == 4
    name, png = list(images.items())[-1]
    changed = source({**images, name: png[:-12] + bytes(50) + png[-12:]}, shape=shape)
    assert convert(changed, tmp_path / "o", *options) == 0
    after = identities(tmp_path / "o")
    assert [path for path in before if before[path] != after.get(path)] == [list(before)[-1]]
    assert convert(changed, tmp_path / "fresh", *options) == 0
    assert contents(tmp_path / "fresh") == contents(tmp_path / "o")


@pytest.mark.parametrize(
    "options",
    [
        ["--uncertainty", "keep"],
        ["--rows-per-group", "3"],
        ["--max-shard-size", "400kB"],
        ["--max-shard-size", "200kB", "--num-proc", "1"],
    ],
    ids=str,
)
def test_other_options_write_what_a_fresh_run_would(options: list[str], source: Source, tmp_path: Path) -> None:
    folder = source()
    assert convert(folder, tmp_path / "o", "--max-shard-size", "300kB") == 0
    assert convert(folder, tmp_path / "o", *options) == 0
    assert convert(folder, tmp_path / "fresh", *options) == 0
    assert contents(tmp_path / "fresh") == contents(tmp_path / "o")


def test_a_file_of_another_pyarrow_is_written_again(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = source()
    with monkeypatch.context() as older:
        older.setattr("pyarrow.__version__", "9999.0.0")
        assert convert(folder, tmp_path / "o") == 0
    before = identities(tmp_path / "o")
    assert convert(folder, tmp_path / "o") == 0
    assert before != identities(tmp_path / "o")


def test_a_prompt_changes_the_files_that_hold_it_and_the_card(source: Source, table: Rows, tmp_path: Path) -> None:
    options = ["--max-shard-size", "300kB"]
    assert convert(source(), tmp_path / "o", *options) == 0
    before = identities(tmp_path / "o")
    table[0] = {**table[0], "prompt": "Another."}
    assert convert(source(table=to_csv(table)), tmp_path / "o", *options) == 0
    after = identities(tmp_path / "o")
    assert [path.name for path in before if before[path] != after[path]] == ["train-00000-of-00004.parquet"]
    assert "Another." in (tmp_path / "o/README.md").read_text()
