"""Packing a generator's output, in the main process and in workers."""

import csv
import io
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import synthchex_75k
from conftest import ROOT, Rows, contents, padded, to_csv, to_files
from images import gray_16, rgb_16
from pack_shards import main
from pipeline.folder import MANIFEST
from pipeline.source_writer import cut_zips, metadata_csv
from synthchex_75k import LABELS

Pack = Callable[..., tuple[int, str]]


@pytest.fixture
def generated(tmp_path: Path, images: dict[str, bytes]) -> Path:
    """Loose images in folders, as a generator writes them, beside other files."""
    to_files(tmp_path / "images", {f"{number % 3}/{name}": data for number, (name, data) in enumerate(images.items())})
    to_files(tmp_path / "images", {"log.txt": b"epoch 1", "other.csv": b"a,b\n1,2\n"})
    return tmp_path / "images"


@pytest.fixture
def prompts(tmp_path: Path, table: list[dict[str, str]]) -> Path:
    to_files(tmp_path, {"prompts.csv": to_csv(table)})
    return tmp_path / "prompts.csv"


@pytest.fixture
def pack(generated: Path, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Pack:
    """Packs; returns the exit code, and the messages."""

    def run(*options: str, images: Path = generated, metadata: Path = prompts) -> tuple[int, str]:
        code = main([str(images), str(metadata), str(tmp_path / "o"), *options])
        return code, capsys.readouterr().err

    return run


def by_name(rows: Rows) -> dict[str, dict[str, Any]]:
    return {row["filename"]: row for row in rows}


def test_output_is_a_source(pack: Pack, expected: Rows, rows_of: Callable[..., Rows], tmp_path: Path) -> None:
    assert pack("--max-shard-size", "400KB")[0] == 0
    rows = rows_of(synthchex_75k.load(str(tmp_path / "o"), streaming=True, uncertainty="keep"))
    assert by_name(rows) == by_name(expected)
    assert sorted(contents(tmp_path / "o")) == [
        MANIFEST,
        *(f"data/images-{number:05}-of-00003.zip" for number in range(3)),
        "metadata.csv",
    ]


def test_metadata_and_zips_are_as_documented(pack: Pack, images: dict[str, bytes], tmp_path: Path) -> None:
    pack("--max-shard-size", "400KB")
    with open(tmp_path / "o" / "metadata.csv", newline="", encoding="utf-8") as file:
        header, *lines = csv.reader(file)
    assert header == ["filename", "prompt", *LABELS]
    assert {value for line in lines for value in line[2:]} == {"1", "0", "-1", ""}, "raw values"
    order = []
    for path in sorted((tmp_path / "o/data").iterdir()):
        assert path.stat().st_size <= 400_000
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                assert (member.compress_type, member.date_time) == (zipfile.ZIP_STORED, (1980, 1, 1, 0, 0, 0))
                assert archive.read(member) == images[member.filename]
                order.append(member.filename)
    assert order == [line[0] for line in lines]


@pytest.mark.parametrize("options", [["--num-proc", "1"], ["--num-proc", "3"]], ids=" ".join)
def test_output_does_not_depend_on_the_number_of_processes(pack: Pack, options: list[str], tmp_path: Path) -> None:
    assert pack("--max-shard-size", "400KB", *options)[0] == 0
    first = contents(tmp_path / "o")
    (tmp_path / "o").rename(tmp_path / "before")
    assert pack("--max-shard-size", "400KB")[0] == 0
    assert contents(tmp_path / "o") == first


def test_labels_in_one_column(pack: Pack, expected: Rows, rows_of: Callable[..., Rows], tmp_path: Path) -> None:
    rows = [
        {
            "img_savename": f"/gone/{row['filename']}",
            "annotated_prompt": row["prompt"],
            "chexpert_labels": str(row["labels_dict"]),
        }
        for row in expected
    ]
    to_files(tmp_path, {"other.csv": to_csv(rows)})
    assert pack(metadata=tmp_path / "other.csv")[0] == 0
    packed = rows_of(synthchex_75k.load(str(tmp_path / "o"), streaming=True, uncertainty="keep"))
    assert by_name(packed) == by_name(expected)


# Resizing


def test_resized_images(pack: Pack, images: dict[str, bytes], tmp_path: Path) -> None:
    assert pack("--size", "64")[0] == 0
    with zipfile.ZipFile(tmp_path / "o/data/images-00000-of-00001.zip") as archive:
        for name, data in images.items():
            with PIL.Image.open(io.BytesIO(data)) as before, PIL.Image.open(archive.open(name)) as after:
                wanted = before.convert("RGB").resize((64, 64), PIL.Image.Resampling.LANCZOS)
                assert (after.format, after.mode, after.size) == ("PNG", "RGB", (64, 64))
                assert after.tobytes() == wanted.tobytes()


def test_images_of_the_wanted_size_are_copied(pack: Pack, images: dict[str, bytes], tmp_path: Path) -> None:
    assert pack("--size", "512")[0] == 0
    for path in (tmp_path / "o/data").iterdir():
        with zipfile.ZipFile(path) as archive:
            assert all(archive.read(name) == images[name] for name in archive.namelist())


@pytest.mark.parametrize(
    ("mode", "size", "message"),
    [
        ("RGBA", (64, 64), "transparency, which --size would drop; convert the image to plain sRGB first"),
        ("LA", (64, 32), "transparency, which --size would drop; convert the image to plain sRGB first"),
    ],
)
def test_images_that_resizing_would_spoil(
    pack: Pack, generated: Path, mode: str, size: tuple[int, int], message: str, tmp_path: Path
) -> None:
    path = sorted(generated.glob("2/*.png"))[0]
    PIL.Image.new(mode, size).save(path)
    code, error = pack("--size", "32")
    assert code == 1
    assert f"error: 2/{path.name}: {message}" in error
    assert not list(tmp_path.glob("o/*.csv"))
    assert not list(tmp_path.glob("o/data/*"))
    assert pack()[0] == 0, "a copy is possible"


@pytest.mark.parametrize("size", ["64", "32"])
def test_16_bits_are_scaled(size: str, pack: Pack, generated: Path, tmp_path: Path) -> None:
    for path, png in zip(sorted(generated.glob("2/*.png")), (gray_16(64), rgb_16(64))):
        path.write_bytes(png)
    assert pack("--size", size)[0] == 0
    with zipfile.ZipFile(tmp_path / "o/data/images-00000-of-00001.zip") as archive:
        for path in sorted(generated.glob("2/*.png"))[:2]:
            resized = PIL.Image.open(io.BytesIO(archive.read(path.name)))
            assert (resized.mode, resized.size, archive.read(path.name)[24]) == ("RGB", (int(size),) * 2, 8)
            reds = [*resized.getchannel("R").tobytes()]
            assert (min(reds) < 5, max(reds) > 250, 120 < sum(reds) / len(reds) < 135) == (True,) * 3, "a ramp"


def test_resized_images_are_shared_out_to_processes(
    pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Zips of few rows, although all rows fit in one; they do not depend on the number of processes."""
    monkeypatch.setattr("pipeline.source_writer.MIN_RESIZED_ROWS", 4)
    assert pack("--size", "64", "--num-proc", "1")[0] == 0
    first = contents(tmp_path / "o")
    counts = [len(zipfile.ZipFile(path).namelist()) for path in sorted((tmp_path / "o/data").iterdir())]
    assert counts == [4, 4, 4]
    (tmp_path / "o").rename(tmp_path / "before")
    assert pack("--size", "64", "--num-proc", "3")[0] == 0
    assert contents(tmp_path / "o") == first


@pytest.mark.parametrize(("rows", "zips"), [(12, 1), (32, 1), (33, 2), (600, 19), (2_048, 64), (75_649, 66)])
def test_number_of_zips_of_resized_images(rows: int, zips: int) -> None:
    plan = [synthchex_75k.Row(f"{number}.png", "a", "a", 0, None, 1_000_000) for number in range(rows)]
    assert len(cut_zips(plan, Path("data"), 10**12, 64)) == zips
    assert len(cut_zips(plan, Path("data"), 10**12, None)) == 1


# Running again


def test_a_second_run_writes_nothing(pack: Pack, tmp_path: Path) -> None:
    pack("--max-shard-size", "400KB")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "o/data").iterdir()}
    assert pack("--max-shard-size", "400KB")[0] == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "o/data").iterdir()} == before


def test_a_changed_image_changes_its_zip_only(pack: Pack, generated: Path, tmp_path: Path) -> None:
    pack("--max-shard-size", "400KB")
    before = contents(tmp_path / "o")
    path = sorted(generated.glob("2/*.png"))[-1]
    path.write_bytes(sorted(generated.glob("0/*.png"))[0].read_bytes())
    assert pack("--max-shard-size", "400KB")[0] == 0
    after = contents(tmp_path / "o")
    changed = [name for name in after if after[name] != before.get(name)]
    assert (changed[0], len(changed)) == (MANIFEST, 2)
    assert after.keys() == before.keys()


def test_changed_labels_are_updated(pack: Pack, table: list[dict[str, str]], tmp_path: Path) -> None:
    pack()
    table[3]["prompt"] = "Another one."
    to_files(tmp_path, {"prompts.csv": to_csv(table)})
    assert pack()[0] == 0
    (row,) = (row for row in synthchex_75k.plan(str(tmp_path / "o")) if row.filename == table[3]["filename"])
    assert row.prompt == "Another one."


@pytest.mark.parametrize(
    ("first", "options", "message"),
    [
        (["--size", "64"], [], "size was 64 and is now None"),
        ([], ["--size", "64"], "size was None and is now 64"),
        ([], ["--max-shard-size", "400KB"], "max_shard_size was 500000000 and is now 400000"),
        ([], ["--metadata"], "metadata was '.*/prompts.csv' and is now '.*/other.csv'"),
        ([], ["--images"], "images was '.*/images' and is now '.*/fewer'"),
    ],
    ids=["smaller before", "smaller now", "shard size", "metadata", "images"],
)
def test_another_request_needs_overwrite(
    first: list[str],
    options: list[str],
    message: str,
    pack: Pack,
    images: dict[str, bytes],
    table: list[dict[str, str]],
    tmp_path: Path,
) -> None:
    inputs: dict[str, Path] = {}
    if options == ["--metadata"]:
        to_files(tmp_path, {"other.csv": to_csv([{**row, "prompt": "Another one."} for row in table])})
        inputs, options = {"metadata": tmp_path / "other.csv"}, []
    elif options == ["--images"]:
        to_files(tmp_path / "fewer", dict([*images.items()][:3]))
        inputs, options = {"images": tmp_path / "fewer"}, ["--on-mismatch", "skip"]
    assert pack(*first)[0] == 0
    before = contents(tmp_path / "o")
    code, error = pack(*options, **inputs)
    assert (code, "pass --overwrite" in error) == (1, True)
    assert re.search(message, error)
    assert contents(tmp_path / "o") == before
    assert pack(*options, "--overwrite", **inputs)[0] == 0
    after = contents(tmp_path / "o")
    assert after != before
    (tmp_path / "o").rename(tmp_path / "overwritten")
    assert pack(*options, **inputs)[0] == 0
    assert contents(tmp_path / "o") == after


def test_a_flipped_bit_is_repaired(pack: Pack, tmp_path: Path) -> None:
    pack("--max-shard-size", "400KB")
    whole = contents(tmp_path / "o")
    path = tmp_path / "o/data/images-00001-of-00003.zip"
    path.write_bytes(path.read_bytes()[:9000] + b"!" + path.read_bytes()[9001:])
    assert pack("--max-shard-size", "400KB")[0] == 0
    assert contents(tmp_path / "o") == whole


def test_an_error_in_one_zip_keeps_the_others(pack: Pack, generated: Path, tmp_path: Path) -> None:
    options = ["--size", "64", "--max-shard-size", "400KB", "--num-proc", "1"]
    assert pack(*options)[0] == 0
    whole = contents(tmp_path / "o")
    (tmp_path / "o").rename(tmp_path / "whole")
    last = sorted(generated.rglob("*.png"))[-1]
    image = last.read_bytes()
    last.write_bytes(image[:-20] + bytes(20))
    code, error = pack(*options)
    assert (code, "error: " in error, last.name in error) == (1, True, True)
    finished = sorted(path.name for path in (tmp_path / "o/data").iterdir())
    assert 0 < len(finished) < len([name for name in whole if name.startswith("data/")])
    assert not (tmp_path / "o/metadata.csv").exists()
    last.write_bytes(image)
    assert pack(*options)[0] == 0
    assert contents(tmp_path / "o") == whole


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_continues(number: int, tmp_path: Path) -> None:
    padded(tmp_path / "big", count=40, size=1_000_000)
    with zipfile.ZipFile(tmp_path / "big/a.zip") as archive:
        archive.extractall(tmp_path / "images")
    program = [
        sys.executable,
        str(ROOT / "scripts/pack_shards.py"),
        str(tmp_path / "images"),
        str(tmp_path / "big/m.csv"),
    ]
    options = ["--max-shard-size", "2100KB", "--num-proc", "2"]
    subprocess.run([*program, str(tmp_path / "whole"), *options], check=True, capture_output=True)
    with subprocess.Popen(
        [*program, str(tmp_path / "o"), *options], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as run:
        while len(list(tmp_path.glob("o/data/*.zip"))) < 5:
            assert run.poll() is None
        run.send_signal(number)
        run.wait()
    assert run.returncode == (-number if number == signal.SIGKILL else 128 + number)
    assert not (tmp_path / "o/metadata.csv").exists()
    time.sleep(0.2)
    for path in tmp_path.glob("o/data/*.zip"):
        assert zipfile.ZipFile(path).testzip() is None
    assert number == signal.SIGKILL or not list(tmp_path.glob("o/data/.*"))
    subprocess.run([*program, str(tmp_path / "o"), *options], check=True, capture_output=True)
    assert contents(tmp_path / "o") == contents(tmp_path / "whole")


# Errors


def test_all_problems_of_the_inputs_are_listed(
    pack: Pack, generated: Path, table: list[dict[str, str]], tmp_path: Path
) -> None:
    sorted(generated.glob("1/*.png"))[0].unlink()
    table[3]["Edema"] = "7"
    to_files(tmp_path, {"prompts.csv": to_csv(table)})
    code, error = pack()
    assert code == 1
    assert "row without an image; add the image" in error
    assert f"{tmp_path}/prompts.csv line 5: 'Edema' is '7'" in error
    assert not (tmp_path / "o").exists()
    table[3]["Edema"] = "1"
    to_files(tmp_path, {"prompts.csv": to_csv(table)})
    assert pack("--on-mismatch", "skip")[0] == 0


def test_missing_inputs(pack: Pack, tmp_path: Path) -> None:
    assert pack(metadata=tmp_path / "no.csv") == (1, f"error: {tmp_path}/no.csv: no such file\n")
    (tmp_path / "prompts.txt").write_bytes(b"")
    assert pack(metadata=tmp_path / "prompts.txt") == (1, f"error: {tmp_path}/prompts.txt: rename it to *.csv\n")
    code, error = pack(images=tmp_path / "nothing")
    assert (code, "nothing: no such file or folder" in error) == (1, True)


def test_folder_without_images(pack: Pack, tmp_path: Path) -> None:
    to_files(tmp_path / "real", {"images.zip": b"", "notes.txt": b"", "._a.png": b"", "__MACOSX/b.jpg": b""})
    message = f"error: {tmp_path}/real: no image (.png, .jpg or .jpeg) at any depth\n"
    assert pack(images=tmp_path / "real") == (1, message)


def test_folder_with_other_files_is_not_touched(pack: Pack, tmp_path: Path) -> None:
    to_files(tmp_path / "o", {"notes.txt": b"mine", "data/images-00000-of-00001.zip": b"PK"})
    code, error = pack()
    assert code == 1
    assert "contains 2 files that this program did not write or that changed since then" in error
    assert "data/images-00000-of-00001.zip; notes.txt" in error
    assert len(contents(tmp_path / "o")) == 2


def test_edited_metadata_is_not_replaced(pack: Pack, tmp_path: Path) -> None:
    pack()
    metadata = tmp_path / "o/metadata.csv"
    metadata.write_bytes(metadata.read_bytes() + b"\n")
    before = contents(tmp_path / "o")
    code, error = pack("--overwrite")
    assert (code, "contains 1 file that this program did not write" in error) == (1, True)
    assert contents(tmp_path / "o") == before


def test_an_image_that_is_too_large_for_a_zip(pack: Pack) -> None:
    code, error = pack("--max-shard-size", "10KB")
    assert code == 1
    assert re.search(r"error: --max-shard-size is too small: one image \(.*\.png\) needs [\d,]+ bytes", error)


@settings(max_examples=50)
@given(prompt=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0") | st.sampled_from('\r\n",')))
def test_metadata_holds_any_prompt(prompt: str) -> None:
    row = synthchex_75k.Row("a.png", "a", "a", 0, None, 1, None, prompt, (1, 0, -1, *[None] * 11))
    header, *lines = csv.reader(io.StringIO(metadata_csv([row]).decode(), newline=""))
    assert header == ["filename", "prompt", *LABELS]
    assert lines == [["a.png", prompt, "1", "0", "-1", *[""] * 11]]


def test_help_has_the_default_of_each_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = re.sub(r"\n {10,}", " ", capsys.readouterr().out)
    options = re.findall(r"^  (--[\w-]+).*\bdefault:? (.*?)\)?$", text, re.M)
    assert [name for name, _ in options] == ["--num-proc", "--max-shard-size", "--size", "--fit", "--on-mismatch"]
    assert dict(options[1:]) == {
        "--max-shard-size": "500MB",
        "--size": "copy files byte for byte",
        "--fit": "crop",
        "--on-mismatch": "error",
    }
