"""The module through its public surface, on real files."""

import ast
import csv
import json
import logging
import os
import pickle
import random
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import fsspec
import PIL.Image
import pytest
from conftest import FIXTURE, ROOT, SHAPES, Write, loose, mixed, one_zip, tars, to_csv, to_files, to_tar, to_zip, zips
from hypothesis import given, settings
from hypothesis import strategies as st
from range_server import serve

import synthchex_75k
from synthchex_75k import LABELS, SourceError, load

Rows = list[dict[str, Any]]
Source = Callable[..., Path]
ALLOWED_IMPORTS = {
    *("ast", "collections", "csv", "dataclasses", "functools", "hashlib", "io", "itertools", "logging", "os", "re"),
    *("struct", "tarfile", "typing", "urllib.parse", "zipfile", "zlib", "collections.abc", "datasets", "fsspec"),
}
POLICIES = {
    "zeros": lambda raw: int(raw == 1),
    "ones": lambda raw: int(raw in (1, -1)),
    "keep": lambda raw: raw,
}


def plan(source: Path, on_mismatch: str = "error") -> list[synthchex_75k.Row]:
    return synthchex_75k.plan(str(source), on_mismatch)


def error_of(source: Path, **options: Any) -> str:
    with pytest.raises(SourceError) as caught:
        next(iter(load(source, streaming=True, **options)))
    return str(caught.value)


# The rows


@pytest.mark.parametrize("uncertainty", POLICIES)
@pytest.mark.parametrize("options", [{}, {"num_proc": 2}, {"num_proc": 5}, {"streaming": True}], ids=str)
def test_rows_are_those_of_the_files(
    options: dict[str, Any], uncertainty: str, expected: Rows, rows_of: Callable[..., Rows], tmp_path: Path
) -> None:
    rows = rows_of(load(FIXTURE, uncertainty=uncertainty, cache_dir=tmp_path, **options))
    for row in expected:
        row["labels_dict"] = {k: POLICIES[uncertainty](v) for k, v in row["labels_dict"].items()}
    assert rows == expected
    assert [list(row["labels_dict"]) for row in rows] == [list(LABELS)] * 12


def test_a_row_is_as_documented(tmp_path: Path) -> None:
    dataset = load(FIXTURE, cache_dir=tmp_path)
    assert dataset.features == datasets.Features(
        image=datasets.Image(),
        filename=datasets.Value("string"),
        prompt=datasets.Value("string"),
        labels_dict={label: datasets.Value("int8") for label in LABELS},
    )
    image = dataset[0]["image"]
    assert isinstance(image, PIL.Image.Image)
    assert (image.format, image.mode, image.size) == ("PNG", "RGB", (512, 512))
    paths = [image["path"] for image in dataset.cast_column("image", datasets.Image(decode=False))["image"]]
    assert paths == list(dataset["filename"])
    assert "75,649" in dataset.info.description
    assert "CheXGenBench" in dataset.info.citation
    assert dataset.info.homepage == "https://huggingface.co/datasets/raman07/SynthCheX-75K"
    assert (dataset.info.license, str(dataset.info.version)) == ("Apache-2.0", "1.0.0")


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_source_gives_the_same_rows(
    shape: Write, source: Source, expected: Rows, rows_of: Callable[..., Rows], tmp_path: Path
) -> None:
    folder = source(shape=shape)
    assert rows_of(load(folder, uncertainty="keep", cache_dir=tmp_path / "cache")) == expected
    assert rows_of(load(folder, uncertainty="keep", streaming=True)) == expected


def test_one_archive_is_a_source(source: Source, expected: Rows, rows_of: Callable[..., Rows]) -> None:
    archive = source(shape=one_zip) / "ALL_FILES.zip"
    assert rows_of(load(archive, streaming=True, uncertainty="keep")) == expected


def test_a_source_of_links_is_read(
    source: Source, tmp_path: Path, expected: Rows, rows_of: Callable[..., Rows]
) -> None:
    # As `hf download` lays a repo out in its cache.
    for path in source(shape=tars).iterdir():
        (tmp_path / "links").mkdir(exist_ok=True)
        (tmp_path / "links" / path.name).symlink_to(path)
    assert rows_of(load(tmp_path / "links", streaming=True, uncertainty="keep")) == expected


def test_archives_come_first_by_name_then_loose_images(tmp_path: Path, images: dict[str, bytes]) -> None:
    png = next(iter(images.values()))
    to_zip(tmp_path / "b.zip", {"9.png": png, "1.png": png})
    to_tar(tmp_path / "a" / "z.tar", {"8.png": png, "2.png": png})
    to_files(tmp_path, {"a/0.png": png, "Z/3.png": png})
    labels = dict.fromkeys(LABELS, "")
    to_files(tmp_path, {"m.csv": to_csv([{"filename": f"{n}.png", "prompt": "p", **labels} for n in range(10)])})
    order = [row.filename for row in plan(tmp_path, "skip")]
    assert order == ["8.png", "2.png", "9.png", "1.png", "3.png", "0.png"]


def test_an_image_is_passed_on_as_it_is(images: dict[str, bytes], source: Source) -> None:
    # A chunk that no decoder knows would not survive one.
    name, png = next(iter(images.items()))
    chunk = b"prVt" + b"kept"
    odd = png[:-12] + struct.pack(">I", 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + png[-12:]
    (row, *_) = synthchex_75k.examples(plan(source({**images, name: odd})))
    assert row["image"] == {"path": name, "bytes": odd}


# Metadata


def label_cell(form: str, labels: dict[str, Any]) -> dict[str, str]:
    """One row's labels in one of the accepted forms."""
    if form == "columns":
        return {label: "" if value is None else str(value) for label, value in labels.items()}
    if form == "json":
        return {"chexpert_labels": json.dumps(labels)}
    return {"labels_dict": repr(labels)}


RAW = st.sampled_from([1, 0, -1, 1.0, 0.0, -0.0, -1.0, None, float("nan")])
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1).filter(str.strip)


@settings(deadline=None, max_examples=60)
@given(
    data=st.lists(st.tuples(TEXT, st.fixed_dictionaries(dict.fromkeys(LABELS, RAW))), min_size=1, max_size=4),
    form=st.sampled_from(["columns", "json", "dict"]),
    names=st.sampled_from(
        [("filename", "prompt"), ("synthetic_filename", "annotated_prompt"), ("file_name", "prompt")]
    ),
    folder=st.sampled_from(["", "/data/long/gone/", "C:\\images\\", "./"]),
    bom=st.booleans(),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_whatever_a_csv_says_is_what_is_planned(
    tmp_path_factory: pytest.TempPathFactory,
    data: list[tuple[str, dict[str, Any]]],
    form: str,
    names: tuple[str, str],
    folder: str,
    bom: bool,
    quoting: Any,
) -> None:
    source = tmp_path_factory.mktemp("source")
    rows = [
        {"id": str(n), names[0]: f"{folder}{n}.png", names[1]: prompt, **label_cell(form, labels)}
        for n, (prompt, labels) in enumerate(data)
    ]
    to_files(source, {"meta.csv": (b"\xef\xbb\xbf" if bom else b"") + to_csv(rows, quoting)})
    to_zip(source / "a.zip", {f"{n}.png": b"not read while planning" for n in range(len(data))})
    planned = plan(source)
    assert [row.filename for row in planned] == [f"{n}.png" for n in range(len(data))]
    assert [row.prompt for row in planned] == [prompt for prompt, _ in data]
    for row, (_, labels) in zip(planned, data, strict=True):
        wanted = [None if value is None or value != value else int(value) for value in map(labels.get, LABELS)]
        assert list(row.labels) == wanted


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_other_csvs_and_blank_lines_do_not_matter(ending: str, source: Source, table: Rows) -> None:
    folder = source(table=to_csv(table).replace(b"\r\n", ending.encode()) + ending.encode() * 2)
    to_files(folder, {"statistics.csv": b"label,count\nEdema,3\n", "empty.csv": b""})
    assert [row.filename for row in plan(folder)] == [row["filename"] for row in table]


# Bad input: each kind says what, where, how many and what to do


def without(row: dict[str, str], *names: str) -> dict[str, str]:
    return {key: value for key, value in row.items() if key not in names}


def as_dict(row: dict[str, str], text: str) -> dict[str, str]:
    return {**without(row, *LABELS), "labels_dict": text}


def test_nothing_there(tmp_path: Path) -> None:
    assert re.search(r"nowhere: no such file or folder. Check", error_of(tmp_path / "nowhere"))


def test_no_image_and_no_csv(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    message = error_of(tmp_path)
    assert message.startswith(f"{tmp_path} cannot be used as it is\n")
    assert re.search(r"no archive or image; check the address", message)
    assert re.search(r"no metadata CSV; .*/synthetic_filename/.*there is no \.csv", message)


def test_archive_without_images(source: Source, table: Rows) -> None:
    assert "no archive or image" in error_of(source(images={"a.txt": b"text"}))


@pytest.mark.parametrize("column", ["filename", "prompt", "Edema"])
def test_missing_column(column: str, source: Source, table: Rows) -> None:
    message = error_of(source(table=[without(row, column) for row in table]))
    assert re.search(rf"no metadata CSV; .*\(1 in all\): metadata.csv has no {column}", message)


def test_missing_labels(source: Source, table: Rows) -> None:
    assert "metadata.csv has no labels" in error_of(source(table=[without(row, *LABELS) for row in table]))


def test_two_metadata_csvs(source: Source, table: Rows) -> None:
    folder = source(shape=one_zip)
    to_files(folder, {"again.csv": to_csv(table), "statistics.csv": b"label,count\n"})
    found = r"several metadata CSVs.*\(2 in all\): ALL_FILES.zip: ALL_FILES/generations_with_metadata.csv; again.csv"
    message = error_of(folder)
    assert re.search(found, message)
    assert "no metadata CSV" not in message


@pytest.mark.parametrize("header", ["file_name", "annotated_prompt", "labels_dict", "prompt", "Edema"])
def test_doubled_column(header: str, source: Source, table: Rows) -> None:
    header_line, rows = to_csv(table).split(b"\r\n", 1)
    message = error_of(source(table=header_line + f",{header}\r\n".encode() + rows))
    assert re.search(rf"doubled column.*leave one.*metadata.csv: filename, .*{header}", message)
    assert "without" not in message  # a CSV that was not read says nothing of missing rows


def test_not_utf8(source: Source, table: Rows) -> None:
    table[2] = {**table[2], "prompt": "Ödem"}
    message = error_of(source(table=to_csv(table).decode().encode("latin-1", "replace")))
    assert re.search(r"unreadable CSV; it must be UTF-8.*metadata.csv line 4: 'utf-8' codec can't decode", message)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda text: text.replace(b'""coin-like""', b'"coin-like"'), "4: .*expected after"),
        (lambda text: text + b'x.png,"never closed', "unexpected end of data"),
        (lambda text: text + b"x.png,short\r\n", "more or fewer fields than the 16 columns"),
        (lambda text: text + b"x.png,long" + b"," * 20, "more or fewer fields than the 16 columns"),
        (lambda text: text.replace(b"round", b"ro\0und"), "a NUL byte in line 4"),
    ],
)
def test_unreadable_csv(change: Callable[[bytes], bytes], told: str, source: Source, table: Rows) -> None:
    message = error_of(source(table=change(to_csv(table))))
    assert re.search(rf"unreadable CSV; .*\(1 in all\): metadata.csv line .*{told}", message)
    assert "without" not in message


def test_empty_prompt_and_file_name(source: Source, table: Rows) -> None:
    table[1] = {**table[1], "prompt": " \t"}
    table[6] = {**table[6], "filename": "/data/"}
    message = error_of(source(table=table))
    assert re.search(r"empty prompt; write .*\(1 in all\): metadata.csv line 3$", message, re.M)
    assert re.search(r"empty file name; .*\(1 in all\): metadata.csv line 9$", message, re.M)  # line 6 has a line break


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "'' is no dict of labels"),
        ("[('Edema', 1)]", "no dict of labels"),
        ("[]", "no dict of labels"),
        ("{", "no dict of labels"),
        ("{**{}}", "no dict of labels"),
        ("__import__('os').getcwd()", "no dict of labels"),
        ("(" * 5000, "no dict of labels"),
        (repr(dict.fromkeys(LABELS[1:])), "'Atelectasis' is missing"),
        (repr({**dict.fromkeys(LABELS), "Cough": 1}), "'Cough' is too many"),
        (repr(dict.fromkeys(LABELS))[:-1] + ", 'Edema': 1}", "a label is there twice"),
        (repr({**dict.fromkeys(LABELS), "Edema": 2}), "'Edema' is 2"),
        (repr({**dict.fromkeys(LABELS), "Edema": 0.5}), "'Edema' is 0.5"),
        (repr({**dict.fromkeys(LABELS), "Edema": True}), "'Edema' is True"),
        (repr({**dict.fromkeys(LABELS), "Edema": [1]}), r"'Edema' is \[1\]"),
    ],
)
def test_bad_label_dict(text: str, told: str, source: Source, table: Rows) -> None:
    rows = [as_dict(row, repr(dict.fromkeys(LABELS))) for row in table]
    rows[2]["labels_dict"] = text
    assert re.search(
        rf"bad labels; give each of the 14.*\(1 in all\): metadata.csv line 4: .*{told}", error_of(source(table=rows))
    )


def test_bad_label_column(source: Source, table: Rows) -> None:
    table[0] = {**table[0], "Edema": "yes"}
    assert re.search(r"bad labels; .*metadata.csv line 2: 'Edema' is 'yes'", error_of(source(table=table)))


def test_file_name_twice_in_the_csv(source: Source, table: Rows) -> None:
    table.append({**table[0], "filename": f"/elsewhere/{table[0]['filename']}"})
    name = table[0]["filename"]
    assert re.search(rf"file name twice in the CSV; .*metadata.csv line 15: {name}", error_of(source(table=table)))


def test_file_name_twice_among_the_images(source: Source, images: dict[str, bytes]) -> None:
    folder, name = source(), next(iter(images))
    to_files(folder, {f"other/{name}": b"x"})
    message = error_of(folder)
    assert re.search(rf"file name twice among the images; .*data/s0.zip: {name} and other/{name}", message)


def test_mismatch_is_an_error_with_counts_and_first_five(source: Source, images: dict[str, bytes], table: Rows) -> None:
    extra = {f"extra{n}.png": b"x" for n in range(7)}
    folder = source({**dict(list(images.items())[:10])}, table)
    to_files(folder, extra)
    message = error_of(folder)
    lone = "; ".join(list(extra)[:5])
    assert re.search(rf'image without a row; .*on_mismatch="skip" \(7 in all\): {lone}$', message, re.M)
    rows = rf"metadata.csv line 13: {table[10]['filename']}; metadata.csv line 14: {table[11]['filename']}"
    assert re.search(rf'row without an image; .*on_mismatch="skip" \(2 in all\): {rows}$', message, re.M)


def test_mismatch_skipped_is_one_warning(
    source: Source,
    images: dict[str, bytes],
    expected: Rows,
    rows_of: Callable[..., Rows],
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = source(dict(list(images.items())[:10]))
    to_files(folder, {f"extra{n}.png": b"x" for n in range(7)})
    with caplog.at_level(logging.WARNING, logger="synthchex_75k"):
        assert rows_of(load(folder, streaming=True, uncertainty="keep", on_mismatch="skip")) == expected[:10]
    assert [r.getMessage() for r in caplog.records if r.name == "synthchex_75k"] == [
        "left out 7 images without a row, 2 rows without an image"
    ]


def test_skip_forgives_nothing_else_and_not_everything(source: Source, images: dict[str, bytes], table: Rows) -> None:
    table[1] = {**table[1], "prompt": ""}
    assert "empty prompt" in error_of(source(table=table), on_mismatch="skip")
    assert "row without an image" in error_of(source({"other.png": b"x"}), on_mismatch="skip")


def test_empty_and_huge_members(source: Source, images: dict[str, bytes], table: Rows) -> None:
    names = list(images)
    folder = source({**images, names[0]: b"", names[5]: bytes((64 << 20) + 1)}, shape=one_zip)
    message = error_of(folder)
    assert re.search(rf"empty image; .*\(1 in all\): ALL_FILES.zip: ALL_FILES/{names[0]}", message)
    assert re.search(rf"image over 64 MiB unpacked; .*\(1 in all\): ALL_FILES.zip: ALL_FILES/{names[5]}", message)
    assert "empty image" in error_of(source({**images, names[0]: b""}, shape=loose))
    assert "empty image" in error_of(source({**images, names[0]: b""}, shape=tars))


def test_all_problems_come_in_one_error(source: Source, images: dict[str, bytes], table: Rows) -> None:
    table[1] = {**table[1], "prompt": "", "Edema": "7"}
    folder = source(images, table)
    to_files(folder, {"lone.png": b""})
    message = error_of(folder)
    kinds = [line.split(";")[0] for line in message.splitlines()[1:]]
    assert sorted(kinds) == ["- bad labels", "- empty image", "- empty prompt", "- image without a row"]


# Archives


def test_broken_archives_are_named(source: Source) -> None:
    folder = source()
    whole = (folder / "data" / "s1.zip").read_bytes()
    (folder / "data" / "s1.zip").write_bytes(whole[: len(whole) // 2])
    (folder / "text.tar").write_text("not a tar")
    message = error_of(folder)
    assert re.search(r"unreadable archive; get it again.*\(2 in all\): data/s1.zip: .+; text.tar: .+", message)
    assert "without" not in message


@pytest.mark.parametrize("cut", ["member", "header", "end", "damage"])
def test_a_cut_or_damaged_tar_is_not_taken_for_a_shorter_one(cut: str, source: Source) -> None:
    folder = source(shape=tars)
    path = folder / "b.tar"
    with tarfile.open(path) as archive:
        second = archive.getmembers()[1]
    data = bytearray(path.read_bytes())
    if cut == "damage":
        data[second.offset + 5] ^= 0xFF
    else:
        del data[{"member": second.offset_data + 1000, "header": second.offset + 100, "end": second.offset}[cut] :]
    path.write_bytes(data)
    assert re.search(r"unreadable archive; .*b.tar: ", error_of(folder))


def test_encrypted_and_exotic_zips_are_refused(source: Source, images: dict[str, bytes]) -> None:
    folder = source()
    to_zip(folder / "x.zip", {"x.png": b"x" * 100}, zipfile.ZIP_LZMA)
    assert re.search(r"unreadable archive; .*x.zip: x.png is encrypted, or neither stored", error_of(folder))
    to_zip(folder / "x.zip", {"x.png": b"x" * 100})
    data = bytearray((folder / "x.zip").read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1
    (folder / "x.zip").write_bytes(data)
    assert re.search(r"x.zip: x.png is encrypted", error_of(folder))


@settings(deadline=None, max_examples=150)
@given(at=st.integers(0, 10**6), bit=st.integers(0, 7), deflate=st.booleans())
def test_a_flipped_bit_in_a_zip_never_changes_a_row_silently(
    tmp_path_factory: pytest.TempPathFactory, at: int, bit: int, deflate: bool
) -> None:
    folder = tmp_path_factory.mktemp("flip")
    png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + b"\0" * 40 + b"IEND\xae\x42\x60\x82"
    labels = dict.fromkeys(LABELS, "")
    rows = [{"filename": f"{n}.png", "prompt": f"prompt {n}", **labels} for n in range(3)]
    members = {**{f"{n}.png": png for n in range(3)}, "m.csv": to_csv(rows)}
    to_zip(folder / "a.zip", members, zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED)
    before = list(synthchex_75k.examples(plan(folder)))
    data = bytearray((folder / "a.zip").read_bytes())
    data[at % len(data)] ^= 1 << bit
    (folder / "a.zip").write_bytes(data)
    try:
        after = list(synthchex_75k.examples(plan(folder)))
    except SourceError:
        return
    assert after == before


# Images


BAD_IMAGES = {
    "truncated": lambda png: png[:-5],
    "foreign": lambda png: b"\xff\xd8\xff\xe0 a JPEG",
    "IHDR not first": lambda png: png[:12] + b"tEXt" + png[16:],
    "trailing": lambda png: png + b"more",
}


@pytest.mark.parametrize("shape", [one_zip, tars, loose])
@pytest.mark.parametrize("bad", BAD_IMAGES)
def test_a_broken_png_stops_the_run(
    bad: str, shape: Write, source: Source, images: dict[str, bytes], tmp_path: Path
) -> None:
    name = list(images)[3]
    folder = source({**images, name: BAD_IMAGES[bad](images[name])}, shape=shape)
    with pytest.raises(SourceError, match=rf"{name}: not a whole PNG file; generate or copy it again") as caught:
        load(folder, cache_dir=tmp_path / "cache")
    if shape is not loose:
        assert re.match(r"(ALL_FILES.zip|a.tar): ", str(caught.value))
    assert not list((tmp_path / "cache").rglob("*.arrow"))


def test_an_error_in_a_worker_process_names_archive_and_member(
    source: Source, images: dict[str, bytes], tmp_path: Path
) -> None:
    name = list(images)[3]
    folder = source({**images, name: images[name][:-5]})
    code = f"import synthchex_75k; synthchex_75k.load({str(folder)!r}, num_proc=2, cache_dir={str(tmp_path / 'c')!r})"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 1
    assert f"SourceError: data/s0.zip: {name}: not a whole PNG file" in run.stderr


def test_an_archive_damaged_in_its_data_fails_its_crc(source: Source, images: dict[str, bytes]) -> None:
    for shape, archive in ((zips, "data/s1.zip"), (one_zip, "ALL_FILES.zip")):
        folder = source(shape=shape)
        data = bytearray((folder / archive).read_bytes())
        middle = len(data) // 2
        data[middle : middle + 4] = bytes(byte ^ 0x55 for byte in data[middle : middle + 4])
        (folder / archive).write_bytes(data)
        with pytest.raises(SourceError, match=rf"{archive}: .*\.png: CRC error, the archive is damaged"):
            list(load(folder, streaming=True))


def test_streaming_reads_no_image_before_its_row_is_asked_for(source: Source, images: dict[str, bytes]) -> None:
    names = list(images)
    folder = source({name: images[name] if name == names[0] else b"broken" for name in names})
    stream = iter(load(folder, streaming=True))
    assert next(stream)["filename"] == names[0]
    with pytest.raises(SourceError, match=names[1]):
        next(stream)


# The builder and load()


def test_slices_are_even_whatever_the_archives_are(source: Source) -> None:
    assert load(source(shape=one_zip), streaming=True).n_shards == 12  # one row each, so that 5 processes get 3,3,2,2,2


def test_a_release_is_cut_into_about_a_thousand_slices(tmp_path: Path) -> None:
    names = [f"{n}.png" for n in range(5000)]
    to_zip(tmp_path / "a.zip", dict.fromkeys(names, b"x"))
    labels = repr(dict.fromkeys(LABELS))
    to_files(tmp_path, {"m.csv": to_csv([{"filename": n, "prompt": "p", "labels_dict": labels} for n in names])})
    assert load(tmp_path, streaming=True).n_shards == 1000


def test_a_stream_can_be_sent_to_another_process(expected: Rows, rows_of: Callable[..., Rows]) -> None:
    stream = load(FIXTURE, streaming=True, uncertainty="keep")
    assert rows_of(pickle.loads(pickle.dumps(stream))) == expected


def test_split(tmp_path: Path) -> None:
    assert isinstance(load(FIXTURE, cache_dir=tmp_path, split=None), datasets.DatasetDict)
    assert isinstance(load(FIXTURE, streaming=True, split=None), datasets.IterableDatasetDict)
    assert list(load(FIXTURE, split=None, streaming=True)) == ["train"]
    assert len(load(FIXTURE, cache_dir=tmp_path, split="train[:25%]")) == 3


def test_a_changed_source_is_not_answered_from_the_cache(source: Source, table: Rows, tmp_path: Path) -> None:
    folder = source()
    assert load(folder, cache_dir=tmp_path / "cache")[0]["prompt"] == table[0]["prompt"]
    table[0] = {**table[0], "prompt": "Another."}
    (folder / "metadata.csv").write_bytes(to_csv(table))
    assert load(folder, cache_dir=tmp_path / "cache")[0]["prompt"] == "Another."


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"uncertainty": "U-Zeros"}, r"uncertainty='U-Zeros' is not one of zeros, ones, keep"),
        ({"on_mismatch": "ignore"}, r"on_mismatch='ignore' is not one of error, skip"),
        ({"num_proc": 2, "streaming": True}, "num_proc builds the cache and streaming=True builds none"),
    ],
)
def test_wrong_parameters(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        load(FIXTURE, **options)


@pytest.mark.parametrize("shape", [one_zip, zips])
def test_without_a_source_the_folder_of_the_script_is_read(shape: Write, source: Source, expected: Rows) -> None:
    folder = source(shape=shape)
    shutil.copy(ROOT / "synthchex_75k.py", folder)
    for other in ("tests/fixture", ".venv/fixture"):  # as in a clone of this repository
        shutil.copytree(FIXTURE, folder / other)
    code = "import synthchex_75k; print([row['filename'] for row in synthchex_75k.load(streaming=True)])"
    run = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert ast.literal_eval(run.stdout) == [row["filename"] for row in expected]


def test_without_a_source_anywhere_the_release_is_asked_for(tmp_path: Path) -> None:
    shutil.copy(ROOT / "synthchex_75k.py", tmp_path)
    shutil.copytree(FIXTURE, tmp_path / "tests/fixture")
    code = "import synthchex_75k; synthchex_75k.load(streaming=True)"
    with serve(tmp_path) as hub:  # which answers all with 404
        environment = {**os.environ, "HF_ENDPOINT": hub.url}
        run = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
    assert any("/datasets/raman07/SynthCheX-75K" in path for path in hub.asked)
    assert "SourceError: hf://datasets/raman07/SynthCheX-75K@main: no such file or folder" in run.stderr


def test_any_fsspec_address_is_a_source(expected: Rows, rows_of: Callable[..., Rows]) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(f"{FIXTURE}/", "/release/", recursive=True)
    try:
        assert rows_of(load("memory://release", streaming=True, uncertainty="keep")) == expected
    finally:
        memory.rm("/release", recursive=True)


# From the Hub and over HTTP


@pytest.mark.parametrize(
    ("address", "options"),
    [(None, {"streaming": True}), ("hf://datasets/raman07/SynthCheX-75K@v1.0", {"num_proc": 2})],
    ids=["default, streaming", "address, cached"],
)
@pytest.mark.parametrize("shape", [one_zip, mixed])
def test_a_hub_repo_is_a_source(
    shape: Write, address: str | None, options: dict[str, Any], source: Source, expected: Rows, tmp_path: Path
) -> None:
    folder = source(shape=shape)
    for parent in ("raman07", "code"):
        (tmp_path / parent).mkdir()
    folder.rename(tmp_path / "raman07" / "SynthCheX-75K")
    shutil.copy(ROOT / "synthchex_75k.py", tmp_path / "code")
    code = f"""
import datasets, synthchex_75k
stream = synthchex_75k.load({address!r}, uncertainty="keep", **{options})
rows = stream.cast_column("image", datasets.Image(decode=False))
print([{{**row, "image": row["image"]["bytes"]}} for row in rows])
"""
    with serve(tmp_path) as hub:
        environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
        command = [sys.executable, "-c", code]
        run = subprocess.run(
            command, cwd=tmp_path / "code", env=os.environ | environment, stdout=subprocess.PIPE, text=True, check=True
        )
    assert ast.literal_eval(run.stdout) == expected


@pytest.mark.parametrize("shape", SHAPES)
def test_an_http_folder_is_a_source(
    shape: Write, source: Source, expected: Rows, rows_of: Callable[..., Rows], tmp_path: Path
) -> None:
    with serve(source(shape=shape)) as server:
        assert rows_of(load(server.url, streaming=True, uncertainty="keep")) == expected
        assert rows_of(load(server.url, cache_dir=tmp_path / "cache", num_proc=2, uncertainty="keep")) == expected


def test_the_first_row_over_http_costs_directory_csv_and_one_member(tmp_path: Path, images: dict[str, bytes]) -> None:
    rng = random.Random(0)
    names = [f"{n:03}.png" for n in range(100)]
    png = next(iter(images.values()))
    padded = {name: png[:-12] + rng.randbytes(200_000) + png[-12:] for name in names}
    table = to_csv([{"filename": name, "prompt": "p", **dict.fromkeys(LABELS, "")} for name in names])
    to_zip(tmp_path / "ALL_FILES.zip", {**padded, "all.csv": table})
    with zipfile.ZipFile(tmp_path / "ALL_FILES.zip") as archive:
        directory = (tmp_path / "ALL_FILES.zip").stat().st_size - archive.start_dir
    with serve(tmp_path) as server:
        stream = iter(load(server.url, streaming=True))
        first = next(stream)
        assert first["filename"] == "000.png"
        needed = directory + len(table) + len(padded["000.png"])
        assert needed <= server.sent["ALL_FILES.zip"] <= needed + 3_000
        next(stream)
        assert server.sent["ALL_FILES.zip"] <= needed + len(padded["001.png"]) + 4_000


def test_what_cannot_be_used_is_found_before_the_download(source: Source, table: Rows, tmp_path: Path) -> None:
    table[1] = {**table[1], "prompt": ""}
    folder = source(table=table)
    with serve(folder) as server:
        with pytest.raises(SourceError, match="empty prompt"):
            load(server.url, cache_dir=tmp_path / "cache")
        sizes = {path.name: path.stat().st_size for path in folder.glob("data/*.zip")}
        assert all(server.sent[name] < size / 10 for name, size in sizes.items())


# Trust


def test_the_script_imports_only_what_is_allowed_and_runs_nothing() -> None:
    tree = ast.parse((ROOT / "synthchex_75k.py").read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported <= ALLOWED_IMPORTS
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert not names & {
        "eval",
        "exec",
        "compile",
        "open",
        "globals",
        "getattr",
        "setattr",
        "__import__",
        "__builtins__",
    }
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not attributes & {
        "system",
        "popen",
        "extract",
        "extractall",
        "remove",
        "unlink",
        "rmtree",
        "write",
        "environ",
    }
