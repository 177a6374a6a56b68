"""`dataset.json`: every key is checked, and every error names it."""

import datetime
import json
import re
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from conftest import ROOT
from pipeline.dataset_json import CHECKS, LICENSES, DatasetFacts, parse_dataset_json
from pipeline.parquet.steps import IN_SENTENCES, WORDS
from pipeline.provenance import parse_provenance
from synthchex_75k import SourceError

WHOLE: dict[str, Any] = {
    "name": "Chests of mountains",
    "description": "Images.\nTwo lines.",
    "images": "real",
    "authors": ["Ada", "Émile"],
    "license": "cc-by-4.0",
    "citation": "@misc{a, title = {A}}",
    "homepage": "https://example.org/a?b=c#d",
    "paper": "https://example.org/paper",
    "date": "2026-02-28",
    "version": "1.0.0",
}
LINES = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1)
VALID = {
    "name": LINES,
    "description": LINES,
    "images": st.sampled_from(["synthetic", "real"]),
    "authors": st.lists(LINES, min_size=1),
    "license": st.sampled_from(sorted(LICENSES)) | st.just("https://example.org/terms"),
    "citation": LINES.map(lambda text: f"@misc{{a, title = {{{text.replace('<!--', '')}}}}}"),
    "homepage": st.just("https://example.org"),
    "paper": st.just("http://example.org/p.pdf"),
    "date": st.dates(datetime.date(1000, 1, 1)).map(str),
    "version": LINES,
}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*CHECKS, "x"]), inner, max_size=3),
    max_leaves=6,
)


def parse(found: Any) -> DatasetFacts:
    return parse_dataset_json(json.dumps(found).encode(), "folder/dataset.json")


def errors_of(found: Any) -> list[str]:
    with pytest.raises(SourceError) as caught:
        parse(found)
    first, *problems = str(caught.value).split("\n")
    assert first == "folder/dataset.json cannot be used as it is"
    return problems


def test_all_keys_are_optional() -> None:
    assert parse(WHOLE) == DatasetFacts(**{**WHOLE, "authors": ("Ada", "Émile")})
    assert parse(WHOLE).missing == []
    assert parse({}) == DatasetFacts()
    assert parse({}).missing == list(WHOLE) == list(CHECKS)
    for key in WHOLE:
        assert parse({name: value for name, value in WHOLE.items() if name != key}).missing == [key]


@given(st.fixed_dictionaries({}, optional=VALID))
def test_valid_values_are_kept(found: dict[str, Any]) -> None:
    facts = parse(found)
    for key, value in found.items():
        assert getattr(facts, key) == (tuple(value) if key == "authors" else value)
    assert {*facts.missing} == {*CHECKS} - {*found}


@given(st.dictionaries(st.sampled_from([*CHECKS, "licence", "x"]), ANYTHING, max_size=4))
def test_anything_else_is_refused_by_its_key(found: dict[str, Any]) -> None:
    try:
        facts = parse(found)
    except SourceError as error:
        named = {
            line.split()[1] if "unknown" not in line else line.split("'")[1] for line in str(error).split("\n")[1:]
        }
        assert named
        assert named <= {*found}
        parse({key: value for key, value in found.items() if key not in named})
    else:
        assert {*found} <= {*CHECKS}
        for key, value in found.items():
            assert isinstance(value, list) == (key == "authors")
            assert getattr(facts, key)
        yaml.safe_dump(facts._asdict())


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"licence": "mit"}, "- unknown key 'licence'; the keys are name, description, images, authors, license, "),
        ({"name": ""}, "- name must be one line of text, not ''"),
        ({"name": "a\nb"}, r"- name must be one line of text, not 'a\nb'"),
        ({"name": None}, "- name must be one line of text, not None"),
        ({"description": 3}, "- description must be a text, not 3"),
        ({"images": "Synthetic"}, '- images must be "synthetic" or "real", not \'Synthetic\''),
        ({"images": ["real"]}, '- images must be "synthetic" or "real", not [\'real\']'),
        ({"authors": "Ada"}, "- authors must be a list of names, not 'Ada'"),
        ({"authors": []}, "- authors must be a list of names, not []"),
        ({"authors": ["Ada", ""]}, "- authors must be a list of names, not ['Ada', '']"),
        ({"license": "Apache-2.0"}, "- license must be a license identifier of the Hub such as cc-by-4.0, "),
        ({"license": "https://"}, "- license must be a license identifier of the Hub such as cc-by-4.0, "),
        ({"citation": "Ada, 2026"}, "- citation must be BibTeX, starting with @, not 'Ada, 2026'"),
        ({"citation": "@misc{a,\n```\n}"}, "- citation must be BibTeX, starting with @, not "),
        ({"citation": "@misc{<!-- END use -->}"}, "- citation must be BibTeX, starting with @, not "),
        ({"homepage": "example.org"}, "- homepage must be an address, https://…, not 'example.org'"),
        ({"homepage": "https://[x"}, "- homepage must be an address, https://…, not 'https://[x'"),
        ({"paper": "https://a b"}, "- paper must be an address, https://…, not 'https://a b'"),
        ({"date": "2026-02-30"}, "- date must be a date, YYYY-MM-DD, not '2026-02-30'"),
        ({"date": "20260228"}, "- date must be a date, YYYY-MM-DD, not '20260228'"),
        ({"version": 1}, "- version must be one line of text, such as 1.0.0, not 1"),
    ],
    ids=str,
)
def test_problem_names_key_and_remedy(change: dict[str, Any], problem: str) -> None:
    (found,) = errors_of({**WHOLE, **change})
    assert found.startswith(problem)


def test_examples_of_the_manual_are_valid() -> None:
    manual = (ROOT / "scripts/README.md").read_text(encoding="utf-8")
    dataset, provenance = re.findall(r"^```json\n(.*?)^```", manual, re.DOTALL | re.MULTILINE)
    assert parse_dataset_json(dataset.encode(), "").missing == []
    assert [step["step"] for step in parse_provenance(provenance.encode(), "")] == ["generate"]
    fields = {*re.findall(r"`(\w+)`", manual.partition("| step | fields |")[2].partition("\n\n")[0])}
    assert fields >= {*IN_SENTENCES, *WORDS} - {"step", "sha256"}, "the table has every field that is known"


def test_all_problems_are_listed() -> None:
    assert len(errors_of({"a": 1, "b": 2, "name": 3, "date": "today"})) == 4
