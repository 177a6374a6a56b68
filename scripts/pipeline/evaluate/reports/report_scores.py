"""Scores of generated reports: values with 95 % intervals, differences to setting `real`, and baselines."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline.errors import MissingPackageError, StepError, counted, describe_error
from pipeline.evaluate.metrics.estimate import size_notes
from pipeline.evaluate.metrics.resampling import RESAMPLES, percentile_interval, sums_and_resamples
from pipeline.evaluate.metrics.text_scores import (
    TextScore,
    bleu_scores,
    bleu_statistics,
    finding_scores,
    finding_statistics,
    mean_score,
    rouge_statistics,
    shuffled_order,
    with_ones,
)
from pipeline.evaluate.reports.report_texts import ReportText, RunTexts, read_texts, runs_of
from pipeline.evaluate.reports.text_models import LEVEL, RADGRAPH, annotate, label_findings
from pipeline.evaluate.results.results import check_results_path, update_results
from pipeline.evaluate.results.results_parts import SideResult
from pipeline.evaluate.results.results_section import Measured, Reference, Section
from pipeline.machine import versions_of
from pipeline.progress import notice, write_line
from pipeline.table import text_table
from synthchex_75k import LABELS

# What to install for each package. The last two need older versions of others, so an environment of their own.
PACKAGES = {
    "sacrebleu": "sacrebleu",
    "rouge_score": "rouge-score",
    "radgraph": 'radgraph "transformers<5"',
    "f1chexbert": 'f1chexbert "transformers<5" "huggingface_hub<1"',
}
TITLES = {
    "sacrebleu": "BLEU",
    "rouge_score": "ROUGE-L",
    "radgraph": "F1-RadGraph",
    "f1chexbert": "CheXbert-F1",
}
REAL, SHUFFLED, CONSTANT = "real", "shuffled reports", "most frequent training report"


class ReportScores(NamedTuple):
    """What `measure_texts` returns.

    Attributes:
        metrics: The values.
        left_out: Why scores are left out, by package.
    """

    metrics: list[Measured]
    left_out: dict[str, str]


class _Pairs(NamedTuple):
    """References and texts that are compared, of a run or a baseline."""

    name: str
    references: list[str]
    texts: list[str]


def score(texts_csv: Path, results_json: Path, *, model: str | None = None, seed: int = 0) -> None:
    """Scores the texts of a CSV, and writes the section `reports` as the command of that name does.

    Args:
        texts_csv: Columns `reference` and `text`, and `filename`, `setting`, `seed` and `patient` where known.
        results_json: Gets the section; other sections stay.
        model: Name of the model that wrote the texts. Default: name of the CSV.
        seed: Seeds everything that is drawn.

    Raises:
        StepError: The CSV cannot be used, or `results_json` is another file.
        OSError: A file cannot be read or written.
    """
    if not texts_csv.is_file():
        raise StepError(f"{texts_csv}: no such file")
    check_results_path(results_json)
    check_scorers()
    texts = read_texts(texts_csv)
    runs = runs_of(texts, str(texts_csv))
    scores = measure_texts(runs, model or texts_csv.stem, seed=seed)
    side = test_side(texts_csv.name, str(texts_csv.absolute()), runs[0].texts)
    write_section(results_json, scores, {"test": side}, {"texts": texts_csv.name}, seed)


def check_scorers() -> None:
    """Checks that a package that scores texts is installed, and tells which ones are not.

    Raises:
        MissingPackageError: None is.
    """
    missing = [package for package in PACKAGES if not importlib.util.find_spec(package)]
    if len(missing) == len(PACKAGES):
        raise MissingPackageError("no package that scores texts is installed: pip install sacrebleu rouge-score")
    for package in missing:
        write_line(_missing(package))


def test_side(name: str, source: str, texts: Sequence[ReportText]) -> SideResult:
    """Returns the description of the test images, for `Section.sides`."""
    patients = {text.patient for text in texts}
    return SideResult(name, source, len(texts), None if None in patients else len(patients), {})


def write_section(
    results_json: Path, scores: ReportScores, sides: dict[str, SideResult], options: dict[str, Any], seed: int
) -> None:
    """Writes the section `reports`, and prints its values.

    Args:
        results_json: Gets the section.
        scores: What was measured.
        sides: The sets of images.
        options: What decides the numbers, apart from the texts' scores.
        seed: Seeded everything that was drawn.
    """
    packages = ("numpy", "sacrebleu", "rouge-score", "radgraph", "f1chexbert", "torch", "transformers", "peft")
    versions = {"python": platform.python_version(), **versions_of(*packages)}
    options = {**options, "resamples": RESAMPLES, "radgraph": [RADGRAPH, LEVEL], "left_out": scores.left_out}
    created = datetime.now(timezone.utc).isoformat(timespec="seconds")
    update_results(results_json, reports=Section(created, seed, versions, options, sides, scores.metrics, {}))
    print(_table(scores.metrics))
    print(f"{results_json}: {counted(len(scores.metrics), 'value')}")


def measure_texts(
    runs: Sequence[RunTexts],
    method: str,
    constant: str | None = None,
    notes: Mapping[str | None, Sequence[str]] | None = None,
    seed: int = 0,
) -> ReportScores:
    """Computes all scores that the installed packages allow.

    Args:
        runs: Texts of each setting and seed, as `runs_of` returns them.
        method: Name of the model that wrote them.
        constant: A text to score as if it were written for every image. Default: none.
        notes: What else is to be said of the values of a setting. Default: nothing.
        seed: Seeds what is drawn.

    Returns:
        The values, and why some are left out.
    """
    rows = runs[0].texts
    patients = np.array([text.patient or "" for text in rows])
    groups = patients if all(patients) else np.arange(len(rows))
    references = [text.reference for text in rows]
    pairs = [_Pairs("", references, [text.text for text in run.texts]) for run in runs]
    order = shuffled_order(groups, seed)
    pairs.append(_Pairs(SHUFFLED, references, [references[number] for number in order]))
    if constant is not None:
        pairs.append(_Pairs(CONSTANT, references, [constant] * len(rows)))
    metrics: list[Measured] = []
    left_out = {}
    for package, find in {
        "sacrebleu": _bleu_of,
        "rouge_score": _rouge_of,
        "radgraph": _radgraph_of,
        "f1chexbert": _chexbert_of,
    }.items():
        if not importlib.util.find_spec(package):
            left_out[package] = _missing(package)
            continue
        try:
            with notice(f"{TITLES[package]} …"):
                scores, statistics, positives = find(pairs)
        except Exception as error:  # any package may raise anything, such as one that is made for other versions
            left_out[package] = f"{TITLES[package]} is left out: {describe_error(error, with_place=True)}"
            write_line(left_out[package])
            continue
        measure = _Measure(runs, method, pairs, groups, statistics, notes or {}, seed)
        metrics += [one for score_ in scores for one in measure.of(score_, positives)]
    if not metrics:
        raise StepError("no score could be computed: " + "; ".join(left_out.values()))
    return ReportScores(metrics, left_out)


def _missing(package: str) -> str:
    return f"{TITLES[package]} is left out: it needs the Python module {package}: pip install {PACKAGES[package]}"


Found = tuple[list[TextScore], list[np.ndarray], "dict[str, int]"]  # scores, statistics of pairs, positives by label


def _bleu_of(pairs: Sequence[_Pairs]) -> Found:
    return bleu_scores(), [bleu_statistics(one.references, one.texts) for one in pairs], {}


def _rouge_of(pairs: Sequence[_Pairs]) -> Found:
    return [mean_score("rouge_l")], [rouge_statistics(one.references, one.texts) for one in pairs], {}


def _radgraph_of(pairs: Sequence[_Pairs]) -> Found:
    reward = annotate(text for one in pairs for text in (*one.references, *one.texts))
    statistics = [with_ones([*map(reward, one.references, one.texts)]) for one in pairs]
    return [mean_score("f1_radgraph")], statistics, {}


def _chexbert_of(pairs: Sequence[_Pairs]) -> Found:
    found = label_findings(text for one in pairs for text in (*one.references, *one.texts))
    labels = [[np.stack([found[text] for text in texts]) for texts in one[1:]] for one in pairs]
    positives = dict(zip(LABELS, (labels[0][0] == 1).sum(0).tolist()))
    return finding_scores(), [finding_statistics(*two) for two in labels], positives


class _Measure:
    """Values of scores for each setting, from one set of resamples.

    Args:
        runs: The runs.
        method: Name of the model.
        pairs: What is compared: of the runs, then of baselines.
        groups: What is resampled, of shape (n,).
        statistics: Of the rows of each of the pairs.
        notes: Of each setting.
        seed: Seeds the resamples.
    """

    def __init__(
        self,
        runs: Sequence[RunTexts],
        method: str,
        pairs: Sequence[_Pairs],
        groups: np.ndarray,
        statistics: Sequence[np.ndarray],
        notes: Mapping[str | None, Sequence[str]],
        seed: int,
    ) -> None:
        self._runs, self._method, self._pairs, self._own_notes = runs, method, pairs, notes
        sums, resampled = sums_and_resamples(np.concatenate(statistics, axis=1), groups, RESAMPLES, seed)
        # The value comes first, then those of the resamples.
        self._sums = np.split(np.concatenate([sums[None], resampled]), len(statistics), axis=1)
        self._settings = [*dict.fromkeys(run.setting for run in runs)]
        self._seeds = sum(run.setting == self._settings[0] for run in runs)
        drawn = np.random.default_rng((seed, 1)).multinomial(self._seeds, [1 / self._seeds] * self._seeds, RESAMPLES)
        self._weights = np.concatenate([np.ones((1, self._seeds)), drawn]) / self._seeds
        rows = runs[0].texts
        self._has_patients = all(text.patient for text in rows)
        self._n = {"test": len(rows)} | ({"patients": len(np.unique(groups))} if self._has_patients else {})
        self._n |= {"seeds": self._seeds} if self._seeds > 1 else {}

    def of(self, score_: TextScore, positives: dict[str, int]) -> list[Measured]:
        """Returns the value of a score for each setting, and its difference to setting `real`."""
        values = [score_.value(sums) for sums in self._sums]
        baselines = {pair.name: _reference(pair.name, found) for pair, found in zip(self._pairs, values) if pair.name}
        known = [one for one in baselines.values() if one]
        of_setting = {setting: self._mean(values, setting) for setting in self._settings}
        n = self._n | ({"positive": positives[score_.label]} if score_.label in positives else {})
        found = []
        for setting, value in of_setting.items():
            notes = self._notes(values, setting)
            references = [*known]
            real = of_setting.get(REAL)
            if real is not None and setting != REAL:
                references = [*([one] if (one := _reference(REAL, real)) else []), *known]
            found.append(self._measured(score_.metric, score_.label, setting, value, n, references, notes))
            if real is not None and setting != REAL:
                name = f"{score_.metric}_difference"
                none = [Reference("no difference", 0.0)]
                found.append(self._measured(name, score_.label, setting, value - real, n, none, notes))
        return found

    def _mean(self, values: Sequence[np.ndarray], setting: str | None) -> np.ndarray:
        """Returns the mean over the seeds of a setting; resamples draw seeds too."""
        of_seeds = sorted((run.seed, place) for place, run in enumerate(self._runs) if run.setting == setting)
        return (np.stack([values[place] for _, place in of_seeds], axis=1) * self._weights).sum(1)

    def _notes(self, values: Sequence[np.ndarray], setting: str | None) -> tuple[str, ...]:
        units = f"{self._n['patients']:,} patients" if self._has_patients else f"{self._n['test']:,} test images"
        over = f"{units} and {self._seeds} seeds" if self._seeds > 1 else units
        notes = [f"interval: bootstrap over {over}, {RESAMPLES:,} resamples"]
        if not self._has_patients:
            notes.append("patients are unknown: each image counts as a patient of its own")
        own = [(run, found) for run, found in zip(self._runs, values) if run.setting == setting]
        if self._seeds > 1:
            notes.append("by seed: " + ", ".join(f"{run.seed}: {found[0]:.4g}" for run, found in own))
        else:
            notes.append("one training run: the interval does not hold what another seed would change")
        if empty := sum(not text.text.strip() for run, _ in own for text in run.texts):
            notes.append(f"{counted(empty, 'text')} empty")
        return (*notes, *self._own_notes.get(setting, ()), *size_notes(self._n.get("patients", self._n["test"])))

    def _measured(
        self,
        metric: str,
        label: str | None,
        setting: str | None,
        found: np.ndarray,
        n: dict[str, int],
        references: Sequence[Reference],
        notes: tuple[str, ...],
    ) -> Measured:
        place = (metric, self._method, setting, label)
        if not np.isfinite(found[0]):
            reason = "in no reference and in no text: it has no F1"
            return Measured(*place, None, None, None, None, n, (), (reason,))
        interval = percentile_interval(found[1:]) if self._n.get("patients", self._n["test"]) > 1 else None
        if interval is None:
            notes = (*notes, "too few reports, or too few with this finding: no interval")
        se, low, high = interval or (None, None, None)
        return Measured(*place, float(found[0]), se, low, high, n, tuple(references), notes)


def _reference(name: str, found: np.ndarray) -> Reference | None:
    if not np.isfinite(found[0]):
        return None
    interval = percentile_interval(found[1:])
    return Reference(name, float(found[0]), *(interval[1:] if interval else (None, None)))


def _table(metrics: Sequence[Measured]) -> str:
    """Returns the values over all findings as a table: a row for each metric and setting."""
    lines = [["metric", "setting", "value", "95 % interval", SHUFFLED]]
    for one in metrics:
        if one.label is None and one.value is not None:
            interval = "-" if one.ci_low is None else f"{one.ci_low:.3f} to {one.ci_high:.3f}"
            baseline = [f"{reference.value:.3f}" for reference in one.references if reference.name == SHUFFLED]
            lines.append([one.metric, one.setting or "-", f"{one.value:.3f}", interval, *(baseline or ["-"])])
    return text_table(lines)
