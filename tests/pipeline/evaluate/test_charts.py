"""Charts stay inside their box, whatever the values."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outline import Outline
from pipeline.evaluate.charts import Line, axis_of, chart, format_interval, format_number, legend

numbers = st.floats(allow_nan=False, allow_infinity=False)
maybe = st.none() | numbers
spreads = st.none() | st.floats(0, allow_nan=False, allow_infinity=False)
lines = st.builds(Line, st.text(max_size=5), st.just(()), numbers, maybe, maybe, maybe, spreads, st.integers(0, 9))


def positions(markup: str) -> dict[str, list[float]]:
    """Returns the shares of the width at which marks are, by attribute."""
    found: dict[str, list[float]] = {}
    for name, value in re.findall(r' (x|x1|x2|cx|width)="(-?[\d.a-z]+)%"', markup):
        found.setdefault(name, []).append(float(value))
    return found


@given(st.lists(lines, min_size=1, max_size=4), st.sampled_from([(), (0,), (0, 1), (0.5, 1)]))
def test_everything_is_in_its_box(found: list[Line], include: tuple[float, ...]) -> None:
    drawn = chart("Chart", [("", found)], include)
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
    drawn = chart("FD", [("", [Line("A", (), 54.0, 48.0, 60.0, 6.0, 3.0)])], [0])
    found = positions(drawn)
    assert found["cx"] == [90]
    assert '<line class="interval" x1="80.00%" x2="100.00%"' in drawn
    assert '<rect class="spread" x="5.00%" width="10.00%"' in drawn
    assert '<line class="floor" x1="10.00%"' in drawn


def test_unknown_interval_and_floor_are_not_drawn() -> None:
    drawn = chart("FD", [("", [Line("A", (), 54.0)])])
    assert not re.search('class="(interval|spread|floor)"', drawn)


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", '" onload="x', "a & b"])
def test_texts_are_escaped(text: str) -> None:
    drawn = chart(text, [(text, [Line(text, [text], 1.0)])])
    assert Outline(drawn).text.count(text) == 3
    assert not re.search(r"<script|onload=\"", drawn)


def test_groups_share_an_axis() -> None:
    drawn = chart(
        "FD", [("Edema", [Line("A", (), 10.0), Line("B", (), 20.0)]), ("Fracture", [Line("A", (), 5.0)])], [0]
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
