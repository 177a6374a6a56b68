"""The filtration: against a server whose answers a test gives."""

import csv
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

import synthchex_75k
from conftest import FIXTURE, ROOT, Rows, Source, contents, loose, to_csv
from filter_quality import main
from pipeline.facts import META_PROMPT
from pipeline.quality.answers import QUALITIES, UNPARSED, parse_quality
from servers.chat_server import HALF, HTML, Asked, Reply, serve

PROGRAM = [sys.executable, str(ROOT / "scripts" / "filter_quality.py")]
Label = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the client come again at once where the server does not say when."""
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.01)


@pytest.fixture
def label(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Label:
    """Labels the fixture into labels.csv; returns exit code, output and messages."""

    def run(url: str, *options: str, source: Path = FIXTURE) -> tuple[int, str, str]:
        arguments = ["label", str(source), str(tmp_path / "labels.csv"), "--model", "judge", "--base-url", url]
        code = main([*arguments, *options])
        return (code, *capsys.readouterr())

    return run


def read(tmp_path: Path) -> list[dict[str, str]]:
    with open(tmp_path / "labels.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def good(_: Asked) -> str:
    return "High Quality"


def qualities(tmp_path: Path, labels: dict[str, str]) -> Path:
    """Writes labels of the fixture's images, those that are not given as high quality."""
    path = tmp_path / "labels.csv"
    rows = [
        {"filename": row.filename, "quality": labels.get(row.filename, "High Quality"), "response": "x"}
        for row in synthchex_75k.plan(str(FIXTURE))
    ]
    path.write_bytes(to_csv([{**row, "model": "judge", "latency_s": "0.1"} for row in rows]))
    return path


# The answer


@pytest.mark.parametrize(
    ("response", "quality"),
    [
        ("High Quality", "High Quality"),
        ("high quality.", "High Quality"),
        ("'Medium Quality'", "Medium Quality"),
        ("**LOW  QUALITY**", "Low Quality"),
        ("The image is of low-quality, I think.", "Low Quality"),
        ("Not Relevant", "Not Relevant"),
        ('"Not relevant" - it shows a knee.', "Not Relevant"),
        ("Answer: High_Quality\n", "High Quality"),
        ("Low Quality, not High Quality", "Low Quality"),
        ("It is not blurry. High Quality", "High Quality"),
        ("High Quality. High Quality.", "High Quality"),
        ("not high quality", UNPARSED),
        ("This isn’t high quality", UNPARSED),
        ("It is not of very high quality", UNPARSED),
        ("neither high quality nor medium quality", UNPARSED),
        ("High Quality or Medium Quality", UNPARSED),
        ("Not Relevant, but High Quality", UNPARSED),
        ("High", UNPARSED),
        ("The quality is high", UNPARSED),
        ("Highest quality", UNPARSED),
        ("Irrelevant", UNPARSED),
        ("", UNPARSED),
    ],
)
def test_the_quality_that_an_answer_names(response: str, quality: str) -> None:
    assert parse_quality(response) == quality


@given(st.sampled_from(QUALITIES), st.text("\"'*-_ \t\n.:;(){}[]<>!?#`~", max_size=8), st.booleans(), st.data())
def test_what_stands_around_a_quality_does_not_matter(quality: str, around: str, upper: bool, data: Any) -> None:
    between = data.draw(st.sampled_from([" ", "-", "_", "  ", " - "]))
    text = quality.replace(" ", between)
    assert parse_quality(f"{around}{text.upper() if upper else text}{around}") == quality


@given(st.text(max_size=200))
def test_any_answer_gets_one_of_five(text: str) -> None:
    quality = parse_quality(text)
    assert quality in (*QUALITIES, UNPARSED)
    assert quality == UNPARSED or quality.split()[0].lower() in text.lower()


# The question


def test_every_image_is_asked_about_with_its_prompt(label: Label, expected: Rows, tmp_path: Path) -> None:
    with serve(good) as server:
        assert label(server.url)[0] == 0
    by_image = {asked.image: asked for asked in server.asked}
    assert len(server.asked) == len(expected)
    for row in expected:
        asked = by_image[row["image"]]
        assert asked.text == f"{META_PROMPT}\n\nDescription: {row['prompt']}"
        assert (asked.request["model"], asked.request["temperature"]) == ("judge", 0)
    assert sorted(row["filename"] for row in read(tmp_path)) == sorted(row["filename"] for row in expected)


def test_what_is_written_down(label: Label, images: dict[str, bytes], tmp_path: Path) -> None:
    said = 'It is "Low Quality",\nI fear.'
    with serve(lambda asked: said if asked.image == next(iter(images.values())) else "Medium quality") as server:
        code, output, _ = label(server.url)
    rows = read(tmp_path)
    assert code == 0
    assert [*rows[0]] == ["filename", "quality", "response", "model", "latency_s"]
    assert Counter(row["quality"] for row in rows) == {"Medium Quality": 11, "Low Quality": 1}
    (low,) = (row for row in rows if row["quality"] == "Low Quality")
    assert (low["filename"], low["response"], low["model"]) == (next(iter(images)), said, "judge")
    assert 0 <= float(low["latency_s"]) < 10
    assert "12 of 12 images have a label" in output
    about = json.loads((tmp_path / "labels.csv.json").read_text())
    assert about == {"model": "judge", "meta_prompt": META_PROMPT}


@pytest.mark.parametrize("key", [None, "sk-secret"])
def test_the_key_comes_from_the_environment(label: Label, key: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    if key:
        monkeypatch.setenv("OPENAI_API_KEY", key)
    with serve(good) as server:
        said = "".join(map(str, label(server.url)))
    assert server.keys == {f"Bearer {key or 'none'}"}
    assert "sk-secret" not in said


@pytest.mark.parametrize("concurrency", [1, 5])
def test_so_many_requests_are_in_flight(label: Label, concurrency: int) -> None:
    def slowly(_: Asked) -> str:
        time.sleep(0.1)
        return "High Quality"

    with serve(slowly) as server:
        assert label(server.url, "--concurrency", str(concurrency))[0] == 0
    assert server.most_in_flight == concurrency


def test_another_meta_prompt(label: Label, tmp_path: Path) -> None:
    (tmp_path / "ask.txt").write_text("Is it 'High Quality' or 'Low Quality'?\n")
    with serve(good) as server:
        assert label(server.url, "--meta-prompt", str(tmp_path / "ask.txt"))[0] == 0
    assert server.asked[0].text.startswith("Is it 'High Quality' or 'Low Quality'?\n\nDescription: ")


# Going on


def test_no_image_is_asked_about_twice(label: Label, tmp_path: Path) -> None:
    with serve(good) as server:
        assert label(server.url, "--limit", "5")[0] == 0
        assert len(server.asked) == len(read(tmp_path)) == 5
        assert label(server.url)[0] == 0
        assert label(server.url)[0] == 0
    assert len({asked.image for asked in server.asked}) == len(server.asked) == 12


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_killed_at_many_points_it_goes_on(number: int, tmp_path: Path) -> None:
    concurrency, killed = 3, 0
    command = [*PROGRAM, "label", str(FIXTURE), str(tmp_path / "labels.csv"), "--model", "judge"]
    allowed = threading.Semaphore(0)

    def when_allowed(_: Asked) -> str:
        allowed.acquire()
        return "High Quality"

    with serve(when_allowed) as server:
        command += ["--base-url", server.url, "--concurrency", str(concurrency)]
        while killed < 3:
            before = len(server.answered)
            run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            for _ in range(2):
                allowed.release()
            while len(server.answered) < before + 2 or len(server.asked) - len(server.answered) < 1:
                assert run.poll() is None
                time.sleep(0.01)
            time.sleep(0.1)  # for what was answered to be written down
            start = time.monotonic()
            run.send_signal(number)
            said, _ = run.communicate()
            assert time.monotonic() - start < 1, "it waits for no answer"
            assert run.returncode == (-number if number == signal.SIGKILL else 128 + number)
            assert number != signal.SIGINT or "run the same command again to go on" in said
            killed += 1
            server.answer = lambda _: Reply(hang_up=True)  # to what is left of the killed one
            for _ in range(concurrency):
                allowed.release()
            time.sleep(0.1)
            while allowed.acquire(blocking=False):
                pass
            server.answer = when_allowed
            labelled = [row["filename"] for row in read(tmp_path)]
            assert len({*labelled}) == len(labelled)
        server.answer = good
        subprocess.run(command, check=True, capture_output=True)
    assert len(read(tmp_path)) == 12
    assert len(server.asked) <= 12 + killed * concurrency, "each once, and those in flight"


@pytest.mark.parametrize(
    "half", [b"SyntheticImg_", b'a.png,High Quality,"High\nQual', b'a.png,High Quality,"x ""', b"a"]
)
def test_a_half_written_line_is_repaired(label: Label, half: bytes, tmp_path: Path) -> None:
    with serve(good) as server:
        label(server.url, "--limit", "5")
        whole = (tmp_path / "labels.csv").read_bytes()
        (tmp_path / "labels.csv").write_bytes(whole + half)
        code, _, error = label(server.url)
    assert code == 0
    assert f"a half-written last line of {len(half)} bytes was cut off" in error
    assert (tmp_path / "labels.csv").read_bytes().startswith(whole)
    assert len(read(tmp_path)) == len(server.asked) == 12


def test_every_cut_of_the_file_can_be_repaired(label: Label, tmp_path: Path) -> None:
    with serve(lambda _: 'It is "Low Quality",\nI fear.') as server:
        label(server.url, "--limit", "3")
        whole = (tmp_path / "labels.csv").read_bytes()
        for length in range(0, len(whole), 7):
            (tmp_path / "labels.csv").write_bytes(whole[:length])
            assert label(server.url, "--limit", "1")[0] == 0
            names = [row["filename"] for row in read(tmp_path)]
            assert len({*names}) == len(names) >= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "other"], "is of another model, 'judge'; name another file for 'other'"),
        (["--meta-prompt", "ask.txt"], "is of another meta-prompt, "),
    ],
)
def test_another_question_is_for_another_file(
    label: Label, options: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ask.txt").write_text("How is it?")
    with serve(good) as server:
        label(server.url, "--limit", "5")
        before = read(tmp_path)
        code, _, error = label(server.url, *options)
        assert code == 1
        assert f"error: {tmp_path}/labels.csv {message}" in error
        (tmp_path / "labels.csv.json").unlink()
        code, _, error = label(server.url)
        assert (code, "labels.csv.json is missing, which says what labels.csv is of" in error) == (1, True)
    assert read(tmp_path) == before


def test_labels_of_another_source(label: Label, source: Source, images: dict[str, bytes], table: Rows) -> None:
    with serve(good) as server:
        label(server.url)
        few = dict([*images.items()][:5])
        code, _, error = label(server.url, source=source(images=few, table=[r for r in table if r["filename"] in few]))
    assert code == 1
    assert "is of another source: it has labels of images that are not in this one (7 in all)" in error


def test_two_runs_do_not_write_to_one_file(label: Label, tmp_path: Path) -> None:
    going_on = threading.Event()

    def wait(_: Asked) -> str:
        going_on.wait(20)
        return "High Quality"

    with serve(wait) as server:
        command = [*PROGRAM, "label", str(FIXTURE), str(tmp_path / "labels.csv"), "--model", "judge", "--base-url"]
        with subprocess.Popen([*command, server.url], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as first:
            while not server.asked:
                time.sleep(0.01)
            code, _, error = label(server.url)
            going_on.set()
            assert first.wait() == 0
    assert (code, "labels.csv: another run is writing to it" in error) == (1, True)
    assert len(read(tmp_path)) == 12


# What goes wrong


@pytest.mark.parametrize(
    "hostile",
    [
        Reply(500),
        Reply(503, b"<html>busy</html>"),
        Reply(429, headers={"Retry-After": "0"}),
        Reply(hang_up=True),
    ],
    ids=["500", "503", "429", "hang up"],
)
def test_what_passes_is_asked_again(label: Label, hostile: Reply, tmp_path: Path) -> None:
    replies = iter([hostile] * 4)
    with serve(lambda _: next(replies, "High Quality")) as server:
        assert label(server.url)[0] == 0
    assert len(server.asked) == 16
    assert len(read(tmp_path)) == 12


def test_the_server_says_when_to_come_again(label: Label) -> None:
    replies = iter([Reply(429, headers={"Retry-After": "2"})])
    start = time.monotonic()
    with serve(lambda _: next(replies, "High Quality")) as server:
        assert label(server.url, "--limit", "1")[0] == 0
    assert time.monotonic() - start > 2
    assert len(server.asked) == 2


def test_a_long_time_to_wait_is_waited_too(label: Label, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.quality.judges.RETRIES", 0)  # as if the client had made its own
    monkeypatch.setattr("pipeline.quality.judges.CLIENT_WAITS", 0)
    replies = iter([Reply(429, headers={"Retry-After": "1"})] * 2)
    start = time.monotonic()
    with serve(lambda _: next(replies, "High Quality")) as server:
        code, _, error = label(server.url, "--limit", "1")
    assert (code, len(server.asked), error.count("429, again in 1 s")) == (0, 3, 2)
    assert time.monotonic() - start > 2


def test_a_server_that_is_silent_is_asked_again(label: Label, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("pipeline.quality.judges.TIMEOUT", 0.5)
    replies = iter([Reply(silent=3)])
    with serve(lambda _: next(replies, "High Quality")) as server:
        assert label(server.url)[0] == 0
    assert (len(server.asked), len(read(tmp_path))) == (13, 12)


@pytest.mark.parametrize(
    ("hostile", "message"),
    [
        (Reply(400, b'{"error": {"message": "cannot identify image"}}'), "cannot identify image"),
        (Reply(200, HALF), "gives no chat completion; should it end in /v1?"),
        (Reply(200, HTML), "gives no chat completion; should it end in /v1?"),
        (Reply(200, b'{"choices": []}'), "gives no chat completion"),
    ],
    ids=["bad image", "half an answer", "HTML", "no choice"],
)
def test_one_bad_answer_stops_nothing(
    label: Label, images: dict[str, bytes], hostile: Reply, message: str, tmp_path: Path
) -> None:
    name, image = [*images.items()][4]
    with serve(lambda asked: hostile if asked.image == image else "High Quality") as server:
        code, output, error = label(server.url)
        assert code == 1
        assert "11 of 12 images have a label" in output
        assert "error: images without an answer; run this again to ask again (1 in all):" in error
        assert re.search(rf"^- {name}: .*{re.escape(message)}", error, re.M)
        assert name not in {row["filename"] for row in read(tmp_path)}
        server.answer = good
        assert label(server.url)[0] == 0
    assert len(read(tmp_path)) == 12


def test_a_server_that_stays_down_loses_nothing(label: Label, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("pipeline.quality.ask.MAX_CONSECUTIVE_FAILURES", 3)
    count = iter(range(100))
    with serve(lambda _: "High Quality" if next(count) < 5 else Reply(503)) as server:
        code, _, error = label(server.url, "--concurrency", "1")
        assert code == 1
        assert re.search(r"error: 3 questions in a row failed, the last with: .*503", error)
        assert len(read(tmp_path)) == 5
        server.answer = good
        assert label(server.url)[0] == 0
    assert len(read(tmp_path)) == 12


@pytest.mark.parametrize("places", [(0,), (4,), (3, 4, 11)], ids=str)
def test_damaged_images_stop_nothing(
    label: Label, images: dict[str, bytes], places: tuple[int, ...], source: Source, tmp_path: Path
) -> None:
    damaged = [[*images][place] for place in places]
    folder = source(images={name: data[: 5_000 if name in damaged else None] for name, data in images.items()})
    with serve(good) as server:
        code, output, error = label(server.url, source=folder)
    assert (code, f"({len(places)} in all):" in error) == (1, True)
    for name in damaged:
        assert re.search(rf"^- {name}: .*{name}: not a whole PNG file; generate or copy it again$", error, re.M)
    assert {row["filename"] for row in read(tmp_path)} == {*images} - {*damaged}
    assert f"{12 - len(places)} of 12 images have a label" in output


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limited = f"""
import resource, runpy, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (800, 800))
sys.argv[0] = {PROGRAM[1]!r}
sys.path.insert(0, {str(Path(PROGRAM[1]).parent)!r})
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    with serve(good) as server:
        arguments = ["label", str(FIXTURE), str(tmp_path / "labels.csv"), "--model", "judge", "--base-url", server.url]
        run = subprocess.run([sys.executable, "-c", limited, *arguments], capture_output=True, text=True)
        assert run.returncode == 1
        assert f"error: [Errno 27] File too large: '{tmp_path}/labels.csv'. What is finished is kept" in run.stderr
        subprocess.run([*PROGRAM, *arguments], capture_output=True, check=True)
    assert len(read(tmp_path)) == 12


def test_images_that_a_server_will_not_have_do_not_stop_it(
    label: Label, images: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("pipeline.quality.ask.MAX_CONSECUTIVE_FAILURES", 2)
    bad = [*images.values()][2:8]
    with serve(lambda asked: Reply(400) if asked.image in bad else "High Quality") as server:
        code, _, error = label(server.url, "--concurrency", "1")
    assert (code, "(6 in all):" in error, len(read(tmp_path))) == (1, True, 6)


@pytest.mark.parametrize(
    ("status", "said"), [(401, "AuthenticationError"), (403, "PermissionDeniedError"), (404, "NotFoundError")]
)
def test_what_no_image_can_change_ends_it_at_once(label: Label, status: int, said: str, tmp_path: Path) -> None:
    with serve(lambda _: Reply(status)) as server:
        code, _, error = label(server.url, "--concurrency", "1")
    assert (code, f"error: {server.url}: {said}" in error) == (1, True)
    assert len(server.asked) <= 2
    assert read(tmp_path) == []


def test_nobody_is_there(label: Label, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.quality.ask.MAX_CONSECUTIVE_FAILURES", 2)
    code, _, error = label("http://127.0.0.1:9/v1")
    assert (code, "http://127.0.0.1:9/v1: APIConnectionError" in error) == (1, True)


# A callable


def test_a_model_with_code_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: Rows) -> None:
    (tmp_path / "my_model.py").write_text(
        """
def judge(images, questions):
    with open("asked.txt", "a") as file:
        print(len(images), file=file)
    assert all(image.mode == "RGB" and image.size == (512, 512) for image in images)
    prompts = [question.rpartition("Description: ")[2] for question in questions]
    return ["Low Quality" if "edema" in prompt else "High Quality" for prompt in prompts]
"""
    )
    command = ["label", str(FIXTURE), str(tmp_path / "labels.csv"), "--model", "mine", "--callable", "my_model:judge"]
    subprocess.run([*PROGRAM, *command, "--batch-size", "5"], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "asked.txt").read_text().split() == ["5", "5", "2"]
    wanted = {row["filename"]: "Low Quality" if "edema" in row["prompt"] else "High Quality" for row in expected}
    assert {row["filename"]: row["quality"] for row in read(tmp_path)} == wanted
    assert len({*wanted.values()}) == 2


def test_a_model_that_fails_for_an_image(
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
    assert {*(row["filename"] for row in read(tmp_path))} == {
        row["filename"] for row in expected if row["prompt"] != bad
    }


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (["High Quality"], "mine gave 1 answers to 8 questions"),
        ([None] * 8, "mine gave an answer that is no text: None"),
    ],
)
def test_a_model_that_answers_nonsense(
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
    assert read(tmp_path) == []


@pytest.mark.parametrize("name", ["no_such_module:f", "json:no_such_function", "json"])
def test_a_callable_that_is_not_there(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["label", str(FIXTURE), str(tmp_path / "labels.csv"), "--model", "mine", "--callable", name]
    assert main(command) == 1
    assert f"error: --callable {name}: " in capsys.readouterr().err


# Apply


def apply(tmp_path: Path, *options: str) -> int:
    return main(["apply", str(FIXTURE), str(tmp_path / "labels.csv"), str(tmp_path / "o"), *options])


def test_the_kept_images_are_a_source(
    tmp_path: Path, images: dict[str, bytes], expected: Rows, rows_of: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [*images]
    qualities(tmp_path, {names[0]: "Low Quality", names[3]: "Not Relevant", names[5]: "Medium Quality"})
    assert apply(tmp_path) == 0
    kept = rows_of(synthchex_75k.load(str(tmp_path / "o"), streaming=True, uncertainty="keep"))
    assert kept == [row for row in expected if row["filename"] not in (names[0], names[3])]
    said = capsys.readouterr().out
    assert f"{tmp_path}/o: 10 of 12 images kept" in said
    assert "dropped: Low Quality 1, Not Relevant 1" in said
    for name in synthchex_75k.LABELS:
        lost = sum(row["labels_dict"][name] == 1 for row in expected if row["filename"] in (names[0], names[3]))
        of = sum(row["labels_dict"][name] == 1 for row in expected)
        share = rf"\s+{lost / of:.1%}" if of else ""
        assert re.search(rf"^  {name} +{lost} of +{of}{share}\s*$", said, re.M)


def test_what_to_drop_can_be_said(tmp_path: Path, images: dict[str, bytes]) -> None:
    names = [*images]
    qualities(tmp_path, {names[0]: "Low Quality", names[5]: "Medium Quality"})
    assert apply(tmp_path, "--drop", "Medium Quality") == 0
    assert {row.filename for row in synthchex_75k.plan(str(tmp_path / "o"))} == {*names} - {names[5]}
    with pytest.raises(SystemExit):
        apply(tmp_path, "--drop", "Bad Quality")


@pytest.mark.parametrize(("unparsed", "kept"), [("drop", 11), ("keep", 12)])
def test_answers_that_were_not_understood(
    tmp_path: Path, images: dict[str, bytes], unparsed: str, kept: int, capsys: pytest.CaptureFixture[str]
) -> None:
    qualities(tmp_path, {[*images][2]: UNPARSED})
    assert apply(tmp_path) == 1
    assert (
        "error: images whose answer was not understood; look at them, then pass --unparsed drop or keep (1 in all)"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "o").exists()
    assert apply(tmp_path, "--unparsed", unparsed) == 0
    assert len(synthchex_75k.plan(str(tmp_path / "o"))) == kept


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[:-1], r"images without a label; run `filter_quality.py label` again \(1 in all\)"),
        (lambda lines: [*lines, lines[3]], "labels.csv line 14: .* has a label already; remove one"),
        (lambda lines: [*lines, b"x.png,Low Quality,x,judge,1\n"], "has labels of images that are not in this one"),
        (lambda lines: [*lines[:-1], lines[-1].replace(b"High Quality", b"Fine")], "'Fine' is not one of High Quality"),
        (
            lambda lines: [*lines[:-1], lines[-1].replace(b",0.1", b"")],
            "labels.csv line 13: not a row of 5 columns with a number",
        ),
        (lambda lines: [b"a,b\n"], "not a CSV of labels: its columns are not filename, quality"),
    ],
    ids=["missing", "twice", "strange", "quality", "columns", "header"],
)
def test_labels_that_cannot_be_applied(
    tmp_path: Path, change: Any, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = qualities(tmp_path, {})
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))).replace(b"\r\n", b"\n"))
    assert apply(tmp_path) == 1
    assert re.search(f"error: .*{message}", capsys.readouterr().err)
    assert not (tmp_path / "o").exists()


def test_nothing_is_left(tmp_path: Path, images: dict[str, bytes], capsys: pytest.CaptureFixture[str]) -> None:
    qualities(tmp_path, dict.fromkeys(images, "Low Quality"))
    assert apply(tmp_path) == 1
    assert "no image is left; nothing was written" in capsys.readouterr().err


def test_applying_again_writes_nothing_anew(tmp_path: Path) -> None:
    qualities(tmp_path, {})
    apply(tmp_path)
    before = contents(tmp_path / "o")
    assert apply(tmp_path) == 0
    assert contents(tmp_path / "o") == before


# Report


def test_the_counts(tmp_path: Path, images: dict[str, bytes], capsys: pytest.CaptureFixture[str]) -> None:
    qualities(tmp_path, dict(zip(images, ["Low Quality", UNPARSED])))
    assert main(["report", str(FIXTURE), str(tmp_path / "labels.csv")]) == 0
    said = capsys.readouterr().out
    assert re.search(r"^All images +10 \(83%\) +0 \(0%\) +1 \(8%\) +0 \(0%\) +1 \(8%\) +12$", said, re.M)
    assert len(said.splitlines()) == 2 + 1 + 14


def test_the_page_needs_nothing_but_itself(tmp_path: Path, images: dict[str, bytes]) -> None:
    path = qualities(tmp_path, {next(iter(images)): "Low Quality"})
    path.write_bytes(path.read_bytes().replace(b",x,", b",<script>alert(1)</script> & so on,"))
    assert main(["report", str(FIXTURE), str(path), "--html", str(tmp_path / "r.html")]) == 0
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert len(page) < 5_000_000
    assert not re.search(r"(src|href)=\"(?!data:)|url\(|@import|<script", page)
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; so on" in page
    assert page.count("<img ") == 12
    assert not list(tmp_path.glob(".r.html*"))


def test_a_page_of_a_large_source_is_small(tmp_path: Path, source: Source) -> None:
    noise = PIL.Image.effect_noise((512, 512), 100).convert("RGB")
    noise.save(tmp_path / "noise.png")
    names = [f"{number:03}.png" for number in range(100)]
    labels = dict.fromkeys(synthchex_75k.LABELS, "1")
    table = [{"filename": name, "prompt": "word " * 400, **labels} for name in names]
    big = source(images=dict.fromkeys(names, (tmp_path / "noise.png").read_bytes()), table=table, shape=loose)
    columns = ({"filename": name, "quality": [*QUALITIES, UNPARSED][int(name[:3]) % 5]} for name in names)
    rows = [{**row, "response": "said " * 60, "model": "m", "latency_s": "1"} for row in columns]
    (tmp_path / "labels.csv").write_bytes(to_csv(rows))
    assert main(["report", str(big), str(tmp_path / "labels.csv"), "--html", str(tmp_path / "r.html")]) == 0
    assert (tmp_path / "r.html").stat().st_size < 5_000_000


# The command line


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["label", "s", "l.csv", "--model", "m"],
        ["label", "s", "l.csv", "--base-url", "http://x/v1"],
        ["label", "s", "l.csv", "--model", "m", "--base-url", "http://x/v1", "--transformers"],
        ["apply", "s", "l.csv"],
        ["apply", "s", "l.csv", "o", "--unparsed", "maybe"],
    ],
    ids=" ".join,
)
def test_arguments_that_will_not_do(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


@pytest.mark.parametrize("command", [[], ["label"], ["apply"], ["report"]], ids=str)
def test_help(command: list[str]) -> None:
    run = subprocess.run([*PROGRAM, *command, "--help"], capture_output=True, text=True, check=True)
    assert "LABELS_CSV" in run.stdout
