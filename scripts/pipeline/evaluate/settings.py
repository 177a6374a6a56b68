"""Settings of the utility experiments: which images a model is trained on, validated on and tested on.

    real       all real training images
    synthetic  as many synthetic ones
    mixed      real images of half of the patients, and synthetic ones in place of the other half
    augmented  those of `real` and those of `synthetic` together

Validation and test images are real in every setting, and the same in all settings of a seed, so that scores compare. No
patient is on two sides. A synthetic image is a *twin* of a real one if it was made from it: it is named
`SyntheticImg_NAME`, or, where its name tells nothing, has the same prompt. Twins of images of validation and test
patients are never trained on, and in `mixed` neither are those of patients whose real images are.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from pipeline.columns import read_patients
from pipeline.errors import StepError, counted, listing
from pipeline.evaluate.embedding.embed import sample
from pipeline.evaluate.names import PREFIX, stem_of, training_stems
from pipeline.evaluate.results.results_parts import EncoderResult, SideResult, source_name
from pipeline.folder import local_source
from pipeline.rows import AnyRow, plan_any
from synthchex_75k import LABELS

SETTINGS = ("real", "synthetic", "mixed", "augmented")
REFERENCE = "real"  # the setting that others are compared with
VALIDATION = 0.1  # of the real training patients
TARGETS: dict[int | None, float] = {1: 1.0, 0: 0.0, None: 0.0, -1: np.nan}
POLICY = "labels: not mentioned counts as negative, uncertain is left out, in training and in scoring"


class Example(NamedTuple):
    """An image with its labels.

    Attributes:
        row: Its row of a plan.
        side: "real" or "synthetic".
        patient: Its patient; None where unknown, so that it counts as a patient of its own.
        targets: 1 (positive), 0 (negative) or NaN (left out) for each of `LABELS`, of shape (14,), float32.
    """

    row: AnyRow
    side: str
    patient: str | None
    targets: np.ndarray


class Split(NamedTuple):
    """What one training run sees.

    Attributes:
        setting: One of `SETTINGS`.
        seed: Of everything that is drawn, in the split and in the training.
        train: Images to train on: real ones by file name, then synthetic ones by file name.
        validation: Real images to choose a model and thresholds with, by file name.
        test: Real images to score, by file name.
        notes: What was left out, and which sizes could not be reached.
        real_images: Number of training images of setting `real` with this seed; all settings take as many steps.
    """

    setting: str
    seed: int
    train: list[Example]
    validation: list[Example]
    test: list[Example]
    notes: tuple[str, ...] = ()
    real_images: int = 0


def plan_examples(
    source: str, side: str, patient_column: str | None = None, on_mismatch: str = "error"
) -> list[Example]:
    """Plans the images of a source, without reading one.

    Args:
        source: A SOURCE or PARQUET REPO.
        side: "real" or "synthetic".
        patient_column: Column of the metadata that names the patient. Default: none.
        on_mismatch: `"error"` or `"skip"`, as in `synthchex_75k.plan`.

    Returns:
        The images in the order of the plan.

    Raises:
        SourceError: The source cannot be used.
        StepError: There is no such column, or an image has no patient.
    """
    rows = plan_any(source, on_mismatch)
    targets = np.array([[TARGETS[raw] for raw in row.labels] for row in rows], np.float32).reshape(-1, len(LABELS))
    patients = read_patients(source, rows, patient_column)
    return [Example(row, side, patient, part) for row, patient, part in zip(rows, patients, targets)]


def limited(examples: list[Example], limit: int | None) -> list[Example]:
    """Returns the images that `embed` takes with a limit.

    Args:
        examples: All images of a source.
        limit: How many. Default: all.
    """
    chosen = {row.filename for row in sample([one.row for one in examples], limit)}
    return [one for one in examples if one.row.filename in chosen]


def splits(
    real_train: Sequence[Example],
    synthetic: Sequence[Example],
    real_test: Sequence[Example],
    settings: Sequence[str] = SETTINGS,
    seeds: int = 3,
    seed: int = 0,
) -> list[Split]:
    """Returns the splits of each setting and seed.

    All draws are by hashes of names: they do not depend on the order of rows.

    Args:
        real_train: Real images to train on and to validate on.
        synthetic: Synthetic images.
        real_test: Real images of other patients to test on.
        settings: Some of `SETTINGS`.
        seeds: How many seeds.
        seed: The first of them.

    Returns:
        The splits: for each setting in the order given, one for each seed.

    Raises:
        StepError: A setting is unknown, a side has too few images, or a patient or image is among the training and the
            test images.
    """
    if not settings or (unknown := [name for name in settings if name not in SETTINGS]):
        what = f"unknown setting: {listing(unknown)}" if settings else "no setting"
        raise StepError(f"{what}; choose some of {', '.join(SETTINGS)}")
    if seeds < 1 or seed < 0:
        raise StepError(f"seeds must be positive and the first one not negative: {seeds} from {seed}")
    needs_synthetic = any(setting != "real" for setting in settings)
    sides = {"training": real_train, "test": real_test} | ({"synthetic": synthetic} if needs_synthetic else {})
    for name, side in sides.items():
        if not side:
            raise StepError(f"no {name} images")
    _check_apart(real_train, real_test)
    data = _Data(*(sorted(side, key=lambda one: one.row.filename) for side in (real_train, synthetic, real_test)))
    return [data.split(setting, number) for setting in dict.fromkeys(settings) for number in range(seed, seed + seeds)]


def split_cautions(chosen: Sequence[Split], patient_column: str | None) -> list[str]:
    """Returns what a reader should know of splits, before the long work."""
    lines = []
    if patient_column is None:
        lines.append(
            "no --patient-column: each real image counts as a patient, so that a patient may be on two sides, and "
            "intervals may be too narrow"
        )
    if all(split.setting != REFERENCE for split in chosen):
        lines.append(f"no setting {REFERENCE}: there is nothing to compare with")
    for split in chosen:
        lines += [f"{split.setting}, seed {split.seed}: {note}" for note in split.notes]
    return lines


def split_about(split: Split) -> dict[str, Any]:
    """Returns what is told of a split: its setting, seed, numbers of images and notes."""
    sizes = {"real_train": sum(one.side == "real" for one in split.train)}
    sizes |= {"synthetic_train": len(split.train) - sizes["real_train"], "validation": len(split.validation)}
    return {"setting": split.setting, "seed": split.seed, **sizes, "notes": [*split.notes]}


def examples_side(
    source: str, examples: Sequence[Example], encoders: dict[str, EncoderResult] | None = None
) -> SideResult:
    """Returns the set of images of a source, for results.

    Args:
        source: The SOURCE or PARQUET REPO.
        examples: Its images.
        encoders: Those of their features, by name. Default: none.
    """
    address = local_source(source)
    patients = {one.patient for one in examples}
    known = None if None in patients else len(patients)
    return SideResult(source_name(address), address, len(examples), known, encoders or {})


def patient_of(example: Example) -> tuple[str, str]:
    """Returns what counts as the patient of an image: its patient, or the image itself where that is unknown."""
    return ("image", example.row.filename) if example.patient is None else ("patient", example.patient)


def _check_apart(train: Sequence[Example], test: Sequence[Example]) -> None:
    """Checks that no image or patient is in both.

    Raises:
        StepError: Some are; the message names them.
    """
    kinds = (("image", [one.row.filename for one in train], [one.row.filename for one in test]),)
    kinds += (("patient", [one.patient for one in train], [one.patient for one in test]),)  # type: ignore[assignment]
    for kind, of_train, of_test in kinds:
        if common := sorted({*of_train} & {*of_test} - {None}):
            raise StepError(
                f"{counted(len(common), kind)} among the training and the test images: {listing(common)}; test on "
                "other patients"
            )


class _Data:
    """All images in order, with the patients of each synthetic image: those of its twins."""

    def __init__(self, train: list[Example], synthetic: list[Example], test: list[Example]) -> None:
        self.train, self.synthetic, self.test = train, synthetic, test
        self.patients = sorted({patient_of(one) for one in train})
        self.of_test = {patient_of(one) for one in test}
        if len(self.patients) < 2:
            raise StepError("all real training images are of one patient; validation needs another one")
        self.twins = _patients_of_twins(synthetic, [*train, *test])

    def split(self, setting: str, seed: int) -> Split:
        ranked = _ranked(self.patients, f"{seed} validation")
        held_out = {*ranked[: min(max(1, round(VALIDATION * len(ranked))), len(ranked) - 1)]}
        validation = [one for one in self.train if patient_of(one) in held_out]
        real = [one for one in self.train if patient_of(one) not in held_out]
        if setting == "real":
            return Split(setting, seed, real, validation, self.test, (), len(real))
        wanted, banned = len(real), held_out | self.of_test
        kept: list[Example] = []
        preferred: set[tuple[str, str]] = set()
        if setting == "mixed":
            kept = _half_of(real, f"{seed} mixed")
            if not kept:
                raise StepError(f"setting mixed, seed {seed}: too few patients to train on a half of them")
            of_kept = {patient_of(one) for one in kept}
            preferred = {patient_of(one) for one in real} - of_kept
            wanted, banned = len(real) - len(kept), banned | of_kept
        elif setting == "augmented":
            kept = real
        # `augmented` has the synthetic images of `synthetic`.
        purpose = f"{seed} {'mixed' if setting == 'mixed' else 'synthetic'}"
        chosen, notes = self._choose(wanted, banned, preferred, purpose)
        if not chosen:
            raise StepError(
                f"setting {setting}, seed {seed}: all {counted(len(self.synthetic), 'synthetic image')} are twins of "
                "images that must not be trained on"
            )
        return Split(setting, seed, [*kept, *chosen], validation, self.test, notes, len(real))

    def _choose(
        self, wanted: int, banned: set[tuple[str, str]], preferred: set[tuple[str, str]], purpose: str
    ) -> tuple[list[Example], tuple[str, ...]]:
        """Draws synthetic images.

        Args:
            wanted: How many.
            banned: Patients whose twins are left out.
            preferred: Patients whose twins are taken before others.
            purpose: Seeds the draw.
        """
        allowed = [number for number, twins in enumerate(self.twins) if banned.isdisjoint(twins)]
        first = [number for number in allowed if not preferred.isdisjoint(self.twins[number])]
        others = [number for number in allowed if preferred.isdisjoint(self.twins[number])]
        names = [one.row.filename for one in self.synthetic]
        drawn = [number for part in (first, others) for number in _ranked(part, purpose, names)][:wanted]
        notes = []
        if left_out := len(self.twins) - len(allowed):
            held = "patients that are held out" + " or whose real images are trained on" * bool(preferred)
            notes.append(f"{counted(left_out, 'synthetic image')} left out: twins of images of {held}")
        if len(drawn) < wanted:
            notes.append(f"{counted(len(drawn), 'synthetic image')} in place of {wanted:,}: there are no more")
        return [self.synthetic[number] for number in sorted(drawn)], tuple(notes)


def _half_of(examples: list[Example], purpose: str) -> list[Example]:
    """Returns images of whole patients, drawn until they are half of all; of the last patient, none beyond that."""
    of_patient: dict[tuple[str, str], list[Example]] = defaultdict(list)
    for one in examples:
        of_patient[patient_of(one)].append(one)
    chosen: set[tuple[str, str]] = set()
    count = 0
    for patient in _ranked([*of_patient], purpose):
        if count + len(of_patient[patient]) <= len(examples) / 2:
            chosen.add(patient)
            count += len(of_patient[patient])
    return [one for one in examples if patient_of(one) in chosen]


def _ranked(items: Sequence, purpose: str, names: Sequence[str] | None = None) -> list:
    """Returns items in a random order, by the hash of the purpose and of each item, or of the name that it numbers."""

    def key(item: object) -> bytes:
        name = item if names is None else names[item]  # type: ignore[call-overload]
        return hashlib.sha256(f"{purpose} {name}".encode(errors="surrogatepass")).digest()

    return sorted(items, key=key)


def _patients_of_twins(synthetic: Iterable[Example], real: Iterable[Example]) -> list[set[tuple[str, str]]]:
    """Returns for each synthetic image the patients of the real images that it was made from, as far as known."""
    by_stem: dict[str, set[tuple[str, str]]] = defaultdict(set)
    by_prompt: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for one in real:
        by_stem[stem_of(one.row.filename)].add(patient_of(one))
        by_prompt[_plain(one.row.prompt)].add(patient_of(one))
    found = []
    for one in synthetic:
        patients: set[tuple[str, str]] = set()
        if one.row.filename.startswith(PREFIX):  # else equal names, such as numbers, tell nothing
            for stem in training_stems(one.row.filename):
                patients |= by_stem.get(stem, set())
        # Many radiographs may share a short prompt: it counts only where the name does not tell which one it was.
        patients = patients or set(by_prompt.get(_plain(one.row.prompt), ()))
        if one.patient is not None:
            patients.add(patient_of(one))
        found.append(patients)
    return found


def _plain(prompt: str) -> str:
    return " ".join(prompt.split())
