"""Progress bars in a terminal and in a log, and the line about a step that takes long."""

import contextlib
import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import FIXTURE, ROOT, convert, padded
from filter_quality import main
from pipeline.progress import notice, progress_bar
from servers.chat_server import Question, Reply, serve

CONVERTING = r"Converting: +\d+%\|.*/60.0M \[.*B/s, \d+/60 rows\]"
LABELLING = r"Labelling: +\d+%\|.* \d+/12 \[.*(img/s|s/img).*Quality \d+, .*Quality \d+\]"


@contextlib.contextmanager
def terminal() -> Iterator[tuple[int, list[bytes]]]:
    """Opens a terminal of 120 columns: what is written to the descriptor is added to the list."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    shown: list[bytes] = []

    def read() -> None:
        with contextlib.suppress(OSError):  # at its end, on Linux
            while block := os.read(leader, 4096):
                shown.append(block)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield follower, shown
    finally:
        os.close(follower)
        reader.join()
        os.close(leader)


@contextlib.contextmanager
def stderr_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """Makes the standard error of this process a terminal."""
    with (
        terminal() as (descriptor, shown),
        open(descriptor, "w", closefd=False) as file,
        monkeypatch.context() as patch,
    ):
        patch.setattr(sys, "stderr", file)
        yield shown


def slowly(question: Question) -> str:
    time.sleep(0.05)
    return "Low Quality" if "edema" in question.text else "High Quality"


def label(folder: Path, url: str, *options: str) -> int:
    arguments = ["label", str(FIXTURE), str(folder / "labels.csv"), "--model", "m", "--base-url", url]
    return main([*arguments, "--concurrency", "2", *options])


def test_a_conversion_in_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    padded(tmp_path / "source", count=60, size=1_000_000)
    with stderr_in_a_terminal(monkeypatch) as shown:
        assert convert(tmp_path / "source", tmp_path / "o", "--num-proc", "1") == 0
    assert re.search(CONVERTING, b"".join(shown).decode())


def test_a_conversion_in_a_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    padded(tmp_path / "source", count=60, size=1_000_000)
    monkeypatch.setattr("pipeline.progress.LOG_INTERVAL", 0.05)
    assert convert(tmp_path / "source", tmp_path / "o", "--num-proc", "1") == 0
    *lines, last = capsys.readouterr().err.split("\n")
    assert lines
    for line in lines:
        assert re.fullmatch(r"Converting: [\d.]+M?/60.0M, ([\d.]+[kMG]|\?)B/s, \d+/60 rows, (\d\d:\d\d|\?) left", line)
    assert last.strip() == ""


def test_labelling_in_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(slowly) as server, stderr_in_a_terminal(monkeypatch) as shown:
        assert label(tmp_path, server.url) == 0
    assert re.search(LABELLING, b"".join(shown).decode())


def test_labelling_in_a_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipeline.progress.LOG_INTERVAL", 0.05)
    with serve(slowly) as server:
        assert label(tmp_path, server.url, "--limit", "2") == 0
        assert label(tmp_path, server.url) == 0
    lines = [line for line in capsys.readouterr().err.split("\n") if line.strip()]
    assert lines
    counts = r"((High|Low) Quality \d+(, )?)+"
    for line in lines:
        assert re.fullmatch(rf"Labelling: \d+/\d+, *[\d.?]+(img/s|s/img), {counts}, (\d\d:\d\d|\?) left", line)
    assert re.match(r"Labelling: ([4-9]|1\d)/12", lines[-1]), "labels of earlier runs count"


def test_failures_are_no_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], images: dict[str, bytes]
) -> None:
    monkeypatch.setattr("pipeline.progress.LOG_INTERVAL", 0)
    rejected = [*images.values()][3:9]
    with serve(lambda question: Reply(400) if question.image in rejected else slowly(question)) as server:
        assert label(tmp_path, server.url) == 1
    shown = [int(count) for count in re.findall(r"^Labelling: (\d+)/12, ", capsys.readouterr().err, re.M)]
    assert shown
    assert max(shown) <= 6, "six of twelve have a label"


def test_number_of_failures_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: dict[str, bytes]) -> None:
    rejected = [*images.values()][3:9]
    with (
        serve(lambda question: Reply(400) if question.image in rejected else slowly(question)) as server,
        stderr_in_a_terminal(monkeypatch) as shown,
    ):
        assert label(tmp_path, server.url) == 1
    text = b"".join(shown).decode()
    assert re.search(r"Labelling: +50%\|.* 6/12 \[.*High Quality \d, .*failed 6\]", text)
    assert "7/12" not in text


@pytest.mark.slow
@pytest.mark.parametrize("program", ["convert_to_parquet", "filter_quality"])
def test_program_in_a_terminal(program: str, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / f"{program}.py")]
    with serve(slowly) as server, terminal() as (descriptor, shown):
        if program == "convert_to_parquet":
            padded(tmp_path / "source", count=60, size=1_000_000)
            command += [str(tmp_path / "source"), str(tmp_path / "o"), "--num-proc", "1", "--no-figures"]
        else:
            command += ["label", str(FIXTURE), str(tmp_path / "l.csv"), "--model", "m", "--base-url", server.url]
        subprocess.run(command, stderr=descriptor, stdout=subprocess.DEVNULL, check=True)
    wanted = CONVERTING if program == "convert_to_parquet" else LABELLING
    assert re.search(wanted, b"".join(shown).decode())


def test_a_short_run_logs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("Counting", 3, "row") as bar:
        bar.update(3)
    assert capsys.readouterr().err.strip() == ""


def test_a_line_in_a_pipe_does_not_wait_for_the_end_of_the_program() -> None:
    program = "from pipeline.progress import write_line; write_line('ready'); import time; time.sleep(600)"
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT / "scripts", env=environment, stdout=subprocess.PIPE, text=True
    ) as run:
        try:
            assert run.stdout and run.stdout.readline() == "ready\n"
        finally:
            run.kill()


def test_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.progress.NOTICE_AFTER", 0.1)
    # Not `capsys`: its `readouterr` can lose what another thread prints meanwhile.
    with contextlib.redirect_stderr(io.StringIO()) as printed, notice("checking …"):
        while not printed.getvalue().endswith("\n"):
            time.sleep(0.01)
    assert printed.getvalue() == "checking …\n"


def test_no_notice_of_what_has_ended(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("pipeline.progress.NOTICE_AFTER", 300)
    before = threading.enumerate()
    with notice("checking …"):
        (timer,) = {*threading.enumerate()} - {*before}
    timer.join()  # not 300 s
    assert capsys.readouterr().err == ""
