"""JPEG files in a source: whole ones are passed on as they are, others are errors."""

import io
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import synthchex_75k
from conftest import SHAPES, Rows, Source, Write, error_of, loose, plan, to_csv, to_files, to_tar, to_zip
from images import to_jpeg
from synthchex_75k import LABELS, SourceError, dimensions, load

FRAME, SCAN, END = 0xC0, 0xDA, 0xD9


def segment(kind: int, data: bytes = b"") -> bytes:
    return struct.pack(">BBH", 0xFF, kind, len(data) + 2) + data


def frame(width: int = 3, height: int = 2, kind: int = FRAME, bits: int = 8) -> bytes:
    return segment(kind, struct.pack(">BHHB", bits, height, width, 1) + b"\1\x11\0")


def headers(jpeg: bytes) -> list[int]:
    """Returns the places of the markers up to the first scan's, by their lengths alone."""
    places = [2]
    while jpeg[places[-1] + 1] != SCAN:
        places.append(places[-1] + 2 + struct.unpack_from(">H", jpeg, places[-1] + 2)[0])
    return places


@st.composite
def jpegs(draw: st.DrawFn, side: int = 24, fill: tuple[int, ...] = (0, 0, 1, 5)) -> tuple[tuple[int, int], bytes]:
    """A size, and a JPEG of noise as cameras, scanners and programs write them, with fill bytes before markers."""
    size = draw(st.tuples(st.integers(1, side), st.integers(1, side)))
    mode = draw(st.sampled_from(["L", "RGB", "CMYK"]))
    pixels = random.Random(draw(st.integers(0, 99))).randbytes(size[0] * size[1] * len(mode))
    options: dict[str, Any] = draw(
        st.fixed_dictionaries(
            {"quality": st.integers(1, 95), "progressive": st.booleans(), "optimize": st.booleans()},
            optional={
                "restart_marker_blocks": st.integers(1, 3),
                "comment": st.binary(max_size=20),
                "subsampling": st.integers(0, 2),
                "icc_profile": st.binary(min_size=1, max_size=70_000),
            },
        )
    )
    if draw(st.booleans()):
        exif = PIL.Image.Exif()
        exif[0x0112] = draw(st.integers(1, 8))
        options["exif"] = exif.tobytes() + to_jpeg(PIL.Image.new("L", (4, 4)))  # a thumbnail
    jpeg = to_jpeg(PIL.Image.frombytes(mode, size, pixels), **options)
    for place in reversed(headers(jpeg)):
        jpeg = jpeg[:place] + b"\xff" * draw(st.sampled_from(fill)) + jpeg[place:]
    return size, jpeg


# Whole files


@settings(max_examples=100)
@given(drawn=jpegs(), more=st.binary(max_size=9))
def test_whole_files_are_passed_on_as_they_are(
    drawn: tuple[tuple[int, int], bytes], more: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    size, jpeg = drawn
    folder = tmp_path_factory.mktemp("source")
    files = {"a.jpg": jpeg, "b.JPEG": jpeg + more}
    shapes: dict[str, Callable[..., None]] = {"loose": to_files, "zip/x.zip": to_zip, "tar/x.tar": to_tar}
    for place, write in shapes.items():
        write(folder / place, files)
        rows = [{"filename": name, "prompt": "Round.", **dict.fromkeys(LABELS, "")} for name in files]
        to_files(folder / place.split("/")[0], {"m.csv": to_csv(rows)})
        read = [*synthchex_75k.examples(plan(folder / place.split("/")[0]))]
        assert {row["filename"]: row["image"]["bytes"] for row in read} == files
    assert dimensions(jpeg) == dimensions(jpeg + more) == size


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_source_holds_them(
    shape: Write, source: Source, expected: Rows, rows_of: Callable[..., Rows], tmp_path: Path
) -> None:
    """Half of the images as JPEGs; the order is by place, whatever the kind."""
    wanted = []
    for number, row in enumerate(expected):
        if number % 2:
            image = to_jpeg(PIL.Image.open(io.BytesIO(row["image"])), progressive=number % 4 == 1)
            row = {**row, "image": image, "filename": f"{row['filename'][:-4]}.{'jpg' if number % 3 else 'JPEG'}"}
        wanted.append(row)
    table = [
        {"path": f"files/p10/{row['filename']}", "prompt": row["prompt"], "labels_dict": str(row["labels_dict"])}
        for row in wanted
    ]
    folder = source({row["filename"]: row["image"] for row in wanted}, table, shape)
    assert rows_of(load(folder, uncertainty="keep", streaming=True)) == wanted
    dataset = load(folder, uncertainty="keep", cache_dir=tmp_path / "cache")
    assert rows_of(dataset) == wanted
    assert [image.format for image in dataset["image"]] == ["PNG", "JPEG"] * 6


KINDS = [0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF]


@pytest.mark.parametrize("kind", KINDS, ids=hex)
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_every_kind_of_frame_is_read(kind: int, bits: int) -> None:
    tables = segment(0xC4, b"\0") + segment(0xCC, b"\1\2")
    scan = segment(SCAN, b"\1") + b"\x12\xff\0\xff\xd0\x34\xff\xff\xd7\xff\0"
    assert dimensions(b"\xff\xd8" + tables + frame(300, 70, kind, bits) + scan * 2 + b"\xff\xff\xd9") == (300, 70)


# Files that are not whole


@settings(max_examples=30)
@given(drawn=jpegs(side=9))
def test_every_prefix_is_refused(drawn: tuple[tuple[int, int], bytes]) -> None:
    jpeg = drawn[1]
    for length in range(len(jpeg) - 1, -1, -max(1, len(jpeg) // 2000)):
        with pytest.raises(ValueError, match="not a whole PNG or JPEG file"):
            dimensions(jpeg[:length])


@settings(max_examples=200)
@given(drawn=jpegs(side=9, fill=(0,)), data=st.data())
def test_lengths_that_lie_are_refused(drawn: tuple[tuple[int, int], bytes], data: st.DataObject) -> None:
    jpeg = bytearray(drawn[1])
    place = data.draw(st.sampled_from(headers(bytes(jpeg))[:-1]))
    length = data.draw(st.integers(0, 100) | st.integers(0, 0xFFFF))
    assume(length != struct.unpack_from(">H", jpeg, place + 2)[0])
    assume(length < 2 or jpeg[place + 2 + length : place + 3 + length] != b"\xff")  # another marker is not found out
    struct.pack_into(">H", jpeg, place + 2, length)
    with pytest.raises(ValueError, match="not a whole"):
        dimensions(bytes(jpeg))


JUNK = st.binary(min_size=1, max_size=9).filter(lambda junk: junk.strip(b"\xff"))


@settings(max_examples=100)
@given(drawn=jpegs(side=9, fill=(0,)), junk=JUNK, data=st.data())
def test_bytes_between_segments_are_refused(
    drawn: tuple[tuple[int, int], bytes], junk: bytes, data: st.DataObject
) -> None:
    jpeg = drawn[1]
    place = data.draw(st.sampled_from(headers(jpeg)))
    with pytest.raises(ValueError, match="not a whole"):
        dimensions(jpeg[:place] + junk + jpeg[place:])


WHOLE = b"\xff\xd8" + frame() + segment(SCAN, b"\1") + b"\x12\xff\xd9"


NOT_WHOLE = {
    "start": b"\xff\xd8\xff",
    "nothing": b"\xff\xd8\xff\xd9",
    "no frame": b"\xff\xd8" + segment(0xE0) + b"\xff\xd9",
    "tables": b"\xff\xd8" + segment(0xC4, b"12345678") + b"\xff\xd9",
    "two frames": b"\xff\xd8" + frame() * 2 + WHOLE[-8:],
    "two starts": b"\xff\xd8" + WHOLE,
    "another image": WHOLE[:-2] + WHOLE,
    "reserved marker": WHOLE[:-2] + b"\xff\x01\0\2" + WHOLE[-2:],
    "many segments": b"\xff\xd8" + segment(0xE0) * 2048 + WHOLE[2:],
    "shifted": b"\n" + WHOLE,
}


@pytest.mark.parametrize("jpeg", NOT_WHOLE.values(), ids=NOT_WHOLE)
def test_what_is_no_jpeg_is_refused(jpeg: bytes) -> None:
    assert dimensions(WHOLE) == (3, 2)
    with pytest.raises(ValueError, match="not a whole"):
        dimensions(jpeg)


@pytest.mark.parametrize("shape", SHAPES)
def test_one_that_is_cut_off_stops_the_run(
    shape: Write, source: Source, images: dict[str, bytes], table: Rows, tmp_path: Path
) -> None:
    name = "real.jpg"
    table[3]["filename"] = name
    files = {name if number == 3 else key: data for number, (key, data) in enumerate(images.items())}
    files[name] = to_jpeg(PIL.Image.new("L", (50, 60)))[:-2]
    with pytest.raises(SourceError, match=rf"{name}: not a whole JPEG file; generate or copy it again"):
        load(source(files, table, shape), cache_dir=tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.arrow"))


@pytest.mark.parametrize(("name", "content", "suffix"), [("a.png", "JPEG", "PNG"), ("a.jpg", "PNG", "JPEG")])
def test_a_wrong_suffix_is_an_error(name: str, content: str, suffix: str, source: Source, table: Rows) -> None:
    saved = io.BytesIO()
    PIL.Image.new("L", (5, 6)).save(saved, content)
    folder = source({name: saved.getvalue()}, [{**table[0], "filename": name}], loose)
    assert error_of(folder) == f"img/0/0/{name}: {content} file with the suffix of a {suffix}; rename it"


def test_too_many_pixels(source: Source, table: Rows) -> None:
    huge = b"\xff\xd8" + frame(65_500, 65_500) + WHOLE[-8:]
    folder = source({"a.jpg": huge}, [{**table[0], "filename": "a.jpg"}], loose)
    assert "a.jpg: 65,500 x 65,500 pixels; make it one of 1 to 67,108,864 pixels" in error_of(folder)


def test_dimensions_of_a_png(images: dict[str, bytes]) -> None:
    png = next(iter(images.values()))
    assert dimensions(png) == (512, 512)
    for broken in (png[:-1], png[:40], b""):
        with pytest.raises(ValueError, match="not a whole PNG or JPEG file"):
            dimensions(broken)
