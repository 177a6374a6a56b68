"""What the programs show while they run."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pytest

from conftest import FIXTURE, ROOT, convert, padded
from filter_quality import main
from servers.chat_server import Asked, serve


def in_a_terminal(command: list[str]) -> str:
    """Runs a program whose standard error is a terminal; returns what that shows."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    shown = b""
    with subprocess.Popen([sys.executable, *command], stderr=follower, stdout=subprocess.DEVNULL):
        os.close(follower)
        with open(leader, "rb", buffering=0) as terminal:
            try:
                while block := terminal.read(4096):
                    shown += block
            except OSError:  # at its end, on Linux
                pass
    return shown.decode()


def test_a_conversion_in_a_terminal(tmp_path: Path) -> None:
    padded(tmp_path / "source", count=60, size=2_000_000)
    program = [str(ROOT / "scripts" / "convert_to_parquet.py"), str(tmp_path / "source"), str(tmp_path / "o")]
    shown = in_a_terminal([*program, "--num-proc", "1", "--no-figures"])
    assert re.search(r"Converting: +\d+%\|.*/120M \[.*B/s, \d+/60 rows\]", shown)


def test_a_conversion_in_a_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    padded(tmp_path / "source", count=60, size=2_000_000)
    monkeypatch.setattr("pipeline.progress.LOG_INTERVAL", 0.05)
    assert convert(tmp_path / "source", tmp_path / "o", "--num-proc", "1") == 0
    *lines, last = capsys.readouterr().err.split("\n")
    assert lines
    for line in lines:
        assert re.fullmatch(r"Converting: [\d.]+M?/120M, ([\d.]+[MG]|\?)B/s, \d+/60 rows, (\d\d:\d\d|\?) left", line)
    assert last.strip() == ""


def slowly(asked: Asked) -> str:
    time.sleep(0.1)
    return "Low Quality" if "edema" in asked.text else "High Quality"


def test_labelling_in_a_terminal(tmp_path: Path) -> None:
    with serve(slowly) as server:
        options = ["--model", "m", "--base-url", server.url, "--concurrency", "2"]
        program = [str(ROOT / "scripts" / "filter_quality.py"), "label", str(FIXTURE), str(tmp_path / "labels.csv")]
        shown = in_a_terminal([*program, *options])
    assert re.search(r"Labelling: +\d+%\|.* \d+/12 \[.*img/s.*Quality \d+, .*Quality \d+\]", shown)


def test_labelling_in_a_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr("pipeline.progress.LOG_INTERVAL", 0.05)
    with serve(slowly) as server:
        options = ["--model", "m", "--base-url", server.url, "--concurrency", "2"]
        assert main(["label", str(FIXTURE), str(tmp_path / "labels.csv"), *options, "--limit", "2"]) == 0
        assert main(["label", str(FIXTURE), str(tmp_path / "labels.csv"), *options]) == 0
    lines = [line for line in capsys.readouterr().err.split("\n") if line.strip()]
    assert lines
    counts = r"((High|Low) Quality \d+(, )?)+"
    for line in lines:
        assert re.fullmatch(rf"Labelling: \d+/\d+, *[\d.?]+(img/s|s/img), {counts}, (\d\d:\d\d|\?) left", line)
    assert re.match(r"Labelling: ([4-9]|1\d)/12", lines[-1]), "what was done before counts"
