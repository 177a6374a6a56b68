"""From prompts to `load_dataset`, with every program in between, and what the card tells of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset

import convert_to_parquet
import drawing
import filter_quality
import generate_images
import pack_shards
from conftest import Rows, convert, to_csv
from pipeline.facts import META_PROMPT
from pipeline.generate.prompts import seed_of


def test_from_prompts_to_a_dataset(
    table: Rows, expected: Rows, rows_of: Callable[..., Rows], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts, drawn, packed, filtered, parquet = (tmp_path / name for name in ("p.csv", "drawn", "packed", "kept", "pq"))
    prompts.write_bytes(to_csv(table))
    labels = tmp_path / "labels.csv"
    judging = ["--model", "Judge 1", "--callable", "drawing:judge"]
    steps: list[tuple[Any, list[Any]]] = [
        (generate_images.main, [prompts, drawn, "--callable", "drawing:draw", "--model", "Noise 0.6B"]),
        (pack_shards.main, [drawn, drawn / "metadata.csv", packed]),
        (filter_quality.main, ["label", packed, labels, *judging]),
        (filter_quality.main, ["apply", packed, labels, filtered]),
    ]
    for program, arguments in steps:
        assert program([*map(str, arguments)]) == 0, capsys.readouterr().err
    facts = {"name": "Chest noise", "authors": ["Alice"], "license": "cc-by-4.0"}
    (filtered / "dataset.json").write_text(json.dumps(facts))
    assert convert(filtered, parquet) == 0
    assert convert_to_parquet.main([str(filtered), str(parquet), "--verify"]) == 0

    rows = rows_of(load_dataset(str(parquet), split="train", cache_dir=str(tmp_path / "cache")))
    kept = [row for row in expected if "edema" not in row["prompt"]]
    assert sorted((row["filename"], row["prompt"]) for row in rows) == sorted(
        (row["filename"], row["prompt"]) for row in kept
    )
    decoded = load_dataset(str(parquet), split="train", cache_dir=str(tmp_path / "cache"))
    for row in decoded:
        (image,) = drawing.draw([row["prompt"]], [seed_of(0, row["filename"].removesuffix(".png"), 0)])
        assert row["image"].tobytes() == image.tobytes()

    lost = len(expected) - len(kept)
    card = (parquet / "README.md").read_text(encoding="utf-8")
    croissant = (parquet / "croissant.json").read_text(encoding="utf-8")
    for text in (card, croissant):
        assert "Noise 0.6B" in text
        assert "Judge 1" in text
        assert "Chest noise" in text
        assert not [word for word in ("Sana", "HealthGPT", "CheXGenBench", "75,649", "MIMIC") if word in text]
    assert META_PROMPT.split(".")[0] in card
    assert f"Low Quality {lost}" in " ".join(card.split()) or f"{lost} Low Quality" in " ".join(card.split()), card
