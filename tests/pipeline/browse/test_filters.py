"""A filter and the query of its address."""

import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.browse.filters import (
    MATCHES,
    MAX_TEXT,
    STATES,
    Filter,
    chosen_labels,
    from_query,
    label_choices,
    to_query,
    words_of,
)
from synthchex_75k import LABELS

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
PAIRS = st.tuples(st.sampled_from(LABELS), st.sampled_from([*STATES]))
FILTERS = st.builds(
    Filter,
    labels=st.lists(PAIRS, unique=True, max_size=6).map(tuple),
    match=st.sampled_from(MATCHES),
    words=TEXTS,
    qualities=st.lists(TEXTS, unique=True, max_size=3).map(tuple),
    patient=TEXTS,
    name=TEXTS,
    sort=TEXTS,
    page=st.integers(1, 10**9 - 1),
    image=TEXTS,
)


@given(FILTERS)
def test_an_address_holds_the_filter(wanted: Filter) -> None:
    query = to_query(wanted)
    assert from_query(query) == (wanted, [])
    assert from_query(f"?__theme=dark&{query}") == (wanted, [])
    assert urllib.parse.quote(query, safe="=&%+:") == query, "it needs no further quoting in a link"


def test_an_address_holds_the_longest_texts() -> None:
    searched = "é" * MAX_TEXT
    wanted = Filter(words=searched, patient=searched, name=searched, qualities=("q" * 5000,), image="i" * 60_000)
    assert from_query(to_query(wanted)) == (wanted, [])


def test_the_default_has_no_query() -> None:
    assert to_query(Filter()) == ""
    assert from_query("") == from_query("?") == (Filter(), [])


@given(st.text(max_size=300))
def test_any_query_is_read(query: str) -> None:
    wanted, problems = from_query(query)
    assert from_query(to_query(wanted))[0] == wanted
    assert all(len(problem) < 200 for problem in problems)


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("label=Oedema:positive", "The address has an unknown label: 'Oedema:positive'."),
        ("label=Edema:maybe", "The address has an unknown label: 'Edema:maybe'."),
        ("label=Edema", "The address has an unknown label: 'Edema'."),
        ("match=none", "The address has match='none'; it is one of all, any."),
        ("page=0", "The address has page='0'; it is a number from 1 on."),
        ("page=1e3", "The address has page='1e3'; it is a number from 1 on."),
        ("colour=red", "The address has an unknown part: 'colour'."),
        (f"words={'x' * (MAX_TEXT + 1)}", "The address has more than 1,000 characters in words."),
        ("&".join(["quality=a"] * 300), "The address has more than 200 parts."),
    ],
)
def test_what_cannot_be_used_is_named(query: str, problem: str) -> None:
    assert from_query(query) == (Filter(), [problem])


def test_words_and_phrases() -> None:
    assert words_of('  Left "Lower lobe" EDEMA "" "open end') == ["left", "lower lobe", "edema", "open end"]


def test_each_label_has_each_state() -> None:
    choices = [*label_choices()]
    assert len({*choices}) == 56
    assert chosen_labels(choices) == tuple((label, state) for label in LABELS for state in STATES)
    assert chosen_labels(["Edema", "Edema: maybe", ""]) == ()
