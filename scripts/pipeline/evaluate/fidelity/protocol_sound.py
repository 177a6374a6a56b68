"""The protocol `sound`: all metrics of one encoder, overall and for each label, with intervals and floors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from pipeline.evaluate.comparison import ComparedRows, Rows, comparisons, patient_groups, sample_note
from pipeline.evaluate.encoders.encoder import FEATURE, LOGITS, TEXT
from pipeline.evaluate.encoders.xrv import PATHOLOGIES, XRV_LABELS
from pipeline.evaluate.features import Features
from pipeline.evaluate.fidelity.frd import RADIOMICS, log_estimate, scaled_radiomics
from pipeline.evaluate.meanings import LOWER
from pipeline.evaluate.metrics.alignment import alignment, prompt_cosines, retrieval, shuffled_alignment
from pipeline.evaluate.metrics.auroc import label_auroc
from pipeline.evaluate.metrics.combined import PairStatistics, pair_statistics
from pipeline.evaluate.metrics.estimate import Estimate, refused, refused_unless_finite
from pipeline.evaluate.metrics.floor import Floor, affordable_splits, real_floor, summarised
from pipeline.evaluate.metrics.frechet import MIN_ROWS, FrechetResult, fd, fd_influences, fd_value
from pipeline.evaluate.metrics.inception import inception_score
from pipeline.evaluate.metrics.kernel import cmmd, kid, kid_of_subsets
from pipeline.evaluate.metrics.neighbours import Neighbours, neighbours
from pipeline.evaluate.metrics.pairs import ALL, count_pairs
from pipeline.evaluate.metrics.prdc import coverage, density, precision, recall
from pipeline.evaluate.metrics.vendi import vendi
from pipeline.evaluate.page.glossary import meaning_of
from pipeline.evaluate.results.results_fidelity import EncoderImages, ImageResult, MetricResult, NearestImage
from pipeline.progress import progress_bar
from synthchex_75k import LABELS

PROTOCOL = "sound"
K = 5  # neighbours
NUM_IMAGES = 12  # of each list
PRDC = {"precision": precision, "recall": recall, "density": density, "coverage": coverage}
SAMPLE = "sample"  # name of a sample of all rows among the subsets, where the labels have their own

Found = tuple[str, Estimate, "Floor | None"]  # name of a metric, its value, its floor


class Sides(NamedTuple):
    """What is compared.

    Attributes:
        real: The real side, ordered by file name.
        synthetic: The synthetic side, ordered by file name.
        groups: The patient of each real row; None where patients are unknown.
        seed: Seeds what is drawn.
    """

    real: Features
    synthetic: Features
    groups: np.ndarray | None
    seed: int

    @property
    def features(self) -> tuple[np.ndarray, np.ndarray]:
        """The features of both sides."""
        return self.real.outputs[FEATURE], self.synthetic.outputs[FEATURE]

    def groups_of(self, rows: np.ndarray) -> np.ndarray | None:
        """Returns the patients of some real rows."""
        return None if self.groups is None else self.groups[rows]


def sound_metrics(
    real: Features, synthetic: Features, labels: Sequence[str], seed: int
) -> tuple[list[MetricResult], EncoderImages | None]:
    """Computes all metrics of one encoder.

    Args:
        real: The real side, ordered by file name.
        synthetic: The synthetic side, ordered by file name.
        labels: The labels whose rows are compared for themselves too.
        seed: Seeds what is drawn.

    Returns:
        The metrics of all rows, then those of each label; and the images that stand out, where features are compared.

    Raises:
        StepError: Features are not finite.
    """
    groups = patient_groups(real)
    sides = Sides(real, synthetic, groups, seed)
    compared = comparisons(real, synthetic, labels, groups, seed)
    if real.encoder.name == RADIOMICS:
        return _radiomics(sides, compared), None
    name = real.encoder.name
    pairs = _pairs(sides, compared)
    found, images = [], None
    with progress_bar(f"{name}: other metrics", len(compared), "set of rows") as bar:
        for comparison in compared:
            bar.set_postfix_str(comparison.label or "all rows", refresh=False)
            result = _frechet(sides, comparison)
            if comparison.label is None:
                images = _images(sides, pairs, result, comparison)
            for metric, estimate, floor in (
                _with_floor("fd", result.estimate, _sample_floor(sides, comparison, fd_value_of_rows)),
                *_kernel_metrics(sides, comparison, pairs),
                *_neighbour_metrics(sides, comparison, pairs),
                *_vendi(sides, comparison),
                *_inception(sides, comparison),
                *_text_metrics(sides, comparison),
                *_label_fidelity(sides, comparison),
            ):
                found.append(_entry(sides, comparison, metric, estimate, floor))
            bar.update()
    return found, images


def _entry(
    sides: Sides, comparison: ComparedRows, metric: str, estimate: Estimate, floor: Floor | None
) -> MetricResult:
    estimate = refused_unless_finite(estimate)
    notes = list(dict.fromkeys(estimate.notes))
    if estimate.value is None:
        floor = None
    elif floor and (floor.value is None or not math.isfinite(floor.value)):
        notes.append(f"no floor: refused between two parts of the real set, of {floor.n:,} rows")
        floor = None
    elif floor and floor.n < min(estimate.n_real, estimate.n_synthetic):
        reason = "since two such parts are all that the real set has"
        meaning = meaning_of(metric)
        depends = "; at more rows it would be lower" if meaning.depends_on_n and meaning.better == LOWER else ""
        notes.append(f"floor: between parts of {floor.n:,} rows, {reason}{depends}")
    return MetricResult(metric, sides.real.encoder.name, comparison.label, *estimate[:6], floor, PROTOCOL, tuple(notes))


def _pairs(sides: Sides, compared: list[ComparedRows]) -> PairStatistics:
    """Passes over all pairs of rows once, for all comparisons."""
    x, y = sides.features
    samples = {_sample_name(part): part.sample for part in compared if part.sample}
    samples.pop(ALL, None)
    labelled = compared[1:]
    with progress_bar(f"{sides.real.encoder.name}: pairs", count_pairs(len(x), len(y)), "pair", unit_scale=True) as bar:
        return pair_statistics(
            x,
            y,
            ks=(K,),
            subsets=samples,
            kernel_subsets={part.name: part.rows for part in labelled},
            halves={part.name: part.halves for part in compared},
            groups=sides.groups,
            progress=bar.update,
        )


def _sample_name(comparison: ComparedRows) -> str:
    """Returns the name of a sample among the subsets of the neighbours: that of all rows where it is all rows."""
    if comparison.label:
        return comparison.label
    return ALL if all(comparison.n == len(part) for part in comparison.rows) else SAMPLE


def _refused(comparison: ComparedRows) -> Estimate:
    return refused(len(comparison.rows[0]), len(comparison.rows[1]), comparison.refusal)


def _with_floor(metric: str, estimate: Estimate, floor: Callable[[], Floor | None]) -> Found:
    """Returns a metric with its floor, which is not computed for one that was refused."""
    return metric, estimate, None if estimate.value is None else floor()


def fd_value_of_rows(features: np.ndarray, rows: Rows) -> float | None:
    """Returns FD between two sets of rows of one array; None where it is refused."""
    return fd_value(features, features, rows) if len(rows[0]) >= MIN_ROWS else None


def _sample_floor(
    sides: Sides, comparison: ComparedRows, metric: Callable[[np.ndarray, Rows], float | None]
) -> Callable[[], Floor | None]:
    def compute() -> Floor | None:
        halves = comparison.sample_halves
        if not halves:
            return None
        # The work grows with n here: two splits of large halves, whose metric varies little.
        splits = max(2, affordable_splits(len(halves[0][0])))
        x = sides.features[0]
        return real_floor(lambda one, two: metric(x, (one, two)), halves[:splits])

    return compute


def _frechet(sides: Sides, comparison: ComparedRows) -> FrechetResult:
    if not comparison.sample:
        return FrechetResult(_refused(comparison), None, None)
    result = fd(*sides.features, sides.groups, None, sides.seed, comparison.sample)
    return result._replace(estimate=_noted(result.estimate, *sample_note(comparison)))


def _noted(estimate: Estimate, *notes: str) -> Estimate:
    return estimate if estimate.value is None else estimate._replace(notes=(*notes, *estimate.notes))


def _kernel_metrics(sides: Sides, comparison: ComparedRows, pairs: PairStatistics) -> Iterator[Found]:
    groups = sides.groups_of(comparison.rows[0])
    floors = {}
    for kernel in ("kid", "cmmd"):
        values = pairs.floors[kernel].get(comparison.name, [])
        floors[kernel] = summarised(values, len(comparison.halves[0][0]), len(values)) if values else None
    note = ("all rows of the label: its expectation does not depend on n",) if comparison.label else ()
    yield "kid", _noted(kid(pairs.kernels["kid"][comparison.name], groups), *note), floors["kid"]
    subsets = kid_of_subsets(*sides.features, seed=sides.seed, rows=comparison.rows, groups=sides.groups)
    yield "kid_subsets", _noted(subsets, *note, "floor: that of kid, whose expectation is the same"), floors["kid"]
    yield "cmmd", _noted(cmmd(pairs.kernels["cmmd"][comparison.name], groups), *note), floors["cmmd"]


def _neighbour_metrics(sides: Sides, comparison: ComparedRows, pairs: PairStatistics) -> Iterator[Found]:
    if not comparison.sample:
        for metric in PRDC:
            yield metric, _refused(comparison), None
        return
    found = pairs.neighbours[_sample_name(comparison)]
    groups = sides.groups_of(comparison.sample[0])
    estimates = {metric: compute(found, K, groups) for metric, compute in PRDC.items()}
    between = _neighbours_of_halves(sides, comparison)
    for metric, estimate in estimates.items():
        values = [PRDC[metric](one, K).value for one in between]
        floor = summarised(values, len(comparison.sample_halves[0][0]), len(values)) if values else None
        yield metric, _noted(estimate, *sample_note(comparison)), floor


def _neighbours_of_halves(sides: Sides, comparison: ComparedRows) -> list[Neighbours]:
    x, halves = sides.features[0], comparison.sample_halves
    splits = affordable_splits(len(halves[0][0])) if halves else 0
    return [neighbours(x, x, (K,), rows=rows)[ALL] for rows in halves[:splits]]


def _vendi(sides: Sides, comparison: ComparedRows) -> Iterator[Found]:
    if not comparison.sample:
        yield "vendi", _refused(comparison), None
        return
    estimate = vendi(*sides.features, sides.groups, None, sides.seed, comparison.sample)
    floor = _sample_floor(sides, comparison, lambda x, rows: vendi(x, x, seed=sides.seed, rows=rows).value)
    yield _with_floor("vendi", _noted(estimate, *sample_note(comparison)), floor)


def _inception(sides: Sides, comparison: ComparedRows) -> Iterator[Found]:
    """Yields the Inception Score, and that of as many real images, which takes the place of a floor."""
    for number, side, groups in ((1, sides.synthetic, None), (0, sides.real, sides.groups)):
        if LOGITS not in side.outputs:
            continue
        real = number == 0
        if comparison.sample:
            rows = comparison.sample[number]
            units = None if groups is None else groups[rows]
            logits = _take(side.outputs[LOGITS], rows)
            estimate = inception_score(logits, seed=sides.seed, groups=units, real=real)
        else:
            size = len(comparison.rows[number])
            estimate = refused(size * real, size * (not real), comparison.refusal)
        yield "inception_score" + "_real" * real, _noted(estimate, *sample_note(comparison)), None


def _text_metrics(sides: Sides, comparison: ComparedRows) -> Iterator[Found]:
    """Yields alignment and retrieval, and the same of the real images, which take the place of a floor."""
    for number, side, groups in ((1, sides.synthetic, None), (0, sides.real, sides.groups)):
        if TEXT not in side.outputs:
            continue
        real, ending = number == 0, "_real" if number == 0 else ""

        def chosen(rows: Rows, number: int = number, side: Features = side, groups: np.ndarray | None = groups):  # type: ignore[no-untyped-def]
            part = rows[number]
            arrays = [side.outputs[name] for name in (FEATURE, TEXT)]
            return *(_take(array, part) for array in arrays), None if groups is None else groups[part]

        images, texts, units = chosen(comparison.rows)
        yield f"alignment{ending}", alignment(images, texts, units, real), None
        yield f"alignment_shuffled{ending}", shuffled_alignment(images, texts, units, real), None
        if comparison.sample:
            images, texts, units = chosen(comparison.sample)
            ranks = retrieval(images, texts, groups=units, real=real)
        else:
            size = len(comparison.rows[number])
            ranks = dict.fromkeys((1, 5, 10), refused(size * real, size * (not real), comparison.refusal))
        for k, estimate in ranks.items():
            yield f"retrieval_{k}{ending}", _noted(estimate, *sample_note(comparison)), None


def _take(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Returns rows of an array, without a copy if they are all."""
    return array if len(rows) == len(array) else array[rows]


def _label_fidelity(sides: Sides, comparison: ComparedRows) -> Iterator[Found]:
    if not comparison.label:
        return
    for side, groups, real in ((sides.synthetic, None, False), (sides.real, sides.groups, True)):
        if PATHOLOGIES not in side.outputs:
            continue
        raw = side.labels[:, LABELS.index(comparison.label)]
        # Not mentioned is negative, as in the labels of the dataset's card; uncertain is left out.
        targets = np.where(raw == -1, np.nan, raw == 1)
        scores = np.full(len(raw), np.nan)
        known = list((side.encoder.about.get("classes") or {}).get(PATHOLOGIES, []))
        if (name := XRV_LABELS.get(comparison.label)) in known:
            scores = side.outputs[PATHOLOGIES][:, known.index(name)]
        estimate = label_auroc(scores[:, None], targets[:, None], [comparison.label], groups, real)[comparison.label]
        note = "a label that is not mentioned counts as negative, uncertain ones are left out"
        yield "label_auroc" + "_real" * real, _noted(estimate, note), None


def _images(sides: Sides, pairs: PairStatistics, result: FrechetResult, comparison: ComparedRows) -> EncoderImages:
    x, y = sides.features
    nearest = pairs.neighbours[ALL].nearest["synthetic to real"]
    influences = result.synthetic
    if min(len(x), len(y)) < MIN_ROWS:
        influences = None
    elif influences is None or comparison.n < len(y):
        influences = fd_influences(x, y)[1]

    def listed(values: np.ndarray, sign: int = -1) -> list[ImageResult]:
        found = []
        for i in np.argsort(sign * values, kind="stable")[:NUM_IMAGES]:
            near = _image(sides.real, nearest.indices[i])
            neighbour = NearestImage(*near, float(nearest.distances[i]))
            found.append(ImageResult(*_image(sides.synthetic, i), float(values[i]), neighbour))
        return found

    texts = sides.synthetic.outputs.get(TEXT)
    return EncoderImages(
        [] if influences is None else listed(influences),
        listed(nearest.distances),
        [] if texts is None else listed(prompt_cosines(y, texts), sign=1),
    )


def _image(side: Features, row: int) -> tuple[str, int, str]:
    return str(side.filenames[row]), int(side.crc32[row]), str(side.prompts[row])


def _radiomics(sides: Sides, compared: list[ComparedRows]) -> list[MetricResult]:
    """Returns FRD, overall and for each label."""
    scaled, notes = scaled_radiomics(sides.real, sides.synthetic)
    found = []
    with progress_bar(f"{RADIOMICS}: FRD", len(compared), "set of rows") as bar:
        for comparison in compared:
            if not comparison.sample:
                estimate = _refused(comparison)
            elif not scaled[0].shape[1]:
                estimate = refused(comparison.n, comparison.n, *notes)
            else:
                estimate = fd(*scaled, sides.groups, None, sides.seed, comparison.sample).estimate
                estimate = _noted(log_estimate(estimate), *sample_note(comparison), *notes)
            floor = None
            if estimate.value is not None:
                halves = comparison.sample_halves
                splits = max(2, affordable_splits(len(halves[0][0]))) if halves else 0
                floor = real_floor(lambda one, two: _log_fd(scaled[0], (one, two)), halves[:splits])
            found.append(_entry(sides, comparison, "frd", estimate, floor))
            bar.update()
    return found


def _log_fd(features: np.ndarray, rows: Rows) -> float | None:
    value = fd_value_of_rows(features, rows)
    return math.log(value) if value else None
