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

import PIL.Image

from pipeline.rows import to_rgb

TEMPLATE, STYLE = (Path(__file__).with_name(f"page.{suffix}") for suffix in ("html", "css"))
PIXELS = 320  # of an image on the page


def render_page(title: str, parts: Iterable[str]) -> str:
    """Returns a page.

    Args:
        title: Plain text.
        parts: HTML, from the other functions.

    Example:
        >>> "<p>A &amp; B</p>" in render_page("Title", [paragraph("A & B")])
        True
    """
    template = string.Template(TEMPLATE.read_text(encoding="utf-8"))
    style = STYLE.read_text(encoding="utf-8")
    return template.substitute(title=html.escape(title), style=style, body="\n".join(parts))


def paragraph(text: str, muted: bool = False) -> str:
    """Returns a paragraph of plain text."""
    return f'<p class="muted">{html.escape(text)}</p>' if muted else f"<p>{html.escape(text)}</p>"


def heading(text: str, note: str = "") -> str:
    """Returns a heading of plain text, with a muted note beside it."""
    return f'<h2>{html.escape(text)} <span class="muted">{html.escape(note)}</span></h2>'


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
        filled = "".join(f'<td style="--share:{share:.0%}">{html.escape(text)}</td>' for text, share in cells)
        rows.append(f'<tr><th scope="row">{html.escape(first)}</th>{filled}</tr>')
    return (
        f'<div class="scroll" tabindex="0"><table aria-label="{html.escape(name, quote=True)}">'
        f"<thead><tr>{columns}</tr></thead>\n<tbody>{''.join(rows)}</tbody></table></div>"
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
    source = f"data:image/jpeg;base64,{base64.b64encode(_thumbnail(image)).decode()}"
    terms = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>" for name, text in texts.items())
    picture = f'<img src="{source}" alt="{html.escape(alt, quote=True)}">'
    return f"<figure>{picture}<figcaption><dl>{terms}</dl></figcaption></figure>"


def _thumbnail(image: PIL.Image.Image) -> bytes:
    saved = io.BytesIO()
    image = to_rgb(image)
    image.thumbnail((PIXELS, PIXELS), PIL.Image.Resampling.LANCZOS)
    image.save(saved, "JPEG", quality=80, optimize=True)
    return saved.getvalue()
