"""Scores of texts: values of the packages, intervals, baselines and differences; the command `score`."""

import random
from pathlib import Path

import numpy as np
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer
from sklearn.metrics import f1_score

from conftest import to_files
from evaluate_images import main
from pipeline.evaluate.metrics.text_scores import (
    FIVE,
    bleu_scores,
    bleu_statistics,
    finding_scores,
    finding_statistics,
    mean_score,
    rouge_statistics,
)
from pipeline.evaluate.reports.report_scores import measure_texts
from pipeline.evaluate.reports.report_texts import ReportText, runs_of, write_texts
from pipeline.evaluate.results.results import read_results
from pipeline.evaluate.results.results_section import Measured, Section
from synthchex_75k import LABELS

pytestmark = pytest.mark.slow
WORDS = (
    *("the", "heart", "is", "large", "no", "effusion,", "nodule", "of", "3.5", "mm", "in", "left", "lung.", "Lines"),
    *("end", "(carina);", "unchanged-\n", "low"),
)
FIXED = [
    ("The heart is large.", "The heart is large."),
    ("No effusion, no nodule.", "no effusion and no nodule"),
    ("A line ends at the carina; 3.5 cm too deep.", "A line ends 3.5 cm above the carina."),
    ("Low volumes.", ""),
    ("Nothing new\nsince then.", "Nothing   new."),
]


def sentences(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, 14))) for _ in range(count)]


def corpora() -> list[tuple[list[str], list[str]]]:
    references, texts = map(list, zip(*FIXED))
    few_words = [text.split()[0] for text in sentences(5, 7)]  # no bigrams, so that BLEU-4 is smoothed
    return [
        (references, texts),
        (references, references),
        (references, [""] * len(references)),
        (sentences(5, 6), few_words),
        *((sentences(40, seed), sentences(40, seed + 100)) for seed in range(4)),
    ]


@pytest.mark.parametrize(("references", "texts"), corpora())
def test_bleu_is_that_of_sacrebleu(references: list[str], texts: list[str]) -> None:
    sums = bleu_statistics(references, texts).sum(0)
    found = {score.metric: float(score.value(sums)) for score in bleu_scores()}
    one = sacrebleu.BLEU(max_ngram_order=1).corpus_score(texts, [references]).score
    assert found == {"bleu_1": one, "bleu_4": sacrebleu.corpus_bleu(texts, [references]).score}


@pytest.mark.parametrize("seed", range(5))
def test_bleu_of_a_resample_is_that_of_its_texts(seed: int) -> None:
    references, texts = sentences(12, seed), sentences(12, seed + 50)
    drawn = np.random.default_rng(seed).integers(0, 12, 12)
    sums = np.bincount(drawn, minlength=12) @ bleu_statistics(references, texts)
    of_texts = [texts[number] for number in drawn], [[references[number] for number in drawn]]
    assert [float(score.value(sums)) for score in bleu_scores()] == [
        sacrebleu.BLEU(max_ngram_order=1).corpus_score(*of_texts).score,
        sacrebleu.corpus_bleu(*of_texts).score,
    ]


@pytest.mark.parametrize(("references", "texts"), corpora())
def test_rouge_is_the_mean_of_the_package(references: list[str], texts: list[str]) -> None:
    scorer = RougeScorer(["rougeL"])
    wanted = np.mean([scorer.score(*pair)["rougeL"].fmeasure for pair in zip(references, texts)])
    assert mean_score("rouge_l").value(rouge_statistics(references, texts).sum(0)) == pytest.approx(wanted)


def test_f1_of_findings_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    references, texts = rng.integers(-1, 2, (2, 60, 14))
    sums = finding_statistics(references, texts).sum(0)
    found = {(score.metric, score.label): float(score.value(sums)) for score in finding_scores()}
    five = [LABELS.index(label) for label in FIVE]
    for suffix, is_found in (("", lambda one: one == 1), ("_uncertain_positive", lambda one: one != 0)):
        real, said = is_found(references), is_found(texts)
        for kind in ("micro", "macro"):
            assert found[f"chexbert_f1_{kind}_14{suffix}", None] == pytest.approx(f1_score(real, said, average=kind))
            of_five = f1_score(real[:, five], said[:, five], average=kind)
            assert found[f"chexbert_f1_{kind}_5{suffix}", None] == pytest.approx(of_five)
    each = f1_score(references == 1, texts == 1, average=None)
    assert [found["chexbert_f1", label] for label in LABELS] == pytest.approx([*each])


def texts_of(setting: str, texts: list[str], references: list[str], seed: int = 0) -> list[ReportText]:
    rows = enumerate(zip(references, texts))
    return [ReportText(f"{n:03}", setting, seed, f"p{n // 2}", reference, text) for n, (reference, text) in rows]


def measured(*texts: list[ReportText], constant: str | None = None) -> dict[tuple[str, str | None], Measured]:
    runs = runs_of([one for part in texts for one in part], "here")
    return {(one.metric, one.setting): one for one in measure_texts(runs, "model", constant).metrics}


def test_perfect_texts_beside_poor_ones() -> None:
    references = sentences(80, 1)
    poor = [text.replace("the", "a").replace("effusion", "mass") for text in references]
    found = measured(texts_of("real", poor, references), texts_of("synthetic", references, references))
    for metric, best in (("bleu_1", 100), ("bleu_4", 100), ("rouge_l", 1)):
        perfect, difference = found[metric, "synthetic"], found[f"{metric}_difference", "synthetic"]
        assert (perfect.value, perfect.ci_low, perfect.ci_high) == pytest.approx((best, best, best))
        low, high = difference.ci_low, difference.ci_high
        assert low is not None and high is not None and difference.value is not None
        assert 0 < low < difference.value < high, "the interval of the difference is on one side of 0"
        assert difference.value == pytest.approx(best - (found[metric, "real"].value or 0))
        assert {reference.name for reference in perfect.references} == {"real", "shuffled reports"}
        assert {reference.name for reference in difference.references} == {"no difference"}
        assert perfect.n == {"test": 80, "patients": 40}
    assert (f"{metric}_difference", "real") not in found


def test_a_difference_is_paired() -> None:
    references, texts = sentences(240, 1), sentences(240, 2)
    alike = [*texts[:-1], references[-1]]
    found = measured(texts_of("real", texts, references), texts_of("mixed", alike, references))
    value, difference = found["rouge_l", "mixed"], found["rouge_l_difference", "mixed"]
    assert value.se is not None and difference.se is not None
    assert difference.se < value.se / 2, "what both settings have in common cancels"
    same = measured(texts_of("real", texts, references), texts_of("mixed", texts, references))
    assert same["bleu_4_difference", "mixed"][4:8] == (0, 0, 0, 0)


def test_baselines_ignore_the_image() -> None:
    references = sentences(50, 3)
    found = measured(texts_of("real", references, references), constant="the heart is large")["rouge_l", "real"]
    values = {reference.name: reference for reference in found.references}
    scorer = RougeScorer(["rougeL"])
    wanted = np.mean([scorer.score(one, "the heart is large")["rougeL"].fmeasure for one in references])
    constant = values["most frequent training report"]
    assert constant.value == pytest.approx(wanted)
    assert constant.ci_low is not None and constant.ci_high is not None
    assert constant.ci_low < constant.value < constant.ci_high
    others = [scorer.score(one, other)["rougeL"].fmeasure for one in references for other in references if one != other]
    assert values["shuffled reports"].value == pytest.approx(np.mean(others), abs=0.05)


def test_seeds_are_averaged_and_resampled() -> None:
    references = sentences(60, 4)
    good, bad = references, sentences(60, 5)
    one = measured(texts_of("real", good, references, 1), texts_of("real", bad, references, 0))["rouge_l", "real"]
    alone = [measured(texts_of("real", texts, references))["rouge_l", "real"] for texts in (good, bad)]
    assert one.value == pytest.approx(np.mean([found.value for found in alone]))
    assert one.n["seeds"] == 2
    assert one.se is not None and alone[1].se is not None
    assert one.se > 3 * alone[1].se, "seeds that differ much make the value uncertain"
    assert any(note.startswith("by seed: ") for note in one.notes)


def test_a_value_says_what_it_does_not_know() -> None:
    references = sentences(3, 6)
    texts = [one._replace(patient=None) for one in texts_of("real", ["", *references[1:]], references)]
    notes = " ".join(measured(texts)["bleu_1", "real"].notes)
    for note in ("bootstrap over 3 test images", "patients are unknown", "one training run", "1 text empty", "rough"):
        assert note in notes
    alone = measured(texts_of("real", references[:1], references[:1]))["bleu_1", "real"]
    assert alone.value == pytest.approx(100) and alone.ci_low is None


# The command


def section(path: Path) -> Section:
    found = read_results(path).reports
    assert found
    return found


def test_score_writes_a_section(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    references = sentences(30, 8)
    rows = [*texts_of("real", sentences(30, 9), references), *texts_of("synthetic", references, references)]
    write_texts(tmp_path / "t.csv", rows)
    arguments = ["score", str(tmp_path / "t.csv"), str(tmp_path / "r.json")]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "F1-RadGraph is left out: it needs the Python module radgraph: pip install radgraph" in printed
    assert "CheXbert-F1 is left out" in printed and "bleu_4" in printed
    found = section(tmp_path / "r.json")
    assert {(one.metric, one.setting) for one in found.metrics if one.metric.startswith("rouge")} == {
        ("rouge_l", "real"),
        ("rouge_l", "synthetic"),
        ("rouge_l_difference", "synthetic"),
    }
    assert {one.method for one in found.metrics} == {"t"}
    assert (found.sides["test"].rows, found.sides["test"].patients) == (30, 15)
    assert {*found.options["left_out"]} == {"radgraph", "f1chexbert"}
    assert found.versions["sacrebleu"] == sacrebleu.__version__

    random.Random(0).shuffle(rows)
    write_texts(tmp_path / "t.csv", rows)
    assert main([*arguments, "--model", "other"]) == 0
    again = section(tmp_path / "r.json")
    assert sorted(one._replace(method="") for one in again.metrics) == sorted(
        one._replace(method="") for one in found.metrics
    ), "the order of rows does not matter"
    assert {one.method for one in again.metrics} == {"other"}
    assert main([*arguments, "--seed", "1"]) == 0
    assert [one.ci_low for one in section(tmp_path / "r.json").metrics] != [one.ci_low for one in found.metrics]


def test_score_names_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    to_files(tmp_path, {"t.csv": b"filename,reference,text\na,one,two\n,one,two\n", "other.json": b"{}"})
    assert main(["score", str(tmp_path / "t.csv"), str(tmp_path / "r.json")]) == 1
    assert f"error: {tmp_path}/t.csv line 3: filename is empty" in capsys.readouterr().err
    assert main(["score", str(tmp_path / "t.csv"), str(tmp_path / "other.json")]) == 1
    assert "no results can be added to this file" in capsys.readouterr().err
    assert not (tmp_path / "r.json").exists()
