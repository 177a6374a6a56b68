"""What each privacy metric of features tells, for people who read a page or a table."""

from __future__ import annotations

from pipeline.evaluate.meanings import Meaning

SAME_AS_HELDOUT = "the same as of held-out images is no sign of memory"

MEANINGS = {
    "nearer_to_training": Meaning(
        "Nearer to training",
        "0.5 is no sign of memory, 1 is all nearer",
        "Share of the synthetic images that are nearer to the training images than to as many images of other "
        "patients, which the generator did not see.",
        (0.5, 1),
    ),
    "below_threshold": Meaning(
        "As near as 1 in 1,000",
        "0.1 % is no sign of memory",
        "Share of the synthetic images that are as near to a training image as one in a thousand held-out images is. "
        "More are to be expected where synthetic images are smoother, or more alike, than real ones.",
        (0, 0.001),
        depends_on_n=False,
    ),
    "copying_test": Meaning(
        "C_T, test of copying",
        "far below 0 is copying, far above 0 misses what is typical",
        "Whether synthetic images are nearer to training images than held-out ones are, among images of one kind. It "
        "is a z-score, so it grows with the number of images.",
        (0,),
    ),
    "membership_auroc": Meaning(
        "Membership, AUROC",
        "0.5 is chance",
        "How well the distance to the nearest synthetic image tells who was in the training set, over all images.",
        (0.5, 1),
    ),
    "membership_tpr_1": Meaning(
        "Membership, found at 1 % false",
        "1 % is chance",
        "Share of the training images that the distance to the nearest synthetic image finds, where 1 % of the "
        "held-out images are taken for training images.",
        (0, 0.01),
    ),
    "membership_tpr_01": Meaning(
        "Membership, found at 0.1 % false",
        "0.1 % is chance",
        "Share of the training images that the distance to the nearest synthetic image finds, where 0.1 % of the "
        "held-out images are taken for training images: the few that are exposed most.",
        (0, 0.001),
    ),
    "distance_ratio": Meaning(
        "Much nearer to one training image",
        SAME_AS_HELDOUT,
        "Share of the synthetic images whose nearest training image is less than half as far as the 50 nearest are on "
        "average, as copies are.",
        (0,),
    ),
    "authenticity": Meaning(
        "Authentic (AuthPct)",
        SAME_AS_HELDOUT,
        "Share of the synthetic images that are farther from their nearest training image than that is from another "
        "training image. Fewer than of held-out images: copies.",
        (0, 1),
    ),
    "identical_files": Meaning(
        "Identical files",
        "0 unless files were copied",
        "Number of synthetic images that are a training image byte for byte. A generator does not make such files; "
        "somebody mixed the folders up.",
        (0,),
        depends_on_n=False,
    ),
}
