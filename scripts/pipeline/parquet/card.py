"""The dataset card of a Parquet repository, from the templates beside this module.

Its sections stand between comments BEGIN and END; `card_merge` replaces them in the card of a repository.
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
PLACEHOLDER = "USER/NAME"
ABOUT_PLACEHOLDER = """
`USER/NAME` is the name of this repository. For a downloaded folder, put its path in place of `USER/NAME`, and of
`hf://datasets/USER/NAME`.
"""


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
        about_placeholder=ABOUT_PLACEHOLDER,
        labels=(TEMPLATES / f"labels_{uncertainty}.md").read_text(encoding="utf-8").strip(),
        meta_prompt=META_PROMPT,
        citation=CITATION.strip(),
    )
    return f"---\n{card.data.to_yaml()}\n---\n\n{body.strip()}\n"


def with_repo_id(card: str, repo_id: str) -> str:
    """Returns the card with the name of a repository on the Hub in its examples."""
    return card.replace(ABOUT_PLACEHOLDER, "").replace(PLACEHOLDER, repo_id)


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
