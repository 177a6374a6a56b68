"""`croissant.json`, read by the reference implementation."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlcroissant
import pytest

from conftest import FIXTURE, ROOT, Rows, convert, files_of
from pipeline.facts import META_PROMPT, RELEASE_FACTS
from pipeline.parquet.card import MeasuredDataset
from pipeline.parquet.croissant import read_files, with_repository, write_croissant
from pipeline.parquet.pixels import Pixels
from synthchex_75k import LABELS, UNCERTAINTY

# https://neurips.cc/Conferences/2026/EvaluationsDatasetsHosting
REQUIRED = {
    "rai:dataLimitations",
    "rai:dataBiases",
    "rai:personalSensitiveInformation",
    "rai:dataUseCases",
    "rai:dataSocialImpact",
    "rai:hasSyntheticData",
    "prov:wasDerivedFrom",
    "prov:wasGeneratedBy",
}


@pytest.fixture(scope="module", params=["keep", pytest.param("zeros", marks=pytest.mark.slow)])
def converted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    output = tmp_path_factory.mktemp("converted") / "o"
    assert convert(FIXTURE, output, "--max-shard-size", "400KB", "--uncertainty", request.param) == 0
    return output, request.param


@pytest.fixture
def described(converted: tuple[Path, str]) -> dict[str, Any]:
    return json.loads((converted[0] / "croissant.json").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_mlcroissant_finds_no_error(converted: tuple[Path, str]) -> None:
    command = [str(Path(sys.executable).with_name("mlcroissant")), "validate", "--jsonld"]
    run = subprocess.run([*command, str(converted[0] / "croissant.json")], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "rror" not in run.stderr
    assert "arning" not in run.stderr


def test_mlcroissant_reads_the_rows(converted: tuple[Path, str], expected: Rows) -> None:
    output, uncertainty = converted
    dataset = mlcroissant.Dataset(jsonld=str(output / "croissant.json"))
    records = [*dataset.records("default")]
    assert len(records) == len(expected)
    for record, row in zip(records, expected):
        assert record["default/filename"].decode() == row["filename"]
        assert record["default/prompt"].decode() == row["prompt"]
        assert (record["default/image"].size, record["default/image"].mode) == ((512, 512), "RGB")
        labels = {
            name.removeprefix("default/labels_dict/").replace("_", " "): value
            for name, value in record["default/labels_dict"].items()
        }
        assert labels == {name: UNCERTAINTY[uncertainty][value] for name, value in row["labels_dict"].items()}


def test_mlcroissant_finds_a_damaged_file(converted: tuple[Path, str], tmp_path: Path) -> None:
    path = files_of(converted[0])[0]
    good = path.read_bytes()
    try:
        path.write_bytes(good[:-1000] + bytes([good[-1000] ^ 1]) + good[-999:])
        dataset = mlcroissant.Dataset(jsonld=str(converted[0] / "croissant.json"))
        with pytest.raises(mlcroissant.GenerationError):
            next(iter(dataset.records("default")))
    finally:
        path.write_bytes(good)


def test_properties_that_dataset_tracks_require() -> None:
    pixels = Pixels(("PNG",), (512, 512), (512, 512))
    described = json.loads(write_croissant(MeasuredDataset(75_649, 2, [3], "keep", pixels), RELEASE_FACTS, []))
    assert described["conformsTo"] == "http://mlcommons.org/croissant/1.1"
    assert all(described[key] for key in REQUIRED)
    assert described["rai:hasSyntheticData"] is True
    assert described["rai:personalSensitiveInformation"].startswith("None")
    assert any("Not for diagnosis" in use for use in described["rai:dataUseCases"])
    assert any(META_PROMPT in step for step in described["rai:dataPreprocessingProtocol"])


def test_each_label_is_described(described: dict[str, Any]) -> None:
    rows, flat = described["recordSet"]
    (labels,) = (field["subField"] for field in rows["field"] if field["name"] == "labels_dict")
    assert [label["name"] for label in labels] == list(LABELS)
    assert len({label["description"].partition(";")[0] for label in labels}) == len(LABELS)
    assert [field["name"] for field in flat["field"]] == ["filename", "prompt", *LABELS]


def test_every_property_belongs_to_a_declared_vocabulary(described: dict[str, Any]) -> None:
    def keys(node: Any) -> set[str]:
        if isinstance(node, list):
            return set().union(*map(keys, node))
        return {*node}.union(*map(keys, node.values())) if isinstance(node, dict) else set()

    context = described.pop("@context")
    schema_org = {"citation", "contentSize", "contentUrl", "creator", "datePublished", "distribution", "encodingFormat"}
    schema_org |= {"inLanguage", "keywords", "license", "sameAs", "sha256", "url", "version"}
    unknown = {key for key in keys(described) - {*context} - schema_org if not key.startswith("@")}
    assert {key.partition(":")[0] for key in unknown} == {"rai", "prov"}


def test_readme_quotes_the_same_meta_prompt() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert META_PROMPT in " ".join(re.sub(r"^ *> ?", "", readme, flags=re.MULTILINE).split())


def test_with_repository(described: dict[str, Any]) -> None:
    text = json.dumps(described)
    url = "https://huggingface.co/datasets/me/mine"
    assert json.loads(with_repository(text, url, None, None)) == {**described, "url": url}
    other = {"url": url, "name": "Mine", "license": "https://choosealicense.com/licenses/cc-by-4.0/"}
    assert json.loads(with_repository(text, url, other["name"], other["license"])) == {**described, **other}


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"distribution": [{}]}', '{"distribution": 5}'])
def test_read_files_of_something_else(text: str) -> None:
    with pytest.raises(ValueError):
        read_files(text)
