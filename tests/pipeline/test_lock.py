"""One run at a time writes to a folder."""

import contextlib
import errno
import fcntl
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import FIXTURE, ROOT, contents, padded
from pipeline.errors import StepError
from pipeline.lock import LOCK, FolderLock, change_in, lock_file
from processes import held

HOLDER = r"process \d+ on \S+, .+, since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d"
REFUSED = (
    rf"error: another run is writing to .*/o: {HOLDER}\. Wait until it and its workers have ended, or end them, .*\n"
)


def in_process(function: Callable[..., object], *arguments: object) -> int:
    """Runs a function in a forked process, and returns its exit code."""
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def is_refused(folder: Path) -> bool:
    try:
        FolderLock(folder).release()
    except StepError as error:
        assert re.fullmatch(
            rf"another run is writing to {folder}: {HOLDER}\. Wait .* or name another folder\.", str(error)
        )
        return True
    return False


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.lock.PATIENCE", 0.2)


@pytest.mark.usefixtures("impatient")
def test_the_second_run_is_refused_and_told_who_holds_the_lock(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    assert (tmp_path / LOCK).read_text().startswith(f"process {os.getpid()} on ")
    assert is_refused(tmp_path)
    lock.release()
    assert not is_refused(tmp_path)
    assert contents(tmp_path) == {}


def test_a_folder_that_stays_empty_is_removed(tmp_path: Path) -> None:
    FolderLock(tmp_path / "a/b").release()
    assert list(tmp_path.iterdir()) == []
    lock = FolderLock(tmp_path / "a/b")
    (tmp_path / "a/file").touch()
    lock.release()
    assert contents(tmp_path) == {"a/file": b""}
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "file"]


def test_the_file_of_a_killed_run_locks_nothing(tmp_path: Path) -> None:
    def be_killed() -> None:
        FolderLock(tmp_path)
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_process(be_killed) == -signal.SIGKILL
    (tmp_path / LOCK).write_bytes((tmp_path / LOCK).read_bytes() + b"x" * 100)
    lock = FolderLock(tmp_path)
    assert re.fullmatch(HOLDER, (tmp_path / LOCK).read_text())
    lock.release()
    assert contents(tmp_path) == {}


def test_never_two_at_once_although_each_removes_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.lock.PATIENCE", 100)  # each waits for the others

    def take_turns() -> None:
        for _ in range(100):
            lock = FolderLock(tmp_path / "o")
            os.mkdir(tmp_path / "inside")  # fails if another one is inside
            os.rmdir(tmp_path / "inside")
            lock.release()

    processes = [multiprocessing.get_context("fork").Process(target=take_turns) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4


@pytest.mark.parametrize(("mode", "code"), [(0o777, 1), (0o555, 0)], ids=["shared folder", "read-only folder"])
def test_the_file_of_another_user(mode: int, code: int) -> None:
    """Its lock cannot be asked for; that matters where this user may write to the folder."""

    def lock() -> None:
        if os.geteuid() == 0:
            os.setuid(65534)
        try:
            FolderLock(folder).release()
        except PermissionError as error:
            sys.exit(int(str(folder / LOCK) in str(error)))

    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        folder = Path(name, "o")
        folder.mkdir()
        (folder / LOCK).touch(0o444)
        folder.chmod(mode)
        assert in_process(lock) == code
        folder.chmod(0o755)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF])
def test_a_disk_without_locks_is_used_with_a_notice(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", fail)
    FolderLock(tmp_path).release()
    with change_in(tmp_path):
        pass
    wanted = f": no lock ({os.strerror(number)}); start no second run meanwhile\n"
    assert capsys.readouterr().err == f"{tmp_path}/{LOCK}{wanted}{tmp_path}{wanted}"


def test_other_errors_of_the_system_are_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", fail)
    with open(tmp_path / "a", "wb") as file, pytest.raises(OSError, match="Input/output"):
        lock_file(file)


# Programs


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source, and the same images as loose files, which take long enough to be stopped halfway."""
    folder = tmp_path_factory.mktemp("big")
    padded(folder / "source", count=40, size=1_000_000)
    with zipfile.ZipFile(folder / "source/a.zip") as archive:
        archive.extractall(folder / "images")
    return folder


def command(program: str, big: Path, output: Path) -> list[str]:
    """Returns a command that writes twenty files, the last one not before `go_on`."""
    inputs = [big / "source"] if program == "convert_to_parquet" else [big / "images", big / "source/m.csv"]
    options = ["--max-shard-size", "2100KB", "--num-proc", "2"]
    whole = [sys.executable, str(ROOT / f"scripts/{program}.py"), *map(str, inputs), str(output), *options]
    return held(whole, "-00019-of-00020", go_on(output))


def go_on(output: Path) -> Path:
    return output.with_name(f"{output.name}-proceeds")


def other_command(program: str, output: Path, tmp_path: Path) -> list[str]:
    """Returns a command that writes the fixture to the same folder."""
    if program == "convert_to_parquet":
        inputs = [FIXTURE]
    else:
        for path in FIXTURE.glob("data/*.zip"):
            with zipfile.ZipFile(path) as archive:
                archive.extractall(tmp_path / "other")
        inputs = [tmp_path / "other", FIXTURE / "metadata.csv"]
    return [sys.executable, str(ROOT / f"scripts/{program}.py"), *map(str, inputs), str(output), "--overwrite"]


@contextlib.contextmanager
def stopped_halfway(command: list[str], output: Path, *, group: bool) -> Iterator[subprocess.Popen[str]]:
    """Starts a program, and stops it or its whole group when it has written a file."""
    pipe = subprocess.PIPE
    run = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
    try:
        while not list(output.glob("data/*-of-*")):
            assert run.poll() is None
        (os.killpg if group else os.kill)(run.pid, signal.SIGSTOP)
        yield run
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
        run.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("program", ["convert_to_parquet", "pack_shards"])
@pytest.mark.parametrize("group", [True, False], ids=["all processes", "main process"])
def test_a_stopped_run_keeps_its_folder(program: str, group: bool, big: Path, tmp_path: Path) -> None:
    output = tmp_path / "o"
    with stopped_halfway(command(program, big, output), output, group=group) as run:
        second = subprocess.run(other_command(program, output, tmp_path), capture_output=True, text=True)
        assert (second.returncode, second.stdout) == (1, "")
        assert re.fullmatch(REFUSED, second.stderr)
        assert f"process {run.pid} on " in second.stderr
        assert f", {program}.py, since " in second.stderr
        go_on(output).touch()
        os.killpg(run.pid, signal.SIGCONT)
        run.communicate()
        assert run.returncode == 0
    assert not (output / LOCK).exists()
    go_on(tmp_path / "whole").touch()
    subprocess.run(command(program, big, tmp_path / "whole"), capture_output=True, check=True)
    written, whole = contents(output), contents(tmp_path / "whole")
    assert written == whole
    if program == "convert_to_parquet":
        compared = subprocess.run([*command(program, big, output), "--verify"], capture_output=True, text=True)
        assert (compared.returncode, compared.stdout) == (0, "no difference\n")


@pytest.mark.slow
@pytest.mark.parametrize("program", ["convert_to_parquet", "pack_shards"])
def test_a_killed_run_leaves_its_folder_to_the_next(program: str, big: Path, tmp_path: Path) -> None:
    output = tmp_path / "o"
    with stopped_halfway(command(program, big, output), output, group=False) as run:
        run.kill()
        second = subprocess.run(other_command(program, output, tmp_path), capture_output=True, text=True)
        assert (second.returncode, second.stderr) == (0, "")
    assert not (output / LOCK).exists()


@pytest.mark.slow
def test_a_stopped_worker_of_a_killed_run_keeps_the_folder(big: Path, tmp_path: Path) -> None:
    output = tmp_path / "o"
    with stopped_halfway(command("pack_shards", big, output), output, group=True) as run:
        run.kill()
        run.wait()
        second = subprocess.run(other_command("pack_shards", output, tmp_path), capture_output=True, text=True)
        assert (second.returncode, f"process {run.pid} on " in second.stderr) == (1, True)
        os.killpg(run.pid, signal.SIGCONT)
        third = subprocess.run(other_command("pack_shards", output, tmp_path), capture_output=True, text=True)
        assert (third.returncode, third.stderr) == (0, "")
    assert not [path for path in output.rglob(".*") if path.name != ".manifest.jsonl"]


def test_a_run_without_result_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    arguments = [str(tmp_path / "empty"), str(tmp_path / "new/o")]
    program = [sys.executable, str(ROOT / "scripts/convert_to_parquet.py"), *arguments]
    failed = subprocess.run(program, capture_output=True, text=True)
    assert (failed.returncode, "cannot be used as it is" in failed.stderr) == (1, True)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]
