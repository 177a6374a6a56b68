"""A table of all rows in memory: which rows match a `Filter`, in which order, and how often each label occurs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pipeline.browse.filters import STATES, Filter, words_of
from pipeline.rows import AnyRow
from synthchex_75k import LABELS

NO_ANSWER = "no answer"
CODES = {value: code for code, value in enumerate(STATES.values())}  # of a raw label, its place in STATES


class Answer(NamedTuple):
    """What a judge answered about an image."""

    quality: str
    response: str
    model: str


class ClosestImage(NamedTuple):
    """The closest other image that an evaluation found: a training image, or a real one.

    Attributes:
        kind: `"training"` or `"real"`.
        filename: Its file name.
        crc32: CRC-32 of its file.
        prompt: Its prompt.
        about: Plain texts, such as its distance, by name.
    """

    kind: str
    filename: str
    crc32: int
    prompt: str
    about: Mapping[str, str]


class Listed(NamedTuple):
    """What an evaluation says of a single image.

    Attributes:
        value: By what the list is ordered.
        crc32: CRC-32 of the image's file when it was evaluated.
        nearest: The closest other image; None: unknown.
    """

    value: float
    crc32: int
    nearest: ClosestImage | None


class ImageList(NamedTuple):
    """Images that an evaluation lists, the most extreme first, by file name."""

    title: str
    images: Mapping[str, Listed]


class Index:
    """The rows by number, from 0 in the order of the source, and what is known of each beside its image.

    Args:
        rows: The rows.
        answers: Answers of a judge by file name.
        patients: The patient of each row; None: unknown. Empty: there is no such column.
        lists: Those of an evaluation.

    Attributes:
        rows: The rows.
        numbers: The number of a row by its file name.
        answers: As given.
        patients: As given.
        lists: As given, by title.
        qualities: Those that occur, the most frequent first; `NO_ANSWER` is one where an answer is missing.
    """

    def __init__(
        self,
        rows: Sequence[AnyRow],
        answers: Mapping[str, Answer] | None = None,
        patients: Sequence[str | None] = (),
        lists: Sequence[ImageList] = (),
    ) -> None:
        self.rows = rows
        self.answers = answers or {}
        self.patients = patients
        self.lists = {found.title: found.images for found in lists}
        self.numbers = {row.filename: number for number, row in enumerate(rows)}
        self._names = [row.filename.casefold() for row in rows]
        self._prompts = [row.prompt.casefold() for row in rows]
        different = {row.labels: [CODES[value] for value in row.labels] for row in rows}  # most repeat
        self._labels = np.array([different[row.labels] for row in rows], np.int8).reshape(-1, len(LABELS))
        qualities = [self.quality(number) for number in range(len(rows))] if self.answers else []
        self._qualities = np.array(qualities, object)
        self.qualities = sorted({*qualities}, key=lambda quality: -qualities.count(quality))

    def quality(self, number: int) -> str:
        """Returns the judge's quality of a row."""
        answer = self.answers.get(self.rows[number].filename)
        return answer.quality if answer else NO_ANSWER

    def find(self, wanted: Filter) -> np.ndarray:
        """Returns the numbers of the rows that match a filter, in the order in which it wants them."""
        chosen = np.ones(len(self.rows), bool)
        if wanted.labels:
            columns = [LABELS.index(label) for label, _ in wanted.labels]
            states = [CODES[STATES[state]] for _, state in wanted.labels]
            holds = self._labels[:, columns] == np.array(states, np.int8)
            chosen &= holds.any(1) if wanted.match == "any" else holds.all(1)
        for word in words_of(wanted.words):
            chosen &= np.fromiter((word in prompt for prompt in self._prompts), bool, len(self.rows))
        if wanted.name:
            part = wanted.name.casefold()
            chosen &= np.fromiter((part in name for name in self._names), bool, len(self.rows))
        if wanted.patient:
            has = (patient == wanted.patient for patient in self.patients or [None] * len(self.rows))
            chosen &= np.fromiter(has, bool, len(self.rows))
        if wanted.qualities:
            known = self._qualities if self.answers else np.full(len(self.rows), NO_ANSWER, object)
            chosen &= np.isin(known, wanted.qualities)
        return self._in_order(np.flatnonzero(chosen), wanted.sort)

    def counts(self, numbers: np.ndarray) -> dict[str, list[int]]:
        """Returns for each label how many of some rows have each of `STATES`."""
        labels = self._labels[numbers]
        return {
            label: np.bincount(labels[:, column], minlength=len(STATES)).tolist() for column, label in enumerate(LABELS)
        }

    def _in_order(self, numbers: np.ndarray, sort: str) -> np.ndarray:
        places = {name: place for place, name in enumerate(self.lists.get(sort, ()))}
        if not places:
            return numbers
        last = len(places)
        order = [places.get(self.rows[number].filename, last) for number in numbers]
        return numbers[np.argsort(order, kind="stable")]
