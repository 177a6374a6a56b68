"""The configuration `labels`: the rows without images, with a column for each label and for what else is known of them.

The dataset viewer draws histograms and filters for such flat columns, and a query over them downloads one small file.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.columns import ALL, NONE
from pipeline.errors import StepError, listing
from pipeline.parquet.writer import parquet_writer
from pipeline.parquet_source import LABELS_FILE
from synthchex_75k import LABELS, Row

CONFIG = "labels"
DATA_FILES_OF_LABELS = [{"split": "train", "path": LABELS_FILE}]
TEXTS = ("filename", "prompt")
OPTION = "--labels-columns"
ROWS_PER_GROUP = 10_000  # at 75,649 rows eight row groups, which readers divide among threads
COMPRESSION = {"compression": "zstd", "compression_level": 3}  # 6 % smaller than with level 1, of pyarrow's default
INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")
DECIMAL = re.compile(r"-?[0-9]+\.[0-9]+(e[-+][0-9]+)?")
NO_NAME_FOR_DATASETS = "_type"  # `datasets` 5.2 fails to write its features into a card


class MeasuredLabels(NamedTuple):
    """What was measured of the configuration `labels`.

    Args:
        num_bytes: Size of its rows in memory, as Arrow has them: bytes.
        file_size: Size of its file: bytes.
        columns: Types of the columns beside file name, prompt and labels, by name: `string`, `int64` or `float64`.
    """

    num_bytes: int = 0
    file_size: int = 0
    columns: dict[str, str] = {}  # noqa: RUF012 - never changed


def choose_columns(
    names: list[str], wanted: tuple[str, ...] | None, source: str, is_published: bool = False
) -> list[str]:
    """Returns the columns of a metadata CSV that the configuration gets.

    Args:
        names: The columns that are neither file name nor prompt nor labels; a name may be empty, or be there twice.
        wanted: Names of them, or `ALL` or `NONE`. Default: all; those without a name, such as the index that pandas
            writes, are not among them.
        source: Address of the SOURCE, for messages.
        is_published: Whether the result is published. Then there is no default if there are such columns: they may
            name patients, or hold the paths of a machine.

    Raises:
        StepError: A column does not exist, is there twice, differs only by case from another one, cannot be in a
            Parquet file for `datasets`, or would be published without having been asked for.

    Example:
        >>> choose_columns(["", "view", "age"], None, "path/to/release")
        ['view', 'age']
    """
    named = [name for name in names if name]
    if is_published and wanted is None and named:
        raise StepError(
            f"{source}: the metadata CSV has the columns {listing(named)}, which would be published in the "
            f"configuration {CONFIG}; name those to publish with {OPTION}, or all, or none"
        )
    chosen = [*dict.fromkeys(named if wanted in (None, ALL) else () if wanted == NONE else wanted or ())]
    if missing := [name for name in chosen if name not in named]:
        has = f"it has {listing(named)}" if named else "it has none beside file name, prompt and labels"
        raise StepError(f"{source}: {OPTION}: the metadata CSV has no column {listing(missing)}; {has}")
    seen = {name.casefold(): name for name in (*TEXTS, *LABELS)}  # as DuckDB compares names
    for name in chosen:
        problem = "is there twice" if names.count(name) > 1 else ""
        if (other := seen.setdefault(name.casefold(), name)) != name:
            problem = f"differs from {other} by case only"
        if name == NO_NAME_FOR_DATASETS or not name.isprintable():
            problem = "has a name that a Parquet file for `datasets` cannot have"
        if problem:
            advice = f"rename it in the CSV, or leave it out: name the columns to write with {OPTION}, or none"
            raise StepError(f"{source}: the metadata CSV: the column {name} {problem}; {advice}")
    return chosen


def column_type(cells: Iterable[str | None]) -> str:
    """Returns the type that a column gets: that of numbers only if their texts can be read back equal.

    Example:
        >>> column_type(["7", None, "-12"]), column_type(["0.5", "1.0"]), column_type(["007"]), column_type([None])
        ('int64', 'float64', 'string', 'string')
    """
    texts = {cell for cell in cells if cell is not None}
    if texts and all(INTEGER.fullmatch(text) and -(2**63) <= int(text) < 2**63 for text in texts):
        return "int64"
    if texts and all(DECIMAL.fullmatch(text) and repr(float(text)) == text for text in texts):
        return "float64"
    return "string"


def features_of(columns: dict[str, str]) -> datasets.Features:
    """Returns the features of the configuration.

    Args:
        columns: As in `MeasuredLabels`.
    """
    types = {**dict.fromkeys(TEXTS, "string"), **dict.fromkeys(LABELS, "int8"), **columns}
    return datasets.Features({name: datasets.Value(dtype) for name, dtype in types.items()})


def write_labels(rows: Sequence[Row], others: dict[str, list[str | None]]) -> tuple[bytes, MeasuredLabels]:
    """Returns the Parquet file of the configuration, and what was measured of it.

    Args:
        rows: The plan.
        others: Cells of the chosen columns in the order of the rows, by name; None where a cell is empty.
    """
    types = {name: column_type(cells) for name, cells in others.items()}
    schema = features_of(types).arrow_schema
    readers: dict[str, Any] = {"int64": int, "float64": float, "string": str}
    columns: list[Any] = [[row.filename for row in rows], [row.prompt for row in rows]]
    columns += zip(*(row.labels for row in rows))
    columns += (
        [None if cell is None else readers[types[name]](cell) for cell in cells] for name, cells in others.items()
    )
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    file = io.BytesIO()
    # File names are unique, and the least and the greatest prompt tell nothing.
    options = {"use_dictionary": [name for name in schema.names if name != "filename"], **COMPRESSION}
    options |= {"write_statistics": [name for name in schema.names if name != "prompt"]}
    with parquet_writer(file, schema, options) as writer:
        writer.write_table(pa.Table.from_arrays(arrays, schema=schema), ROWS_PER_GROUP)
    content = file.getvalue()
    return content, MeasuredLabels(measure_memory(pq.ParquetFile(file)), len(content), types)


def measure_memory(parquet: pq.ParquetFile) -> int:
    """Returns the size of all rows of a Parquet file in memory, read by row group, as `datasets` counts it: bytes."""
    return sum(parquet.read_row_group(number, use_threads=False).nbytes for number in range(parquet.num_row_groups))
