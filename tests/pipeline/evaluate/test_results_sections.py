"""The page of privacy, utility and reports, and of many results."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import FIXTURE
from invented_results import all_metrics, metric, results, write_results
from invented_sections import SETTINGS, measured, pairs_of, privacy, reference, reports, section, side, utility
from outline import Outline
from pipeline.errors import StepError
from pipeline.evaluate.page.glossary import GLOSSARY, meaning_of
from pipeline.evaluate.page.page_sections import FEW
from pipeline.evaluate.page.published import read_published
from pipeline.evaluate.page.report import report
from synthchex_75k import LABELS

MARKUP = "<script>alert(1)</script> & \"x\" onerror='y'"

Show = Callable[..., str]


@pytest.fixture
def show(tmp_path: Path) -> Show:
    """Returns a function that writes results, each a dict of sections, and returns their page."""

    def run(*found: dict[str, Any], **options: Any) -> str:
        paths = [write_results(tmp_path / f"r{number}.json", **one) for number, one in enumerate(found)]
        report(paths, html=tmp_path / "r.html", **options)
        return (tmp_path / "r.html").read_text(encoding="utf-8")

    return run


def text_of(page: str) -> str:
    """Returns the text of a page, with single spaces."""
    return " ".join(Outline(page.replace("</", " </")).text.split())


def card(page: str, title: str) -> str:
    """Returns the card of a metric, with those that follow."""
    return page[page.index(f"<h3>{title} ") :]


def charts(page: str) -> list[str]:
    return re.findall(r'<ol class="chart.*?</ol>', page)


def names(chart: str) -> list[str]:
    return re.findall(r'class="name">([^<]*)', chart)


# Every section


@pytest.mark.parametrize("name", ["privacy", "utility", "reports"])
def test_a_section_needs_no_other(name: str, show: Show) -> None:
    found = dict[str, Any](privacy=privacy(), utility=utility(), reports=reports())[name]
    text = text_of(show({name: found}))
    assert text.startswith("sana-e20 ")
    assert "Fidelity" not in text and "None are listed" not in text
    for one in found["metrics"]:
        place = [one["metric"], one["setting"], one["label"] or "all images"]
        assert ", ".join(part for part in place if part) in text
        assert ", ".join(f"{size:,} {of}" for of, size in one["n"].items()) in text
        numbers = [one[key] for key in ("value", "se", "ci_low", "ci_high")]
        assert all(number is None or f"{number:.6g}" in text for number in numbers)
        assert all(note in text for note in one["notes"])
        meaning = meaning_of(one["metric"])
        assert meaning.title in text and meaning.better in text
    for one in found["sides"].values():
        assert f"{one['name']}: {one['rows']:,} images" in text
    assert "Seed 3" in text and "2026-11-27 11:00:00+00:00" in text
    assert '"neighbours": 50' in text and "numpy 2.4.6" in text


def test_every_metric_has_a_meaning_and_each_name_is_there_once() -> None:
    assert {"fd", "nearer_to_training", "reid_score", "auroc", "auroc_difference", "bleu_4"} <= {*GLOSSARY}
    assert all(meaning.title and meaning.sentence for meaning in GLOSSARY.values())
    titles = [meaning.title for meaning in GLOSSARY.values()]
    assert len({*titles}) == len(titles)


def test_sections_of_other_images_are_stated(show: Show) -> None:
    found = privacy()
    found["sides"]["synthetic"]["source"] = "/data/other"
    assert "the sections are not of the same synthetic images" in text_of(
        show({"privacy": found, "utility": utility()})
    )


def test_texts_are_escaped(show: Show, images: dict[str, bytes]) -> None:
    def found(text: str) -> dict[str, Any]:
        there: dict[str, Any] = {"method": text, "references": [reference(text, 0.5), reference(f"{text}!", 0.4, 0.1)]}
        metrics = [
            measured(text, notes=[text], n={text: 9}, setting=setting, label=label, **there)
            for setting in (None, text)
            for label in (None, "Edema")
        ]
        pairs = pairs_of(images)
        pairs[0]["synthetic"]["prompt"] = pairs[0]["train"]["prompt"] = text
        pairs[0]["about"] = {text: 1.0}
        changes = {"options": {text: text}, "versions": {text: text}, "pairs": {text: {text: pairs}}}
        changes["sides"] = {"synthetic": side(text, 9), "train": side(text, 9)}
        return {name: section(metrics, **changes) for name in ("privacy", "utility", "reports")}

    many, usual = (show(*[found(text)] * 3) for text in (MARKUP, "x"))
    assert Outline(many).tags == Outline(usual).tags
    assert not re.search(r"<script|[\" ]onerror='", many)
    assert Outline(many).text.count(MARKUP) > 30


# Privacy


@pytest.mark.parametrize(
    ("shift", "said"),
    [(0.0, "more than chance explains"), (-0.012, "Chance alone explains this"), (-0.1, "less than chance explains")],
)
def test_headline_comes_first_in_a_sentence_beside_its_reference(shift: float, said: str, show: Show) -> None:
    page = show({"privacy": privacy(shift=shift)})
    text = text_of(page)
    assert f"{100 * (0.512 + shift):.2f} %" in text and "where nothing was memorised it is 50 %" in text
    assert said in text
    first = charts(page)[0]
    assert 'class="floor"' in first and "without memorisation: 0.5000" in first
    assert text.index(said) < text.index("What this does not show") < text.index("Much nearer to one training image")
    assert ("proves privacy" in text and "is no proof that there is none" in text) or shift != -0.012


def test_without_held_out_images_what_cannot_be_said_is_said(show: Show) -> None:
    assert "Without held-out images nobody can say" not in text_of(show({"privacy": privacy()}))
    found = privacy(metrics=[measured("nearer_to_training", None, notes=["no held-out images"])])
    del found["sides"]["heldout"]
    text = text_of(show({"privacy": found}))
    assert "Without held-out images nobody can say" in text
    assert "not measured: no held-out images" in text


def test_references_with_intervals_are_lines_of_their_own(show: Show) -> None:
    page = show({"privacy": privacy()})
    (chart,) = charts(card(page, "Re-ID score"))[:1]
    assert names(chart) == ["sana-e20", "same patient", "different patients"]
    assert chart.count("baseline") == 2 and chart.count('class="interval"') == 3
    assert "not measured: fewer than 20 held-out images" in text_of(page)


def test_a_reference_that_all_results_share_is_there_once(show: Show) -> None:
    page = show(*({"privacy": privacy(shift=shift)} for shift in (0.0, 0.1)))
    (chart,) = charts(card(page, "Re-ID score"))[:1]
    assert names(chart) == ["A: sana-e20", "B: sana-e20", "same patient", "different patients"]


def test_closest_pairs_are_side_by_side(
    show: Show, images: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    found = privacy(images)
    changed = found["pairs"]["rad-dino"]["nearest_relative"][1]
    changed["train"] = {**changed["train"], "crc32": 1}
    found["pairs"]["rad-dino"]["closest_latent_distance"] = pairs_of(images)[:3]
    page = show({"privacy": found})
    pairs = re.findall(r'<figure class="pair">.*?</figure>', page, re.DOTALL)
    assert len(pairs) == 12 + 3
    text = text_of(pairs[0])
    for expected in ("Synthetic", "Training image", *[*images][:2], "Prompt of image 0.", "Prompt of image 1."):
        assert expected in text
    assert "Distance, divided by that to held-out 0.5000" in text and "Distance to held-out 7.500" in text
    assert [pair.count("<img ") for pair in pairs[:3]] == [2, 1, 2]
    assert "Image changed since it was embedded" in pairs[1]
    assert "Closest by latent distance" in text_of(page)
    assert "This page contains 14 real images and their prompts" in text_of(page)
    assert "it contains 14 real images" in capsys.readouterr().out


def test_no_images_leaves_out_pairs_and_prompts(show: Show, images: dict[str, bytes]) -> None:
    page = show({"privacy": privacy(images)}, images=False)
    assert "<img " not in page and "Prompt of image" not in page and "Closest pairs" not in page


def test_moved_training_images(show: Show, images: dict[str, bytes], tmp_path: Path) -> None:
    found = privacy(images)
    found["sides"]["train"]["source"] = str(tmp_path / "moved")
    page = show({"privacy": found})
    assert "The training images cannot be shown: " in text_of(page) and "name it with --train." in text_of(page)
    assert page.count("<img ") == 15
    shutil.copytree(FIXTURE, tmp_path / "new")
    assert show({"privacy": found}, train=str(tmp_path / "new")).count("<img ") == 30


def test_pairs_of_many_methods_share_the_page_with_fidelity(show: Show, images: dict[str, bytes]) -> None:
    found = privacy(images)
    found["pairs"] = {name: {"nearest": pairs_of(images)} for name in "abcdefghijklmnopqrstuvwxyz"}
    page = show({"privacy": found, "fidelity": results(images)})
    assert page.count('<figure class="pair">') == 24 + 24
    assert "2 more lists of images are not shown" in page


# Utility and reports


def test_settings_are_series_with_chance_and_difference(show: Show) -> None:
    page = show({"utility": utility()})
    value, difference = charts(card(page, "AUROC of a classifier"))[:2]
    assert names(value) == [*SETTINGS] and names(difference) == [*SETTINGS[1:]]
    assert re.findall('class="(s[0-9])"', difference) == ["s1", "s2", "s3"], "as in the other chart"
    shared = re.findall('<li class="shared">.*?</li>', value)
    assert [text_of(one) for one in shared] == ["n 2,461 test, 293 patients chance: 0.5000"]
    assert value.count('class="floor"') == 1 + 4
    assert "no difference: 0" in difference and difference.count('class="floor"') == 1 + 3


def test_labels_have_their_own_chance_and_few_positives_stand_out(show: Show) -> None:
    page = show({"utility": utility()})
    (chart,) = (one for one in charts(page) if 'aria-label="Average precision of a classifier, by label"' in one)
    assert re.findall('class="group">([^<]*)', chart) == [label for label in LABELS if label != "Pleural Other"]
    assert "n 2,461 test, 2,000 positive, 293 patients" in chart and "chance: 0.8127" in chart
    assert "Pleural Other: not measured: no positive image in the test set" in text_of(page)
    assert "only " not in chart
    few = measured("auroc", 0.7, 0.2, setting="real", label="Edema", n={"test": 900, "positive": FEW - 1, "seeds": 3})
    assert f'class="caution">only {FEW - 1} positive</small>' in show({"utility": section([few])})


def test_settings_of_several_results_are_groups(show: Show) -> None:
    page = show({"utility": utility()}, {"utility": utility(-0.1)})
    chart = charts(card(page, "AUROC of a classifier"))[0]
    assert re.findall('class="group">([^<]*)', chart) == [*SETTINGS]
    assert names(chart) == ["A: sana-e20", "B: sana-e20"] * 4


def test_scores_of_reports(show: Show) -> None:
    page = show({"reports": reports()})
    value, difference = charts(card(page, "BLEU-4"))[:2]
    assert names(value) == ["real", "synthetic"] and names(difference) == ["synthetic"]
    assert "radgraph is not installed" in text_of(page)


# Several results


def test_results_of_different_sections_share_a_page(show: Show) -> None:
    page = show({"fidelity": results()}, {"privacy": privacy(), "utility": utility()})
    text = text_of(page)
    assert "Side by side" in text and "no result" in text
    assert "B: mimic" not in text


def board(page: str) -> list[list[str]]:
    """Returns the texts of the leaderboard, its head first."""
    (found,) = re.findall(r'<div class="board".*?</table>', page, re.DOTALL)
    rows = re.findall(r"<tr.*?</tr>", found, re.DOTALL)
    return [
        [" ".join(Outline(cell).text.split()) for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL)]
        for row in rows
    ]


def models(*names: str, **changes: Any) -> list[dict[str, Any]]:
    found = []
    for number, name in enumerate(names):
        fidelity = results(metrics=[metric("fd", "rad-dino", None, 60.0 - 4 * number)], **changes)
        one = {"fidelity": fidelity, "privacy": privacy(shift=0.01 * number), "utility": utility(-0.02 * number)}
        for each in one.values():
            (each.get("sides") or each)["synthetic"]["name"] = name
        found.append(one)
    return found


def test_leaderboard_has_a_row_for_each_model(show: Show) -> None:
    found = models("sana", "pixart", "flux")
    del found[2]["privacy"]
    head, *rows = board(show(*found))
    assert head[1] == "FD (Frechet distance) rad-dino; lower is better"
    assert head[2] == "Nearer to training rad-dino; without memorisation: 0.5"
    assert head[-1].startswith("AUROC of a classifier, less that of real images, augmented probe: rad-dino; higher")
    assert [row[0] for row in rows] == ["C: flux", "B: pixart", "A: sana"], "sorted by the first metric"
    assert [row[1] for row in rows] == [
        "52.0 49.9 to 54.1 rank 1 to 2",
        "56.0 53.8 to 58.2 rank 1 to 3",
        "60.0 57.6 to 62.4 rank 2 to 3",
    ]
    assert [row[2] for row in rows] == [
        "-",
        "0.522 0.518 to 0.526 above 0.5".replace("0.522", "0.5220"),
        rows[2][2],
    ] or (rows[0][2] == "-" and rows[1][2].endswith("above 0.5"))
    assert rows[0][-1].endswith("rank 3") and "below 0" in rows[0][-1]


def test_leaderboard_sorts_by_each_metric_without_a_script(show: Show) -> None:
    page = show(*models("sana", "pixart", "flux"))
    assert re.findall(r'<input type="radio" name="order" id="(order\d)"( checked)?>', page)[:2] == [
        ("order0", " checked"),
        ("order1", ""),
    ]
    orders = re.findall(r'style="--o0:(\d);--o1:(\d);--o2:(\d)', page)
    assert orders == [("0", "2", "2"), ("1", "1", "1"), ("2", "0", "0")], "lowest FD, lowest share, best AUROC first"
    assert "<script" not in page


def test_values_that_do_not_compare_have_no_rank(show: Show) -> None:
    found = models("a", "b", "c", "d")
    found[3]["utility"]["options"]["seeds"] = 9
    found[3]["utility"]["options"]["last_loss"] = 0.1
    page = show(*found)
    _, *rows = board(page)
    cells = {row[0]: row[-1] for row in rows}
    assert cells["A: a"].endswith("rank 1 of 3") and cells["C: c"].endswith("rank 3 of 3")
    assert cells["D: d"].endswith("does not compare")
    assert "Utility: options differ (seeds), so that values are not compared." in text_of(page)


def test_two_results_have_no_leaderboard(show: Show) -> None:
    assert "Leaderboard" not in show(*models("a", "b"))


def test_page_of_eleven_models_is_small(show: Show, images: dict[str, bytes]) -> None:
    found = [
        {
            "fidelity": results(images, metrics=all_metrics(number)),
            "privacy": privacy(images),
            "utility": utility(),
            "reports": reports(),
        }
        for number in range(11)
    ]
    page = show(*found)
    assert len(page) < 5_000_000
    assert len(board(page)) == 1 + 11
    assert not re.search(r"(src|href)=\"(?!data:)|url\(|@import|<script|<link|https?://", page)
    assert "≠" not in page, "letters of 11 models fill a table: they have ranks"


# Published values


def test_published_models_are_rows_and_privacy_has_its_warning(show: Show) -> None:
    metrics = [
        metric("fd", "rad-dino", None, 50.0, protocol="chexgenbench", se=None, ci_low=None, ci_high=None, floor=None)
    ]
    found = privacy()
    found["metrics"].append(measured("latent_distance", 0.54, 0.01))
    page = show({"fidelity": results(protocol="chexgenbench", metrics=metrics), "privacy": found}, published=True)
    _, *rows = board(page)
    assert [row[0] for row in rows][:2] == ["sana-e20", "Sana 0.6B, published"]
    assert len(rows) == 1 + 11 and not any("rank" in row[1] for row in rows)
    text = text_of(page)
    assert all(warning in text for warning in read_published().privacy_warnings)
    (table,) = re.findall(r'<table aria-label="Privacy, beside the published values">.*?</table>', page, re.DOTALL)
    assert "<td>0.551</td>" in table and "<td>0.540</td>" in table
    assert "162.9" not in page and "147.4" not in page, "published pixel distances are noise"


def test_published_privacy_needs_no_fidelity_and_is_shown_only_if_wanted(show: Show) -> None:
    assert "beside the published values" not in show({"privacy": privacy()})
    assert "beside the published values" in show({"privacy": privacy()}, published=True)
    with pytest.raises(StepError, match="the results have neither"):
        show({"utility": utility()}, published=True)
