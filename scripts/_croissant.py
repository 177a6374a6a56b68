"""`croissant.json`: what a Parquet repository holds, for machines.

The format is Croissant 1.1 (https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html) with the Responsible-AI
properties of its `rai` vocabulary and the provenance of W3C PROV that dataset tracks ask for, such as that of NeurIPS
2026 (https://neurips.cc/Conferences/2026/EvaluationsDatasetsHosting). Addresses in it are relative to the file, so that
it is as true in a folder as on the Hub.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from _parquet_card import DATA_FILES
from _quality import META_PROMPT

from synthchex_75k import LABELS

CROISSANT = "croissant.json"
PAPER = "https://arxiv.org/abs/2505.10496"
HOME = "https://huggingface.co/datasets/raman07/SynthCheX-75K"
PARQUET = "application/x-parquet"
FILE_SET = "parquet-files"
RECORD_SET = "default"
CITATION = (
    "@article{dutt2025chexgenbench, title={CheXGenBench: A Unified Benchmark For Fidelity, Privacy and Utility of "
    "Synthetic Chest Radiographs}, author={Dutt, Raman and Sanchez, Pedro and Yao, Yongchen and McDonagh, Steven and "
    "Tsaftaris, Sotirios A. and Hospedales, Timothy}, journal={arXiv preprint arXiv:2505.10496}, year={2025}}"
)
AUTHORS = (
    "Raman Dutt",
    "Pedro Sanchez",
    "Yongchen Yao",
    "Steven McDonagh",
    "Sotirios A. Tsaftaris",
    "Timothy Hospedales",
)
MEANINGS = {
    "Atelectasis": "collapse of a part of a lung",
    "Cardiomegaly": "enlarged heart",
    "Consolidation": "air spaces of the lung filled with fluid, pus or cells",
    "Edema": "fluid in the tissue of the lung",
    "Enlarged Cardiomediastinum": "widened silhouette of the heart and the mediastinum",
    "Fracture": "broken bone, mostly a rib",
    "Lung Lesion": "nodule, mass or other circumscribed lesion of the lung",
    "Lung Opacity": "area of the lung that is denser than it should be, of whatever cause",
    "No Finding": "none of the findings; support devices may be there",
    "Pleural Effusion": "fluid between the lung and the chest wall",
    "Pleural Other": "other change of the pleura, such as thickening",
    "Pneumonia": "infection of the lung",
    "Pneumothorax": "air between the lung and the chest wall",
    "Support Devices": "tube, line, pacemaker or other device",
}
VALUES = {
    "zeros": "1: positive; 0: negative, uncertain or not mentioned (U-Zeros)",
    "ones": "1: positive or uncertain; 0: negative or not mentioned (U-Ones)",
    "keep": "1: positive; 0: negative; -1: uncertain; null: not mentioned",
}
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "prov": "http://www.w3.org/ns/prov#",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
RESPONSIBLE_AI: dict[str, Any] = {
    "rai:hasSyntheticData": True,
    "rai:dataCollection": (
        "Nothing was collected: every image was generated. Sana (0.6B), a text-to-image model fine-tuned on chest "
        "radiographs, drew an image for each prompt; the paper describes the training."
    ),
    "rai:dataCollectionType": ["Synthetic"],
    "rai:dataPreprocessingProtocol": [
        "Filtration: HealthGPT, a medical vision-language model, got each image with its prompt and this meta-prompt: "
        f"\"{META_PROMPT}\" Images that it called 'Low Quality' or 'Not Relevant' were removed.",
        "The PNG files of the release are in the Parquet files byte for byte.",
    ],
    "rai:dataAnnotationProtocol": (
        "The labels are the CheXpert labels that belong to the prompt. Nobody checked that an image shows them."
    ),
    "rai:machineAnnotationTools": ["HealthGPT (quality filter)"],
    "rai:dataUseCases": [
        "Research on generative models of chest radiographs: fidelity, privacy, fairness.",
        "Research on training and augmentation with synthetic images.",
        "Not for diagnosis, nor for any decision about a patient, nor to show that a model is fit for clinical use.",
    ],
    "rai:dataLimitations": [
        "Anatomy and findings can be wrong: no image shows a patient, and no radiologist has read the images.",
        "A label says what the prompt says. 'Not mentioned' is the most frequent raw value, and read as negative it "
        "makes many false negatives.",
        "Images of 512x512 pixels from one generator: what is learnt from them may not hold for real radiographs.",
    ],
    "rai:dataBiases": [
        "Whatever the generator's training data favour or leave out, the images favour or leave out too.",
        "The filter was a model: it may have removed some findings more often than others.",
        "Labels are very unevenly frequent; the card shows how much.",
    ],
    "rai:personalSensitiveInformation": (
        "None: the images are synthetic and the prompts describe findings. A generator can still come close to an "
        "image of its training data; the paper measures that. Do not try to identify anyone."
    ),
    "rai:dataSocialImpact": (
        "Images that anyone may use ease research where radiographs of patients cannot be shared. Taken for real ones "
        "they can mislead; keep the word synthetic with them."
    ),
    "rai:dataReleaseMaintenancePlan": "Corrections are commits to the repository; each one can be named and loaded.",
    "prov:wasDerivedFrom": {
        "@id": PAPER,
        "prov:label": "CheXGenBench: the generator, the radiographs that it was fine-tuned on, the prompts",
    },
    "prov:wasGeneratedBy": [
        {
            "@type": "prov:Activity",
            "@id": "generation",
            "prov:label": "Generation of an image from each prompt",
            "prov:wasAssociatedWith": {
                "@type": "prov:SoftwareAgent",
                "@id": "https://arxiv.org/abs/2410.10629",
                "prov:label": "Sana (0.6B), fine-tuned on chest radiographs",
            },
        },
        {
            "@type": "prov:Activity",
            "@id": "filtration",
            "prov:label": "Removal of what was called 'Low Quality' or 'Not Relevant'",
            "prov:wasAssociatedWith": {
                "@type": "prov:SoftwareAgent",
                "@id": "https://arxiv.org/abs/2502.09838",
                "prov:label": "HealthGPT",
            },
        },
    ],
}


class FileObject(NamedTuple):
    """A Parquet file of the repository: name in `data/`, size in bytes, SHA-256."""

    name: str
    size: int
    sha256: str


def write_croissant(rows: int, files: list[FileObject], uncertainty: str) -> str:
    """Writes the file.

    Args:
        rows: Number of rows.
        files: The Parquet files, in order.
        uncertainty: Label policy with which the labels were written, a key of `synthchex_75k.UNCERTAINTY`.

    Returns:
        The text, JSON-LD; its `url` is the page of the release.
    """
    about = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": "SynthCheX-75K",
        "description": (
            f"{rows:,} synthetic chest radiographs, 512x512 RGB PNGs, each with the prompt that generated it and 14 "
            "labels in the scheme of CheXpert. No picture shows a patient."
        ),
        "url": HOME,
        "sameAs": PAPER,
        "license": "https://www.apache.org/licenses/LICENSE-2.0",
        "creator": [{"@type": "sc:Person", "name": name} for name in AUTHORS],
        "datePublished": "2025-05-15",
        "version": "1.0.0",
        "inLanguage": "en",
        "keywords": ["chest x-ray", "radiology", "synthetic data", "CheXpert", "text-to-image"],
        "isLiveDataset": False,
        "citeAs": CITATION,
    }
    records = [_record_set(rows, uncertainty)]
    return _to_text({**about, "distribution": _distribution(files), "recordSet": records, **RESPONSIBLE_AI})


def at_url(text: str, url: str) -> str:
    """Returns the text of a `croissant.json` with the page of the repository that it goes to."""
    return _to_text({**json.loads(text), "url": url})


def _to_text(about: dict[str, Any]) -> str:
    return json.dumps(about, indent=2, ensure_ascii=False) + "\n"


def read_files(text: str) -> list[FileObject]:
    """Reads the Parquet files from the text of a `croissant.json`.

    Raises:
        ValueError: It is no such text.

    Example:
        >>> files = [FileObject("train-00000-of-00001.parquet", 4, "ab" * 32)]
        >>> read_files(write_croissant(2, files, "zeros")) == files
        True
    """
    try:
        objects = [node for node in json.loads(text)["distribution"] if node["@type"] == "cr:FileObject"]
        return [FileObject(node["name"], int(node["contentSize"].split()[0]), node["sha256"]) for node in objects]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a Croissant file of Parquet files: {error!r}") from None


def _distribution(files: list[FileObject]) -> list[dict[str, Any]]:
    objects = [
        {
            "@type": "cr:FileObject",
            "@id": file.name,
            "name": file.name,
            "contentUrl": f"data/{file.name}",
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
    labels = [
        _field(
            f"labels_dict/{label}", label, "cr:Int8", f"{MEANINGS[label]}; {VALUES[uncertainty]}", "labels_dict", label
        )
        for label in LABELS
    ]
    about = "The CheXpert labels of the prompt (https://arxiv.org/abs/1901.07031)"
    fields = [
        _field("image", "image", "sc:ImageObject", "The PNG file of the image", "image", "bytes"),
        _field("filename", "filename", "sc:Text", "Its name; no two rows have the same", "filename"),
        _field("prompt", "prompt", "sc:Text", "The text that generated the image", "prompt"),
        {"@type": "cr:Field", "@id": f"{RECORD_SET}/labels_dict", "name": "labels_dict", "description": about}
        | {"subField": labels},
    ]
    return {
        "@type": "cr:RecordSet",
        "@id": RECORD_SET,
        "name": RECORD_SET,
        "description": f"{rows:,} rows, one for each image; the split is train",
        "key": {"@id": f"{RECORD_SET}/filename"},
        "field": fields,
    }


def _field(
    path: str, name: str, data_type: str, description: str, column: str, member: str | None = None
) -> dict[str, Any]:
    source: dict[str, Any] = {"fileSet": {"@id": FILE_SET}, "extract": {"column": column}}
    if member:
        source["transform"] = {"jsonPath": f"'{member}'" if " " in member else member}
    return {
        "@type": "cr:Field",
        "@id": f"{RECORD_SET}/{path}".replace(" ", "_"),  # an @id has no spaces
        "name": name,
        "description": description,
        "dataType": data_type,
        "source": source,
    }
