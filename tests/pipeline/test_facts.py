"""What is known of a SOURCE: which one is the published release, and what other sources state."""

import json
import random
from pathlib import Path

import pytest

from conftest import FIXTURE, plan, to_files
from pipeline.dataset_json import DatasetFacts
from pipeline.errors import StepError
from pipeline.facts import RELEASE_FACTS, RELEASE_ROWS, SourceFacts, is_published_release, read_facts
from pipeline.provenance import new_step, parse_provenance, provenance_json
from synthchex_75k import Row, SourceError

GENERATED = provenance_json([{"step": "generate", "model": "Mountain"}])


@pytest.fixture(scope="module")
def release() -> list[Row]:
    """A plan with as many rows as the release, and file names of its form."""
    rng = random.Random(0)
    names = ("-".join(f"{rng.getrandbits(32):08x}" for _ in range(5)) for _ in range(RELEASE_ROWS))
    return [Row(f"SyntheticImg_{name}.png", "a.zip", "", 0, None, 1) for name in names]


@pytest.mark.parametrize(
    ("address", "is_release"),
    [
        ("hf://datasets/raman07/SynthCheX-75K", True),
        ("hf://datasets/raman07/SynthCheX-75K@main", True),
        ("hf://datasets/raman07/SynthCheX-75K@0123456789abcdef0123456789abcdef01234567", True),
        ("hf://datasets/raman07/SynthCheX-75K@main/ALL_FILES.zip", True),
        ("https://huggingface.co/datasets/raman07/SynthCheX-75K/resolve/main", True),
        ("hf://datasets/raman07/SynthCheX-75K-v2", False),
        ("hf://datasets/somebody/SynthCheX-75K", False),
        ("hf://datasets/raman07", False),
        ("https://host.org/datasets/raman07/SynthCheX-75K", False),
        ("/data/hf://datasets/raman07/SynthCheX-75K", False),
        ("SynthCheX-75K", False),
    ],
)
def test_release_is_recognised_by_its_address(address: str, is_release: bool) -> None:
    assert is_published_release(address, plan(FIXTURE)) == is_release


def test_copy_of_the_release_is_recognised_by_all_of_its_rows(release: list[Row], tmp_path: Path) -> None:
    assert is_published_release(str(tmp_path), release)
    assert read_facts(release, str(tmp_path)) == RELEASE_FACTS
    assert not is_published_release(str(tmp_path), release[:-1])
    assert not is_published_release(str(tmp_path), [*release, release[0]._replace(filename="x.png")])
    for name in ("x.png", f"x{release[0].filename}", release[0].filename.replace("-", "_"), "SyntheticImg_0.png"):
        assert not is_published_release(str(tmp_path), [release[0]._replace(filename=name), *release[1:]])
    assert read_facts(release[:-1], str(tmp_path)) == SourceFacts()


def test_what_the_source_states_wins_over_the_facts_of_the_release(release: list[Row], tmp_path: Path) -> None:
    to_files(tmp_path, {"provenance.json": GENERATED})
    facts = read_facts(release, str(tmp_path))
    assert (facts.dataset, facts.steps) == (RELEASE_FACTS.dataset, ({"step": "generate", "model": "Mountain"},))
    to_files(tmp_path, {"dataset.json": b'{"name": "Mine"}'})
    facts = read_facts(release, str(tmp_path))
    assert facts.dataset == DatasetFacts(name="Mine", images="synthetic")
    assert (facts.header, facts.croissant) == ({}, {})


def test_generated_images_are_synthetic(tmp_path: Path) -> None:
    rows = plan(FIXTURE)
    assert read_facts(rows, str(tmp_path)) == SourceFacts()
    to_files(tmp_path, {"provenance.json": provenance_json([{"step": "scan"}])})
    assert not read_facts(rows, str(tmp_path)).is_synthetic
    to_files(tmp_path, {"provenance.json": GENERATED})
    assert read_facts(rows, str(tmp_path)).dataset == DatasetFacts(images="synthetic")
    to_files(tmp_path, {"dataset.json": b'{"images": "real"}'})
    with pytest.raises(SourceError) as caught:
        read_facts(rows, str(tmp_path))
    why = 'images are "real", but provenance.json has a step "generate"; correct one of them'
    assert str(caught.value) == f"{tmp_path}/dataset.json: {why}"


def test_an_empty_file_is_not_a_missing_one(tmp_path: Path) -> None:
    to_files(tmp_path, {"dataset.json": b""})
    with pytest.raises(SourceError, match=r"dataset\.json: not JSON in UTF-8"):
        read_facts(plan(FIXTURE), str(tmp_path))


@pytest.mark.parametrize("name", ["dataset.json", "provenance.json"])
def test_two_folders_may_not_hold_different_files(name: str, tmp_path: Path) -> None:
    files = {"dataset.json": b'{"name": "Mine"}', "provenance.json": GENERATED}
    rows = plan(FIXTURE)
    to_files(tmp_path / "a", files)
    (tmp_path / "b").mkdir()
    places = [str(tmp_path / "a"), str(tmp_path / "b")]
    stated = read_facts(rows, *places)
    assert stated == read_facts(rows, *reversed(places)) == read_facts(rows, places[0])
    to_files(tmp_path / "b", files)
    assert read_facts(rows, *places) == stated
    to_files(
        tmp_path / "b", {name: {**files, "dataset.json": b"{}", "provenance.json": b'{"steps": [{"step": "a"}]}'}[name]}
    )
    with pytest.raises(StepError) as caught:
        read_facts(rows, *places)
    assert str(caught.value) == f"{tmp_path}/a/{name} and {tmp_path}/b/{name} differ; remove one of them"


def test_files_of_the_next_source(tmp_path: Path) -> None:
    step = new_step("pack", images=12)
    dataset = b'{"name": "Mine"}\n\n'
    to_files(tmp_path, {"dataset.json": dataset, "provenance.json": GENERATED})
    files = read_facts(plan(FIXTURE), str(tmp_path)).files_after(step)
    assert files.keys() == {"dataset.json", "provenance.json"}
    assert files["dataset.json"] == dataset
    assert parse_provenance(files["provenance.json"], "")[1:] == [step]


def test_what_is_made_of_the_release_keeps_its_steps_and_no_name() -> None:
    step = new_step("filter", model="Judge")
    files = RELEASE_FACTS.files_after(step)
    assert [*files] == ["provenance.json"]
    assert json.loads(files["provenance.json"])["steps"] == [*RELEASE_FACTS.steps, step]
