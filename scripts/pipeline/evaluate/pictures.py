"""The images that decide metrics, synthetic beside nearest real one: read from their sources, checked by CRC-32."""

from __future__ import annotations

from collections.abc import Sequence

import PIL.Image

from pipeline import page
from pipeline.errors import StepError, counted, one_line
from pipeline.evaluate.charts import format_number
from pipeline.evaluate.results_fidelity import ImageResult, NearestImage
from pipeline.evaluate.side_by_side import Column
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
}
MAX_PAIRS = 48  # on a page, so that it stays below 5 MB
PIXELS = 224  # of an image
MAX_PROMPT = 600  # characters
CHANGED, NOT_FOUND = "Image changed since it was embedded", "Not found in the source"


class Album:
    """Images of one SOURCE by file name."""

    def __init__(self, source: str, side: str) -> None:
        """Plans the source; where that fails, `problem` says so and no image is found.

        Args:
            source: The SOURCE.
            side: `"real"` or `"synthetic"`.
        """
        self.problem = ""
        self._rows: dict[str, AnyRow] = {}
        try:
            # Images were found by name when they were embedded; those without a row are of no concern here.
            self._rows = {row.filename: row for row in plan_any(source, "skip")}
        except (SourceError, StepError, OSError, ValueError) as error:  # ValueError: an address with NUL is no path
            reason = one_line(error).rstrip(".")
            self.problem = (
                f"The {side} images cannot be shown: {reason}. If the source has moved, name it with --{side}."
            )

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
    """The section of the page, and how many real images it shows."""

    def __init__(self, columns: Sequence[Column], real: str | None = None, synthetic: str | None = None) -> None:
        """Finds the sources.

        Args:
            columns: The results.
            real: Source of the real images. Default: as each of the results names it.
            synthetic: The same of the synthetic images.

        Raises:
            StepError: One source is named, and the results have several.
        """
        self._columns = columns
        self._named = {"real": real, "synthetic": synthetic}
        self._albums: dict[tuple[str, str], Album] = {}
        self.real_shown = 0
        for side, named in self._named.items():
            sources = {column.sides[side].source for column in columns}
            if named and len(sources) > 1:
                raise StepError(
                    f"--{side} names one source, but the results have {len(sources)}: make a page for each of them"
                )

    def parts(self) -> list[str]:
        """Returns the section, as HTML."""
        lists = [
            (column, encoder, name, found)
            for column in self._columns
            for encoder, by_name in column.fidelity.images.items()
            for name in LISTS
            if (found := getattr(by_name, name))
        ]
        shown, figures = max(1, MAX_PAIRS // max(1, len(lists))), []
        for column, encoder, name, images in lists[:MAX_PAIRS]:
            title, value, about = LISTS[name]
            where = f"{column.head}, {encoder}" if column.letter else encoder
            figures += [
                page.subheading(title, f"{where}; {min(shown, len(images))} of {len(images)}"),
                page.paragraph(about, muted=True),
                page.strip([self._pair(column, image, value) for image in images[:shown]]),
            ]
        if len(lists) > MAX_PAIRS:
            figures.append(page.paragraph(f"{len(lists) - MAX_PAIRS} more lists of images are not shown.", muted=True))
        about_real = (
            f"This page contains {counted(self.real_shown, 'real image')} and their prompts: share it only as their "
            "license allows."
        )
        return [
            page.heading("Images", "synthetic beside the nearest real one"),
            page.paragraph("None are listed in the results.") if not lists else "",
            page.block([page.paragraph(about_real)], "warning") if self.real_shown else "",
            *(
                page.block([page.paragraph(album.problem)], "warning")
                for album in self._albums.values()
                if album.problem
            ),
            *figures,
        ]

    def _pair(self, column: Column, image: ImageResult, value: str) -> str:
        synthetic = self._picture(column, "synthetic", image, {value: format_number(image.value)})
        nearest = image.nearest_real
        if nearest is None:
            return page.pair(synthetic, page.Picture("Nearest real", "None is recorded", "", {}), PIXELS)
        real = self._picture(column, "real", nearest, {"Distance": format_number(nearest.distance)})
        self.real_shown += not isinstance(real.image, str)
        return page.pair(synthetic, real, PIXELS)

    def _picture(
        self, column: Column, side: str, image: ImageResult | NearestImage, texts: dict[str, str]
    ) -> page.Picture:
        source = self._named[side] or column.sides[side].source
        if (source, side) not in self._albums:
            self._albums[source, side] = Album(source, side)
        shown = self._albums[source, side].image(image.filename, image.crc32)
        prompt = image.prompt
        if len(prompt) > MAX_PROMPT:
            prompt = f"{prompt[:MAX_PROMPT]} … ({len(prompt):,} characters)"
        head = "Nearest real" if side == "real" else "Synthetic"
        texts = {**texts, "Prompt": prompt, "File": image.filename}
        return page.Picture(head, shown, f"{side.capitalize()} image of the prompt: {prompt}", texts)
