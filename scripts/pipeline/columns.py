"""Further columns of a SOURCE's metadata CSV, or of a PARQUET REPO, such as `patientID`: values by row."""

from __future__ import annotations

import collections
import contextlib
import csv
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pipeline.errors import StepError, counted, listing, one_line
from pipeline.parquet_source import ParquetRow, read_parquet_columns, remote_errors
from pipeline.source_json import pin_commit
from synthchex_75k import (
    COLUMNS,
    DAMAGE,
    LABELS,
    Files,
    Row,
    SourceError,
    basename_of,
    file_info,
    kind_of,
    list_files,
    members_of,
    printable,
    read_csv,
)

ALL, NONE = ("all",), ("none",)  # in place of names of columns


def read_columns(source: str, rows: Sequence[Row | ParquetRow], names: Sequence[str]) -> dict[str, list[str | None]]:
    """Reads columns that are no part of a row.

    Args:
        source: The SOURCE or PARQUET REPO.
        rows: Rows of its plan, any of them.
        names: The columns.

    Returns:
        For each column the values of the rows, in their order; None where a cell is empty.

    Raises:
        StepError: A column does not exist or is there twice; the message lists the columns.
        SourceError: The metadata CSV has changed since it was planned, or cannot be read.
    """
    if any(isinstance(row, ParquetRow) for row in rows):
        return read_parquet_columns([row for row in rows if isinstance(row, ParquetRow)], names)
    return _read(
        source, [row for row in rows if isinstance(row, Row)], None, lambda where, header: _check(where, header, names)
    )


def read_other_columns(
    source: str, rows: Sequence[Row], choose: Callable[[list[str]], Sequence[str]], files: Files | None = None
) -> dict[str, list[str | None]]:
    """Reads the columns of a SOURCE that are neither file name nor prompt nor labels, or some of them.

    Args:
        source: The SOURCE.
        rows: Rows of its plan, any of them.
        choose: Takes the names of these columns, in order, and returns those to read, each of which is there once. A
            name may be empty, or be there twice.
        files: The files of the SOURCE, as for `synthchex_75k.plan`. Default: all.

    Returns:
        For each chosen column the values of the rows, in their order; None where a cell is empty.

    Raises:
        SourceError: The metadata CSV has changed since it was planned, or cannot be read.
        StepError: What `choose` raises.
    """
    return _read(source, rows, files, lambda _, header: choose(_others(header)))


def read_kept_columns(
    source: str, rows: Sequence[Row], wanted: tuple[str, ...] = ALL, files: Files | None = None
) -> dict[str, list[str | None]]:
    """Reads columns that `read_other_columns` can read, for the metadata of a SOURCE that is made of this one.

    Args:
        source: The SOURCE.
        rows: Rows of its plan, any of them.
        wanted: Names of columns, or `ALL` or `NONE`. Of all, those without a name, or with one that is there twice,
            cannot be kept; a line names them.
        files: The files of the SOURCE, as for `synthchex_75k.plan`. Default: all.

    Returns:
        For each column the values of the rows, in their order; None where a cell is empty.

    Raises:
        StepError: A column does not exist or is there twice.
        SourceError: The metadata CSV has changed since it was planned, or cannot be read.
    """

    def choose(names: list[str]) -> Sequence[str]:
        if wanted != ALL:
            return _check(f"{source}: the metadata CSV", names, wanted)
        lost = [name or "one without a name" for name in dict.fromkeys(names) if not name or names.count(name) > 1]
        if lost:
            why = "without a name, or there twice, are left out"
            print(printable(f"{source}: columns of the metadata CSV {why}: {listing(lost)}"), file=sys.stderr)
        return [name for name in names if name and names.count(name) == 1]

    return {} if wanted == NONE else read_other_columns(source, rows, choose, files)


def read_patients(source: str, rows: Sequence[Row | ParquetRow], column: str | None) -> list[str | None]:
    """Reads the patient of each row.

    Args:
        source: The SOURCE or PARQUET REPO.
        rows: Rows of its plan, any of them.
        column: The column that names the patient; None: unknown.

    Returns:
        The patients in the order of the rows; without a column, None for all.

    Raises:
        StepError: There is no such column, or some rows have no patient. They are no one patient, and perhaps not as
            many as there are images.
        SourceError: The metadata CSV has changed since it was planned, or cannot be read.
    """
    if column is None:
        return [None] * len(rows)
    patients: list[str | None] = read_columns(source, rows, [column])[column]
    unknown = [row.where for row, patient in zip(rows, patients) if patient is None]
    if unknown:
        raise StepError(
            f"--patient-column {column} is empty for {counted(len(unknown), 'image')}: {listing(unknown)}; give each a "
            "name of its own there, if the patient is unknown"
        )
    return patients


Choose = Callable[[str, list[str]], Sequence[str]]  # takes the CSV, for messages, and its columns; returns some of them


def _read(source: str, rows: Sequence[Row], files: Files | None, choose: Choose) -> dict[str, list[str | None]]:
    files = files or list_files(pin_commit(source, [*rows]))
    names, cells = _read_cells(source, files, dict(version for row in rows for version in row.versions), choose)
    if not names:
        return {}
    try:
        values = [cells[row.filename] for row in rows]
    except KeyError as error:
        raise SourceError(f"{source}: no row of {error} in the metadata CSV; it changed, start again") from None
    return {name: [row[number] for row in values] for number, name in enumerate(names)}


def _read_cells(
    source: str, files: Files, versions: dict[str, str], choose: Choose
) -> tuple[Sequence[str], dict[str, tuple[str | None, ...]]]:
    """Returns the chosen columns and, by file name, their cells in the metadata CSV, the only one of a source."""
    kinds = ("csv", "archive")  # a tar without a CSV has to be read to its end to know that
    for file, info in sorted(files.items(), key=lambda item: kind_of(item[0]) not in kinds[:1]):
        with remote_errors(info["name"]), _damage(file):
            for row, lines in members_of(file, info) if kind_of(file) in kinds else ():
                if lines is None or not (header_lines := _header(row.where, lines)):
                    continue
                reader = csv.reader(itertools.chain(header_lines, lines), strict=True)
                header = [column.strip() for column in next(reader)]
                names = choose(row.where, header)
                cells = _read_rows(reader, header, names) if names else {}
                address = info["name"]
                if address in versions and file_info(address)["version"] != versions[address]:
                    raise SourceError(f"{printable(address)}: it changed while it was read; start again")
                return names, cells
    raise SourceError(f"{source}: no metadata CSV; it changed, start again")


@contextlib.contextmanager
def _damage(file: str) -> Iterator[None]:
    """Turns the errors of a damaged file into a SourceError: when it was planned, it had none."""
    try:
        yield
    except (csv.Error, *DAMAGE) as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"{printable(file)}: unreadable ({one_line(error)}); it changed, start again") from None


def _header(where: str, lines: Iterator[str]) -> list[str]:
    """Returns the lines of the header of a metadata CSV; of another CSV, nothing."""
    header: list[str] = []
    tables: dict[str, Any] = {"": {}}  # beside another table, `read_csv` reads no row

    def seen() -> Iterator[str]:
        for line in lines:
            header.append(line)
            yield line

    is_metadata = read_csv(where, seen(), tables, collections.defaultdict(list))
    return header if is_metadata else []


def _check(where: str, header: list[str], names: Sequence[str]) -> Sequence[str]:
    if missing := [name for name in names if header.count(name) != 1]:
        raise StepError(f"{where}: no column {', '.join(missing)}, or it is there twice; it has {', '.join(header)}")
    return names


def _filename_column(header: list[str]) -> str:
    found = [column for column in header if column in COLUMNS["filename"]]
    return next((column for column in found if column != "path"), "path")


def _others(header: list[str]) -> list[str]:
    known = {_filename_column(header), *COLUMNS["prompt"], *COLUMNS["labels"], *LABELS}
    return [column for column in header if column not in known]


def _read_rows(reader: Any, header: list[str], names: Sequence[str]) -> dict[str, tuple[str | None, ...]]:
    """Returns the cells of columns by file name."""
    filename = header.index(_filename_column(header))
    columns = [header.index(name) for name in names]
    return {
        basename_of(fields[filename]): tuple(fields[column] if fields[column].strip() else None for column in columns)
        for fields in reader
        if fields
    }
