"""The dataset card of a Parquet repository, from the templates beside this module.

Its sections stand between comments `<!-- BEGIN name -->` and `<!-- END name -->`. Publishing replaces those sections in
the card of a repository and keeps everything else that people wrote there.
"""

from __future__ import annotations

import pprint
import re
import string
from pathlib import Path
from typing import Any

import datasets
from datasets.info import DatasetInfosDict
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard

from pipeline.errors import counted, one_line
from pipeline.facts import META_PROMPT
from pipeline.parquet.figures import Figure
from pipeline.parquet.layout import DATA_FILES
from pipeline.rows import decode
from synthchex_75k import CITATION, FEATURES

TEMPLATES = Path(__file__).with_name("templates")
SECTION = re.compile(r"<!-- BEGIN (?P<name>\w+) -->\n.*?<!-- END (?P=name) -->\n", re.DOTALL)
PLACEHOLDER = "Replace `USER/NAME` with the name of this repository, or with the path of a downloaded folder.\n\n"
MERGED_LISTS = ("language", "tags", "task_categories", "task_ids")  # of the header: entries of both are kept
COMPUTED = ("dataset_info", "configs", "size_categories")  # of the header: they follow from the data


def write_card(
    rows: int, num_bytes: int, file_sizes: list[int], uncertainty: str, shown_row: str, figures: list[Figure]
) -> str:
    """Returns the text of the card.

    Args:
        rows: Number of rows.
        num_bytes: Their size in memory, as Arrow has them: bytes.
        file_sizes: Size of each Parquet file: bytes.
        uncertainty: Label policy of the labels.
        shown_row: A row, as `show` returns it.
        figures: The pictures.
    """
    card = DatasetCard((TEMPLATES / "card.md").read_text(encoding="utf-8"))
    card.data["size_categories"] = [size_category(rows)]
    DatasetInfosDict(default=dataset_info(rows, num_bytes, file_sizes)).to_dataset_card_data(card.data)
    MetadataConfigs(default={"data_files": [{"split": "train", "path": DATA_FILES}]}).to_dataset_card_data(card.data)
    body = string.Template(card.text).substitute(
        rows=f"{rows:,}",
        files=counted(len(file_sizes), "Parquet file"),
        megabytes=f"{sum(file_sizes) / 1e6:,.1f}",
        figures="".join(f"\n![{_escape(figure.alt)}]({figure.path})\n" for figure in figures),
        row=shown_row,
        labels=(TEMPLATES / f"labels_{uncertainty}.md").read_text(encoding="utf-8").strip(),
        meta_prompt=META_PROMPT,
        citation=CITATION.strip(),
    )
    return _join(card.data.to_yaml(), body)


def for_repository(card: str, repo_id: str, published: str, replace: bool = False) -> str:
    """Returns the card for a repository on the Hub, with what people wrote in the card that is published there.

    Args:
        card: Text of the card in the folder.
        repo_id: `USER/NAME` of the repository.
        published: Text of the published card; empty where there is none.
        replace: Keep nothing of the published card.

    Returns:
        Header: the published fields, license and name included, and those of `card` that are missing there; entries of
        the lists `MERGED_LISTS` of both; `COMPUTED` fields and the configuration `default` of `card`. Text: that of the
        published card, with the sections of `card` in place of those of the same name. Where it has none of them, all
        are appended.

    Raises:
        ValueError: The published card cannot be read.
    """
    new = DatasetCard(card)
    new_text = new.text.replace(PLACEHOLDER, "").replace("USER/NAME", repo_id)
    header, text = split_card("" if replace else published)
    merged = _merge_headers(new.data.to_dict(), header)
    for key in [*new.data.to_dict(), *merged]:
        new.data[key] = merged[key]
    return _join(new.data.to_yaml(), _merge_texts(new_text, text) if text.strip() else new_text)


def split_card(card: str) -> tuple[dict[str, Any], str]:
    """Returns header and text of a card.

    Raises:
        ValueError: The header cannot be read.
    """
    if not card.startswith("---"):
        return {}, card
    try:
        parsed = DatasetCard(card)
        return parsed.data.to_dict(), parsed.text
    except Exception as error:  # YAML errors of many classes
        raise ValueError(f"the header of the card cannot be read: {one_line(error)}") from error


def _merge_headers(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    merged = {**ours, **theirs, **{key: ours[key] for key in COMPUTED}}
    for key in MERGED_LISTS:
        if isinstance(theirs.get(key), list):
            merged[key] = [*theirs[key], *(entry for entry in ours[key] if entry not in theirs[key])]
    configs = [config for config in theirs.get("configs") or [] if config.get("config_name") != "default"]
    infos = theirs.get("dataset_info") or []
    named = {info.get("config_name"): info for info in ([infos] if isinstance(infos, dict) else infos)}
    # An info without a configuration belonged to a loading script.
    described = [named[config["config_name"]] for config in configs if config.get("config_name") in named]
    merged["configs"] = [*ours["configs"], *configs]
    if described:
        merged["dataset_info"] = [{"config_name": "default", **ours["dataset_info"]}, *described]
    return merged


def _merge_texts(ours: str, theirs: str) -> str:
    sections = {match["name"]: match[0] for match in SECTION.finditer(ours)}
    if any(match["name"] in sections for match in SECTION.finditer(theirs)):
        return SECTION.sub(lambda match: sections.get(match["name"], match[0]), theirs)
    return "\n".join([theirs.rstrip() + "\n", *sections.values()])


def _join(header: str, text: str) -> str:
    return f"---\n{header}\n---\n\n{text.strip()}\n"


def _escape(text: str) -> str:
    return re.sub(r"([\\\[\]`*_<>!#|])", r"\\\1", one_line(text))


def dataset_info(rows: int, num_bytes: int, file_sizes: list[int]) -> datasets.DatasetInfo:
    """Returns the description of the data for the card's header, as `datasets` writes and reads it."""
    return datasets.DatasetInfo(
        features=FEATURES,
        splits=datasets.SplitDict({"train": datasets.SplitInfo("train", num_bytes=num_bytes, num_examples=rows)}),
        download_size=sum(file_sizes),
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
    return pprint.pformat({**example, "image": _Repr(image)}, width=118, compact=True, sort_dicts=False)


class _Repr(str):
    def __repr__(self) -> str:
        return str(self)
