"""Which rows match a filter, in which order, and the counts of their labels."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.browse.filters import MATCHES, STATES, Filter
from pipeline.browse.index import NO_ANSWER, Answer, ImageList, Index, Listed
from synthchex_75k import LABELS, Row

WORDS = ("Effusion", "left", "LEFT base", "no edema", "心影")
ROWS = st.lists(
    st.tuples(
        st.lists(st.sampled_from(WORDS), max_size=3).map(" ".join),
        st.lists(st.sampled_from([1, 0, -1, None]), min_size=14, max_size=14).map(tuple),
    ),
    min_size=1,
    max_size=8,
)
PAIRS = st.lists(st.tuples(st.sampled_from(LABELS[:3]), st.sampled_from([*STATES])), max_size=3, unique=True)


def index_of(rows: list[tuple[str, tuple[int | None, ...]]], **known: object) -> Index:
    planned = [
        Row(f"Image{number}.png", "a.zip", "", 0, 1, 1, None, prompt, labels)
        for number, (prompt, labels) in enumerate(rows)
    ]
    return Index(planned, **known)  # type: ignore[arg-type]


@given(ROWS, PAIRS, st.sampled_from(MATCHES), st.lists(st.sampled_from(["left", "effusion", "心影"]), max_size=2))
def test_rows_match_as_one_by_one(
    rows: list[tuple[str, tuple[int | None, ...]]], pairs: list[tuple[str, str]], match: str, words: list[str]
) -> None:
    index = index_of(rows)
    found = index.find(Filter(tuple(pairs), match, " ".join(words)))
    wanted = []
    for number, (prompt, labels) in enumerate(rows):
        holds = [labels[LABELS.index(label)] == STATES[state] for label, state in pairs]
        has_labels = (any if match == "any" and pairs else all)(holds)
        if has_labels and all(word in prompt.lower() for word in words):
            wanted.append(number)
    assert found.tolist() == wanted
    for column, (label, counts) in enumerate(index.counts(found).items()):
        seen = Counter(rows[number][1][column] for number in wanted)
        assert (label, counts) == (LABELS[column], [seen[value] for value in STATES.values()])


def test_filters_by_name_patient_and_quality() -> None:
    labels = (None,) * 14
    answers = {f"Image{number}.png": Answer("Low Quality" if number else "High Quality", "x", "m") for number in (0, 1)}
    index = index_of([("a", labels)] * 4, answers=answers, patients=["p1", "p1", "p11", None])
    assert index.find(Filter(name="IMAGE2")).tolist() == [2]
    assert index.find(Filter(patient="p1")).tolist() == [0, 1]
    assert index.find(Filter(patient="p1", qualities=("Low Quality",))).tolist() == [1]
    assert index.find(Filter(qualities=("Low Quality", NO_ANSWER))).tolist() == [1, 2, 3]
    assert index.qualities == [NO_ANSWER, *sorted(["High Quality", "Low Quality"])] or index.qualities[0] == NO_ANSWER


def test_listed_images_come_first_in_their_order() -> None:
    labels = (None,) * 14
    listed = ImageList("odd", {f"Image{number}.png": Listed(1.0, 0, None) for number in (3, 1, 9)})
    index = index_of([("a", labels)] * 5, lists=[listed])
    assert index.find(Filter(sort="odd")).tolist() == [3, 1, 0, 2, 4]
    assert index.find(Filter(sort="odd", name="Image1")).tolist() == [1]
    assert index.find(Filter()).tolist() == [0, 1, 2, 3, 4]
    assert index.counts(np.array([], int)) == {label: [0, 0, 0, 0] for label in LABELS}
