"""Self-contained HTML pages: no network, no scripts.

A page is `render_page` of parts, and each other function returns a part. They take plain texts, such as prompts and
answers of models, and escape them. Markup and style are in `page.html` and `page.css`.
"""

from __future__ import annotations

import base64
import html
import io
import string
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import PIL.Image

from pipeline.rows import not_in_rgb, to_rgb

TEMPLATE, STYLE = (Path(__file__).with_name(f"page.{suffix}") for suffix in ("html", "css"))
PIXELS = 320  # of an image on the page
MAX_SORTABLE = 12  # columns of a `board`: each has a line in `page.css`


class Picture(NamedTuple):
    """One side of a `pair`.

    Attributes:
        head: Plain text above it.
        image: The image; or plain text that says why there is none.
        alt: Plain text for those who cannot see the image.
        texts: Plain texts under it, by name.
    """

    head: str
    image: PIL.Image.Image | str
    alt: str
    texts: Mapping[str, str]


class BoardRow(NamedTuple):
    """A row of a `board`.

    Attributes:
        head: Plain text.
        cells: Plain texts.
        is_muted: Whether it stands behind the others.
    """

    head: str
    cells: Sequence[str]
    is_muted: bool = False


def render_page(title: str, parts: Iterable[str], style: str = "") -> str:
    """Returns a page.

    Args:
        title: Plain text.
        parts: HTML, from the other functions.
        style: CSS beside that of `page.css`.

    Example:
        >>> "<p>A &amp; B</p>" in render_page("Title", [paragraph("A & B")])
        True
    """
    template = string.Template(TEMPLATE.read_text(encoding="utf-8"))
    style = STYLE.read_text(encoding="utf-8") + style
    return template.substitute(title=html.escape(title), style=style, body="\n".join(parts))


def paragraph(text: str, muted: bool = False) -> str:
    """Returns a paragraph of plain text."""
    return f'<p class="muted">{html.escape(text)}</p>' if muted else f"<p>{html.escape(text)}</p>"


def heading(text: str, note: str = "") -> str:
    """Returns a heading of plain text, with a muted note beside it."""
    return f'<h2>{html.escape(text)} <span class="muted">{html.escape(note)}</span></h2>'


def subheading(text: str, note: str = "") -> str:
    """Returns a heading below `heading`, of plain text, with a muted note beside it."""
    return f'<h3>{html.escape(text)} <span class="muted">{html.escape(note)}</span></h3>'


def small_heading(text: str, note: str = "") -> str:
    """Returns a heading below `subheading`, of plain text, with a muted note beside it."""
    return f'<h4>{html.escape(text)} <span class="muted">{html.escape(note)}</span></h4>'


def bullets(texts: Sequence[str]) -> str:
    """Returns a list of plain texts; nothing for none."""
    return f"<ul>{''.join(f'<li>{html.escape(text)}</li>' for text in texts)}</ul>" if texts else ""


def preformatted(text: str) -> str:
    """Returns plain text with its line breaks and indents."""
    return f"<pre>{html.escape(text)}</pre>"


def terms(texts: Mapping[str, str]) -> str:
    """Returns plain texts, each below its name."""
    found = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>" for name, text in texts.items())
    return f"<dl>{found}</dl>"


def details(summary: str, parts: Iterable[str], is_open: bool = False) -> str:
    """Returns parts that a click on a plain text shows and hides."""
    state = " open" if is_open else ""
    return f"<details{state}><summary>{html.escape(summary)}</summary>\n{''.join(parts)}</details>"


def block(parts: Iterable[str], name: str = "block") -> str:
    """Returns parts as one block, with a class for the style."""
    return f'<div class="{html.escape(name, quote=True)}">{"".join(parts)}</div>'


def table(name: str, head: Sequence[str], lines: Mapping[str, Sequence[tuple[str, float]]]) -> str:
    """Returns a table.

    Args:
        name: For screen readers.
        head: Heads of the columns, the first one included.
        lines: For the head of each line its cells: plain text, and the share of the cell that a bar fills, 0 to 1.
    """
    columns = "".join(f'<th scope="col">{html.escape(column)}</th>' for column in head)
    rows = []
    for first, cells in lines.items():
        filled = "".join(
            f'<td style="--share:{share:.0%}">{html.escape(text)}</td>' if share else f"<td>{html.escape(text)}</td>"
            for text, share in cells
        )
        rows.append(f'<tr><th scope="row">{html.escape(first)}</th>{filled}</tr>')
    return (
        f'<div class="scroll" tabindex="0"><table aria-label="{html.escape(name, quote=True)}">'
        f"<thead><tr>{columns}</tr></thead>\n<tbody>{''.join(rows)}</tbody></table></div>"
    )


def board(
    name: str, legend: str, heads: Sequence[tuple[str, str]], rows: Sequence[BoardRow], orders: Sequence[Sequence[int]]
) -> str:
    """Returns a table that sorts its rows without a script; a browser that cannot do it shows the first order.

    Args:
        name: For screen readers.
        legend: Plain text before the choice of a column.
        heads: Plain texts of each column but the first: its head, and a note below.
        rows: The rows.
        orders: For each column the place of each row where the table is sorted by it. At most 12 columns sort.
    """
    title = html.escape(name, quote=True)
    sortable = range(min(len(heads), MAX_SORTABLE))
    choices = "".join(
        f'<input type="radio" name="order" id="order{at}"{" checked" * (at == 0)}>'
        f'<label for="order{at}">{html.escape(heads[at][0])}</label>'
        for at in sortable
    )
    columns = "".join(
        f'<th scope="col" role="columnheader">{html.escape(head)} <small>{html.escape(note)}</small></th>'
        for head, note in heads
    )
    lines = {}
    for number, (head, cells, is_muted) in enumerate(rows):
        filled = "".join(f'<td role="cell">{html.escape(cell)}</td>' for cell in cells)
        places = ";".join(f"--o{at}:{orders[at][number]}" for at in sortable)
        kind = ' class="muted"' if is_muted else ""
        first = f'<th scope="row" role="rowheader">{html.escape(head)}</th>'
        lines[orders[0][number]] = f'<tr role="row"{kind} style="{places}">{first}{filled}</tr>'
    return (
        f'<div class="board" role="group" aria-label="{title}"><span>{html.escape(legend)}</span>{choices}'
        f'<div class="scroll" tabindex="0"><table role="table" aria-label="{title}" style="--columns:{len(heads)}">'
        f'<thead role="rowgroup"><tr role="row"><th role="columnheader"></th>{columns}</tr></thead>'
        f'<tbody role="rowgroup">{"".join(lines[place] for place in sorted(lines))}</tbody></table></div></div>'
    )


def strip(figures: Sequence[str]) -> str:
    """Returns a row of figures that scrolls sideways, or a note that there is none."""
    return f'<div class="strip" tabindex="0">{"".join(figures)}</div>' if figures else paragraph("None.", muted=True)


def figure(image: PIL.Image.Image, alt: str, texts: Mapping[str, str]) -> str:
    """Returns a figure.

    Args:
        image: The image; the page holds a JPEG thumbnail of at most `PIXELS` pixels.
        alt: Plain text for those who cannot see it.
        texts: Plain texts under the image, by name.
    """
    return f"<figure>{_picture(image, alt, PIXELS)}<figcaption>{terms(texts)}</figcaption></figure>"


def pair(left: Picture, right: Picture, pixels: int) -> str:
    """Returns a figure of two images side by side.

    Args:
        left: One side.
        right: The other side.
        pixels: Size of the thumbnails.
    """
    sides = []
    for head, image, alt, texts in (left, right):
        if isinstance(image, str):
            shown = f'<p class="absent">{html.escape(image)}</p>'
        else:
            shown = _picture(image, alt, pixels)
        sides.append(f"<div><h4>{html.escape(head)}</h4>{shown}{terms(texts)}</div>")
    return f'<figure class="pair"><figcaption>{"".join(sides)}</figcaption></figure>'


def _picture(image: PIL.Image.Image, alt: str, pixels: int) -> str:
    """Returns a thumbnail, and what of the image is not in it, if anything."""
    source = f"data:image/jpeg;base64,{base64.b64encode(_thumbnail(image, pixels)).decode()}"
    lost = not_in_rgb(image)
    note = paragraph(f"Not in this picture: {lost}", muted=True) if lost else ""
    return f'<img src="{source}" alt="{html.escape(alt, quote=True)}">{note}'


def _thumbnail(image: PIL.Image.Image, pixels: int) -> bytes:
    saved = io.BytesIO()
    image = to_rgb(image)
    image.thumbnail((pixels, pixels), PIL.Image.Resampling.LANCZOS)
    image.save(saved, "JPEG", quality=80, optimize=True)
    return saved.getvalue()
