"""The quality filter with a model in this process and with Ray, the documented commands in order, and the page."""

import csv
import io
import itertools
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from datasets import load_dataset

import tiny_vlm
from browser import find_browser, look
from conftest import FIXTURE, ROOT, Rows, to_csv, to_files
from filter_quality import main
from labelling import PROGRAM
from pipeline.quality.answers import UNPARSED
from pipeline.quality.judges import TransformersJudge
from ray_workers import ray_workers
from servers.chat_server import Question, serve

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session", autouse=True)
def chromium() -> str:
    """The browser; without one, every test of this file fails before it starts."""
    return find_browser()


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model whose weights are random."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    tiny_vlm.build(folder)
    return folder


def read(path: Path) -> dict[str, dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        rows = [*csv.DictReader(file)]
    assert len({row["filename"] for row in rows}) == len(rows)
    return {row["filename"]: row for row in rows}


# A model of transformers


def test_answers_of_an_untrained_model_are_unparsed(model: Path, expected: Rows, tmp_path: Path) -> None:
    arguments = ["label", str(FIXTURE), str(tmp_path / "l.csv"), "--model", str(model), "--transformers"]
    assert main([*arguments, "--limit", "5", "--batch-size", "2"]) == 0
    assert main([*arguments, "--batch-size", "5"]) == 0
    rows = read(tmp_path / "l.csv")
    assert {*rows} == {row["filename"] for row in expected}
    assert {row["quality"] for row in rows.values()} == {UNPARSED}
    assert all(row["response"] for row in rows.values())
    assert len({row["response"] for row in rows.values()}) > 1, "the answers depend on the questions"


def test_answers_do_not_depend_on_the_batch(model: Path, expected: Rows) -> None:
    images, questions = [row["image"] for row in expected[:6]], [row["prompt"] for row in expected[:6]]
    questions[2] *= 5  # of another length
    one_by_one = TransformersJudge(str(model), 1)
    alone = [one_by_one.ask([image], [question])[0] for image, question in zip(images, questions)]
    assert TransformersJudge(str(model), 6).ask(images, questions) == alone
    assert one_by_one.ask(images[:1], ["Quite another question?"]) != alone[:1]


def test_a_model_without_a_chat_template(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare = tmp_path / "bare"
    to_files(bare, {path.name: path.read_bytes() for path in model.iterdir() if "template" not in path.name})
    arguments = ["label", str(FIXTURE), str(tmp_path / "l.csv"), "--model", str(bare), "--transformers"]
    assert main(arguments) == 1
    assert f"error: {bare} has no chat template" in capsys.readouterr().err
    assert not (tmp_path / "l.csv").exists()


def test_a_model_that_cannot_be_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    to_files(tmp_path / "model", {"config.json": b"{}"})
    arguments = ["label", str(FIXTURE), str(tmp_path / "l.csv"), "--model", str(tmp_path / "model"), "--transformers"]
    assert main(arguments) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: --model {tmp_path}/model cannot be loaded: ")
    assert not (tmp_path / "l.csv").exists()


@pytest.mark.parametrize("file", [*tiny_vlm.ASKS_FOR_CODE])
def test_code_of_a_model_is_not_executed(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tiny_vlm.build_with_code(tmp_path, file)
    monkeypatch.setattr("sys.stdin", io.StringIO(tiny_vlm.YES))
    arguments = ["label", str(FIXTURE), str(tmp_path / "l.csv"), "--model", str(own), "--transformers", "--limit", "1"]
    code = main(arguments)
    told = capsys.readouterr()
    tiny_vlm.check_refusal(own, file, code, told.out + told.err, "; write a function, --callable MODULE:FUNCTION")


def test_max_tokens_bounds_the_answer(model: Path, tmp_path: Path) -> None:
    arguments = ["label", str(FIXTURE), str(tmp_path / "l.csv"), "--model", str(model), "--transformers"]
    assert main([*arguments, "--limit", "2", "--max-tokens", "3"]) == 0
    assert all(len(row["response"]) <= 3 for row in read(tmp_path / "l.csv").values())  # a token is a byte


# Ray


def ray(source: Path, labels: Path, url: str, *options: str) -> list[str]:
    arguments = ["label", str(source), str(labels), "--model", "judge", "--base-url", url, "--engine", "ray"]
    return [*PROGRAM, *arguments, "--workers", "2", "--concurrency", "1", *options]


def by_prompt(question: Question) -> str:
    return "Low Quality" if "edema" in question.text.rpartition("Description: ")[2] else "High Quality"


@pytest.mark.xdist_group("ray")
def test_ray_replaces_a_killed_worker(expected: Rows, tmp_path: Path) -> None:
    proceed, numbers = threading.Event(), itertools.count(1)

    def answer(question: Question) -> str:
        if next(numbers) > 4:
            proceed.wait()
        return by_prompt(question)

    with serve(answer) as server:
        run = subprocess.Popen(
            ray(FIXTURE, tmp_path / "l.csv", server.url), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        while len(server.questions) < 6:
            assert run.poll() is None, run.communicate()[0]
            time.sleep(0.05)
        workers = ray_workers(run)
        assert len(workers) == 2
        workers[0].kill()
        workers[0].wait()
        while len(now := ray_workers(run)) < 2:  # Ray starts another
            assert run.poll() is None, run.communicate()[0]
            time.sleep(0.05)
        proceed.set()
        output, _ = run.communicate(timeout=300)
    assert run.returncode == 0, output
    wanted = {row["filename"]: "Low Quality" if "edema" in row["prompt"] else "High Quality" for row in expected}
    assert {name: row["quality"] for name, row in read(tmp_path / "l.csv").items()} == wanted
    assert len(server.questions) <= 12 + 2, "only questions of the killed worker are asked again"
    _, alive = psutil.wait_procs({*workers, *now}, timeout=60)  # Ray kills them, which takes a moment
    assert not alive


@pytest.mark.xdist_group("ray")
def test_ray_continues_after_ctrl_c(expected: Rows, tmp_path: Path) -> None:
    proceed, numbers = threading.Event(), itertools.count(1)

    def answer(question: Question) -> str:
        if next(numbers) > 5:
            proceed.wait()
        return by_prompt(question)

    with serve(answer) as server:
        command = ray(FIXTURE, tmp_path / "l.csv", server.url)
        run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        while not (tmp_path / "l.csv").exists() or len(read(tmp_path / "l.csv")) < 4:
            assert run.poll() is None, run.communicate()[0]
            time.sleep(0.05)
        workers = ray_workers(run)
        run.send_signal(signal.SIGINT)
        output, _ = run.communicate(timeout=300)
        assert run.returncode == 130
        assert "Labels are kept: run the same command again to continue." in output
        _, alive = psutil.wait_procs(workers, timeout=60)  # or they would ask on
        assert not alive
        proceed.set()
        before = read(tmp_path / "l.csv")
        subprocess.run(command, check=True, capture_output=True)
    after = read(tmp_path / "l.csv")
    assert {*after} == {row["filename"] for row in expected}
    assert {name: after[name] for name in before} == before
    assert len(server.questions) <= 12 + 4


@pytest.mark.xdist_group("ray")
def test_ray_error_of_every_worker(tmp_path: Path) -> None:
    arguments = ["label", str(FIXTURE), str(tmp_path / "l.csv"), "--model", "m", "--engine", "ray", "--workers", "2"]
    run = subprocess.run([*PROGRAM, *arguments, "--callable", "json:nothing"], capture_output=True, text=True)
    assert run.returncode == 1
    assert "error: --callable json:nothing: AttributeError: " in run.stderr
    assert "Traceback" not in run.stderr
    assert [path.name for path in tmp_path.iterdir()] == []


@pytest.mark.xdist_group("ray")
def test_ray_with_a_server_that_is_not_running(tmp_path: Path) -> None:
    command = ray(FIXTURE, tmp_path / "l.csv", "http://127.0.0.1:9/v1")
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 1
    assert "error: http://127.0.0.1:9/v1: no answer ([Errno 111] Connection refused); start the server" in run.stderr
    assert [path.name for path in tmp_path.iterdir()] == []


@pytest.mark.xdist_group("ray")
def test_threads_of_ray_data_end_before_ray() -> None:
    """Such a thread, on asking Ray after its end, ends the process without the message of the error."""
    run = subprocess.run([sys.executable, "ray_shutdown.py"], cwd=ROOT / "tests", capture_output=True, text=True)
    lines = {*run.stdout.splitlines()}  # among those that Ray prints about the worker that it ends
    assert {"[]", "the first item"} <= lines, run.stdout + run.stderr


# The documented commands


def python_commands(block: str) -> list[list[str]]:
    """Returns the Python commands of a block, without comments."""
    commands = [shlex.split(line, comments=True) for line in block.replace("\\\n", " ").splitlines()]
    return [command for command in commands if command[:1] == ["python"]]


def documented_commands() -> list[list[str]]:
    """Returns the commands of the one block of the manual that labels and applies, after the one that packs."""
    text = (ROOT / "scripts/README.md").read_text(encoding="utf-8")
    blocks = [python_commands(block) for block in re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)]
    steps = {"label", "report", "apply"}
    (quality,) = (block for block in blocks if steps <= {command[2] for command in block})
    if any("pack_shards" in command[1] for command in quality):
        return quality
    source = quality[0][3]
    (pack,) = (command for block in blocks for command in block if "pack_shards" in command[1] and source in command)
    return [pack, *quality]


def test_documented_commands_in_order(
    model: Path,
    images: dict[str, bytes],
    table: list[dict[str, str]],
    expected: Rows,
    rows_of: Callable[..., Rows],
    tmp_path: Path,
) -> None:
    to_files(tmp_path / "path/to/images", images)
    to_files(tmp_path / "path/to", {"prompts.csv": to_csv(table)})
    (tmp_path / "path/to/model").symlink_to(model)
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    commands, programs = documented_commands(), []
    with serve(by_prompt) as server:
        for _, *arguments in commands:
            programs.append(" ".join(arguments[: 2 if "filter_quality" in arguments[0] else 1]))
            arguments = [argument.replace("http://localhost:8000/v1", server.url) for argument in arguments]
            subprocess.run([sys.executable, *arguments], cwd=tmp_path, check=True, capture_output=True)
        assert len(server.questions) == 12
    steps = ["label", "label", "report", "apply"]
    quality = [f"scripts/filter_quality.py {step}" for step in steps]
    assert programs == ["scripts/pack_shards.py", *quality, "scripts/convert_to_parquet.py"]
    first, second = (read(tmp_path / command[4]) for command in commands if command[2] == "label")
    assert first.keys() == second.keys() == images.keys()
    parquet = str(tmp_path / commands[-1][3])
    rows = rows_of(load_dataset(parquet, split="train", cache_dir=str(tmp_path / "cache")))
    kept = [row for row in expected if "edema" not in row["prompt"]]
    assert {row["filename"]: row["image"] for row in rows} == {row["filename"]: row["image"] for row in kept}
    assert len(kept) < len(expected)


# The page


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_in_a_browser(scheme: str, chromium: str, table: list[dict[str, str]], tmp_path: Path) -> None:
    answers = ["High Quality", "Medium Quality", "Low Quality", "Not Relevant", UNPARSED]
    rows = [
        {
            "filename": row["filename"],
            "quality": answers[number % 5],
            "response": "A & <b>",
            "model": "m",
            "latency_s": "1",
        }
        for number, row in enumerate(table)
    ]
    (tmp_path / "l.csv").write_bytes(to_csv(rows))
    page = tmp_path / "r.html"
    assert main(["report", str(FIXTURE), str(tmp_path / "l.csv"), "--html", str(page)]) == 0
    seen = look(chromium, page, tmp_path, scheme, PROBE)
    assert seen["images"] == [12, 12], "all of them are decoded"
    assert seen["heads"] == ["", *answers, "All"]
    assert seen["strips"] == 5
    assert seen["answer"] == "A & <b>"


PROBE = """
    heads: [...document.querySelectorAll("thead th")].map(head => head.textContent),
    strips: document.querySelectorAll("h2").length,
    answer: document.querySelectorAll("figcaption dd")[1].textContent,
"""
