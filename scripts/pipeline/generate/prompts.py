"""PROMPTS_CSV: a row for each prompt; and the images that are asked for, with their names and seeds."""

from __future__ import annotations

import csv
import hashlib
import re
import unicodedata
import urllib.parse
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from pipeline.errors import StepError, counted, listing
from pipeline.table import csv_bytes
from synthchex_75k import COLUMNS, LABELS, MAX_CSV_BYTES, MAX_MEMBERS, MAX_ROWS, read_csv, read_lines

NAME_BY_LINE = "line"
ID = "id"
MAX_NAME = 200  # bytes of a file name, of 255 that a disk allows: a temporary name is longer
IMAGE_SUFFIX = re.compile(r"\.(png|jpe?g)$", re.IGNORECASE)


class Prompt(NamedTuple):
    """A row of PROMPTS_CSV: what names its images, its text, and its 14 raw labels."""

    name: str
    text: str
    labels: tuple[int | None, ...]


class Request(NamedTuple):
    """An image that is asked for.

    Attributes:
        filename: Of the image.
        prompt: Its text.
        labels: The 14 raw labels.
        seed: For the random numbers of this image alone.
    """

    filename: str
    prompt: str
    labels: tuple[int | None, ...]
    seed: int


class Prompts(NamedTuple):
    """The rows of PROMPTS_CSV.

    Attributes:
        rows: The rows.
        have_labels: Whether it has labels.
        names_from: The column that names the images, or `line`; "" for that of the file names.
    """

    rows: list[Prompt]
    have_labels: bool
    names_from: str


def read_prompts(path: Path, name_by: str | None = None) -> Prompts:
    """Reads PROMPTS_CSV.

    It has the columns of a SOURCE's metadata. Labels may be missing; then all are "not mentioned". Images are named by
    the column of file names, else by a column `id`, else by the number of the line.

    Args:
        path: The CSV.
        name_by: Name the images by this column, or by the number of the line (`line`).

    Raises:
        StepError: It cannot be used; all problems, with their lines.
        OSError: It cannot be read.
    """
    if not path.is_file():
        raise StepError(f"{path}: " + ("not a regular file" if path.exists() else "no such file"))
    problems: dict[str, list[str]] = defaultdict(list)
    tables: dict[str, dict[str, tuple[int, str, tuple[int | None, ...]]]] = {}
    with open(path, "rb") as file:
        table = _Table(file, path.stat().st_size, name_by)
        is_ours = read_csv(str(path), table.lines(), tables, problems)
    places = [f"- {kind}: {listing(lines)}" for kind, lines in problems.items() if lines]
    if not is_ours or places:
        by = f"; the images are named by {table.names_from!r}, see --name-by" if table.names_from else ""
        raise StepError("\n".join([f"{path} cannot be used as it is{by}", *places]))
    rows = [Prompt(IMAGE_SUFFIX.sub("", name), text, labels) for name, (_, text, labels) in tables[str(path)].items()]
    if not rows:
        raise StepError(f"{path} has no row")
    return Prompts(rows, table.has_labels, table.names_from)


class _Table:
    """A CSV of prompts as one of a SOURCE: with file names, and with labels if it has none.

    `read_csv` checks everything else, and names the lines: columns are only added at the end.
    """

    def __init__(self, file: IO[bytes], size: int, name_by: str | None) -> None:
        self._file, self._size, self._name_by = file, size, name_by
        self.names_from = ""
        self.has_labels = True

    def lines(self) -> Iterator[str]:
        reader = csv.reader(read_lines(self._file, self._size), strict=True)
        header = [column.strip() for column in next(reader, [])]
        names = self._find_names(header)
        self.has_labels = bool({*header} & {*COLUMNS["labels"], *LABELS})
        more = [*([] if names is None else ["filename"]), *([] if self.has_labels else LABELS)]
        kept = [f"({column})" if names is not None and column in COLUMNS["filename"] else column for column in header]
        yield csv_bytes([[*kept, *more]]).decode()
        for fields in reader:
            if not fields:
                yield "\n"
                continue
            line = reader.line_num - sum(field.count("\n") for field in fields)
            added = [] if names is None else [self._name(fields, names, line)]
            yield csv_bytes([[*fields, *added, *([] if self.has_labels else [""] * len(LABELS))]]).decode()

    def _find_names(self, header: list[str]) -> int | None:
        """Returns which column names the images, -1 for the number of the line; None: that of the file names."""
        if self._name_by is None and {*header} & {*COLUMNS["filename"]}:
            return None
        wanted = self._name_by or (ID if ID in header else NAME_BY_LINE)
        if wanted != NAME_BY_LINE and header.count(wanted) != 1:
            raise StepError(f"{header.count(wanted)} columns {wanted!r}; the columns are {', '.join(header)}")
        self.names_from = wanted
        return -1 if wanted == NAME_BY_LINE else header.index(wanted)

    def _name(self, fields: list[str], column: int, line: int) -> str:
        if column < 0:
            return f"{line:06d}"
        # Any text becomes a file name, no two texts the same one.
        return urllib.parse.quote(fields[column].strip(), safe="") if column < len(fields) else ""


def request_images(prompts: list[Prompt], images_per_prompt: int, seed: int) -> list[Request]:
    """Returns the images that are asked for, in the order of the prompts.

    Args:
        prompts: The prompts.
        images_per_prompt: Number of images of each.
        seed: Seed of the run.

    Raises:
        StepError: Two images would have one name, a disk cannot hold a name, or a SOURCE cannot have as many images.
    """
    requests = [
        Request(_filename(prompt.name, number), prompt.text, prompt.labels, seed_of(seed, prompt.name, number))
        for prompt in prompts
        for number in range(images_per_prompt)
    ]
    _check_names([request.filename for request in requests])
    lines = sum(request.prompt.count("\n") + 1 for request in requests)
    size = sum(len(request.prompt) + MAX_NAME for request in requests)
    if len(requests) > MAX_ROWS or lines >= MAX_MEMBERS or size > MAX_CSV_BYTES:
        bounds = f"{MAX_ROWS:,} rows, {MAX_MEMBERS:,} lines or {MAX_CSV_BYTES:,} bytes"
        raise StepError(f"{len(requests):,} images are too many for one SOURCE, of at most {bounds}; split PROMPTS_CSV")
    return requests


def seed_of(seed: int, name: str, number: int) -> int:
    """Returns the seed of an image: 63 bits of a SHA-256, which depend on the arguments and on nothing else.

    Args:
        seed: Seed of the run.
        name: What names the images of the prompt.
        number: Which of them, from 0.

    Example:
        >>> seed_of(0, "a", 0), seed_of(0, "a", 1)
        (4954306405812356283, 1292977548861752322)
    """
    return int.from_bytes(hashlib.sha256(f"{seed}\n{number}\n{name}".encode()).digest()[:8], "big") >> 1


def _filename(name: str, number: int) -> str:
    return f"{name}_{number}.png" if number else f"{name}.png"


def _check_names(names: list[str]) -> None:
    counts = Counter(map(_folded, names))
    _fail([name for name in names if counts[_folded(name)] > 1], "would have the name of another")
    _fail([name for name in names if name.startswith(".")], "would be hidden, since the name starts with a dot")
    _fail([name for name in names if not name.isprintable()], "would have a name that cannot be printed")
    _fail([name for name in names if len(name.encode()) > MAX_NAME], f"would have a name over {MAX_NAME} bytes")


def _folded(name: str) -> str:
    """Returns a name as disks see it that ignore case, or how an accent is encoded."""
    return unicodedata.normalize("NFC", name).casefold()


def _fail(names: list[str], problem: str) -> None:
    if names:
        raise StepError(f"{counted(len(names), 'image')} {problem}: {listing(names)}. Rename them, or see --name-by.")
