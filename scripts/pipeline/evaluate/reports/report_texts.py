"""TEXTS_CSV: generated reports beside those of radiologists."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import StepError, counted, listing
from pipeline.files import atomic_write
from pipeline.table import csv_bytes

NEEDED = ("reference", "text")
OPTIONAL_COLUMNS = ("filename", "setting", "seed", "patient")
MAX_TEXT = 20_000  # characters of a text: ROUGE-L needs memory and time by the product of two lengths
SEED = re.compile(r"[0-9]{1,18}")


class ReportText(NamedTuple):
    """A generated report of an image.

    Attributes:
        filename: Of the image; its number where a CSV has no such column.
        setting: What the model was trained on, one of `settings.SETTINGS`; None where unknown.
        seed: Seed of its training.
        patient: The patient of the image; None where unknown.
        reference: What the radiologist wrote.
        text: What the model wrote; it may be empty.
    """

    filename: str
    setting: str | None
    seed: int
    patient: str | None
    reference: str
    text: str


class RunTexts(NamedTuple):
    """The texts of one trained model, by file name."""

    setting: str | None
    seed: int
    texts: list[ReportText]


def write_texts(path: Path, texts: Iterable[ReportText]) -> None:
    """Writes TEXTS_CSV, atomically; the column `patient` only if a patient is known.

    Raises:
        StepError: A CSV cannot hold a text.
        OSError: It cannot be written.
    """
    texts = [*texts]
    columns = [name for name in ReportText._fields if name != "patient" or any(text.patient for text in texts)]
    try:
        lines = csv_bytes([columns, *([getattr(text, name) for name in columns] for text in texts)])
    except ValueError as error:
        raise StepError(f"{path}: {error}") from None
    atomic_write(path, lines)


def read_texts(path: Path) -> list[ReportText]:
    """Reads TEXTS_CSV: columns `reference` and `text`, and those of `OPTIONAL_COLUMNS` that it has.

    Args:
        path: TEXTS_CSV.

    Raises:
        StepError: A column is missing, or a cell other than that of a text is empty or wrong; the message has the line.
        OSError: It cannot be read.
    """
    try:
        lines = csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""), strict=True)
        header = [name.strip() for name in next(lines, [])]
        places = _places(path, header)
        return [_parse(path, lines.line_num, header, places, row) for row in lines if row]
    except (csv.Error, UnicodeDecodeError) as error:
        raise StepError(f"{path}: unreadable CSV: {error}") from None


def _places(path: Path, header: list[str]) -> dict[str, int]:
    known = [*NEEDED, *OPTIONAL_COLUMNS]
    if wrong := [name for name in known if header.count(name) > 1 or (name in NEEDED and name not in header)]:
        found = listing(header, 12, ", ") or "no header"
        raise StepError(f"{path}: no column {', '.join(wrong)}, or it is there twice; it has {found}")
    return {name: header.index(name) for name in known if name in header}


def _parse(path: Path, line: int, header: list[str], places: dict[str, int], row: list[str]) -> ReportText:
    where = f"{path} line {line}"
    if len(row) != len(header):
        raise StepError(f"{where}: {counted(len(row), 'cell')} instead of {len(header)}")
    cells = {name: row[place] for name, place in places.items()}
    if empty := [name for name, cell in cells.items() if name != "text" and not cell.strip()]:
        raise StepError(f"{where}: {', '.join(empty)} is empty")
    seed = cells.get("seed", "0")
    if not SEED.fullmatch(seed):
        raise StepError(f"{where}: the seed {seed[:40]!r} is no number of at most 18 digits")
    if long := [name for name in NEEDED if len(cells[name]) > MAX_TEXT]:
        size = len(cells[long[0]])
        raise StepError(f"{where}: {long[0]} has {size:,} characters, at most {MAX_TEXT:,}")
    filename = cells.get("filename", f"line {line:09}")
    return ReportText(
        filename, cells.get("setting"), int(seed), cells.get("patient"), cells["reference"], cells["text"]
    )


def runs_of(texts: Iterable[ReportText], where: str) -> list[RunTexts]:
    """Returns the texts of each setting and seed, in the order of their first text; each run by file name.

    Args:
        texts: The texts.
        where: Where they are from, for messages.

    Raises:
        StepError: There are none, an image has two texts of a run, or the runs are not of the same images, references,
            patients and seeds, so that their scores do not compare.
    """
    found: dict[tuple[str | None, int], list[ReportText]] = defaultdict(list)
    for text in texts:
        found[text.setting, text.seed].append(text)
    runs = [RunTexts(*run, sorted(of_run, key=lambda text: text.filename)) for run, of_run in found.items()]
    if not runs:
        raise StepError(f"{where}: no texts")
    for run in runs:
        name = f"{where}: setting {run.setting}, seed {run.seed}"
        names = [text.filename for text in run.texts]
        if twice := sorted({one for one, other in itertools.pairwise(names) if one == other}):
            raise StepError(f"{name}: {counted(len(twice), 'image')} with two texts: {listing(twice)}")
        if names != [text.filename for text in runs[0].texts]:
            raise StepError(
                f"{name}: not the images of setting {runs[0].setting}, seed {runs[0].seed}; the texts of several runs "
                "need a filename each"
            )
        for text, first in zip(run.texts, runs[0].texts):
            if (text.reference, text.patient) != (first.reference, first.patient):
                raise StepError(f"{name}: another reference or patient of {text.filename} than in the first setting")
    seeds = {setting: sorted(run.seed for run in runs if run.setting == setting) for setting, _ in found}
    if len({*map(tuple, seeds.values())}) > 1:
        raise StepError(f"{where}: the settings have different seeds: {seeds}")
    return runs
