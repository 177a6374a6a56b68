"""Whether synthetic images tell more of the training images than of other images, from two or three FEATURES_DIRs."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from pipeline.errors import StepError, counted, listing
from pipeline.evaluate.comparison import check_finite, check_same_encoder, check_same_images
from pipeline.evaluate.encoders.encoder import FEATURE
from pipeline.evaluate.features import EncodedWith, Features, read_features, read_index
from pipeline.evaluate.fidelity.fidelity import common_encoders
from pipeline.evaluate.fidelity.frd import RADIOMICS
from pipeline.evaluate.privacy.paired import paired_metrics
from pipeline.evaluate.privacy.paired_images import PairedSources, open_paired_sources
from pipeline.evaluate.privacy.pairing import PAIRED_BY
from pipeline.evaluate.privacy.privacy_metrics import NOTHING, PrivacySides, privacy_metrics
from pipeline.evaluate.results.results import check_results_path, update_results
from pipeline.evaluate.results.results_parts import EncoderResult, features_side
from pipeline.evaluate.results.results_section import ImagePair, Measured, Reference, Section
from pipeline.evaluate.results.results_table import section_table
from pipeline.machine import versions_of
from pipeline.progress import notice

NAMES = ("train", "synthetic", "heldout")
CALLED = {"train": "training", "synthetic": "synthetic", "heldout": "held-out"}
FILES = "files"  # the method of what needs no encoder
SAME = 0.01  # of the spread of features: two embeddings of one file differ by less
SPREAD_ROWS = 1000


def privacy(
    train: Path,
    synthetic: Path,
    results_json: Path,
    *,
    heldout: Path | None = None,
    pair: str | None = None,
    train_source: str | None = None,
    synthetic_source: str | None = None,
    reid: str | None = None,
    on_mismatch: str = "error",
    seed: int = 0,
) -> None:
    """Measures by the features of each encoder that all folders have how much synthetic images tell of training images.

    Args:
        train: FEATURES_DIR of the images that the generator was trained on.
        synthetic: FEATURES_DIR of the synthetic images.
        results_json: Gets the section `privacy`. An earlier one is replaced, the other sections stay.
        heldout: FEATURES_DIR of real images of other patients. Most metrics need it.
        pair: What names the training image of each synthetic one: one of `pairing.PAIRED_BY`. Default: no pairs.
        train_source: SOURCE of the training images, for the pixels of pairs.
        synthetic_source: SOURCE of the synthetic images.
        reid: Weights of the network for re-identification; see `reid.resolve_reid`.
        on_mismatch: What to do where the rows and the images of a source differ: "error" or "skip".
        seed: Seeds everything that is drawn; the same seed gives the same results.

    Raises:
        StepError: The folders cannot be compared, options do not fit together, or `results_json` is another file.
        SourceError: A source cannot be used.
        OSError: A file cannot be read or written.
    """
    check_results_path(results_json)
    if seed < 0:
        raise StepError(f"the seed must not be negative: {seed}")
    folders = [folder for folder in (train, synthetic, heldout) if folder is not None]
    indexes = [read_index(folder) for folder in folders]
    names = _encoders(folders, indexes)
    images = _paired_sources(pair, train_source, synthetic_source, reid, on_mismatch)
    options = {"pair": pair, "images": images.describe() if images else {}}
    firsts: list[Features] = []
    encoders: list[dict[str, EncoderResult]] = [{} for _ in folders]
    metrics, pairs = list[Measured](), dict[str, dict[str, list[ImagePair]]]()
    for sides in _read(folders, indexes, names):
        found = [side for side in sides if side is not None]
        name = sides.train.encoder.name
        _check_sides(sides)
        if not firsts:
            _check_apart(sides)
            metrics.append(_identical_files(sides))
            firsts = [side._replace(outputs={}) for side in found]
        for first, side, title, known in zip(firsts, found, NAMES, encoders):
            check_same_images(first, side, CALLED[title])
            known[name] = EncoderResult(side.encoder.fingerprint, side.encoder.about)
        with np.errstate(over="ignore", invalid="ignore"):  # what is no finite number is refused, by name
            measured, lists = privacy_metrics(sides, seed)
        metrics += measured
        if pair:
            of_pairs, more = paired_metrics(sides.train, sides.synthetic, pair=pair, images=images, seed=seed)
            metrics += of_pairs
            lists |= more
        pairs[name] = lists
        images = None  # pixels do not depend on the encoder
        del sides, found, side  # before the next ones are read
    created = datetime.now(timezone.utc).isoformat(timespec="seconds")
    versions = {"python": platform.python_version(), **versions_of("numpy")}
    about = {title: features_side(first, known) for title, first, known in zip(NAMES, firsts, encoders)}
    section = Section(created, seed, versions, options, about, metrics, pairs)
    update_results(results_json, privacy=section)
    print(section_table(section))
    print(f"{results_json}: {counted(len(metrics), 'value')}")


def _encoders(folders: Sequence[Path], indexes: Sequence[dict[str, EncodedWith]]) -> list[str]:
    """Returns the encoders that all folders have, but for radiomics features, which have no common scale."""
    names = [name for name in common_encoders(folders, indexes) if name != RADIOMICS]
    if not names:
        raise StepError(f"distances of {RADIOMICS} features mean nothing; embed with another encoder too")
    for name in names:
        for index, title in zip(indexes[1:], NAMES[1:]):
            check_same_encoder(indexes[0][name], index[name], (CALLED["train"], CALLED[title]))
    return names


def _paired_sources(
    pair: str | None, train: str | None, synthetic: str | None, reid: str | None, on_mismatch: str
) -> PairedSources | None:
    """Opens the sources of pairs; that they fit together is checked before."""
    if (train is None) != (synthetic is None):
        raise StepError("--train and --synthetic belong together: the images of both sides are compared")
    if pair is None and (train or reid):
        raise StepError(
            f"--{'train' if train else 'reid'} compares images of pairs: add --pair {' or '.join(PAIRED_BY)}"
        )
    if reid and not train:
        raise StepError("--reid looks at images: add --train SOURCE and --synthetic SOURCE")
    if pair is not None and pair not in PAIRED_BY:
        raise StepError(f"--pair {pair}: images are paired by {listing(PAIRED_BY, separator=' or ')}")
    if train is None or synthetic is None:
        return None
    return open_paired_sources(train, synthetic, reid, on_mismatch)


def _read(
    folders: Sequence[Path], indexes: Sequence[dict[str, EncodedWith]], names: Sequence[str]
) -> Iterator[PrivacySides]:
    """Yields the features of one encoder after the other."""
    for name in names:
        with notice(f"{name}: reading features"):
            found = [read_features(folder, index[name], (FEATURE,)) for folder, index in zip(folders, indexes)]
        yield PrivacySides(found[0], found[1], found[2] if len(found) > 2 else None)
        del found  # before the next ones are read


def _check_sides(sides: PrivacySides) -> None:
    """Checks the features of one encoder, before the long work."""
    for name, features in sides._asdict().items():
        if features is None:
            continue
        if not len(features.filenames):
            raise StepError(f"no {CALLED[name]} images in {features.encoder.source}")
        check_finite(features, CALLED[name])


def _check_apart(sides: PrivacySides) -> None:
    """Checks that no patient and no image is in the training and in the held-out set.

    Raises:
        StepError: One is; the message names some.
    """
    train, _, heldout = sides
    if heldout is None:
        return
    if train.patients is not None and heldout.patients is not None:
        patients = {*train.patients.tolist()} & {*heldout.patients.tolist()} - {None}
        if patients:
            raise StepError(
                f"{counted(len(patients), 'patient')} of the held-out images are in the training set too: "
                f"{listing(sorted(patients), 3)}; hold whole patients out"
            )
    if len(rows := same_files(heldout, train)):
        names = [heldout.filenames[row] for row, _ in rows]
        raise StepError(
            f"{counted(len(rows), 'held-out image')} in the training set too: {listing(names, 3)}; the generator must "
            "not have seen held-out images"
        )


def same_files(one: Features, two: Features) -> list[tuple[int, int]]:
    """Returns the rows of one side whose image file is, byte for byte, one of another side, with a row of that.

    CRC-32 and size must be equal, and the features too but for the noise of embedding: of 75,649 x 75,649 different
    files, one pair has one CRC-32 by chance.

    Args:
        one: Features of one encoder.
        two: Features of the same encoder.
    """
    x, y = one.outputs[FEATURE], two.outputs[FEATURE]
    sample = y[:: -(-len(y) // SPREAD_ROWS)].astype(np.float64)
    spread = float(np.sqrt(sample.var(axis=0).sum()))
    places: dict[int, list[int]] = {}
    for row in np.flatnonzero(np.isin(two.crc32, one.crc32)):
        places.setdefault(int(two.crc32[row]), []).append(int(row))
    found = []
    for row in np.flatnonzero(np.isin(one.crc32, two.crc32)):
        for other in places[int(one.crc32[row])]:
            distance = float(np.linalg.norm(np.subtract(x[row], y[other], dtype=np.float64)))
            if (one.sizes[row] == two.sizes[other]).all() and distance <= SAME * spread:
                found.append((int(row), other))
                break
    return found


def _identical_files(sides: PrivacySides) -> Measured:
    """Returns how many synthetic images are training images, byte for byte."""
    rows = same_files(sides.synthetic, sides.train)
    names = [str(sides.synthetic.filenames[row]) for row, _ in rows]
    notes = ("a count, by CRC-32, size and features: it has no interval", *([listing(names, 3)] if names else []))
    sizes, nothing = sides.sizes("synthetic", "train"), (Reference(NOTHING, 0.0),)
    return Measured("identical_files", FILES, None, None, float(len(rows)), None, None, None, sizes, nothing, notes)
