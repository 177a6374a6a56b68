"""What the sections of RESULTS_JSON share: SIDE, and reading JSON with checks that name the place of what is wrong.

A SIDE is an object with these keys:

    name      last part of the source's address
    source    the address
    rows      number of images
    patients  number of patients, or null
    encoders  by name: fingerprint, and about, what decides the features
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

from pipeline.evaluate.features import Features

NUMBER = (int, float)
OPTIONAL = (*NUMBER, type(None))
NOT_NEGATIVE = ("n", "n_real", "n_synthetic", "rows", "patients", "splits", "crc32", "se", "sd", "distance")
LARGEST = sys.float_info.max


class DamagedError(Exception):
    """What is wrong in a results file, and where."""


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
        name: Last part of the source.
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


def source_name(address: str) -> str:
    """Returns what results call a source: the last part of its address.

    Example:
        >>> source_name("hf://datasets/raman07/SynthCheX-75K/"), source_name("/data/real/images.zip")
        ('SynthCheX-75K', 'images.zip')
    """
    return address.rstrip("/").rpartition("/")[2]


def features_side(features: Features, encoders: dict[str, EncoderResult]) -> SideResult:
    """Returns the set of images that has features.

    Args:
        features: Of one encoder.
        encoders: All encoders by name.
    """
    patients = None
    if features.patients is not None:
        patients = len({*features.patients.tolist()} - {None})
    source = features.encoder.source
    return SideResult(source_name(source), source, len(features.filenames), patients, encoders)


def plain(value: Any) -> Any:
    """Returns a value as JSON holds it: objects for named tuples."""
    if hasattr(value, "_asdict"):
        return {key: plain(inner) for key, inner in value._asdict().items()}
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def get(found: dict[str, Any], key: str, kinds: tuple[type, ...], where: str) -> Any:
    """Returns a value of an object.

    Args:
        found: The object.
        key: Its key.
        kinds: The types that it may have.
        where: Place of the object, for the error.

    Raises:
        DamagedError: It is missing, or of another type, or a number that is not finite or must not be negative.
    """
    place = f"{where}.{key}".lstrip(".")
    if key not in found:
        raise DamagedError(f"{place} is missing")
    return checked(found[key], kinds, place, not_negative=key in NOT_NEGATIVE)


def checked(value: Any, kinds: tuple[type, ...], place: str, not_negative: bool = False) -> Any:
    """Returns a value.

    Args:
        value: The value.
        kinds: The types that it may have.
        place: Its place, for the error.
        not_negative: Whether a number must not be negative.

    Raises:
        DamagedError: It is of another type, or a number that is not finite or must not be negative.
    """
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise DamagedError(f"{place} is {value!s:.40}")
    if isinstance(value, NUMBER) and not (abs(value) <= LARGEST and (value >= 0 or not not_negative)):
        raise DamagedError(f"{place} is {value!s:.40}")
    return value


def only(value: Any, kind: type, where: str) -> Any:
    """Returns a value.

    Raises:
        DamagedError: It is of another type.
    """
    if not isinstance(value, kind):
        raise DamagedError(f"{where} is {value!s:.40}")
    return value


def texts_in(found: dict[str, Any], key: str, where: str) -> tuple[str, ...]:
    """Returns a list of texts of an object.

    Raises:
        DamagedError: It is missing, or holds something else.
    """
    texts = get(found, key, (list,), where)
    if not all(isinstance(text, str) for text in texts):
        raise DamagedError(f"{where}.{key}: holds something else than texts")
    return tuple(texts)


def versions_in(found: dict[str, Any]) -> dict[str, str]:
    """Returns `versions` of a section.

    Raises:
        DamagedError: They are missing, or hold something else than texts.
    """
    versions: dict[str, str] = get(found, "versions", (dict,), "")
    if not all(isinstance(version, str) for version in versions.values()):
        raise DamagedError("versions: holds something else than texts")
    return versions


def interval_in(found: dict[str, Any], where: str) -> tuple[float | None, float | None, float | None, float | None]:
    """Returns value, standard error and interval of an object.

    Raises:
        DamagedError: One is missing, or they are no value with its interval.
    """
    value, se, low, high = (get(found, key, OPTIONAL, where) for key in ("value", "se", "ci_low", "ci_high"))
    if (low is None) != (high is None) or (value is None and low is not None) or (low is not None and low > high):
        raise DamagedError(f"{where}: no interval: {low} to {high}")
    return value, se, low, high


def image_in(found: dict[str, Any], where: str) -> tuple[str, int, str]:
    """Returns file name, CRC-32 and prompt of an image.

    Raises:
        DamagedError: One is missing or wrong.
    """
    names = (("filename", str), ("crc32", int), ("prompt", str))
    filename, crc32, prompt = (get(found, key, (kind,), where) for key, kind in names)
    return filename, crc32, prompt


def side_in(found: dict[str, Any], where: str) -> SideResult:
    """Returns a SIDE.

    Raises:
        DamagedError: A part of it is missing or wrong.
    """
    encoders = {}
    for name, part in get(found, "encoders", (dict,), where).items():
        place = f"{where}.encoders.{name}"
        part = only(part, dict, place)
        encoders[name] = EncoderResult(get(part, "fingerprint", (str,), place), get(part, "about", (dict,), place))
    return SideResult(
        get(found, "name", (str,), where),
        get(found, "source", (str,), where),
        get(found, "rows", (int,), where),
        get(found, "patients", (int, type(None)), where),
        encoders,
    )
