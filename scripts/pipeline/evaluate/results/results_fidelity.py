"""Section `fidelity` of RESULTS_JSON: its schema, and reading it.

    {
      "protocol": "sound" or "chexgenbench",
      "created": "2026-11-27T10:00:00+00:00",
      "seed": 0,
      "labels": ["Atelectasis", ...],          those that were asked for
      "real": SIDE, "synthetic": SIDE,
      "versions": {"python": "3.11.7", "numpy": "2.4.6", ...},
      "metrics": [METRIC, ...],
      "images": {ENCODER: {"adds_most_to_fd": [IMAGE, ...], "least_like_real": [IMAGE, ...],
                           "least_like_prompt": [IMAGE, ...]}}
    }

    SIDE    see `results_parts`
    METRIC  {"metric", "encoder", "label" or null, "value", "se", "ci_low", "ci_high", "n_real", "n_synthetic",
             "floor": {"value", "sd", "n", "splits"} or null, "protocol", "notes": [...]}
             A value of null: refused, for the reason in the notes.
    IMAGE   {"filename", "crc32", "prompt", "value",
             "nearest_real": {"filename", "crc32", "prompt", "distance"} or null}
             `value` is the influence on FD, the distance to the nearest real image, or the cosine of the image and
             its prompt. An earlier version did not write `least_like_prompt`.

Names of metrics: fd, kid, kid_subsets, precision, recall, density, coverage, cmmd, vendi, inception_score, alignment,
alignment_shuffled, retrieval_1, retrieval_5, retrieval_10, label_auroc, frd. Those that compare with the same on real
images (inception_score, alignment, retrieval, label_auroc) have that value as a metric of their own, with n_synthetic
0, and its name ends in `_real`.

All metrics have the protocol of the section, so that values of two protocols never stand in one table.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from pipeline.evaluate.metrics.floor import Floor
from pipeline.evaluate.results.results_parts import (
    NUMBER,
    DamagedError,
    SideResult,
    get,
    image_in,
    interval_in,
    only,
    side_in,
    texts_in,
    versions_in,
)
from synthchex_75k import LABELS

PROTOCOLS = ("sound", "chexgenbench")
ADDED_LISTS: dict[str, Any] = {"least_like_prompt": []}  # those that an earlier version did not write


class MetricResult(NamedTuple):
    """One value.

    Attributes:
        metric: Its name.
        encoder: Name of the encoder whose features it compares.
        label: Of the rows with this label only; None: of all rows.
        value: The value; None: refused, for the reason in `notes`.
        se: Its standard error; None if unknown.
        ci_low: Lower end of the 95 % interval; None if unknown.
        ci_high: Upper end of the 95 % interval; None if unknown.
        n_real: Number of real rows it was computed from.
        n_synthetic: Number of synthetic rows it was computed from.
        floor: The same metric between two halves of the real set; None where there is none.
        protocol: That of the file.
        notes: Warnings, and what the value was computed from.
    """

    metric: str
    encoder: str
    label: str | None
    value: float | None
    se: float | None
    ci_low: float | None
    ci_high: float | None
    n_real: int
    n_synthetic: int
    floor: Floor | None
    protocol: str
    notes: tuple[str, ...]


class NearestImage(NamedTuple):
    """The real image nearest to a synthetic one.

    Attributes:
        filename: Its file name.
        crc32: CRC-32 of the file.
        prompt: Its prompt.
        distance: Euclidean distance of the features.
    """

    filename: str
    crc32: int
    prompt: str
    distance: float


class ImageResult(NamedTuple):
    """A synthetic image that a list names.

    Attributes:
        filename: Its file name.
        crc32: CRC-32 of the file.
        prompt: Its prompt.
        value: By what the list is ordered.
        nearest_real: The nearest real image.
    """

    filename: str
    crc32: int
    prompt: str
    value: float
    nearest_real: NearestImage | None


class EncoderImages(NamedTuple):
    """Synthetic images that stand out by the features of one encoder, the most extreme first.

    Attributes:
        adds_most_to_fd: By their influence on FD.
        least_like_real: By their distance to the nearest real image.
        least_like_prompt: By the cosine of image and prompt; empty: the encoder embeds no texts.
    """

    adds_most_to_fd: list[ImageResult]
    least_like_real: list[ImageResult]
    least_like_prompt: list[ImageResult]


class Fidelity(NamedTuple):
    """The section; see the description of this module.

    Attributes:
        protocol: "sound" or "chexgenbench".
        created: When, in ISO 8601.
        seed: Of everything that is drawn at random.
        labels: Those that were asked for.
        real: The real images.
        synthetic: The synthetic images.
        versions: Versions of Python and of packages.
        metrics: The values.
        images: Images that stand out, by encoder.
    """

    protocol: str
    created: str
    seed: int
    labels: tuple[str, ...]
    real: SideResult
    synthetic: SideResult
    versions: dict[str, str]
    metrics: list[MetricResult]
    images: dict[str, EncoderImages]


def fidelity_in(found: dict[str, Any]) -> Fidelity:
    """Returns the section of a JSON object.

    Raises:
        DamagedError: A part of it is missing or wrong.
    """
    protocol = get(found, "protocol", (str,), "")
    if protocol not in PROTOCOLS:
        raise DamagedError(f"unknown protocol {protocol!r}")
    labels = tuple(get(found, "labels", (list,), ""))
    if any(label not in LABELS for label in labels):
        raise DamagedError("labels: holds an unknown label")
    real, synthetic = (side_in(get(found, name, (dict,), ""), name) for name in ("real", "synthetic"))
    metrics = [_metric(part, f"metrics[{i}]") for i, part in enumerate(get(found, "metrics", (list,), ""))]
    places = set()
    for i, metric in enumerate(metrics):
        if metric.protocol != protocol:
            raise DamagedError(f"metrics[{i}]: protocol {metric.protocol!r} in results of {protocol!r}")
        if metric.encoder not in real.encoders or metric.encoder not in synthetic.encoders:
            raise DamagedError(f"metrics[{i}]: unknown encoder {metric.encoder!r}")
        if metric.label is not None and metric.label not in labels:
            raise DamagedError(f"metrics[{i}]: unknown label {metric.label!r}")
        place = metric.metric, metric.encoder, metric.label
        if place in places:
            raise DamagedError(f"metrics[{i}]: {metric.metric} is there twice")
        places.add(place)
    images = {
        name: _lists({**ADDED_LISTS, **only(part, dict, name)}, name)
        for name, part in get(found, "images", (dict,), "").items()
    }
    created, seed = get(found, "created", (str,), ""), get(found, "seed", (int,), "")
    return Fidelity(protocol, created, seed, labels, real, synthetic, versions_in(found), metrics, images)


def _metric(found: Any, where: str) -> MetricResult:
    found = only(found, dict, where)
    floor, optional = None, (*NUMBER, type(None))
    part = get(found, "floor", (dict, type(None)), where)
    if part is not None:
        place = f"{where}.floor"
        sizes = (get(part, key, (int,), place) for key in ("n", "splits"))
        floor = Floor(*(get(part, key, optional, place) for key in ("value", "sd")), *sizes)
    return MetricResult(
        get(found, "metric", (str,), where),
        get(found, "encoder", (str,), where),
        get(found, "label", (str, type(None)), where),
        *interval_in(found, where),
        get(found, "n_real", (int,), where),
        get(found, "n_synthetic", (int,), where),
        floor,
        get(found, "protocol", (str,), where),
        texts_in(found, "notes", where),
    )


def _lists(found: dict[str, Any], encoder: str) -> EncoderImages:
    return EncoderImages(*(_images(found, key, encoder) for key in EncoderImages._fields))


def _images(found: dict[str, Any], key: str, encoder: str) -> list[ImageResult]:
    listed = []
    for i, part in enumerate(get(found, key, (list,), f"images.{encoder}")):
        where = f"images.{encoder}.{key}[{i}]"
        part = only(part, dict, where)
        near = get(part, "nearest_real", (dict, type(None)), where)
        nearest = None
        if near is not None:
            place = f"{where}.nearest_real"
            nearest = NearestImage(*image_in(near, place), get(near, "distance", NUMBER, place))
        listed.append(ImageResult(*image_in(part, where), get(part, "value", NUMBER, where), nearest))
    return listed
