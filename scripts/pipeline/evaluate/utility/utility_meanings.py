"""What each metric of classifiers tells, for people who read a page or a table."""

from __future__ import annotations

from pipeline.evaluate.meanings import HIGHER, Meaning
from pipeline.evaluate.metrics.classification import DIFFERENCE

PAIRED = "above 0: better than real images; below 0: worse"
SCORES = {
    "auroc": Meaning(
        "AUROC of a classifier",
        HIGHER,
        "How well a classifier that was trained on these images tells real test images with a finding from others: 0.5 "
        "is chance, 1 is always. The value to reach is that of a classifier trained on real images.",
        (0.5, 1),
        depends_on_n=False,
    ),
    "average_precision": Meaning(
        "Average precision of a classifier",
        HIGHER,
        "The share of right ones among the test images that a classifier calls positive, averaged over all thresholds. "
        "Chance is the share of positive images, so labels do not compare with one another.",
        (0, 1),
    ),
    "f1": Meaning(
        "F1 of a classifier",
        HIGHER,
        "How many findings a classifier reports rightly, at the threshold that was best on real validation images. "
        "Chance is what one reaches who calls all images positive.",
        (0, 1),
    ),
}
MEANINGS = {
    **SCORES,
    **{
        f"{name}{DIFFERENCE}": Meaning(
            f"{meaning.title}, less that of real images",
            PAIRED,
            "The same of a classifier trained on these images, less that of one trained on real images, on the same "
            "test patients and with the same seeds. An interval that holds 0 does not tell them apart.",
            (0,),
            meaning.depends_on_n,
        )
        for name, meaning in SCORES.items()
    },
}
