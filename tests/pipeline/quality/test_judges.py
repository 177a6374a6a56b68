"""Judges: a server that fails in all ways, and a model as a Python function."""

import contextlib
import gzip
import io
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

import synthchex_75k
from conftest import FIXTURE, Rows
from filter_quality import main
from labelling import PROGRAM, Label, Together, high_quality, label_arguments, labeller, lines, names, read
from pipeline.quality.judges import ServerJudge
from pipeline.quality.labels_csv import read_labels
from pipeline.quality.server_client import MAX_RESPONSE, make_client
from pipeline.retry import with_retry
from pipeline.table import MAX_FIELD
from processes import PATIENCE
from servers.chat_server import HALF_A_COMPLETION, HTML_PAGE, Question, Reply, completion, serve

JUDGES = "pipeline.quality.judges"
OF_OPENAI = {
    "OPENAI_ORG_ID": "org-of-mine",
    "OPENAI_PROJECT_ID": "project-of-mine",
    "OPENAI_ADMIN_KEY": "sk-admin-of-mine",
    "OPENAI_WEBHOOK_SECRET": "whsec-of-mine",
    "OPENAI_CUSTOM_HEADERS": "X-Gateway: gateway-of-mine\nauthorization: Bearer other-of-mine",
}


@pytest.fixture(autouse=True)
def short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{JUDGES}.FIRST_DELAY", 0.001)


@pytest.fixture
def label(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Label:
    return labeller(tmp_path, capsys)


# A server


LONG = completion("x" * MAX_RESPONSE).body
TOO_LONG = "a response of more than 1,048,576 bytes is no answer"
UNWRITABLE = "the answer is no text that LABELS_CSV can hold unchanged: a CSV cannot hold"


@pytest.mark.parametrize("key", [None, "sk-secret"])
def test_key_comes_from_the_environment(label: Label, key: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    if key:
        monkeypatch.setenv("OPENAI_API_KEY", key)
    with serve(high_quality) as server:
        output = "".join(map(str, label(server.url)))
    assert {headers["authorization"] for headers in server.headers} == {f"Bearer {key or 'none'}"}
    assert "sk-secret" not in output


@pytest.mark.parametrize("key", ["sk-\N{EN DASH}secret", "sk\nsecret"])
def test_a_key_that_no_header_can_hold(label: Label, key: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with serve(high_quality) as server:
        code, _, error = label(server.url)
    assert (code, server.questions, [*tmp_path.iterdir()]) == (1, [], [])
    assert (
        error
        == "error: OPENAI_API_KEY cannot be sent: it contains other characters than those of ASCII; set it again\n"
    )


def test_a_server_gets_nothing_but_the_key_of_the_environment(label: Label, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**OF_OPENAI, "OPENAI_API_KEY": "sk-secret\n"}.items():
        monkeypatch.setenv(name, value)
    with serve(high_quality) as server:
        assert label(server.url)[0] == 0
    assert {headers["authorization"] for headers in server.headers} == {"Bearer sk-secret"}
    assert "of-mine" not in str(server.headers)


@pytest.mark.parametrize(
    ("url", "is_openai"),
    [
        ("https://api.openai.com/v1", True),
        ("https://eu.api.openai.com:443/v1", True),
        ("http://api.openai.com/v1", False),
        ("https://api.openai.com.example.org/v1", False),
        ("https://api.openai.com@example.org/v1", False),
        ("https://example.org/api.openai.com", False),
        ("https://closedopenai.com/v1", False),
    ],
)
def test_organisation_and_project_go_to_openai_alone(
    url: str, is_openai: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**OF_OPENAI, "OPENAI_API_KEY": "sk-secret"}.items():
        monkeypatch.setenv(name, value)
    headers = make_client(openai, url).default_headers
    assert headers["Authorization"] == "Bearer sk-secret"
    assert ("org-of-mine" in headers.values(), "project-of-mine" in headers.values()) == (is_openai, is_openai)
    assert is_openai or "of-mine" not in str(headers)


def test_a_redirect_takes_no_key_to_another_server(label: Label, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with serve(high_quality) as second:
        there = Reply(307, headers={"Location": f"{second.url}/chat/completions"})
        with serve(lambda _: there) as first:
            assert label(first.url)[0] == 0
    assert len(first.headers) == len(second.headers) == 12
    assert ("sk-secret" in str(first.headers), "sk-secret" in str(second.headers)) == (True, False)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(500),
        Reply(503, b"<html>busy</html>"),
        Reply(429, headers={"Retry-After": "0"}),
        Reply(disconnect=True),
    ],
    ids=["500", "503", "429", "disconnect"],
)
@pytest.mark.parametrize("before", [0, 3])
def test_transient_errors_are_retried(label: Label, reply: Reply, before: int, tmp_path: Path) -> None:
    replies: Iterator[str | Reply] = iter([*["High Quality"] * before, *[reply] * 4])
    with serve(lambda _: next(replies, "High Quality")) as server:
        assert label(server.url)[0] == 0
    assert len(server.questions) == 16
    assert len(names(tmp_path)) == 12


def test_retry_after_is_honoured(label: Label) -> None:
    replies = iter([Reply(429, headers={"Retry-After": "1"})] * 2)
    start = time.monotonic()
    with serve(lambda _: next(replies, "High Quality")) as server:
        code, _, error = label(server.url, "--limit", "1")
    assert (code, len(server.questions), error.count("429")) == (0, 3, 2)
    assert error.count("; retrying in 1 s\n") == 2
    assert time.monotonic() - start > 2


def test_delays_between_tries(label: Label, monkeypatch: pytest.MonkeyPatch) -> None:
    delays = []

    def without_waiting(request: Callable[[], Any], delay_after: Callable[[Exception, int], float | None]) -> Any:
        def delay(error: Exception, tries: int) -> float | None:
            delays.append(delay_after(error, tries))
            return None if delays[-1] is None else 0

        return with_retry(request, delay)

    monkeypatch.setattr(f"{JUDGES}.FIRST_DELAY", 0.5)
    monkeypatch.setattr(f"{JUDGES}.with_retry", without_waiting)
    replies = iter([Reply(503), Reply(429, headers={"Retry-After": "90"}), *[Reply(disconnect=True)] * 5])
    with serve(lambda _: next(replies, "High Quality")) as server:
        code, _, error = label(server.url, "--limit", "1")
    assert code == 1
    assert delays == [0.5, 90, 2, 4, 8, 16, None], "seven tries, with exponential back-off or Retry-After"
    assert len(server.questions) == 7
    assert "no answer" in error


def test_silent_server_is_asked_again(label: Label, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("pipeline.quality.server_client.TIMEOUT", 0.5)
    is_asked_again = threading.Event()

    def silent_at_first(_: Question) -> str:
        if len(server.questions) > 1:
            is_asked_again.set()
        is_asked_again.wait()
        return "High Quality"

    with serve(silent_at_first) as server:
        assert label(server.url, "--limit", "1")[0] == 0
    assert len(server.questions) > 1
    assert len(names(tmp_path)) == 1


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://127.0.0.1:9/v1", "Connection refused"),
        ("http://no-such-host.invalid/v1", "Name or service not known|Temporary failure in name resolution"),
    ],
    ids=["connection refused", "unknown host"],
)
def test_server_that_is_not_running(
    url: str, why: str, label: Label, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{JUDGES}.FIRST_DELAY", 60)
    start = time.monotonic()
    code, _, error = label(url)
    assert time.monotonic() - start < 60, "it is not asked again"
    assert code == 1
    assert re.fullmatch(rf"error: {url}: no answer \(.*({why}).*\); start the server, or correct --base-url\n", error)
    assert [path.name for path in tmp_path.iterdir()] == []


def test_server_that_hangs_up_from_the_start(label: Label, tmp_path: Path) -> None:
    with serve(lambda _: Reply(disconnect=True)) as server:
        code, _, error = label(server.url)
    assert code == 1
    assert f"error: {server.url}: no answer (Server disconnected without sending a response.); start the" in error
    assert len(server.questions) == 7, "of one image"
    assert [path.name for path in tmp_path.iterdir()] == []


def test_connection_refused_after_an_answer_is_retried(
    images: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that is restarted: each connection ends with its answer, so that the second one is refused at first."""
    monkeypatch.setattr(f"{JUDGES}.FIRST_DELAY", 0.1)
    image = next(iter(images.values()))
    with serve(lambda _: completion("High Quality", Connection="close")) as server:
        judge = ServerJudge("judge", server.url, concurrency=1)
        assert judge.ask([image], ["How is it?"]) == ["High Quality"]
    # Not `capsys`: its `readouterr` can lose what another thread prints meanwhile.
    with contextlib.redirect_stderr(io.StringIO()) as printed, ThreadPoolExecutor(1) as thread:
        answer = thread.submit(judge.ask, [image], ["And now?"])
        while not printed.getvalue():
            assert not answer.done()
            time.sleep(0.01)
        with serve(lambda _: "Low Quality", server.server_port):
            assert answer.result() == ["Low Quality"]
    assert printed.getvalue().startswith("Connection error; retrying in 0.1 s\n")


def test_ctrl_c_while_a_retry_waits(tmp_path: Path) -> None:
    replies = iter(["High Quality"])
    with serve(lambda _: next(replies, Reply(429, headers={"Retry-After": "300"}))) as server:
        command = [*PROGRAM, *label_arguments(tmp_path, server.url), "--concurrency", "2"]
        run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        while lines(tmp_path) < 1 or len(server.questions) < 3:
            assert run.poll() is None
            time.sleep(0.01)
        time.sleep(0.2)  # until it waits; a request is interrupted too
        run.send_signal(signal.SIGINT)
        output, _ = run.communicate(timeout=PATIENCE)  # not 300 s
    assert (run.returncode, "Labels are kept" in output) == (130, True)
    assert len(names(tmp_path)) == 1


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply(400, b'{"error": {"message": "cannot identify image"}}'), "cannot identify image"),
        (Reply(200, HALF_A_COMPLETION), "returned no chat completion; should it end in /v1?"),
        (Reply(200, HTML_PAGE), "returned no chat completion; should it end in /v1?"),
        (Reply(200, b'{"choices": []}'), "returned no chat completion"),
        (Reply(200, b'{"choices": {}}'), "returned no chat completion"),
        (Reply(200, b'{"choices": [{"message": {"content": ["High Quality"]}}]}'), "the answer is no text: ["),
        (Reply(200, b"[" * 100_000), "returned no chat completion"),
        (Reply(200, HTML_PAGE, {"Content-Type": "text/html; charset=zip"}), "returned no chat completion"),
        (Reply(200, LONG), TOO_LONG),
        (Reply(400, LONG), TOO_LONG),
        (Reply(307, LONG, {"Location": "/v1/chat/completions"}), TOO_LONG),
        (
            Reply(200, gzip.compress(LONG), {"Content-Encoding": "gzip"}),
            "the server compresses its responses, although",
        ),
        (completion("High \ud800 Quality"), f"{UNWRITABLE} the character '\\ud800' of 'High \\ud800 Quality'"),
        (completion("High \0 Quality"), f"{UNWRITABLE} the character '\\x00' of 'High \\x00 Quality'"),
        (completion("x" * (MAX_FIELD + 1)), f"{UNWRITABLE} the 131,073 characters of 'xxxx"),
    ],
    ids=[
        *["bad image", "half a completion", "HTML", "no choice", "choices are no list", "no text", "deep JSON"],
        *["charset", "long", "long error", "long redirect", "compressed", "surrogate", "NUL", "long answer"],
    ],
)
@pytest.mark.parametrize("place", [0, 4])
def test_one_question_without_an_answer(
    label: Label, images: dict[str, bytes], reply: Reply, message: str, place: int, tmp_path: Path
) -> None:
    name, image = [*images.items()][place]
    with serve(lambda question: reply if question.image == image else "High Quality") as server:
        code, output, error = label(server.url)
        assert code == 1
        assert "11 of 12 images have a label" in output
        assert "error: no answer for 1 image; run the command again to ask again:\n" in error
        assert re.search(rf"^- {name}: .*{re.escape(message)}", error, re.M)
        assert names(tmp_path) == {*images} - {name}
        server.answer = high_quality
        assert label(server.url)[0] == 0
    assert len(names(tmp_path)) == 12


def test_server_that_stays_down_loses_no_label(label: Label, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("pipeline.quality.ask.MAX_CONSECUTIVE_FAILURES", 3)
    count = iter(range(100))
    with serve(lambda _: "High Quality" if next(count) < 5 else Reply(503)) as server:
        code, _, error = label(server.url, "--concurrency", "1")
        assert code == 1
        assert re.search(r"error: 3 questions in a row failed, the last one with: .*503", error)
        assert len(names(tmp_path)) == 5
        server.answer = high_quality
        assert label(server.url)[0] == 0
    assert len(names(tmp_path)) == 12


def test_rejected_images_do_not_end_the_run(
    label: Label, images: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("pipeline.quality.ask.MAX_CONSECUTIVE_FAILURES", 2)
    bad = [*images.values()][2:8]
    with serve(lambda question: Reply(400) if question.image in bad else "High Quality") as server:
        code, _, error = label(server.url, "--concurrency", "1")
    assert (code, "no answer for 6 images;" in error, len(names(tmp_path))) == (1, True, 6)
    assert error.endswith("- and 1 more\n"), "five are listed"


@pytest.mark.parametrize(
    ("status", "name"), [(401, "AuthenticationError"), (403, "PermissionDeniedError"), (404, "NotFoundError")]
)
def test_errors_of_every_image_end_the_run(label: Label, status: int, name: str, tmp_path: Path) -> None:
    with serve(lambda _: Reply(status)) as server:
        code, _, error = label(server.url)
    assert (code, f"error: {server.url}: {name}" in error) == (1, True)
    assert len(server.questions) == 1
    assert [path.name for path in tmp_path.iterdir()] == []


# The bound of an answer's length


UNSUPPORTED = (
    b'{"error": {"message": "Unsupported parameter: \'max_tokens\' is not supported with this model. '
    b'Use \'max_completion_tokens\' instead.", "code": "unsupported_parameter"}}'
)


def test_max_tokens(label: Label) -> None:
    with serve(high_quality) as server:
        assert label(server.url, "--max-tokens", "7")[0] == 0
    assert {question.request["max_tokens"] for question in server.questions} == {7}


def test_max_completion_tokens(label: Label, tmp_path: Path) -> None:
    def modern(question: Question) -> str | Reply:
        return Reply(400, UNSUPPORTED) if "max_tokens" in question.request else together(question)

    together = Together(high_quality, 6)
    with serve(modern) as server:
        code, _, error = label(server.url, "--max-tokens", "7", "--concurrency", "6")
    assert (code, "failed" in error, len(names(tmp_path))) == (0, False, 12)
    assert [question.request.get("max_completion_tokens") for question in server.questions] == [None, *[7] * 12]
    assert server.most_in_flight == 6


def test_max_completion_tokens_is_found_out_by_any_thread(label: Label, tmp_path: Path) -> None:
    """Requests are in flight when the server, behind another model from then on, rejects `max_tokens`."""
    barrier = threading.Barrier(4)

    def change_of_model(question: Question) -> str | Reply:
        if len(server.questions) == 1:
            return "High Quality"
        if "max_tokens" not in question.request:
            return "High Quality"
        barrier.wait(PATIENCE)
        return Reply(400, UNSUPPORTED)

    with serve(change_of_model) as server:
        assert label(server.url, "--concurrency", "4", "--limit", "9")[0] == 0
    assert len(names(tmp_path)) == 9
    assert sum("max_tokens" in question.request for question in server.questions) == 1 + 4


# A function


def test_callable(tmp_path: Path, expected: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_model.py").write_text(
        """
def judge(images, questions):
    with open("batches.txt", "a") as file:
        print(len(images), file=file)
    assert all(image.mode == "RGB" and image.size == (512, 512) for image in images)
    prompts = [question.rpartition("Description: ")[2] for question in questions]
    return ["Low Quality" if "edema" in prompt else "High Quality" for prompt in prompts]
"""
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    command = ["label", str(FIXTURE), "labels.csv", "--model", "mine", "--callable", "my_model:judge"]
    assert main([*command, "--batch-size", "5"]) == 0
    assert (tmp_path / "batches.txt").read_text().split() == ["5", "5", "2"]
    wanted = {row["filename"]: "Low Quality" if "edema" in row["prompt"] else "High Quality" for row in expected}
    assert {row["filename"]: row["quality"] for row in read(tmp_path)} == wanted
    assert len({*wanted.values()}) == 2


@pytest.mark.slow
def test_callable_in_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "my_model.py").write_text("def judge(images, questions): return ['High Quality'] * len(images)")
    command = ["label", str(FIXTURE), "labels.csv", "--model", "mine", "--callable", "my_model:judge"]
    subprocess.run([*PROGRAM, *command], cwd=tmp_path, check=True, capture_output=True)
    assert len(names(tmp_path)) == 12


def test_callable_that_fails_for_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], expected: Rows
) -> None:
    bad = expected[4]["prompt"]

    def judge(images: list[Any], questions: list[str]) -> list[str]:
        if any(bad in question for question in questions):
            raise RuntimeError("out of memory")
        return ["High Quality"] * len(images)

    monkeypatch.setattr(synthchex_75k, "judge", judge, raising=False)
    command = ["label", str(FIXTURE), str(tmp_path / "labels.csv"), "--model", "mine"]
    assert main([*command, "--callable", "synthchex_75k:judge"]) == 1
    where = rf"\({re.escape(__file__)}:\d+\)"
    error = capsys.readouterr().err
    assert re.search(rf"^- {expected[4]['filename']}: RuntimeError: out of memory {where}$", error, re.M)
    assert names(tmp_path) == {row["filename"] for row in expected if row["prompt"] != bad}


def test_callable_whose_answers_a_csv_cannot_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], expected: Rows
) -> None:
    longest = "\N{PILE OF POO}\r" * (MAX_FIELD // 2)
    answers = ["\udc80", "\0", "x" * (MAX_FIELD + 1), longest, *["High Quality"] * 8]
    monkeypatch.setattr(synthchex_75k, "judge", lambda images, questions: answers, raising=False)
    command = ["label", str(FIXTURE), str(tmp_path / "labels.csv"), "--model", "mine", "--batch-size", "12"]
    for _ in range(2):
        assert main([*command, "--callable", "synthchex_75k:judge"]) == 1
        assert "error: no answer for 3 images; run the command again" in capsys.readouterr().err
        answers = answers[:3]
    assert {known.filename: known.response for known in read_labels(tmp_path / "labels.csv")} == {
        row["filename"]: answer for row, answer in zip(expected[3:], [longest, *["High Quality"] * 8], strict=True)
    }


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (["High Quality"], "mine returned 1 answers to 8 questions"),
        ([None] * 8, "mine returned an answer that is no text: None"),
    ],
)
def test_callable_that_returns_something_else(
    answers: list[Any],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(synthchex_75k, "judge", lambda images, questions: answers, raising=False)
    command = ["label", str(FIXTURE), str(tmp_path / "labels.csv"), "--model", "mine"]
    assert main([*command, "--callable", "synthchex_75k:judge"]) == 1
    assert f"error: {message}" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == []
