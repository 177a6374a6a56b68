"""Packing a generator's output, in the main process and in workers."""

import csv
import hashlib
import io
import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import PIL.ImageChops
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import synthchex_75k
from conftest import ROOT, Rows, contents, padded, to_csv, to_files
from images import RGB, chunk, gray_16, rgb_16, to_jpeg, to_png
from pack_shards import main
from pipeline.folder import MANIFEST
from pipeline.source_writer import ImageShard, cut_zips, metadata_csv, resize
from processes import held
from synthchex_75k import LABELS, Row

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
        "provenance.json",
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


# Provenance


def step_of(folder: Path) -> dict[str, Any]:
    """Returns the last step of a source."""
    steps = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))["steps"]
    return dict(steps[-1])


def test_the_step_has_what_was_done(pack: Pack, generated: Path, tmp_path: Path) -> None:
    assert pack()[0] == 0
    step = {"step": "pack", "program": "pack_shards.py", "version": "1.0.0", "images": 12}
    assert step_of(tmp_path / "o") == step
    (generated / "more.png").write_bytes(sorted(generated.glob("0/*.png"))[0].read_bytes())
    assert pack("--on-mismatch", "skip", "--size", "32", "--overwrite")[0] == 0
    assert step_of(tmp_path / "o") == {**step, "size": [32, 32], "fit": "crop", "left_out": 1}


@pytest.mark.parametrize("name", ["dataset.json", "provenance.json"])
def test_what_images_and_csv_state_is_copied(name: str, pack: Pack, generated: Path, tmp_path: Path) -> None:
    first, second = {
        "dataset.json": (b'{"name": "Mine"}', b'{"name": "Yours"}'),
        "provenance.json": (b'{"steps": [{"step": "generate"}]}', b'{"steps": [{"step": "draw"}]}'),
    }[name]

    def is_copied(content: bytes) -> bool:
        found, wanted = json.loads((tmp_path / "o" / name).read_bytes()), json.loads(content)
        return bool(found == wanted if name == "dataset.json" else found["steps"][:-1] == wanted["steps"])

    to_files(generated, {name: first})
    assert pack()[0] == 0 and is_copied(first)
    to_files(tmp_path, {name: second})
    assert pack() == (1, f"error: {generated}/{name} and {tmp_path}/{name} differ; remove one of them\n")
    (generated / name).unlink()
    assert pack()[0] == 0 and is_copied(second), "the request is the same, so that it takes no --overwrite"
    (tmp_path / name).unlink()
    assert pack()[0] == 0
    assert (tmp_path / "o" / name).exists() == (name == "provenance.json")


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


def saved(mode: str, size: tuple[int, int], **options: Any) -> bytes:
    """Returns a PNG file, saved with Pillow's options."""
    file = io.BytesIO()
    PIL.Image.new(mode, size).save(file, "PNG", **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("image", "lost"),
    [
        (saved("RGBA", (64, 64)), "transparency"),
        (saved("LA", (64, 32)), "transparency"),
        (saved("RGB", (64, 64), save_all=True, append_images=[PIL.Image.new("RGB", (64, 64), "red")]), "an animation"),
        (to_png((1, 1), RGB, 8, bytes(3), chunk(b"gAMA", struct.pack(">I", 100_000))), "a colour space other than"),
    ],
    ids=["RGBA", "LA", "animation", "gamma"],
)
def test_images_that_resizing_would_spoil(pack: Pack, generated: Path, image: bytes, lost: str, tmp_path: Path) -> None:
    path = sorted(generated.glob("2/*.png"))[0]
    path.write_bytes(image)
    code, error = pack("--size", "32")
    assert code == 1
    wanted = rf"error: 2/{path.name}: {lost}.*, which --size would drop; convert the image to plain sRGB first\n"
    assert re.search(wanted, error)
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


SQUARE = Row("a.png", "a.png", "a.png", 0, None, 9)


@pytest.mark.parametrize(("fit", "more"), [("crop", ()), ("pad", ("pad",)), ("stretch", ("stretch",))])
def test_folders_from_before_fit_are_still_valid(fit: str, more: tuple[str, ...]) -> None:
    """They have square images alone, which the default does not change."""
    wanted = hashlib.sha256(b"images.zip 1" + repr(("resize 2", 64, PIL.__version__, *more)).encode())
    wanted.update(repr(("a.png", 9, 7)).encode())
    assert ImageShard(Path("a.zip"), [SQUARE], 64, fit).fingerprint([7]) == wanted.hexdigest()


# A real test set: JPEGs of any proportion in the folders of MIMIC-CXR-JPG, of which a CSV names a few


REPORT = "A long made-up report."


@pytest.fixture
def mimic(tmp_path: Path) -> Path:
    folder = tmp_path / "mimic"
    for number in range(9):
        size = (60, 50) if number % 2 else (50, 60)
        to_files(folder, {f"files/p1{number % 3}/p1{number}/s5/{number}.jpg": to_jpeg(ramp(size))})
    to_files(folder, {"index.html": b"<html>", "mimic-cxr-2.0.0-split.csv.gz": b"\x1f\x8b", "SHA256SUMS.txt": b"0"})
    return folder


@pytest.fixture
def named(tmp_path: Path) -> Path:
    """As the authors of the benchmark write it: with other columns, and the name of a row without an image."""
    names = ["/gone/8.jpg", "files/p10/p10/s5/0.jpg", "3.jpg", "5.jpg", "99.jpg"]
    rows = [
        {"id": str(n), "path": name, "report": REPORT, "chexpert_labels": repr(dict.fromkeys(LABELS)), "view": "PA"}
        | {"annotated_prompt": f"Picture {n}."}
        for n, name in enumerate(names)
    ]
    to_files(tmp_path, {"test.csv": to_csv(rows)})
    return tmp_path / "test.csv"


def ramp(size: tuple[int, int], mode: str = "L") -> PIL.Image.Image:
    """Returns an image that is brighter to the right and darker to the end."""
    values = bytes(70 + x * 3 - y for y in range(size[1]) for x in range(size[0]))
    return PIL.Image.frombytes("L", size, values).convert(mode)


def members(folder: Path) -> dict[str, bytes]:
    found = {}
    for path in sorted((folder / "data").iterdir()):
        with zipfile.ZipFile(path) as archive:
            found.update({name: archive.read(name) for name in archive.namelist()})
    return found


def test_real_radiographs_are_packed(
    pack: Pack, mimic: Path, named: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert pack("--on-mismatch", "skip", images=mimic, metadata=named)[0] == 0
    assert "left out 5 images without a row, 1 rows without an image" in caplog.text
    originals = {path.name: path.read_bytes() for path in mimic.rglob("*.jpg")}
    names = ["0.jpg", "3.jpg", "5.jpg", "8.jpg"]
    assert members(tmp_path / "o") == {name: originals[name] for name in names}
    rows = [*synthchex_75k.load(tmp_path / "o", streaming=True)]
    assert [(row["filename"], row["prompt"]) for row in rows] == [
        *(("0.jpg", "Picture 1."), ("3.jpg", "Picture 2."), ("5.jpg", "Picture 3."), ("8.jpg", "Picture 0."))
    ]
    assert not any(REPORT.encode() in content for content in contents(tmp_path / "o").values())


def metadata_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "metadata.csv", newline="", encoding="utf-8") as file:
        return [*csv.DictReader(file)]


def test_further_columns_are_written_only_by_name(
    pack: Pack, mimic: Path, named: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    skip = ("--on-mismatch", "skip")
    assert pack(*skip, "--columns", "view,id", images=mimic, metadata=named)[0] == 0
    found = metadata_of(tmp_path / "o")
    assert [*found[0]] == ["filename", "prompt", *LABELS, "view", "id"]
    assert [(row["filename"], row["id"], row["view"]) for row in found] == [
        *(("0.jpg", "1", "PA"), ("3.jpg", "2", "PA"), ("5.jpg", "3", "PA"), ("8.jpg", "0", "PA"))
    ]
    assert not any(REPORT.encode() in content for content in contents(tmp_path / "o").values())
    code, error = pack(*skip, images=mimic, metadata=named)
    assert (code, "columns was ['view', 'id'] and is now None" in error) == (1, True)
    assert pack(*skip, "--overwrite", "--columns", "all", images=mimic, metadata=named)[0] == 0
    assert metadata_of(tmp_path / "o")[0]["report"] == REPORT
    code, error = pack(*skip, "--overwrite", "--columns", "age", images=mimic, metadata=named)
    assert (code, "no column age, or it is there twice; it has id, report, view" in error) == (1, True)


@pytest.mark.parametrize(
    ("fit", "line"),
    [
        ("crop", "cropped; of their pixels 16.7% were cut off on average"),
        ("pad", "padded; black bars are 16.7% of their pixels on average"),
        ("stretch", "stretched; their longer side shrank by 16.7% more than the other on average"),
    ],
)
def test_real_radiographs_become_square_pngs(
    fit: str, line: str, mimic: Path, named: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [str(mimic), str(named), str(tmp_path / "o"), "--size", "30", "--on-mismatch", "skip", "--fit", fit]
    for _ in range(2):
        assert main(command) == 0
        assert f"4 of 4 images were not square and were {line}\n" in capsys.readouterr().out
    for name, png in members(tmp_path / "o").items():
        before = PIL.Image.open(next(mimic.rglob(name.replace("png", "jpg")))).convert("RGB")
        if fit == "crop":  # the shorter side, 50 pixels, becomes 30, and the other 36
            whole = before.resize((36, 30) if before.width == 60 else (30, 36), PIL.Image.Resampling.LANCZOS)
            wanted = whole.crop((3, 0, 33, 30) if before.width == 60 else (0, 3, 30, 33))
        elif fit == "pad":  # the longer side becomes 30, and the other 25
            wanted = PIL.Image.new("RGB", (30, 30), "black")
            scaled = before.resize((30, 25) if before.width == 60 else (25, 30), PIL.Image.Resampling.LANCZOS)
            wanted.paste(scaled, (0, 2) if before.width == 60 else (2, 0))
        else:
            wanted = before.resize((30, 30), PIL.Image.Resampling.LANCZOS)
        after = PIL.Image.open(io.BytesIO(png))
        assert (after.format, after.mode, after.size, after.tobytes()) == ("PNG", "RGB", (30, 30), wanted.tobytes())
    names = [f"{n}.png" for n in (0, 3, 5, 8)]
    assert [*members(tmp_path / "o")] == names
    assert [row["filename"] for row in synthchex_75k.load(tmp_path / "o", streaming=True)] == names


def test_another_fit_needs_overwrite(pack: Pack, mimic: Path, named: Path, tmp_path: Path) -> None:
    options = ["--size", "30", "--on-mismatch", "skip"]
    assert pack(*options, images=mimic, metadata=named)[0] == 0
    first = contents(tmp_path / "o")
    assert pack(*options, "--fit", "crop", images=mimic, metadata=named)[0] == 0
    assert contents(tmp_path / "o") == first, "the default"
    code, error = pack(*options, "--fit", "pad", images=mimic, metadata=named)
    assert (code, "fit was None and is now 'pad'" in error) == (1, True)
    assert pack(*options, "--fit", "pad", "--overwrite", images=mimic, metadata=named)[0] == 0
    assert contents(tmp_path / "o") != first


def test_fit_without_size(pack: Pack, tmp_path: Path) -> None:
    assert pack("--fit", "crop") == (1, "error: --fit is for images that --size resizes; pass both\n")
    assert not (tmp_path / "o").exists()


def test_images_without_a_row_are_not_looked_at(pack: Pack, mimic: Path, named: Path, tmp_path: Path) -> None:
    os.mkfifo(mimic / "files" / "pipe.jpg")
    (mimic / "files" / "gone.png").symlink_to(tmp_path / "gone")
    (mimic / "files" / "empty.png").touch()
    assert pack("--on-mismatch", "skip", images=mimic, metadata=named)[0] == 0
    code, error = pack("--overwrite", images=mimic, metadata=named)
    assert code == 1
    assert "image without a row; add the row" in error
    assert "(8 in all): files/empty.png; files/gone.png; files/p10/p16/s5/6.jpg; " in error
    (mimic / "files/p10/p10/s5/0.jpg").unlink()
    os.mkfifo(mimic / "files/p10/p10/s5/0.jpg")
    code, error = pack("--on-mismatch", "skip", images=mimic, metadata=named)
    assert (code, "not a regular file but a pipe" in error, "0.jpg" in error) == (1, True, True)


def test_a_folder_that_cannot_be_listed_is_an_error(
    pack: Pack, mimic: Path, named: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def denied(path: Any) -> Any:
        if str(path).endswith("p11/"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)  # the tests may run as root
    code, error = pack("--on-mismatch", "skip", images=mimic, metadata=named)
    assert (code, f"Permission denied: '{mimic}/files/p11/'" in error) == (1, True)


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (["a.jpg", "a.png"], "a.jpg and b/a.png a.png"),
        (["a.JPG", "a.jpg"], "a.JPG and b/a.jpg a.png"),
        (["a.jpeg", "A.jpg"], "a.jpeg and b/A.jpg A.png"),
        (["A.png", "a.jpg"], "A.png and b/a.jpg a.png"),
        (["A.png", "a.png"], None),
        (["a.b.jpg", "a.jpg"], None),
    ],
)
def test_images_that_would_get_one_name(
    names: list[str], problem: str | None, pack: Pack, table: list[dict[str, str]], tmp_path: Path
) -> None:
    for name, folder in zip(names, ["", "b/"]):
        saved = io.BytesIO()
        ramp((9, 9)).save(saved, "PNG" if name.endswith("png") else "JPEG")
        to_files(tmp_path / "two", {folder + name: saved.getvalue()})
    rows = [{**row, "filename": name} for row, name in zip(table, names)]
    to_files(tmp_path, {"two.csv": to_csv(rows)})
    inputs = {"images": tmp_path / "two", "metadata": tmp_path / "two.csv"}
    code, error = pack("--size", "8", **inputs)
    assert code == (problem is not None)
    if problem:
        assert error == f"error: --size would name {problem}; rename one, in the CSV too\n"
        assert not list(tmp_path.glob("o/*"))
    assert pack("--overwrite", **inputs)[0] == 0, "a copy keeps the names"


@pytest.mark.parametrize(
    ("mode", "lost"), [("L", None), ("RGB", None), ("CMYK", "a colour space other than sRGB (CMYK, a profile, gAMA")]
)
def test_modes_of_jpegs(mode: str, lost: str | None) -> None:
    jpeg = to_jpeg(ramp((40, 40), mode))
    if lost:
        with pytest.raises(synthchex_75k.SourceError, match=re.escape(f"a.jpg: {lost}")):
            resize(jpeg, 20, "a.jpg")
        return
    png, share = resize(jpeg, 40, "a.jpg")
    assert share == 0
    assert PIL.Image.open(io.BytesIO(png)).tobytes() == PIL.Image.open(io.BytesIO(jpeg)).convert("RGB").tobytes()


def test_texts_in_a_file_are_not_copied() -> None:
    exif = PIL.Image.Exif()
    exif[0x010E] = "a made-up name"
    png, _ = resize(to_jpeg(ramp((40, 40)), exif=exif.tobytes(), comment=b"a made-up name"), 20, "a.jpg")
    assert b"made-up" not in png
    assert not PIL.Image.open(io.BytesIO(png)).getexif()


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_resized_images_stand_upright(kind: str) -> None:
    exif, saved, upright = PIL.Image.Exif(), io.BytesIO(), ramp((40, 30), "RGB")
    exif[0x0112] = 6  # turn it by 90 degrees to the right to see it
    upright.transpose(PIL.Image.Transpose.ROTATE_90).save(saved, kind, exif=exif.tobytes())
    png, share = resize(saved.getvalue(), 20, "a", "pad")
    shown = PIL.Image.open(io.BytesIO(png))
    assert share == 0.25
    assert shown.getexif().get(0x0112) is None
    assert shown.getbbox() == (0, 2, 20, 17)
    extrema: Any = PIL.ImageChops.difference(shown.crop((0, 2, 20, 17)), upright.resize((20, 15), 1)).getextrema()
    assert max(high for _, high in extrema) <= 6


@pytest.mark.parametrize("size", [(20_000, 1), (1, 20_000), (300, 2)])
@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_extreme_proportions(size: tuple[int, int], fit: str) -> None:
    png, share = resize(to_jpeg(PIL.Image.new("L", size, 255)), 16, "a.jpg", fit)
    assert PIL.Image.open(io.BytesIO(png)).size == (16, 16)
    assert 0.99 < share < 1


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
    interrupted = held([*program, str(tmp_path / "o"), *options], "-00019-of-00020", tmp_path / "never")
    with subprocess.Popen(interrupted, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as run:
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


@pytest.mark.slow
@pytest.mark.parametrize("options", [["--max-shard-size", "2100KB"], ["--size", "64"]], ids=["copied", "resized"])
def test_images_that_are_replaced_during_the_run(options: list[str], tmp_path: Path) -> None:
    padded(tmp_path / "big", count=60, size=1_000_000)
    with zipfile.ZipFile(tmp_path / "big/a.zip") as archive:
        archive.extractall(tmp_path / "images")
    arguments = [str(tmp_path / "images"), str(tmp_path / "big/m.csv"), str(tmp_path / "o"), "--num-proc", "1"]
    program = [sys.executable, str(ROOT / "scripts/pack_shards.py"), *arguments, *options]
    *_, one, other = sorted((tmp_path / "images").rglob("*.png"))
    pipes: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(held(program, one.name, tmp_path / "proceed"), **pipes) as run:
        while not list(tmp_path.glob("o/data/*")) and not list(tmp_path.glob("o/data/.*")):
            assert run.poll() is None
        before = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(before)
        (tmp_path / "proceed").touch()
        assert run.stderr
        error = run.stderr.read()
    assert run.returncode == 1
    assert re.fullmatch(rf"error: {tmp_path}/images/.*\.png: it changed while it was read; start again\n", error)
    assert not (tmp_path / "o/metadata.csv").exists()


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--size", "64"]], ids=["copied", "resized"])
def test_too_few_open_files_are_one_line(options: list[str], generated: Path, prompts: Path, tmp_path: Path) -> None:
    inputs = [str(generated), str(prompts), str(tmp_path / "o"), "--num-proc", "4"]
    program = [sys.executable, str(ROOT / "scripts/pack_shards.py"), *inputs, *options]
    for limit in (10, 16, 20):
        command = ["bash", "-c", f'ulimit -n {limit}; exec "$@"', "bash", *program]
        run = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert run.returncode == 1
        assert re.fullmatch(r"error: .*Too many open files.*\. Raise the limit .*ulimit -n.*\n", run.stderr)
    subprocess.run(program, check=True, capture_output=True)


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0, 0.003, 0.03])
def test_a_second_ctrl_c_leaves_nothing_half_written(delay: float, tmp_path: Path) -> None:
    padded(tmp_path / "big", count=40, size=1_000_000)
    with zipfile.ZipFile(tmp_path / "big/a.zip") as archive:
        archive.extractall(tmp_path / "images")
    arguments = [str(tmp_path / "images"), str(tmp_path / "big/m.csv"), str(tmp_path / "o"), "--num-proc", "2"]
    program = [sys.executable, str(ROOT / "scripts/pack_shards.py"), *arguments, "--max-shard-size", "2100KB"]
    program = held(program, "-00019-of-00020", tmp_path / "never")
    with subprocess.Popen(program, stderr=subprocess.PIPE, text=True, start_new_session=True) as run:
        while len(list(tmp_path.glob("o/data/*.zip"))) < 3:
            assert run.poll() is None
        os.killpg(run.pid, signal.SIGINT)
        time.sleep(delay)
        os.killpg(run.pid, signal.SIGINT)
        assert run.stderr
        error = run.stderr.read()
    interrupted = "\ninterrupted. Finished files are kept: run the same command again to continue.\n"
    assert (run.returncode, error) == (130, interrupted)
    assert not list(tmp_path.glob("o/data/.*"))


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


def test_pipes_and_links_to_devices_are_named(pack: Pack, generated: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    assert pack(metadata=tmp_path / "pipe.csv") == (1, f"error: {tmp_path}/pipe.csv: not a regular file\n")
    one, other, broken, *_ = sorted(path.relative_to(generated) for path in generated.rglob("*.png"))
    for path in (one, other, broken):
        (generated / path).unlink()
    os.mkfifo(generated / one)
    (generated / other).symlink_to("/dev/zero")
    (generated / broken).symlink_to("nowhere")
    code, error = pack()
    assert code == 1
    assert re.search(rf"- not a regular file .*; remove it \(2 in all\): {one}; {other} -> /dev/zero\n", error)
    assert re.search(rf"- link to a file that does not exist; .*: {broken} -> nowhere\n", error)


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
