"""The module through its public surface, on real files."""

import ast
import csv
import importlib.util
import inspect
import json
import os
import pickle
import re
import resource
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import datasets
import fsspec
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import synthchex_75k
from conftest import (
    FIXTURE,
    ROOT,
    SHAPES,
    Rows,
    Source,
    Write,
    one_zip,
    padded,
    plan,
    tars,
    to_csv,
    to_files,
    to_tar,
    to_zip,
    with_chunk,
    zips,
)
from servers.local_hub import Hub
from synthchex_75k import LABELS, load

ALLOWED_IMPORTS = {
    "zlib_ng.zlib_ng",  # optional
    *("ast", "collections", "csv", "dataclasses", "functools", "hashlib", "io", "itertools", "logging", "os", "re"),
    *(
        "stat",
        "struct",
        "tarfile",
        "time",
        "typing",
        "urllib.parse",
        "zipfile",
        "zlib",
        "collections.abc",
        "datasets",
        "fsspec",
    ),
    *("contextlib", "huggingface_hub"),
}
POLICIES = {
    "zeros": lambda raw: int(raw == 1),
    "ones": lambda raw: int(raw in (1, -1)),
    "keep": lambda raw: raw,
}


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
    assert dataset.info.citation == synthchex_75k.CITATION
    assert dataset.info.homepage == synthchex_75k.HOMEPAGE == "https://huggingface.co/datasets/raman07/SynthCheX-75K"
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
    odd = with_chunk(png, b"kept")
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


@settings(max_examples=60)
@given(
    data=st.lists(st.tuples(TEXT, st.fixed_dictionaries(dict.fromkeys(LABELS, RAW))), min_size=1, max_size=4),
    form=st.sampled_from(["columns", "json", "dict"]),
    names=st.sampled_from(
        [
            ("filename", "prompt"),
            ("synthetic_filename", "annotated_prompt"),
            ("file_name", "prompt"),
            ("path", "prompt"),
        ]
    ),
    folder=st.sampled_from(["", "/data/long/gone/", "C:\\images\\", "./"]),
    bom=st.booleans(),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_any_metadata_is_planned_as_written(
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


NEVER = re.compile("(?!)")
TEXTS = [
    *("1", "1.0", "0", "-0", "0.0", "-0.0", "-1", "-1.0", "None", "null", "nan", "NaN", "none", "NULL", "True", "1e0"),
    *("2", "0.5", "01", "1.", "+1", "- 1", "1_0", "inf", "''", "'1'", '"nan"', "[1]", "{'Edema': 1}", ""),
]
ITEM = st.tuples(
    st.sampled_from(["'", '"', ""]),
    st.sampled_from([*LABELS, "Cough", "Lung  Lesion", "edema"]) | st.text(max_size=3),
    st.sampled_from([": ", ":", " : ", ":\n", ": #\n", ", "]),
    st.sampled_from(TEXTS),
).map(lambda item: f"{item[0]}{item[1]}{item[0]}{item[2]}{item[3]}")
SCRAP = st.sampled_from([", ", ",", "{", "}", "'", '"', " ", "\n", "\\", "\\x45", "#"]) | st.text(max_size=2)


@st.composite
def almost_usual(draw: st.DrawFn) -> str:
    """A dict of the 14 labels as programs write it, with up to three changes."""
    labels = draw(st.permutations(LABELS))
    values = draw(st.lists(RAW, min_size=14, max_size=14))
    write = draw(st.sampled_from([repr, json.dumps, lambda data: json.dumps(data, separators=(",", ":"))]))
    text = write(dict(zip(labels, values, strict=True)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(ITEM | SCRAP) + text[at + draw(st.integers(0, 3)) :]
    return text


def outcome(read: Callable[[str], Any], cell: str) -> Any:
    """What a function returns, or the message of its error."""
    try:
        return read(cell)
    except ValueError as error:
        return str(error)


ITEMS = st.lists(ITEM, max_size=2).map(lambda items: "".join(f"{item}, " for item in items))


@pytest.mark.filterwarnings("ignore:invalid")  # the parser's, about the likes of "\\s" and "1is"
@settings(max_examples=600)
@given(
    cell=almost_usual()
    | st.tuples(ITEMS, almost_usual(), ITEMS).map("".join)
    | st.lists(ITEM, max_size=16).map(lambda items: "{" + ", ".join(items) + "}")
    | st.text()
)
def test_usual_labels_are_read_as_the_parser_reads_them(cell: str) -> None:
    fast = outcome(synthchex_75k._labels.__wrapped__, cell)
    with mock.patch.object(synthchex_75k, "USUAL_ITEM", NEVER):
        assert fast == outcome(synthchex_75k._labels.__wrapped__, cell)


@pytest.mark.parametrize("write", [repr, json.dumps])
@pytest.mark.parametrize("order", [LABELS, LABELS[::-1]])
def test_the_usual_forms_of_labels_are_not_parsed(write: Callable[[Any], str], order: tuple[str, ...]) -> None:
    values = [None, 1.0, 0.0, -1.0, -0.0, 1, 0, -1, float("nan"), None, 1.0, 0.0, 1, 0]
    wanted = dict(zip(order, [None, 1, 0, -1, 0, 1, 0, -1, None, None, 1, 0, 1, 0], strict=True))
    with mock.patch("ast.literal_eval", side_effect=AssertionError):
        labels = synthchex_75k._labels.__wrapped__(write(dict(zip(order, values, strict=True))))
    assert dict(zip(LABELS, labels, strict=True)) == wanted


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_other_csvs_and_blank_lines_do_not_matter(ending: str, source: Source, table: Rows) -> None:
    folder = source(table=to_csv(table).replace(b"\r\n", ending.encode()) + ending.encode() * 2)
    to_files(folder, {"statistics.csv": b"label,count\nEdema,3\n", "empty.csv": b""})
    assert [row.filename for row in plan(folder)] == [row["filename"] for row in table]


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
    ("options", "expected_error"),
    [
        ({"uncertainty": "U-Zeros"}, r"uncertainty='U-Zeros' is not one of zeros, ones, keep"),
        ({"on_mismatch": "ignore"}, r"on_mismatch='ignore' is not one of error, skip"),
        ({"num_proc": 2, "streaming": True}, "num_proc builds the cache and streaming=True builds none"),
    ],
)
def test_wrong_parameters(options: dict[str, Any], expected_error: str) -> None:
    with pytest.raises(ValueError, match=expected_error):
        load(FIXTURE, **options)


def test_load_explains_its_parameters() -> None:
    text = inspect.getdoc(load) or ""
    arguments = text.partition("Args:")[2].partition("Returns:")[0]
    assert re.findall(r"^    (\w+) \(", arguments, re.M) == list(inspect.signature(load).parameters)
    for value in ("zeros", "ones", "keep", "error", "skip", "train"):
        assert f'`"{value}"`' in arguments
    for section in ("Raises:", "Example:", "SourceError", "hf://datasets/", "site-packages"):
        assert section in text


@pytest.mark.parametrize(
    ("folder", "files", "is_source"),
    [
        ("code", {"results.csv": b"image,fid\n1.png,2\n", "plot.png": b"x"}, False),
        ("code", {"data/x.csv": b"a,b\n1,2\n", "data/y.csv": b"\xff\xfe\0\n", "data/empty.csv": b""}, False),
        ("code", {"deep/er/all.zip": b"", "tests/metadata.csv": b"filename,prompt,labels_dict\n"}, False),
        ("code", {"metadata.csv": b"filename,prompt,labels_dict\n"}, True),
        ("code", {"data/m.csv": f"\ufefffile_name, prompt,{','.join(LABELS)}\n".encode()}, True),
        ("code", {"a.zip": b""}, True),
        ("code", {"data/a.tar": b""}, True),
        ("lib/site-packages", {"a.zip": b"", "data/m.csv": b"filename,prompt,labels_dict\n"}, False),
        ("lib/dist-packages", {"a.zip": b""}, False),
    ],
)
def test_when_the_folder_of_the_script_is_a_source(
    folder: str, files: dict[str, bytes], is_source: bool, tmp_path: Path
) -> None:
    own = tmp_path / folder
    to_files(own, {"synthchex_75k.py": b"", **files})
    (own / "link.csv").symlink_to(tmp_path / "gone")
    found = synthchex_75k._find_source(None, str(own), None, local=True)
    assert found[0] == (str(own) if is_source else "hf://datasets/raman07/SynthCheX-75K@main")


@pytest.mark.parametrize("shape", [one_zip, zips])
def test_without_a_source_the_folder_of_the_script_is_read(shape: Write, source: Source, expected: Rows) -> None:
    folder = source(shape=shape)
    shutil.copy(ROOT / "synthchex_75k.py", folder)
    for other in ("tests/fixture", ".venv/fixture"):  # as in a clone of this repository
        shutil.copytree(FIXTURE, folder / other)
    code = "import synthchex_75k; print([row['filename'] for row in synthchex_75k.load(streaming=True)])"
    run = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert ast.literal_eval(run.stdout) == [row["filename"] for row in expected]


def test_checksums_are_those_of_the_fast_package_where_it_is_installed() -> None:
    assert synthchex_75k.crc32(b"123456789") == 0xCBF43926  # the check value of CRC-32
    assert (synthchex_75k.crc32 is zlib.crc32) == (importlib.util.find_spec("zlib_ng") is None)


def test_a_build_reuses_the_memory_of_earlier_images(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    padded(source, 240, 1 << 18)
    code = """if True:
        import resource, sys, synthchex_75k
        def faults(cache):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            synthchex_75k.load(sys.argv[1], cache_dir=cache)
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        print([faults(cache) for cache in sys.argv[2:]])
    """
    caches = [str(tmp_path / "first"), str(tmp_path / "second")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, str(source), *caches]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    _, second = ast.literal_eval(run.stdout.splitlines()[-1])
    assert second * resource.getpagesize() < 240 << 17  # bytes; half of the images


def test_without_a_source_anywhere_the_release_is_asked_for(hub: Hub, tmp_path: Path) -> None:
    shutil.copy(ROOT / "synthchex_75k.py", tmp_path)
    shutil.copytree(FIXTURE, tmp_path / "tests/fixture")
    code = "import synthchex_75k; synthchex_75k.load(streaming=True)"
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert hub.asked("/datasets/raman07/SynthCheX-75K")
    assert "SourceError: hf://datasets/raman07/SynthCheX-75K@main cannot be read: " in run.stderr


def test_any_fsspec_address_is_a_source(expected: Rows, rows_of: Callable[..., Rows]) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(f"{FIXTURE}/", "/release/", recursive=True)
    try:
        assert rows_of(load("memory://release", streaming=True, uncertainty="keep")) == expected
    finally:
        memory.rm("/release", recursive=True)


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
