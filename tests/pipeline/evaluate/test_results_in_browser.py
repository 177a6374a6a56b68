"""The page of an evaluation in a browser."""

from pathlib import Path

import pytest

from browser import find_browser, look
from invented_results import all_metrics, metric, results, write_results
from invented_sections import privacy, reports, utility
from pipeline.evaluate.page.report import report

pytestmark = pytest.mark.slow

# Parts that are wider than the page, or reach beyond it, unless they scroll by themselves.
PROBE = """
    charts: document.querySelectorAll("ol.chart").length,
    small: [...document.querySelectorAll("ol.chart svg:not(.key)")].filter(svg => {
      const box = svg.getBoundingClientRect();
      return box.height > 0 && box.width < 150;
    }).length,
    outside: [...document.querySelectorAll("body *")].filter(element => {
      const box = element.getBoundingClientRect();
      return !element.closest(".scroll, .strip") && box.height > 0 && box.right > innerWidth + 1;
    }).map(element => element.outerHTML.slice(0, 80)),
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_results_in_a_browser(scheme: str, images: dict[str, bytes], tmp_path: Path) -> None:
    huge = [metric("frd", "radiomics", None, -1e300), metric("alignment", "biovil-t", None, 1e-12)]
    one = results(images, metrics=[*all_metrics(), *huge])
    two = results(images, metrics=all_metrics(1, 1.3))
    two["synthetic"]["name"] = "a_name_of_features_without_a_single_space_that_is_longer_than_a_phone_is_wide"
    paths = [write_results(tmp_path / f"{number}.json", found) for number, found in enumerate((one, two))]
    report(paths, html=tmp_path / "r.html")
    seen = look(find_browser(), tmp_path / "r.html", tmp_path, scheme, PROBE)
    assert seen["images"] == [96, 96], "all of them are decoded"
    assert seen["charts"] > 20
    assert seen["outside"] == []
    assert seen["small"] == 0


LONG = "a_name_of_features_without_a_single_space_that_is_longer_than_a_phone_is_wide"
# The order of the rows of the leaderboard from top to bottom, by the letter, before and after a click on a metric.
SORTED = """
    orders: [0, 1, 2].map(at => {
      document.getElementById("order" + at).click();
      const rows = [...document.querySelectorAll(".board tbody tr")];
      const top = row => row.getBoundingClientRect().top;
      return rows.sort((one, two) => top(one) - top(two)).map(row => row.textContent[0]).join("");
    }),
    aligned: [...document.querySelectorAll(".board tbody tr")].every(row =>
      row.lastChild.getBoundingClientRect().left ===
      document.querySelector(".board thead tr").lastChild.getBoundingClientRect().left),
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_sections_of_three_results_in_a_browser(scheme: str, images: dict[str, bytes], tmp_path: Path) -> None:
    paths = []
    for number, name in enumerate(("sana", "pixart", LONG)):
        found = privacy(images, shift=0.1 - 0.05 * number)
        found["options"] = {"name": LONG}
        fidelity = results(images, metrics=all_metrics(number, 1 - 0.1 * number))
        fidelity["synthetic"]["name"] = found["sides"]["synthetic"]["name"] = name
        sections = {"fidelity": fidelity, "privacy": found, "utility": utility(0.1 * number), "reports": reports()}
        paths.append(write_results(tmp_path / f"{number}.json", **sections))
    report(paths, html=tmp_path / "r.html")
    seen = look(find_browser(), tmp_path / "r.html", tmp_path, scheme, PROBE + SORTED)
    assert seen["images"][0] == seen["images"][1] > 60
    assert seen["outside"] == []
    assert seen["small"] == 0
    assert seen["orders"] == ["CBA", "CBA", "ABC"], "lowest FD, lowest KID, highest coverage first"
    assert seen["aligned"], "cells stand under their heads"
