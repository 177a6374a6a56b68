"""Results beside one another: what may share a table, and which values differ."""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.errors import StepError, listing
from pipeline.evaluate.meanings import HIGHER, LOWER, MEANINGS, meaning_of, split_baseline
from pipeline.source_json import parse_object
from synthchex_75k import LABELS

SAME_N = 0.01  # sample sizes that differ by a smaller share count as equal
SIDES = ("real", "synthetic")

Key = tuple[str, str, "str | None"]  # metric, encoder, label or None


class Column(NamedTuple):
    """One RESULTS_JSON.

    Attributes:
        letter: What it is called beside others; empty if it is alone.
        file: Its path.
        results: Its content, as `results.py` describes it.
        metrics: Its metrics by metric, encoder and label.
    """

    letter: str
    file: Path
    results: dict[str, Any]
    metrics: dict[Key, dict[str, Any]]

    @property
    def head(self) -> str:
        """Name of the synthetic images, with the letter."""
        name = str(self.results["synthetic"]["name"])
        return f"{self.letter}: {name}" if self.letter else name


def read_columns(paths: Sequence[Path]) -> list[Column]:
    """Reads results that share a table.

    Args:
        paths: RESULTS_JSONs.

    Returns:
        A column for each, in order.

    Raises:
        SourceError: A file is damaged.
        StepError: They are of different protocols, or one has a metric twice.
        OSError: A file cannot be read.
    """
    found = [(path, parse_object(path.read_bytes(), str(path))) for path in paths]
    protocols = {str(results["protocol"]): path for path, results in reversed(found)}
    if len(protocols) > 1:
        named = listing([f"{path} is {protocol}" for protocol, path in sorted(protocols.items())], separator=", ")
        raise StepError(
            f"results of different protocols never share a table ({named}): they have the same names and other "
            "meanings; make a page for each protocol"
        )
    letters = [_letter(number) for number in range(len(found))] if len(found) > 1 else [""]
    return [Column(letter, path, results, _by_key(path, results)) for letter, (path, results) in zip(letters, found)]


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
    """Returns the labels that were asked for or measured: those of `LABELS` in its order, then the others."""
    asked = [label for column in columns for label in column.results["labels"]]
    measured = [label for column in columns for _, _, label in column.metrics if label is not None]
    found = dict.fromkeys([*asked, *measured])
    return [*(label for label in LABELS if label in found), *(label for label in found if label not in LABELS)]


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
    measured = [n for n, column in enumerate(columns) if column.metrics.get(key, {}).get("value") is not None]
    if better not in (LOWER, HIGHER) or len(measured) < 2:
        return None
    first = (min if better == LOWER else max)(measured, key=lambda n: columns[n].metrics[key]["value"])
    others = {columns[n].letter for n in measured if n != first}
    return first if {*differing_from(columns, key)[first]} == others else None


def _letter(number: int) -> str:
    letters = string.ascii_uppercase
    return letters[number % len(letters)] + (str(number // len(letters)) if number >= len(letters) else "")


def _by_key(path: Path, results: dict[str, Any]) -> dict[Key, dict[str, Any]]:
    found: dict[Key, dict[str, Any]] = {}
    for metric in results["metrics"]:
        key = metric["metric"], metric["encoder"], metric["label"]
        if key in found:
            raise StepError(f"{path}: {key[0]} of {key[1]}, {key[2] or 'overall'}, is there twice; measure again")
        found[key] = metric
    return found


def _differ(one: Column, two: Column, key: Key) -> bool:
    first, second = one.metrics.get(key), two.metrics.get(key)
    if not first or not second or not _comparable(one, two, key):
        return False
    ends = [metric[end] for metric in (first, second) for end in ("ci_low", "ci_high")]
    return None not in ends and (ends[1] < ends[2] or ends[3] < ends[0])


def _comparable(one: Column, two: Column, key: Key) -> bool:
    metric, encoder, _ = key
    if _real_set(one) != _real_set(two) or _fingerprints(one, encoder) != _fingerprints(two, encoder):
        return False
    if not meaning_of(split_baseline(metric)[0]).depends_on_n:
        return True
    sizes = [(one.metrics[key][f"n_{side}"], two.metrics[key][f"n_{side}"]) for side in SIDES]
    return all(abs(n - m) <= SAME_N * max(n, m) for n, m in sizes)


def _real_set(column: Column) -> tuple[Any, ...]:
    real = column.results["real"]
    return real["source"], real["rows"]


def _describe_real(column: Column) -> str:
    real = column.results["real"]
    return f"{real['rows']:,} images of {real['source']}"


def _sizes(column: Column) -> tuple[int, ...]:
    return tuple(column.results[side]["rows"] for side in SIDES)


def _fingerprints(column: Column, encoder: str) -> tuple[str, ...]:
    used = (column.results[side]["encoders"].get(encoder) for side in SIDES)
    return tuple(dict.fromkeys(str(found["fingerprint"]) for found in used if found))
