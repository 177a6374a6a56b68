"""`croissant.json`: a machine-readable description of a Parquet repository.

The format is Croissant 1.1 (https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html) with the Responsible-AI
properties of its `rai` vocabulary and the provenance of W3C PROV that dataset tracks ask for, such as that of NeurIPS
2026 (https://neurips.cc/Conferences/2026/EvaluationsDatasetsHosting). What is not stated in `dataset.json` or
`provenance.json` is left out. The `@context` is in the file `croissant.json` beside this module. Addresses are relative
to the file, so that it holds in a folder and on the Hub.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.dataset_json import is_web_address
from pipeline.facts import LABEL_MEANINGS, VALUE_MEANINGS, SourceFacts
from pipeline.parquet.card import CHEXPERT, NOT_FOR, MeasuredDataset, biases_of, license_header, limits_of
from pipeline.parquet.card_merge import license_of
from pipeline.parquet.labels import CONFIG
from pipeline.parquet.steps import agent_of, describe_step, span_of, texts_of
from pipeline.parquet_source import DATA_FILES, LABELS_FILE
from pipeline.provenance import Step
from synthchex_75k import LABELS

CONTEXT = Path(__file__).with_name("croissant.json")
# Readers need a name. That of a folder would make the result depend on the folder; publishing puts in the repository's.
UNNAMED = "unnamed"
KEYWORDS = ["chest x-ray", "radiology", "CheXpert"]  # as the labels imply
PARQUET = "application/x-parquet"
FILE_SET = "parquet-files"
RECORD_SET = "default"
DATA_TYPES = {"string": "sc:Text", "int64": "cr:Int64", "float64": "cr:Float64"}  # of the metadata's columns


class FileObject(NamedTuple):
    """A Parquet file of the repository: path, size in bytes, SHA-256."""

    path: str
    size: int
    sha256: str


def write_croissant(measured: MeasuredDataset, facts: SourceFacts, files: list[FileObject]) -> str:
    """Returns the text of `croissant.json`.

    Args:
        measured: What was measured.
        facts: What is known of the source.
        files: The Parquet files, in order, and that of the configuration `labels`.

    Returns:
        JSON-LD.
    """
    about = {
        **json.loads(CONTEXT.read_text(encoding="utf-8")),
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        **describe_dataset(measured, facts),
        "distribution": _distribution(files),
        "recordSet": record_sets(measured, facts)[: 1 + any(file.path == LABELS_FILE for file in files)],
    }
    return _to_text(about)


def record_sets(measured: MeasuredDataset, facts: SourceFacts) -> list[dict[str, Any]]:
    """Returns the description of the columns: the rows, and those of the configuration `labels`.

    Args:
        measured: What was measured.
        facts: What is known of the source.
    """
    return [_record_set(measured, facts), _labels_record_set(measured, facts)]


def describe_dataset(measured: MeasuredDataset, facts: SourceFacts) -> dict[str, Any]:
    """Returns the properties that describe the dataset as a whole, without those that have no value.

    Args:
        measured: What was measured.
        facts: What is known of the source.
    """
    dataset, synthetic = facts.dataset, facts.is_synthetic
    license_ = license_header(dataset.license)
    has_address = dataset.license not in ("", "other", "unknown")
    kind = f"{dataset.images} images" if dataset.images else "images"
    text = "the prompt that generated it" if synthetic else "a text"
    count = f"{measured.rows:,} {kind}, each with {text} and 14 labels in the scheme of CheXpert; {measured.pixels}."
    properties = {
        "name": dataset.name or UNNAMED,
        "description": " ".join(filter(None, [" ".join(dataset.description.split()), count])),
        "url": dataset.homepage,
        "sameAs": dataset.paper,
        "license": license_of(license_, "") if has_address else None,
        "creator": [{"@type": "sc:Person", "name": name} for name in dataset.authors],
        "datePublished": dataset.date,
        "version": dataset.version,
        "keywords": [*KEYWORDS, *["synthetic data", "text-to-image"] * synthetic],
        "citeAs": " ".join(dataset.citation.split()),
        **_responsible_ai(facts),
        **_provenance(facts.steps),
        **facts.croissant,
    }
    stated = {key: value for key, value in properties.items() if value}
    if dataset.images:
        stated["rai:hasSyntheticData"] = synthetic
    return {**stated, "isLiveDataset": False}


def with_repository(text: str, url: str, name: str | None, license_: str | list[str] | None) -> str:
    """Returns the text for a repository on the Hub.

    Args:
        text: The text of a `croissant.json`.
        url: Page of the repository.
        name: Name of the dataset. Default: keep it; a dataset without a name gets that of the repository.
        license_: Address of the license, or addresses. Default: keep it.
    """
    about = json.loads(text)
    if not name and about["name"] == UNNAMED:
        name = url.rpartition("/")[2]
    changed = {"url": url, "name": name, "license": license_}
    return _to_text({**about, **{key: value for key, value in changed.items() if value}})


def read_files(text: str) -> list[FileObject]:
    """Reads the Parquet files from the text of a `croissant.json`.

    Raises:
        ValueError: The text is something else.

    Example:
        >>> files = [FileObject("data/train-00000-of-00001.parquet", 4, "ab" * 32)]
        >>> read_files(json.dumps({"distribution": _distribution(files)})) == files
        True
    """
    try:
        objects = [node for node in json.loads(text)["distribution"] if node["@type"] == "cr:FileObject"]
        return [FileObject(node["contentUrl"], int(node["contentSize"].split()[0]), node["sha256"]) for node in objects]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a Croissant file of Parquet files: {error!r}") from None


def _to_text(about: dict[str, Any]) -> str:
    return json.dumps(about, indent=2, ensure_ascii=False) + "\n"


def _distribution(files: list[FileObject]) -> list[dict[str, Any]]:
    objects = [
        {
            "@type": "cr:FileObject",
            "@id": _file_id(file),
            "name": _file_id(file),
            "contentUrl": file.path,
            "contentSize": f"{file.size} B",
            "encodingFormat": PARQUET,
            "sha256": file.sha256,
        }
        for file in files
    ]
    file_set = {
        "@type": "cr:FileSet",
        "@id": FILE_SET,
        "name": "Parquet files",
        "description": "The files of data/, as convert_to_parquet.py writes them: the rows, in order.",
        "encodingFormat": PARQUET,
        "includes": DATA_FILES,
    }
    return [*objects, file_set]


def _file_id(file: FileObject) -> str:
    return file.path if file.path == LABELS_FILE else Path(file.path).name  # a file of data/ may have the same name


def _responsible_ai(facts: SourceFacts) -> dict[str, Any]:
    """Returns properties of the `rai` vocabulary; general sentences only where they are true of any such dataset."""
    synthetic = facts.is_synthetic
    collected = [str(describe_step(step)) for step in facts.steps if step["step"] == "generate"]
    processed = [str(describe_step(step)) for step in facts.steps if step["step"] != "generate"]
    generated = ["Nothing was collected: every image was generated."] * bool(collected)
    unchanged = "The image files of the source are in the Parquet files unchanged."
    judges = [agent_of(step) for step in facts.steps if step["step"] == "filter" and step.get("model")]
    research = [
        "Research on generative models of chest radiographs: fidelity, privacy, fairness.",
        "Research on training and augmentation with synthetic images.",
    ]
    social = "Synthetic images can ease research where radiographs of patients cannot be shared. "
    social += "Taken for real ones they can mislead; keep the word synthetic with them."
    return {
        "rai:dataCollection": " ".join([*generated, *collected]),
        "rai:dataCollectionType": ["Synthetic"] * synthetic,
        "rai:dataPreprocessingProtocol": [*processed, unchanged],
        "rai:dataAnnotationProtocol": "The labels are the CheXpert labels that belong to the prompt." * synthetic,
        "rai:machineAnnotationTools": [f"{judge} (quality filter)" for judge in judges],
        "rai:dataUseCases": [*research * synthetic, "".join(NOT_FOR)],
        "rai:dataLimitations": limits_of(facts),
        "rai:dataBiases": biases_of(facts),
        "rai:personalSensitiveInformation": " ".join(texts_of(facts.steps, "personal_information")),
        "rai:dataSocialImpact": social * synthetic,
    }


def _provenance(steps: tuple[Step, ...]) -> dict[str, Any]:
    """Returns an activity for each step, with what did it as its agent, and what the dataset was derived from."""
    activities, derived = [], []
    for number, step in enumerate(steps, 1):
        started, ended = span_of(step)
        activity = {
            "@type": "prov:Activity",
            "@id": f"step-{number}",
            "prov:label": describe_step(step).short,
            "prov:startedAtTime": started,
            "prov:endedAtTime": ended,
            "prov:wasAssociatedWith": _agent(step, number),
        }
        activities.append({key: value for key, value in activity.items() if value})
        sources = step.get("sources")
        derived += [_entity(source) for source in (sources if isinstance(sources, list) else [])]
    return {"prov:wasDerivedFrom": [one for one in derived if one], "prov:wasGeneratedBy": activities}


def _agent(step: Step, number: int) -> dict[str, Any]:
    label, address = agent_of(step), step.get("model_url")
    id_ = address if is_web_address(address) else f"agent-{number}"
    return {"@type": "prov:SoftwareAgent", "@id": id_, "prov:label": label} if label else {}


def _entity(source: Any) -> dict[str, Any]:
    """Returns an entry of the field `sources`, an object with `name` and `url`, as an entity."""
    name, address = (source.get("name"), source.get("url")) if isinstance(source, dict) else (source, None)
    labelled = {"prov:label": name} if isinstance(name, str) else {}
    return {**({"@id": address} if is_web_address(address) else {}), **labelled}


def _record_set(measured: MeasuredDataset, facts: SourceFacts) -> dict[str, Any]:
    values = VALUE_MEANINGS[measured.uncertainty]

    def field(path: str, data_type: str, description: str, column: str, member: str | None = None) -> dict[str, Any]:
        source: dict[str, Any] = {"fileSet": {"@id": FILE_SET}, "extract": {"column": column}}
        if member:
            source["transform"] = {"jsonPath": f"'{member}'" if " " in member else member}
        return _field(f"{RECORD_SET}/{path}", path.rpartition("/")[2], data_type, description, source)

    labels = [
        field(f"labels_dict/{label}", "cr:Int8", f"{LABEL_MEANINGS[label]}; {values}", "labels_dict", label)
        for label in LABELS
    ]
    fields = [
        field("image", "sc:ImageObject", "The image file", "image", "bytes"),
        *(field(name, "sc:Text", description, name) for name, description in _texts(facts).items()),
        {
            "@type": "cr:Field",
            "@id": f"{RECORD_SET}/labels_dict",
            "name": "labels_dict",
            "description": f"The CheXpert labels ({CHEXPERT})",
            "subField": labels,
        },
    ]
    return _records(RECORD_SET, f"{measured.rows:,} rows, one for each image; the split is train", fields)


def _labels_record_set(measured: MeasuredDataset, facts: SourceFacts) -> dict[str, Any]:
    columns = {name: ("sc:Text", description) for name, description in _texts(facts).items()}
    raw = VALUE_MEANINGS["keep"]
    columns |= {label: ("cr:Int8", f"{LABEL_MEANINGS[label]}; {raw}") for label in LABELS}
    columns |= {
        name: (DATA_TYPES[dtype], f"The column {name} of the metadata of the source; null: an empty cell")
        for name, dtype in measured.labels.columns.items()
    }
    fields: dict[str, dict[str, Any]] = {}
    for name, (data_type, description) in columns.items():
        source = {"fileObject": {"@id": LABELS_FILE}, "extract": {"column": name}}
        id_ = f"{CONFIG}/{re.sub(r'[^0-9A-Za-z.-]', '_', name)}"
        while id_ in fields:  # of another column, in whose name another character was replaced
            id_ += "_"
        fields[id_] = _field(id_, name, data_type, description, source)
    about = f"The same {measured.rows:,} rows without images, in the same order, with a column for each label"
    return _records(CONFIG, about, [*fields.values()])


def _texts(facts: SourceFacts) -> dict[str, str]:
    """Returns what the columns of texts hold, by name."""
    prompt = "The text that generated the image" if facts.is_synthetic else "The text of the image"
    return {"filename": "The name of the image file, unique in the dataset", "prompt": prompt}


def _records(name: str, description: str, fields: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": description,
        "key": {"@id": f"{name}/filename"},
        "field": fields,
    }


def _field(id_: str, name: str, data_type: str, description: str, source: dict[str, Any]) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": id_.replace(" ", "_"),  # an @id has no spaces
        "name": name,
        "description": description,
        "dataType": data_type,
        "source": source,
    }
