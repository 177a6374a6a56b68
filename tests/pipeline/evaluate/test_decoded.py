"""Images that are decoded once for a training."""

import io
import os
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import convert, to_csv, to_zip
from pipeline.errors import StepError
from pipeline.evaluate.utility.decoded import DecodedImages
from pipeline.rows import AnyRow, plan_any
from synthchex_75k import LABELS, SourceError

Images = dict[str, PIL.Image.Image]


def drawn(count: int, first: int = 0, size: tuple[int, int] = (30, 24)) -> Images:
    """Returns images that differ, in colour."""
    random = np.random.default_rng(first)
    return {
        f"{first + number:03d}.png": PIL.Image.fromarray(random.integers(0, 256, (*size[::-1], 3), np.uint8))
        for number in range(count)
    }


def write(folder: Path, images: Images, name: str = "images") -> list[AnyRow]:
    """Writes a source, and plans it."""
    files = {}
    for filename, image in images.items():
        saved = io.BytesIO()
        image.save(saved, "PNG")
        files[filename] = saved.getvalue()
    folder.mkdir(exist_ok=True)
    to_zip(folder / f"{name}.zip", files)
    table = [{"filename": one, "prompt": one, **dict.fromkeys(LABELS, "0")} for one in images]
    (folder / "metadata.csv").write_bytes(to_csv(table))
    return plan_any(str(folder))


def expected(image: PIL.Image.Image, size: int) -> np.ndarray:
    return np.asarray(PIL.ImageOps.fit(image.convert("L"), (size, size), PIL.Image.Resampling.BICUBIC))


def read(decoded: DecodedImages, rows: list[AnyRow]) -> np.ndarray:
    return decoded.read(decoded.places(rows))


def times_of(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_images_are_read_in_any_order(tmp_path: Path) -> None:
    images = drawn(300)  # of three files
    rows = write(tmp_path / "source", images)
    decoded = DecodedImages(tmp_path / "decoded", 8, "bicubic")
    decoded.add(rows)

    @settings(max_examples=30)
    @given(st.lists(st.integers(0, 299), max_size=20))
    def check(numbers: list[int]) -> None:
        found = read(decoded, [rows[number] for number in numbers])
        assert found.shape == (len(numbers), 8, 8)
        assert all(
            np.array_equal(got, expected(images[rows[number].filename], 8)) for got, number in zip(found, numbers)
        )

    check()


def test_an_image_is_gray_and_its_middle_is_kept(tmp_path: Path) -> None:
    bars = PIL.Image.new("RGB", (40, 20), "red")  # at the sides
    bars.paste("white", (10, 0, 30, 20))
    (row,) = write(tmp_path / "source", {"a.png": bars})
    decoded = DecodedImages(tmp_path / "decoded", 10, "bilinear")
    decoded.add([row])
    found = read(decoded, [row])[0]
    assert (found[:, 1:-1] == 255).all() and (found > 200).all()


def test_no_image_is_decoded_twice(tmp_path: Path) -> None:
    rows = write(tmp_path / "source", drawn(20))
    DecodedImages(tmp_path / "decoded", 8, "bicubic").add(rows[:12])
    before = times_of(tmp_path / "decoded")
    again = DecodedImages(tmp_path / "decoded", 8, "bicubic")
    again.add(rows)
    again.add(rows[::-1])
    after = times_of(tmp_path / "decoded")
    assert before.items() <= after.items()
    (new,) = after.keys() - before.keys()
    assert new.stat().st_size < 8 * (8 * 8 + 32) + 300, "the 8 that are new"
    assert len(read(again, rows)) == 20


def test_images_of_another_size_are_others(tmp_path: Path) -> None:
    images = drawn(3)
    rows = write(tmp_path / "source", images)
    for size in (8, 9):
        decoded = DecodedImages(tmp_path / "decoded", size, "bicubic")
        decoded.add(rows)
        assert np.array_equal(read(decoded, rows)[1], expected(images["001.png"], size))


def test_an_image_that_changed_under_its_name_is_decoded_again(tmp_path: Path) -> None:
    decoded = DecodedImages(tmp_path / "decoded", 8, "bicubic")
    decoded.add(write(tmp_path / "source", drawn(3)))
    other = {name: image.rotate(180) for name, image in drawn(3).items()}
    rows = write(tmp_path / "source", other)
    decoded.add(rows)
    assert np.array_equal(read(decoded, rows)[2], expected(other["002.png"], 8))


def test_sources_of_both_kinds_are_decoded_at_once(tmp_path: Path) -> None:
    images = drawn(4), drawn(4, first=4)
    rows = write(tmp_path / "source", images[0])
    write(tmp_path / "to-convert", images[1])
    assert convert(tmp_path / "to-convert", tmp_path / "parquet") == 0
    rows += plan_any(str(tmp_path / "parquet"))
    decoded = DecodedImages(tmp_path / "decoded", 8, "bicubic")
    decoded.add(rows)
    found = {row.filename: image for row, image in zip(rows, read(decoded, rows))}
    assert all(np.array_equal(found[name], expected(image, 8)) for part in images for name, image in part.items())


def test_a_damaged_image_ends_the_run_and_others_are_kept(tmp_path: Path) -> None:
    rows = write(tmp_path / "source", drawn(130))
    archive = (tmp_path / "source" / "images.zip").read_bytes()
    damaged = archive[:-20_000] + bytes(len(archive[-20_000:-15_000])) + archive[-15_000:]
    (tmp_path / "source" / "images.zip").write_bytes(damaged)
    before = rows[0].versions[0]
    os.utime(tmp_path / "source" / "images.zip")
    rows = plan_any(str(tmp_path / "source"))
    assert rows[0].versions[0] != before
    with pytest.raises(SourceError, match=r"images\.zip.*12\d\.png"):
        DecodedImages(tmp_path / "decoded", 8, "bicubic").add(rows)


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    rows = write(tmp_path / "source", drawn(3))
    decoded = DecodedImages(tmp_path / "decoded", 8, "bicubic")
    decoded.add(rows)
    (path,) = (tmp_path / "decoded").iterdir()
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(StepError, match=rf"{path.name}: .*remove it"):
        DecodedImages(tmp_path / "decoded", 8, "bicubic").add(rows)
