"""The images that decide metrics, synthetic ones beside real ones: read from their sources, checked by CRC-32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import PIL.Image

from pipeline import page
from pipeline.errors import StepError, one_line
from pipeline.evaluate.page.charts import format_number
from pipeline.evaluate.page.glossary import GLOSSARY
from pipeline.evaluate.page.side_by_side import FIDELITY, NAMES, Column, sections_shown
from pipeline.evaluate.results.results_fidelity import ImageResult, NearestImage
from pipeline.evaluate.results.results_section import ImagePair, PairedImage
from pipeline.rows import AnyRow, decode, plan_any, read
from synthchex_75k import SourceError

LISTS = {
    "adds_most_to_fd": (
        "Adds most to FD",
        "Influence on FD",
        "FD would fall most without these images: they are unlike the real ones as a set is, for example all too dark.",
    ),
    "least_like_real": (
        "Least like any real image",
        "Distance to the nearest real image",
        "These images are the farthest from their nearest real one, as the encoder sees both.",
    ),
    "least_like_prompt": (
        "Least like its prompt",
        "Cosine with the prompt",
        "These images fit their prompts worst, as the encoder sees both; beside them the nearest real ones.",
    ),
}
CLOSEST = "closest_"  # with the name of a metric: a list of pairs
PAIR_LISTS = {
    "nearest": ("Nearest to a training image", "Distance"),
    "nearest_relative": ("Nearest to a training image, by held-out images", "Distance, divided by that to held-out"),
    "below_threshold": ("As near to a training image as 1 in 1,000 held-out images", "Distance"),
}
HEADS = {"synthetic": "Synthetic", "real": "Nearest real", "train": "Training image"}
MAX_PAIRS = 48  # on a page, so that it stays below 5 MB
PIXELS = 224  # of an image
MAX_PROMPT = 600  # characters
_Image = ImageResult | NearestImage | PairedImage
_List = TypeVar("_List")
CHANGED, NOT_FOUND = "Image changed since it was embedded", "Not found in the source"


class Album:
    """Images of one SOURCE by file name."""

    def __init__(self, source: str, side: str) -> None:
        """Plans the source; where that fails, `problem` says so and no image is found.

        Args:
            source: The SOURCE.
            side: `"real"`, `"train"` or `"synthetic"`.
        """
        self.problem = ""
        self._rows: dict[str, AnyRow] = {}
        try:
            # Images were found by name when they were embedded; those without a row are of no concern here.
            self._rows = {row.filename: row for row in plan_any(source, "skip")}
        except (SourceError, StepError, OSError, ValueError) as error:  # ValueError: an address with NUL is no path
            reason = one_line(error).rstrip(".")
            moved = f"If the source has moved, name it with --{side}."
            self.problem = f"The {NAMES.get(side, side)} images cannot be shown: {reason}. {moved}"

    def image(self, filename: str, crc32: int) -> PIL.Image.Image | str:
        """Returns an image, or a text that says why it is not shown.

        Args:
            filename: Its name.
            crc32: The CRC-32 of its file when it was embedded; another image is never shown.
        """
        if self.problem:
            return "The source cannot be read"
        if filename not in self._rows:
            return NOT_FOUND
        try:
            ((found, example),) = read([self._rows[filename]])
            return decode(example["image"]["bytes"], filename) if found == crc32 else CHANGED
        except (SourceError, StepError, OSError) as error:
            return f"Cannot be read: {one_line(error)}"


class Pictures:
    """The images of the page, and how many real ones it shows."""

    def __init__(self, columns: Sequence[Column], **named: str | None) -> None:
        """Finds the sources.

        Args:
            columns: The results.
            named: By side (`real`, `train`, `synthetic`) a source of its images. Default: as each of the results names
                it.

        Raises:
            StepError: One source is named, and the results have several.
        """
        self._columns = columns
        self._named = named
        self._albums: dict[tuple[str, str], Album] = {}
        self.real_shown = 0
        sections = sections_shown(columns)
        self._share = MAX_PAIRS // (2 if FIDELITY in sections and any(map(self._lists, sections)) else 1)
        for side, source in named.items():
            sides = [found for column in columns for name in sections if (found := column.sides(name).get(side))]
            sources = {found.source for found in sides}
            if source and len(sources) > 1:
                raise StepError(
                    f"--{side} names one source, but the results have {len(sources)}: make a page for each of them"
                )

    def of_fidelity(self) -> list[str]:
        """Returns the images that decide fidelity, as HTML."""
        lists = [
            (column, encoder, name, found)
            for column in self._columns
            if column.results.fidelity
            for encoder, by_name in column.results.fidelity.images.items()
            for name in LISTS
            if (found := getattr(by_name, name))
        ]
        figures = []
        shown, lists, more = self._chosen(lists)
        for column, encoder, name, images in lists:
            title, value, about = LISTS[name]
            figures += [
                page.subheading(title, f"{_where(column, encoder)}; {min(shown, len(images))} of {len(images)}"),
                page.paragraph(about, muted=True),
                page.strip([self._near(column, image, value) for image in images[:shown]]),
            ]
        return [
            page.heading("Images", "synthetic beside the nearest real one"),
            page.paragraph("None are listed in the results.") if not lists else "",
            *self._problems(FIDELITY),
            *figures,
            *more,
        ]

    def of_section(self, section: str) -> list[str]:
        """Returns the closest pairs of a section, as HTML; nothing if there are none.

        Args:
            section: Its name.
        """
        figures = []
        shown, lists, more = self._chosen(self._lists(section))
        for column, method, name, pairs in lists:
            title, value = _list_title(name)
            note = f"{_where(column, method)}; {min(shown, len(pairs))} of {len(pairs)}"
            strip = page.strip([self._closest(column, section, pair, value) for pair in pairs[:shown]])
            figures += [page.subheading(title, note), strip]
        about = (
            "Judge for yourself: is one the copy of the other, or do they only look alike as radiographs of one view "
            "do? The distances tell how unusual a pair is, not what it shows."
        )
        head = [page.heading("Closest pairs", "synthetic beside the training image"), page.paragraph(about, muted=True)]
        return [*head, *self._problems(section), *figures, *more] if lists else []

    def _lists(self, section: str) -> list[tuple[Column, str, str, list[ImagePair]]]:
        return [
            (column, method, name, pairs)
            for column in self._columns
            if (found := column.section(section))
            for method, lists in found.pairs.items()
            for name, pairs in lists.items()
            if pairs
        ]

    def _chosen(self, lists: list[_List]) -> tuple[int, list[_List], list[str]]:
        """Returns how many pairs of each list are shown, the lists that are shown, and a note on the others."""
        left_out = len(lists) - self._share
        more = [page.paragraph(f"{left_out} more lists of images are not shown.", muted=True)] if left_out > 0 else []
        return max(1, self._share // max(1, len(lists))), lists[: self._share], more

    def _problems(self, section: str) -> list[str]:
        """Returns which sources of a section cannot be read."""
        sides = dict.fromkeys(
            (self._source(column, section, side), side)
            for column in self._columns
            for side in column.sides(section)
            if (self._source(column, section, side), side) in self._albums
        )
        problems = [self._albums[key].problem for key in sides]
        return [page.block([page.paragraph(problem)], "warning") for problem in problems if problem]

    def _near(self, column: Column, image: ImageResult, value: str) -> str:
        texts = {value: format_number(image.value)}
        synthetic = self._picture(column, FIDELITY, "synthetic", image, texts)
        nearest = image.nearest_real
        if nearest is None:
            return page.pair(synthetic, page.Picture("Nearest real", "None is recorded", "", {}), PIXELS)
        real = self._picture(column, FIDELITY, "real", nearest, {"Distance": format_number(nearest.distance)})
        return page.pair(synthetic, real, PIXELS)

    def _closest(self, column: Column, section: str, pair: ImagePair, value: str) -> str:
        texts = {value: pair.value, **pair.about}
        numbers = {name: format_number(number) for name, number in texts.items()}
        synthetic = self._picture(column, section, "synthetic", pair.synthetic, numbers)
        return page.pair(synthetic, self._picture(column, section, "train", pair.train, {}), PIXELS)

    def _picture(
        self, column: Column, section: str, side: str, image: _Image, texts: Mapping[str, str]
    ) -> page.Picture:
        source = self._source(column, section, side)
        if (source, side) not in self._albums:
            self._albums[source, side] = Album(source, side)
        shown = self._albums[source, side].image(image.filename, image.crc32)
        self.real_shown += side != "synthetic" and not isinstance(shown, str)
        prompt = image.prompt
        if len(prompt) > MAX_PROMPT:
            prompt = f"{prompt[:MAX_PROMPT]} … ({len(prompt):,} characters)"
        texts = {**texts, "Prompt": prompt, "File": image.filename}
        alt = f"{NAMES.get(side, side).capitalize()} image of the prompt: {prompt}"
        return page.Picture(HEADS[side], shown, alt, texts)

    def _source(self, column: Column, section: str, side: str) -> str:
        named = self._named.get(side)
        if named:
            return named
        found = column.sides(section).get(side)
        return found.source if found else ""


def _where(column: Column, method: str) -> str:
    return f"{column.head}, {method}" if column.letter else method


def _list_title(name: str) -> tuple[str, str]:
    """Returns the title of a list of pairs, and what its values are called."""
    metric = name.removeprefix(CLOSEST)
    if name.startswith(CLOSEST) and metric in GLOSSARY:
        return f"Closest by {GLOSSARY[metric].title[:1].lower()}{GLOSSARY[metric].title[1:]}", GLOSSARY[metric].title
    return PAIR_LISTS.get(name, (name.replace("_", " ").capitalize(), "Distance"))
