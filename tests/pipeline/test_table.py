"""What is written as CSV is read back equal, or refused by name before it is written."""

import csv
import io
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import synthchex_75k
from conftest import to_files, to_zip
from pipeline.columns import read_columns, read_kept_columns
from pipeline.quality.labels_csv import LabelsFile, QualityLabel, read_labels
from pipeline.source_writer import metadata_csv
from pipeline.table import MAX_FIELD, csv_bytes
from synthchex_75k import COLUMNS, LABELS, Row

SPECIAL = st.sampled_from(
    ["\r", "\n", "\r\n", '"', '""', ",", " ", "\t", "\u2028", "\x85", "\ufeff", "=1+1", "'", "\\"]
)
TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")) | SPECIAL).map("".join)
# What a file name can be: the last component of a path, without surrounding white space, and none that a Mac adds.
NAMES = TEXTS.map(lambda text: text.replace("/", "").replace("\\", "").strip() + ".png").filter(
    lambda name: not name.startswith("._")
)
TABLES = st.lists(st.lists(TEXTS, min_size=2, max_size=3), max_size=4)
KNOWN = {*LABELS, *(name for names in COLUMNS.values() for name in names)}  # columns that are part of a row
RAW = st.tuples(*[st.sampled_from([1, 0, -1, None])] * len(LABELS))


@given(rows=TABLES)
@example(rows=[["x" * MAX_FIELD, "\N{PILE OF POO}" * MAX_FIELD, '\r"' * (MAX_FIELD // 2)]])
def test_a_csv_is_read_back_equal(rows: list[list[str]]) -> None:
    data = csv_bytes(rows)
    assert [*csv.reader(io.StringIO(data.decode(), newline=""), strict=True)] == rows
    assert [*csv.reader(line.decode() for line in io.BytesIO(data))] == rows, "as this repository reads"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\0b", r"a CSV cannot hold the character '\x00' of 'a\x00b'"),
        ("\udcff.png", r"a CSV cannot hold the character '\udcff' of '\udcff.png'"),
        ("x" * (MAX_FIELD + 1), f"a CSV cannot hold the 131,073 characters of '{'x' * 40}'…, at most 131,072"),
    ],
    ids=["NUL", "surrogate", "long"],
)
def test_what_a_csv_cannot_hold_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        csv_bytes([["a", "b"], ["c", text]])
    assert str(caught.value) == message


@settings(max_examples=50)
@given(
    rows=st.lists(
        st.tuples(NAMES, TEXTS.map(lambda text: text if text.strip() else "x"), RAW),
        min_size=1,
        max_size=3,
        unique_by=lambda row: row[0],
    )
)
def test_the_metadata_of_a_source_is_read_back_equal(rows: list[tuple[str, str, tuple[int | None, ...]]]) -> None:
    written = [Row(name, "", "", 0, None, 1, None, prompt, labels) for name, prompt, labels in rows]
    with tempfile.TemporaryDirectory() as folder:
        to_zip(Path(folder) / "images.zip", {f"img/{name}": b"x" for name, _, _ in rows})
        to_files(Path(folder), {"metadata.csv": metadata_csv(written)})
        assert [(row.filename, row.prompt, row.labels) for row in synthchex_75k.plan(folder)] == rows


@settings(max_examples=50)
@given(
    others=st.dictionaries(
        TEXTS.map(str.strip).filter(lambda name: name and name not in KNOWN),
        st.lists(TEXTS.map(lambda text: text if text.strip() else None), min_size=2, max_size=2),
        min_size=1,
        max_size=3,
    )
)
def test_further_columns_are_read_back_equal(others: dict[str, list[str | None]]) -> None:
    rows = [Row(name, "", "", 0, None, 1, None, "Round.", (None,) * len(LABELS)) for name in ("a.png", "b.png")]
    with tempfile.TemporaryDirectory() as folder:
        to_files(Path(folder), {"a.png": b"x", "b.png": b"x", "metadata.csv": metadata_csv(rows, others)})
        planned = synthchex_75k.plan(folder)
        assert read_columns(folder, planned, [*others]) == others
        assert read_kept_columns(folder, planned) == others


@settings(max_examples=50)
@given(
    texts=st.lists(st.tuples(NAMES, TEXTS), min_size=1, max_size=3, unique_by=lambda label: label[0]),
    model=TEXTS,
    cut=st.integers(min_value=1),
)
def test_labels_are_read_back_equal(texts: list[tuple[str, str]], model: str, cut: int) -> None:
    """Also after a crash, in which the last row is half-written."""
    labels = [QualityLabel(name, "Unparsed", answer, model, 1.5) for name, answer in texts]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels.csv"
        lengths = []
        with LabelsFile(path, model, "q") as file:
            for label in labels:
                lengths.append(path.stat().st_size)
                file.append([label])
        whole = path.read_bytes()
        assert read_labels(path) == labels
        last = len(whole) - lengths[-1]
        path.write_bytes(whole[: lengths[-1] + cut % last])
        with LabelsFile(path, model, "q") as file:
            assert (file.labels, file.repaired) == (labels[:-1], cut % last)
            file.append(labels[-1:])
        assert path.read_bytes() == whole


@pytest.mark.parametrize("label", [("a.png", "\ud800", "m"), ("\0.png", "x", "m"), ("a.png", "x", "m" * 131_073)])
def test_a_label_that_a_csv_cannot_hold_is_not_written(label: tuple[str, str, str], tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    filename, answer, model = label
    with LabelsFile(path, "m", "q") as file:
        file.append([QualityLabel("first.png", "Unparsed", "x", "m", 1.0)])
        before = path.read_bytes()
        with pytest.raises(ValueError, match="a CSV cannot hold"):
            file.append([QualityLabel(filename, "Unparsed", answer, model, 1.0)])
    assert path.read_bytes() == before
