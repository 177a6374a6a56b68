"""The filtration with a model in this process and with Ray, and the story that README tells, from images to rows."""

import csv
import html
import json
import os
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
import tiny_vlm
from datasets import load_dataset

from conftest import FIXTURE, ROOT, Rows, to_csv, to_files
from filter_quality import main
from pipeline.quality.answers import UNPARSED
from pipeline.quality.judges import TransformersJudge
from servers.chat_server import Asked, serve

PROGRAM = [sys.executable, str(ROOT / "scripts" / "filter_quality.py")]


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


def test_nonsense_is_unparsed(model: Path, expected: Rows, tmp_path: Path) -> None:
    arguments = ["label", str(FIXTURE), str(tmp_path / "l.csv"), "--model", str(model), "--transformers"]
    assert main([*arguments, "--limit", "5", "--batch-size", "2"]) == 0
    assert main([*arguments, "--batch-size", "5"]) == 0
    rows = read(tmp_path / "l.csv")
    assert {*rows} == {row["filename"] for row in expected}
    assert {row["quality"] for row in rows.values()} == {UNPARSED}
    assert all(row["response"] for row in rows.values())
    assert len({row["response"] for row in rows.values()}) > 1, "the answers depend on what is asked"


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


# Ray


def ray(source: Path, labels: Path, url: str, *options: str) -> list[str]:
    arguments = ["label", str(source), str(labels), "--model", "judge", "--base-url", url, "--engine", "ray"]
    return [*PROGRAM, *arguments, "--workers", "2", "--concurrency", "1", *options]


def by_prompt(asked: Asked) -> str:
    return "Low Quality" if "edema" in asked.text.rpartition("Description: ")[2] else "High Quality"


@pytest.mark.xdist_group("ray")
@pytest.mark.timeout(240)
def test_ray_with_a_worker_that_is_killed(expected: Rows, tmp_path: Path) -> None:
    proceed, hold = threading.Event(), threading.Event()
    hold.set()

    def answer(asked: Asked) -> str:
        if len(server.answered) >= 4 and hold.is_set():
            proceed.wait(120)
        return by_prompt(asked)

    with serve(answer) as server:
        run = subprocess.Popen(
            ray(FIXTURE, tmp_path / "l.csv", server.url), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        while len(server.asked) < 6:
            assert run.poll() is None, run.communicate()[0]
            time.sleep(0.05)
        (worker, *others) = _workers()
        assert others, "there are two"
        worker.kill()
        worker.wait()
        proceed.set()
        said, _ = run.communicate(timeout=120)
    assert run.returncode == 0, said
    wanted = {row["filename"]: "Low Quality" if "edema" in row["prompt"] else "High Quality" for row in expected}
    assert {name: row["quality"] for name, row in read(tmp_path / "l.csv").items()} == wanted
    assert len(server.asked) <= 12 + 2, "only what the killed one had in hand is asked again"
    assert not _workers()


def _workers() -> list[psutil.Process]:
    """Processes of Ray that hold a judge."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if "MapWorker" in " ".join(process.info["cmdline"] or [])
    ]


@pytest.mark.xdist_group("ray")
@pytest.mark.timeout(240)
def test_ray_goes_on_where_it_was_killed(expected: Rows, tmp_path: Path) -> None:
    proceed = threading.Event()

    def answer(asked: Asked) -> str:
        if len(server.answered) >= 5:
            proceed.wait(60)
        return by_prompt(asked)

    with serve(answer) as server:
        command = ray(FIXTURE, tmp_path / "l.csv", server.url)
        run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        while not (tmp_path / "l.csv").exists() or len(read(tmp_path / "l.csv")) < 4:
            assert run.poll() is None, run.communicate()[0]
            time.sleep(0.05)
        run.send_signal(signal.SIGINT)
        said, _ = run.communicate(timeout=60)
        assert run.returncode == 130
        assert "run the same command again to go on" in said
        proceed.set()
        before = read(tmp_path / "l.csv")
        subprocess.run(command, check=True, capture_output=True)
    after = read(tmp_path / "l.csv")
    assert {*after} == {row["filename"] for row in expected}
    assert {name: after[name] for name in before} == before
    assert len(server.asked) <= 12 + 4


@pytest.mark.xdist_group("ray")
@pytest.mark.timeout(240)
def test_ray_tells_what_ends_it(tmp_path: Path) -> None:
    arguments = ["label", str(FIXTURE), str(tmp_path / "l.csv"), "--model", "m", "--engine", "ray", "--workers", "2"]
    run = subprocess.run([*PROGRAM, *arguments, "--callable", "json:nothing"], capture_output=True, text=True)
    assert run.returncode == 1
    assert "error: " in run.stderr
    assert "--callable json:nothing: " in run.stderr
    assert "Traceback" not in run.stderr


# The story


@pytest.mark.timeout(300)
def test_the_story_of_readme(
    model: Path,
    images: dict[str, bytes],
    table: list[dict[str, str]],
    expected: Rows,
    rows_of: Callable[..., Rows],
    tmp_path: Path,
) -> None:
    section = (
        (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## Make the next one\n")[2].partition("\n## ")[0]
    )
    (commands,) = re.findall(r"^```sh\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    to_files(tmp_path / "path/to/images", images)
    to_files(tmp_path / "path/to", {"prompts.csv": to_csv(table)})
    (tmp_path / "path/to/model").symlink_to(model)
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    with serve(by_prompt) as server:
        for line in commands.replace("\\\n", " ").splitlines():
            command = shlex.split(line.replace("http://localhost:8000/v1", server.url), comments=True)
            assert command[0] == "python"
            subprocess.run([sys.executable, *command[1:]], cwd=tmp_path, check=True, capture_output=True)
        assert len(server.asked) == 12
    programs = [shlex.split(line)[1] for line in commands.splitlines() if line.startswith("python")]
    assert {*programs} == {f"scripts/{name}.py" for name in ("pack_shards", "filter_quality", "convert_to_parquet")}
    assert read(tmp_path / "path/to/second.csv").keys() == read(tmp_path / "path/to/labels.csv").keys()
    rows = rows_of(load_dataset(str(tmp_path / "path/to/parquet"), split="train", cache_dir=str(tmp_path / "cache")))
    kept = [row for row in expected if "edema" not in row["prompt"]]
    assert {row["filename"]: row["image"] for row in rows} == {row["filename"]: row["image"] for row in kept}
    assert len(kept) < len(expected)


# The page


@pytest.mark.timeout(120)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_in_a_browser(scheme: str, table: list[dict[str, str]], tmp_path: Path) -> None:
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
    page.write_text(page.read_text() + PROBE)
    chromium = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    look = [
        f"--user-data-dir={tmp_path / 'profile'}",
        "--window-size=390,844",
        "--dump-dom",
        "--virtual-time-budget=2000",
    ]
    dark = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    run = subprocess.run(
        [*chromium, *quiet, *look, *dark, page.as_uri()], capture_output=True, text=True, check=True, env=os.environ
    )
    seen = json.loads(html.unescape(run.stdout.partition("<title>")[2].partition("</title>")[0]))
    assert seen["images"] == [12, 12], "all of them are decoded"
    assert seen["wide"] <= seen["window"], "the page itself does not scroll sideways"
    assert seen["ground"] == ("rgb(13, 17, 23)" if scheme == "dark" else "rgb(255, 255, 255)")
    assert seen["ink"] == ("rgb(230, 237, 243)" if scheme == "dark" else "rgb(27, 31, 36)")
    assert seen["heads"] == ["", *answers, "All"]
    assert seen["strips"] == 5
    assert seen["answer"] == "A & <b>"
    assert seen["errors"] == []


PROBE = """<script>
const errors = [];
addEventListener("error", event => errors.push(event.message), true);
addEventListener("load", () => {
  const style = getComputedStyle(document.body), images = [...document.images];
  document.title = JSON.stringify({
    images: [images.filter(image => image.naturalWidth > 0).length, images.length],
    wide: document.documentElement.scrollWidth,
    window: innerWidth,
    ground: style.backgroundColor,
    ink: style.color,
    heads: [...document.querySelectorAll("thead th")].map(head => head.textContent),
    strips: document.querySelectorAll("h2").length,
    answer: document.querySelectorAll("figcaption dd")[1].textContent,
    errors,
  });
});
</script>"""
