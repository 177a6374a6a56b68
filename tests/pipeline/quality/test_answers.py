"""The quality that an answer names."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.quality.answers import QUALITIES, UNPARSED, parse_quality


@pytest.mark.parametrize(
    ("response", "quality"),
    [
        ("High Quality", "High Quality"),
        ("high quality.", "High Quality"),
        ("'Medium Quality'", "Medium Quality"),
        ("**LOW  QUALITY**", "Low Quality"),
        ("The image is of low-quality, I think.", "Low Quality"),
        ("Not Relevant", "Not Relevant"),
        ('"Not relevant" - it shows a knee.', "Not Relevant"),
        ("Answer: High_Quality\n", "High Quality"),
        ("Low Quality, not High Quality", "Low Quality"),
        ("It is not blurry. High Quality", "High Quality"),
        ("High Quality. High Quality.", "High Quality"),
        ("not high quality", UNPARSED),
        ("This isn’t high quality", UNPARSED),
        ("It is not of very high quality", UNPARSED),
        ("neither high quality nor medium quality", UNPARSED),
        ("High Quality or Medium Quality", UNPARSED),
        ("Not Relevant, but High Quality", UNPARSED),
        ("High", UNPARSED),
        ("The quality is high", UNPARSED),
        ("Highest quality", UNPARSED),
        ("Irrelevant", UNPARSED),
        ("", UNPARSED),
    ],
)
def test_quality_of_an_answer(response: str, quality: str) -> None:
    assert parse_quality(response) == quality


@given(st.sampled_from(QUALITIES), st.text("\"'*-_ \t\n.:;(){}[]<>!?#`~", max_size=8), st.booleans(), st.data())
def test_case_and_punctuation_are_ignored(quality: str, around: str, upper: bool, data: Any) -> None:
    between = data.draw(st.sampled_from([" ", "-", "_", "  ", " - "]))
    text = quality.replace(" ", between)
    assert parse_quality(f"{around}{text.upper() if upper else text}{around}") == quality


@given(st.text(max_size=200))
def test_every_answer_gets_one_of_five_values(text: str) -> None:
    quality = parse_quality(text)
    assert quality in (*QUALITIES, UNPARSED)
    assert quality == UNPARSED or quality.split()[0].lower() in text.lower()
