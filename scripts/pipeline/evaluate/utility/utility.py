"""What a classifier of radiographs learns from synthetic images, on the scale of what it learns from real ones."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.cli import defaults_of
from pipeline.errors import StepError, counted, listing
from pipeline.evaluate.metrics.classification import DIFFERENCE, Run, Score, classification_scores
from pipeline.evaluate.results.results import check_results_path, update_results
from pipeline.evaluate.results.results_parts import EncoderResult
from pipeline.evaluate.results.results_section import Measured, Reference, Section
from pipeline.evaluate.results.results_table import section_table
from pipeline.evaluate.settings import (
    POLICY,
    REFERENCE,
    SETTINGS,
    VALIDATION,
    Example,
    Split,
    examples_side,
    limited,
    plan_examples,
    split_about,
    split_cautions,
    splits,
)
from pipeline.evaluate.utility.backbone import Backbone
from pipeline.evaluate.utility.classifier import Classifier
from pipeline.evaluate.utility.probe import ProbeFeatures, find_features, probes
from pipeline.imports import check_installed
from pipeline.machine import versions_of
from pipeline.progress import progress_bar, write_line
from synthchex_75k import LABELS

PACKAGES = ("numpy", "scikit-learn", "torch", "torchvision", "timm", "accelerate")


def utility(
    real_train: str,
    synthetic: str,
    real_test: str,
    results_json: Path,
    *,
    settings: tuple[str, ...] = SETTINGS,
    probe: Sequence[Path] | None = None,
    seeds: int = 3,
    patient_column: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    on_mismatch: str = "error",
    backbone: str | None = None,
    checkpoints: Path | None = None,
    weights: str | None = None,
    revision: str | None = None,
    epochs: int = 10,
    batch_size: int = 64,
    learning_rate: float = 1e-4,
    image_size: int | None = None,
    horizontal_flips: bool = False,
    precision: str = "auto",
) -> None:
    """Trains classifiers on real, synthetic and both kinds of images, and tests all on real ones.

    Args:
        real_train: SOURCE of real images to train on and to validate on.
        synthetic: SOURCE of synthetic images.
        real_test: SOURCE of real images of other patients.
        results_json: Gets the section `utility`. An earlier one is replaced, the other sections stay.
        settings: What to train on, some of `SETTINGS`; `"real"` is what the others are compared with.
        probe: FEATURES_DIRs of the three sources, in their order: train logistic regressions on features.
        seeds: Number of trainings in each setting, with other validation patients and other draws.
        patient_column: Column of the metadata of the two real sources that names the patient of an image. Default:
            none; each image counts as a patient.
        limit: Take this number of images of each source, chosen at random by a hash of the file name. Default: all.
        seed: The first seed.
        on_mismatch: `"error"` or `"skip"`, as in `synthchex_75k.plan`.
        backbone: Name of a network of `timm`: fine-tune it on the images. Either this or `probe` is given.
        checkpoints: Folder for what `--backbone` resumes from. Default: `RESULTS_JSON` with the suffix `.utility`.
        weights: As the following, of `Backbone`.
        revision: See there.
        epochs: See there.
        batch_size: See there.
        learning_rate: See there.
        image_size: See there.
        horizontal_flips: See there.
        precision: See there.

    Raises:
        SourceError: A source cannot be used, or an image is damaged.
        StepError: The images cannot be split, a classifier cannot be trained, a package is missing, or `results_json`
            is another file.
        OSError: A file cannot be read or written.
    """
    check_results_path(results_json)
    if (probe is None) == (backbone is None):
        raise StepError(
            "choose one kind of classifier: --probe TRAIN_FEATURES SYNTHETIC_FEATURES TEST_FEATURES, after `embed`, or "
            "--backbone NAME"
        )
    training: dict[str, Any] = {
        "weights": weights,
        "revision": revision,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "image_size": image_size,
        "horizontal_flips": horizontal_flips,
        "precision": precision,
    }
    trained = _backbone(backbone, checkpoints or results_json.with_suffix(".utility"), training)
    if probe is not None:
        check_installed("sklearn")
    sources = {"train": real_train, "synthetic": synthetic, "test": real_test}
    sides = {
        name: plan_examples(
            source, *(("synthetic", None) if name == "synthetic" else ("real", patient_column)), on_mismatch
        )
        for name, source in sources.items()
    }
    sides = {name: limited(side, limit) for name, side in sides.items()}
    _split(sides, settings, seeds, seed)  # its errors come before features are looked at
    found = None
    if probe is not None:
        found, sides = find_features(probe, sides)
        for name, count in found.left_out.items():
            if count:
                write_line(f"{counted(count, 'image')} of {sources[name]} left out: without features")
    chosen = _split(sides, settings, seeds, seed)
    for line in split_cautions(chosen, patient_column):
        write_line(line)
    classifiers: Iterator[Classifier] = probes(found) if found else iter([trained] if trained else [])
    metrics, about = train_and_score(classifiers, len(found.encoders) if found else 1, chosen)
    if metrics:
        options = {
            "settings": [*settings],
            "seeds": seeds,
            "patient_column": patient_column,
            "limit": limit,
            "validation": VALIDATION,
            "labels": POLICY,
            "left_out": found.left_out if found else {},
            "classifiers": about,
            "splits": [split_about(split) for split in chosen],
        }
        encoders = {name: _encoders(found, number) if found else {} for number, name in enumerate(sources)}
        about_sides = {name: examples_side(source, sides[name], encoders[name]) for name, source in sources.items()}
        created = datetime.now(timezone.utc).isoformat(timespec="seconds")
        versions = {"python": platform.python_version(), **versions_of(*PACKAGES)}
        section = Section(created, seed, versions, options, about_sides, metrics, {})
        update_results(results_json, utility=section)
        print(section_table(section))
        print(f"{results_json}: {counted(len(metrics), 'value')}")


def _backbone(name: str | None, folder: Path, training: dict[str, Any]) -> Backbone | None:
    """Returns the network to train, if there is one; its errors come before the sources are read.

    Raises:
        StepError: It cannot be used, or there is none and the options of one were given.
    """
    if name is not None:
        return Backbone(name, folder, **training)
    usual = defaults_of(Backbone)
    if given := [f"--{option.replace('_', '-')}" for option, value in training.items() if value != usual[option]]:
        raise StepError(f"{listing(given)}: of --backbone only")
    return None


def _split(sides: dict[str, list[Example]], settings: Sequence[str], seeds: int, seed: int) -> list[Split]:
    return splits(sides["train"], sides["synthetic"], sides["test"], settings, seeds, seed)


def train_and_score(
    classifiers: Iterator[Classifier], number: int, chosen: Sequence[Split]
) -> tuple[list[Measured], dict[str, Any]]:
    """Trains classifiers on all splits and scores them.

    Args:
        classifiers: The classifiers; an iterator may prepare one when it is its turn.
        number: How many there are.
        chosen: The splits, as `settings.splits` returns them.

    Returns:
        The values of the classifiers that write results in this process, and what decides them, by name.

    Raises:
        SourceError: An image is damaged.
        StepError: A classifier cannot be trained.
        OSError: A file cannot be read or written.
    """
    metrics: list[Measured] = []
    about = {}
    with progress_bar("Training", number * len(chosen), "run") as bar:
        for classifier in classifiers:
            runs: dict[str, list[Run]] = {}
            for split in chosen:
                bar.set_postfix_str(f"{classifier.name}, {split.setting}, seed {split.seed}", refresh=False)
                scores = classifier.scores(split)
                targets = np.stack([one.targets for one in split.validation])
                runs.setdefault(split.setting, []).append(Run(scores.test, scores.validation, targets))
                bar.update()
            if classifier.is_main:
                about[classifier.name] = classifier.describe()
                metrics += measured(classifier.name, runs, chosen)
            del classifier  # before the next one is prepared
    return metrics, about


def measured(method: str, runs: dict[str, list[Run]], chosen: Sequence[Split]) -> list[Measured]:
    """Returns the values of a classifier.

    Args:
        method: Name of the classifier.
        runs: Its runs by setting, in the order of seeds.
        chosen: The splits.
    """
    test = chosen[0].test
    groups = None
    if test[0].patient is not None:
        groups = np.unique([one.patient for one in test], return_inverse=True)[1]
    scores = classification_scores(runs, np.stack([one.targets for one in test]), LABELS, groups, REFERENCE)
    references = {(one.metric, one.label): one for one in scores if one.setting == REFERENCE}
    sizes = {setting: _training_sizes([one for one in chosen if one.setting == setting]) for setting in runs}
    found = []
    for one in scores:
        of_label = LABELS.index(one.label) if one.label else None
        notes = [*one.estimate.notes]
        if one.label is None:
            notes += [
                f"seed {split.seed}: {note}" for split in chosen if split.setting == one.setting for note in split.notes
            ]
        found.append(
            Measured(
                one.metric,
                method,
                one.setting,
                one.label,
                *one.estimate[:4],
                _sizes(one, sizes[one.setting], of_label),
                _references(one, references.get((one.metric, one.label))),
                tuple(notes),
            )
        )
    return found


def _training_sizes(chosen: Sequence[Split]) -> tuple[int, np.ndarray]:
    """Returns the smallest number of training images of all seeds, and of positive ones of each label."""
    positives = [(np.stack([one.targets for one in split.train]) == 1).sum(axis=0) for split in chosen]
    return min(len(split.train) for split in chosen), np.min(positives, axis=0)


def _sizes(score: Score, of_training: tuple[int, np.ndarray], label: int | None) -> dict[str, int]:
    sizes = {"train": of_training[0]}
    if label is not None:
        sizes["train_positive"] = int(of_training[1][label])
    sizes["test"] = score.estimate.n_real
    if score.positives is not None:
        sizes["positive"] = score.positives
    if score.patients is not None:
        sizes["patients"] = score.patients
    return sizes


def _references(score: Score, real: Score | None) -> tuple[Reference, ...]:
    if score.estimate.value is None or score.chance is None:
        return ()
    if score.metric.endswith(DIFFERENCE):
        return (Reference("no difference", 0.0),)
    found = [Reference("chance", score.chance)]
    if real and score.setting != REFERENCE and real.estimate.value is not None:
        found.append(Reference(REFERENCE, real.estimate.value, real.estimate.ci_low, real.estimate.ci_high))
    return tuple(found)


def _encoders(found: ProbeFeatures, side: int) -> dict[str, EncoderResult]:
    return {one[side].name: EncoderResult(one[side].fingerprint, one[side].about) for one in found.encoders}
