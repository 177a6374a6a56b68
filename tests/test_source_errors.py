"""Errors of a source: each names the problem, the place, the number of places and the remedy."""

import logging
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import synthchex_75k
from conftest import ROOT, Rows, Source, Write, error_of, loose, one_zip, plan, tars, to_csv, to_files, to_zip, zips
from synthchex_75k import LABELS, SourceError, load


def without(row: dict[str, str], *names: str) -> dict[str, str]:
    return {key: value for key, value in row.items() if key not in names}


def as_dict(row: dict[str, str], text: str) -> dict[str, str]:
    return {**without(row, *LABELS), "labels_dict": text}


def test_nothing_there(tmp_path: Path) -> None:
    assert re.search(r"nowhere: no such file or folder. Check", error_of(tmp_path / "nowhere"))


@pytest.mark.parametrize("name", ["raman07/SynthCheX-75K", "raman07/SynthCheX-75K@v1.0"])
def test_user_slash_name_suggests_the_address_on_the_hub(name: str) -> None:
    with pytest.raises(SourceError) as caught:
        load(name)
    wanted = f'{name}: no such file or folder. Check the path, or for the Hub pass "hf://datasets/{name}".'
    assert str(caught.value) == wanted


@pytest.mark.parametrize("name", ["/nowhere/release", "./nowhere/release", "nowhere", "a/b/c"])
def test_other_missing_paths_suggest_no_address(name: str) -> None:
    with pytest.raises(SourceError) as caught:
        load(name)
    assert str(caught.value) == f"{name}: no such file or folder. Check the path."


@pytest.mark.parametrize("name", ["metadata.csv", "img/a.png", "notes.txt"])
def test_a_single_file_suggests_its_folder(
    name: str, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = source()
    to_files(folder, {"img/a.png": b"x", "notes.txt": b"x"})
    file = folder / name
    assert error_of(file) == f"{file}: not a folder or archive. Pass its folder: {file.parent}"
    monkeypatch.chdir(file.parent)
    assert error_of(Path(file.name)) == f"{file.name}: not a folder or archive. Pass its folder: ."


def test_broken_links_are_named_with_their_targets(source: Source, tmp_path: Path) -> None:
    folder = source()
    for name in ("data/s1.zip", "metadata.csv", "x.png"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(tmp_path / "gone" / Path(name).name)
    message = error_of(folder)
    kind = "- link to a file that does not exist; restore the file or remove the link (3 in all): "
    places = [f"{name} -> {tmp_path / 'gone' / Path(name).name}" for name in ("data/s1.zip", "metadata.csv", "x.png")]
    assert kind + "; ".join(places) in message.splitlines()
    assert "without" not in message  # an archive that was not read is no reason to report missing images


@pytest.mark.parametrize("name", ["release", "release.zip"])
def test_a_broken_link_as_source(name: str, tmp_path: Path) -> None:
    (tmp_path / name).symlink_to(tmp_path / "gone")
    assert error_of(tmp_path / name) == (
        f"{tmp_path / name} -> {tmp_path / 'gone'}: no such file or folder. Check the path."
    )


def test_no_image_and_no_csv(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    message = error_of(tmp_path)
    assert message.startswith(f"{tmp_path} cannot be used as it is\n")
    assert re.search(r"no archive or image; check the address", message)
    assert re.search(r"no metadata CSV; .*/synthetic_filename/.*14 labels: no \.csv file", message)


def test_archive_without_images(source: Source, table: Rows) -> None:
    message = error_of(source(images={"a.txt": b"text"}))
    assert "- archive without an image; check it (3 in all): data/s0.zip; data/s1.zip; data/s2.zip" in message
    assert "no archive" not in message


@pytest.mark.parametrize("column", ["filename", "prompt", "Edema"])
def test_missing_column(column: str, source: Source, table: Rows) -> None:
    message = error_of(source(table=[without(row, column) for row in table]))
    assert re.search(rf"^- no metadata CSV; .* or 14 labels: metadata.csv has no {column}$", message, re.M)


def test_missing_labels(source: Source, table: Rows) -> None:
    assert "metadata.csv has no labels" in error_of(source(table=[without(row, *LABELS) for row in table]))


def test_two_metadata_csvs(source: Source, table: Rows) -> None:
    folder = source(shape=one_zip)
    to_files(folder, {"again.csv": to_csv(table), "statistics.csv": b"label,count\n"})
    found = r"several metadata CSVs.*\(2 in all\): ALL_FILES.zip: ALL_FILES/generations_with_metadata.csv; again.csv"
    message = error_of(folder)
    assert re.search(found, message)
    assert "no metadata CSV" not in message


def test_path_is_the_file_name_where_no_other_column_is(source: Source, table: Rows, images: dict[str, bytes]) -> None:
    real = [{"id": "7", **row, "path": f"files/p10/{row['filename']}", "report": "Round.\n" * 99} for row in table]
    assert [row.filename for row in plan(source(table=[without(row, "filename") for row in real]))] == [*images]
    for row in real:
        row["path"] = "files/p10/real.jpg"
    assert [row.filename for row in plan(source(table=real))] == [*images], "the better column counts"


def test_doubled_path(source: Source, table: Rows) -> None:
    message = error_of(source(table=b"path," + to_csv(table).replace(b"filename", b"path", 1)))
    assert "doubled column; keep one for each meaning: metadata.csv: path, path, prompt, " in message


@pytest.mark.parametrize("header", ["file_name", "annotated_prompt", "labels_dict", "prompt", "Edema"])
def test_doubled_column(header: str, source: Source, table: Rows) -> None:
    header_line, rows = to_csv(table).split(b"\r\n", 1)
    message = error_of(source(table=header_line + f",{header}\r\n".encode() + rows))
    assert re.search(rf"doubled column.*keep one.*metadata.csv: filename, .*{header}", message)
    assert "without" not in message  # a CSV that was not read says nothing of missing rows


def test_not_utf8(source: Source, table: Rows) -> None:
    table[2] = {**table[2], "prompt": "Ödem"}
    message = error_of(source(table=to_csv(table).decode().encode("latin-1", "replace")))
    assert re.search(r"unreadable CSV; it must be UTF-8.*metadata.csv line 4: 'utf-8' codec can't decode", message)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda text: text.replace(b'""coin-like""', b'"coin-like"'), "4: .*expected after"),
        (lambda text: text + b'x.png,"never closed', "unexpected end of data"),
        (lambda text: text + b"x.png,short\r\n", "more or fewer fields than the 16 columns"),
        (lambda text: text + b"x.png,long" + b"," * 20, "more or fewer fields than the 16 columns"),
        (lambda text: text.replace(b"round", b"ro\0und"), "4: .*NUL"),
    ],
)
def test_unreadable_csv(change: Callable[[bytes], bytes], expected: str, source: Source, table: Rows) -> None:
    message = error_of(source(table=change(to_csv(table))))
    assert re.search(rf"unreadable CSV; .* as columns: metadata.csv line .*{expected}", message)
    assert "without" not in message


def test_empty_prompt_and_file_name(source: Source, table: Rows) -> None:
    table[1] = {**table[1], "prompt": " \t"}
    table[6] = {**table[6], "filename": "/data/"}
    message = error_of(source(table=table))
    assert re.search(r"empty prompt; write .* generated the image: metadata.csv line 3$", message, re.M)
    assert re.search(r"empty file name; name the image: metadata.csv line 9$", message, re.M)  # line 6 has a line break


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "'' is not a dict of labels"),
        ("[('Edema', 1)]", "not a dict of labels"),
        ("[]", "not a dict of labels"),
        ("{", "not a dict of labels"),
        ("{**{}}", "not a dict of labels"),
        ("__import__('os').getcwd()", "not a dict of labels"),
        ("(" * 4000, "not a dict of labels"),
        ("{" + " " * 4096 + "}", "more than 4,096 characters"),
        (repr(dict.fromkeys(LABELS[1:])), "'Atelectasis' is missing"),
        (repr({**dict.fromkeys(LABELS), "Cough": 1}), "'Cough' is not a label"),
        (repr(dict.fromkeys(LABELS))[:-1] + ", 'Edema': 1}", "a label is given twice"),
        (repr({**dict.fromkeys(LABELS), "Edema": 2}), "'Edema' is 2"),
        (repr({**dict.fromkeys(LABELS), "Edema": 0.5}), "'Edema' is 0.5"),
        (repr({**dict.fromkeys(LABELS), "Edema": True}), "'Edema' is True"),
        (repr({**dict.fromkeys(LABELS), "Edema": [1]}), r"'Edema' is \[1\]"),
    ],
)
def test_bad_label_dict(text: str, expected: str, source: Source, table: Rows) -> None:
    rows = [as_dict(row, repr(dict.fromkeys(LABELS))) for row in table]
    rows[2]["labels_dict"] = text
    assert re.search(
        rf"bad labels; give each of the 14.* or nothing: metadata.csv line 4: .*{expected}",
        error_of(source(table=rows)),
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


def test_a_single_place_is_not_counted(source: Source, images: dict[str, bytes], table: Rows) -> None:
    folder = source(dict(list(images.items())[:11]))
    name = table[11]["filename"]
    assert error_of(folder) == (
        f"{folder} cannot be used as it is\n"
        f'- row without an image; add the image, or pass on_mismatch="skip": metadata.csv line 14: {name}'
    )


def test_skip_forgives_nothing_else_and_not_everything(source: Source, images: dict[str, bytes], table: Rows) -> None:
    table[1] = {**table[1], "prompt": ""}
    assert "empty prompt" in error_of(source(table=table), on_mismatch="skip")
    assert "row without an image" in error_of(source({"other.png": b"x"}), on_mismatch="skip")


def test_empty_and_huge_members(source: Source, images: dict[str, bytes], table: Rows) -> None:
    names = list(images)
    folder = source({**images, names[0]: b"", names[5]: bytes((64 << 20) + 1)}, shape=one_zip)
    message = error_of(folder)
    assert re.search(rf"empty image; get it again: ALL_FILES.zip: ALL_FILES/{names[0]}", message)
    assert re.search(rf"image over 64 MiB unpacked; get it again: ALL_FILES.zip: ALL_FILES/{names[5]}", message)
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


@settings(max_examples=150)
@given(at=st.integers(0, 10**6), bit=st.integers(0, 7), deflate=st.booleans())
def test_a_flipped_bit_in_a_zip_never_changes_a_row_silently(
    tmp_path_factory: pytest.TempPathFactory, at: int, bit: int, deflate: bool
) -> None:
    folder = tmp_path_factory.mktemp("flip")
    png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + b"\0\0\0\1" * 10 + b"IEND\xae\x42\x60\x82"
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
    "foreign": lambda png: b"GIF89a",
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


def test_a_stored_image_in_a_zip_that_calls_it_deflated_fails_its_crc(tmp_path: Path, images: dict[str, bytes]) -> None:
    name, png = next(iter(images.items()))
    to_zip(tmp_path / "a.zip", {name: png})
    to_files(tmp_path, {"m.csv": to_csv([{"filename": name, "prompt": "A picture.", **dict.fromkeys(LABELS, "")}])})
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[data.rindex(b"PK\1\2") + 10] = zipfile.ZIP_DEFLATED
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(SourceError, match=rf"a.zip: {name}: CRC error"):
        list(synthchex_75k.examples(plan(tmp_path)))


def test_streaming_reads_no_image_before_its_row_is_asked_for(source: Source, images: dict[str, bytes]) -> None:
    names = list(images)
    folder = source({name: images[name] if name == names[0] else b"broken" for name in names})
    stream = iter(load(folder, streaming=True))
    assert next(stream)["filename"] == names[0]
    with pytest.raises(SourceError, match=names[1]):
        next(stream)


def test_a_source_without_images_does_not_claim_to_leave_out_rows(
    source: Source, caplog: pytest.LogCaptureFixture
) -> None:
    assert "archive without an image" in error_of(source(images={"a.gif": b"x"}))
    assert "left out" not in caplog.text
