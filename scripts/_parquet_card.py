"""The dataset card of a Parquet repository: the README of this repository, told for someone who has only the data."""

from __future__ import annotations

import hashlib
import json
import pprint
import re
from pathlib import Path
from typing import Any

import datasets
from _checksum import PLACEHOLDER
from _figures import Figure
from _steps import decode, one_line
from datasets.info import DatasetInfosDict
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import CardData, DatasetCard

from synthchex_75k import FEATURES

README = Path(__file__).parents[1] / "README.md"
OPEN_LISTS = ("language", "tags", "task_categories", "task_ids")  # of the header: people may add to them
KEPT_SECTIONS = ("Label policy", "How the dataset was made", "Intended use and limits", "Citation")
CARD = "README.md"
DATA_FILES = "data/train-*.parquet"
# The last line: SHA-256 of the files that belong to the card, and what `_checksum` reads.
MARK = "<!-- Written by convert_to_parquet.py. It replaces this file when it runs again, unless it was edited."
PLACE = """
For `USER/NAME`, and for `hf://datasets/USER/NAME`, put the name of this repository, or the path of the folder.
"""
USE = f"""\
## Use it

These are Parquet files; no code of this repository runs. `croissant.json` describes them for machines.
{PLACE}
```python
from datasets import load_dataset

dataset = load_dataset("USER/NAME", split="train")
dataset[0]["image"]

stream = load_dataset("USER/NAME", split="train", streaming=True)  # nothing downloaded ahead
next(iter(stream))["prompt"]
```

(A script that stops in the middle of a stream may hang or abort when it ends, whatever the Parquet file: Arrow's issue
45214. `os._exit(0)` as its last line helps.)

Some columns only, and of the rows those with a finding (`datasets` 3.6 and later):

```python
import pyarrow.compute as pc
from datasets import load_dataset

edema = pc.field("labels_dict", "Edema") == 1
stream = load_dataset("USER/NAME", split="train", streaming=True, columns=["prompt", "labels_dict"], filters=edema)
prompts = [row["prompt"] for row in stream]
```

DuckDB:

```python
import duckdb

duckdb.sql("SELECT count(*), sum(labels_dict.Edema) FROM 'hf://datasets/USER/NAME/data/*.parquet'").show()
```

Polars:

```python
import polars as pl

rows = pl.scan_parquet("hf://datasets/USER/NAME/data/*.parquet")
rows.filter(pl.col("labels_dict").struct.field("Edema") == 1).select("filename", "prompt").collect()
```
"""


def write_card(
    rows: int,
    num_bytes: int,
    file_sizes: list[int],
    uncertainty: str,
    shown_row: str,
    figures: list[Figure],
    beside: dict[str, bytes],
) -> str:
    """Writes the card.

    Args:
        rows: Number of rows.
        num_bytes: Their size in memory, as Arrow has them: bytes.
        file_sizes: Size of each Parquet file: bytes.
        uncertainty: Label policy with which the labels were written.
        shown_row: A row, as `show` gives it.
        figures: The pictures.
        beside: Each other file that belongs to the card, by its path.

    Returns:
        The text, with the placeholder of `_checksum` in its last line.
    """
    readme = DatasetCard.load(README)
    readme.data.size_categories = [size_category(rows)]
    DatasetInfosDict(default=dataset_info(rows, num_bytes, file_sizes)).to_dataset_card_data(readme.data)
    MetadataConfigs(default={"data_files": [{"split": "train", "path": DATA_FILES}]}).to_dataset_card_data(readme.data)
    intro, *sections = re.split(r"^(?=## )", readme.text.strip() + "\n", flags=re.MULTILINE)
    by_title = {section.partition("\n")[0].removeprefix("## "): section for section in sections}
    name, about = intro.split("\n\n")[:2]
    files = "one Parquet file" if len(file_sizes) == 1 else f"{len(file_sizes)} Parquet files"
    here = (
        f"Here are {rows:,} rows in {files}, {sum(file_sizes) / 1e6:,.1f} MB. The images are the PNG files, untouched."
    )
    pictures = [f"![{_escape(figure.alt)}]({figure.path})" for figure in figures]
    fenced = f"```\n{shown_row}\n```\n"
    row = re.sub(r"^```\n.*?^```\n", lambda _: fenced, by_title["The row"], count=1, flags=re.DOTALL | re.MULTILINE)
    policy = f'{by_title["Label policy"].rstrip()}\n\nHere it is `"{uncertainty}"`.'
    kept = [policy if title == "Label policy" else by_title[title] for title in KEPT_SECTIONS]
    parts = [name, about, here, *pictures, row, USE, *kept]
    return _with_mark(readme.data, "\n\n".join(part.strip() for part in parts), beside)


def for_repo(card: str, repo_id: str, published: str, beside: dict[str, bytes]) -> str:
    """Makes of the card of a folder that of its repository on the Hub.

    Args:
        card: The text of the card in the folder.
        repo_id: The repository.
        published: The text of the card that is there now, or nothing. What people have added to its header is kept:
            fields that the card here does not have, entries of its lists, configurations.
        beside: As in `write_card`.

    Returns:
        The text, with the placeholder of `_checksum` in its last line.
    """
    new = DatasetCard(card)
    ours, theirs = new.data.to_dict(), read_header(published)
    for key, value in theirs.items():
        if key not in ours:
            new.data[key] = value
        elif key in OPEN_LISTS and isinstance(value, list):
            new.data[key] = [*ours[key], *(entry for entry in value if entry not in ours[key])]
    configs = [config for config in theirs.get("configs") or [] if config.get("config_name") != "default"]
    infos = theirs.get("dataset_info") or []
    named = {info.get("config_name"): info for info in ([infos] if isinstance(infos, dict) else infos)}
    # What is described and not configured belonged to a loading script.
    described = [named[config["config_name"]] for config in configs if config.get("config_name") in named]
    new.data["configs"] = [*ours["configs"], *configs]
    if described:
        new.data["dataset_info"] = [{"config_name": "default", **ours["dataset_info"]}, *described]
    body = new.text.rpartition(MARK)[0].replace(PLACE, "").replace("USER/NAME", repo_id)
    return _with_mark(new.data, body.strip(), beside)


def read_header(card: str) -> dict[str, Any]:
    """Returns the header of a card, nothing for a card that has none.

    Raises:
        ValueError: It cannot be read.
    """
    if not card.startswith("---"):
        return {}
    try:
        return DatasetCard(card).data.to_dict()
    except Exception as error:  # of the YAML, in many classes
        raise ValueError(f"the header of the card cannot be read: {one_line(error)}") from error


def files_beside(card: str) -> dict[str, str]:
    """Returns the files that belong to a card: their SHA-256, by path."""
    match = re.search(rf"^{re.escape(MARK)} (\{{.*\}}) -->$", card, re.MULTILINE)
    return json.loads(match[1])["sha256"] if match else {}


def _with_mark(header: CardData, body: str, beside: dict[str, bytes]) -> str:
    sums = {path: hashlib.sha256(content).hexdigest() for path, content in beside.items()}
    mark = f"{MARK} {json.dumps({'sha256': sums, 'crc32': PLACEHOLDER})} -->"
    return f"---\n{header.to_yaml()}\n---\n\n{body}\n\n{mark}\n"


def _escape(text: str) -> str:
    return re.sub(r"([\\\[\]`*_<>!#|])", r"\\\1", one_line(text))


def dataset_info(rows: int, num_bytes: int, file_sizes: list[int]) -> datasets.DatasetInfo:
    """Returns what the header of the card says of the data, as `datasets` writes and reads it."""
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
    row = {
        **example,
        "image": _Repr(re.sub(r" at 0x\w+", "", repr(decode(example["image"]["bytes"], example["filename"])))),
    }
    return pprint.pformat(row, width=118, compact=True, sort_dicts=False)


class _Repr(str):
    def __repr__(self) -> str:
        return str(self)
