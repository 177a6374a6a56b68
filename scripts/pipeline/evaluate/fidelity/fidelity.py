"""All metrics of synthetic images against real ones, from two FEATURES_DIRs, overall and for each label."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from pipeline.errors import StepError, counted, listing
from pipeline.evaluate.comparison import check_finite, check_same_encoder, check_same_images, in_order
from pipeline.evaluate.features import EncodedWith, Features, read_features, read_index
from pipeline.evaluate.fidelity.protocol_chexgenbench import chexgenbench_metrics
from pipeline.evaluate.fidelity.protocol_sound import sound_metrics
from pipeline.evaluate.results.results import check_results_path, update_results
from pipeline.evaluate.results.results_fidelity import PROTOCOLS, EncoderImages, Fidelity
from pipeline.evaluate.results.results_parts import EncoderResult, features_side, source_name
from pipeline.evaluate.results.results_table import results_table
from pipeline.machine import versions_of
from pipeline.progress import notice, write_line
from synthchex_75k import LABELS


def fidelity(
    real: Path,
    synthetic: Path,
    results_json: Path,
    *,
    protocol: str = "sound",
    labels: tuple[str, ...] | None = None,
    seed: int = 0,
) -> None:
    """Compares synthetic with real images by the features of each encoder that both folders have.

    Args:
        real: FEATURES_DIR of the real images.
        synthetic: FEATURES_DIR of the synthetic images.
        results_json: Gets the section `fidelity`. An earlier one is replaced, the other sections stay.
        protocol: "sound", or "chexgenbench" for the definitions of the authors' code.
        labels: The labels whose rows are compared for themselves too. Default: all 14.
        seed: Seeds everything that is drawn; the same seed gives the same results.

    Raises:
        StepError: The folders cannot be compared, or `results_json` is another file.
        OSError: A file cannot be read or written.
    """
    check_results_path(results_json)
    folders = real, synthetic
    indexes = [read_index(folder) for folder in folders]
    names = common_encoders(folders, indexes)
    for name in names:
        check_same_encoder(indexes[0][name], indexes[1][name])

    def pairs() -> Iterator[tuple[Features, Features]]:
        for name in names:
            with notice(f"{name}: reading features"):
                one, two = (read_features(folder, index[name]) for folder, index in zip(folders, indexes))
            yield one, two
            del one, two  # before the next ones are read

    called = [source_name(index[names[0]].source) for index in indexes]
    found = compare(pairs(), (called[0], called[1]), protocol=protocol, labels=labels, seed=seed)
    update_results(results_json, fidelity=found)
    print(results_table(found))
    print(f"{results_json}: {counted(len(found.metrics), 'value')}")


def common_encoders(folders: Sequence[Path], indexes: Sequence[dict[str, EncodedWith]]) -> list[str]:
    """Returns the encoders that all folders have, in the order of the first, and names those that are left out.

    Raises:
        StepError: They have none in common.
    """
    names = [name for name in indexes[0] if all(name in index for index in indexes)]
    if not names:
        lists = " and ".join(f"{folder} has {listing([*index])}" for folder, index in zip(folders, indexes))
        raise StepError(f"no encoder in common: {lists}; embed all with one encoder")
    for folder, index in zip(folders, indexes):
        if others := [name for name in index if name not in names]:
            write_line(f"left out, as not all folders have it: {listing(others)} of {folder}")
    return names


def compare(
    pairs: Iterable[tuple[Features, Features]],
    names: tuple[str, str],
    *,
    protocol: str = "sound",
    labels: Sequence[str] | None = None,
    seed: int = 0,
) -> Fidelity:
    """Compares the features of one encoder after the other.

    Args:
        pairs: The real and the synthetic features of each encoder; an iterator may read them when it is their turn.
        names: What the results call the real and the synthetic side.
        protocol: One of `PROTOCOLS`.
        labels: The labels whose rows are compared for themselves too. Default: all 14.
        seed: Seeds everything that is drawn.

    Returns:
        The results. They do not depend on the order of rows.

    Raises:
        StepError: The protocol or a label is unknown, or features cannot be compared.
    """
    labels = tuple(dict.fromkeys(LABELS if labels is None else labels))
    if unknown := [label for label in labels if label not in LABELS]:
        raise StepError(f"unknown label: {listing(unknown)}; the labels are {listing(LABELS, 14, ', ')}")
    if protocol not in PROTOCOLS:
        raise StepError(f"unknown protocol {protocol!r}; known are {listing(PROTOCOLS, separator=', ')}")
    if seed < 0:
        raise StepError(f"the seed must not be negative: {seed}")
    sides: list[tuple[Features, dict[str, EncoderResult]]] = []
    metrics, images = [], dict[str, EncoderImages]()
    for both in pairs:
        real, synthetic = (in_order(features) for features in both)
        check_same_encoder(real.encoder, synthetic.encoder)
        if not sides:
            sides = [(features._replace(outputs={}), {}) for features in (real, synthetic)]
        for (first, encoders), features, side in zip(sides, (real, synthetic), ("real", "synthetic")):
            check_same_images(first, features, side)
            encoders[features.encoder.name] = EncoderResult(features.encoder.fingerprint, features.encoder.about)
        if not len(real.filenames) or not len(synthetic.filenames):
            raise StepError(f"no images to compare: {len(real.filenames)} real, {len(synthetic.filenames)} synthetic")
        for features, side in ((real, "real"), (synthetic, "synthetic")):
            check_finite(features, side)
        with np.errstate(over="ignore", invalid="ignore"):  # what is no finite number is refused, by name
            if protocol == "sound":
                found, extremes = sound_metrics(real, synthetic, labels, seed)
                if extremes:
                    images[real.encoder.name] = extremes
            else:
                found = chexgenbench_metrics(real, synthetic, labels, seed)
        metrics += found
        del both, real, synthetic, features  # before the next ones are read
    if not sides:
        raise StepError("no features to compare")
    created = datetime.now(timezone.utc).isoformat(timespec="seconds")
    versions = {"python": platform.python_version(), **versions_of("numpy")}
    one, two = (features_side(first, encoders)._replace(name=name) for name, (first, encoders) in zip(names, sides))
    return Fidelity(protocol, created, seed, labels, one, two, versions, metrics, images)
