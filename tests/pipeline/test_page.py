"""Self-contained HTML pages."""

import base64
import io
import re

import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from images import gray_16
from outline import Outline
from pipeline import page
from pipeline.rows import decode


def noise(pixels: int) -> PIL.Image.Image:
    return PIL.Image.effect_noise((pixels, pixels), 100).convert("RGB")


def page_with(text: str) -> str:
    """Returns a page with a text in every place that takes one."""
    image = PIL.Image.new("L", (8, 8))
    parts = [
        page.paragraph(text),
        page.paragraph(text, muted=True),
        page.heading(text, text),
        page.table(text, [text, text], {text: [(text, 0.5)]}),
        page.strip([page.figure(image, text, {text: text})]),
        page.strip([]),
        page.subheading(text, text),
        page.bullets([text]),
        page.preformatted(text),
        page.terms({text: text}),
        page.details(text, [page.block([page.paragraph(text)], text)]),
        page.pair(page.Picture(text, image, text, {text: text}), page.Picture(text, text, text, {}), 8),
    ]
    return page.render_page(text, parts)


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", '" onerror="x', "a & b", "</title>", "$style", "'"])
def test_texts_are_escaped(text: str) -> None:
    rendered = page_with(text)
    outline = Outline(rendered)
    assert outline.tags == Outline(page_with("x")).tags
    assert outline.text.count(text) == 25
    assert not re.search(r"<script|onerror=\"", rendered)


@given(st.text(max_size=50))
def test_any_text_gives_a_page(text: str) -> None:
    assert Outline(page_with(text)).tags == Outline(page_with("x")).tags


def test_page_needs_no_other_file() -> None:
    rendered = page_with("x")
    assert not re.search(r"(src|href)=\"(?!data:)|url\(|@import|<script|<link|https?://", rendered)
    assert rendered.startswith('<!doctype html>\n<html lang="en">')
    assert page.STYLE.read_text(encoding="utf-8") in rendered


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_figure_holds_a_small_thumbnail(mode: str) -> None:
    figure = page.figure(noise(1024).convert(mode), "alt", {"Prompt": "text"})
    (encoded,) = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', figure)
    with PIL.Image.open(io.BytesIO(base64.b64decode(encoded))) as thumbnail:
        assert (thumbnail.format, thumbnail.size) == ("JPEG", (page.PIXELS, page.PIXELS))
    assert len(figure) < 80_000, "so that 60 of them, of noise, stay below 5 MB"


def test_16_bits_are_not_clipped() -> None:
    figure = page.figure(decode(gray_16(256), "a.png"), "alt", {})
    (encoded,) = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', figure)
    with PIL.Image.open(io.BytesIO(base64.b64decode(encoded))) as thumbnail:
        for x in range(0, 256, 17):
            assert thumbnail.convert("L").getpixel((x, 128)) == pytest.approx(x, abs=8)


@pytest.mark.parametrize(("mode", "lost"), [("RGBA", "transparency"), ("CMYK", "a colour space other than sRGB")])
def test_what_a_thumbnail_lacks_is_said(mode: str, lost: str) -> None:
    image, other = PIL.Image.new(mode, (8, 8)), PIL.Image.new("RGB", (8, 8))
    shown = page.pair(page.Picture("Left", image, "", {}), page.Picture("Right", other, "", {}), 8)
    for figure in (page.figure(image, "", {}), shown):
        assert figure.count(f"Not in this picture: {lost}") == 1
    assert "Not in this picture" not in page.figure(other, "", {})


def test_page_without_figures_is_small() -> None:
    assert len(page_with("x")) < 6_000


def test_bars_of_a_table() -> None:
    table = page.table("name", ["", "A", "B"], {"row": [("1", 1 / 3), ("2", 0.0)]})
    assert '<td style="--share:33%">1</td><td>2</td>' in table
