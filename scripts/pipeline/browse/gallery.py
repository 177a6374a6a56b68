"""What the page shows for the query of its address."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pipeline.browse.filters import STATES, Filter, from_query, to_query
from pipeline.browse.images import Damage, ShownImage, image_files, large_picture, thumbnails
from pipeline.browse.index import ClosestImage, Index
from pipeline.browse.parts import Detail, GalleryTile, detail_view, label_counts, status_line, tile_list
from pipeline.rows import AnyRow
from pipeline.table import csv_bytes
from synthchex_75k import LABELS

PAGE_SIZE = 48
CHANGED = "The image has changed since it was evaluated, so this is not about it."
STATE_OF = {value: state for state, value in STATES.items()}


class View(NamedTuple):
    """Everything that the page shows.

    Attributes:
        filter: The filter; its page exists, and its image too.
        query: The filter, for the address.
        status: HTML: number of images, notices.
        tiles: HTML: the gallery.
        counts: HTML: the labels of all images that match.
        detail: HTML: the image that is shown large; empty: none.
        pages: Number of pages.
    """

    filter: Filter
    query: str
    status: str
    tiles: str
    counts: str
    detail: str
    pages: int


class Gallery:
    """Views of the rows of a source.

    Args:
        index: The rows.
        others: Rows of the source that the closest images are in, by file name; empty: they are not shown.
    """

    def __init__(self, index: Index, others: Mapping[str, AnyRow] | None = None) -> None:
        self.index = index
        self._others = others or {}
        self._find = functools.lru_cache(16)(index.find)

    def view(self, query: str) -> View:
        """Returns what the page shows for an address.

        Args:
            query: Its query. What cannot be used of it is left out, and a notice says so.
        """
        wanted, notices = from_query(query)
        wanted, more = self._known(wanted)
        return self.show(wanted, [*notices, *more])

    def show(self, wanted: Filter, notices: Sequence[str] = ()) -> View:
        """Returns what the page shows for a filter, and notices above it."""
        numbers = self.numbers(wanted)
        pages = max(1, -(-len(numbers) // PAGE_SIZE))
        wanted = wanted._replace(page=min(max(1, wanted.page), pages))
        start = (wanted.page - 1) * PAGE_SIZE
        query = to_query(wanted)
        return View(
            wanted,
            query,
            status_line(len(numbers), len(self.index.rows), to_query(wanted._replace(page=1, image="")), notices),
            self._tiles(numbers[start : start + PAGE_SIZE].tolist(), wanted),
            label_counts(self.index.counts(numbers), len(numbers)),
            self.detail(wanted) if wanted.image else "",
            pages,
        )

    def numbers(self, wanted: Filter) -> np.ndarray:
        """Returns the numbers of the rows that match a filter, in order; of all pages."""
        return self._find(wanted._replace(page=1, image=""))

    def file_names(self, query: str) -> bytes:
        """Returns the names of all files that match, as CSV."""
        wanted, _ = self._known(from_query(query)[0])
        names = ([self.index.rows[number].filename] for number in self.numbers(wanted).tolist())
        return csv_bytes([["filename"], *names])

    def opened(self, wanted: Filter, number: int) -> Filter:
        """Returns the filter with the image of a row open, on the page where it is; of no such row, as it is."""
        if not 0 <= number < len(self.index.rows):
            return wanted
        place = np.flatnonzero(self.numbers(wanted) == number)
        page = int(place[0]) // PAGE_SIZE + 1 if len(place) else wanted.page
        return wanted._replace(image=self.index.rows[number].filename, page=page)

    def opened_view(self, wanted: Filter) -> tuple[str, str]:
        """Returns the query and the HTML of the open image, where nothing else of the page changes."""
        return to_query(wanted), self.detail(wanted) if wanted.image else ""

    def detail(self, wanted: Filter) -> str:
        """Returns the HTML of the open image of a filter."""
        number = self.index.numbers[wanted.image]
        row = self.index.rows[number]
        (file,) = image_files([row])
        picture = large_picture(file, row)
        crc32 = None if isinstance(file, Damage) else file.crc32
        texts, nearest = self._evaluated(row.filename, crc32)
        about = {"File": f"{row.where}; {picture.about}" if isinstance(picture, ShownImage) else row.where}
        numbers = self.numbers(wanted)
        found = np.flatnonzero(numbers == number)
        place = int(found[0]) if len(found) else None
        return detail_view(
            Detail(
                picture,
                row.filename,
                {"Prompt": row.prompt, **_labels(row), **self._answer(number), **texts, **about},
                nearest,
                "not among those shown" if place is None else f"{place + 1:,} of {len(numbers):,}",
                int(numbers[place - 1]) if place else None,
                int(numbers[place + 1]) if place is not None and place + 1 < len(numbers) else None,
            )
        )

    def _known(self, wanted: Filter) -> tuple[Filter, list[str]]:
        """Returns a filter without what this source lacks, and a sentence for each such part."""
        notices = []
        if wanted.image and wanted.image not in self.index.numbers:
            notices.append(f"There is no image {wanted.image[:200]!r}.")
            wanted = wanted._replace(image="")
        if wanted.sort and wanted.sort not in self.index.lists:
            notices.append(f"There is no order {wanted.sort[:200]!r}: these images come in the order of the source.")
            wanted = wanted._replace(sort="")
        if wanted.qualities and not self.index.answers:
            notices.append("There are no answers of a judge, so all qualities are shown.")
            wanted = wanted._replace(qualities=())
        if strange := [quality for quality in wanted.qualities if quality not in self.index.qualities]:
            notices.append(f"No image has the quality {', '.join(repr(quality[:200]) for quality in strange)}.")
            wanted = wanted._replace(qualities=tuple(q for q in wanted.qualities if q not in strange))
        if wanted.patient and not self.index.patients:
            notices.append("The patients are unknown here, so all are shown.")
            wanted = wanted._replace(patient="")
        return wanted, notices

    def _tiles(self, numbers: list[int], wanted: Filter) -> str:
        rows = [self.index.rows[number] for number in numbers]
        tiles = (
            GalleryTile(number, picture, row.filename, row.prompt, self._marks(number, wanted))
            for number, row, picture in zip(numbers, rows, thumbnails(rows))
        )
        return tile_list(tiles)

    def _marks(self, number: int, wanted: Filter) -> list[str]:
        row = self.index.rows[number]
        marks = [label for label, value in zip(LABELS, row.labels) if value == 1]
        if self.index.answers:
            marks.insert(0, self.index.quality(number))
        if listed := self.index.lists.get(wanted.sort, {}).get(row.filename):
            marks.insert(0, f"{listed.value:.4g}")
        return marks

    def _answer(self, number: int) -> dict[str, str]:
        texts = {}
        if self.index.patients:
            texts["Patient"] = self.index.patients[number] or "unknown"
        if answer := self.index.answers.get(self.index.rows[number].filename):
            texts |= {"Quality": answer.quality, f"Answer of {answer.model}": answer.response}
        return texts

    def _evaluated(
        self, filename: str, crc32: int | None
    ) -> tuple[dict[str, str], list[tuple[str, ShownImage | Damage | None, Mapping[str, str]]]]:
        """Returns what evaluations say of an image, and its closest other images, each once."""
        texts: dict[str, str] = {}
        nearest: dict[tuple[str, str], ClosestImage] = {}
        for title, images in self.index.lists.items():
            if filename not in images:
                continue
            listed = images[filename]
            if crc32 is not None and crc32 != listed.crc32:
                texts[title] = CHANGED
                continue
            place = [*images].index(filename) + 1
            texts[title] = f"{listed.value:.6g}, number {place} of {len(images)} listed"
            if listed.nearest:
                nearest.setdefault((listed.nearest.kind, listed.nearest.filename), listed.nearest)
        return texts, [self._nearest(found) for found in nearest.values()]

    def _nearest(self, found: ClosestImage) -> tuple[str, ShownImage | Damage | None, Mapping[str, str]]:
        head = f"Closest {found.kind} image"
        texts = {"File name": found.filename, **found.about}
        if not self._others:
            return head, None, texts
        row = self._others.get(found.filename)
        if row is None:
            return head, None, {**texts, "Image": "not found in the source of --real"}
        (file,) = image_files([row])
        if not isinstance(file, Damage) and file.crc32 != found.crc32:
            return head, None, {**texts, "Image": "changed since it was evaluated, so it is not shown"}
        return head, large_picture(file, row), {"Prompt": found.prompt, **texts}


def _labels(row: AnyRow) -> dict[str, str]:
    """Returns the labels of a row by state, those that no label has left out."""
    named: dict[str, list[str]] = {state: [] for state in STATES}
    for label, value in zip(LABELS, row.labels):
        named[STATE_OF[value]].append(label)
    return {state.capitalize(): ", ".join(labels) for state, labels in named.items() if labels}
