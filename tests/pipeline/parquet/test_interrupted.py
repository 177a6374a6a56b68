"""Conversions that are interrupted at any point, and resumed."""

import contextlib
import multiprocessing
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import PIL.Image
import psutil
import pytest

import convert_to_parquet  # noqa: F401 - before a test changes the user
import pipeline.parquet.shard
import synthchex_75k
from conftest import (
    FIXTURE,
    ROOT,
    Rows,
    Source,
    Write,
    contents,
    convert,
    files_of,
    loose,
    one_zip,
    padded,
    tars,
    zips,
)
from pipeline.cli import start
from pipeline.errors import StepError
from pipeline.folder import MANIFEST
from pipeline.shards import check_space
from processes import PATIENCE
from servers.range_server import RangeServer, serve

# The fixture in four files of two row groups, and a large source in 14 files.
SMALL = ["--max-shard-size", "300kB", "--rows-per-group", "2", "--num-proc", "2"]
LARGE = ["--max-shard-size", "14MB", "--rows-per-group", "4", "--num-proc", "2"]
LARGE_FILES = 14
LAST = ("SyntheticImg_4cafedeb-506fd81e-f52a221a-8de0d06c-f77eef92.png", "0079.png")  # image of each
SIGNALS: dict[int, int] = {signal.SIGKILL: -signal.SIGKILL, signal.SIGINT: 130, signal.SIGTERM: 143}  # exit codes
INTERRUPTED = "\ninterrupted. Finished files are kept: run the same command again to continue.\n"
ENDS: dict[int, tuple[int, str]] = {signal.SIGINT: (130, INTERRUPTED), signal.SIGTERM: (143, "")}
WORKER_DIED = r"error: a worker process was killed, possibly out of memory. Finished files are kept: .*\n"
OPERATIONS = ("replace", "unlink", "fsync")  # of `os`: each changes the folder, or makes a change durable


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Every file that an undisturbed conversion of the fixture writes."""
    output = tmp_path_factory.mktemp("whole") / "o"
    assert convert(FIXTURE, output, *SMALL) == 0
    assert len(files_of(output)) == 4
    return contents(output)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source whose conversion takes long enough to be interrupted at chosen points."""
    folder = tmp_path_factory.mktemp("large")
    padded(folder, count=80, size=2_000_000)
    return folder


@pytest.fixture(scope="module")
def large_whole(large: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Every file that an undisturbed conversion of `large` writes."""
    output = tmp_path_factory.mktemp("large_whole") / "o"
    assert convert(large, output, *LARGE) == 0
    assert len(files_of(output)) == LARGE_FILES
    return contents(output)


class Run:
    """A conversion in a process group of its own.

    Args:
        source: The source.
        output: The folder.
        options: More options.
        prepare: Called in the process before the conversion.
    """

    def __init__(self, source: Path, output: Path, options: list[str], prepare: Callable[[], Any] = int) -> None:
        self.output = output
        self.log = output.with_name(f"{output.name}.log")
        arguments = (source, options, prepare)
        self.process = multiprocessing.get_context("fork").Process(target=self._run, args=arguments)
        self.process.start()
        self.pid = self.process.pid or 0

    def _run(self, source: Path, options: list[str], prepare: Callable[[], Any]) -> None:
        os.setsid()
        with open(self.log, "w", buffering=1) as log:
            sys.stdout = sys.stderr = log
            prepare()
            start(lambda: convert(source, self.output, *options))

    def wait_for(self, files: int) -> None:
        """Waits until this number of files is finished; for 0, until the first was begun."""
        while self.process.is_alive():
            if len(files_of(self.output)) >= files and (files or list(self.output.glob("data/.*"))):
                return
        raise AssertionError(f"ended before it had {files} files: {self.log.read_text()}")

    def workers(self) -> list[int]:
        """Returns the processes that it started."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return [int(child) for child in children.read_text().split()]

    def end(self) -> tuple[int | None, str]:
        """Waits until it and all its processes have ended; returns exit code and output.

        A process that lives on for `PATIENCE` seconds after the main one is an error.
        """
        self.process.join()
        deadline = time.monotonic() + PATIENCE
        while alive := self._alive():
            assert time.monotonic() < deadline, f"processes live on: {alive}"
        return self.process.exitcode, self.log.read_text()

    def _alive(self) -> list[str]:
        found = []
        for process in psutil.pids():
            with contextlib.suppress(OSError):  # it has ended meanwhile
                text = Path(f"/proc/{process}/stat").read_text()
                state, _, group = text.rpartition(")")[2].split()[:3]
                if int(group) == self.pid and state != "Z":  # a zombie has ended
                    found.append(text)
        return found


def held_until(proceed: Path) -> Callable[[], None]:
    """Returns a `prepare` with which a conversion does not finish its last file before a file exists.

    So it does not end before a test interrupts it, however late that is.
    """

    def prepare() -> None:
        read_table = pipeline.parquet.shard.read_table

        def read(group: list[synthchex_75k.Row], *arguments: Any) -> Any:
            while group[-1].filename in LAST and not proceed.exists():
                time.sleep(0.01)
            return read_table(group, *arguments)

        setattr(pipeline.parquet.shard, "read_table", read)  # noqa: B010

    return prepare


def identities(output: Path) -> dict[Path, tuple[int, int]]:
    """For each Parquet file, numbers that change when it is written again."""
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files_of(output)}


def leftovers(output: Path) -> list[Path]:
    return [path for path in output.rglob(".*") if path.name != MANIFEST]


def visible(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if not name.startswith(".")}


def resume(source: Path, output: Path, options: list[str], wanted: dict[str, bytes]) -> None:
    """Runs again; checks that finished files are not written again, and that the result is as wanted."""
    finished = identities(output)
    assert all(wanted[str(path.relative_to(output))] == path.read_bytes() for path in finished)
    if (output / "README.md").exists():
        assert visible(contents(output)) == visible(wanted), "the card is written last"
    assert convert(source, output, *options) == 0
    assert finished.items() <= identities(output).items()
    assert contents(output) == wanted


# At every operation that changes the folder


def signal_before(number: int, number_of_signal: int, in_worker: bool = False) -> Callable[[], None]:
    """Returns a `prepare` that sends a signal to the main process, or a worker to itself, before its nth operation."""

    def prepare() -> None:
        main, count = os.getpid(), 0

        def counting(operation: Callable[..., Any]) -> Callable[..., Any]:
            def counted(*arguments: Any, **options: Any) -> Any:
                nonlocal count
                if (os.getpid() != main) == in_worker:
                    count += 1
                    if count == number:
                        os.kill(os.getpid(), number_of_signal)
                return operation(*arguments, **options)

            return counted

        for name in OPERATIONS:
            setattr(os, name, counting(getattr(os, name)))

    return prepare


def check_resumes(
    prepare: Callable[[], None], code: int, whole: dict[str, bytes], output: Path, options: list[str] = SMALL
) -> bool:
    """Runs with a signal, then again; returns False where the first run ended before its signal."""
    run = Run(FIXTURE, output, options, prepare)
    ended, log = run.end()
    if ended == 0:
        assert contents(output) == whole
        return False
    assert ended == code, log
    assert "Traceback" not in log
    if code != -signal.SIGKILL:
        assert leftovers(output) == []
    resume(FIXTURE, output, options, whole)
    return True


@pytest.mark.parametrize("number", [1, 5, 14, 19, 22, 27])
def test_resumes_after_sigkill(number: int, whole: dict[str, bytes], tmp_path: Path) -> None:
    assert check_resumes(signal_before(number, signal.SIGKILL), -signal.SIGKILL, whole, tmp_path / "o")


@pytest.mark.slow
@pytest.mark.parametrize("number_of_signal", SIGNALS)
def test_resumes_after_a_signal_before_every_operation(
    number_of_signal: int, whole: dict[str, bytes], tmp_path: Path
) -> None:
    number = 1
    while check_resumes(
        signal_before(number, number_of_signal), SIGNALS[number_of_signal], whole, tmp_path / f"o{number}"
    ):
        number += 1
    assert number > 20


@pytest.mark.slow
def test_resumes_after_sigkill_before_every_operation_of_an_update(whole: dict[str, bytes], tmp_path: Path) -> None:
    previous = tmp_path / "previous"
    assert convert(FIXTURE, previous, *SMALL, "--uncertainty", "zeros", "--figures") == 0
    number, done = 0, False
    while not done:
        number += 1
        output = shutil.copytree(previous, tmp_path / f"o{number}")
        run = Run(FIXTURE, output, [*SMALL, "--overwrite"], signal_before(number, signal.SIGKILL))
        done = run.end()[0] == 0
        assert convert(FIXTURE, output, *SMALL, "--overwrite") == 0
        assert contents(output) == whole
        assert not (output / "figures").exists()
    assert number > 30


@pytest.mark.slow
def test_resumes_after_sigkill_of_a_worker_before_every_operation(whole: dict[str, bytes], tmp_path: Path) -> None:
    number = 1
    while check_resumes(signal_before(number, signal.SIGKILL, in_worker=True), 1, whole, tmp_path / f"o{number}"):
        number += 1
    assert number > 3


# At chosen points of time


def test_resumes_after_ctrl_c(whole: dict[str, bytes], tmp_path: Path) -> None:
    run = Run(FIXTURE, tmp_path / "o", SMALL, held_until(tmp_path / "never"))
    run.wait_for(1)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does
    assert run.end() == (130, INTERRUPTED)
    assert leftovers(tmp_path / "o") == []
    resume(FIXTURE, tmp_path / "o", SMALL, whole)


def test_resumes_after_sigterm(whole: dict[str, bytes], tmp_path: Path) -> None:
    run = Run(FIXTURE, tmp_path / "o", SMALL, held_until(tmp_path / "never"))
    run.wait_for(1)
    os.kill(run.pid, signal.SIGTERM)
    assert run.end() == (143, "")
    assert leftovers(tmp_path / "o") == []
    resume(FIXTURE, tmp_path / "o", SMALL, whole)


def test_resumes_after_sigkill_of_a_worker(whole: dict[str, bytes], tmp_path: Path) -> None:
    run = Run(FIXTURE, tmp_path / "o", SMALL, held_until(tmp_path / "never"))
    run.wait_for(1)
    os.kill(run.workers()[0], signal.SIGKILL)
    code, log = run.end()
    assert code == 1
    assert re.fullmatch(WORKER_DIED, log)
    assert leftovers(tmp_path / "o") == []
    resume(FIXTURE, tmp_path / "o", SMALL, whole)


@pytest.mark.slow
@pytest.mark.parametrize("files", range(0, LARGE_FILES - 1, 2))
def test_large_conversion_resumes_after_sigkill(
    files: int, large: Path, large_whole: dict[str, bytes], tmp_path: Path
) -> None:
    run = Run(large, tmp_path / "o", LARGE, held_until(tmp_path / "never"))
    run.wait_for(files)
    os.kill(run.pid, signal.SIGKILL)
    assert run.end()[0] == -signal.SIGKILL
    resume(large, tmp_path / "o", LARGE, large_whole)


@pytest.mark.slow
def test_large_conversion_resumes_after_repeated_sigkill(
    large: Path, large_whole: dict[str, bytes], tmp_path: Path
) -> None:
    for files in range(0, LARGE_FILES - 2, 3):
        run = Run(large, tmp_path / "o", LARGE, held_until(tmp_path / "never"))
        run.wait_for(files)
        os.killpg(run.pid, signal.SIGKILL)
        run.end()
    resume(large, tmp_path / "o", LARGE, large_whole)


@pytest.mark.slow
@pytest.mark.parametrize("files", [0, 1, 7])
@pytest.mark.parametrize("number", ENDS)
@pytest.mark.parametrize("send", [os.kill, os.killpg], ids=["process", "group"])  # a terminal sends to the group
def test_large_conversion_resumes_after_a_signal(
    send: Callable[[int, int], None],
    number: int,
    files: int,
    large: Path,
    large_whole: dict[str, bytes],
    tmp_path: Path,
) -> None:
    run = Run(large, tmp_path / "o", LARGE, held_until(tmp_path / "never"))
    run.wait_for(files)
    send(run.pid, number)
    assert run.end() == ENDS[number]
    assert leftovers(tmp_path / "o") == []
    resume(large, tmp_path / "o", LARGE, large_whole)


@pytest.mark.slow
@pytest.mark.parametrize("files", [None, 1, 5])
def test_large_conversion_resumes_after_sigkill_of_a_worker(
    files: int | None, large: Path, large_whole: dict[str, bytes], tmp_path: Path
) -> None:
    run = Run(large, tmp_path / "o", LARGE, held_until(tmp_path / "never"))
    while files is None and not run.workers():  # before it has begun a file
        assert run.process.is_alive()
    if files is not None:
        run.wait_for(files)
    os.kill(run.workers()[0], signal.SIGKILL)
    code, log = run.end()
    assert code == 1
    assert re.fullmatch(WORKER_DIED, log)
    assert leftovers(tmp_path / "o") == []
    resume(large, tmp_path / "o", LARGE, large_whole)


# Without space or permission


@pytest.mark.slow
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("delay", [0, 0.001, 0.003, 0.01, 0.03, 0.1])
def test_a_second_signal_does_not_interrupt_the_removal_of_half_written_files(
    delay: float, second: int, large: Path, tmp_path: Path
) -> None:
    run = Run(large, tmp_path / "o", LARGE, held_until(tmp_path / "never"))
    run.wait_for(2)
    os.killpg(run.pid, signal.SIGINT)
    time.sleep(delay)
    os.killpg(run.pid, second)
    assert run.end() in (ENDS[signal.SIGINT], ENDS[second])  # at once, the second may be handled first
    assert not leftovers(run.output)


@pytest.mark.slow
def test_too_few_open_files_are_one_line(whole: dict[str, bytes], tmp_path: Path) -> None:
    program = [sys.executable, str(ROOT / "scripts/convert_to_parquet.py"), str(FIXTURE), str(tmp_path / "o")]
    for limit in (12, 16, 20, 24):
        command = ["bash", "-c", f'ulimit -n {limit}; exec "$@"', "bash", *program, "--no-figures", *SMALL]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode:
            assert re.fullmatch(r"error: .*Too many open files.*\. Raise the limit .*ulimit -n.*\n", run.stderr)
    assert convert(FIXTURE, tmp_path / "o", *SMALL) == 0
    assert visible(contents(tmp_path / "o")) == visible(whole)


def limit_file_size(size: int) -> Callable[[], None]:
    """Returns a `prepare` with which no file grows beyond a size, in bytes."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize("size", [1_000, 50_000, 245_000])
def test_resumes_after_a_file_cannot_grow(size: int, whole: dict[str, bytes], tmp_path: Path) -> None:
    run = Run(FIXTURE, tmp_path / "o", SMALL, limit_file_size(size))
    code, log = run.end()
    assert code == 1
    # With the smallest size the workers cannot share a counter, before there is a file to name.
    file = "" if size == 1_000 else r": '.*/o/data/train-\d{5}-of-\d{5}\.parquet'"
    assert re.fullmatch(rf"error: \[Errno 27\] File too large{file}\. Finished files are kept: .*\n", log)
    assert leftovers(tmp_path / "o") == []
    resume(FIXTURE, tmp_path / "o", SMALL, whole)


@contextlib.contextmanager
def small_disk(folder: Path, options: str) -> Iterator[Path]:
    """Mounts a disk in memory; skips the test where that is not allowed."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a disk needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_resumes_after_the_disk_is_full(whole: dict[str, bytes], tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=10m,nr_inodes=8") as disk:  # room for the data, not for all the names
        code, log = Run(FIXTURE, disk / "o", SMALL).end()
        assert code == 1
        assert re.fullmatch(r"error: \[Errno 28\] No space left on device: .*\. Finished files are kept: .*\n", log)
        assert leftovers(disk / "o") == []
        subprocess.run(["mount", "-o", "remount,nr_inodes=100", str(disk)], check=True)
        resume(FIXTURE, disk / "o", SMALL, whole)


def test_disk_that_is_too_small(tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(StepError, match="are needed"):
        check_space(tmp_path / "o", 1 << 60, 0)
    with small_disk(tmp_path / "disk", "size=900k") as disk:
        assert convert(FIXTURE, disk / "o", *SMALL) == 1
        assert re.search(
            r"disk/o: 1,\d+,\d+ bytes are needed and [\d,]+ are free; free some, or use", capsys.readouterr().err
        )
        assert list(disk.iterdir()) == []


def test_unwritable_folder(source: Source) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source().rename(folder / "source")
        (folder / "closed").mkdir(mode=0o555)
        for path in folder.rglob("*"):
            path.chmod(path.stat().st_mode | 0o444)
        folder.chmod(0o755)
        (folder / "logs").mkdir(mode=0o777)
        (folder / "logs").chmod(0o777)

        def drop_rights() -> None:
            PIL.Image.preinit()  # imports what that user may not read
            if os.geteuid() == 0:
                os.setuid(65534)

        code, log = Run(folder / "source", folder / "closed/o", SMALL, drop_rights).end()
        assert code == 1
        assert re.search(rf"error: \[Errno 13\] Permission denied: '{folder}/closed/o", log)


# A source that changes during the conversion


def test_resumes_after_the_source_was_unavailable(source: Source, tmp_path: Path) -> None:
    folder = source()
    assert convert(folder, tmp_path / "whole", *SMALL) == 0
    run = Run(folder, tmp_path / "o", SMALL, held_until(tmp_path / "proceed"))
    run.wait_for(1)
    (folder / "data").rename(folder / "away")
    (tmp_path / "proceed").touch()
    code, log = run.end()
    (folder / "away").rename(folder / "data")
    assert code == 1
    reason = "(it is gone; restore it, and|it changed while it was read;)"  # changed, if it was open already
    assert re.fullmatch(rf"error: {folder}/data/s\d.zip: {reason} start again\n", log)
    assert leftovers(tmp_path / "o") == []
    resume(folder, tmp_path / "o", SMALL, contents(tmp_path / "whole"))


def test_resumes_after_an_archive_went_at_the_moment_it_was_opened(source: Source, tmp_path: Path) -> None:
    folder = source()
    assert convert(folder, tmp_path / "whole", *SMALL) == 0
    path, away = folder / "data/s2.zip", folder / "away"

    def remove_when_opened() -> None:
        main = os.getpid()

        def before_opening(event: str, arguments: tuple[Any, ...]) -> None:
            if event == "open" and arguments[0] == str(path) and os.getpid() != main and path.exists():
                path.rename(away)

        sys.addaudithook(before_opening)

    code, log = Run(folder, tmp_path / "o", SMALL, remove_when_opened).end()
    away.rename(path)
    assert code == 1
    assert log == f"error: {path}: it is gone; restore it, and start again\n"
    assert leftovers(tmp_path / "o") == []
    resume(folder, tmp_path / "o", SMALL, contents(tmp_path / "whole"))


def test_source_that_is_damaged_during_the_conversion(source: Source, tmp_path: Path) -> None:
    folder = source()
    run = Run(folder, tmp_path / "o", SMALL, held_until(tmp_path / "proceed"))
    run.wait_for(1)
    path = folder / "data/s2.zip"
    with open(path, "r+b") as archive:
        archive.seek(path.stat().st_size - 10_000)
        archive.write(b"damage")
    (tmp_path / "proceed").touch()
    code, log = run.end()
    assert code == 1
    assert re.fullmatch(rf"error: {path}: it changed while it was read; start again\n", log)
    assert leftovers(tmp_path / "o") == []
    assert not (tmp_path / "o/README.md").exists()


def test_loose_images_that_are_replaced_during_the_conversion(source: Source, tmp_path: Path) -> None:
    folder = source(shape=loose)
    run = Run(folder, tmp_path / "o", SMALL, held_until(tmp_path / "proceed"))
    run.wait_for(1)
    *_, path, last = sorted(folder.rglob("*.png"))
    before = path.read_bytes()
    path.write_bytes(last.read_bytes())
    last.write_bytes(before)
    (tmp_path / "proceed").touch()
    code, log = run.end()
    assert code == 1
    assert re.fullmatch(r"error: .*\.png: it changed while it was read; start again\n", log)
    assert not (tmp_path / "o/README.md").exists()
    assert convert(folder, tmp_path / "whole", *SMALL) == 0
    resume(folder, tmp_path / "o", SMALL, contents(tmp_path / "whole"))


@pytest.mark.slow
@pytest.mark.parametrize("shape", [one_zip, zips, tars])
def test_files_of_two_versions_of_a_server_never_mix(
    shape: Write, source: Source, images: dict[str, bytes], table: Rows, tmp_path: Path
) -> None:
    few = dict([*images.items()][:9])
    other = [{**row, "prompt": row["prompt"][::-1]} for row in table[:9]]
    before = source(few, table[:9], shape)
    after = source(dict(zip(few, reversed(few.values()), strict=True)), other, shape)

    def run(server: AbstractContextManager[RangeServer], name: str) -> tuple[dict[str, bytes] | str, int]:
        """Returns the data that was written or the error, and how many requests there were."""
        command = [sys.executable, str(ROOT / "scripts/convert_to_parquet.py"), "--no-figures", *SMALL]
        with server as running:
            ran = subprocess.run([*command, running.url, str(tmp_path / name)], capture_output=True, text=True)
            asked = len(running.asked)
        if ran.returncode:
            assert "Traceback" not in ran.stderr
            return ran.stderr, asked
        return {path.name: path.read_bytes() for path in files_of(tmp_path / name)}, asked

    (first, asked), (second, _) = run(serve(before), "first"), run(serve(after), "second")
    assert isinstance(first, dict) and isinstance(second, dict) and first != second
    outcomes = [run(serve(before, after, count), str(count))[0] for count in range(1, asked, 1 + asked // 8)]
    assert all(outcome in (first, second) or isinstance(outcome, str) for outcome in outcomes)
    assert any("it changed while it was read; start again" in outcome for outcome in outcomes)
