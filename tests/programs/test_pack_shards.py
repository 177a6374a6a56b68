"""Packing a generator's output."""

import csv
import io
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

import synthchex_75k
from conftest import ROOT, Rows, contents, padded, to_csv, to_files
from pack_shards import main
from synthchex_75k import LABELS

Pack = Callable[..., tuple[int, str]]


@pytest.fixture
def generated(tmp_path: Path, images: dict[str, bytes]) -> Path:
    """Loose images in folders, as a generator leaves them, beside what is no image."""
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


def test_it_is_a_source(pack: Pack, expected: Rows, rows_of: Callable[..., Rows], tmp_path: Path) -> None:
    assert pack("--max-shard-size", "400KB")[0] == 0
    rows = rows_of(synthchex_75k.load(str(tmp_path / "o"), streaming=True, uncertainty="keep"))
    assert by_name(rows) == by_name(expected)
    assert sorted(contents(tmp_path / "o")) == [
        *(f"data/images-{number:05}-of-00003.zip" for number in range(3)),
        "metadata.csv",
    ]


def test_the_files_are_those_of_the_contract(pack: Pack, images: dict[str, bytes], tmp_path: Path) -> None:
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
def test_it_is_deterministic(pack: Pack, options: list[str], tmp_path: Path) -> None:
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


def test_images_of_that_size_stay_as_they_are(pack: Pack, images: dict[str, bytes], tmp_path: Path) -> None:
    assert pack("--size", "512")[0] == 0
    for path in (tmp_path / "o/data").iterdir():
        with zipfile.ZipFile(path) as archive:
            assert all(archive.read(name) == images[name] for name in archive.namelist())


@pytest.mark.parametrize(
    ("mode", "size", "message"),
    [
        ("RGB", (64, 32), "64x32 pixels, not square; --size would distort it"),
        ("RGBA", (64, 64), "mode RGBA; --size takes 8-bit gray, palette and RGB"),
        ("I;16", (64, 64), "mode I;16; --size takes 8-bit gray, palette and RGB"),
    ],
)
def test_what_resizing_would_lose(
    pack: Pack, generated: Path, mode: str, size: tuple[int, int], message: str, tmp_path: Path
) -> None:
    path = sorted(generated.glob("2/*.png"))[0]
    PIL.Image.new(mode, size).save(path)
    code, error = pack("--size", "32")
    assert code == 1
    assert f"error: 2/{path.name}: {message}" in error
    assert not list(tmp_path.glob("o/*.csv"))
    assert not list(tmp_path.glob("o/data/*"))
    assert pack()[0] == 0, "as it is, it is packed"


# Going on


def test_nothing_is_written_twice(pack: Pack, tmp_path: Path) -> None:
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
    assert len(changed) == 1
    assert after.keys() == before.keys()


def test_other_sizes_replace_what_was_there(pack: Pack, tmp_path: Path) -> None:
    pack("--max-shard-size", "400KB")
    assert pack()[0] == 0
    assert sorted(contents(tmp_path / "o")) == ["data/images-00000-of-00001.zip", "metadata.csv"]


def test_a_flipped_bit_is_mended(pack: Pack, tmp_path: Path) -> None:
    pack("--max-shard-size", "400KB")
    whole = contents(tmp_path / "o")
    path = tmp_path / "o/data/images-00001-of-00003.zip"
    path.write_bytes(path.read_bytes()[:9000] + b"!" + path.read_bytes()[9001:])
    assert pack("--max-shard-size", "400KB")[0] == 0
    assert contents(tmp_path / "o") == whole


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_goes_on(number: int, tmp_path: Path) -> None:
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


# What it refuses


def test_the_errors_are_those_of_a_source(pack: Pack, generated: Path, table: Rows, tmp_path: Path) -> None:
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


def test_what_is_not_there(pack: Pack, tmp_path: Path) -> None:
    assert pack(metadata=tmp_path / "no.csv") == (1, f"error: {tmp_path}/no.csv: no such file\n")
    code, error = pack(images=tmp_path / "nothing")
    assert (code, "nothing: no such file or folder" in error) == (1, True)


def test_a_folder_with_other_things(pack: Pack, tmp_path: Path) -> None:
    to_files(tmp_path / "o", {"notes.txt": b"mine", "data/images-00000-of-00001.zip": b"PK"})
    code, error = pack()
    assert code == 1
    assert "(2 in all): data/images-00000-of-00001.zip; notes.txt" in error
    assert len(contents(tmp_path / "o")) == 2


def test_other_labels_are_not_written_over(pack: Pack, table: Rows, tmp_path: Path) -> None:
    pack()
    before = contents(tmp_path / "o")
    table[3]["prompt"] = "Another one."
    to_files(tmp_path, {"prompts.csv": to_csv(table)})
    code, error = pack()
    assert code == 1
    assert (
        "or what is of other images and labels; move it away, or name another folder (1 in all): metadata.csv" in error
    )
    assert contents(tmp_path / "o") == before


def test_an_image_that_is_too_large_for_a_zip(pack: Pack) -> None:
    code, error = pack("--max-shard-size", "10KB")
    assert code == 1
    assert "error: --max-shard-size: " in error
    assert "alone may take" in error


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "--size PIXELS" in capsys.readouterr().out
