"""What the page shows, as HTML; without Gradio."""

import io
import zlib
from collections.abc import Callable
from pathlib import Path

import PIL.Image
import pytest

import browse_images
from browsing import DAMAGED, HOSTILE, MARKUP, PATIENT, Html, hostile_source, write_answers, write_lists
from conftest import FIXTURE, contents, convert, one_zip
from pipeline.browse.filters import Filter, to_query
from pipeline.browse.gallery import Gallery
from pipeline.browse.index import Index
from pipeline.columns import read_columns
from pipeline.evaluate.results.results import read_results
from pipeline.rows import plan_any
from servers.local_hub import Hub
from synthchex_75k import LABELS, Row

SAFE_TAGS = {
    "ol",
    "li",
    "button",
    "img",
    "span",
    "p",
    "strong",
    "a",
    "div",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
}
SAFE_TAGS |= {"h2", "h3", "dl", "dt", "dd", "section"}


@pytest.fixture
def hostile(tmp_path: Path, images: dict[str, bytes], table: list[dict[str, str]]) -> Gallery:
    """The gallery of a source whose every text holds markup."""
    folder = tmp_path / "hostile"
    names = hostile_source(folder, images, table)
    answers = browse_images.read_answers(write_answers(tmp_path / "labels.csv", names))
    lists = [*browse_images.image_lists(read_results(write_lists(tmp_path / "results.json", folder)))]
    rows = plan_any(str(folder))
    patients = read_columns(str(folder), rows, ["patientID"])["patientID"]
    return Gallery(Index(rows, answers, patients, lists), {row.filename: row for row in rows})


def gallery_of(source: Path | str) -> Gallery:
    return Gallery(Index(plan_any(str(source))))


@pytest.mark.parametrize("form", ["source", "parquet"])
def test_the_first_page(form: str, tmp_path: Path, table: list[dict[str, str]]) -> None:
    source = FIXTURE
    if form == "parquet":
        source = tmp_path / "parquet"
        assert convert(FIXTURE, source) == 0
    view = gallery_of(source).view("")
    tiles, counts = Html(view.tiles), Html(view.counts)
    assert (view.query, view.pages, view.detail) == ("", 1, "")
    assert tiles.opens() == [*range(12)]
    pictures = [attributes["src"] or "" for tag, attributes in tiles.tags if tag == "img"]
    assert len({*pictures}) == 12
    assert all(picture.startswith("data:image/jpeg;base64,") for picture in pictures)
    for row in table:
        assert row["prompt"].replace("\r\n", "\n") in tiles.text.replace("\r\n", "\n")
    assert "12 images" in Html(view.status).text
    positive = sum(row["Edema"] in ("1", "1.0") for row in table)
    assert f"Edema{positive}" in counts.text


def test_a_filter_and_its_counts() -> None:
    view = gallery_of(FIXTURE).view("?label=Edema:positive&label=Pneumonia:positive&match=any")
    assert "2 of 12 images" in Html(view.status).text
    assert len(Html(view.tiles).opens()) == 2
    assert view.filter.labels == (("Edema", "positive"), ("Pneumonia", "positive"))
    nothing = gallery_of(FIXTURE).view("words=giraffe")
    assert Html(nothing.tiles).opens() == []
    assert "files.csv" not in nothing.status


def test_the_csv_has_the_names_of_all_pages(table: list[dict[str, str]]) -> None:
    names = [row["filename"] for row in table if "edema" in row["prompt"].lower()]
    assert gallery_of(FIXTURE).file_names("words=Edema&page=7&image=x") == "\n".join(["filename", *names, ""]).encode()


def test_pages(tmp_path: Path, source: Callable[..., Path], images: dict[str, bytes]) -> None:
    png = next(iter(images.values()))
    many = {f"{number:03}.png": png for number in range(100)}
    labels = dict.fromkeys(LABELS, "0")
    table = [{"filename": name, "prompt": f"Number {name}", **labels} for name in many]
    gallery = gallery_of(source(many, table, one_zip))
    last = gallery.view("page=3")
    assert (last.pages, Html(last.tiles).opens()) == (3, [96, 97, 98, 99])
    assert gallery.view("page=77").filter.page == 3
    opened = gallery.opened(Filter(), 60)
    assert opened == Filter(page=2, image="060.png")
    detail = Html(gallery.view(to_query(opened)).detail)
    assert detail.opens() == [59, 61]
    assert "61 of 100" in detail.text
    assert gallery.opened(Filter(), 100) == gallery.opened(Filter(), -1) == Filter()


def test_one_image_large(images: dict[str, bytes], table: list[dict[str, str]]) -> None:
    row = table[3]
    detail = gallery_of(FIXTURE).view(f"image={row['filename']}").detail
    seen = Html(detail)
    (picture,) = (attributes["src"] or "" for tag, attributes in seen.tags if tag == "img")
    assert picture.startswith("data:image/png;base64,")
    for text in (row["filename"], row["prompt"], "Support Devices", "512 x 512 pixels", "4 of 12"):
        assert text in seen.text


def test_an_image_that_does_not_match_is_shown_without_neighbours(table: list[dict[str, str]]) -> None:
    view = gallery_of(FIXTURE).view(f"words=giraffe&image={table[0]['filename']}")
    assert "not among those shown" in view.detail
    assert Html(view.detail).opens() == []


@pytest.mark.parametrize(
    ("query", "notice"),
    [
        ("image=a.png", "There is no image 'a.png'."),
        ("sort=size", "There is no order 'size': these images come in the order of the source."),
        ("quality=High+Quality", "There are no answers of a judge, so all qualities are shown."),
        ("patient=p1", "The patients are unknown here, so all are shown."),
        ("label=Oedema:positive", "The address has an unknown label: 'Oedema:positive'."),
    ],
)
def test_what_an_address_asks_in_vain_is_said(query: str, notice: str) -> None:
    view = gallery_of(FIXTURE).view(query)
    assert notice in Html(view.status).text
    assert (view.query, len(Html(view.tiles).opens())) == ("", 12)


def test_markup_is_shown_and_never_run(hostile: Gallery) -> None:
    sort = next(title for title in hostile.index.lists if "training" in title)
    first = hostile.index.rows[0].filename
    view = hostile.view(to_query(Filter(sort=sort, image=first, words="<img")))
    unknown = hostile.view(f"sort={MARKUP}&image={MARKUP}&colour{MARKUP}=1&label={MARKUP}")
    for part in (view.status, view.tiles, view.counts, view.detail, unknown.status):
        for tag, attributes in Html(part).tags:
            assert tag in SAFE_TAGS, part[:500]
            assert not [name for name in attributes if name.startswith("on")]
            assert tag != "img" or (attributes["src"] or "").startswith("data:image/")
    assert HOSTILE in Html(view.tiles).text
    seen = Html(view.detail).text
    for text in (f"High Quality. {HOSTILE}", f"judge {MARKUP}", first, PATIENT, f"nearest {MARKUP}"):
        assert text in seen
    assert Html(unknown.status).text.count("<img src=x onerror=") == 3


def test_a_damaged_image_shows_as_damaged(hostile: Gallery) -> None:
    view = hostile.view("")
    tiles = Html(view.tiles)
    assert len(tiles.opens()) == 12
    assert sum(tag == "img" for tag, _ in tiles.tags) == 11
    assert tiles.text.count("Damaged image") == 1
    detail = hostile.view(to_query(Filter(image=hostile.index.rows[DAMAGED].filename))).detail
    assert "Damaged image" in Html(detail).text
    assert "Pillow cannot decode the image" in Html(detail).text


def test_a_file_that_is_gone_shows_as_damaged(tmp_path: Path, source: Callable[..., Path]) -> None:
    folder = source()
    gallery = gallery_of(folder)
    (folder / "data" / "s1.zip").unlink()
    tiles = Html(gallery.view("").tiles)
    assert (tiles.text.count("Damaged image"), sum(tag == "img" for tag, _ in tiles.tags)) == (4, 8)


def test_what_an_evaluation_says_of_an_image(hostile: Gallery) -> None:
    titles = [*hostile.index.lists]
    assert [title.partition(" (")[0] for title in titles] == [
        "adds most to FD",
        "least like any real image",
        "least like its prompt",
        "nearest to a training image: closest",
    ]
    detail = Html(hostile.view(to_query(Filter(image=hostile.index.rows[0].filename))).detail)
    for text in ("1.5, number 1 of 12 listed", "0.125, number 1 of 2 listed", "Closest training image"):
        assert text in detail.text
    # The image itself, and the closest one, which is both a real and a training image here.
    assert sum(tag == "img" for tag, _ in detail.tags) == 3


def test_images_least_like_their_prompts_come_first(hostile: Gallery) -> None:
    titles = [title for title in hostile.index.lists if title.startswith("least like its prompt")]
    assert titles == ["least like its prompt (biovil-t)"], "a list without images is no order"
    tiles = Html(hostile.view(to_query(Filter(sort=titles[0]))).tiles)
    assert tiles.opens() == [*range(12)]
    assert tiles.text.startswith("-0.035"), "the cosine"


def test_the_closest_image_is_shown_only_with_its_source(hostile: Gallery) -> None:
    query = to_query(Filter(image=hostile.index.rows[0].filename))
    without = Html(Gallery(hostile.index).view(query).detail)
    assert sum(tag == "img" for tag, _ in without.tags) == 1
    assert hostile.index.rows[1].filename in without.text
    assert f"Training {MARKUP}" not in without.text, "a prompt of real images may be under a data use agreement"


def test_an_image_that_has_changed_is_not_taken_for_the_one_evaluated(tmp_path: Path) -> None:
    results = write_lists(tmp_path / "results.json", FIXTURE)
    text = results.read_text(encoding="utf-8")
    row = plan_any(str(FIXTURE))[0]
    assert isinstance(row, Row) and row.zipped
    results.write_text(text.replace(str(row.zipped[2]), "1"), encoding="utf-8")
    index = Index(plan_any(str(FIXTURE)), lists=[*browse_images.image_lists(read_results(results))])
    seen = Html(Gallery(index).view(f"image={row.filename}").detail).text
    assert "The image has changed since it was evaluated" in seen
    assert "Closest" not in seen


def test_a_large_file_is_sent_as_a_small_one(source: Callable[..., Path], images: dict[str, bytes]) -> None:
    noise = PIL.Image.effect_noise((2400, 2000), 90).convert("L")
    png = io.BytesIO()
    noise.save(png, "PNG", compress_level=0)
    assert zlib.crc32(png.getvalue()) and len(png.getvalue()) > 4 << 20
    row = {"filename": "big.png", "prompt": "Big", **dict.fromkeys(LABELS, "")}
    detail = Html(gallery_of(source({"big.png": png.getvalue()}, [row])).view("image=big.png").detail)
    (picture,) = (attributes["src"] or "" for tag, attributes in detail.tags if tag == "img")
    assert picture.startswith("data:image/jpeg;base64,")
    assert "2400 x 2000 pixels" in detail.text


@pytest.mark.parametrize("form", ["source", "parquet"])
def test_a_dataset_on_the_hub(form: str, tmp_path: Path, hub: Hub) -> None:
    folder = FIXTURE
    if form == "parquet":
        folder = tmp_path / "parquet"
        assert convert(FIXTURE, folder) == 0
    files = {name: data for name, data in contents(folder).items() if not name.startswith(".")}
    hub.create("alice/chex", files=files)
    view = gallery_of(browse_images.address_of("alice/chex")).view("label=Edema:positive")
    here = gallery_of(FIXTURE).view("label=Edema:positive")
    assert (view.tiles, view.counts) == (here.tiles, here.counts)
