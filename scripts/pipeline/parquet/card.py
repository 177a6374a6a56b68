"""The dataset card of a Parquet repository, from the templates beside this module.

Its sections stand between comments BEGIN and END; `card_merge` replaces them in the card of a repository.
"""

from __future__ import annotations

import pprint
import re
import string
from pathlib import Path
from typing import Any, NamedTuple

import datasets
from datasets.info import DatasetInfosDict
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard, DatasetCardData

from pipeline.dataset_json import SYNTHETIC, is_web_address
from pipeline.errors import counted
from pipeline.facts import SourceFacts
from pipeline.parquet.figures import Figure
from pipeline.parquet.labels import CONFIG, DATA_FILES_OF_LABELS, MeasuredLabels, features_of
from pipeline.parquet.markdown import escape
from pipeline.parquet.pixels import Pixels
from pipeline.parquet.steps import StepText, describe_step, texts_of
from pipeline.parquet_source import DATA_FILES
from pipeline.provenance import Step
from pipeline.rows import decode
from synthchex_75k import FEATURES

TEMPLATES = Path(__file__).with_name("templates")
CHEXPERT = "https://arxiv.org/abs/1901.07031"
NOT_STATED = "not stated"
NOT_FOR = ("Not for diagnosis", ", nor for any decision about a patient.")
LICENSE_LINE = re.compile(r"^\| License \| .* \|$", re.MULTILINE)
UNNAMED_TITLE = "Images with texts and CheXpert labels"
PLACEHOLDER = "USER/NAME"
ABOUT_PLACEHOLDER = """
`USER/NAME` is the name of this repository. For a downloaded folder, put its path in place of `USER/NAME`, and of
`hf://datasets/USER/NAME`.
"""


class MeasuredDataset(NamedTuple):
    """What was measured of the converted data.

    Args:
        rows: Number of rows.
        num_bytes: Their size in memory, as Arrow has them: bytes.
        file_sizes: Size of each Parquet file: bytes.
        uncertainty: Label policy of the labels, a key of `synthchex_75k.UNCERTAINTY`.
        pixels: Formats and sizes of the images.
        labels: What was measured of the configuration `labels`.
    """

    rows: int
    num_bytes: int
    file_sizes: list[int]
    uncertainty: str
    pixels: Pixels
    labels: MeasuredLabels = MeasuredLabels()


def write_card(measured: MeasuredDataset, facts: SourceFacts, shown_row: str, figures: list[Figure]) -> str:
    """Returns the text of the card.

    Args:
        measured: What was measured.
        facts: What is known of the source.
        shown_row: A row, as `show` returns it.
        figures: The pictures.
    """
    card = DatasetCard((TEMPLATES / "card.md").read_text(encoding="utf-8"))
    template = card.data.to_dict()
    tags = [*template.pop("tags"), *[SYNTHETIC] * facts.is_synthetic]
    stated = {**license_header(facts.dataset.license), "pretty_name": facts.dataset.name, **facts.header}
    header = {**{key: value for key, value in stated.items() if value}, **template, "tags": tags}
    card.data = DatasetCardData(**header, size_categories=[size_category(measured.rows)])
    DatasetInfosDict({"default": dataset_info(measured), CONFIG: labels_info(measured)}).to_dataset_card_data(card.data)
    files: dict[str, Any] = {"default": [{"split": "train", "path": DATA_FILES}], CONFIG: DATA_FILES_OF_LABELS}
    configs = {name: {"data_files": data_files} for name, data_files in files.items()}
    MetadataConfigs(configs).to_dataset_card_data(card.data)  # `datasets` and the viewer show the one named default
    body = string.Template(card.text).substitute(
        title=escape(facts.dataset.name) or UNNAMED_TITLE,
        summary=_summary(measured, facts),
        figures="".join(f"\n![{escape(figure.alt)}]({figure.path})\n" for figure in figures),
        row=shown_row,
        prompt="the text that generated the image" if facts.is_synthetic else "the text of the image",
        about_placeholder=ABOUT_PLACEHOLDER,
        labels=(TEMPLATES / f"labels_{measured.uncertainty}.md").read_text(encoding="utf-8").strip(),
        labels_columns=_labels_columns(measured.labels),
        steps=_steps(facts.steps),
        limits=_limits(facts),
        citation=f"```bibtex\n{facts.dataset.citation}\n```" if facts.dataset.citation else _capital(NOT_STATED),
    )
    return f"---\n{card.data.to_yaml()}\n---\n\n{body.strip()}\n"


def with_repo_id(card: str, repo_id: str) -> str:
    """Returns the card with the name of a repository on the Hub in its examples."""
    examples = re.compile(r"<!-- BEGIN (use|labels) .*?<!-- END \1 -->", re.DOTALL)
    card = card.replace(ABOUT_PLACEHOLDER, "")
    return examples.sub(lambda section: section[0].replace(PLACEHOLDER, repo_id), card)


def with_license(card: str, licenses: list[str]) -> str:
    """Returns the card with other licenses in its first table: those that people wrote in the card of a repository."""
    return LICENSE_LINE.sub(lambda _: f"| License | {escape(', '.join(licenses))} |", card, count=1)


def license_header(license_: str) -> dict[str, str]:
    """Returns a license as the header of a card has it.

    Args:
        license_: As in `dataset.json`; empty where it is not stated.

    Example:
        >>> license_header("cc-by-4.0"), license_header("https://host/terms"), license_header("")
        ({'license': 'cc-by-4.0'}, {'license': 'other', 'license_link': 'https://host/terms'}, {})
    """
    if is_web_address(license_):
        return {"license": "other", "license_link": license_}
    return {"license": license_} if license_ else {}


def limits_of(facts: SourceFacts) -> list[str]:
    """Returns what readers must know before they use the data, as far as it holds for this source."""
    made = "The images are synthetic: anatomy and findings can be wrong, and an image may not show its labels."
    unknown = "A finding that is not mentioned is not a negative one: read as negative, labels can be wrong."
    return [*[made] * facts.is_synthetic, *texts_of(facts.steps, "limits"), unknown]


def biases_of(facts: SourceFacts) -> list[str]:
    """Returns what may be more frequent or rarer than elsewhere, as far as it holds for this source."""
    favoured = "Whatever the training data or the generator favour or leave out, the images favour or leave out too."
    judged = "The filter was itself a model: it may have removed some findings more often than others."
    has_judge = any(step["step"] == "filter" and step.get("model") for step in facts.steps)
    return [*[favoured] * facts.is_synthetic, *[judged] * has_judge]


def _summary(measured: MeasuredDataset, facts: SourceFacts) -> str:
    """Returns the first section: what was measured, what is stated, and what is not."""
    dataset = facts.dataset
    kind = f"{dataset.images} images" if dataset.images else "images"
    text = "the text prompt that generated it" if facts.is_synthetic else "its text"
    lines = {
        "Images": f"{measured.pixels}; {dataset.images or f'origin {NOT_STATED}'}",
        "Authors": escape(", ".join(dataset.authors)),
        "License": _license_text(dataset.license),
        "Homepage": escape(dataset.homepage),
        "Paper": escape(dataset.paper),
        "Date": dataset.date,
        "Version": escape(dataset.version),
    }
    size = f"{counted(len(measured.file_sizes), 'Parquet file')} ({sum(measured.file_sizes) / 1e6:,.1f} MB)"
    each = f"Each row has an image, {text} and 14 labels in the scheme of [CheXpert]({CHEXPERT})."
    table = ["| | |", "|---|---|", *(f"| {name} | {value or NOT_STATED} |" for name, value in lines.items())]
    paragraphs = [escape(dataset.description), f"{measured.rows:,} {kind} in {size}. {each}", "\n".join(table)]
    return "\n\n".join(filter(None, paragraphs))


def _license_text(license_: str) -> str:
    return escape(license_) if is_web_address(license_) else license_


def _steps(steps: tuple[Step, ...]) -> str:
    """Returns how the dataset was made, as a list with a paragraph for each step."""
    is_origin_stated = any(step["step"] not in ("pack", "filter") for step in steps)
    texts = [] if is_origin_stated else [f"How the images came about: {NOT_STATED}."]
    numbered = [_paragraph(number, describe_step(step)) for number, step in enumerate(steps, 1)]
    return "\n\n".join([*texts, "\n".join(numbered)]).strip()


def _paragraph(number: int, text: StepText) -> str:
    """Returns a step as an item of a list; what is quoted stands in a block of its own."""
    first = " ".join(filter(None, [f"{number}. **{escape(text.title)}.**", escape(text.lead)]))
    if not text.quote:
        return " ".join(filter(None, [first, escape(text.more)]))
    indent = " " * len(f"{number}. ")
    below = f"{indent}{escape(text.more)}".rstrip()
    return "\n\n".join(filter(None, [first, f"{indent}> {escape(text.quote)}", below]))


def _limits(facts: SourceFacts) -> str:
    use = "For research on generative models, on training with synthetic data, on its fidelity, privacy and fairness."
    personal = [f"Personal information: {text}" for text in texts_of(facts.steps, "personal_information")]
    items = [f"- {escape(text)}" for text in [*limits_of(facts), *biases_of(facts), *personal]]
    return "\n".join([*[f"{use}\n"] * facts.is_synthetic, f"- **{NOT_FOR[0]}**{NOT_FOR[1]}", *items])


def _labels_columns(labels: MeasuredLabels) -> str:
    """Returns a table of the metadata's columns in the configuration `labels`; empty if there are none."""
    lines = [f"| {escape(name)} | `{dtype}` |" for name, dtype in labels.columns.items()]
    about = "Its other columns are those of the metadata of the source; null is an empty cell."
    return "\n".join(["", about, "", "| column | type |", "|---|---|", *lines, ""]) if lines else ""


def _capital(text: str) -> str:
    return f"{text.capitalize()}."


def dataset_info(measured: MeasuredDataset) -> datasets.DatasetInfo:
    """Returns the description of the rows for the card's header, as `datasets` writes and reads it."""
    return _info(FEATURES, measured.rows, measured.num_bytes, sum(measured.file_sizes))


def labels_info(measured: MeasuredDataset) -> datasets.DatasetInfo:
    """Returns the same for the configuration `labels`."""
    labels = measured.labels
    return _info(features_of(labels.columns), measured.rows, labels.num_bytes, labels.file_size)


def _info(features: datasets.Features, rows: int, num_bytes: int, file_size: int) -> datasets.DatasetInfo:
    split = datasets.SplitInfo("train", num_bytes=num_bytes, num_examples=rows)
    return datasets.DatasetInfo(
        features=features,
        splits=datasets.SplitDict({"train": split}),
        download_size=file_size,
        dataset_size=num_bytes,
    )


def size_category(rows: int) -> str:
    """Returns the Hub's category of a number of rows.

    Example:
        >>> size_category(48), size_category(75_649)
        ('n<1K', '10K<n<100K')
    """
    names = ["n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B", "n>1B"]
    return names[min(max(0, len(str(rows)) - 3), len(names) - 1)]


def show(example: dict[str, Any]) -> str:
    """Returns a row as Python prints it when `datasets` has decoded the image.

    Args:
        example: The row as `synthchex_75k.examples` yields it.

    Raises:
        SourceError: The image cannot be decoded.
    """
    image = re.sub(r" at 0x\w+", "", repr(decode(example["image"]["bytes"], example["filename"])))
    shown = pprint.pformat({**example, "image": _Repr(image)}, width=118, compact=True, sort_dicts=False)
    return shown.replace("<!--", r"\x3c!--")  # the same text, but no comment that would end a section of the card


class _Repr(str):
    def __repr__(self) -> str:
        return str(self)
