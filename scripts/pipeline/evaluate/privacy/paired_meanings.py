"""What each metric of pairs tells, for people who read a page or a table."""

from __future__ import annotations

from pipeline.evaluate.meanings import Meaning

CLOSER = "the further from the references of other patients, the closer"
MEASURES = {
    "pixel_distance": (
        "Pixel distance",
        "min",
        "How far, in grey values of 0 to 255, a synthetic image is from the radiograph whose prompt it was made from.",
    ),
    "latent_distance": (
        "Latent distance",
        "min",
        "How far, in the features of the encoder, a synthetic image is from the radiograph whose prompt it was made "
        "from.",
    ),
    "reid_score": (
        "Re-ID score",
        "max",
        "How sure a network is that a synthetic image and the radiograph whose prompt it was made from show one "
        "patient. It is no probability: compare it with real pairs.",
    ),
}


def _meanings(name: str, title: str, extreme: str, sentence: str) -> dict[str, Meaning]:
    bounds = (0, 1) if name == "reid_score" else ()
    return {
        name: Meaning(title, CLOSER, sentence, bounds, depends_on_n=False),
        f"{name}_{extreme}": Meaning(
            f"{title}, closest image of a prompt",
            CLOSER,
            f"{title} of the closest among the images of one prompt. It is more extreme the more images there are: "
            "compare it with that of as many images and another patient's radiograph.",
            bounds,
        ),
        f"{name}_auc": Meaning(
            f"{title}, AUC",
            "0.5 is no closer than real images of two patients",
            "How often a synthetic image and its radiograph are closer than two real images of different patients with "
            "the same labels. The same number of real images of one patient shows whether the measure knows a patient "
            "at all.",
            (0.5, 1),
            depends_on_n=False,
        ),
        f"{name}_match_rate": Meaning(
            f"{title}, matches",
            "1 % is no closer than real images of two patients",
            "Share of the synthetic images that match their radiograph, at the threshold that 1 % of the pairs of "
            "different patients pass.",
            (0, 0.01),
            depends_on_n=False,
        ),
        f"{name}_closer_share": Meaning(
            f"{title}, closer to the own radiograph",
            "0.5 is no closer to the own radiograph",
            "Share of the synthetic images that are closer to their own radiograph than to another patient's with the "
            "same labels. The prompt tells more than the labels do, so a value above 0.5 is no proof of memory.",
            (0.5, 1),
            depends_on_n=False,
        ),
    }


MEANINGS = {
    metric: meaning
    for name, (title, extreme, sentence) in MEASURES.items()
    for metric, meaning in _meanings(name, title, extreme, sentence).items()
}
