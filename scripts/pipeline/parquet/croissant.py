"""`croissant.json`: a machine-readable description of a Parquet repository.

The format is Croissant 1.1 (https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html) with the Responsible-AI
properties of its `rai` vocabulary and the provenance of W3C PROV that dataset tracks ask for, such as that of NeurIPS
2026 (https://neurips.cc/Conferences/2026/EvaluationsDatasetsHosting). The constant part is the file `croissant.json`
beside this module. Addresses are relative to the file, so that it holds in a folder and on the Hub.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.facts import AUTHORS, DATE, LABEL_MEANINGS, LICENSE, META_PROMPT, NAME, PAPER, VALUE_MEANINGS
from pipeline.parquet.layout import DATA_FILES
from synthchex_75k import CITATION, HOMEPAGE, LABELS

CONSTANT_PART = Path(__file__).with_name("croissant.json")
PARQUET = "application/x-parquet"
FILE_SET = "parquet-files"
RECORD_SET = "default"


class FileObject(NamedTuple):
    """A Parquet file of the repository: path, size in bytes, SHA-256."""

    path: str
    size: int
    sha256: str


def write_croissant(rows: int, files: list[FileObject], uncertainty: str) -> str:
    """Returns the text of `croissant.json`.

    Args:
        rows: Number of rows.
        files: The Parquet files, in order.
        uncertainty: Label policy of the labels, a key of `synthchex_75k.UNCERTAINTY`.

    Returns:
        JSON-LD; its `url` is the page of the release.
    """
    constant = json.loads(CONSTANT_PART.read_text(encoding="utf-8"))
    protocol = "rai:dataPreprocessingProtocol"
    constant[protocol] = [step.replace("$meta_prompt", META_PROMPT) for step in constant[protocol]]
    about = {
        "@context": constant.pop("@context"),
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": NAME,
        "description": (
            f"{rows:,} synthetic chest radiographs, each with the prompt that generated it and 14 labels in the scheme "
            "of CheXpert. No image shows a patient."
        ),
        "url": HOMEPAGE,
        "sameAs": PAPER,
        "license": LICENSE,
        "creator": [{"@type": "sc:Person", "name": name} for name in AUTHORS],
        "datePublished": DATE,
        "version": "1.0.0",
        "inLanguage": "en",
        "keywords": ["chest x-ray", "radiology", "synthetic data", "CheXpert", "text-to-image"],
        "isLiveDataset": False,
        "citeAs": " ".join(CITATION.split()),
    }
    records = [_record_set(rows, uncertainty)]
    return _to_text({**about, "distribution": _distribution(files), "recordSet": records, **constant})


def with_repository(text: str, url: str, name: str | None, license_: str | list[str] | None) -> str:
    """Returns the text for a repository on the Hub.

    Args:
        text: The text of a `croissant.json`.
        url: Page of the repository.
        name: Name of the dataset. Default: keep it.
        license_: Address of the license, or addresses. Default: keep it.
    """
    changed = {"url": url, "name": name, "license": license_}
    return _to_text({**json.loads(text), **{key: value for key, value in changed.items() if value}})


def read_files(text: str) -> list[FileObject]:
    """Reads the Parquet files from the text of a `croissant.json`.

    Raises:
        ValueError: The text is something else.

    Example:
        >>> files = [FileObject("data/train-00000-of-00001.parquet", 4, "ab" * 32)]
        >>> read_files(write_croissant(2, files, "zeros")) == files
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
            "@id": Path(file.path).name,
            "name": Path(file.path).name,
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
        "description": "The files above, as convert_to_parquet.py writes them: the rows, in order.",
        "encodingFormat": PARQUET,
        "includes": DATA_FILES,
    }
    return [*objects, file_set]


def _record_set(rows: int, uncertainty: str) -> dict[str, Any]:
    values = VALUE_MEANINGS[uncertainty]
    labels = [
        _field(f"labels_dict/{label}", "cr:Int8", f"{LABEL_MEANINGS[label]}; {values}", "labels_dict", label)
        for label in LABELS
    ]
    fields = [
        _field("image", "sc:ImageObject", "The PNG file of the image", "image", "bytes"),
        _field("filename", "sc:Text", "Its name, unique in the dataset", "filename"),
        _field("prompt", "sc:Text", "The text that generated the image", "prompt"),
        {
            "@type": "cr:Field",
            "@id": f"{RECORD_SET}/labels_dict",
            "name": "labels_dict",
            "description": "The CheXpert labels of the prompt (https://arxiv.org/abs/1901.07031)",
            "subField": labels,
        },
    ]
    return {
        "@type": "cr:RecordSet",
        "@id": RECORD_SET,
        "name": RECORD_SET,
        "description": f"{rows:,} rows, one for each image; the split is train",
        "key": {"@id": f"{RECORD_SET}/filename"},
        "field": fields,
    }


def _field(path: str, data_type: str, description: str, column: str, member: str | None = None) -> dict[str, Any]:
    source: dict[str, Any] = {"fileSet": {"@id": FILE_SET}, "extract": {"column": column}}
    if member:
        source["transform"] = {"jsonPath": f"'{member}'" if " " in member else member}
    return {
        "@type": "cr:Field",
        "@id": f"{RECORD_SET}/{path}".replace(" ", "_"),  # an @id has no spaces
        "name": path.rpartition("/")[2],
        "description": description,
        "dataType": data_type,
        "source": source,
    }
