"""What the tests of the quality filter share."""

from __future__ import annotations

import csv
import itertools
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import synthchex_75k
from conftest import FIXTURE, ROOT, to_csv
from filter_quality import main
from processes import PATIENCE
from servers.chat_server import Answer, Question, Reply

PROGRAM = [sys.executable, str(ROOT / "scripts" / "filter_quality.py")]

Label = Callable[..., tuple[int, str, str]]


def labeller(folder: Path, capsys: pytest.CaptureFixture[str]) -> Label:
    """Returns a function that labels the fixture into labels.csv; it returns exit code, output and messages."""

    def run(url: str, *options: str, source: Path = FIXTURE) -> tuple[int, str, str]:
        code = main([*label_arguments(folder, url, source), *options])
        return (code, *capsys.readouterr())

    return run


def label_arguments(folder: Path, url: str, source: Path = FIXTURE) -> list[str]:
    """Returns the arguments that label a source into labels.csv with a server."""
    return ["label", str(source), str(folder / "labels.csv"), "--model", "judge", "--base-url", url]


def read(folder: Path) -> list[dict[str, str]]:
    """Reads labels.csv."""
    with open(folder / "labels.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def names(folder: Path) -> set[str]:
    """Returns the names of the images in labels.csv, none of them twice."""
    found = [row["filename"] for row in read(folder)]
    assert len({*found}) == len(found)
    return {*found}


def lines(folder: Path) -> int:
    """Returns the number of whole lines of labels.csv below its header; 0 where there is none."""
    path = folder / "labels.csv"
    return max(0, path.read_bytes().count(b"\n") - 1) if path.exists() else 0


def high_quality(_: Question) -> str:
    """Answers each question alike."""
    return "High Quality"


class Together:
    """Answers the first question, which is asked alone, and some others not before so many are asked at once.

    Args:
        answer: Returns the answers.
        count: Number of questions at once.
    """

    def __init__(self, answer: Answer, count: int) -> None:
        self._answer = answer
        self._asked = itertools.count()
        self._together, self._count = threading.Barrier(count), count

    def __call__(self, question: Question) -> str | Reply:
        if 0 < next(self._asked) <= self._count:
            self._together.wait(PATIENCE)
        return self._answer(question)


def write_labels(folder: Path, qualities: dict[str, str]) -> Path:
    """Writes labels.csv for the fixture's images; those without a given quality are of high quality."""
    path = folder / "labels.csv"
    rows = [
        {"filename": row.filename, "quality": qualities.get(row.filename, "High Quality"), "response": "x"}
        for row in synthchex_75k.plan(str(FIXTURE))
    ]
    path.write_bytes(to_csv([{**row, "model": "judge", "latency_s": "0.1"} for row in rows]))
    return path
