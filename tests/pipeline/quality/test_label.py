"""Labelling: what is asked, what LABELS_CSV holds, and continuing after an interruption."""

import json
import os
import re
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import FIXTURE, ROOT, Rows, Source
from filter_quality import main
from labelling import (
    PROGRAM,
    Label,
    Together,
    high_quality,
    label_arguments,
    labeller,
    lines,
    names,
    read,
    write_labels,
)
from pipeline.facts import META_PROMPT
from pipeline.quality.labels_csv import LabelsFile, QualityLabel
from pipeline.table import MAX_FIELD
from servers.chat_server import Answer, Question, Reply, serve

HEADER = b"filename,quality,response,model,latency_s\n"


@pytest.fixture
def label(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Label:
    return labeller(tmp_path, capsys)


# Questions and answers


def test_each_image_is_asked_about_with_its_prompt(label: Label, expected: Rows, tmp_path: Path) -> None:
    with serve(high_quality) as server:
        assert label(server.url)[0] == 0
    by_image = {question.image: question for question in server.questions}
    assert len(server.questions) == len(expected)
    for row in expected:
        question = by_image[row["image"]]
        assert question.text == f"{META_PROMPT}\n\nDescription: {row['prompt']}"
        assert (question.request["model"], question.request["temperature"]) == ("judge", 0)
        assert question.request["max_tokens"] == 64
    assert names(tmp_path) == {row["filename"] for row in expected}


def test_labels_csv(label: Label, images: dict[str, bytes], tmp_path: Path) -> None:
    answer = 'It is "Low Quality",\nI fear.'
    first = next(iter(images.values()))
    with serve(lambda question: answer if question.image == first else "Medium quality") as server:
        code, output, _ = label(server.url)
    rows = read(tmp_path)
    assert code == 0
    assert [*rows[0]] == ["filename", "quality", "response", "model", "latency_s"]
    assert Counter(row["quality"] for row in rows) == {"Medium Quality": 11, "Low Quality": 1}
    (low,) = (row for row in rows if row["quality"] == "Low Quality")
    assert (low["filename"], low["response"], low["model"]) == (next(iter(images)), answer, "judge")
    assert 0 <= float(low["latency_s"]) < 10
    assert "12 of 12 images have a label" in output
    assert re.search(r"^All images +0 \(0%\) +11 \(92%\) +1 \(8%\) +0 \(0%\) +0 \(0%\) +12$", output, re.M)
    run = json.loads((tmp_path / "labels.csv.json").read_text())
    assert run == {"model": "judge", "meta_prompt": META_PROMPT}


@pytest.mark.parametrize("concurrency", [1, 5])
def test_requests_in_parallel(label: Label, concurrency: int) -> None:
    together = Together(high_quality, concurrency)
    with serve(together) as server:
        assert label(server.url, "--concurrency", str(concurrency))[0] == 0
    assert server.most_in_flight == concurrency


def test_another_meta_prompt(label: Label, tmp_path: Path) -> None:
    (tmp_path / "ask.txt").write_text("Is it 'High Quality' or 'Low Quality'?\n")
    with serve(high_quality) as server:
        assert label(server.url, "--meta-prompt", str(tmp_path / "ask.txt"), "--limit", "1")[0] == 0
    assert server.questions[0].text.startswith("Is it 'High Quality' or 'Low Quality'?\n\nDescription: ")


# Continuing


def test_no_image_is_asked_about_twice(label: Label, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(high_quality) as server:
        assert label(server.url, "--limit", "5")[0] == 0
        assert len(server.questions) == len(names(tmp_path)) == 5
        assert label(server.url)[0] == 0
        monkeypatch.setattr("pipeline.quality.judges.JudgeOptions.make", None)
        assert label(server.url)[0] == 0, "no model is loaded where nothing is left to ask"
    assert len({question.image for question in server.questions}) == len(server.questions) == 12


def test_ctrl_c(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    has_ended = threading.Event()

    def interrupt_after_five(_: Question) -> str:
        if len(server.answered) == 5:
            while len(read(tmp_path)) < 5:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)
            has_ended.wait()
        return "High Quality"

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with serve(interrupt_after_five) as server:
            command = [*label_arguments(tmp_path, server.url), "--concurrency", "1"]
            assert main(command) == 130, "the answer, which does not come before the end, is not waited for"
            has_ended.set()
            assert "Labels are kept: run the same command again to continue." in capsys.readouterr().err
            assert len(names(tmp_path)) == 5
            server.answer = high_quality
            assert main(label_arguments(tmp_path, server.url)) == 0
    finally:
        signal.signal(signal.SIGINT, handler)
    assert len(names(tmp_path)) == 12


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_interrupted_at_many_points(number: int, tmp_path: Path) -> None:
    concurrency, kills, asked = 3, 3, 0

    def two_answers(has_ended: threading.Event) -> Answer:
        answers = iter(["High Quality"] * 2)

        def answer(_: Question) -> str | Reply:
            if text := next(answers, None):
                return text
            has_ended.wait()
            return Reply(disconnect=True)

        return answer

    for done in range(0, 2 * kills, 2):
        has_ended = threading.Event()
        with serve(two_answers(has_ended)) as server:  # one for each run, so that no request of another run is counted
            command = [*PROGRAM, *label_arguments(tmp_path, server.url), "--concurrency", str(concurrency)]
            run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            while lines(tmp_path) < done + 2 or len(server.questions) < 3:
                assert run.poll() is None
                time.sleep(0.01)
            run.send_signal(number)
            output, _ = run.communicate()  # before `has_ended`: no answer is waited for
            has_ended.set()
        assert run.returncode == (-number if number == signal.SIGKILL else 128 + number)
        assert number != signal.SIGINT or "Labels are kept: run the same command again to continue." in output
        assert len(names(tmp_path)) == done + 2
        asked += len(server.questions)
    with serve(high_quality) as server:
        subprocess.run([*PROGRAM, *label_arguments(tmp_path, server.url)], check=True, capture_output=True)
    assert len(names(tmp_path)) == 12
    assert asked + len(server.questions) <= 12 + kills * concurrency, "each once, and those in flight"


@pytest.mark.parametrize(
    "half",
    [
        b"SyntheticImg_",
        b'a.png,High Quality,"High\nQual',
        b'a.png,High Quality,"High\n',
        b'a.png,High Quality,"x ""',
        b"a",
        b"a.png,High Quality,High Quality,judge,0.1",
        bytes(4096),
    ],
    ids=["name", "in quotes", "before a line", "a quote", "a letter", "all but the line feed", "zeros"],
)
def test_half_written_line_is_repaired(label: Label, half: bytes, tmp_path: Path) -> None:
    with serve(high_quality) as server:
        label(server.url, "--limit", "5")
        whole = (tmp_path / "labels.csv").read_bytes()
        (tmp_path / "labels.csv").write_bytes(whole + half)
        code, _, error = label(server.url)
    assert code == 0
    assert f"labels.csv: cut off a half-written last line of {len(half)} bytes" in error
    assert (tmp_path / "labels.csv").read_bytes().startswith(whole)
    assert len(names(tmp_path)) == len(server.questions) == 12


@pytest.mark.parametrize("answer", ['5" tall, I think', '"' + "x" * MAX_FIELD], ids=["in a text", "never closed"])
def test_a_stray_quote_costs_no_label(label: Label, answer: str, tmp_path: Path) -> None:
    """Somebody edited the file by hand; what follows is not half-written."""
    with serve(high_quality) as server:
        label(server.url, "--limit", "5")
        path = tmp_path / "labels.csv"
        edited = path.read_bytes().replace(b"High Quality,High Quality", f"High Quality,{answer}".encode(), 1)
        path.write_bytes(edited)
        _, _, error = label(server.url)
    assert path.read_bytes().startswith(edited)
    assert "cut off" not in error


@pytest.mark.parametrize("step", [61, pytest.param(7, marks=pytest.mark.slow)])
def test_file_cut_at_any_byte_is_repaired(label: Label, step: int, tmp_path: Path) -> None:
    with serve(lambda _: 'It is "Low Quality",\nI fear.') as server:
        label(server.url, "--limit", "3")
        whole = (tmp_path / "labels.csv").read_bytes()
        for length in range(0, len(whole), step):
            (tmp_path / "labels.csv").write_bytes(whole[:length])
            assert label(server.url, "--limit", "1")[0] == 0
            assert len(names(tmp_path)) >= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "other"], "is of another model, 'judge'; name another file for 'other'"),
        (["--meta-prompt", "ask.txt"], "is of another meta-prompt, "),
    ],
)
def test_another_model_or_question_needs_another_file(
    label: Label, options: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ask.txt").write_text("How is it?")
    with serve(high_quality) as server:
        label(server.url, "--limit", "5")
        before = read(tmp_path)
        code, _, error = label(server.url, *options)
        assert code == 1
        assert f"error: {tmp_path}/labels.csv {message}" in error
        (tmp_path / "labels.csv.json").unlink()
        code, _, error = label(server.url)
        assert (code, "labels.csv.json is missing: it holds model and meta-prompt of labels.csv" in error) == (1, True)
    assert read(tmp_path) == before
    assert len(server.questions) == 5


def test_labels_of_another_source(
    label: Label, source: Source, images: dict[str, bytes], table: list[dict[str, str]]
) -> None:
    with serve(high_quality) as server:
        label(server.url)
        few = dict([*images.items()][:5])
        code, _, error = label(server.url, source=source(images=few, table=[r for r in table if r["filename"] in few]))
    assert code == 1
    assert "is of another source: it has labels of 7 images that this one lacks: " in error


@pytest.mark.parametrize("content", [b"prompt,filename\n", b"all my notes", b"a,b\n1,2\n", b"\xff"])
def test_a_file_that_is_no_labels_csv_is_left_alone(label: Label, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes(content)
    code, _, error = label("http://127.0.0.1:9/v1")
    assert code == 1
    assert f"error: {tmp_path}/labels.csv: not a CSV of labels: its columns are not filename, quality" in error
    assert (tmp_path / "labels.csv").read_bytes() == content


def as_fifo(path: Path) -> None:
    os.mkfifo(path)


def as_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def of_a_gigabyte(path: Path) -> None:
    """A header, and a line of NULs that takes no space."""
    path.write_bytes(HEADER)
    os.truncate(path, 1 << 30)


def with_a_name_of_two_lines(path: Path) -> None:
    path.write_bytes(HEADER + b'"a\nb.png",Low Quality,x,judge,1\n' * 2)


@pytest.mark.parametrize("command", ["label", "report"])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (as_fifo, ": not a regular file; name another one"),
        (as_device, ": not a regular file; name another one"),
        (of_a_gigabyte, ": longer than 268,435,456 bytes, so it is no CSV of labels; name another file"),
        (with_a_name_of_two_lines, " line 5: a b.png has a label already; remove one"),
    ],
)
def test_hostile_labels_csv(
    label: Label,
    make: Callable[[Path], None],
    message: str,
    command: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "labels.csv"
    make(path)
    (tmp_path / "labels.csv.json").write_text(json.dumps({"model": "judge", "meta_prompt": META_PROMPT}))
    if command == "label":
        code, _, error = label("http://127.0.0.1:9/v1")
    else:
        code, error = main(["report", str(FIXTURE), str(path)]), capsys.readouterr().err
    assert (code, error) == (1, f"error: {path}{message}\n")


def test_one_long_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A field that `csv` does not read, and a row that is long and wrong: the message is short."""
    path = tmp_path / "labels.csv"
    for line, message in {b"x" * 1_000_000: "field larger than field limit", b"x," * 100_000: "not a row of 5"}.items():
        path.write_bytes(HEADER + line + b"\n")
        assert main(["report", str(FIXTURE), str(path)]) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"error: {path} line 2: {message}")
        assert len(error) < 500


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"[" * 100_000, b"\xff"], ids=["", "half", "list", "deep", "text"]
)
def test_damaged_json_beside_labels_csv(label: Label, content: bytes, tmp_path: Path) -> None:
    write_labels(tmp_path, {})
    (tmp_path / "labels.csv.json").write_bytes(content)
    code, _, error = label("http://127.0.0.1:9/v1")
    why = "is damaged: it holds model and meta-prompt of labels.csv; restore it, or name another file"
    assert (code, error) == (1, f"error: {tmp_path}/labels.csv.json {why}\n")


def test_labels_csv_does_not_grow_beyond_what_is_read(
    label: Label, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.quality.labels_csv.MAX_BYTES", 1000)
    with serve(lambda _: "High Quality, " + "x" * 200) as server:
        code, _, error = label(server.url, "--concurrency", "1")
        assert code == 1
        assert f"error: {tmp_path}/labels.csv would be longer than 1,000 bytes; ask for shorter answers\n" in error
        assert (tmp_path / "labels.csv").stat().st_size <= 1000
        assert len(names(tmp_path)) == 3


def test_two_runs_do_not_write_to_one_file(label: Label, tmp_path: Path) -> None:
    path = write_labels(tmp_path, {})
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:5]).replace(b"\r\n", b"\n"))
    (tmp_path / "labels.csv.json").write_text(json.dumps({"model": "judge", "meta_prompt": META_PROMPT}))
    with serve(high_quality) as server:
        with LabelsFile(path, "judge", META_PROMPT):
            code, _, error = label(server.url)
            assert (code, "labels.csv: another run is writing to it" in error) == (1, True)
        assert server.questions == []
        assert label(server.url)[0] == 0
    assert len(names(tmp_path)) == 12


@pytest.mark.slow
def test_two_processes_do_not_write_to_one_file(label: Label, tmp_path: Path) -> None:
    proceed = threading.Event()

    def wait(_: Question) -> str:
        proceed.wait()
        return "High Quality"

    with serve(wait) as server:
        command = [*PROGRAM, *label_arguments(tmp_path, server.url)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as first:
            while not server.questions:
                assert first.poll() is None
                time.sleep(0.01)
            code, _, error = label(server.url)
            proceed.set()
            assert first.wait() == 0
    assert (code, "labels.csv: another run is writing to it" in error) == (1, True)
    assert len(names(tmp_path)) == 12


# Errors that are found before anything is written


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "judge\udcff"], r"--model: a CSV cannot hold the character '\udcff' of 'judge\udcff'"),
        (["--meta-prompt", "ask.txt"], "--meta-prompt ask.txt: not a text in UTF-8: 'utf-8' codec can't decode byte"),
    ],
)
def test_a_text_that_is_not_utf_8(
    label: Label, options: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ask.txt").write_bytes(b"How is it\xff?")
    code, _, error = label("http://127.0.0.1:9/v1", *options)
    assert (code, error.startswith(f"error: {message}"), error.count("\n")) == (1, True, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["ask.txt"]


@pytest.mark.parametrize(
    ("missing", "options", "message"),
    [
        ("openai", ["--base-url", "http://x/v1"], "module openai: pip install openai"),
        ("transformers", ["--transformers"], "module transformers: pip install torch 'transformers>=5.4'"),
        ("torch", ["--transformers"], "module torch: pip install torch 'transformers>=5.4'"),
        ("ray", ["--base-url", "http://x/v1", "--engine", "ray"], "--engine ray needs Ray: pip install 'ray[data]'"),
        ("", ["--callable", "no_such_module:f"], "module no_such_module in this folder or installed"),
        ("", ["--callable", "no.such.module:f"], "module no.such.module in this folder or installed"),
        ("", ["--callable", ":f"], "--callable :f: name a function as MODULE:FUNCTION"),
        ("", ["--callable", "json:no_such_function"], "--callable json:no_such_function: AttributeError: "),
        ("", ["--callable", "json"], "--callable json: name a function as MODULE:FUNCTION"),
        ("", ["--callable", "json:__name__"], "--callable json:__name__: not a function"),
        ("", ["--callable", "broken:judge"], "--callable broken:judge: SyntaxError: "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value[:12],
)
def test_a_model_that_cannot_be_loaded_leaves_no_file(
    missing: str,
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for package in ("torch", "transformers", "ray"):  # elsewhere than in the environment "heavy", none is installed
        monkeypatch.setitem(sys.modules, package, sys)
    if missing:
        monkeypatch.setitem(sys.modules, missing, None)
    (tmp_path / "broken.py").write_text("def judge(")
    monkeypatch.chdir(tmp_path)
    assert main(["label", str(FIXTURE), "labels.csv", "--model", "m", *options]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert (message in error, error.count("\n")) == (True, 1)
    assert [path.name for path in tmp_path.glob("labels*")] == []


def test_packages_are_checked_before_planning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("planning comes later")

    monkeypatch.setattr("pipeline.quality.label.plan", fail)
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert main(["label", "no/source", str(tmp_path / "l.csv"), "--model", "m", "--transformers"]) == 1
    assert "pip install" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required"),
        (["label", "s", "l.csv", "--model", "m"], "one of the arguments --base-url --transformers --callable"),
        (["label", "s", "l.csv", "--base-url", "http://x/v1"], "required: --model"),
        (["label", "s", "l.csv", "--model", "m", "--base-url", "http://x/v1", "--transformers"], "not allowed with"),
        (["label", "s", "l.csv", "--model", "m", "--base-url", "localhost:8000/v1"], "must start with http://"),
        (["label", "s", "l.csv", "--model", "m", "--transformers", "--max-tokens", "0"], "0 is not positive"),
        (["label", "s", "l.csv", "--model", "m", "--transformers", "--engine", "here"], "invalid choice: 'here'"),
        (["label", "s", "l.csv", "--model", "m", "--transformers", "--meta-prompt", "no.txt"], "no.txt: no such file"),
        (["label", "s", "no/l.csv", "--model", "m", "--transformers"], "no: no such folder; create it first"),
        (["apply", "s", "l.csv"], "required: OUTPUT_SOURCE"),
        (["apply", "s", "l.csv", "hf://datasets/a/b"], "hf://datasets/a/b must be a local folder"),
        (["apply", "s", "l.csv", "o", "--unparsed", "maybe"], "invalid choice: 'maybe'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_invalid_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


# Images and disks


@pytest.mark.parametrize("places", [(0,), (4,), (3, 4, 11)], ids=str)
def test_damaged_images_are_skipped(
    label: Label, images: dict[str, bytes], places: tuple[int, ...], source: Source, tmp_path: Path
) -> None:
    damaged = [[*images][place] for place in places]
    folder = source(images={name: data[: 5_000 if name in damaged else None] for name, data in images.items()})
    with serve(high_quality) as server:
        code, output, error = label(server.url, source=folder)
    count = "1 image" if len(places) == 1 else f"{len(places)} images"
    assert (code, f"error: no answer for {count}; run the command again to ask again:\n" in error) == (1, True)
    for name in damaged:
        assert re.search(rf"^- {name}: .*{name}: not a (whole|complete) PNG file; .*again$", error, re.M)
    assert names(tmp_path) == {*images} - {*damaged}
    assert f"{12 - len(places)} of 12 images have a label" in output


@pytest.mark.parametrize("size", [(65_535, 65_535), (60_000, 60_000), (2**31 - 1, 1), (0, 0)], ids=str)
@pytest.mark.parametrize("place", [0, 4])
def test_an_image_of_a_size_that_is_not_decoded(
    images: dict[str, bytes],
    size: tuple[int, int],
    place: int,
    source: Source,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its header alone says so; the file is small."""
    name, image = [*images.items()][place]
    header = b"IHDR" + struct.pack(">II", *size) + image[24:29]
    huge = image[:12] + header + struct.pack(">I", zlib.crc32(header)) + image[33:]
    judge = lambda images, questions: ["High Quality"] * len(images)  # noqa: E731
    monkeypatch.setattr("synthchex_75k.judge", judge, raising=False)
    labels = str(tmp_path / "labels.csv")
    command = ["label", str(source(images={**images, name: huge})), labels, "--model", "mine", "--callable"]
    assert main([*command, "synthchex_75k:judge"]) == 1
    error = capsys.readouterr().err
    assert "error: no answer for 1 image; run the command again to ask again:\n" in error
    assert re.search(f"^- {name}: ", error, re.M)
    assert names(tmp_path) == {*images} - {name}


@pytest.mark.slow
def test_full_disk(tmp_path: Path) -> None:
    limited = f"""
import resource, runpy, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (800, 800))
sys.argv[0] = {PROGRAM[1]!r}
sys.path.insert(0, {str(Path(PROGRAM[1]).parent)!r})
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    with serve(high_quality) as server:
        arguments = label_arguments(tmp_path, server.url)
        run = subprocess.run([sys.executable, "-c", limited, *arguments], capture_output=True, text=True)
        assert run.returncode == 1
        assert f"error: [Errno 27] File too large: '{tmp_path}/labels.csv'. Labels are kept" in run.stderr
        subprocess.run([*PROGRAM, *arguments], capture_output=True, check=True)
    assert len(names(tmp_path)) == 12


def test_error_while_writing(label: Label, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append = LabelsFile.append

    def fail_after_five(self: LabelsFile, labels: list[QualityLabel]) -> None:
        if len(self.labels) == 5:
            raise OSError(28, "No space left on device", str(tmp_path / "labels.csv"))
        append(self, labels)

    with serve(high_quality) as server:
        with monkeypatch.context() as patch:
            patch.setattr(LabelsFile, "append", fail_after_five)
            code, _, error = label(server.url)
        assert (code, len(names(tmp_path))) == (1, 5)
        assert f"error: [Errno 28] No space left on device: '{tmp_path}/labels.csv'. Labels are kept" in error
        assert label(server.url)[0] == 0
    assert len(names(tmp_path)) == 12


# Help


def help_of(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Returns the help of a subcommand, each option on one line."""
    with pytest.raises(SystemExit):
        main([command, "--help"])
    return re.sub(r"\n {10,}", " ", capsys.readouterr().out)


@pytest.mark.parametrize("command", ["label", "report", "apply"])
def test_help_teaches(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(command, capsys)
    for column in QualityLabel._fields:
        assert re.search(rf"^  {column}  ", text, re.M), "the layout of LABELS_CSV"
    examples = [line for line in text.splitlines() if line.startswith("  python scripts/")]
    assert examples
    assert all(line.startswith(f"  python scripts/filter_quality.py {command} ") for line in examples)
    assert re.search(r"^  --on-mismatch .*\(default: error\)$", text, re.M)


def test_help_and_manual_tell_what_is_sent_where(capsys: pytest.CaptureFixture[str]) -> None:
    shown = help_of("label", capsys)
    assert re.search(r"^  OPENAI_API_KEY +the key; sent to the server that --base-url names$", shown, re.M)
    ours = r"OPENAI_ORG_ID, OPENAI_PROJECT_ID,? (and )?OPENAI_CUSTOM_HEADERS\s"
    assert re.search(ours + "+sent to OpenAI alone: https://openai.com, or a host below it", shown)
    manual = " ".join((ROOT / "scripts/README.md").read_text().split())
    assert "The key in OPENAI_API_KEY goes to that server" in manual
    assert re.search(ours + "go to OpenAI alone", manual)


def test_help_has_the_default_of_each_option(capsys: pytest.CaptureFixture[str]) -> None:
    shown: dict[str, str] = {}
    for command in ("label", "apply", "report"):
        shown |= dict(re.findall(r"^  (--[\w-]+).*\(default:? ?(.*?)\)$", help_of(command, capsys), re.M))
    assert shown.pop("--num-proc").startswith("all CPUs, here ")
    assert shown == {
        "--batch-size": "8",
        "--concurrency": "16",
        "--drop": "Low Quality,Not Relevant",
        "--engine": "local",
        "--html": "none",
        "--limit": "all",
        "--max-shard-size": "500MB",
        "--max-tokens": "64",
        "--meta-prompt": "",
        "--on-mismatch": "error",
        "--unparsed": "error",
        "--workers": "2",
    }
