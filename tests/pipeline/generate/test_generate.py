"""`generate_images.py` with functions as models: what it writes, what changes an image, and what it refuses."""

import csv
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

import drawing
import synthchex_75k
from conftest import ROOT, Rows, contents, plan, to_csv
from generate_images import main
from pipeline.generate.prompts import seed_of
from processes import held

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, table: Rows, capsys: pytest.CaptureFixture[str]) -> Run:
    """Generates `out` from prompts; returns exit code, output and messages."""

    def generate(*options: str, rows: Rows | bytes = table, function: str = "drawing:draw", to: str = "out") -> Any:
        prompts = tmp_path / "prompts.csv"
        prompts.write_bytes(rows if isinstance(rows, bytes) else to_csv(rows))
        code = main([str(prompts), str(tmp_path / to), "--callable", function, *options])
        return (code, *capsys.readouterr())

    return generate


def images_of(folder: Path) -> dict[str, bytes]:
    """The pixels of the images of a folder, read without the code under test."""
    return {path.name: PIL.Image.open(path).tobytes() for path in sorted(folder.glob("data/*.png"))}


def rows_of_csv(folder: Path) -> Rows:
    with open(folder / "metadata.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def stem(name: str) -> str:
    return name.rpartition(".")[0]


# What it writes


def test_the_output_is_a_source(run: Run, tmp_path: Path, table: Rows, expected: Rows) -> None:
    assert run()[0] == 0
    rows = {row["filename"]: row for row in synthchex_75k.load(tmp_path / "out", uncertainty="keep", streaming=True)}
    assert {*rows} == {row["filename"] for row in table}
    for wanted in expected:
        name, prompt = wanted["filename"], wanted["prompt"]
        row = rows[name]
        assert (row["prompt"], row["labels_dict"]) == (prompt, wanted["labels_dict"])
        (drawn,) = drawing.draw([prompt], [seed_of(0, stem(name), 0)])
        assert row["image"].tobytes() == drawn.tobytes()
    assert [row["filename"] for row in rows_of_csv(tmp_path / "out")] == [row["filename"] for row in table]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("data", "metadata.csv", "provenance.json", ".manifest.jsonl")
    }


def test_provenance(run: Run, tmp_path: Path, table: Rows) -> None:
    run("--seed", "7", "--model", "Noise 1", "--limit", "5")
    run("--seed", "7", "--model", "Noise 1")
    (step,) = json.loads((tmp_path / "out/provenance.json").read_bytes())["steps"]
    assert (step["step"], step["program"], step["model"]) == ("generate", "generate_images.py", "Noise 1")
    assert (step["callable"], step["seed"], step["images"]) == ("drawing:draw", 7, 12)
    assert re.fullmatch("[0-9a-f]{64}", step["module_sha256"])
    assert step["prompts"]["name"] == "prompts.csv"
    assert [run["images"] for run in step["runs"]] == [5, 7]
    for part in step["runs"]:
        assert part["started"] <= part["ended"]
        assert part["hardware"]
        assert part["versions"]["pillow"] == PIL.__version__


def test_seeds_are_in_the_metadata(run: Run, tmp_path: Path) -> None:
    run("--images-per-prompt", "2", "--seed", "3")
    for row in rows_of_csv(tmp_path / "out"):
        name, _, number = stem(row["filename"]).rpartition("_")
        name, number = (name, number) if number.isdigit() and len(number) == 1 else (stem(row["filename"]), "0")
        assert int(row["seed"]) == seed_of(3, name, int(number))


def test_a_rerun_changes_nothing(run: Run, tmp_path: Path) -> None:
    run()
    before = contents(tmp_path / "out")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.is_file()}
    code, output, _ = run()
    assert (code, "0 generated" in output) == (0, True)
    assert contents(tmp_path / "out") == before
    assert {path: path.stat().st_mtime_ns for path in times} == times


# Names


def test_names_come_from_file_names_ids_or_lines(run: Run, tmp_path: Path) -> None:
    prompts = [{"prompt": "One."}, {"prompt": "Two,\nlines."}, {"prompt": "Three."}]
    run(rows=prompts, to="lines")
    assert {*images_of(tmp_path / "lines")} == {"000002.png", "000003.png", "000005.png"}
    ids = [{**row, "id": name} for row, name in zip(prompts, ["p1/s 2", "ü", "-"])]
    run(rows=ids, to="ids")
    assert {*images_of(tmp_path / "ids")} == {"p1%2Fs%202.png", "%C3%BC.png", "-.png"}
    files = [{**row, "file_name": f"files/p10/{row['id'][-1]}.JPG"} for row in ids]
    run(rows=files, to="files")
    assert {*images_of(tmp_path / "files")} == {"2.png", "ü.png", "-.png"}
    run("--name-by", "id", rows=files, to="by_id")
    assert images_of(tmp_path / "by_id") == images_of(tmp_path / "ids")
    run("--name-by", "line", rows=files, to="by_line")
    assert images_of(tmp_path / "by_line") == images_of(tmp_path / "lines")


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([{"id": "a", "prompt": "1"}, {"id": "a", "prompt": "2"}], (), "file name twice in the CSV"),
        (
            [{"id": "a", "prompt": "1"}, {"id": "A", "prompt": "2"}],
            (),
            "2 images would have the name of another: a.png",
        ),
        (
            [{"id": "a", "prompt": "1"}, {"id": "a_1", "prompt": "2"}],
            ("--images-per-prompt", "2"),
            "2 images would have the name of another: a_1.png; a_1.png",
        ),
        ([{"id": ".a", "prompt": "1"}], (), "1 image would be hidden, since the name starts with a dot: .a.png"),
        ([{"id": "x" * 300, "prompt": "1"}], (), "1 image would have a name over 200 bytes"),
        ([{"filename": "a\nb", "prompt": "1"}], (), "1 image would have a name that cannot be printed: a\\nb.png"),
        ([{"id": "", "prompt": "1"}], (), "empty file name"),
        ([{"id": "a", "prompt": " "}], (), "empty prompt"),
        ([{"id": "a", "text": "1"}], (), "has no prompt"),
        ([{"filename": "\u00e9", "prompt": "1"}, {"filename": "e\u0301", "prompt": "2"}], (), "the name of another"),
        (b"id,id,prompt\na,b,1\n", (), "2 columns 'id'; the columns are id, id, prompt"),
        ([{"id": "a", "prompt": "1"}], ("--name-by", "dicom"), "0 columns 'dicom'; the columns are id, prompt"),
        ([{"id": "a", "prompt": "1", "Edema": "1"}], (), "has no Atelectasis"),
        ([{"id": "a", "prompt": "1", "labels_dict": "{}"}], (), "bad labels"),
        (b"", (), "has no prompt"),
        (b"id,prompt\n", (), "has no row"),
        (b"id,prompt\na\n", (), "unreadable CSV"),
        (b"id,prompt\na,\xff\n", (), "unreadable CSV"),
    ],
)
def test_prompts_that_are_refused(rows: Any, options: tuple[str, ...], message: str, run: Run, tmp_path: Path) -> None:
    code, _, error = run(*options, rows=rows)
    assert code == 1
    assert error.startswith("error: ")
    assert message in error
    assert not (tmp_path / "out").exists()


def test_no_such_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "no.csv"), str(tmp_path / "out"), "--callable", "drawing:draw"]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path}/no.csv: no such file\n"


def test_prompts_without_labels(run: Run, tmp_path: Path) -> None:
    code, _, error = run(rows=[{"id": "a", "prompt": "Clear."}])
    assert code == 0
    assert "prompts.csv has no labels: metadata.csv has none (not mentioned)" in error
    (row,) = synthchex_75k.load(tmp_path / "out", uncertainty="keep", streaming=True)
    assert {*row["labels_dict"].values()} == {None}


# What changes an image


@pytest.mark.parametrize("batch", ["1", "5", "100"])
def test_the_batch_changes_nothing(batch: str, run: Run, tmp_path: Path) -> None:
    run("--batch-size", batch, to="other")
    run()
    assert images_of(tmp_path / "other") == images_of(tmp_path / "out")


def test_order_and_other_prompts_change_nothing(run: Run, tmp_path: Path, table: Rows) -> None:
    run("--images-per-prompt", "3")
    images = images_of(tmp_path / "out")
    some = random.Random(0).sample(table, 5)
    run(rows=some, to="some")
    assert images_of(tmp_path / "some") == {row["filename"]: images[row["filename"]] for row in some}
    assert len({*images.values()}) == 36


def test_seed_and_prompt_change_images(run: Run, tmp_path: Path, table: Rows) -> None:
    run()
    run("--seed", "1", to="seed")
    changed = [{**table[0], "prompt": "Something else."}, *table[1:]]
    run(rows=changed, to="prompt")
    images, other_seed, other_prompt = (images_of(tmp_path / name) for name in ("out", "seed", "prompt"))
    assert not {*images.values()} & {*other_seed.values()}
    assert {name for name in images if images[name] != other_prompt[name]} == {table[0]["filename"]}


def test_more_prompts_and_more_images_are_added(run: Run, tmp_path: Path, table: Rows) -> None:
    run(rows=table[:4])
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/data").iterdir()}
    code, output, _ = run("--images-per-prompt", "2")
    assert (code, "24 of 24 images, 20 generated" in output) == (0, True)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    run("--images-per-prompt", "2", to="at_once")
    assert images_of(tmp_path / "out") == images_of(tmp_path / "at_once")
    for name in ("out", "at_once"):
        assert len(plan(tmp_path / name)) == 24


def test_new_labels_need_no_new_image(run: Run, tmp_path: Path, table: Rows) -> None:
    run()
    code, output, _ = run(rows=[{**row, "Edema": "1"} for row in table])
    assert (code, "0 generated" in output) == (0, True)
    assert {row["Edema"] for row in rows_of_csv(tmp_path / "out")} == {"1"}


# Resuming


CRASHING = """
import os, runpy, sys
left = int(sys.argv.pop(1))
def crash_before(function):
    def call(*arguments, **options):
        global left
        left -= 1
        if left < 0:
            os._exit(9)
        return function(*arguments, **options)
    return call
for name in ("replace", "unlink", "truncate", "fsync", "rmdir"):
    setattr(os, name, crash_before(getattr(os, name)))
sys.argv[0] = sys.argv.pop(1)
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.parametrize("prepared", ["a part", "another seed"])
def test_crashes_at_any_point(prepared: str, run: Run, tmp_path: Path) -> None:
    rows = many(4)
    run(rows=rows, to="whole")
    environment = {**os.environ, "PYTHONPATH": str(Path(drawing.__file__).parent)}
    code, point = 9, 0
    while code == 9:
        if prepared == "a part":
            run("--limit", "2", rows=rows, to=str(point))
        else:
            run("--seed", "1", rows=rows, to=str(point))
        folder = tmp_path / str(point)
        program = [str(ROOT / "scripts/generate_images.py"), str(tmp_path / "prompts.csv"), str(folder)]
        options = ["--callable", "drawing:draw", "--batch-size", "2", "--overwrite"]
        command = [sys.executable, "-c", CRASHING, str(point), *program, *options]
        code = subprocess.run(command, env=environment, capture_output=True).returncode
        if prepared == "a part":
            assert len(plan(folder, "skip")) >= 2, "what was finished stays readable"
        assert run("--overwrite", rows=rows, to=str(point))[0] == 0
        for name in ("metadata.csv", *(f"data/{name}" for name in images_of(tmp_path / "whole"))):
            assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), (point, name)
        point += 1
    assert (code, point > 15) == (0, True)


def test_limit(run: Run, tmp_path: Path) -> None:
    for done in (5, 10, 12, 12):
        code, output, _ = run("--limit", "5")
        assert (code, f"{done} of 12 images" in output) == (0, True)
        assert len(plan(tmp_path / "out")) == done
    run(to="at_once")
    assert (tmp_path / "out/metadata.csv").read_bytes() == (tmp_path / "at_once/metadata.csv").read_bytes()


def many(count: int) -> Rows:
    return [{"id": f"x{number:03}", "prompt": f"Prompt,\nnumber {number}."} for number in range(count)]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_killed_at_many_points(number: signal.Signals, run: Run, tmp_path: Path) -> None:
    rows = many(60)
    (tmp_path / "prompts.csv").write_bytes(to_csv(rows))
    arguments = [str(tmp_path / "prompts.csv"), str(tmp_path / "killed"), "--callable", "drawing:draw_slowly"]
    command = [sys.executable, str(ROOT / "scripts/generate_images.py"), *arguments, "--batch-size", "2"]
    environment = {**os.environ, "PYTHONPATH": str(Path(drawing.__file__).parent)}
    points = random.Random(number)
    codes: list[int] = []
    for _ in range(6):
        unfinished = {} if codes else {"NOT_DRAWN": rows[-1]["prompt"]}  # the first run does not end before the signal
        program = subprocess.Popen(
            command, env={**environment, **unfinished}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        metadata = tmp_path / "killed/metadata.csv"
        before = metadata.stat().st_size if metadata.exists() else 0
        while program.poll() is None and (not metadata.exists() or metadata.stat().st_size <= before):
            time.sleep(0.001)
        time.sleep(points.uniform(0, 0.06))
        program.send_signal(number)
        program.communicate()
        codes.append(program.returncode)
        if number != signal.SIGKILL:
            assert plan(tmp_path / "killed"), "all images have rows, all rows have images"
        left = [path.name for path in (tmp_path / "killed").rglob("*") if path.name.endswith(".tmp")]
        assert not left or number == signal.SIGKILL
    assert {*codes} <= {0, -number if number == signal.SIGKILL else 128 + number}
    assert codes[0] != 0
    finished = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    run(rows=rows, function="drawing:draw_slowly")
    for name in ("metadata.csv", *(f"data/{name}" for name in images_of(tmp_path / "out"))):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "out" / name).read_bytes(), name
    (step,) = json.loads((tmp_path / "killed/provenance.json").read_bytes())["steps"]
    assert step["images"] == 60


def test_damaged_and_missing_images_are_generated_again(run: Run, tmp_path: Path, table: Rows) -> None:
    run()
    before = images_of(tmp_path / "out")
    first, second = (tmp_path / "out/data" / row["filename"] for row in table[:2])
    damaged = bytearray(first.read_bytes())
    damaged[-20] ^= 1
    first.write_bytes(damaged)
    second.unlink()
    code, output, _ = run()
    assert (code, "2 generated" in output) == (0, True)
    assert images_of(tmp_path / "out") == before


@pytest.mark.parametrize("lost", [1, 3, 25, 60])
def test_half_a_last_row_is_written_again(lost: int, run: Run, tmp_path: Path) -> None:
    run("--limit", "5", rows=many(12))
    path = tmp_path / "out/metadata.csv"
    path.write_bytes(path.read_bytes()[:-lost])
    assert run(rows=many(12))[0] == 0
    run(rows=many(12), to="whole")
    assert path.read_bytes() == (tmp_path / "whole/metadata.csv").read_bytes()


# What it refuses


@pytest.mark.parametrize("complete", [False, True])
def test_edited_metadata_is_never_replaced(complete: bool, run: Run, tmp_path: Path) -> None:
    run(*(() if complete else ("--limit", "5")))
    path = tmp_path / "out/metadata.csv"
    edited = path.read_bytes().replace(b"effusion", b"Effusion", 1)
    assert edited != path.read_bytes()
    path.write_bytes(edited)
    code, _, error = run()
    assert code == 1
    assert "metadata.csv" in error
    assert path.read_bytes() == edited


def test_a_row_added_by_hand_is_refused(run: Run, tmp_path: Path) -> None:
    run("--limit", "5")
    path = tmp_path / "out/metadata.csv"
    for added in (b"mine.png,My own row", b"mine.png,My own row\n", b'"'):
        whole = path.read_bytes()
        path.write_bytes(whole + added)
        code, _, error = run()
        assert (code, "was not written by this program; move the file away" in error) == (1, True), error
        assert path.read_bytes() == whole + added
        path.write_bytes(whole)


def test_what_people_add_to_the_provenance_stays(run: Run, tmp_path: Path) -> None:
    run("--limit", "5")
    path = tmp_path / "out/provenance.json"
    about = json.loads(path.read_bytes())
    about["steps"][0]["about"] = "A note."
    about["steps"].append({"step": "look", "by": "Alice"})
    path.write_text(json.dumps(about))
    run()
    first, second = json.loads(path.read_bytes())["steps"]
    assert (first["about"], first["images"], len(first["runs"])) == ("A note.", 12, 2)
    assert second == {"step": "look", "by": "Alice"}
    path.write_text("[]")
    code, _, error = run("--images-per-prompt", "2")
    assert (code, str(path) in error) == (1, True)


@pytest.mark.parametrize("name", ["provenance.json", "metadata.csv", "failed.csv"])
def test_files_that_were_there_first_are_refused(name: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_bytes(b"mine")
    code, _, error = run()
    assert (code, name in error) == (1, True)
    assert (tmp_path / "out" / name).read_bytes() == b"mine"


def test_prompts_in_the_output_are_refused(run: Run, tmp_path: Path, table: Rows) -> None:
    prompts = tmp_path / "out/prompts.csv"
    prompts.parent.mkdir()
    prompts.write_bytes(to_csv(table))
    assert main([str(prompts), str(tmp_path / "out"), "--callable", "drawing:draw"]) == 1
    assert [path.name for path in prompts.parent.iterdir()] == ["prompts.csv"]


def test_too_many_images_for_a_source(run: Run, tmp_path: Path) -> None:
    code, _, error = run("--images-per-prompt", "90000")
    assert (code, "1,080,000 images are too many for one SOURCE" in error) == (1, True)
    assert not (tmp_path / "out").exists()


def test_foreign_files_are_refused(run: Run, tmp_path: Path) -> None:
    run()
    (tmp_path / "out/data/mine.png").write_bytes(b"mine")
    code, _, error = run()
    assert (code, "data/mine.png" in error) == (1, True)


def test_a_dataset_json_may_be_added_and_edited(run: Run, tmp_path: Path) -> None:
    run("--limit", "3")
    for content in (b'{"name": "A"}', b'{"name": "B"}'):
        (tmp_path / "out/dataset.json").write_bytes(content)
        assert run()[0] == 0
        assert (tmp_path / "out/dataset.json").read_bytes() == content


@pytest.mark.parametrize(
    ("options", "function", "message"),
    [
        (("--seed", "1"), "drawing:draw", "seed was 0 and is now 1"),
        ((), "drawing:in_other_words", "callable was 'drawing:draw' and is now 'drawing:in_other_words'"),
        (("--model", "x"), "drawing:draw", "model was 'drawing:draw' and is now 'x'"),
    ],
)
def test_another_request_needs_overwrite(
    options: tuple[str, ...], function: str, message: str, run: Run, tmp_path: Path
) -> None:
    run()
    before = contents(tmp_path / "out")
    code, _, error = run(*options, function=function)
    assert (code, message in error) == (1, True), error
    assert "would replace 12 finished files" in error
    assert contents(tmp_path / "out") == before
    assert run(*options, "--overwrite", function=function)[0] == 0
    run(*options, function=function, to="new")
    assert images_of(tmp_path / "out") == images_of(tmp_path / "new")


def test_removed_prompts_need_overwrite(run: Run, tmp_path: Path, table: Rows) -> None:
    run()
    code, _, error = run(rows=table[:6])
    assert (code, "would replace 6 finished files" in error) == (1, True), error
    assert run("--overwrite", rows=table[:6])[0] == 0
    assert len(plan(tmp_path / "out")) == 6


def test_a_second_run_meanwhile_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "prompts.csv").write_bytes(to_csv(many(100)))
    arguments = [str(tmp_path / "prompts.csv"), str(tmp_path / "out"), "--callable", "drawing:draw"]
    command = [sys.executable, str(ROOT / "scripts/generate_images.py"), *arguments]
    program = subprocess.Popen(
        held(command, "x099", tmp_path / "proceed"),  # its last image
        env={**os.environ, "PYTHONPATH": str(Path(drawing.__file__).parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    while not (tmp_path / "out/metadata.csv").exists():
        assert program.poll() is None
        time.sleep(0.01)
    program.send_signal(signal.SIGSTOP)
    code, _, error = run(rows=many(100))
    program.send_signal(signal.SIGCONT)
    (tmp_path / "proceed").touch()
    assert (code, f"another run is writing to {tmp_path / 'out'}: process {program.pid} " in error) == (1, True)
    program.communicate()
    assert program.returncode == 0


# Images that fail


@pytest.mark.parametrize("batch", ["1", "8"])
@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("black_for_edema", "all its pixels are equal: an overflow (try --dtype bf16 or fp32), or a safety checker"),
        ("raise_for_edema", "ValueError: no edema, please ("),
        ("raise_oddly_for_edema", r"ValueError: no\udcff\x00edema xxx"),
    ],
)
def test_a_failing_image_is_named_and_never_a_row(
    function: str, message: str, batch: str, run: Run, tmp_path: Path, table: Rows
) -> None:
    lost = [row["filename"] for row in table if "edema" in row["prompt"]]
    code, output, error = run("--batch-size", batch, function=f"drawing:{function}")
    assert code == 1
    assert f"error: no image for {len(lost)} request" in error
    assert all(f"- {name}: {message}" in error for name in lost[:5])
    assert {row.filename for row in plan(tmp_path / "out")} == {row["filename"] for row in table} - {*lost}
    assert f"{12 - len(lost)} of 12 images" in output


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("transparent", "the model returned an image of mode RGBA; it must be plain L, RGB, I;16"),
        ("nothing", "the model returned no PIL image but NoneType"),
        ("texts", "the model returned no PIL image but str"),
        ("too_large", "it has 8,200 x 8,200 pixels; make it one of 1 to 67,108,864 pixels"),
        ("transparent_by_key", "the model returned an image with transparency or a color profile"),
    ],
)
def test_a_model_that_always_fails_leaves_nothing(function: str, message: str, run: Run, tmp_path: Path) -> None:
    code, _, error = run(function=f"drawing:{function}")
    assert (code, message in error) == (1, True)
    assert not (tmp_path / "out").exists()
    code, _, error = run(function=f"drawing:{function}", rows=many(30))
    assert (code, "error: 24 images in a row failed, the last one, x023.png, with: " in error) == (1, True), error
    assert "load:" not in error
    assert not (tmp_path / "out").exists()


def test_failing_prompts_do_not_block_others(run: Run, tmp_path: Path) -> None:
    rows = [{"id": f"x{n:02}", "prompt": f"{'edema' if 2 <= n < 28 else 'clear'} {n}"} for n in range(32)]
    function = "drawing:raise_for_edema"
    code, _, error = run("--batch-size", "1", function=function, rows=rows)
    assert (code, "20 images in a row failed" in error) == (1, True), error
    assert len(plan(tmp_path / "out")) == 2
    code, _, error = run("--batch-size", "1", function=function, rows=rows)
    assert (code, "error: no image for 26 requests; all are in failed.csv:" in error) == (1, True), error
    assert len(plan(tmp_path / "out")) == 6


def test_images_that_failed_before_come_last(run: Run, tmp_path: Path) -> None:
    rows = [{"id": f"x{n:02}", "prompt": f"{'edema' if n % 2 else 'clear'} {n}"} for n in range(60)]
    for done in (5, 10, 15):
        code, output, _ = run("--limit", "10", function="drawing:raise_for_edema", rows=rows)
        assert (code, f"{done} of 60 images" in output) == (1, True)
    code, _, error = run(function="drawing:raise_for_edema", rows=rows)
    assert (code, "error: no image for 30 requests; all are in failed.csv:" in error) == (1, True)
    with open(tmp_path / "out/failed.csv", newline="", encoding="utf-8") as file:
        failed = {row["filename"]: row["reason"] for row in csv.DictReader(file)}
    assert {*failed} == {f"x{n:02}.png" for n in range(1, 60, 2)}
    assert all(reason.startswith("ValueError: no edema, please (") for reason in failed.values())
    assert run(function="drawing:raise_for_edema", rows=rows)[0] == 1, "30 known failures do not end the run"
    assert len(plan(tmp_path / "out")) == 30
    mended = [{**row, "prompt": row["prompt"].replace("edema", "haze")} for row in rows]
    assert run(function="drawing:raise_for_edema", rows=mended)[0] == 0
    assert not (tmp_path / "out/failed.csv").exists()
    assert len(plan(tmp_path / "out")) == 60


def test_a_damaged_list_of_failures_is_one_line(run: Run, tmp_path: Path) -> None:
    function = "drawing:raise_for_edema"
    run(function=function)
    failed = tmp_path / "out/failed.csv"
    failed.write_bytes(b"filename,reason\n" + b"x" * 200_000)
    code, _, error = run(function=function)
    assert code == 1
    assert re.fullmatch(rf"error: {failed}: unreadable CSV: .*; remove it\n", error)
    failed.unlink()
    code, _, error = run(function=function)
    assert (code, "error: no image for " in error) == (1, True)


def test_a_failing_model_changes_nothing(run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/dataset.json").write_bytes(b"{}")
    assert run(function="drawing:nothing")[0] == 1
    assert contents(tmp_path / "out") == {"dataset.json": b"{}"}
    run()
    before = contents(tmp_path / "out")
    assert run("--overwrite", function="drawing:nothing")[0] == 1
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize("function", ["reuse_memory", "lazily"])
def test_images_that_share_memory(function: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("--batch-size", "1", function=f"drawing:{function}")[0] == 0
    run(to="other")
    assert images_of(tmp_path / "out") == images_of(tmp_path / "other")


def test_a_function_that_empties_its_lists(run: Run, tmp_path: Path) -> None:
    assert run(function="drawing:pop")[0] == 0
    run(to="other")
    assert images_of(tmp_path / "out") == images_of(tmp_path / "other")


def test_a_function_that_ends_the_program(tmp_path: Path, table: Rows) -> None:
    (tmp_path / "prompts.csv").write_bytes(to_csv(table))
    command = [sys.executable, str(ROOT / "scripts/generate_images.py"), "prompts.csv", "out"]
    environment = {**os.environ, "PYTHONPATH": str(Path(drawing.__file__).parent)}
    run = subprocess.run(
        [*command, "--callable", "drawing:leave"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    message = "error: --callable drawing:leave ended the program (SystemExit: the license has expired"
    assert (run.returncode, run.stderr.startswith(message), run.stderr.count("\n")) == (1, True, 1)
    assert not (tmp_path / "out").exists()


def test_a_module_that_changes_the_working_directory(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "wanders.py").write_text("import os\nfrom drawing import draw\nos.chdir('elsewhere')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "prompts.csv").write_bytes(to_csv(many(3)))
    assert main(["prompts.csv", "out", "--callable", "wanders:draw"]) == 0
    assert len(plan(tmp_path / "out")) == 3


def test_one_image_too_few(run: Run, tmp_path: Path) -> None:
    code, _, error = run(function="drawing:one_too_few")
    assert (code, error) == (1, "error: --callable drawing:one_too_few returned 7 images for 8 prompts\n")
    assert not (tmp_path / "out").exists()


def test_out_of_memory_halves_the_batch(run: Run, tmp_path: Path) -> None:
    code, output, _ = run(function="drawing:with_little_memory")
    assert code == 0
    assert output.count("out of memory: batches of 2 from now on") == 1
    run(to="whole")
    assert images_of(tmp_path / "out") == images_of(tmp_path / "whole")


def test_out_of_memory_with_one_image(run: Run, tmp_path: Path) -> None:
    code, _, error = run(function="drawing:with_no_memory")
    assert code == 1
    assert "out of memory with one image at a time: OutOfMemoryError: 0 bytes are free; try a smaller --size" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("nowhere:draw", "--callable nowhere:draw: no module nowhere in this folder or installed"),
        ("drawing:paint", "--callable drawing:paint: AttributeError: "),
        ("drawing:PIXELS", "--callable drawing:PIXELS: not a function"),
        ("drawing", "--callable drawing: name a function as MODULE:FUNCTION"),
    ],
)
def test_no_such_function(function: str, message: str, run: Run, tmp_path: Path) -> None:
    code, _, error = run(function=function)
    assert (code, message in error) == (1, True), error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "name a model with --model, or a function with --callable"),
        (("--callable", "drawing:draw", "--steps", "3", "--dtype", "bf16"), "--steps, --dtype: a function of"),
        (("--callable", "drawing:draw", "--engine", "ray"), "--engine ray needs Ray"),
        (("--model", "sana"), "this model needs the Python module torch"),
    ],
)
def test_options_that_do_not_go_together(
    options: tuple[str, ...], message: str, tmp_path: Path, table: Rows, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "prompts.csv").write_bytes(to_csv(table))
    assert main([str(tmp_path / "prompts.csv"), str(tmp_path / "out"), *options]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_png_files_are_whole(run: Run, tmp_path: Path) -> None:
    run()
    for path in (tmp_path / "out/data").iterdir():
        with PIL.Image.open(io.BytesIO(path.read_bytes())) as image:
            assert (image.format, image.mode, image.size) == ("PNG", "RGB", (drawing.PIXELS, drawing.PIXELS))
