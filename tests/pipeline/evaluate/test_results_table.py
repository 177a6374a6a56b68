"""Sections as tables for a terminal."""

import re
from typing import Any

from invented_sections import SETTINGS, measured, privacy, reference, section, utility
from pipeline.evaluate.results_section import section_in
from pipeline.evaluate.results_table import section_table
from synthchex_75k import LABELS


def table(found: dict[str, Any]) -> str:
    return section_table(section_in(found))


def row(text: str, first: str) -> list[str]:
    """Returns the cells of the only line that starts so."""
    (line,) = (line for line in text.splitlines() if line.startswith(first))
    return re.split(" {2,}", line)


def test_value_interval_sizes_references_and_notes() -> None:
    text = table(privacy())
    assert text.startswith("synthetic: 75,649 images (sana-e20), train: 2,461 images (mimic-train), heldout: ")
    assert row(text, "nearer_to_training")[1:] == [
        "0.512",
        "0.5084 to 0.5156",
        "75,649 synthetic, 2,461 train, 2,461 heldout",
        "0.5 without memorisation",
        "[1]",
    ]
    assert "0.001 held-out images (0.0002 to 0.0018)" in text
    assert "\n[1] Wilson interval\n" in text


def test_refused_value_has_its_reason() -> None:
    text = table(section([measured("copying_test", None, notes=["too few images"])]))
    assert row(text, "copying_test")[1:] == ["-", "-", "75,649 synthetic, 2,461 train, 2,461 heldout", "[1]"]
    assert text.endswith("\n[1] too few images")


def test_settings_are_columns_of_the_labels() -> None:
    text = table(utility())
    (labels,) = (part for part in text.split("\n\n") if part.startswith("auroc by label, probe: rad-dino"))
    head, *lines = labels.splitlines()[1:]
    assert head.split() == [*SETTINGS]
    assert [re.split(" {2,}", line)[0] for line in lines] == [*LABELS]
    assert re.split(" {2,}", lines[LABELS.index("Pleural Other")])[1:] == ["- [1]"] * 4
    assert "[1] no positive image in the test set" in text


def test_section_without_metrics() -> None:
    assert table(section([])) == "synthetic: 75,649 images (sana-e20), train: 2,461 images (mimic-train), seed 3"


def test_a_reference_without_an_interval_has_none() -> None:
    text = table(section([measured("auroc", references=[reference("chance", 0.5), reference("other", 0.25, 0.25)])]))
    assert "0.5 chance; 0.25 other (0 to 0.5)" in text
