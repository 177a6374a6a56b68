"""`evaluate_images.py embed` with functions as encoders: what it writes, what it embeds again, and what it refuses."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import embedding
from conftest import FIXTURE, ROOT, Rows, contents, convert, to_csv, to_files
from evaluate_images import main
from pipeline import rows
from pipeline.errors import StepError
from pipeline.evaluate.features import Features, read_features, read_index
from servers.range_server import RangeServer
from servers.serving import running
from synthchex_75k import LABELS

PROGRAM = [sys.executable, str(ROOT / "scripts/evaluate_images.py")]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twelve images of the fixture lie in three files."""
    monkeypatch.setattr("pipeline.evaluate.embedding.output.ROWS_PER_FILE", 4)


@pytest.fixture
def source(tmp_path: Path, images: dict[str, bytes], table: Rows) -> Path:
    """The fixture as loose images."""
    to_files(tmp_path / "source", images)
    (tmp_path / "source/metadata.csv").write_bytes(to_csv(table))
    return tmp_path / "source"


@pytest.fixture
def run(tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Embeds the source into `out`; returns exit code, output and messages."""

    def embed(*options: str, encoder: str = "embedding:pixels", source: Any = source, to: str = "out") -> Any:
        code = main(["embed", str(source), str(tmp_path / to), "--encoder", encoder, *options])
        return (code, *capsys.readouterr())

    return embed


def embedded(result: tuple[int, str, str]) -> int:
    """How many images a run embedded."""
    code, output, messages = result
    assert code == 0, messages
    found = re.search(r"([\d,]+) images embedded", output)
    assert found, output
    return int(found[1])


def features(folder: Path, name: str = "embedding-pixels") -> Features:
    return read_features(folder, read_index(folder)[name])


def png(color: int, size: tuple[int, int] = (16, 16)) -> bytes:
    file = io.BytesIO()
    PIL.Image.new("RGB", size, (color,) * 3).save(file, "PNG")
    return file.getvalue()


def equal(one: Features, two: Features) -> bool:
    arrays = ("filenames", "crc32", "sizes", "prompts")
    same = all(np.array_equal(getattr(one, name), getattr(two, name)) for name in arrays)
    outputs = all(np.array_equal(one.outputs[name], two.outputs[name]) for name in one.outputs)
    return same and outputs and np.array_equal(one.labels, two.labels, equal_nan=True)


# What it writes


def test_features_of_each_image(run: Run, tmp_path: Path, images: dict[str, bytes], expected: Rows) -> None:
    assert embedded(run()) == 12
    found = features(tmp_path / "out")
    rows: dict[str, Any] = {row["filename"]: row for row in expected}
    assert found.filenames.tolist() == sorted(images)
    for number, name in enumerate(found.filenames):
        image = PIL.Image.open(io.BytesIO(images[name]))
        assert found.crc32[number] == zlib.crc32(images[name])
        assert tuple(found.sizes[number]) == image.size
        assert found.prompts[number] == rows[name]["prompt"]
        labels = [None if np.isnan(value) else int(value) for value in found.labels[number]]
        assert labels == [rows[name]["labels_dict"][label] for label in LABELS]
        assert found.outputs["feature"][number].tolist() == embedding.pixels([image.convert("RGB")])[0].tolist()
    assert found.patients is None


def test_index(run: Run, tmp_path: Path, source: Path) -> None:
    run("--limit", "7")
    index = read_index(tmp_path / "out")["embedding-pixels"]
    assert (index.rows, index.source_rows, index.source) == (7, 12, str(source))
    assert index.outputs == {"feature": 16}
    assert index.about["model"] == "embedding:pixels"
    assert index.about["versions"]["pillow"] == PIL.__version__
    assert index.devices == [f"CPU {os.uname().machine}"]
    assert [rows for _, _, rows in index.files] == [4, 3]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"data", "features.json", ".manifest.jsonl"}


def test_a_rerun_changes_nothing(run: Run, tmp_path: Path) -> None:
    run()
    before = contents(tmp_path / "out")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert embedded(run()) == 0
    assert contents(tmp_path / "out") == before
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_a_rerun_of_one_encoder_writes_nothing(run: Run, tmp_path: Path) -> None:
    run("--encoder", "embedding:edges")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.is_file()}
    for encoder in ("embedding:pixels", "embedding:edges"):
        assert embedded(run(encoder=encoder)) == 0
    assert {path: path.stat().st_mtime_ns for path in times} == times  # so a folder may be read-only


def test_a_rerun_reads_each_image_once_for_all_encoders(run: Run, source: Path, images: dict[str, bytes]) -> None:
    with running(RangeServer(source)) as server:
        run("--encoder", "embedding:edges", source=server.url)
        server.sent.clear()
        assert embedded(run("--encoder", "embedding:edges", source=server.url)) == 0
        assert {name: server.sent[name] for name in images} == {name: len(image) for name, image in images.items()}


def test_batches_change_nothing(run: Run, tmp_path: Path) -> None:
    run("--batch-size", "1", to="one")
    run("--batch-size", "5", to="five")
    assert contents(tmp_path / "one/data") == contents(tmp_path / "five/data")


def test_archives_give_the_same(run: Run, tmp_path: Path) -> None:
    run(to="loose")
    run(source=FIXTURE, to="zips")
    assert equal(features(tmp_path / "loose"), features(tmp_path / "zips"))


def test_each_image_is_decoded_once_for_all_encoders(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []

    def decode(image: bytes, where: str) -> PIL.Image.Image:
        decoded.append(where)
        return rows.decode(image, where)

    monkeypatch.setattr("pipeline.evaluate.embedding.encoding.decode", decode)
    assert embedded(run("--encoder", "embedding:edges")) == 12
    assert len(decoded) == len({*decoded}) == 12
    assert features(tmp_path / "out", "embedding-edges").outputs["feature"].shape == (12, 12)


def test_encoders_are_added(run: Run, tmp_path: Path) -> None:
    run()
    before = features(tmp_path / "out")
    assert embedded(run(encoder="embedding:edges")) == 12
    assert [*read_index(tmp_path / "out")] == ["embedding-pixels", "embedding-edges"]
    assert equal(features(tmp_path / "out"), before)
    assert embedded(run("--encoder", "embedding:edges")) == 0


def test_gray_and_jpeg_images_come_as_rgb(run: Run, tmp_path: Path, source: Path, table: Rows) -> None:
    name = table[0]["filename"]
    PIL.Image.new("I;16", (9, 5), 65535).save(source / name)
    run(encoder="embedding:pixels")
    found = features(tmp_path / "out")
    row = found.filenames.tolist().index(name)
    assert found.outputs["feature"][row].tolist() == [255] * 16
    assert found.sizes[row].tolist() == [9, 5]


def test_a_converted_folder_gives_the_same(run: Run, tmp_path: Path, source: Path) -> None:
    assert convert(source, tmp_path / "parquet") == 0
    assert embedded(run(to="images")) == 12
    assert embedded(run(source=tmp_path / "parquet", to="rows")) == 12
    assert equal(features(tmp_path / "images"), features(tmp_path / "rows"))
    assert embedded(run(source=tmp_path / "parquet", to="rows")) == 0
    assert embedded(run("--overwrite", source=tmp_path / "parquet", to="images")) == 0  # the images are the same


def test_patients(run: Run, tmp_path: Path, source: Path, table: Rows) -> None:
    rows = [{**row, "patientID": f"p{number // 2}"} for number, row in enumerate(table)]
    (source / "metadata.csv").write_bytes(to_csv(rows))
    run()
    assert features(tmp_path / "out").patients is None
    assert embedded(run("--patient-column", "patientID")) == 0
    found = features(tmp_path / "out")
    assert found.patients is not None
    wanted = {row["filename"]: row["patientID"] for row in rows}
    assert dict(zip(found.filenames, found.patients)) == wanted


def test_patients_that_are_not_there(run: Run, source: Path, table: Rows) -> None:
    rows = [{**row, "patientID": "" if number == 3 else "p"} for number, row in enumerate(table)]
    (source / "metadata.csv").write_bytes(to_csv(rows))
    code, _, messages = run("--patient-column", "patientID")
    assert (code, f"is empty for 1 image: {rows[3]['filename']}" in messages) == (1, True)
    code, _, messages = run("--patient-column", "patient")
    assert (code, "no column patient" in messages, "patientID" in messages) == (1, True, True)


# What it embeds again


def test_only_a_changed_image_is_embedded_again(run: Run, tmp_path: Path, source: Path, table: Rows) -> None:
    run()
    before = features(tmp_path / "out")
    name = table[5]["filename"]
    (source / name).write_bytes(png(200))
    assert embedded(run()) == 1
    found = features(tmp_path / "out")
    changed = found.filenames == name
    assert (found.outputs["feature"][changed] == 200).all()
    assert (found.outputs["feature"][~changed] == before.outputs["feature"][~changed]).all()
    assert len([*(tmp_path / "out/data").iterdir()]) == 3


def test_a_new_image_moves_the_others(run: Run, tmp_path: Path, source: Path, table: Rows) -> None:
    run()
    (source / "0.png").write_bytes(png(100))
    (source / "metadata.csv").write_bytes(to_csv([*table, {**table[0], "filename": "0.png"}]))
    assert embedded(run()) == 1
    run(to="fresh")
    assert contents(tmp_path / "out/data") == contents(tmp_path / "fresh/data")


def test_new_prompts_and_labels_need_no_encoder(run: Run, tmp_path: Path, source: Path, table: Rows) -> None:
    run()
    rows = [{**row, "prompt": f"{row['prompt']} Again.", "Edema": "-1"} for row in table]
    (source / "metadata.csv").write_bytes(to_csv(rows))
    assert embedded(run()) == 0
    found = features(tmp_path / "out")
    assert all(prompt.endswith("Again.") for prompt in found.prompts)
    assert (found.labels[:, LABELS.index("Edema")] == -1).all()


def test_a_larger_sample_adds_to_a_smaller_one(run: Run, tmp_path: Path) -> None:
    names = []
    for limit, count in ((3, 3), (7, 4), (12, 5), (20, 0)):
        assert embedded(run("--limit", str(limit))) == count
        names.append({*features(tmp_path / "out").filenames})
    assert names[0] < names[1] < names[2] == names[3]


def test_a_smaller_sample_removes_only_if_asked(run: Run, tmp_path: Path) -> None:
    run()
    before = contents(tmp_path / "out")
    code, _, messages = run("--limit", "3")
    assert code == 1
    assert "limit was None and is now 3" in messages
    assert contents(tmp_path / "out") == before
    assert embedded(run("--limit", "3", "--overwrite")) == 0
    assert len(features(tmp_path / "out").filenames) == 3


def test_another_source_replaces_only_if_asked(run: Run, tmp_path: Path, source: Path, table: Rows) -> None:
    run()
    other = tmp_path / "other"
    shutil.copytree(source, other)
    (other / table[0]["filename"]).write_bytes(png(7))
    code, _, messages = run(source=other)
    assert code == 1
    assert "source was" in messages
    assert embedded(run("--overwrite", source=other)) == 1  # the others are the same images


def test_a_filtered_source_takes_what_is_known(run: Run, tmp_path: Path, source: Path, table: Rows) -> None:
    run()
    for row in table[:4]:
        (source / row["filename"]).unlink()
    (source / "metadata.csv").write_bytes(to_csv(table[4:]))
    assert embedded(run()) == 0
    assert len(features(tmp_path / "out").filenames) == 8


def test_another_encoder_of_the_same_name(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "my_encoder.py").write_text("from embedding import pixels as embed")
    assert embedded(run(encoder="my_encoder:embed")) == 12
    before = contents(tmp_path / "out")
    (tmp_path / "my_encoder.py").write_text("from embedding import edges as embed")
    sys.modules.pop("my_encoder")
    code, _, messages = run(encoder="my_encoder:embed")
    assert code == 1
    assert "my_encoder-embed weights_sha256 was" in messages
    assert contents(tmp_path / "out") == before
    assert embedded(run("--overwrite", encoder="my_encoder:embed")) == 12
    assert features(tmp_path / "out", "my_encoder-embed").outputs["feature"].shape == (12, 12)
    sys.modules.pop("my_encoder")


def test_another_encoder_does_not_hide_that_the_source_differs(
    run: Run, tmp_path: Path, source: Path, table: Rows
) -> None:
    other = tmp_path / "other"
    shutil.copytree(source, other)
    (other / table[0]["filename"]).write_bytes(png(7))
    run()
    assert embedded(run(encoder="embedding:edges", source=other)) == 12
    before = contents(tmp_path / "out")
    code, _, messages = run(source=other)
    assert (code, "embedding-pixels source was" in messages, "edges" in messages) == (1, True, False)
    assert contents(tmp_path / "out") == before


def test_another_encoder_does_not_hide_that_the_limit_differs(run: Run, tmp_path: Path) -> None:
    run()
    assert embedded(run("--limit", "3", encoder="embedding:edges")) == 3
    code, _, messages = run("--limit", "3")
    assert (code, "embedding-pixels limit was None and is now 3" in messages) == (1, True)
    assert len(features(tmp_path / "out").filenames) == 12


def test_a_changed_image_and_another_encoder_at_once(run: Run, source: Path, table: Rows) -> None:
    run()
    (source / table[5]["filename"]).write_bytes(png(200))
    assert embedded(run("--encoder", "embedding:edges")) == 12


def test_patients_are_removed_only_if_asked(run: Run, tmp_path: Path, source: Path, table: Rows) -> None:
    rows = [{**row, "patientID": f"p{number // 2}"} for number, row in enumerate(table)]
    (source / "metadata.csv").write_bytes(to_csv(rows))
    run("--patient-column", "patientID")
    before = contents(tmp_path / "out")
    code, _, messages = run()
    assert (code, "patient column was 'patientID' and is now None" in messages) == (1, True)
    assert contents(tmp_path / "out") == before
    assert embedded(run("--overwrite")) == 0
    assert features(tmp_path / "out").patients is None


def test_a_flipped_bit(run: Run, tmp_path: Path) -> None:
    run()
    before = features(tmp_path / "out")
    path = sorted((tmp_path / "out/data").iterdir())[1]
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    with pytest.raises(StepError, match="has changed"):
        features(tmp_path / "out")
    assert embedded(run()) == 4
    assert equal(features(tmp_path / "out"), before)


def test_a_missing_file(run: Run, tmp_path: Path) -> None:
    run()
    before = contents(tmp_path / "out")
    sorted((tmp_path / "out/data").iterdir())[0].unlink()
    with pytest.raises(StepError, match="is missing"):
        features(tmp_path / "out")
    assert embedded(run()) == 4
    assert contents(tmp_path / "out") == before


EDITS = st.sampled_from(["change", "remove", "add", "prompt", "limit", "encoder", "damage"])


@settings(max_examples=8)
@given(edits=st.lists(st.tuples(EDITS, st.integers(0, 10)), max_size=6))
def test_any_edits_end_as_a_fresh_run(
    edits: list[tuple[str, int]], tmp_path_factory: pytest.TempPathFactory, images: dict[str, bytes]
) -> None:
    folder = tmp_path_factory.mktemp("edits")
    rows = [{"filename": name, "prompt": f"{name} shown.", "Edema": ""} for name in images]
    files, options = dict(images), ["--encoder", "embedding:pixels"]
    for step, (edit, number) in enumerate([("none", 0), *edits]):
        name = rows[number % len(rows)]["filename"]
        if edit == "change":
            files[name] = png(step)
        elif edit == "remove" and len(rows) > 2:
            rows = [row for row in rows if row["filename"] != name]
        elif edit == "add":
            rows.insert(number, {"filename": f"{step}.png", "prompt": "New.", "Edema": "1"})
            files[f"{step}.png"] = png(step)
        elif edit == "prompt":
            rows = [{**row, "prompt": f"{row['prompt']} {step}."} if row["filename"] == name else row for row in rows]
        elif edit == "limit":
            options = [*options[:2], "--limit", str(number + 1)]
        elif edit == "encoder":
            options = ["--encoder", "embedding:edges" if number % 2 else "embedding:pixels", *options[2:]]
        elif edit == "damage":
            path = sorted((folder / "out/data").iterdir())[0]
            path.write_bytes(path.read_bytes()[:-1] + b"x")
        shutil.rmtree(folder / "source", ignore_errors=True)
        to_files(folder / "source", {row["filename"]: files[row["filename"]] for row in rows})
        full = [{**dict.fromkeys(LABELS, ""), **row} for row in rows]
        (folder / "source/metadata.csv").write_bytes(to_csv(full))
        assert main(["embed", str(folder / "source"), str(folder / "out"), "--overwrite", *options]) == 0
    assert main(["embed", str(folder / "source"), str(folder / "fresh"), *options]) == 0
    name = options[1].replace(":", "-")
    assert equal(features(folder / "out", name), features(folder / "fresh", name))
    assert contents(folder / "fresh/data").items() <= contents(folder / "out/data").items()


# What functions do to others


def test_a_function_that_changes_its_images(run: Run, tmp_path: Path) -> None:
    run(to="alone")
    assert embedded(run("--encoder", "embedding:pixels", encoder="embedding:in_place")) == 12
    assert equal(features(tmp_path / "out"), features(tmp_path / "alone"))


def test_a_function_that_changes_the_working_directory(
    run: Run, tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["embed", source.name, "out", "--encoder", "embedding:elsewhere"]) == 0
    assert len(features(tmp_path / "out", "embedding-elsewhere").filenames) == 12


def test_a_module_that_ends_the_program(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "program.py").write_text("import sys\nsys.exit(0)\n")
    code, _, messages = run(encoder="program:embed")
    assert (code, "--encoder program:embed ended the program (SystemExit: 0" in messages) == (1, True)


def test_folders_that_are_not_utf8(run: Run, tmp_path: Path, source: Path) -> None:
    odd = source.rename(tmp_path / os.fsdecode(b"source\xff"))
    name = os.fsdecode(b"out\xff")
    assert embedded(run(source=odd, to=name)) == 12
    assert embedded(run(source=odd, to=name)) == 0
    assert len(features(tmp_path / name).filenames) == 12
    assert read_index(tmp_path / name)["embedding-pixels"].source == str(odd)


# Interruptions


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_interrupted_at_any_time(ending: signal.Signals, run: Run, tmp_path: Path, source: Path) -> None:
    run(encoder="embedding:slowly", to="whole")
    command = [*PROGRAM, "embed", str(source), str(tmp_path / "out"), "--encoder", "embedding:slowly"]
    log = tmp_path / "log"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests"), "SLOWLY_LOG": str(log)}
    program = subprocess.Popen([*command, "--batch-size", "1"], env=environment, stderr=subprocess.PIPE)
    while not log.exists():  # in the middle of the only file, which has place for 256 images
        assert program.poll() is None, program.communicate()
        time.sleep(0.001)
    program.send_signal(ending)
    program.communicate()
    assert program.returncode in (-ending, 130, 143)
    with pytest.raises(StepError, match="no features"):
        features(tmp_path / "out")
    left = embedded(run(encoder="embedding:slowly"))
    assert left == 12 if ending == signal.SIGKILL else 0 < left < 12
    assert contents(tmp_path / "out/data") == contents(tmp_path / "whole/data")


def test_what_was_there_stays_usable_while_more_is_embedded(run: Run, tmp_path: Path, source: Path) -> None:
    run()
    (source / sorted(path.name for path in source.glob("*.png"))[-1]).write_bytes(png(255))
    code, _, _ = run(encoder="embedding:raise_for_bright")
    assert code == 1
    assert len(features(tmp_path / "out").filenames) == 12


# What it refuses


def test_a_damaged_image_is_an_error_by_name(run: Run, tmp_path: Path, source: Path, images: dict[str, bytes]) -> None:
    name = [*images][6]
    damaged = bytearray(images[name])
    damaged[len(damaged) // 2] ^= 1
    (source / name).write_bytes(damaged)
    code, _, messages = run()
    assert (code, name in messages) == (1, True)
    with pytest.raises(StepError, match="no features"):
        read_index(tmp_path / "out")
    (source / name).write_bytes(images[name])
    assert embedded(run()) <= 12
    run(to="fresh")
    assert contents(tmp_path / "out/data") == contents(tmp_path / "fresh/data")


@pytest.mark.parametrize("function", ["raise_for_bright", "nan_for_bright"])
def test_the_image_that_fails_is_named(function: str, run: Run, source: Path, images: dict[str, bytes]) -> None:
    name = [*images][6]
    (source / name).write_bytes(png(255))
    code, _, messages = run(encoder=f"embedding:{function}")
    assert (code, messages.count("\n"), name in messages) == (1, 1, True)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("flat", "of shape (12,) for 12 images; return real numbers of shape (12, width)"),
        ("one_too_few", "of shape (11, 16) for 12 images"),
        ("nothing", "of shape () for 12 images"),
        ("texts", "<U1 of shape (12, 1) for 12 images"),
        ("complex_numbers", "complex64 of shape (12, 16) for 12 images; return real numbers"),
        ("too_large", "is not finite"),
        ("leave", "--encoder embedding:leave ended the program (SystemExit: 0"),
        ("with_no_memory", "out of memory with one image at a time"),
        ("constant", "not a function"),
        ("no_such", "no_such"),
    ],
)
def test_functions_that_are_no_encoders(function: str, message: str, run: Run, tmp_path: Path) -> None:
    code, _, messages = run(encoder=f"embedding:{function}")
    assert (code, message in messages, messages.count("\n")) == (1, True, 1), messages
    assert not (tmp_path / "out/features.json").exists()


def test_widths_that_depend_on_the_image(run: Run, source: Path, table: Rows) -> None:
    (source / table[5]["filename"]).write_bytes(png(1, (9, 5)))
    code, _, messages = run(encoder="embedding:of_any_size")
    assert (code, messages.count("\n")) == (1, 1)
    assert "--encoder embedding-of_any_size returned outputs of widths {'feature': 135}, and before" in messages


def test_widths_that_change(run: Run) -> None:
    code, _, messages = run("--batch-size", "4", encoder="embedding:of_any_width")
    assert (code, "widths" in messages) == (1, True)


def test_batches_shrink_when_memory_runs_out(run: Run, tmp_path: Path) -> None:
    code, output, _ = run("--batch-size", "12", encoder="embedding:with_little_memory")
    assert (code, output.count("out of memory, batches of 3 from now on")) == (0, 1)
    assert len(features(tmp_path / "out", "embedding-with_little_memory").filenames) == 12


def test_a_function_may_change_its_list(run: Run) -> None:
    assert embedded(run(encoder="embedding:empty")) == 12


def test_two_encoders_of_one_stored_name(run: Run) -> None:
    code, _, messages = run("--encoder", "Embedding:pixels")
    assert (code, "Embedding" in messages) == (1, True)  # no such module, on a disk that heeds case


@pytest.mark.parametrize("option", ["--model", "--revision"])
def test_weights_of_several_encoders_need_names(option: str, run: Run) -> None:
    for value in ("weights", "other=weights", "embedding:edges="):
        code, _, messages = run("--encoder", "embedding:edges", option, value)
        assert (code, f"{option} {value}: give one {option} for the only encoder, or NAME=" in messages) == (1, True)


def test_a_foreign_file_in_the_folder(run: Run, tmp_path: Path) -> None:
    run()
    (tmp_path / "out/notes.txt").write_text("mine")
    code, _, messages = run()
    assert (code, "notes.txt" in messages) == (1, True)


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"format": 1}', '{"format": 2, "encoders": {}}', '{"format": 1, "encoders": {"a": 1}}']
)
def test_a_damaged_index(content: str, tmp_path: Path) -> None:
    (tmp_path / "features.json").write_text(content)
    with pytest.raises(StepError, match=r"features\.json (is damaged|has format)"):
        read_index(tmp_path)


def test_a_flipped_bit_of_the_index(run: Run, tmp_path: Path) -> None:
    run()
    index = tmp_path / "out/features.json"
    content, whole = index.read_bytes(), features(tmp_path / "out").encoder
    told: dict[str, Any] = {"source": "", "source_rows": 0, "devices": []}  # these decide nothing
    unseen = []
    for place in range(0, len(content), 7):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        index.write_bytes(flipped)
        try:
            found = [read_features(index.parent, encoder).encoder for encoder in read_index(index.parent).values()]
        except StepError:
            continue
        unseen += [place] if [one._replace(**told) for one in found] != [whole._replace(**told)] else []
    assert [chr(content[place]) for place in unseen] == []


def test_the_index_lists_what_is_there(run: Run, tmp_path: Path) -> None:
    run()
    index = json.loads((tmp_path / "out/features.json").read_bytes())
    files = index["encoders"]["embedding-pixels"]["files"]
    assert {file["path"] for file in files} == {f"data/{path.name}" for path in (tmp_path / "out/data").iterdir()}
