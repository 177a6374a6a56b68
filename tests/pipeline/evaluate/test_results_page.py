"""The page of an evaluation: everything that is in the results, and the images that they name."""

import base64
import io
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comparing import features_of, normal, write_store
from conftest import FIXTURE, Source, loose, to_csv
from invented_results import MEASURED, lists_of, metric, results, write_results
from outline import Outline
from pipeline.errors import StepError
from pipeline.evaluate.fidelity.fidelity import fidelity
from pipeline.evaluate.meanings import MEANINGS
from pipeline.evaluate.page.glossary import split_baseline
from pipeline.evaluate.page.published import read_published
from pipeline.evaluate.page.report import report
from pipeline.evaluate.results import results_fidelity as schema
from pipeline.rows import decode, to_rgb
from synthchex_75k import LABELS

MARKUP = "<script>alert(1)</script> & \"x\" onerror='y'"

Show = Callable[..., str]


@pytest.fixture
def show(tmp_path: Path) -> Show:
    """Returns a function that writes results and returns their page."""

    def run(*found: dict[str, Any], **options: Any) -> str:
        paths = [write_results(tmp_path / f"r{number}.json", one) for number, one in enumerate(found)]
        report(paths, html=tmp_path / "r.html", **options)
        assert not [*tmp_path.glob(".r.html*")], "the file is replaced at once"
        return (tmp_path / "r.html").read_text(encoding="utf-8")

    return run


def text_of(page: str) -> str:
    """Returns the text of a page, with single spaces."""
    return " ".join(Outline(page.replace("</", " </")).text.split())


def pairs(page: str) -> list[tuple[list[bytes], str]]:
    """Returns the thumbnails and the text of each pair."""
    found = []
    for figure in re.findall(r'<figure class="pair">.*?</figure>', page, re.DOTALL):
        shown = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', figure)
        found.append(([base64.b64decode(one) for one in shown], text_of(figure)))
    return found


def shows(thumbnail: bytes, image: bytes) -> bool:
    """True if a thumbnail is that of an image."""
    with PIL.Image.open(io.BytesIO(thumbnail)) as small:
        expected = to_rgb(decode(image, "image")).resize(small.size, PIL.Image.Resampling.LANCZOS)
        differences = zip(small.convert("L").tobytes(), expected.convert("L").tobytes())
        return sum(abs(a - b) for a, b in differences) / small.width / small.height < 2


def chexgenbench(**changes: Any) -> dict[str, Any]:
    """Returns results of the other protocol, which have no intervals."""
    found = results(protocol="chexgenbench", **changes)
    for one in found["metrics"]:
        one.update(protocol="chexgenbench", se=None, ci_low=None, ci_high=None, floor=None, notes=["as the authors do"])
    return found


# What is on the page


@pytest.mark.parametrize(("rows", "note"), [(30, "needs at least 50 rows: a split"), (60, "splits of 6 rows for 8")])
def test_metrics_of_few_rows_are_marked_on_the_page(rows: int, note: str, tmp_path: Path) -> None:
    sides = []
    for seed, name in enumerate(("real", "made")):
        outputs = {output: normal(rows, 8, seed + place) for place, output in enumerate(("feature", "text", "logits"))}
        sides.append(write_store(tmp_path / name, features_of(outputs, name=name)))
    fidelity(sides[0], sides[1], tmp_path / "r.json", labels=())
    report([tmp_path / "r.json"], html=tmp_path / "r.html")
    text = text_of((tmp_path / "r.html").read_text(encoding="utf-8")).partition("metrics of all images")[2]
    cards = re.split("(?:Inception Score|Image-text alignment|Retrieval, first) higher is better", text)[1:]
    assert len(cards) == 3 and note in cards[0]
    for card in cards[1:]:
        assert ("fewer than 50 rows: value and interval are rough" in card) == (rows < 50), card


def test_every_metric_of_the_schema_has_a_meaning() -> None:
    text = " ".join((schema.__doc__ or "").partition("Names of metrics: ")[2].partition(". ")[0].split())
    names = text.split(", ")
    assert len(names) >= 17
    assert {split_baseline(name)[0] for name in names} == {*MEANINGS}


def test_everything_of_the_results_is_on_the_page(show: Show) -> None:
    found = results()
    text = text_of(show(found))
    assert "sana-e20 against mimic-test" in text
    assert "2,461 images of 293 patients, from " + str(FIXTURE) in text
    for expected in ("2026-11-27 10:00:00+00:00", "Seed 7", "sound: with intervals and floors", "numpy 2.4.6"):
        assert expected in text
    for encoder in MEASURED:
        assert f"{encoder} real, synthetic Fingerprint {encoder}-5d41402abc4b2a76b9719d911017c592" in text
    assert '"torch": "2.13.0"' in text and '"size": 518' in text
    for one in found["metrics"]:
        assert f"{one['metric']}, {one['label'] or 'all images'}" in text
        assert f" {one['n_real']:,} {one['n_synthetic']:,} " in text
        numbers = [one[name] for name in ("value", "se", "ci_low", "ci_high")]
        numbers += [(one["floor"] or {}).get(name) for name in ("value", "sd")]
        assert all(number is None or f"{number:.6g}" in text for number in numbers)
        assert all(note in text for note in one["notes"])
        meaning = MEANINGS[split_baseline(one["metric"])[0]]
        assert all(part in text for part in (meaning.title, meaning.sentence, meaning.better))


def test_charts_show_value_interval_floor_and_sizes(show: Show) -> None:
    page = show(results(metrics=[metric("fd", "rad-dino", None, 50.0, n_synthetic=2000)]))
    (chart,) = re.findall(r'<ol class="chart".*?</ol>', page)
    about = "n 2,461 real, 2,000 synthetic", "floor 5.556 ± 0.010, n 1,230"
    assert re.findall(r"<small>([^<]*)", chart) == [*about, "48.0 to 52.0"]
    assert re.findall(r'class="value">([^<]*)', chart) == ["50.0"]
    assert f'aria-label="{", ".join(("sana-e20", "50.0", "48.0 to 52.0", *about))}"' in chart
    assert all(f'class="{mark}"' in chart for mark in ("interval", "floor", "spread"))


def test_labels_without_a_value_say_why(show: Show) -> None:
    reason = "FD needs at least 50 rows a side; use KID"
    found = [metric("fd", "rad-dino", "Edema", 50.0)]
    found += [metric("fd", "rad-dino", label, None, n_real=31, n_synthetic=30, notes=[reason]) for label in LABELS[:2]]
    page = show(results(labels=[*LABELS[:4]], metrics=found))
    assert f"Atelectasis, Cardiomegaly: not measured: {reason}; n 31 real, 30 synthetic" in text_of(page)
    assert "Consolidation: not measured: no result is recorded" in text_of(page)
    (chart,) = re.findall(r'<ol class="chart wide".*?</ol>', page)
    assert re.findall(r'class="name">(\w+)', chart) == ["Edema"]


def test_refused_metric_says_why(show: Show) -> None:
    page = show(results(metrics=[metric("fd", "rad-dino", None, None, notes=["too few rows"], floor=None)]))
    assert "not measured: too few rows" in text_of(page)
    assert '<ol class="chart' not in page


def test_baselines_stand_beside_their_metric(show: Show) -> None:
    names = ("alignment", "alignment_real", "alignment_shuffled", "alignment_shuffled_real")
    page = show(results(metrics=[metric(name, "biovil-t") for name in names]))
    (chart,) = re.findall(r'<ol class="chart".*?</ol>', page)
    assert re.findall(r'class="name">([^<]+)', chart) == [
        "sana-e20",
        "on real images",
        "shuffled prompts",
        "real, shuffled prompts",
    ]
    assert chart.count("baseline") == 3


def test_a_baseline_that_all_results_share_is_drawn_once(show: Show) -> None:
    real, other = metric("label_auroc_real", "xrv", "Edema", 0.8), metric("label_auroc_real", "xrv", "Edema", 0.7)
    ours = [metric("label_auroc", "xrv", "Edema", value) for value in (0.6, 0.5)]
    names = {}
    for key, baselines in {"shared": (real, real), "own": (real, other)}.items():
        page = show(*(results(metrics=[one, baseline]) for one, baseline in zip(ours, baselines)))
        names[key] = re.findall(r'class="name">([^<]+)', page)
    assert names["shared"] == ["A: sana-e20", "B: sana-e20", "on real images"]
    assert names["own"] == ["A: sana-e20", "B: sana-e20", "A: on real images", "B: on real images"]


def test_label_that_one_of_two_results_lacks(show: Show) -> None:
    page = show(*(results(labels=["Edema"], metrics=[metric("fd", "rad-dino", label)]) for label in ("Edema", None)))
    assert "Edema B: not measured: no result is recorded" in text_of(page)


def test_metric_without_an_explanation_is_shown(show: Show) -> None:
    page = show(results(metrics=[metric("novel", "rad-dino", None, 0.25)]))
    assert '<h3>novel <span class="muted"></span></h3>' in page
    assert re.findall(r'class="value">([^<]*)', page) == ["0.250"]


def test_page_without_metrics_and_images(show: Show) -> None:
    text = text_of(show(results(metrics=[], labels=[])))
    assert "None are listed in the results." in text
    assert "Labels none" in text


def test_texts_are_escaped(show: Show, images: dict[str, bytes]) -> None:
    found = results(images, metrics=[metric("fd", MARKUP, label, notes=[MARKUP]) for label in (None, "Edema")])
    usual = results(images, metrics=[metric("fd", "x", label, notes=["x"]) for label in (None, "Edema")])
    for side in ("real", "synthetic"):
        found[side]["name"] = MARKUP
        found[side]["encoders"]["rad-dino"]["about"] = {MARKUP: MARKUP}
    for pair in found["images"]["rad-dino"]["adds_most_to_fd"]:
        pair["prompt"] = pair["nearest_real"]["prompt"] = MARKUP
    found["versions"] = {MARKUP: MARKUP, "b": "2"}
    page = show(found)
    assert Outline(page).tags == Outline(show(usual)).tags
    assert not re.search(r"<script|[\" ]onerror='", page)
    assert Outline(page).text.count(MARKUP) > 30


@given(st.text(max_size=30))
def test_any_prompt_gives_a_page(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.mktemp("page")
    pair = {"filename": "none.png", "crc32": 1, "prompt": text.encode(errors="replace").decode(), "value": 1.0}
    lists = {"adds_most_to_fd": [], "least_like_real": [{**pair, "nearest_real": None}]}
    found = results(metrics=[metric("fd", "x")])
    found["images"] = {"x": lists}
    found["synthetic"]["source"] = str(folder / "gone")
    report([write_results(folder / "r.json", found)], html=folder / "r.html")
    assert "None is recorded" in Outline((folder / "r.html").read_text(encoding="utf-8")).text


def test_page_needs_no_other_file_and_is_small(show: Show, images: dict[str, bytes]) -> None:
    page = show(results(images), results(images))
    assert len(page) < 5_000_000
    assert not re.search(r"(src|href)=\"(?!data:)|url\(|@import|<script|<link|https?://", page)


def test_page_of_many_noisy_images_is_small(show: Show, source: Source) -> None:
    saved = io.BytesIO()
    PIL.Image.effect_noise((240, 240), 100).convert("RGB").save(saved, "PNG")
    noise = {f"{number:03}.png": saved.getvalue() for number in range(20)}
    table = [{"filename": name, "prompt": "x", **dict.fromkeys(LABELS, "1")} for name in noise]
    folder = source(images=noise, table=table, shape=loose)
    found = results(noise)
    for pair in found["images"]["rad-dino"]["adds_most_to_fd"]:
        pair["prompt"] = "word " * 2_000
    found["images"] = dict.fromkeys("abcdef", found["images"]["rad-dino"])
    page = show(*[found] * 5, real=str(folder), synthetic=str(folder))
    assert page.count("<img ") == 2 * 48
    assert "12 more lists of images are not shown" in page
    assert len(page) < 5_000_000


def test_terminal(show: Show, images: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = len(show(results(images)).encode()) / 1e6
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"{tmp_path / 'r.html'}: {size:.1f} MB"
    assert second == "it contains 24 real images and their prompts: share it only as their license allows"


# Several results


def test_two_results_are_two_columns(show: Show) -> None:
    better = results(metrics=[metric("fd", "rad-dino", None, 50.0), metric("kid", "rad-dino", None, 0.02)])
    worse = results(metrics=[metric("fd", "rad-dino", None, 60.0)])
    worse["synthetic"]["name"] = "sd-v1-4"
    page = show(better, worse)
    (table,) = re.findall(r'<table aria-label="Fidelity, rad-dino">.*?</table>', page, re.DOTALL)
    assert re.findall(r'<th scope="col">([^<]*)', table) == ["", "A: sana-e20", "B: sd-v1-4"]
    cells = re.findall(r"<td[^>]*>([^<]*)", table)
    assert cells == [
        "50.0\n48.0 to 52.0\nn 2,461 / 2,461\n≠ B best",
        "60.0\n57.6 to 62.4\nn 2,461 / 2,461\n≠ A",
        "0.0200\n0.0192 to 0.0208\nn 2,461 / 2,461",
        "no result",
    ]


def test_one_result_has_no_table_of_columns(show: Show) -> None:
    assert "Side by side" not in show(results())


def test_other_real_images_are_stated(show: Show) -> None:
    other = results()
    other["real"]["rows"] = 100
    assert "the real images differ" in text_of(show(results(), other))


def test_mixed_protocols_are_refused(show: Show, tmp_path: Path) -> None:
    with pytest.raises(StepError, match="never share a table"):
        show(results(), chexgenbench())
    assert not (tmp_path / "r.html").exists()


# Published values


def test_published_values_have_their_warning(show: Show) -> None:
    page = show(chexgenbench(), published=True)
    text = text_of(page)
    assert all(text.count(warning) == 2 for warning in read_published().warnings)
    assert "have no intervals" in text and "SD V1-5 and SD V2 are scrambled" in text
    overall, labels = (
        re.findall(rf'<table aria-label="{name}">.*?</table>', page, re.DOTALL)
        for name in ("Fidelity, rad-dino", "FD by label, beside the published values")
    )
    heads = re.findall(r'<th scope="col">([^<]*)', overall[0])
    assert heads[:3] == ["", "sana-e20", "SD V1-4, published"]
    assert len(heads) == 2 + 11
    assert ">54.225</td>" in overall[0]
    heads = re.findall(r'<th scope="col">([^<]*)', labels[0])
    assert heads[2] == "median of these 9"
    assert heads[-2:] == ["SD V1-5, scrambled", "SD V2, scrambled"]
    (line,) = re.findall(r'<th scope="row">Lung Lesion</th>(.*?)</tr>', labels[0], re.DOTALL)
    cells = re.findall(r"<td[^>]*>([^<]*)", line)
    assert cells[1] == "182.22", "without 123.13 of a scrambled row"
    assert cells[-2:] == ["(123.13)", "(268.28)"]


def test_published_values_are_shown_only_if_wanted_and_beside_their_protocol(show: Show) -> None:
    assert "Pixart" not in show(chexgenbench())
    with pytest.raises(StepError, match="compare only with results of --protocol chexgenbench"):
        show(results(), published=True)


def test_published_tables_are_complete() -> None:
    published = read_published()
    assert len(published.models) == 11
    for model in published.models:
        assert model["overall"].keys() == published.encoders.keys() <= MEANINGS.keys()
        assert [*model["fd_by_label"]] == [*LABELS]
    assert [model["name"] for model in published.models if model["fd_by_label_is_scrambled"]] == ["SD V1-5", "SD V2"]


# Images


def test_images_are_those_that_were_embedded(show: Show, images: dict[str, bytes]) -> None:
    names = [*images]
    found = pairs(show(results(images)))
    assert len(found) == 24
    for number in (0, 5, 11):
        (synthetic, real), text = found[number]
        assert shows(synthetic, images[names[number]])
        assert shows(real, images[names[(number + 1) % 12]])
        for expected in (names[number], f"Prompt of image {number}.", f"{1.5 + number:.4g}"[:3]):
            assert expected in text
    assert found[0][1].startswith("Synthetic Influence on FD 1.500")
    assert found[12][1].startswith("Synthetic Distance to the nearest real image 12.50")


def test_images_least_like_their_prompts_are_shown(show: Show, images: dict[str, bytes]) -> None:
    found = results(images)
    found["images"] = {"biovil-t": lists_of(images, has_texts=True)}
    page = show(found)
    assert "Least like its prompt" in text_of(page)
    third = [text for _, text in pairs(page) if text.startswith("Synthetic Cosine with the prompt")]
    assert len(third) == 12 and third[0].startswith("Synthetic Cosine with the prompt -0.035")


def test_changed_and_missing_images_are_stated(show: Show, images: dict[str, bytes]) -> None:
    found = results(images)
    first, second, third, *_ = found["images"]["rad-dino"]["adds_most_to_fd"]
    first["crc32"] ^= 1
    second["filename"] = "gone.png"
    third["nearest_real"]["crc32"] ^= 1
    shown = pairs(show(found))
    assert [len(thumbnails) for thumbnails, _ in shown[:4]] == [1, 1, 1, 2]
    assert "Image changed since it was embedded" in shown[0][1] and "Image changed" in shown[2][1]
    assert "Not found in the source" in shown[1][1]


def test_damaged_image_is_stated(show: Show, images: dict[str, bytes], source: Source) -> None:
    folder = source(shape=loose)
    found = results(images)
    name = found["images"]["rad-dino"]["adds_most_to_fd"][0]["filename"]
    (path,) = folder.rglob(name)
    path.write_bytes(path.read_bytes()[:-100])
    shown = pairs(show(found, synthetic=str(folder)))
    assert len(shown[0][0]) == 1 and "Cannot be read: " in shown[0][1]
    assert len(shown[1][0]) == 2


def test_source_that_is_not_there(show: Show, images: dict[str, bytes], tmp_path: Path) -> None:
    found = results(images)
    found["real"]["source"] = str(tmp_path / "moved")
    page = show(found)
    assert "The real images cannot be shown: " in text_of(page)
    assert "If the source has moved, name it with --real." in text_of(page)
    assert page.count("<img ") == 24
    assert "This page contains" not in page
    shutil.copytree(FIXTURE, tmp_path / "new")
    assert show(found, real=str(tmp_path / "new")).count("<img ") == 48
    found["real"]["source"] = "/data/a\0b"
    assert "The real images cannot be shown: " in text_of(show(found))


def test_sources_without_a_row_for_each_image(show: Show, images: dict[str, bytes], source: Source, table: Any) -> None:
    folder = source(table=to_csv(table[:-1]))
    assert show(results(images), real=str(folder), synthetic=str(folder)).count("<img ") == 44


def test_the_page_never_replaces_the_results(tmp_path: Path) -> None:
    path = write_results(tmp_path / "r.json", results())
    content = path.read_bytes()
    with pytest.raises(StepError, match="holds results; choose another name"):
        report([path], html=tmp_path / "." / "r.json")
    assert path.read_bytes() == content


def test_one_name_for_several_sources_is_refused(show: Show) -> None:
    other = results()
    other["synthetic"]["source"] = "/data/other"
    with pytest.raises(StepError, match="--synthetic names one source, but the results have 2"):
        show(results(), other, synthetic=str(FIXTURE))
