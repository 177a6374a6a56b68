"""TEXTS_CSV: what is written is read back equal, and what cannot be scored is refused with its line."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import to_files
from pipeline.errors import StepError
from pipeline.evaluate.reports.report_texts import ReportText, read_texts, runs_of, write_texts

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
NAME = TEXT.filter(str.strip)
TEXTS = st.builds(
    ReportText, NAME, st.sampled_from(["real", "mixed"]), st.integers(0, 9), st.none(), reference=NAME, text=TEXT
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("texts")


@settings(max_examples=40)
@given(st.lists(TEXTS, max_size=4), st.one_of(st.none(), NAME))
def test_texts_are_read_back_equal(folder: Path, texts: list[ReportText], patient: str | None) -> None:
    path = folder / "t.csv"
    texts = [text._replace(patient=patient) for text in texts]
    write_texts(path, texts)
    assert read_texts(path) == texts
    assert path.read_bytes().split(b"\n")[0].count(b",") == (5 if patient and texts else 4)


def test_a_text_that_no_csv_can_hold(tmp_path: Path) -> None:
    with pytest.raises(StepError, match="cannot hold"):
        write_texts(tmp_path / "t.csv", [ReportText("a", "real", 0, None, "one", "\0")])
    assert not (tmp_path / "t.csv").exists()


def test_two_columns_are_enough(tmp_path: Path) -> None:
    to_files(tmp_path, {"t.csv": b"\xef\xbb\xbfreference, text ,other\r\nno nodule,,7\r\n"})
    assert read_texts(tmp_path / "t.csv") == [ReportText("line 000000002", None, 0, None, "no nodule", "")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no column reference, text, or it is there twice; it has no header"),
        ("filename,reference\na,b\n", "no column text, or it is there twice; it has filename, reference"),
        ("reference,text,text\na,b,c\n", "no column text"),
        ("reference,text\na,b\n ,c\n", "line 3: reference is empty"),
        ("filename,reference,text\n,a,b\n", "line 2: filename is empty"),
        ("patient,reference,text\n,a,b\n", "line 2: patient is empty"),
        ("seed,reference,text\nx,a,b\n", "line 2: the seed 'x' is no number"),
        (f"seed,reference,text\n{'9' * 5000},a,b\n", "line 2: the seed '9999"),
        ("seed,reference,text\n1234567890123456789,a,b\n", "is no number of at most 18 digits"),
        (f"reference,text\na,{'a ' * 10_001}\n", "line 2: text has 20,002 characters, at most 20,000"),
        (f"reference,text\n{'a' * 20_001},b\n", "line 2: reference has 20,001 characters"),
        ("reference,text\na\n", "line 2: 1 cell instead of 2"),
        ('reference,text\na,"b\n', "unreadable CSV"),
        ("reference,text\na,\xff\n", "unreadable CSV"),
    ],
)
def test_what_cannot_be_scored(tmp_path: Path, content: str, message: str) -> None:
    to_files(tmp_path, {"t.csv": content.encode("latin-1")})
    with pytest.raises(StepError) as caught:
        read_texts(tmp_path / "t.csv")
    assert message in str(caught.value)


def text(filename: str = "a", setting: str = "real", seed: int = 0, reference: str = "one") -> ReportText:
    return ReportText(filename, setting, seed, None, reference, "two")


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "no texts"),
        ([text(), text()], "1 image with two texts: a"),
        ([text(), text("b", "mixed")], "not the images of setting real"),
        ([text(), text(setting="mixed", reference="other")], "another reference or patient of a"),
        ([text(), text(setting="mixed", seed=1)], "the settings have different seeds"),
    ],
)
def test_runs_that_do_not_compare(texts: list[ReportText], message: str) -> None:
    with pytest.raises(StepError) as caught:
        runs_of(texts, "t.csv")
    assert message in str(caught.value)


def test_runs_are_sorted_by_file_name() -> None:
    runs = runs_of([text("b"), text("a"), text("a", "mixed"), text("b", "mixed")], "t.csv")
    assert [(run.setting, [one.filename for one in run.texts]) for run in runs] == [
        ("real", ["a", "b"]),
        ("mixed", ["a", "b"]),
    ]
