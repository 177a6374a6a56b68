"""Steps of provenance.json as sentences: no field is lost."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.parquet.steps import IN_SENTENCES, describe_step, span_of

WORDS = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8)
VALUES = st.recursive(
    WORDS | st.integers(1000, 9999) | st.booleans(),
    lambda inner: st.lists(inner, min_size=1, max_size=3) | st.dictionaries(WORDS, inner, min_size=1, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from(["generate", "pack", "filter", "scan"])
KEYS = st.sampled_from(
    ["model", "model_url", "drop", "size", "fit", "sources", "images", "about", "meta_prompt", "runs"]
)


def leaves(value: Any) -> list[Any]:
    """Returns the texts and numbers in a value."""
    if isinstance(value, (list, dict)):
        inner = value.values() if isinstance(value, dict) else value
        return [leaf for one in inner for leaf in leaves(one)]
    return [value]


@given(NAMES, st.dictionaries(KEYS | WORDS.filter(lambda word: word not in IN_SENTENCES), VALUES, max_size=5))
def test_each_value_is_shown(name: str, fields: dict[str, Any]) -> None:
    shown = str(describe_step({**fields, "step": name})).replace(",", "")
    for leaf in leaves(fields):
        text = {True: "yes", False: "no"}[leaf] if isinstance(leaf, bool) else str(leaf)
        assert text in shown or text[:1].upper() + text[1:] in shown, (leaf, shown)


@pytest.mark.parametrize(
    ("step", "text"),
    [
        ({"step": "generate"}, "Generation."),
        (
            {"step": "generate", "model": "M", "model_url": "u", "about": "Small"},
            "Generation. M (u) generated the images. Small.",
        ),
        ({"step": "generate", "model": 0, "model_url": False}, "Generation. 0 (no) generated the images."),
        ({"step": "pack", "program": False}, "Packing. Program: no."),
        ({"step": "pack"}, "Packing."),
        (
            {"step": "pack", "program": "pack_shards.py", "version": "2", "images": 1000},
            "Packing. The image files were packed into archives, byte for byte. Images: 1,000; program: "
            "pack_shards.py 2.",
        ),
        (
            {"step": "pack", "size": [64, 32], "fit": "pad"},
            "Packing. The images were resized to 64x32 pixels (fit: pad) and packed into archives.",
        ),
        ({"step": "crop", "drop": 0.1, "size": 8, "seed": 0}, "Crop. Drop: 0.1; size: 8x8 pixels; seed: 0."),
        (
            {"step": "filter", "about": "By hand", "drop": "blurred"},
            "Filtering. By hand. Images judged 'blurred' were removed.",
        ),
        (
            {"step": "x_ray", "sources": [{"name": "A", "url": "u"}, "B"], "nothing": None, "less": []},
            "X ray. Derived from: A (u), B.",
        ),
    ],
    ids=lambda value: json.dumps(value)[:30] if isinstance(value, dict) else "",
)
def test_sentences(step: dict[str, Any], text: str) -> None:
    assert str(describe_step(step)) == text


def test_runs_are_summarized() -> None:
    runs = [
        {"started": "2026-01-02", "ended": "2026-01-03", "images": 1000, "hardware": "A", "versions": {"torch": "2.5"}},
        {"started": "2026-01-01", "ended": "2026-01-01", "images": 2, "hardware": "B", "versions": {"torch": "2.5"}},
        {"started": "2026-01-02", "ended": None, "images": 2, "hardware": "A"},
    ]
    assert span_of({"step": "generate", "runs": runs}) == ("2026-01-01", "2026-01-03")
    shown = (
        "Runs: 3; started: 2026-01-01; ended: 2026-01-03; images: 1,000 + 2 + 2; hardware: A or B; versions: torch 2.5."
    )
    assert describe_step({"step": "generate", "runs": runs}).more == shown
    assert span_of({"step": "generate", "runs": [{"started": 5}, "x"]}) == ("", "")
    assert describe_step({"step": "generate", "runs": "two"}).more == "Runs: two."
