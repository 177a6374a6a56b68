"""Facts: of a SOURCE, from its `dataset.json` and `provenance.json`; of SynthCheX-75K; and what labels mean."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from pipeline.dataset_json import DATASET_JSON, REAL, SYNTHETIC, DatasetFacts, parse_dataset_json
from pipeline.errors import StepError
from pipeline.provenance import PROVENANCE, Step, provenance_json, read_provenance
from pipeline.source_json import address_in, pin_commit, read_source_file
from synthchex_75k import CITATION, HOMEPAGE, LABELS, PUBLISHED_SOURCE, Row, SourceError

# The question of the quality filter, in the words of the dataset's page.
META_PROMPT = (
    "You are an expert radiologist and medical annotator. Your task is to assess the quality of an image given its "
    "description and classify the image as either 'High Quality', 'Medium Quality', or 'Low Quality'. Keep your "
    "responses limited to only these three options. If the image is not relevant to the description, respond with "
    "'Not Relevant'."
)
RELEASE = DatasetFacts(
    name="SynthCheX-75K",
    description=(
        "Synthetic chest radiographs, each with the prompt that generated it and 14 labels in the scheme of CheXpert. "
        "No image shows a patient."
    ),
    images=SYNTHETIC,
    authors=(
        *("Raman Dutt", "Pedro Sanchez", "Yongchen Yao", "Steven McDonagh"),
        *("Sotirios A. Tsaftaris", "Timothy Hospedales"),
    ),
    license="apache-2.0",
    citation=CITATION,
    homepage=HOMEPAGE,
    paper="https://arxiv.org/abs/2505.10496",
    date="2025-05-15",
    version="1.0.0",
)
RELEASE_ROWS = 75_649
RELEASE_FILENAME = re.compile(r"SyntheticImg_[0-9a-f]{8}(-[0-9a-f]{8}){4}\.png")  # with a `dicom_id` of MIMIC-CXR
RELEASE_ADDRESS = re.compile(rf"({re.escape(PUBLISHED_SOURCE.partition('@')[0])}|{re.escape(HOMEPAGE)})([@/].*)?")
RELEASE_STEPS: list[Step] = [
    {
        "step": "generate",
        "model": "Sana (0.6B)",
        "model_url": "https://arxiv.org/abs/2410.10629",
        "about": ("It is a text-to-image model, fine-tuned on chest radiographs, and drew an image for each prompt."),
        "sources": [
            {
                "name": "CheXGenBench, whose repository takes training images from MIMIC-CXR, and prompts and labels "
                "from the LLaVA-Rad annotations of their reports",
                "url": RELEASE.paper,
            }
        ],
        "limits": [
            "Nobody checked that an image shows its labels, and no radiologist has read the images.",
            "Labels are very unevenly frequent, and most findings are not mentioned.",
            "The images are of one generator: what is learnt from them may not hold for real radiographs.",
        ],
        "personal_information": (
            "None in images and prompts: the images are synthetic and the prompts describe findings. File names "
            "contain identifiers of the MIMIC-CXR radiographs whose reports the prompts come from; those radiographs "
            "are available to credentialed users only. A generator can come close to an image of its training data; "
            "the paper measures that. Do not try to identify anyone."
        ),
    },
    {
        "step": "filter",
        "model": "HealthGPT",
        "model_url": "https://arxiv.org/abs/2502.09838",
        "about": "It is a medical vision-language model.",
        "meta_prompt": META_PROMPT,
        "drop": ["Low Quality", "Not Relevant"],
    },
]
# What neither file can state, for the release alone: fields of the card's header, properties of `croissant.json`.
RELEASE_HEADER: dict[str, Any] = {
    "language": ["en"],
    "annotations_creators": ["machine-generated"],
    "source_datasets": ["original"],
}
RELEASE_CROISSANT: dict[str, Any] = {
    "inLanguage": "en",
    "rai:dataReleaseMaintenancePlan": ("Corrections are commits to the repository; each one can be named and loaded."),
}


class SourceFacts(NamedTuple):
    """What is known of a SOURCE beside its rows.

    Args:
        dataset: What people state of it.
        steps: How it was made, oldest first.
        dataset_json: Content of its `dataset.json`; None where it has none.
        header: More fields for the header of the card.
        croissant: More properties for `croissant.json`.
    """

    dataset: DatasetFacts = DatasetFacts()
    steps: tuple[Step, ...] = ()
    dataset_json: bytes | None = None
    header: dict[str, Any] = {}  # noqa: RUF012 - never changed
    croissant: dict[str, Any] = {}  # noqa: RUF012

    @property
    def is_synthetic(self) -> bool:
        """True where the images are known to be synthetic."""
        return self.dataset.images == SYNTHETIC

    def files_after(self, step: Step) -> dict[str, bytes]:
        """Returns the files of a SOURCE that a step makes of this one: `provenance.json`, and a `dataset.json`."""
        copied = {} if self.dataset_json is None else {DATASET_JSON: self.dataset_json}
        return {PROVENANCE: provenance_json([*self.steps, step]), **copied}


RELEASE_FACTS = SourceFacts(RELEASE, tuple(RELEASE_STEPS), None, RELEASE_HEADER, RELEASE_CROISSANT)


def read_facts(rows: list[Row], *places: str) -> SourceFacts:
    """Reads what is known of a SOURCE.

    SynthCheX-75K's own facts are the default for the published release and for nothing else. Where a step `generate`
    made the images, they are synthetic.

    Args:
        rows: Its plan.
        *places: The SOURCE; or several folders that may hold the files, but not different ones.

    Raises:
        SourceError: `dataset.json` or `provenance.json` is wrong, or they contradict each other.
        StepError: The folders hold different files, or a remote source failed.
        OSError: A file cannot be read.
    """
    pinned = [pin_commit(place, rows) for place in places]
    _, steps = _only_one(PROVENANCE, {place: read_provenance(place) or None for place in pinned})
    where, content = _only_one(DATASET_JSON, {place: read_source_file(place, DATASET_JSON) for place in pinned})
    is_release = any(is_published_release(place, rows) for place in places)
    steps = tuple(steps or (RELEASE_STEPS if is_release else ()))
    is_generated = any(step["step"] == "generate" for step in steps)
    if content is None and is_release:
        return RELEASE_FACTS._replace(steps=steps)
    dataset = DatasetFacts() if content is None else parse_dataset_json(content, where)
    if is_generated and dataset.images == REAL:
        raise SourceError(f'{where}: images are "real", but {PROVENANCE} has a step "generate"; correct one of them')
    return SourceFacts(dataset._replace(images=dataset.images or SYNTHETIC * is_generated), steps, content)


def is_published_release(source: str, rows: list[Row]) -> bool:
    """True for the published release of SynthCheX-75K, by its address, or a copy of it, by its rows.

    Args:
        source: Address of the SOURCE.
        rows: Its plan.

    Example:
        >>> is_published_release("hf://datasets/raman07/SynthCheX-75K@main", [])
        True
        >>> is_published_release("hf://datasets/raman07/SynthCheX-75K-v2", [])
        False
    """
    is_copy = len(rows) == RELEASE_ROWS and all(RELEASE_FILENAME.fullmatch(row.filename) for row in rows)
    return is_copy or RELEASE_ADDRESS.fullmatch(source) is not None


def _only_one(name: str, found: dict[str, Any]) -> tuple[str, Any]:
    """Returns the address of a file in one of several folders, and what was found of it; None where it is in none.

    Raises:
        StepError: It is in two folders, and differs.
    """
    present = [(address_in(place, name), content) for place, content in found.items() if content is not None]
    if any(content != present[0][1] for _, content in present):
        raise StepError(f"{' and '.join(address for address, _ in present)} differ; remove one of them")
    return present[0] if present else ("", None)


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
