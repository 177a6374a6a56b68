"""Writing the images that are kept."""

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import synthchex_75k
from conftest import FIXTURE, Rows, contents, to_csv, to_files, to_zip
from filter_quality import main
from labelling import high_quality, write_labels
from pipeline.quality.answers import UNPARSED
from servers.chat_server import serve


def apply(folder: Path, *options: str) -> int:
    return main(["apply", str(FIXTURE), str(folder / "labels.csv"), str(folder / "o"), "--num-proc", "1", *options])


def test_kept_images_are_a_source(
    tmp_path: Path, images: dict[str, bytes], expected: Rows, rows_of: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [*images]
    write_labels(tmp_path, {names[0]: "Low Quality", names[3]: "Not Relevant", names[5]: "Medium Quality"})
    assert apply(tmp_path) == 0
    kept = rows_of(synthchex_75k.load(str(tmp_path / "o"), streaming=True, uncertainty="keep"))
    assert kept == [row for row in expected if row["filename"] not in (names[0], names[3])]
    output = capsys.readouterr().out
    assert f"{tmp_path}/o: 10 of 12 images kept" in output
    assert "dropped: Low Quality 1, Not Relevant 1" in output
    assert re.search(r"^All images +2 +12 +16\.7%$", output, re.M)
    for name in synthchex_75k.LABELS:
        lost = sum(row["labels_dict"][name] == 1 for row in expected if row["filename"] in (names[0], names[3]))
        total = sum(row["labels_dict"][name] == 1 for row in expected)
        share = rf"\s+{lost / total:.1%}" if total else ""
        assert re.search(rf"^{name} +{lost} +{total}{share}\s*$", output, re.M)


def test_further_columns_stay(
    tmp_path: Path, images: dict[str, bytes], table: list[dict[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    names = [*images]
    write_labels(tmp_path, {names[0]: "Low Quality"})
    folder = Path(shutil.copytree(FIXTURE, tmp_path / "source"))
    rows = [{"": str(n), **row, "seed": str(n), "a, b": "" if n == 5 else f'"{n}'} for n, row in enumerate(table)]
    (folder / "metadata.csv").write_bytes(to_csv(rows))
    command = ["apply", str(folder), str(tmp_path / "labels.csv"), str(tmp_path / "o"), "--num-proc", "1"]
    assert main(command) == 0
    with open(tmp_path / "o/metadata.csv", newline="", encoding="utf-8") as file:
        found = [*csv.DictReader(file)]
    assert [*found[0]] == ["filename", "prompt", *synthchex_75k.LABELS, "seed", "a, b"]
    wanted = {row["filename"]: (row["seed"], row["a, b"]) for row in rows if row["filename"] != names[0]}
    assert {row["filename"]: (row["seed"], row["a, b"]) for row in found} == wanted
    assert "without a name, or there twice, are left out: one without a name\n" in capsys.readouterr().err


def test_qualities_to_drop(tmp_path: Path, images: dict[str, bytes]) -> None:
    names = [*images]
    write_labels(tmp_path, {names[0]: "Low Quality", names[5]: "Medium Quality"})
    assert apply(tmp_path, "--drop", "Medium Quality") == 0
    assert {row.filename for row in synthchex_75k.plan(str(tmp_path / "o"))} == {*names} - {names[5]}
    with pytest.raises(SystemExit):
        apply(tmp_path, "--drop", "Bad Quality")


@pytest.mark.parametrize(("unparsed", "kept"), [("drop", 11), ("keep", 12)])
def test_unparsed_answers(
    tmp_path: Path, images: dict[str, bytes], unparsed: str, kept: int, capsys: pytest.CaptureFixture[str]
) -> None:
    name = [*images][2]
    write_labels(tmp_path, {name: UNPARSED})
    assert apply(tmp_path) == 1
    why = "1 image whose answer names no quality; look at them, then pass --unparsed drop or keep"
    assert f"error: {why}: {name}" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()
    assert apply(tmp_path, "--unparsed", unparsed) == 0
    assert len(synthchex_75k.plan(str(tmp_path / "o"))) == kept


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[:-1], r"1 image without a label; run `filter_quality.py label` again: \w+"),
        (lambda lines: [*lines, lines[3]], "labels.csv line 14: .* has a label already; remove one"),
        (
            lambda lines: [*lines, b"x.png,Low Quality,x,judge,1\n"],
            "labels.csv is of another source: it has labels of 1 image that this one lacks: x.png",
        ),
        (lambda lines: [*lines[:-1], lines[-1].replace(b"High Quality", b"Fine")], "'Fine' is not one of High Quality"),
        (
            lambda lines: [*lines[:-1], lines[-1].replace(b",0.1", b"")],
            "labels.csv line 13: not a row of 5 columns with a number",
        ),
        (lambda lines: [b"a,b\n"], "not a CSV of labels: its columns are not filename, quality"),
        (lambda lines: [*lines[:-1], b"x\xff"], "labels.csv line 13: 'utf-8' codec can't decode"),
    ],
    ids=["missing", "twice", "strange", "quality", "columns", "header", "not text"],
)
def test_labels_that_cannot_be_applied(
    tmp_path: Path, change: Any, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_labels(tmp_path, {})
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))).replace(b"\r\n", b"\n"))
    assert apply(tmp_path) == 1
    assert re.search(f"error: .*{message}", capsys.readouterr().err)
    assert not (tmp_path / "o").exists()


def filter_step(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "o/provenance.json").read_text(encoding="utf-8"))["steps"][-1])


def test_judge_in_provenance(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_labels(tmp_path, {})
    assert apply(tmp_path) == 0
    step = filter_step(tmp_path)
    assert (step["model"], step["kept"], step["total"]) == ("judge", 12, 12)
    assert "meta_prompt" not in step, "no file states it"
    path.write_bytes(path.read_bytes().replace(b"judge", b"org/other", 1))
    to_files(tmp_path, {"labels.csv.json": json.dumps({"model": "judge", "meta_prompt": "Which?"}).encode()})
    assert apply(tmp_path) == 0
    assert filter_step(tmp_path) == {**step, "model": ["judge", "org/other"], "meta_prompt": "Which?"}
    to_files(tmp_path, {"labels.csv.json": b"["})
    assert apply(tmp_path) == 1
    assert f"error: {tmp_path}/labels.csv.json is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("before", [b'{"name": "Source"}', None], ids=["copied", "absent"])
def test_dataset_json_of_the_result_may_be_edited(before: bytes | None, tmp_path: Path, source: Any) -> None:
    folder, labels = source(), write_labels(tmp_path, {})
    (folder / "dataset.json").unlink()
    to_files(folder, {} if before is None else {"dataset.json": before})
    command = ["apply", str(folder), str(labels), str(tmp_path / "o"), "--num-proc", "1"]
    assert main(command) == 0
    assert (tmp_path / "o/dataset.json").exists() == (before is not None)
    to_files(tmp_path / "o", {"dataset.json": b'{"name": "Result"}'})
    for options in ([], ["--drop", "Medium Quality", "--overwrite"]):
        for _ in range(2):
            assert main([*command, *options]) == 0
            assert (tmp_path / "o/dataset.json").read_bytes() == b'{"name": "Result"}'
    (tmp_path / "o/dataset.json").unlink()
    assert main([*command, *options]) == 0
    assert (tmp_path / "o/dataset.json").exists() == (before is not None)


def test_no_image_is_left(tmp_path: Path, images: dict[str, bytes], capsys: pytest.CaptureFixture[str]) -> None:
    write_labels(tmp_path, dict.fromkeys(images, "Low Quality"))
    assert apply(tmp_path) == 1
    assert "no image is left; nothing was written" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_a_second_run_writes_nothing(tmp_path: Path) -> None:
    write_labels(tmp_path, {})
    apply(tmp_path)
    before = contents(tmp_path / "o")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "o").rglob("*")}
    assert apply(tmp_path) == 0
    assert contents(tmp_path / "o") == before
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "o").rglob("*")} == times


def test_another_selection_needs_overwrite(
    tmp_path: Path, images: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    write_labels(tmp_path, {next(iter(images)): "Medium Quality"})
    assert apply(tmp_path) == 0
    before = contents(tmp_path / "o")
    assert apply(tmp_path, "--drop", "Medium Quality") == 1
    assert "pass --overwrite" in capsys.readouterr().err
    assert contents(tmp_path / "o") == before
    assert apply(tmp_path, "--drop", "Medium Quality", "--overwrite") == 0
    assert len(synthchex_75k.plan(str(tmp_path / "o"))) == 11


@pytest.mark.parametrize("name", ["img/ a.png", "img/a .png", "img/a\nb.png", 'img/"a",\r.png', "img/=1+1.png"])
@pytest.mark.parametrize("shape", [to_files, lambda folder, images: to_zip(folder / "images.zip", images)])
@pytest.mark.parametrize("column", ["path", "name"])
def test_labels_of_a_strange_file_name_are_applied(
    name: str,
    column: str,
    shape: Callable[[Path, dict[str, bytes]], None],
    images: dict[str, bytes],
    table: list[dict[str, str]],
    tmp_path: Path,
) -> None:
    """White space around the name in the CSV or in the path does not matter, that within it is kept."""
    kept = name.rpartition("/")[2].strip()
    first = table[0]["filename"]
    folder = tmp_path / "source"
    shape(folder, {name: images[first]})
    to_files(folder, {"metadata.csv": to_csv([{**table[0], "filename": name if column == "path" else kept}])})
    labels = ["label", str(folder), str(tmp_path / "labels.csv"), "--model", "judge", "--base-url"]
    with serve(high_quality) as server:
        assert main([*labels, server.url]) == 0
        assert main([*labels, server.url]) == 0, "it is not asked about again"
    assert len(server.questions) == 1
    output = tmp_path / "filtered"
    command = ["apply", str(folder), str(tmp_path / "labels.csv"), str(output), "--num-proc", "1"]
    assert main(command) == 0
    (row,) = synthchex_75k.plan(str(output))
    assert (row.filename, row.prompt) == (kept, table[0]["prompt"])
    assert main(command) == 0, "a second run finds the result up to date"
    assert main(["report", str(output), str(tmp_path / "labels.csv")]) == 0, "they are labels of the result, too"


@pytest.mark.parametrize("command", ["report", "apply"])
def test_a_missing_csv_is_an_error_before_planning(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("no plan without labels")

    monkeypatch.setattr(f"pipeline.quality.{command}.plan", fail)
    output = [str(tmp_path / "o")] if command == "apply" else []
    assert main([command, "no/such/source", str(tmp_path / "typo.csv"), *output]) == 1
    hint = "no such file; create it with `filter_quality.py label`"
    assert capsys.readouterr().err == f"error: {tmp_path}/typo.csv: {hint}\n"
    assert not (tmp_path / "o").exists()
