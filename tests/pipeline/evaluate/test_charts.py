"""Charts stay inside their box, whatever the values."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outline import Outline
from pipeline.evaluate.page.charts import Group, Line, Mark, axis_of, chart, format_interval, format_number, legend

numbers = st.floats(allow_nan=False, allow_infinity=False)
maybe = st.none() | numbers
marks = st.builds(Mark, numbers, maybe, maybe, st.sampled_from(["", "chance", "real"]))
lines = st.builds(
    Line, st.text(max_size=5), st.just(()), numbers, maybe, maybe, st.lists(marks, max_size=3), st.integers(0, 9)
)


def positions(markup: str) -> dict[str, list[float]]:
    """Returns the shares of the width at which marks are, by attribute."""
    found: dict[str, list[float]] = {}
    for name, value in re.findall(r' (x|x1|x2|cx|width)="(-?[\d.a-z]+)%"', markup):
        found.setdefault(name, []).append(float(value))
    return found


@given(st.lists(lines, min_size=1, max_size=4), st.sampled_from([(), (0,), (0, 1), (0.5, 1)]))
def test_everything_is_in_its_box(found: list[Line], include: tuple[float, ...]) -> None:
    drawn = chart("Chart", [Group("", found)], include)
    Outline(drawn)
    assert drawn.count("<circle") == len(found)
    for name, shares in positions(drawn).items():
        assert all(0 <= share <= 100 for share in shares), name
    bands = re.findall(r'<rect class="spread" x="([\d.]+)%" width="([\d.]+)%"', drawn)
    assert all(float(start) + float(width) <= 100.02 for start, width in bands), "rounded to hundredths"


@given(st.lists(numbers, max_size=5), st.sampled_from([(), (0,), (0, 1)]))
def test_axis_holds_its_values_between_few_ticks(values: list[float], include: tuple[float, ...]) -> None:
    axis = axis_of(values, include)
    assert 2 <= len(axis.ticks) <= 6
    assert axis.ticks == sorted({*axis.ticks})
    for value in (*values, *include):
        assert axis.low - 1e-9 <= value / axis.unit <= axis.high + 1e-9
        assert 0 <= axis.position(value) <= 1


def test_order_is_kept() -> None:
    axis = axis_of([54.2, 12.5], [0])
    assert [axis.position(value) for value in (0, 30, 60)] == [0, 0.5, 1]
    drawn = chart("FD", [Group("", [Line("A", (), 54.0, 48.0, 60.0, [Mark(6.0, 3.0, 9.0)])])], [0])
    found = positions(drawn)
    assert found["cx"] == [90]
    assert '<line class="interval" x1="80.00%" x2="100.00%"' in drawn
    assert '<rect class="spread" x="5.00%" width="10.00%"' in drawn
    assert '<line class="floor" x1="10.00%"' in drawn


def test_unknown_interval_and_floor_are_not_drawn() -> None:
    drawn = chart("FD", [Group("", [Line("A", (), 54.0)])])
    assert not re.search('class="(interval|spread|floor)"', drawn)


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", '" onload="x', "a & b"])
def test_texts_are_escaped(text: str) -> None:
    drawn = chart(text, [Group(text, [Line(text, [text], 1.0)])])
    assert Outline(drawn).text.count(text) == 3
    assert not re.search(r"<script|onload=\"", drawn)


def test_groups_share_an_axis() -> None:
    drawn = chart(
        "FD",
        [Group("Edema", [Line("A", (), 10.0), Line("B", (), 20.0)]), Group("Fracture", [Line("A", (), 5.0)])],
        [0],
    )
    assert drawn.count('class="axis"') == 1
    assert positions(drawn)["cx"] == [50, 100, 25]
    assert re.findall(r'class="group">(\w+)', drawn) == ["Edema", "Fracture"]


@pytest.mark.parametrize(
    ("value", "width", "text"),
    [
        (54.2249, 4.2, "54.2"),
        (0.0, None, "0"),
        (-0.00012345, None, "-0.0001234"),
        (12345.6, 400.0, "12,346"),
        (0.5, 0.0, "0.5000"),
        (1e300, None, "1e+300"),
        (3.0, 1e-30, "3.00000000"),
        (math.inf, None, "inf"),
    ],
)
def test_numbers(value: float, width: float | None, text: str) -> None:
    assert format_number(value, width) == text


@given(numbers, maybe)
def test_any_number_has_a_short_text(value: float, width: float | None) -> None:
    assert 1 <= len(format_number(value, width)) <= 20
    assert format_interval(value, None) == ""
    assert " to " in format_interval(value, value)


def test_legend_explains_every_mark() -> None:
    for mark in ("interval", "spread", "floor"):
        assert f'class="{mark}"' in legend()
    assert "standard deviation" in Outline(legend()).text


def test_what_all_lines_have_is_said_once() -> None:
    def line(name: str, *notes: str, chance: float) -> Line:
        return Line(name, notes, 0.6, marks=[Mark(0.0, text="none"), Mark(chance, text=f"chance {chance}")])

    drawn = chart(
        "AUROC",
        [
            Group("Edema", [line("A", "n 9", "A alone", chance=0.3), line("B", "n 9", chance=0.3)]),
            Group("Fracture", [line("A", "n 4", chance=0.2), Line("real", ["n 7"], 0.5, is_baseline=True)]),
        ],
    )
    texts = [Outline(item).text for item in re.findall("<li.*?</li>", drawn)]
    assert texts[0] == " none"
    assert texts[2:] == [
        "Edeman 9 chance 0.3",
        "AA alone0.6000",
        "B0.6000",
        "Fracture",
        "An 4 chance 0.20.6000",
        "realn 70.5000",
    ]
    (spoken,) = re.findall('aria-label="(Edema, A[^"]*)', drawn)
    assert spoken == "Edema, A, 0.6000, n 9, A alone, none, chance 0.3", "whoever hears one line hears all of it"


def test_marks_of_different_names_look_different() -> None:
    marks = [Mark(0.1, text="chance"), Mark(0.2, 0.1, 0.3, "real"), Mark(0.3, text="expected")]
    drawn = chart("Rate", [Group("", [Line("A", (), 0.5, marks=marks)])])
    assert re.findall(r'class="(floor[^"]*)"', drawn) == ["floor", "floor m1", "floor m2"] * 2
    assert re.findall(r"<small><svg.*?</svg> (\w+)", drawn) == ["chance", "real", "expected"]


def test_caution_stands_out() -> None:
    drawn = chart("AUROC", [Group("", [Line("A", (), 0.5, caution="only 9 positive")])])
    assert '<small class="caution">only 9 positive</small>' in drawn and ", only 9 positive" in drawn


def test_legend_has_only_what_is_shown() -> None:
    assert "chance" not in legend() and "floor:" not in legend(floors=False, references=True)
    assert "chance" in legend(floors=False, references=True)
