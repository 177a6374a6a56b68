"""Linear probes: logistic regression on the features of an encoder, one for each label."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline.errors import StepError, counted, listing
from pipeline.evaluate.comparison import check_finite, check_same_encoder, check_same_images
from pipeline.evaluate.encoders.encoder import FEATURE
from pipeline.evaluate.features import EncodedWith, Features, changed_rows, read_features, read_index
from pipeline.evaluate.fidelity.fidelity import common_encoders
from pipeline.evaluate.metrics.auroc import auroc_placements
from pipeline.evaluate.settings import Example, Split
from pipeline.evaluate.utility.classifier import Scores
from pipeline.imports import import_optional
from pipeline.jobs import available_cpus
from pipeline.progress import notice
from synthchex_75k import LABELS

SIDES = ("train", "synthetic", "test")
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)  # C of scikit-learn, whose loss is a sum over rows
USUAL = 1e-2  # where validation images cannot choose
MAX_ITERATIONS = 1000


class ProbeFeatures(NamedTuple):
    """Features of the three sources, before they are read.

    Attributes:
        folders: FEATURES_DIR of the real training, the synthetic and the real test images.
        encoders: Of each encoder that all have, in the order of `folders`.
        left_out: Number of images of each source that have no features.
    """

    folders: tuple[Path, Path, Path]
    encoders: list[tuple[EncodedWith, EncodedWith, EncodedWith]]
    left_out: dict[str, int]


def find_features(
    folders: Sequence[Path], sides: dict[str, list[Example]]
) -> tuple[ProbeFeatures, dict[str, list[Example]]]:
    """Matches features and sources by file name, before features are read.

    Args:
        folders: FEATURES_DIR of the real training, the synthetic and the real test images.
        sides: The images of each source, by names of `SIDES`.

    Returns:
        What there is, and the images of each source that have features: with `embed --limit`, not all do.

    Raises:
        StepError: The folders have no encoder in common, encoders differ, or features are of other images, prompts or
            labels than those of the source.
        OSError: A file cannot be read.
    """
    indexes = [read_index(folder) for folder in folders]
    names = common_encoders(folders, indexes)
    for name in names:
        for index, side in zip(indexes[1:], SIDES[1:]):
            check_same_encoder(indexes[0][name], index[name], (SIDES[0], side))
    kept, left_out = {}, {}
    for folder, index, side in zip(folders, indexes, SIDES):
        with notice(f"checking {folder} …"):
            found = [read_features(folder, index[name], ()) for name in names]
        for other in found[1:]:
            check_same_images(found[0], other, side)
        for features in found:
            _check_same_rows(folder, features, sides[side])
        known = {*found[0].filenames.tolist()}
        kept[side] = [one for one in sides[side] if one.row.filename in known]
        left_out[side] = len(sides[side]) - len(kept[side])
        if not kept[side]:
            raise StepError(f"{folder} has no features of the {side} images; name the FEATURES_DIR of that source")
    one, two, three = folders
    encoders = [(indexes[0][name], indexes[1][name], indexes[2][name]) for name in names]
    return ProbeFeatures((one, two, three), encoders, left_out), kept


def _check_same_rows(folder: Path, features: Features, examples: Sequence[Example]) -> None:
    """Checks that prompt, labels and, where a zip's directory has it, the CRC-32 of each image are as embedded.

    Raises:
        StepError: Some differ; the message names them.
    """
    rows = [one.row for one in examples]
    crcs = {row.filename: row.zipped[2] for row in rows if row.zipped}
    differing = [row.where for row in changed_rows(features, rows, crcs)]
    if differing:
        raise StepError(
            f"{folder}, {features.encoder.name}: {counted(len(differing), 'image')} of the source changed after it was "
            f"embedded, or its prompt or labels: {listing(differing)}; embed the source again"
        )


def probes(found: ProbeFeatures) -> Iterator[Probe]:
    """Yields a probe for each encoder; its features are read when it is its turn.

    Args:
        found: What `find_features` returned.

    Raises:
        StepError: A feature is not finite, or a file has changed.
        OSError: A file cannot be read.
    """
    for encoders in found.encoders:
        with notice(f"{encoders[0].name}: reading features"):
            sides = [read_features(folder, encoder, (FEATURE,)) for folder, encoder in zip(found.folders, encoders)]
        for features, side in zip(sides, SIDES):
            check_finite(features, side)
        yield Probe(dict(zip(SIDES, sides)))
        del sides  # before the next ones are read


class Probe:
    """Logistic regression with an L2 penalty on the standardised features of one encoder.

    Mean and standard deviation are those of the training images. The strength of the penalty is chosen for each label:
    of `STRENGTHS` the one with the highest AUROC on the validation images, of equal ones the strongest penalty; `USUAL`
    where those lack positive or negative images. A label whose training images are all positive, or all negative, is
    not learnt.

    Args:
        features: Features of `SIDES`.

    Raises:
        StepError: scikit-learn is missing, or no feature is finite in all images.
    """

    is_main = True

    def __init__(self, features: dict[str, Features]) -> None:
        self._linear_model = import_optional("sklearn.linear_model")
        self._limits = import_optional("threadpoolctl").threadpool_limits
        self._encoder = features["train"].encoder
        self._places = {
            side: {name: number for number, name in enumerate(one.filenames.tolist())} for side, one in features.items()
        }
        self._values = {side: one.outputs[FEATURE] for side, one in features.items()}
        # Those of `radiomics` may be undefined.
        finite = np.all([np.isfinite(values).all(axis=0) for values in self._values.values()], axis=0)
        if not finite.any():
            raise StepError(f"{self._encoder.name}: no feature is finite in all images")
        if not finite.all():
            self._values = {side: values[:, finite] for side, values in self._values.items()}
        self._undefined = int((~finite).sum())

    @property
    def name(self) -> str:
        """What results call it."""
        return f"probe: {self._encoder.name}"

    def describe(self) -> dict[str, Any]:
        """Returns all that decides the scores beside the images and the seed."""
        return {
            "classifier": "logistic regression on standardised features, one for each label, L2 penalty, lbfgs",
            "encoder": self._encoder.name,
            "encoder_fingerprint": self._encoder.fingerprint,
            "features": next(iter(self._values.values())).shape[1],
            "undefined_features": self._undefined,
            "C": [*STRENGTHS],
            "C_chosen_by": f"AUROC on the validation images; {USUAL:g} without positive and negative ones",
        }

    def scores(self, split: Split) -> Scores:
        """Trains on a split.

        Args:
            split: The images; all have features.

        Returns:
            Scores on the scale of the logit; they are no probabilities of real images where synthetic ones trained.
        """
        train = self._rows(split.train, "train")
        mean, deviation = train.mean(axis=0, dtype=np.float64), train.std(axis=0, dtype=np.float64)
        deviation[deviation == 0] = 1
        mean, deviation = mean.astype(np.float32), deviation.astype(np.float32)
        sets = [train, self._rows(split.validation, "train"), self._rows(split.test, "test")]
        for values in sets:
            values -= mean
            values /= deviation
        targets, wanted = (np.stack([one.targets for one in part]) for part in (split.train, split.validation))

        def fit(label: int) -> np.ndarray | None:
            known = ~np.isnan(targets[:, label])
            if len({*targets[known, label].tolist()}) < 2:
                return None
            rows = train if known.all() else train[known]
            return self._fit(rows, targets[known, label] == 1, sets[1], wanted[:, label])

        found = [np.full((len(values), len(LABELS)), np.nan) for values in sets[1:]]
        # A thread for each label: several threads of BLAS for one label wait for each other where CPUs are busy.
        with self._limits(1), warnings.catch_warnings(), ThreadPoolExecutor(available_cpus()) as threads:
            # Where 1,000 steps do not reach the optimum, what they reach is compared with the others by AUROC.
            warnings.simplefilter("ignore")
            for label, best in enumerate(threads.map(fit, range(len(LABELS)))):
                if best is not None:
                    for scores, values in zip(found, sets[1:]):
                        scores[:, label] = values @ best[:-1] + best[-1]
        return Scores(*found)

    def _rows(self, examples: Sequence[Example], real: str) -> np.ndarray:
        """Returns features of images, a new array of shape (images, width), float32."""
        parts = []
        for side, wanted in (("real", real), ("synthetic", "synthetic")):
            places = self._places[wanted]
            if rows := [places[one.row.filename] for one in examples if one.side == side]:
                parts.append(self._values[wanted][rows])
        return np.concatenate(parts)  # real ones come first in a split

    def _fit(self, rows: np.ndarray, positive: np.ndarray, validation: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Returns the coefficients and the intercept, with the best strength."""
        known = ~np.isnan(targets)
        validation, wanted = validation[known], targets[known] == 1
        can_choose = wanted.any() and not wanted.all()
        model = self._linear_model.LogisticRegression(max_iter=MAX_ITERATIONS, warm_start=True)
        found, areas = [], []
        for strength in STRENGTHS if can_choose else (USUAL,):
            model.set_params(C=strength)
            model.fit(rows, positive)
            found.append(np.append(model.coef_[0], model.intercept_).astype(np.float32))
            scores = validation @ found[-1][:-1]
            areas.append(float(auroc_placements(scores, wanted)[wanted].mean()) if can_choose else 0.0)
        return found[int(np.argmax(areas))]
