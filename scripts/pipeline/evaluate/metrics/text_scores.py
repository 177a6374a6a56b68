"""Scores of generated reports against those of radiologists, from statistics of each pair of texts.

Every score is a function of sums over rows, so that one pass over the texts gives its value and all bootstrap resamples
(see `resampling`). Words are compared by `sacrebleu` and `rouge_score`; what needs a network, RadGraph and CheXbert,
comes from `evaluate.text_models`.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from synthchex_75k import LABELS

ORDER = 4  # of the longest n-grams of BLEU
FIVE = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")  # of CheXpert's competition


class TextScore(NamedTuple):
    """A score as a function of sums over rows.

    Attributes:
        metric: Its name.
        label: The finding that it is about; None for all.
        value: Turns sums of shape (..., k) into values of shape (...); NaN where it is undefined.
    """

    metric: str
    label: str | None
    value: Callable[[np.ndarray], np.ndarray]


def bleu_statistics(references: Sequence[str], texts: Sequence[str]) -> np.ndarray:
    """Returns what BLEU adds up: words of text and reference, matching n-grams and all n-grams of orders 1 to 4.

    Args:
        references: The radiologists' texts.
        texts: The generated ones.

    Returns:
        An array of shape (n, 10).
    """
    bleu = importlib.import_module("sacrebleu").BLEU(effective_order=True)  # which a single sentence needs
    scores = [bleu.sentence_score(text, [reference]) for reference, text in zip(references, texts)]
    rows = [[score.sys_len, score.ref_len, *score.counts, *score.totals] for score in scores]
    return np.array(rows, np.float64).reshape(-1, 2 + 2 * ORDER)


def bleu_scores() -> list[TextScore]:
    """Returns BLEU-1 and BLEU-4 of a corpus, 0 to 100, of the sums of `bleu_statistics`.

    BLEU is the geometric mean of the shares of n-grams of orders 1 to n that are in the reference, times a penalty for
    short texts (Papineni et al. 2002, https://aclanthology.org/P02-1040); sacrebleu's tokens and smoothing (Post 2018,
    https://aclanthology.org/W18-6319).
    """
    return [TextScore(f"bleu_{order}", None, functools.partial(_bleu, order=order)) for order in (1, ORDER)]


def _bleu(sums: np.ndarray, order: int) -> np.ndarray:
    compute = importlib.import_module("sacrebleu").BLEU.compute_bleu
    values = []
    for row in np.rint(sums).astype(np.int64).reshape(-1, sums.shape[-1]).tolist():
        matching, all_of_them = row[2 : 2 + order], row[2 + ORDER : 2 + ORDER + order]
        found = compute(matching, all_of_them, row[0], row[1], smooth_method="exp", max_ngram_order=order)
        values.append(found.score)
    return np.array(values).reshape(sums.shape[:-1])


def rouge_statistics(references: Sequence[str], texts: Sequence[str]) -> np.ndarray:
    """Returns ROUGE-L of each pair and a one, of shape (n, 2), for `mean_score`.

    ROUGE-L is the F-measure of the longest common subsequence of words (Lin 2004, https://aclanthology.org/W04-1013);
    words as `rouge_score` finds them, lower case, not stemmed.
    """
    module = importlib.import_module("rouge_score.rouge_scorer")
    scorer = module.RougeScorer(["rougeL"], use_stemmer=False)
    found = [scorer.score(reference, text)["rougeL"].fmeasure for reference, text in zip(references, texts)]
    return with_ones(found)


def with_ones(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Returns the statistics of a mean of values: each value and a one, of shape (n, 2)."""
    return np.stack([np.asarray(values, np.float64), np.ones(len(values))], axis=1)


def mean_score(metric: str) -> TextScore:
    """Returns the mean of a value of each pair, of the sums of `with_ones`."""
    return TextScore(metric, None, lambda sums: sums[..., 0] / sums[..., 1])


def finding_statistics(references: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Returns for each pair of texts and each finding whether it is a hit, a false alarm, or a miss.

    Args:
        references: Findings of the references for each of `LABELS`: 1, 0, or -1 (uncertain), of shape (n, 14).
        texts: Those of the texts.

    Returns:
        An array of shape (n, 84): hits, false alarms and misses of the 14 findings, where uncertain counts as negative;
        then the same where it counts as positive.
    """
    parts = []
    for is_found in (lambda labels: labels == 1, lambda labels: labels != 0):
        real, said = is_found(np.asarray(references)), is_found(np.asarray(texts))
        parts += [real & said, ~real & said, real & ~said]
    return np.concatenate(parts, axis=1).astype(np.float64)


def finding_scores() -> list[TextScore]:
    """Returns the F1 of findings, of the sums of `finding_statistics`; of each finding with uncertain as negative.

    F1 is 2 hits / (2 hits + false alarms + misses): micro over all findings together, macro as the mean over findings
    (Smit et al. 2020, https://arxiv.org/abs/2004.09167). A finding that is in no reference and no text has no F1, and
    no part in the macro mean.
    """
    five = [LABELS.index(label) for label in FIVE]
    scores = []
    for policy, suffix in enumerate(("", "_uncertain_positive")):
        for size, chosen in ((14, [*range(14)]), (5, five)):
            for kind in ("micro", "macro"):
                value = functools.partial(_f1, policy=policy, chosen=chosen, kind=kind)
                scores.append(TextScore(f"chexbert_f1_{kind}_{size}{suffix}", None, value))
    for number, label in enumerate(LABELS):
        value = functools.partial(_f1, policy=0, chosen=[number], kind="micro")
        scores.append(TextScore("chexbert_f1", label, value))
    return scores


def _f1(sums: np.ndarray, policy: int, chosen: list[int], kind: str) -> np.ndarray:
    counts = sums.reshape(*sums.shape[:-1], 2, 3, 14)[..., policy, :, :][..., chosen]
    if kind == "micro":
        counts = counts.sum(-1, keepdims=True)
    hits, wrong = counts[..., 0, :], counts[..., 1:, :].sum(-2)
    with np.errstate(invalid="ignore"):
        each = 2 * hits / (2 * hits + wrong)
    known = np.isfinite(each)
    with np.errstate(invalid="ignore"):
        return np.where(known, each, 0).sum(-1) / known.sum(-1)


def shuffled_order(groups: np.ndarray, seed: int) -> np.ndarray:
    """Returns for each row another one, of another group where there are two, in a random order.

    Rows are sorted by group, the groups in a random order, and each gets the row that lies half of all rows further.

    Args:
        groups: The group of each row, such as its patient, of shape (n,).
        seed: Seeds the order of groups.

    Returns:
        The numbers of rows, each once, of shape (n,). A group with more than half of the rows keeps some of its own.

    Example:
        >>> order = shuffled_order(np.array([0, 0, 1, 2]), 0)
        >>> sorted(order.tolist()), bool((np.array([0, 0, 1, 2])[order] != [0, 0, 1, 2]).all())
        ([0, 1, 2, 3], True)
    """
    numbers = np.unique(groups, return_inverse=True)[1].ravel()
    ranks = np.random.default_rng(seed).permutation(numbers.max(initial=-1) + 1)
    order = np.argsort(ranks[numbers], kind="stable")
    result = np.empty(len(order), np.int64)
    result[order] = np.roll(order, len(order) // 2)
    return result
