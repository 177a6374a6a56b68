"""The HTML of the page's parts. All take plain texts, such as prompts and answers of models, and escape them."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from pipeline.browse.filters import STATES
from pipeline.browse.images import Damage, ShownImage
from pipeline.page import table, terms

MAX_ALT = 200  # characters of a prompt that a screen reader reads out of a tile


class GalleryTile(NamedTuple):
    """One image of the gallery.

    Attributes:
        number: Number of its row.
        picture: Its thumbnail.
        filename: Its file name.
        prompt: Its prompt.
        marks: Short plain texts above the prompt, such as its positive labels.
    """

    number: int
    picture: ShownImage | Damage
    filename: str
    prompt: str
    marks: Sequence[str]


class Detail(NamedTuple):
    """One image, large.

    Attributes:
        picture: The image.
        filename: Its file name.
        texts: Plain texts beside it, by name; a list is shown as such.
        nearest: Pairs of a heading and a picture, or a text that says why there is none, each with texts below.
        place: Where it is among those that are shown, such as "3 of 120".
        before: Number of the row before it; None: it is the first.
        after: Number of the row after it; None: it is the last.
    """

    picture: ShownImage | Damage
    filename: str
    texts: Mapping[str, str]
    nearest: Sequence[tuple[str, ShownImage | Damage | None, Mapping[str, str]]]
    place: str
    before: int | None
    after: int | None


def tile_list(tiles: Iterable[GalleryTile]) -> str:
    """Returns the gallery: a list of buttons that open an image."""
    return f'<ol class="tiles">{"".join(f"<li>{_tile(tile)}</li>" for tile in tiles)}</ol>'


def status_line(shown: int, total: int, query: str, notices: Sequence[str]) -> str:
    """Returns how many images are shown, the address of their CSV, and notices.

    Args:
        shown: Number of images that match the filter.
        total: Number of all images.
        query: The filter, for the address of the CSV.
        notices: Sentences.
    """
    count = f"{shown:,} of {total:,} images" if shown != total else f"{total:,} images"
    warning = "".join(f'<p role="alert">{html.escape(notice)}</p>' for notice in notices)
    address = html.escape(f"files.csv?{query}", quote=True)
    link = f'<a href="{address}" download="files.csv">Download their file names (CSV)</a>' if shown else ""
    return f'<p class="status" role="status"><strong>{count}</strong> {link}</p>{warning}'


def label_counts(counts: Mapping[str, Sequence[int]], shown: int) -> str:
    """Returns how many of the images have each label in each state.

    Args:
        counts: For each label one number for each of `STATES`.
        shown: Number of images.
    """
    lines = {
        label: [(f"{number:,}", number / max(1, shown)) for number in numbers] for label, numbers in counts.items()
    }
    return table("Labels of the images shown", ["Label", *(state.capitalize() for state in STATES)], lines)


def detail_view(detail: Detail) -> str:
    """Returns one image, large, as a dialog."""
    name = html.escape(detail.filename, quote=True)
    sides = []
    for head, picture, texts in detail.nearest:
        shown = _picture(picture, head) if picture else ""
        sides.append(f"<section><h3>{html.escape(head)}</h3>{shown}{terms(texts)}</section>")
    return (
        f'<div class="dialog" role="dialog" aria-modal="true" aria-label="{name}" tabindex="-1">'
        f'<div class="bar">{_step("previous", "← Previous", detail.before)}<span>{html.escape(detail.place)}</span>'
        f'{_step("next", "Next →", detail.after)}<button type="button" class="close" data-close>✕ Close</button></div>'
        f'<div class="sheet"><div class="large">{_picture(detail.picture, detail.filename)}</div>'
        f'<div class="texts"><h2>{html.escape(detail.filename)}</h2>{terms(detail.texts)}{"".join(sides)}</div>'
        "</div></div>"
    )


def _step(name: str, text: str, number: int | None) -> str:
    state = f'data-open="{number}"' if number is not None else "disabled"
    return f'<button type="button" class="{name}" {state}>{text}</button>'


def _tile(tile: GalleryTile) -> str:
    label = html.escape(f"Open {tile.filename}: {tile.prompt[:MAX_ALT]}", quote=True)
    name = html.escape(tile.filename, quote=True)
    marks = "".join(f"<span>{html.escape(mark)}</span>" for mark in tile.marks)
    return (
        f'<button type="button" data-open="{tile.number}" aria-label="{label}" title="{name}">'
        f'{_picture(tile.picture, "")}<span class="marks">{marks}</span>'
        f'<span class="prompt">{html.escape(tile.prompt)}</span></button>'
    )


def _picture(picture: ShownImage | Damage, alt: str) -> str:
    if isinstance(picture, Damage):
        return f'<span class="damaged"><strong>Damaged image</strong> {html.escape(picture.reason)}</span>'
    return f'<img src="{html.escape(picture.address, quote=True)}" alt="{html.escape(alt, quote=True)}">'
