"""Results beside one another: what may share a table, and which values differ."""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import StepError, counted, listing
from pipeline.evaluate.meanings import HIGHER, LOWER, MEANINGS, meaning_of, split_baseline
from pipeline.evaluate.results import read_results
from pipeline.evaluate.results_fidelity import Fidelity, MetricResult
from pipeline.evaluate.results_parts import SideResult
from synthchex_75k import LABELS

SAME_N = 0.01  # sample sizes that differ by a smaller share count as equal

Key = tuple[str, str, "str | None"]  # metric, encoder, label or None


class Column(NamedTuple):
    """One RESULTS_JSON.

    Attributes:
        letter: What it is called beside others; empty if it is alone.
        file: Its path.
        fidelity: Its section `fidelity`.
        metrics: Its metrics by metric, encoder and label.
    """

    letter: str
    file: Path
    fidelity: Fidelity
    metrics: dict[Key, MetricResult]

    @property
    def sides(self) -> dict[str, SideResult]:
        """The real and the synthetic images."""
        return {"real": self.fidelity.real, "synthetic": self.fidelity.synthetic}

    @property
    def head(self) -> str:
        """Name of the synthetic images, with the letter."""
        name = self.fidelity.synthetic.name
        return f"{self.letter}: {name}" if self.letter else name


def read_side_by_side(paths: Sequence[Path]) -> list[Column]:
    """Reads results that share a table.

    Args:
        paths: RESULTS_JSONs.

    Returns:
        A column for each, in order.

    Raises:
        StepError: A file is damaged, or they are of different protocols.
        OSError: A file cannot be read.
    """
    found = [(path, _fidelity(path)) for path in paths]
    protocols = {fidelity.protocol: path for path, fidelity in reversed(found)}
    if len(protocols) > 1:
        named = listing([f"{path} is {protocol}" for protocol, path in sorted(protocols.items())], separator=", ")
        raise StepError(
            f"results of different protocols never share a table ({named}): they have the same names and other "
            "meanings; make a page for each protocol"
        )
    letters = [_letter(number) for number in range(len(found))] if len(found) > 1 else [""]
    return [Column(letter, path, fidelity, _by_key(fidelity)) for letter, (path, fidelity) in zip(letters, found)]


def encoders_of(columns: Sequence[Column]) -> list[str]:
    """Returns the encoders of all metrics, in order."""
    return [*dict.fromkeys(encoder for column in columns for _, encoder, _ in column.metrics)]


def metrics_of(columns: Sequence[Column], encoder: str) -> list[str]:
    """Returns the metrics of an encoder, baselines left out: those of `MEANINGS` in its order, then the others."""
    names = dict.fromkeys(metric for column in columns for metric, used, _ in column.metrics if used == encoder)
    bases = dict.fromkeys(split_baseline(name)[0] for name in names)
    return [*(name for name in MEANINGS if name in bases), *(name for name in bases if name not in MEANINGS)]


def baselines_of(columns: Sequence[Column], metric: str, encoder: str) -> list[str]:
    """Returns the metrics that are baselines of a metric, in order."""
    names = dict.fromkeys(name for column in columns for name, used, _ in column.metrics if used == encoder)
    return [name for name in names if name != metric and split_baseline(name)[0] == metric]


def labels_of(columns: Sequence[Column]) -> list[str]:
    """Returns the labels that were asked for in any of the results, in the order of `LABELS`."""
    return [label for label in LABELS if any(label in column.fidelity.labels for column in columns)]


def cautions(columns: Sequence[Column]) -> list[str]:
    """Returns what a reader must know before comparing the columns, in sentences."""
    found = []
    if len({_real_set(column) for column in columns}) > 1:
        named = listing([f"{column.letter}: {_describe_real(column)}" for column in columns], limit=26)
        found.append(f"The real images differ ({named}): values of different real images are not compared.")
    for encoder in encoders_of(columns):
        users: dict[tuple[str, ...], list[str]] = {}
        for column in columns:
            if prints := _fingerprints(column, encoder):
                users.setdefault(prints, []).append(column.letter)
        if len(users) > 1:
            named = " and ".join(", ".join(letters) for letters in users.values())
            found.append(
                f"{encoder}: the features of {named} have different fingerprints, so that model, preprocessing or "
                "versions differ: their values are not compared."
            )
    if len({_sizes(column) for column in columns}) > 1:
        found.append(
            "The numbers of images differ: metrics that depend on them are compared only where they agree within "
            f"{SAME_N:.0%}."
        )
    return found


def differing_from(columns: Sequence[Column], key: Key) -> list[list[str]]:
    """Finds values whose 95 % intervals do not overlap.

    Args:
        columns: The columns.
        key: Metric, encoder and label.

    Returns:
        For each column the letters of those from which it differs: of the same real images and fingerprints, and where
        the metric depends on them of the same sample sizes.
    """
    return [
        [other.letter for other in columns if other is not column and _differ(column, other, key)] for column in columns
    ]


def best_of(columns: Sequence[Column], key: Key) -> int | None:
    """Returns the index of the column that is better than each of the others, by intervals that do not overlap.

    Args:
        columns: The columns.
        key: Metric, encoder and label.

    Returns:
        The index; None if there is no such column, and for metrics without a direction.
    """
    better = meaning_of(key[0]).better
    values = {
        number: column.metrics[key].value
        for number, column in enumerate(columns)
        if key in column.metrics and column.metrics[key].value is not None
    }
    if better not in (LOWER, HIGHER) or len(values) < 2:
        return None
    first = (min if better == LOWER else max)(values, key=lambda number: values[number] or 0.0)
    others = {columns[number].letter for number in values if number != first}
    return first if {*differing_from(columns, key)[first]} == others else None


def _letter(number: int) -> str:
    letters = string.ascii_uppercase
    return letters[number % len(letters)] + (str(number // len(letters)) if number >= len(letters) else "")


def _fidelity(path: Path) -> Fidelity:
    fidelity = read_results(path).fidelity
    if not fidelity:
        raise StepError(f"{path}: no results of `evaluate_images.py fidelity`")
    return fidelity


def _by_key(fidelity: Fidelity) -> dict[Key, MetricResult]:
    return {(metric.metric, metric.encoder, metric.label): metric for metric in fidelity.metrics}


def _differ(one: Column, two: Column, key: Key) -> bool:
    first, second = one.metrics.get(key), two.metrics.get(key)
    if not first or not second or not _comparable(one, two, key):
        return False
    (low, high), (other_low, other_high) = ((metric.ci_low, metric.ci_high) for metric in (first, second))
    if low is None or high is None or other_low is None or other_high is None:
        return False
    return high < other_low or other_high < low


def _comparable(one: Column, two: Column, key: Key) -> bool:
    metric, encoder, _ = key
    if _real_set(one) != _real_set(two) or _fingerprints(one, encoder) != _fingerprints(two, encoder):
        return False
    if not meaning_of(split_baseline(metric)[0]).depends_on_n:
        return True
    first, second = one.metrics[key], two.metrics[key]
    sizes = (first.n_real, second.n_real), (first.n_synthetic, second.n_synthetic)
    return all(abs(n - m) <= SAME_N * max(n, m) for n, m in sizes)


def _real_set(column: Column) -> tuple[str, int]:
    return column.fidelity.real.source, column.fidelity.real.rows


def _describe_real(column: Column) -> str:
    return f"{counted(column.fidelity.real.rows, 'image')} of {column.fidelity.real.source}"


def _sizes(column: Column) -> tuple[int, ...]:
    return tuple(side.rows for side in column.sides.values())


def _fingerprints(column: Column, encoder: str) -> tuple[str, ...]:
    used = (side.encoders.get(encoder) for side in column.sides.values())
    return tuple(dict.fromkeys(found.fingerprint for found in used if found))
