"""Which results share a table, and which of their values differ."""

from pathlib import Path
from typing import Any

import pytest

from invented_results import metric, results, write_results
from pipeline.errors import StepError
from pipeline.evaluate.page.side_by_side import (
    Column,
    Key,
    best_of,
    cautions,
    differing_from,
    labels_of,
    read_side_by_side,
)
from synthchex_75k import LABELS

FD = Key("fd", "rad-dino")


def columns(folder: Path, *found: dict[str, Any]) -> list[Column]:
    """Writes and reads results."""
    return read_side_by_side([write_results(folder / f"{number}.json", one) for number, one in enumerate(found)])


def with_fd(*values: float, name: str = "fd", share: float = 0.04, **changes: Any) -> list[dict[str, Any]]:
    return [results(metrics=[metric(name, "rad-dino", None, value, share, **changes)]) for value in values]


def test_intervals_that_do_not_overlap_differ(tmp_path: Path) -> None:
    found = columns(tmp_path, *with_fd(50, 60, 61))
    assert [column.head for column in found] == ["A: sana-e20", "B: sana-e20", "C: sana-e20"]
    assert differing_from(found, FD) == [["B", "C"], ["A"], ["A"]]
    assert best_of(found, FD) == 0


def test_higher_is_better_for_coverage(tmp_path: Path) -> None:
    found = columns(tmp_path, *with_fd(0.5, 0.6, name="coverage"))
    assert best_of(found, Key("coverage", "rad-dino")) == 1


@pytest.mark.parametrize(
    "values, changes",
    [((50, 51), {}), ((50, 60), {"ci_low": None, "ci_high": None}), ((50, 60), {"name": "vendi"}), ((50,), {})],
    ids=["overlap", "no interval", "no direction", "alone"],
)
def test_none_is_best(values: tuple[float, ...], changes: dict[str, Any], tmp_path: Path) -> None:
    found = columns(tmp_path, *with_fd(*values, **changes))
    assert best_of(found, Key(changes.get("name", "fd"), "rad-dino")) is None
    assert changes or differing_from(found, FD) == [[] for _ in values]


def test_refused_value_is_no_rival(tmp_path: Path) -> None:
    found = columns(
        tmp_path, *with_fd(50, 60), results(metrics=[metric("fd", "rad-dino", None, None)]), results(metrics=[])
    )
    assert differing_from(found, FD) == [["B"], ["A"], [], []]
    assert best_of(found, FD) == 0


def test_other_sizes_are_compared_only_by_metrics_that_do_not_depend_on_them(tmp_path: Path) -> None:
    names = {"fd": [[], []], "kid": [["B"], ["A"]]}
    for name, expected in names.items():
        found = with_fd(50, 60, name=name)
        found[1]["metrics"][0]["n_synthetic"] = found[1]["synthetic"]["rows"] = 1000
        read = columns(tmp_path, *found)
        assert differing_from(read, Key(name, "rad-dino")) == expected
        assert ["numbers of synthetic images differ" in text for text in cautions(read)] == [True]


def test_other_real_images_are_stated_and_not_compared(tmp_path: Path) -> None:
    one, two = with_fd(50, 60)
    two["real"]["source"] = "/data/others"
    found = columns(tmp_path, one, two)
    (text,) = cautions(found)
    assert (
        text.startswith("Fidelity: the real images differ (A: 2,461 images of ")
        and "B: 2,461 images of /data/others" in text
    )
    assert differing_from(found, FD) == [[], []]


def test_other_fingerprints_are_stated_and_not_compared(tmp_path: Path) -> None:
    one, two = with_fd(50, 60)
    two["synthetic"]["encoders"]["rad-dino"]["fingerprint"] = "other"
    found = columns(tmp_path, one, two)
    (text,) = cautions(found)
    assert text.startswith("Fidelity, rad-dino: the features of A and B have different fingerprints")
    assert differing_from(found, FD) == [[], []]


def test_equal_results_need_no_caution(tmp_path: Path) -> None:
    assert cautions(columns(tmp_path, *with_fd(50, 60))) == []
    assert cautions(columns(tmp_path, results())) == []


def test_protocols_never_share_a_table(tmp_path: Path) -> None:
    with pytest.raises(StepError) as caught:
        columns(tmp_path, results(), results(protocol="chexgenbench", metrics=[]), results())
    one, two = tmp_path / "0.json", tmp_path / "1.json"
    assert f"never share a table ({two} is chexgenbench, {one} is sound)" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}"])
def test_damaged_results(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_bytes(content)
    with pytest.raises(StepError, match=r"r\.json: "):
        read_side_by_side([tmp_path / "r.json"])


def test_labels_are_those_asked_for(tmp_path: Path) -> None:
    found = columns(tmp_path, results(labels=["Fracture"], metrics=[]), results(labels=["Edema"], metrics=[]))
    assert labels_of(found) == ["Edema", "Fracture"]
    assert labels_of([*found, *columns(tmp_path, results())]) == [*LABELS]


def test_more_results_than_letters(tmp_path: Path) -> None:
    found = columns(tmp_path, *(results(metrics=[]) for _ in range(28)))
    assert [column.letter for column in found[24:]] == ["Y", "Z", "A1", "B1"]
