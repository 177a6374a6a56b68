"""Facts about SynthCheX-75K: who made it, with what, and what its labels mean."""

from __future__ import annotations

from synthchex_75k import LABELS

NAME = "SynthCheX-75K"
PAPER = "https://arxiv.org/abs/2505.10496"
DATE = "2025-05-15"
LICENSE = "https://www.apache.org/licenses/LICENSE-2.0"
AUTHORS = (
    *("Raman Dutt", "Pedro Sanchez", "Yongchen Yao", "Steven McDonagh"),
    *("Sotirios A. Tsaftaris", "Timothy Hospedales"),
)
# The question of the quality filter, in the words of the dataset's page.
META_PROMPT = (
    "You are an expert radiologist and medical annotator. Your task is to assess the quality of an image given its "
    "description and classify the image as either 'High Quality', 'Medium Quality', or 'Low Quality'. Keep your "
    "responses limited to only these three options. If the image is not relevant to the description, respond with "
    "'Not Relevant'."
)
LABEL_MEANINGS = dict(
    zip(
        LABELS,
        (
            "collapse of a part of a lung",
            "enlarged heart",
            "air spaces of the lung filled with fluid, pus or cells",
            "fluid in the tissue of the lung",
            "widened silhouette of the heart and the mediastinum",
            "broken bone, mostly a rib",
            "nodule, mass or other circumscribed lesion of the lung",
            "area of the lung that is denser than normal, of whatever cause",
            "none of the findings; support devices may be visible",
            "fluid between the lung and the chest wall",
            "other change of the pleura, such as thickening",
            "infection of the lung",
            "air between the lung and the chest wall",
            "tube, line, pacemaker or other device",
        ),
        strict=True,
    )
)
# What the values of a label mean, by label policy (a key of `synthchex_75k.UNCERTAINTY`).
VALUE_MEANINGS = {
    "zeros": "1: positive; 0: negative, uncertain or not mentioned (U-Zeros)",
    "ones": "1: positive or uncertain; 0: negative or not mentioned (U-Ones)",
    "keep": "1: positive; 0: negative; -1: uncertain; null: not mentioned",
}
