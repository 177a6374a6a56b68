"""What each score of reports tells, for people who read a page or a table."""

from __future__ import annotations

from pipeline.evaluate.meanings import HIGHER, Meaning

ON_TEST = "The model learnt to write reports from the images of the setting, and wrote those of real test images."
UNCERTAIN = "_uncertain_positive"

_SCORES = {
    "bleu_1": Meaning(
        "BLEU-1",
        HIGHER,
        f"Share of the written words that are in the radiologist's report, 0 to 100. {ON_TEST} It tells of words, not "
        "of findings: compare it with shuffled reports.",
        (0,),
        depends_on_n=False,
    ),
    "bleu_4": Meaning(
        "BLEU-4",
        HIGHER,
        "The same for sequences of one to four words, 0 to 100: fixed phrases count more than what was found.",
        (0,),
        depends_on_n=False,
    ),
    "rouge_l": Meaning(
        "ROUGE-L",
        HIGHER,
        "How much of both reports is one common sequence of words, 0 to 1. Reports of healthy patients are alike, so "
        "that shuffled ones score well too.",
        (0,),
        depends_on_n=False,
    ),
    "f1_radgraph": Meaning(
        "F1-RadGraph",
        HIGHER,
        "How far findings, places and whether they are related agree in both reports, as RadGraph reads them: 0 to 1.",
        (0, 1),
        depends_on_n=False,
    ),
    "chexbert_f1": Meaning(
        "CheXbert-F1",
        HIGHER,
        "How far both reports agree on a finding, as CheXbert reads them, where uncertain counts as negative: 0 to 1. "
        "It depends on how frequent the finding is.",
        (0, 1),
        depends_on_n=False,
    ),
}


def _of_sets() -> dict[str, Meaning]:
    found = {}
    for number in (14, 5):
        for kind, how in (("micro", "counted together"), ("macro", "as the mean over findings")):
            for suffix, policy in (("", "negative"), (UNCERTAIN, "positive")):
                found[f"chexbert_f1_{kind}_{number}{suffix}"] = Meaning(
                    f"CheXbert-F1, {kind}, {number} findings" + ", uncertain as positive" * bool(suffix),
                    HIGHER,
                    f"How far both reports agree on {number} findings, {how}, as CheXbert reads them, where uncertain "
                    f"counts as {policy}: 0 to 1.",
                    (0, 1),
                    depends_on_n=False,
                )
    return found


MEANINGS = {**_SCORES, **_of_sets()}
