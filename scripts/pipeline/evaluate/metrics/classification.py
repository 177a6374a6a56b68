"""Scores of classifiers on one test set: AUROC, average precision and F1, with intervals and paired differences.

A classifier is trained several times, with several seeds, in several settings. A score is the mean over the seeds. Its
variance has two parts: what other test patients would change, from the influence of each row on the score, summed by
patients (Liang and Zeger 1986); and what other seeds would change, from the differences between the seeds. It leaves
out what other training patients would change. The difference of two settings is paired: it is computed on the same test
patients and seed by seed, so that what both have in common cancels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pipeline.errors import StepError, counted
from pipeline.evaluate.metrics.auroc import auroc_placements
from pipeline.evaluate.metrics.estimate import (
    Z95,
    Estimate,
    mean_variance,
    normal_estimate,
    proportion_estimate,
    refused,
)
from pipeline.evaluate.metrics.features import check_groups

METRICS = ("auroc", "average_precision", "f1")
DIFFERENCE = "_difference"
FEW_POSITIVES = 10
NEARLY_PERFECT = 0.1  # errors of a tenth of a positive patient: a standard error of them tells nothing
# 97.5 % quantiles of Student's t by 1 / degrees of freedom; it is nearly linear between them.
INVERSE_DF = (0, 1 / 30, 0.1, 0.2, 1 / 3, 0.5, 1)
T_QUANTILES = (Z95, 2.0423, 2.2281, 2.5706, 3.1824, 4.3027, 12.7062)


class Run(NamedTuple):
    """What one training run gave.

    Attributes:
        test: Scores of the test rows, higher for positive, of shape (n, labels); NaN in a whole column: it did not
            learn the label.
        validation: The same of validation rows, of shape (m, labels).
        targets: Of the validation rows: 1, 0, or NaN for those to leave out, of shape (m, labels).
    """

    test: np.ndarray
    validation: np.ndarray
    targets: np.ndarray


class Score(NamedTuple):
    """A metric of one setting, for a label or as the mean over labels.

    Attributes:
        metric: One of `METRICS`, or its name with `_difference` for the difference to the reference setting.
        setting: The setting.
        label: The label; None: the mean over labels.
        estimate: The value; `n_real` is the number of test rows that have the label's target.
        chance: What a classifier without skill reaches: 0.5, the share of positives, or F1 where all are called
            positive; 0 for a difference. None where it is unknown.
        positives: Number of positive test rows; None for the mean over labels.
        patients: Number of patients among the rows; None where patients are unknown.
    """

    metric: str
    setting: str
    label: str | None
    estimate: Estimate
    chance: float | None
    positives: int | None
    patients: int | None


class Influenced(NamedTuple):
    """A value, or several, and what each row adds to it: its derivative by the weight of the row.

    Attributes:
        values: The value of each run, of shape (runs,).
        influences: Of shape (runs, rows). They sum up to 0.
    """

    values: np.ndarray
    influences: np.ndarray


def classification_scores(
    runs: Mapping[str, Sequence[Run]],
    targets: np.ndarray,
    names: Sequence[str],
    groups: np.ndarray | None = None,
    reference: str = "real",
) -> list[Score]:
    """Returns all metrics of all settings, and their differences to one of them.

    Args:
        runs: Of each setting its runs, one for each seed, in the same order of seeds.
        targets: Of the test rows: 1, 0, or NaN for those to leave out, of shape (n, labels).
        names: The labels.
        groups: The patient of each test row, of shape (n,); each row is a patient of its own by default.
        reference: The setting that others are compared with; without it there are no differences.

    Returns:
        For each setting and metric the mean over labels, then each label; then the differences likewise. A label is
        refused where a run did not learn it, or where the test set, or for F1 a validation set, lacks positive or
        negative rows. The means are over those labels that no setting refuses, so that all are of the same labels.

    Raises:
        StepError: Shapes differ, settings have different numbers of runs, or targets hold other values.
    """
    targets = np.asarray(targets, np.float64)
    _check(runs, targets, names)
    test = _Test(targets, names, check_groups(groups, len(targets)), len(next(iter(runs.values()))))
    of_settings = {setting: test.measure(of_setting) for setting, of_setting in runs.items()}
    scores = []
    for metric in METRICS:
        common = [
            label
            for label in range(len(names))
            if not any(isinstance(found[metric][label], str) for found in of_settings.values())
        ]
        found = {setting: _with_mean(of_setting[metric], common) for setting, of_setting in of_settings.items()}
        for setting, of_setting in found.items():
            scores += [test.score(metric, setting, part, common, label) for label, part in of_setting.items()]
        for setting, of_setting in found.items():
            if reference in found and setting != reference:
                parts = {label: _difference(part, found[reference][label]) for label, part in of_setting.items()}
                name = metric + DIFFERENCE
                scores += [test.score(name, setting, part, common, label) for label, part in parts.items()]
    return scores


def auroc_influence(scores: np.ndarray, positive: np.ndarray) -> tuple[float, np.ndarray]:
    """Returns AUROC and the influence of each row: placements (DeLong et al. 1988) less their mean, by class.

    Args:
        scores: Higher for positive, of shape (n,).
        positive: Which rows are positive, of shape (n,); some are and some are not.
    """
    placements = auroc_placements(scores, positive)
    value = float(placements[positive].mean())
    return value, (placements - value) / np.where(positive, positive.sum(), (~positive).sum())


def average_precision_influence(scores: np.ndarray, positive: np.ndarray) -> tuple[float, np.ndarray]:
    """Returns average precision and the influence of each row.

    It is the mean, over positive rows i, of the precision of the rule that calls positive what scores as high as i: the
    area under the precision-recall curve as a step function, as in `sklearn.metrics.average_precision_score`.

    Args:
        scores: Higher for positive, of shape (n,).
        positive: Which rows are positive, of shape (n,); some are.

    Example:
        >>> round(average_precision_influence(np.array([3.0, 2.0, 1.0]), np.array([True, False, True]))[0], 3)
        0.833
    """
    _, place, counts = np.unique(-scores, return_inverse=True, return_counts=True)
    place = place.ravel()
    above = np.cumsum(counts)  # rows that score as high, for each different score from the highest one on
    hits = np.bincount(place, weights=positive)
    precision = np.cumsum(hits) / above
    total = hits.sum()
    value = float((hits * precision).sum() / total)
    # A row counts in the precision at all positive rows that score as low as it, or lower.
    as_hit = np.cumsum((hits / above)[::-1])[::-1][place]
    as_call = np.cumsum((hits * precision / above)[::-1])[::-1][place]
    return value, (positive * (precision[place] - value + as_hit) - as_call) / total


def f1_influence(called: np.ndarray, positive: np.ndarray) -> tuple[float, np.ndarray]:
    """Returns F1 and the influence of each row.

    Args:
        called: Which rows are called positive, of shape (n,).
        positive: Which rows are positive, of shape (n,); some are.

    Example:
        >>> f1_influence(np.array([True, True, False]), np.array([True, False, False]))[0]
        0.6666666666666666
    """
    either = called.astype(float) + positive
    value = float(2 * (called & positive).sum() / either.sum())
    return value, (2 * (called & positive) - value * either) / either.sum()


def best_threshold(scores: np.ndarray, positive: np.ndarray) -> float:
    """Returns the threshold with the highest F1, in the middle between two scores; the highest such one.

    Args:
        scores: Higher for positive, of shape (n,).
        positive: Which rows are positive, of shape (n,); some are.

    Example:
        >>> best_threshold(np.array([4.0, 3.0, 1.0]), np.array([True, True, False]))
        2.0
    """
    values, place, counts = np.unique(-scores, return_inverse=True, return_counts=True)
    hits = np.cumsum(np.bincount(place.ravel(), weights=positive))
    best = int(np.argmax(2 * hits / (np.cumsum(counts) + hits[-1])))
    return -float(values[best] if best + 1 == len(values) else (values[best] + values[best + 1]) / 2)


def _check(runs: Mapping[str, Sequence[Run]], targets: np.ndarray, names: Sequence[str]) -> None:
    if not runs or len({len(of_setting) for of_setting in runs.values()}) != 1 or not next(iter(runs.values())):
        raise StepError("each setting needs the same number of runs, and at least one")
    shapes = {run.test.shape for of_setting in runs.values() for run in of_setting} | {targets.shape}
    if shapes != {(len(targets), len(names))}:
        raise StepError(f"test scores and targets must have the shape ({len(targets)}, {len(names)}): {shapes}")
    for run in (run for of_setting in runs.values() for run in of_setting):
        if run.validation.shape != run.targets.shape or run.validation.shape[1:] != (len(names),):
            raise StepError(f"validation scores and targets differ: {run.validation.shape}, {run.targets.shape}")
    for one in (targets, *(run.targets for of_setting in runs.values() for run in of_setting)):
        if not np.isin(one[~np.isnan(one)], (0, 1)).all():
            raise StepError("targets must be 1, 0 or NaN")


class _Test:
    """The test set."""

    def __init__(self, targets: np.ndarray, names: Sequence[str], groups: np.ndarray | None, runs: int) -> None:
        self.targets, self.names, self.groups, self.runs = targets, names, groups, runs
        self.known = ~np.isnan(targets)
        self.positive = targets == 1
        self.units = np.arange(len(targets)) if groups is None else groups

    def measure(self, runs: Sequence[Run]) -> dict[str, list[Influenced | str]]:
        """Returns for each metric, of each label, the values of all runs, or why it is refused."""
        found: dict[str, list[Influenced | str]] = {metric: [] for metric in METRICS}
        for label in range(len(self.names)):
            refusal = self._refusal(label, runs)
            no_threshold = refusal or _no_threshold(label, runs)
            for metric, reason in zip(METRICS, (refusal, refusal, no_threshold)):
                found[metric].append(reason or self._influenced(metric, label, runs))
        return found

    def _refusal(self, label: int, runs: Sequence[Run]) -> str:
        known = self.known[:, label]
        positives, negatives = (int(found.sum()) for found in (self._positive(label), ~self._positive(label)))
        if not positives or not negatives:
            return f"the test set has {positives:,} positive and {negatives:,} negative images"
        if any(np.isnan(run.test[known, label]).any() for run in runs):
            return "not learnt: the training images of a seed are all positive or all negative"
        return ""

    def _positive(self, label: int) -> np.ndarray:
        return self.positive[self.known[:, label], label]

    def _influenced(self, metric: str, label: int, runs: Sequence[Run]) -> Influenced:
        known, positive = self.known[:, label], self._positive(label)
        units = len(np.unique(self.units[known][positive]))
        values, influences = [], np.zeros((len(runs), len(known)))
        for number, run in enumerate(runs):
            scores = run.test[known, label].astype(np.float64)
            if metric == "f1":
                value, influence = f1_influence(scores >= _threshold(label, run), positive)
            else:
                value, influence = _INFLUENCES[metric](scores, positive)
            # As in a sample's variance: the mean of few positive rows is nearer to each of them than the true one.
            influence[positive] *= math.sqrt(units / (units - 1)) if units > 1 else 1
            values.append(value)
            influences[number, known] = influence
        return Influenced(np.array(values), influences)

    def score(self, metric: str, setting: str, found: Influenced | str, common: list[int], label: int | None) -> Score:
        known = self.known.any(axis=1) if label is None else self.known[:, label]
        rows, positives = int(known.sum()), None if label is None else int(self._positive(label).sum())
        patients = None if self.groups is None else len(np.unique(self.groups[known]))
        name = None if label is None else self.names[label]
        if isinstance(found, str):
            return Score(metric, setting, name, refused(rows, 0, found), None, positives, patients)
        estimate = self._estimate(metric, found, rows, common, label)
        base = metric.removesuffix(DIFFERENCE)
        parts = [_chance(base, self._positive(part).mean()) for part in (common if label is None else [label])]
        chance = 0.0 if base != metric else float(np.mean(parts))
        return Score(metric, setting, name, estimate, chance, positives, patients)

    def _estimate(self, metric: str, found: Influenced, rows: int, common: list[int], label: int | None) -> Estimate:
        value = float(found.values.mean())
        if label is None:
            units = len(np.unique(self.units)), math.inf
            notes = _mean_notes(common, self.names)
        else:
            few = int(self._positive(label).sum()) < FEW_POSITIVES
            notes = (f"fewer than {FEW_POSITIVES} positive test images: value and interval are rough",) * few
            classes = (self.known[:, label] & (self.positive[:, label] == wanted) for wanted in (True, False))
            units = tuple(len(np.unique(self.units[part])) for part in classes)  # type: ignore[assignment]
        if min(units) < 2:
            side = "" if label is None else "positive " if units[0] < 2 else "negative "
            return Estimate(value, None, None, None, rows, 0, (*notes, f"one {side}patient: no interval"))
        se, factor = self._error(found, min(units) - 1)
        sizes, notes = (rows, 0), (*notes, self._method())
        if metric.endswith(DIFFERENCE):
            if not se:
                return Estimate(
                    value, None, None, None, *sizes, (*notes, "the same for all test patients: no interval")
                )
            estimate = normal_estimate(value, se * factor, *sizes, notes, (-1.0, 1.0))
        elif se > NEARLY_PERFECT / min(units):
            estimate = _logit_estimate(value, se * factor, *sizes, notes)
        else:  # nearly perfect scores: no patient is wrong, so none tells how wrong others may be
            estimate = proportion_estimate(value, se * factor, min(units), *sizes, notes)
        return estimate._replace(se=se)

    def _error(self, found: Influenced, df: float) -> tuple[float, float]:
        """Returns the standard error of the mean over runs, and the quantile of Student's t for it, divided by 1.96.

        Args:
            found: The values and influences of the runs.
            df: Degrees of freedom of the part of the test patients.
        """
        of_patients = mean_variance(found.influences.mean(axis=0) * len(self.units), self.units)
        of_seeds = float(found.values.var(ddof=1) / self.runs) if self.runs > 1 else 0.0
        variance = of_patients + of_seeds
        inverse_df = 0.0
        if variance > 0:  # Welch and Satterthwaite
            inverse_df = (of_patients**2 / df + of_seeds**2 / max(1, self.runs - 1)) / variance**2
        return math.sqrt(variance), float(np.interp(inverse_df, INVERSE_DF, T_QUANTILES)) / Z95

    def _method(self) -> str:
        units = "images, patients are unknown" if self.groups is None else "patients"
        seeds = f"{self.runs} seeds" if self.runs > 1 else "not seeds, as there is one"
        return f"interval: test {units}, and {seeds}; not other training patients"


def _logit_estimate(value: float, se: float, n_real: int, n_synthetic: int, notes: tuple[str, ...]) -> Estimate:
    """Returns an estimate with the interval value ± 1.96 se on the scale of the logit, which lies inside 0 to 1.

    Args:
        value: Neither 0 nor 1.
        se: Its standard error.
        n_real: Number of real rows.
        n_synthetic: Number of synthetic rows.
        notes: Notes of the estimate.
    """
    centre, half = math.log(value / (1 - value)), Z95 * se / (value * (1 - value))
    low, high = (1 / (1 + math.exp(-min(max(centre + sign * half, -700), 700))) for sign in (-1, 1))
    return Estimate(value, se, low, high, n_real, n_synthetic, notes)


_INFLUENCES = {"auroc": auroc_influence, "average_precision": average_precision_influence}


def _threshold(label: int, run: Run) -> float:
    known = ~np.isnan(run.targets[:, label])
    return best_threshold(run.validation[known, label].astype(np.float64), run.targets[known, label] == 1)


def _no_threshold(label: int, runs: Sequence[Run]) -> str:
    lacking = sum(not (run.targets[:, label] == 1).any() for run in runs)
    return f"no threshold: {counted(lacking, 'seed')} without a positive validation image" if lacking else ""


def _chance(metric: str, prevalence: float) -> float:
    return {"auroc": 0.5, "average_precision": prevalence, "f1": 2 * prevalence / (1 + prevalence)}[metric]


def _with_mean(found: list[Influenced | str], common: list[int]) -> dict[int | None, Influenced | str]:
    """Returns the mean over the labels that all settings have, under None, then each label."""
    mean: Influenced | str = "no label is known in all settings"
    if parts := [part for part in map(found.__getitem__, common) if isinstance(part, Influenced)]:
        mean = Influenced(*(np.mean(arrays, axis=0) for arrays in zip(*parts)))
    return {None: mean, **dict(enumerate(found))}


def _difference(one: Influenced | str, other: Influenced | str) -> Influenced | str:
    if isinstance(one, str):
        return one
    if isinstance(other, str):
        return f"the setting to compare with has no value: {other}"
    return Influenced(one.values - other.values, one.influences - other.influences)


def _mean_notes(common: list[int], names: Sequence[str]) -> tuple[str, ...]:
    others = [name for number, name in enumerate(names) if number not in common]
    return (f"mean of {counted(len(common), 'label')}{', without ' * bool(others)}{', '.join(others)}",)
