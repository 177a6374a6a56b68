"""RESULTS_JSON: the schema, reading and writing it.

    {
      "format": 1,
      "protocol": "sound" or "chexgenbench",
      "created": "2026-11-27T10:00:00+00:00",
      "seed": 0,
      "labels": ["Atelectasis", ...],          those that were asked for
      "real": SIDE, "synthetic": SIDE,
      "versions": {"python": "3.11.7", "numpy": "2.4.6", ...},
      "metrics": [METRIC, ...],
      "images": {ENCODER: {"adds_most_to_fd": [IMAGE, ...], "least_like_real": [IMAGE, ...]}}
    }

    SIDE    {"name": last part of FEATURES_DIR, "source": address, "rows": n, "patients": number or null,
             "encoders": {NAME: {"fingerprint": ..., "about": what decides the features}}}
    METRIC  {"metric", "encoder", "label" or null, "value", "se", "ci_low", "ci_high", "n_real", "n_synthetic",
             "floor": {"value", "sd", "n", "splits"} or null, "protocol", "notes": [...]}
             A value of null: refused, for the reason in the notes.
    IMAGE   {"filename", "crc32", "prompt", "value",
             "nearest_real": {"filename", "crc32", "prompt", "distance"} or null}
             `value` is the influence on FD, or the distance to the nearest real image.

Names of metrics: fd, kid, kid_subsets, precision, recall, density, coverage, cmmd, vendi, inception_score, alignment,
alignment_shuffled, retrieval_1, retrieval_5, retrieval_10, label_auroc, frd. Those that compare with the same on real
images (alignment, retrieval, label_auroc) have that value as a metric of their own, with n_synthetic 0, and its name
ends in `_real`.

All metrics of a file have its protocol, so that values of two protocols never stand in one table. An unknown key is no
error: a later version may add one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.errors import StepError, one_line
from pipeline.evaluate.metrics.floor import Floor
from pipeline.files import atomic_write
from pipeline.source_json import parse_object
from synthchex_75k import LABELS, SourceError

FORMAT = 1
PROTOCOLS = ("sound", "chexgenbench")
NUMBER = (int, float)
NOT_NEGATIVE = ("n", "n_real", "n_synthetic", "rows", "patients", "splits", "crc32", "se", "sd", "distance")
LARGEST = sys.float_info.max


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
    """

    adds_most_to_fd: list[ImageResult]
    least_like_real: list[ImageResult]


class EncoderResult(NamedTuple):
    """What decides the features of an encoder.

    Attributes:
        fingerprint: A hash of `about`.
        about: What `Encoder.describe` returned.
    """

    fingerprint: str
    about: dict[str, Any]


class SideResult(NamedTuple):
    """One of the two sets of images.

    Attributes:
        name: Last part of FEATURES_DIR.
        source: Address of the source that was embedded.
        rows: Number of images.
        patients: Number of patients; None where they are unknown.
        encoders: The encoders by name.
    """

    name: str
    source: str
    rows: int
    patients: int | None
    encoders: dict[str, EncoderResult]


class Results(NamedTuple):
    """A results file; see the description of this module.

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


def write_results(path: Path, results: Results) -> None:
    """Writes RESULTS_JSON, atomically; an existing file is replaced.

    Args:
        path: RESULTS_JSON.
        results: What it will hold.

    Raises:
        ValueError: A metric has another protocol than the file, or a number is not finite.
        OSError: It cannot be written.
    """
    if {metric.protocol for metric in results.metrics} - {results.protocol}:
        raise ValueError("results of two protocols cannot be in one file")
    content = {"format": FORMAT, **_plain(results)}
    atomic_write(path, (json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


def _plain(value: Any) -> Any:
    """Returns a value as JSON holds it: objects for named tuples."""
    if hasattr(value, "_asdict"):
        return {key: _plain(inner) for key, inner in value._asdict().items()}
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def read_results(path: Path) -> Results:
    """Reads RESULTS_JSON and checks all of it.

    Args:
        path: RESULTS_JSON.

    Raises:
        StepError: It is damaged, or of another format.
        OSError: It cannot be read.
    """
    try:
        found = parse_object(path.read_bytes(), str(path))
    except SourceError as error:
        raise StepError(f"{one_line(error)}; run `evaluate_images.py fidelity` again") from None
    if not is_results(found):
        raise StepError(f"{path}: no results of `evaluate_images.py fidelity`")
    if found["format"] != FORMAT:
        raise StepError(
            f"{path}: format {found['format']!r} instead of {FORMAT}, so another version of this program wrote it; "
            "run `evaluate_images.py fidelity` again"
        )
    try:
        return _results(found)
    except _DamagedError as error:
        raise StepError(f"{path}: {one_line(error)}; run `evaluate_images.py fidelity` again") from None


def is_results(found: dict[str, Any]) -> bool:
    """Whether a JSON object is that of a results file, of this or another format."""
    return {"format", "protocol", "metrics"} <= {*found}


def check_results_path(path: Path) -> None:
    """Checks, before the long work, that results may be written to a path.

    A file is replaced only if it holds results: they are cheap to compute again, and another file may not be.

    Args:
        path: RESULTS_JSON.

    Raises:
        StepError: Another file is there, or no folder to write into.
        OSError: The file cannot be read.
    """
    if not path.parent.is_dir():
        raise StepError(f"{path}: the folder {path.parent} does not exist; create it")
    if not path.exists():
        return
    try:
        known = path.is_file() and is_results(parse_object(path.read_bytes(), str(path)))
    except SourceError:
        known = False
    if not known:
        raise StepError(f"{path} exists and holds no results of this program; choose another name")


class _DamagedError(Exception):
    """What is wrong in a results file, and where."""


def _results(found: dict[str, Any]) -> Results:
    protocol = _get(found, "protocol", (str,), "")
    if protocol not in PROTOCOLS:
        raise _DamagedError(f"unknown protocol {protocol!r}")
    labels = tuple(_get(found, "labels", (list,), ""))
    if any(label not in LABELS for label in labels):
        raise _DamagedError("labels: holds an unknown label")
    real, synthetic = (_side(_get(found, name, (dict,), ""), name) for name in ("real", "synthetic"))
    versions = _get(found, "versions", (dict,), "")
    if not all(isinstance(version, str) for version in versions.values()):
        raise _DamagedError("versions: holds something else than texts")
    metrics = [_metric(part, f"metrics[{i}]") for i, part in enumerate(_get(found, "metrics", (list,), ""))]
    places = set()
    for i, metric in enumerate(metrics):
        if metric.protocol != protocol:
            raise _DamagedError(f"metrics[{i}]: protocol {metric.protocol!r} in results of {protocol!r}")
        if metric.encoder not in real.encoders or metric.encoder not in synthetic.encoders:
            raise _DamagedError(f"metrics[{i}]: unknown encoder {metric.encoder!r}")
        if metric.label is not None and metric.label not in labels:
            raise _DamagedError(f"metrics[{i}]: unknown label {metric.label!r}")
        place = metric.metric, metric.encoder, metric.label
        if place in places:
            raise _DamagedError(f"metrics[{i}]: {metric.metric} is there twice")
        places.add(place)
    images = {
        name: EncoderImages(*(_images(_only(part, dict, name), key, name) for key in EncoderImages._fields))
        for name, part in _get(found, "images", (dict,), "").items()
    }
    created, seed = _get(found, "created", (str,), ""), _get(found, "seed", (int,), "")
    return Results(protocol, created, seed, labels, real, synthetic, versions, metrics, images)


def _side(found: dict[str, Any], where: str) -> SideResult:
    encoders = {}
    for name, part in _get(found, "encoders", (dict,), where).items():
        place = f"{where}.encoders.{name}"
        part = _only(part, dict, place)
        encoders[name] = EncoderResult(_get(part, "fingerprint", (str,), place), _get(part, "about", (dict,), place))
    return SideResult(
        _get(found, "name", (str,), where),
        _get(found, "source", (str,), where),
        _get(found, "rows", (int,), where),
        _get(found, "patients", (int, type(None)), where),
        encoders,
    )


def _metric(found: Any, where: str) -> MetricResult:
    found = _only(found, dict, where)
    floor, optional = None, (*NUMBER, type(None))
    part = _get(found, "floor", (dict, type(None)), where)
    if part is not None:
        place = f"{where}.floor"
        sizes = (_get(part, key, (int,), place) for key in ("n", "splits"))
        floor = Floor(*(_get(part, key, optional, place) for key in ("value", "sd")), *sizes)
    value, se, low, high = (_get(found, key, optional, where) for key in ("value", "se", "ci_low", "ci_high"))
    if (low is None) != (high is None) or (value is None and low is not None) or (low is not None and low > high):
        raise _DamagedError(f"{where}: no interval: {low} to {high}")
    notes = _get(found, "notes", (list,), where)
    if not all(isinstance(note, str) for note in notes):
        raise _DamagedError(f"{where}.notes: holds something else than texts")
    return MetricResult(
        _get(found, "metric", (str,), where),
        _get(found, "encoder", (str,), where),
        _get(found, "label", (str, type(None)), where),
        value,
        se,
        low,
        high,
        _get(found, "n_real", (int,), where),
        _get(found, "n_synthetic", (int,), where),
        floor,
        _get(found, "protocol", (str,), where),
        tuple(notes),
    )


def _images(found: dict[str, Any], key: str, encoder: str) -> list[ImageResult]:
    listed = []
    for i, part in enumerate(_get(found, key, (list,), f"images.{encoder}")):
        where = f"images.{encoder}.{key}[{i}]"
        part = _only(part, dict, where)
        near = _get(part, "nearest_real", (dict, type(None)), where)
        nearest = None
        if near is not None:
            place = f"{where}.nearest_real"
            nearest = NearestImage(*_image(near, place), _get(near, "distance", NUMBER, place))
        listed.append(ImageResult(*_image(part, where), _get(part, "value", NUMBER, where), nearest))
    return listed


def _image(found: dict[str, Any], where: str) -> tuple[str, int, str]:
    names = (("filename", str), ("crc32", int), ("prompt", str))
    filename, crc32, prompt = (_get(found, key, (kind,), where) for key, kind in names)
    return filename, crc32, prompt


def _get(found: dict[str, Any], key: str, kinds: tuple[type, ...], where: str) -> Any:
    place = f"{where}.{key}".lstrip(".")
    if key not in found:
        raise _DamagedError(f"{place} is missing")
    value = found[key]
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise _DamagedError(f"{place} is {value!s:.40}")
    if isinstance(value, NUMBER) and not (abs(value) <= LARGEST and (key not in NOT_NEGATIVE or value >= 0)):
        raise _DamagedError(f"{place} is {value!s:.40}")
    return value


def _only(value: Any, kind: type, where: str) -> Any:
    if not isinstance(value, kind):
        raise _DamagedError(f"{where} is {value!s:.40}")
    return value
