"""Prompts of any text and any name, and the seeds of their images."""

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.generate.prompts import read_prompts, request_images, seed_of

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30)
PROMPT = TEXT.filter(str.strip)
ID = TEXT.map(lambda text: text[:15].strip()).filter(lambda name: name and not name.startswith("."))


@settings(max_examples=200)
@given(st.lists(st.tuples(ID, PROMPT), min_size=1, max_size=8, unique_by=lambda row: row[0].casefold()))
def test_any_id_names_images_and_no_two_share_a_name(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.mktemp("prompts") / "p.csv"
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([("id", "prompt"), *rows])
    path.write_bytes(text.getvalue().encode())
    requests = request_images(read_prompts(path).rows, 1, 0)
    assert [request.prompt for request in requests] == [prompt for _, prompt in rows]
    names = [request.filename for request in requests]
    assert len({name.casefold() for name in names}) == len(rows)
    assert all("/" not in name and name.isprintable() for name in names)


@given(st.lists(st.tuples(st.integers(), TEXT, st.integers(0)), min_size=2, max_size=2, unique=True))
def test_seeds_differ_where_anything_does(keys: list[tuple[int, str, int]]) -> None:
    first, second = (seed_of(*key) for key in keys)
    assert first != second
    assert {0 <= seed < 2**63 for seed in (first, second)} == {True}


def test_seeds_are_those_of_before() -> None:
    # Changing them would change every image that can be repeated.
    assert [seed_of(0, "a", 0), seed_of(0, "a", 1), seed_of(1, "a", 0)] == [
        4954306405812356283,
        1292977548861752322,
        8708353021971044429,
    ]
