"""Sections `privacy`, `utility` and `reports` of RESULTS_JSON: their schema, and reading them.

{
  "created": "2026-11-27T10:00:00+00:00",
  "seed": 0,
  "versions": {"python": "3.11.7", "numpy": "2.4.6", ...},
  "options": {...},                        everything else that decides the numbers
  "sides": {"train": SIDE, "synthetic": SIDE, "heldout" or "test": SIDE},
  "metrics": [MEASURED, ...],
  "pairs": {METHOD: {LIST: [PAIR, ...]}}
}

SIDE       see `results_parts`
MEASURED   {"metric", "method", "setting" or null, "label" or null, "value", "se", "ci_low", "ci_high",
            "n": {"synthetic": 75649, ...}, "references": [{"name", "value", "ci_low", "ci_high"}, ...],
            "notes": [...]}
            A value of null: refused, for the reason in the notes.
PAIR       {"synthetic": IMAGE, "train": IMAGE, "value": by what the list is ordered, "about": {TEXT: number}}
IMAGE      {"filename", "crc32", "prompt"}
"""

from __future__ import annotations

from typing import Any, NamedTuple

from pipeline.evaluate.results.results_parts import (
    NUMBER,
    OPTIONAL,
    DamagedError,
    SideResult,
    checked,
    get,
    image_in,
    interval_in,
    only,
    side_in,
    texts_in,
    versions_in,
)
from synthchex_75k import LABELS


class Reference(NamedTuple):
    """What a value is compared with.

    Attributes:
        name: What it is, such as "without memorisation", "held-out images" or "chance".
        value: Its value.
        ci_low: Lower end of its 95 % interval; None if it has none.
        ci_high: Upper end of its 95 % interval; None if it has none.
    """

    name: str
    value: float
    ci_low: float | None = None
    ci_high: float | None = None


class Measured(NamedTuple):
    """One value.

    Attributes:
        metric: Its name. A paired difference to setting `real` is a metric of its own, such as `auroc_difference`.
        method: What it was measured with: an encoder, a probe on its features, a backbone, or a model.
        setting: What a model was trained on: one of `settings.SETTINGS`; None in `privacy`.
        label: Of the label; None: of all images, or the mean over labels.
        value: The value; None: refused, for the reason in `notes`.
        se: Its standard error; None if unknown.
        ci_low: Lower end of the 95 % interval; None if unknown.
        ci_high: Upper end of the 95 % interval; None if unknown.
        n: Sample sizes by what they count, such as `{"synthetic": 75649, "train": 2461}`.
        references: What it is compared with.
        notes: Warnings, and the method of the interval.
    """

    metric: str
    method: str
    setting: str | None
    label: str | None
    value: float | None
    se: float | None
    ci_low: float | None
    ci_high: float | None
    n: dict[str, int]
    references: tuple[Reference, ...] = ()
    notes: tuple[str, ...] = ()


class PairedImage(NamedTuple):
    """An image of a pair: its file name, the CRC-32 of the file, and its prompt."""

    filename: str
    crc32: int
    prompt: str


class ImagePair(NamedTuple):
    """A synthetic image and a training image, for a person to judge.

    Attributes:
        synthetic: The synthetic image.
        train: The training image.
        value: By what the list is ordered.
        about: Further numbers, such as the distance to the nearest held-out image, by what they are called on a page.
    """

    synthetic: PairedImage
    train: PairedImage
    value: float
    about: dict[str, float]


class Section(NamedTuple):
    """A section; see the description of this module.

    Attributes:
        created: When, in ISO 8601.
        seed: Of everything that is drawn at random.
        versions: Versions of Python and of packages.
        options: Everything else that decides the numbers.
        sides: The sets of images: `train`, `synthetic`, `heldout`, `test`.
        metrics: The values.
        pairs: The closest pairs, by method and name of the list.
    """

    created: str
    seed: int
    versions: dict[str, str]
    options: dict[str, Any]
    sides: dict[str, SideResult]
    metrics: list[Measured]
    pairs: dict[str, dict[str, list[ImagePair]]]


def section_in(found: dict[str, Any]) -> Section:
    """Returns the section of a JSON object.

    Raises:
        DamagedError: A part of it is missing or wrong.
    """
    sides = {name: side_in(only(part, dict, name), name) for name, part in get(found, "sides", (dict,), "").items()}
    metrics = [_measured(part, f"metrics[{i}]") for i, part in enumerate(get(found, "metrics", (list,), ""))]
    places = set()
    for i, metric in enumerate(metrics):
        place = metric[:4]
        if metric.label is not None and metric.label not in LABELS:
            raise DamagedError(f"metrics[{i}]: unknown label {metric.label!r}")
        if place in places:
            raise DamagedError(f"metrics[{i}]: {metric.metric} is there twice")
        places.add(place)
    pairs = {
        method: {
            name: [
                _pair(pair, f"pairs.{method}.{name}[{i}]") for i, pair in enumerate(only(listed, list, f"pairs.{name}"))
            ]
            for name, listed in only(lists, dict, f"pairs.{method}").items()
        }
        for method, lists in get(found, "pairs", (dict,), "").items()
    }
    created, seed = get(found, "created", (str,), ""), get(found, "seed", (int,), "")
    return Section(created, seed, versions_in(found), get(found, "options", (dict,), ""), sides, metrics, pairs)


def _measured(found: Any, where: str) -> Measured:
    found = only(found, dict, where)
    metric, method = (get(found, key, (str,), where) for key in ("metric", "method"))
    setting, label = (get(found, key, (str, type(None)), where) for key in ("setting", "label"))
    n = get(found, "n", (dict,), where)
    sizes = {name: checked(size, (int,), f"{where}.n.{name}", not_negative=True) for name, size in n.items()}
    references = [
        _reference(only(part, dict, f"{where}.references[{i}]"), f"{where}.references[{i}]")
        for i, part in enumerate(get(found, "references", (list,), where))
    ]
    notes = texts_in(found, "notes", where)
    value = interval_in(found, where)
    return Measured(metric, method, setting, label, *value, sizes, tuple(references), notes)


def _reference(found: dict[str, Any], where: str) -> Reference:
    low, high = (get(found, key, OPTIONAL, where) for key in ("ci_low", "ci_high"))
    if (low is None) != (high is None) or (low is not None and low > high):
        raise DamagedError(f"{where}: no interval: {low} to {high}")
    return Reference(get(found, "name", (str,), where), get(found, "value", NUMBER, where), low, high)


def _pair(found: Any, where: str) -> ImagePair:
    found = only(found, dict, where)
    synthetic, train = (
        PairedImage(*image_in(get(found, side, (dict,), where), f"{where}.{side}")) for side in ("synthetic", "train")
    )
    about = get(found, "about", (dict,), where)
    numbers = {name: checked(number, NUMBER, f"{where}.about.{name}") for name, number in about.items()}
    return ImagePair(synthetic, train, get(found, "value", NUMBER, where), numbers)
