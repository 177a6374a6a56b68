"""What each metric of section `fidelity` tells, for people who read a page or a table."""

from __future__ import annotations

from typing import NamedTuple

LOWER, HIGHER = "lower is better", "higher is better"


class Meaning(NamedTuple):
    """What a metric tells.

    Attributes:
        title: Its usual name.
        better: `LOWER`, `HIGHER`, or what else a reader looks for.
        sentence: What it tells, in one sentence.
        include: Values that an axis shows, such as the metric's bounds.
        depends_on_n: Whether its expectation changes with the sample sizes: values at other sizes do not compare.
    """

    title: str
    better: str
    sentence: str
    include: tuple[float, ...] = ()
    depends_on_n: bool = True


MEANINGS = {
    "fd": Meaning(
        "FD (Frechet distance)",
        LOWER,
        "How far the features of the synthetic images are from those of the real ones, if both were Gaussian. It falls "
        "as the number of images grows, so read it beside its floor.",
        (0,),
    ),
    "kid": Meaning(
        "KID (kernel distance)",
        LOWER,
        "How far the two sets of features are apart, by a polynomial kernel. 0 means no difference, also for few "
        "images; it can fall below 0 by chance.",
        (0,),
        depends_on_n=False,
    ),
    "kid_subsets": Meaning(
        "KID, mean over subsets",
        LOWER,
        "KID as it was first defined: the mean over random subsets. It has an interval only with 2,000 images a side.",
        (0,),
        depends_on_n=False,
    ),
    "cmmd": Meaning(
        "CMMD",
        LOWER,
        "How far the two sets of features are apart, by a Gaussian kernel: it assumes no distribution and needs few "
        "images.",
        (0,),
        depends_on_n=False,
    ),
    "frd": Meaning(
        "FRD (radiomics)",
        LOWER,
        "The logarithm of FD on radiomics features: textures and grey levels, no network. It falls as the number of "
        "images grows.",
    ),
    "precision": Meaning(
        "Precision",
        HIGHER,
        "Share of the synthetic images that lie as close to some real image as its fifth nearest real one: how many "
        "look real to the encoder.",
        (0, 1),
    ),
    "recall": Meaning(
        "Recall",
        HIGHER,
        "Share of the real images that lie as close to some synthetic image as its fifth nearest synthetic one: how "
        "much of the variety is reached. A few odd synthetic images can raise it.",
        (0, 1),
    ),
    "density": Meaning(
        "Density",
        HIGHER,
        "How densely synthetic images lie around the real ones: about 1 for other real images, and more where they "
        "crowd around frequent kinds.",
        (0, 1),
    ),
    "coverage": Meaning(
        "Coverage",
        HIGHER,
        "Share of the real images that have a synthetic image closer than their fifth nearest real one: variety, "
        "which a few odd images cannot raise.",
        (0, 1),
    ),
    "vendi": Meaning(
        "Vendi score, relative to real",
        "1 is as diverse as the real images",
        "Effective number of different synthetic images, divided by that of as many real ones. It does not tell "
        "whether the variety is a real one.",
        (0, 1),
    ),
    "inception_score": Meaning(
        "Inception Score",
        HIGHER,
        "How certain and how varied the classes are that a network for everyday photographs sees; such classes tell "
        "little of radiographs.",
        (1,),
    ),
    "alignment": Meaning(
        "Image-text alignment",
        HIGHER,
        "Mean cosine of each image and its prompt, as an encoder of images and texts sees them. Only the distance from "
        "the two baselines counts: real images with their own prompts, and shuffled prompts.",
        depends_on_n=False,
    ),
    "retrieval_1": Meaning(
        "Retrieval, first", HIGHER, "Share of images whose own prompt fits them best among all prompts.", (0, 1)
    ),
    "retrieval_5": Meaning(
        "Retrieval, first 5", HIGHER, "Share of images whose own prompt is among the 5 that fit them best.", (0, 1)
    ),
    "retrieval_10": Meaning(
        "Retrieval, first 10", HIGHER, "Share of images whose own prompt is among the 10 that fit them best.", (0, 1)
    ),
    "label_auroc": Meaning(
        "Label AUROC",
        HIGHER,
        "How well a classifier of real radiographs finds the label of the prompt in the image: 0.5 is chance, 1 is "
        "always. The same on real images is the value to reach.",
        (0.5, 1),
        depends_on_n=False,
    ),
}
