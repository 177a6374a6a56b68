"""A SOURCE of JPEG files through the programs: judged, reported, filtered, converted and verified."""

import base64
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import PIL.Image
import pyarrow.parquet as pq
import pytest

import convert_to_parquet
import filter_quality
import synthchex_75k
from conftest import Rows, Source, convert, files_of, loose
from images import to_jpeg
from labelling import Label, high_quality, labeller, read
from servers.chat_server import serve


@pytest.fixture
def jpegs(images: dict[str, bytes]) -> dict[str, bytes]:
    """The fixture's images as a grey JPEG, a turned one, a progressive one, a CMYK one, and a PNG."""
    exif, found = PIL.Image.Exif(), {}
    exif[0x0112] = 6
    options: list[dict[str, Any]] = [{}, {"exif": exif.tobytes()}, {"progressive": True}, {}]
    for (name, png), mode, option in zip(images.items(), ["L", "L", "RGB", "CMYK"], options):
        image = PIL.Image.open(io.BytesIO(png)).resize((60, 40)).convert(mode)
        found[name.replace("png", "jpg")] = to_jpeg(image, **option)
    return found | dict([*images.items()][4:5])


@pytest.fixture
def folder(jpegs: dict[str, bytes], source: Source, table: list[dict[str, str]]) -> Path:
    rows = [{**row, "filename": name} for row, name in zip(table, jpegs)]
    return source(jpegs, rows, loose)


def test_parquet_holds_the_files_unchanged(folder: Path, jpegs: dict[str, bytes], tmp_path: Path) -> None:
    output = tmp_path / "parquet"
    assert convert(folder, output, "--uncertainty", "keep") == 0
    (path,) = files_of(output)
    rows = pq.read_table(path).to_pylist()
    assert {row["filename"]: row["image"]["bytes"] for row in rows} == jpegs
    assert all(row["image"]["path"] == row["filename"] for row in rows)
    dataset = datasets.load_dataset(str(output), split="train", cache_dir=str(tmp_path / "cache"))
    modes = [(image.mode, image.size) for image in dataset["image"]]
    assert modes == [("L", (60, 40)), ("L", (40, 60)), ("RGB", (60, 40)), ("CMYK", (60, 40)), ("RGB", (512, 512))]


def test_verify(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "parquet"
    assert convert(folder, output) == 0
    assert convert_to_parquet.main([str(folder), str(output), "--verify"]) == 0
    path = sorted(folder.rglob("*.jpg"))[0]
    path.write_bytes(path.read_bytes() + b"more")
    assert convert_to_parquet.main([str(folder), str(output), "--verify"]) == 1
    assert re.search(rf"{path.name}.*the image differs from byte", capsys.readouterr().out)


def test_pictures_of_the_card(folder: Path, tmp_path: Path) -> None:
    assert convert(folder, tmp_path / "parquet", "--figures") == 0
    assert PIL.Image.open(tmp_path / "parquet/figures/examples.png").width > 100


def test_a_server_gets_the_file_with_its_type(
    folder: Path, jpegs: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    label: Label = labeller(tmp_path, capsys)
    with serve(high_quality) as server:
        assert label(server.url, source=folder)[0] == 0
    assert sorted(question.image for question in server.questions) == sorted(jpegs.values())
    for question in server.questions:
        kind = "jpeg" if question.image.startswith(b"\xff\xd8") else "png"
        url = question.request["messages"][0]["content"][0]["image_url"]["url"]
        assert url == f"data:image/{kind};base64,{base64.b64encode(question.image).decode()}"


def test_a_callable_gets_upright_rgb_images(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_of: Callable[..., Rows]
) -> None:
    seen: list[PIL.Image.Image] = []

    def judge(images: list[PIL.Image.Image], questions: list[str]) -> list[str]:
        seen.extend(images)
        return ["High Quality", "Low Quality"] * (len(images) // 2) + ["High Quality"] * (len(images) % 2)

    monkeypatch.setattr(synthchex_75k, "judge", judge, raising=False)
    labels = str(tmp_path / "labels.csv")
    command = ["label", str(folder), labels, "--model", "mine", "--callable", "synthchex_75k:judge"]
    assert filter_quality.main([*command, "--batch-size", "5"]) == 0
    assert [(image.mode, image.size) for image in seen] == [
        *(("RGB", size) for size in [(60, 40), (40, 60), (60, 40), (60, 40), (512, 512)])
    ]
    assert filter_quality.main(["report", str(folder), labels, "--html", str(tmp_path / "r.html")]) == 0
    assert (tmp_path / "r.html").read_text().count("data:image/jpeg;base64,") == 5
    kept = {row["filename"] for row in read(tmp_path) if row["quality"] == "High Quality"}
    assert filter_quality.main(["apply", str(folder), labels, str(tmp_path / "kept")]) == 0
    before, after = (
        {row["filename"]: row["image"] for row in rows_of(synthchex_75k.load(path, streaming=True))}
        for path in (folder, tmp_path / "kept")
    )
    assert len(kept) == 3
    assert after == {name: before[name] for name in kept}
