"""Names of the files in a converted folder."""

from __future__ import annotations

import re

CARD = "README.md"
CROISSANT = "croissant.json"
FIGURES = ("figures/labels.png", "figures/examples.png")
DATA_FILES = "data/train-*.parquet"  # as `datasets` and DuckDB take it
PUBLISHED_DATA_FILES = re.compile(r"data/train-[^/]*\.parquet")  # those that any tool has published
_DATA_FILE = re.compile(r"data/train-\d{5}-of-(\d{5})\.parquet")


def data_file(number: int, count: int) -> str:
    """Returns the path of a Parquet file.

    Example:
        >>> data_file(0, 41)
        'data/train-00000-of-00041.parquet'
    """
    return f"data/train-{number:05d}-of-{count:05d}.parquet"


def data_files(names: set[str]) -> list[str]:
    """Returns the Parquet files that a folder with such files should have, in order.

    Args:
        names: Paths in the folder.

    Example:
        >>> data_files({"data/train-00001-of-00002.parquet", "README.md"})
        ['data/train-00000-of-00002.parquet', 'data/train-00001-of-00002.parquet']
    """
    count = max((int(match[1]) for name in names if (match := _DATA_FILE.fullmatch(name))), default=0)
    return [data_file(number, count) for number in range(count)]
