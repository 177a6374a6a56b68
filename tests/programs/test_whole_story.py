"""From prompts to the published and evaluated dataset: each program as its own process, with small real models."""

import io
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import load_dataset

import make_fixture
import tiny_encoders
import tiny_pipelines
import tiny_vlm
from conftest import ROOT, to_csv, to_files
from pipeline.evaluate.results.results import read_results
from servers.local_hub import Hub
from synthchex_75k import LABELS

pytestmark = pytest.mark.slow

ROWS, PIXELS = 60, 64  # of each set of real radiographs
REPO = "alice/chest-noise"


def write_real(folder: Path, first: int) -> list[dict[str, str]]:
    """Writes a SOURCE of drawn radiographs, two of each patient, and returns its rows."""
    files, rows = {}, []
    for number in range(first, first + ROWS):
        labels = dict.fromkeys(random.Random(number).sample(LABELS, 3), "1")
        image = io.BytesIO()
        make_fixture.draw(number, labels).resize((PIXELS, PIXELS)).save(image, "JPEG")
        name = f"study-{number:04}.jpg"
        files[name] = image.getvalue()
        prompt = f"Chest radiograph {number} with {', '.join(sorted(labels)).lower()}."
        rows.append({"filename": name, "prompt": prompt, "patient": f"p{number // 2}", **dict.fromkeys(LABELS, "0")})
        rows[-1] |= labels
    to_files(folder, {**files, "metadata.csv": to_csv(rows)})
    return rows


def test_from_prompts_to_a_published_and_evaluated_dataset(tmp_path: Path, hub: Hub) -> None:
    def program(name: str, *arguments: object) -> str:
        command = [sys.executable, str(ROOT / f"scripts/{name}.py"), *map(str, arguments)]
        environment = {**os.environ, "HF_TOKEN": "hf_alice", "TQDM_DISABLE": "1"}
        ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert ended.returncode == 0, f"{command}\n{ended.stdout}\n{ended.stderr}"
        return ended.stdout

    real = write_real(tmp_path / "train", 0)
    write_real(tmp_path / "test", 1000)
    prompts = [{**row, "filename": f"SyntheticImg_{Path(row['filename']).stem}.png"} for row in real]
    for row in prompts:
        del row["patient"]
    to_files(tmp_path, {"prompts.csv": to_csv(prompts)})
    tiny_pipelines.sana().save_pretrained(tmp_path / "generator")
    tiny_vlm.build(tmp_path / "judge")
    tiny_encoders.rad_dino(tmp_path / "encoder")

    program("generate_images", "prompts.csv", "drawn", "--model", "generator", "--steps", "2", "--size", PIXELS)
    program("pack_shards", "drawn", "drawn/metadata.csv", "packed")
    program("filter_quality", "label", "packed", "labels.csv", "--model", "judge", "--transformers")
    program("filter_quality", "apply", "packed", "labels.csv", "kept", "--unparsed", "keep")
    facts = {"name": "Chest noise", "authors": ["Alice"], "license": "cc-by-4.0"}
    (tmp_path / "kept/dataset.json").write_text(json.dumps(facts))
    converting = ["kept", "parquet", "--uncertainty", "keep", "--max-shard-size", "300KB"]
    program("convert_to_parquet", *converting, "--push-to-hub", REPO)
    evaluating = ["train", "parquet", "test", "results", "--encoder", "rad-dino", "--model", "encoder"]
    evaluating += ["--patient-column", "patient", "--seeds", "2", "--labels", "none"]
    told = program("evaluate_images", "run", *evaluating)
    assert "skipped" not in told

    # The published dataset has the rows of the prompts.
    loaded = load_dataset(REPO, split="train", cache_dir=str(tmp_path / "cache"))
    assert {(row["filename"], row["prompt"]) for row in loaded} == {(row["filename"], row["prompt"]) for row in prompts}
    assert {row["image"].size for row in loaded} == {(PIXELS, PIXELS)}

    # Each section is there, of the same synthetic images, and no number of it lacks what it is compared with.
    results = read_results(tmp_path / "results/results.json")
    assert {side.source for side in results.synthetic.values()} == {str(tmp_path / "parquet")}
    assert {*results.synthetic} == {"fidelity", "privacy", "utility"}
    assert results.fidelity and results.privacy and results.utility
    values = {metric.metric: metric for metric in results.fidelity.metrics}
    assert (values["fd"].n_real, values["fd"].n_synthetic) == (ROWS, ROWS)
    # Noise is far from radiographs: farther than these are from one another.
    assert values["kid"].floor and values["kid"].ci_low > values["kid"].floor.value  # type: ignore[operator]
    for section in (results.privacy, results.utility):
        measured = [metric for metric in section.metrics if metric.value is not None]
        assert measured
        for metric in measured:
            assert metric.n and (metric.references or metric.notes)
    settings = {metric.setting for metric in results.utility.metrics}
    assert settings == {"real", "synthetic", "mixed", "augmented"}
    page = (tmp_path / "results/results.html").read_text(encoding="utf-8")
    for title in ("rad-dino", "nearer_to_training", "Utility"):
        assert title.lower() in page.lower()

    # A second run finds everything done.
    told = program("evaluate_images", "run", *evaluating)
    assert told.count("done before") == 3
    assert told.count("0 images embedded") == 3
