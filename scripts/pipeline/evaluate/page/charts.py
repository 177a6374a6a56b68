"""Charts of values with their intervals and floors, as HTML and inline SVG: no scripts.

A chart is a list of lines under one axis. Positions are shares of the width, so that a chart fits any screen and its
texts keep their size. The style is `report.css`.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

SERIES = 6  # colours of `report.css`
STYLES = 4  # of ticks
STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)  # between ticks, times a power of ten
INTERVALS = 4  # at most, between ticks
SMALLEST = 1e-300  # smaller numbers are drawn as 0
NARROWEST = 1e-4  # range of an axis, as a share of the largest number on it
RADIUS = 4.5  # of a dot: pixels


class Mark(NamedTuple):
    """What the value of a line is compared with: a tick, and a band around it.

    Attributes:
        value: Where the tick is.
        low: Where the band starts; None for no band.
        high: Where it ends; None for no band.
        text: Plain text that names it; empty if the notes of the line do.
    """

    value: float
    low: float | None = None
    high: float | None = None
    text: str = ""


class Line(NamedTuple):
    """One line of a chart.

    Attributes:
        name: Plain text at its left.
        notes: Plain texts below the name, such as the sample sizes.
        value: Where the dot is.
        low: Lower end of the interval; None if unknown.
        high: Upper end of the interval; None if unknown.
        marks: What the value is compared with.
        series: Which colour; the colours repeat. None: that of texts.
        is_baseline: Whether it is something to compare with: a hollow dot.
        caution: Plain text that stands out below the name.
    """

    name: str
    notes: Sequence[str]
    value: float
    low: float | None = None
    high: float | None = None
    marks: Sequence[Mark] = ()
    series: int | None = 0
    is_baseline: bool = False
    caution: str = ""


class Group(NamedTuple):
    """Lines below a head.

    Attributes:
        head: Plain text; empty for none.
        lines: The lines.
    """

    head: str
    lines: Sequence[Line]


class Axis(NamedTuple):
    """An axis.

    Attributes:
        unit: A power of ten, by which the other numbers are divided.
        low: The left end.
        high: The right end.
        ticks: Where the ticks are.
    """

    unit: float
    low: float
    high: float
    ticks: list[float]

    def position(self, value: float) -> float:
        """Returns where a value lies, from 0 at the left end to 1; one beyond an end lies at the end."""
        share = (value / self.unit - self.low) / (self.high - self.low)
        return min(1.0, max(0.0, share))


def chart(name: str, groups: Sequence[Group], include: Sequence[float] = (), wide: bool = False) -> str:
    """Returns a chart.

    A note or mark that all lines have is named once, above them; one that all lines of a group have, in its head.

    Args:
        name: For screen readers.
        groups: Lines, which share an axis.
        include: Values that the axis includes, such as the bounds of the metric.
        wide: Whether names and values stand beside the lines on a wide screen; they stand above the lines otherwise.
    """
    lines = [line for _, members in groups for line in members]
    axis = axis_of([number for line in lines for number in _numbers(line)], include)
    texts = dict.fromkeys(mark.text for line in lines for mark in line.marks)
    drawn = _Drawn(axis, {text: number for number, text in enumerate(texts)})
    everywhere = _common(lines)
    above = "".join(map(drawn.note, everywhere))
    items = [f'<li class="shared">{above}</li>' if above else "", f'<li class="axis">{_axis_svg(axis)}</li>']
    for head, members in groups:
        here = [note for note in _common(members) if note not in everywhere] if head else []
        if head:
            items.append(f'<li class="group">{html.escape(head)}{"".join(map(drawn.note, here))}</li>')
        items += [drawn.item(line, head, {*everywhere, *here}) for line in members]
    kind = "chart wide" if wide else "chart"
    style = f"--steps:{len(axis.ticks) - 1}"  # of the grid, which is a background
    return f'<ol class="{kind}" style="{style}" aria-label="{html.escape(name, quote=True)}">{"".join(items)}</ol>'


def legend(floors: bool = True, references: bool = False) -> str:
    """Returns what the marks of a chart mean.

    Args:
        floors: Whether charts have floors.
        references: Whether they have values to compare with.
    """
    drawn = _Drawn(Axis(1.0, 0.0, 1.0, []), {"": 0})
    baseline = "the same on real images, or with shuffled prompts" if floors else ""
    compared = "what it is compared with" if references else ""
    marks = {
        "value": Line("", (), 0.5),
        "its 95 % interval": Line("", (), 0.5, 0.05, 0.95),
        ", ".join(text for text in (baseline, compared) if text): Line("", (), 0.5, 0.05, 0.95, is_baseline=True),
    }
    if floors:
        text = "floor: the same metric between two halves of the real set, ± its standard deviation over splits"
        marks[text] = Line("", "", math.nan, marks=[Mark(0.5, 0.2, 0.8)])
    if references:
        marks["a fixed value to compare with, such as chance"] = Line("", "", math.nan, marks=[Mark(0.5)])
    items = []
    for text, line in marks.items():
        kind = "plain baseline" if line.is_baseline else "s0"
        items.append(f'<li><svg class="{kind}" aria-hidden="true">{drawn.marks(line)}</svg>{html.escape(text)}</li>')
    return f'<ul class="legend">{"".join(items)}</ul>'


def axis_of(values: Iterable[float], include: Sequence[float] = ()) -> Axis:
    """Returns an axis with 2 to 6 ticks, at both ends and at round numbers between them.

    Args:
        values: What it must hold; what is not finite is ignored.
        include: What it must hold, too.

    Example:
        >>> axis_of([54.2, 12.5], include=[0])
        Axis(unit=10.0, low=0.0, high=6.0, ticks=[0.0, 2.0, 4.0, 6.0])
    """
    finite = [value for value in (*values, *include) if math.isfinite(value)] or [0.0, 1.0]
    largest = max(map(abs, finite))
    if largest < SMALLEST:
        return Axis(1.0, -1.0, 1.0, [-1.0, 0.0, 1.0])
    unit = 10.0 ** math.floor(math.log10(largest))
    low, high = min(finite) / unit, max(finite) / unit
    if high - low < NARROWEST:
        low, high = (low - 0.1 * abs(low), high + 0.1 * abs(high))
    power = 10.0 ** math.floor(math.log10((high - low) / INTERVALS))
    step = next(power * step for step in STEPS if (high - low) / (power * step) <= INTERVALS)
    first, last = math.floor(low / step), math.ceil(high / step)
    ticks = [step * number for number in range(first, last + 1)]
    return Axis(unit, ticks[0], ticks[-1], ticks)


def format_number(value: float, width: float | None = None) -> str:
    """Returns a number with as many digits as its interval tells of.

    Args:
        value: The number.
        width: Of its interval: two digits of it are kept. Default: four digits of the number.

    Example:
        >>> format_number(54.2249, 4.2), format_number(0.016351, 0.0012), format_number(1234.5), format_number(2e-7)
        ('54.2', '0.0164', '1,234', '2e-07')
    """
    finest = width or abs(value)
    if value == 0 and not width:
        return "0"
    if not (1e-4 <= max(abs(value), finest) < 1e7 and math.isfinite(finest)):
        return f"{value:.4g}"
    digits = (1 if width else 3) - math.floor(math.log10(max(finest, 1e-12)))
    return f"{value:,.{min(8, max(0, digits))}f}"


def format_interval(low: float | None, high: float | None) -> str:
    """Returns an interval in words; nothing if an end is unknown."""
    if low is None or high is None:
        return ""
    return f"{format_number(low, high - low)} to {format_number(high, high - low)}"


def interval_width(low: float | None, high: float | None) -> float | None:
    """Returns the width of an interval; None if an end is unknown."""
    return None if low is None or high is None else high - low


def _numbers(line: Line) -> list[float]:
    marked = [number for mark in line.marks for number in mark[:3]]
    return [number for number in (line.value, line.low, line.high, *marked) if number is not None]


def _common(lines: Sequence[Line]) -> list[str | Mark]:
    """Returns the notes and named marks that all of several lines have; baselines have their own."""
    notes = [_notes(line) for line in lines if not line.is_baseline]
    return [note for note in notes[0] if all(note in others for others in notes)] if len(notes) > 1 else []


def _notes(line: Line) -> list[str | Mark]:
    return [*(note for note in line.notes if note), *(mark for mark in line.marks if mark.text)]


class _Drawn:
    """Draws lines on one axis; marks of one name look alike."""

    def __init__(self, axis: Axis, styles: dict[str, int]) -> None:
        self._axis = axis
        self._styles = styles

    def item(self, line: Line, head: str, named: set[str | Mark]) -> str:
        value = format_number(line.value, interval_width(line.low, line.high))
        interval = format_interval(line.low, line.high)
        notes = _notes(line)
        spoken = (note.text if isinstance(note, Mark) else note for note in notes)
        label = ", ".join(text for text in (head, line.name, value, interval, *spoken, line.caution) if text)
        colour = "plain" if line.series is None else f"s{line.series % SERIES}"
        kind = f"{colour}{' baseline' * line.is_baseline}"
        below = "".join(self.note(note) for note in notes if note not in named)
        caution = f'<small class="caution">{html.escape(line.caution)}</small>' if line.caution else ""
        return (
            f'<li class="line"><span class="name">{html.escape(line.name)}{below}{caution}</span>'
            f'<svg class="{kind}" role="img" aria-label="{html.escape(label, quote=True)}">'
            f"{self.marks(line)}</svg>"
            f'<span class="value">{value}{_small(interval)}</span></li>'
        )

    def note(self, note: str | Mark) -> str:
        if isinstance(note, str):
            return _small(note)
        tick = _vertical(self._kind(note), 0.5)
        return f'<small><svg class="key" aria-hidden="true">{tick}</svg> {html.escape(note.text)}</small>'

    def marks(self, line: Line) -> str:
        axis, marks = self._axis, []
        for mark in line.marks:
            if mark.low is not None and mark.high is not None and mark.low < mark.high:
                low, high = axis.position(mark.low), axis.position(mark.high)
                marks.append(f'<rect class="spread" x="{low:.2%}" width="{high - low:.2%}" y="15%" height="70%"/>')
            marks.append(_vertical(self._kind(mark), axis.position(mark.value)))
        if line.low is not None and line.high is not None:
            low, high = axis.position(line.low), axis.position(line.high)
            marks.append(f'<line class="interval" x1="{low:.2%}" x2="{high:.2%}" y1="50%" y2="50%"/>')
        if math.isfinite(line.value):
            marks.append(f'<circle cx="{axis.position(line.value):.2%}" cy="50%" r="{RADIUS}"/>')
        return "".join(marks)

    def _kind(self, mark: Mark) -> str:
        style = self._styles[mark.text] % STYLES
        return f"floor m{style}" if style else "floor"


def _small(text: str) -> str:
    return f"<small>{html.escape(text)}</small>" if text else ""


def _vertical(kind: str, at: float) -> str:
    return f'<line class="{kind}" x1="{at:.2%}" x2="{at:.2%}" y1="0" y2="100%"/>'


def _axis_svg(axis: Axis) -> str:
    texts = []
    for tick in axis.ticks:
        share = (tick - axis.low) / (axis.high - axis.low)
        anchor = "start" if share < 0.05 else "end" if share > 0.95 else "middle"
        text = html.escape(_tick_text(tick, axis.unit))
        texts.append(f'<text x="{share:.2%}" y="70%" text-anchor="{anchor}">{text}</text>')
    return f'<svg aria-hidden="true">{"".join(texts)}</svg>'


def _tick_text(tick: float, unit: float) -> str:
    """Returns a number of an axis; in a narrow range the ticks would be equal without further digits."""
    value = tick * unit
    return f"{value:,.6g}" if 1e-4 <= abs(value) < 1e6 else f"{value + 0.0:.3g}"
