"""Results beside one another: what may share a table, and which values differ."""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import StepError, counted, listing
from pipeline.evaluate.glossary import direction_of, glossary_order, meaning_of, split_baseline
from pipeline.evaluate.meanings import LOWER
from pipeline.evaluate.results import Results, different_images, read_results
from pipeline.evaluate.results_fidelity import MetricResult
from pipeline.evaluate.results_parts import SideResult
from pipeline.evaluate.results_section import Measured, Section
from synthchex_75k import LABELS

SAME_N = 0.01  # sample sizes that differ by a smaller share count as equal
FIDELITY = "fidelity"
# What `options` tell of a run beside what they decide: never a reason against a comparison. Sizes are compared as `n`.
OUTCOMES = (
    *("splits", "left_out", "train_images", "steps", "last_loss", "notes"),
    *("texts", "work", "device", "packages", "created", "seconds"),
)
Value = MetricResult | Measured
NAMES = {"train": "training", "heldout": "held-out"}  # of sides, in sentences


class Key(NamedTuple):
    """The place of a value in results.

    Attributes:
        metric: Name of the metric.
        method: Its encoder, or what else it was measured with.
        label: Of the label; None: of all images.
        setting: What a model was trained on; None where none was.
        section: Name of the section.
    """

    metric: str
    method: str
    label: str | None = None
    setting: str | None = None
    section: str = FIDELITY


class Column(NamedTuple):
    """One RESULTS_JSON.

    Attributes:
        letter: What it is called beside others; empty if it is alone.
        file: Its path.
        results: What it holds.
        metrics: Its metrics of fidelity.
        measured: Those of the other sections.
    """

    letter: str
    file: Path
    results: Results
    metrics: dict[Key, MetricResult]
    measured: dict[Key, Measured]

    @property
    def name(self) -> str:
        """Name of the synthetic images; that of the file if no section has any."""
        return next((side.name for side in self.results.synthetic.values()), self.file.stem)

    @property
    def head(self) -> str:
        """Name of the synthetic images, with the letter."""
        return f"{self.letter}: {self.name}" if self.letter else self.name

    def section(self, name: str) -> Section | None:
        """Returns a section other than `fidelity`; None if its command has not run."""
        found = getattr(self.results, name)
        return found if isinstance(found, Section) else None

    def sides(self, section: str) -> dict[str, SideResult]:
        """Returns the sets of images that a section compared; none if its command has not run."""
        if section == FIDELITY:
            found = self.results.fidelity
            return {"real": found.real, "synthetic": found.synthetic} if found else {}
        other = self.section(section)
        return other.sides if other else {}

    def value(self, key: Key) -> Value | None:
        """Returns a value; None if there is none."""
        return self.metrics.get(key) or self.measured.get(key)


def read_side_by_side(paths: Sequence[Path]) -> list[Column]:
    """Reads results that share a table.

    Args:
        paths: RESULTS_JSONs.

    Returns:
        A column for each, in order.

    Raises:
        StepError: A file is damaged, or their fidelity is of different protocols.
        OSError: A file cannot be read.
    """
    found = [(path, read_results(path)) for path in paths]
    protocols = {results.fidelity.protocol: path for path, results in reversed(found) if results.fidelity}
    if len(protocols) > 1:
        named = listing([f"{path} is {protocol}" for protocol, path in sorted(protocols.items())], separator=", ")
        raise StepError(
            f"results of different protocols never share a table ({named}): they have the same names and other "
            "meanings; make a page for each protocol"
        )
    letters = [_letter(number) for number in range(len(found))] if len(found) > 1 else [""]
    return [
        Column(letter, path, results, _fidelity(results), _measured(results))
        for letter, (path, results) in zip(letters, found)
    ]


def sections_shown(columns: Sequence[Column]) -> list[str]:
    """Returns the sections that any of the results has, in order."""
    return [name for name in Results._fields if any(getattr(column.results, name) for column in columns)]


def methods_of(columns: Sequence[Column], section: str) -> list[str]:
    """Returns the methods of a section other than `fidelity`, in order."""
    return [*dict.fromkeys(key.method for column in columns for key in column.measured if key.section == section)]


def keys_of(columns: Sequence[Column], section: str, method: str) -> list[Key]:
    """Returns where a method has values, in any of the results: in the order of `GLOSSARY`, then that of the files."""
    found = dict.fromkeys(
        key
        for column in columns
        for key in (column.metrics if section == FIDELITY else column.measured)
        if (key.section, key.method) == (section, method)
    )
    order = {metric: number for number, metric in enumerate(glossary_order(dict.fromkeys(key.metric for key in found)))}
    return sorted(found, key=lambda key: order[key.metric])


def encoders_of(columns: Sequence[Column]) -> list[str]:
    """Returns the encoders of fidelity, in order."""
    return [*dict.fromkeys(key.method for column in columns for key in column.metrics)]


def metrics_of(columns: Sequence[Column], encoder: str) -> list[str]:
    """Returns the metrics of fidelity of an encoder, baselines left out, in the order of `GLOSSARY`."""
    names = (key.metric for column in columns for key in column.metrics if key.method == encoder)
    return glossary_order(dict.fromkeys(split_baseline(name)[0] for name in names))


def baselines_of(columns: Sequence[Column], metric: str, encoder: str) -> list[str]:
    """Returns the metrics that are baselines of a metric, in order."""
    names = dict.fromkeys(key.metric for column in columns for key in column.metrics if key.method == encoder)
    return [name for name in names if name != metric and split_baseline(name)[0] == metric]


def labels_of(columns: Sequence[Column]) -> list[str]:
    """Returns the labels that fidelity was asked for in any of the results, in the order of `LABELS`."""
    asked = {label for column in columns if column.results.fidelity for label in column.results.fidelity.labels}
    return [label for label in LABELS if label in asked]


def cautions(columns: Sequence[Column]) -> list[str]:
    """Returns what a reader must know before comparing the columns or their sections, in sentences."""
    found = []
    for column in columns:
        found += [
            ": ".join(text for text in (column.letter, each) if text) for each in different_images(column.results)
        ]
    for section in sections_shown(columns):
        found += _cautions(section, [column for column in columns if column.sides(section)])
    return found


def _cautions(section: str, columns: Sequence[Column]) -> Iterator[str]:
    """Yields why values of a section are not compared."""
    for side in _fixed_sides(columns, section):
        users: dict[str, list[str]] = {}
        for column in columns:
            users.setdefault(_describe_set(column, section, side), []).append(column.letter)
        if len(users) > 1:
            named = listing([f"{', '.join(letters)}: {text}" for text, letters in users.items()], limit=26)
            yield (
                f"{section.capitalize()}: the {NAMES.get(side, side)} images differ ({named}): values of different "
                f"{NAMES.get(side, side)} images are not compared."
            )
    for encoder in dict.fromkeys(
        name for column in columns for side in column.sides(section).values() for name in side.encoders
    ):
        prints: dict[tuple[str, ...], list[str]] = {}
        for column in columns:
            if found := _fingerprints(column, section, encoder):
                prints.setdefault(found, []).append(column.letter)
        if len(prints) > 1:
            named = " and ".join(", ".join(letters) for letters in prints.values())
            yield (
                f"{section.capitalize()}, {encoder}: the features of {named} have different fingerprints, so that "
                "model, preprocessing or versions differ: their values are not compared."
            )
    if differing := _differing_options(columns, section):
        named = ", ".join(differing)
        yield f"{section.capitalize()}: options differ ({named}), so that values are not compared."
    synthetic = [column.sides(section).get("synthetic") for column in columns]
    if len({side.rows for side in synthetic if side}) > 1:
        yield (
            f"{section.capitalize()}: the numbers of synthetic images differ: metrics that depend on them are compared "
            f"only where they agree within {SAME_N:.0%}."
        )


def differing_from(columns: Sequence[Column], key: Key) -> list[list[str]]:
    """Finds values whose 95 % intervals do not overlap.

    Args:
        columns: The columns.
        key: The place of the values.

    Returns:
        For each column the letters of those from which it differs, among those that it compares with, see
        `are_comparable`.
    """
    return [
        [other.letter for other in columns if other is not column and _differ(column, other, key)] for column in columns
    ]


def best_of(columns: Sequence[Column], key: Key) -> int | None:
    """Returns the index of the column that is better than each of the others, by intervals that do not overlap.

    Args:
        columns: The columns.
        key: The place of the values.

    Returns:
        The index; None if there is no such column, and for metrics without a direction.
    """
    measured = len(_measured_at(columns, key))
    ranks = enumerate(ranks_of(columns, key))
    first = [number for number, rank in ranks if rank and rank.last == 1 and rank.of == measured]
    return first[0] if first and measured > 1 else None


class Rank(NamedTuple):
    """Which places a value may have among others, by intervals.

    Attributes:
        first: 1 and the number of values that are better, by intervals that do not overlap.
        last: The place if each value that is not surely worse is better.
        of: How many values are compared, itself included.
    """

    first: int
    last: int
    of: int


def ranks_of(columns: Sequence[Column], key: Key) -> list[Rank | None]:
    """Returns the rank of each column among those that it compares with, see `are_comparable`.

    Args:
        columns: The columns.
        key: The place of the values.

    Returns:
        None for a column without a value or its interval, for one that compares with fewer than half of the others that
        have a value, and for metrics without a direction.
    """
    better = direction_of(key.metric)
    measured = _measured_at(columns, key)
    ranks: list[Rank | None] = []
    for column in columns:
        mine = column.value(key)
        others = [other for other in measured if other is not column]
        rivals = [other for other in others if are_comparable(column, other, key)]
        has_interval = mine is not None and mine.value is not None and mine.ci_low is not None
        if not better or not has_interval or 2 * len(rivals) < len(others):
            ranks.append(None)
            continue
        different = [other for other in rivals if _differ(column, other, key)]
        ahead = sum(_is_ahead(other, column, key, better) for other in different)
        ranks.append(Rank(1 + ahead, 1 + len(rivals) - (len(different) - ahead), 1 + len(rivals)))
    return ranks


def are_comparable(one: Column, two: Column, key: Key) -> bool:
    """True if two columns have a value each, and of what compares.

    That is: of the same real images, fingerprints and options, and where the metric depends on them, of the same sample
    sizes.

    Args:
        one: A column.
        two: Another one.
        key: The place of the values.
    """
    first, second = one.value(key), two.value(key)
    if first is None or second is None:
        return False
    sides = _fixed_sides([one, two], key.section)
    if any(_describe_set(one, key.section, side) != _describe_set(two, key.section, side) for side in sides):
        return False
    encoders = [key.method] if key.section == FIDELITY else _encoders_of_sides(one, two, key.section)
    if any(_fingerprints(one, key.section, name) != _fingerprints(two, key.section, name) for name in encoders):
        return False
    if _differing_options([one, two], key.section):
        return False
    if not meaning_of(split_baseline(key.metric)[0]).depends_on_n:
        return True
    sizes, others = sizes_of(first), sizes_of(second)
    return {*sizes} == {*others} and all(_agree(sizes[name], others[name]) for name in sizes)


def sizes_of(value: Value) -> dict[str, int]:
    """Returns the sample sizes of a value, by what they count."""
    if isinstance(value, MetricResult):
        return {"real": value.n_real, "synthetic": value.n_synthetic}
    return value.n


def _letter(number: int) -> str:
    letters = string.ascii_uppercase
    return letters[number % len(letters)] + (str(number // len(letters)) if number >= len(letters) else "")


def _fidelity(results: Results) -> dict[Key, MetricResult]:
    metrics = results.fidelity.metrics if results.fidelity else []
    return {Key(metric.metric, metric.encoder, metric.label): metric for metric in metrics}


def _measured(results: Results) -> dict[Key, Measured]:
    sections = {name: found for name, found in results._asdict().items() if isinstance(found, Section)}
    return {
        Key(metric.metric, metric.method, metric.label, metric.setting, name): metric
        for name, section in sections.items()
        for metric in section.metrics
    }


def _measured_at(columns: Sequence[Column], key: Key) -> list[Column]:
    """Returns the columns that have a value at a place."""
    return [column for column in columns if (found := column.value(key)) and found.value is not None]


def _differ(one: Column, two: Column, key: Key) -> bool:
    first, second = one.value(key), two.value(key)
    if not first or not second or not are_comparable(one, two, key):
        return False
    (low, high), (other_low, other_high) = ((found.ci_low, found.ci_high) for found in (first, second))
    if low is None or high is None or other_low is None or other_high is None:
        return False
    return high < other_low or other_high < low


def _is_ahead(one: Column, two: Column, key: Key, better: str) -> bool:
    first, second = one.value(key), two.value(key)
    assert first and first.value is not None and second and second.value is not None
    return (first.value < second.value) == (better == LOWER)


def _agree(n: int, m: int) -> bool:
    return abs(n - m) <= SAME_N * max(n, m)


def _fixed_sides(columns: Sequence[Column], section: str) -> list[str]:
    """Returns the sides that must be the same for values to compare."""
    sides = dict.fromkeys(side for column in columns for side in column.sides(section))
    return [side for side in sides if side != "synthetic"]


def _describe_set(column: Column, section: str, side: str) -> str:
    found = column.sides(section).get(side)
    return f"{counted(found.rows, 'image')} of {found.source}" if found else "none"


def _encoders_of_sides(one: Column, two: Column, section: str) -> set[str]:
    return {name for column in (one, two) for side in column.sides(section).values() for name in side.encoders}


def _fingerprints(column: Column, section: str, encoder: str) -> tuple[str, ...]:
    used = (side.encoders.get(encoder) for side in column.sides(section).values())
    return tuple(dict.fromkeys(found.fingerprint for found in used if found))


def _differing_options(columns: Sequence[Column], section: str) -> list[str]:
    options = [found.options for column in columns if (found := column.section(section))]
    names = dict.fromkeys(name for each in options for name in each if name not in OUTCOMES)
    return [name for name in names if any(each.get(name) != options[0].get(name) for each in options)]
