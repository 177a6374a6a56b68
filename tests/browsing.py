"""What the tests of the page of images share: a source of hostile texts, and reading HTML."""

from __future__ import annotations

import csv
import json
import zlib
from html.parser import HTMLParser
from pathlib import Path

import synthchex_75k
from conftest import to_csv, to_zip
from images import chunk
from invented_results import lists_of, results
from invented_sections import section

MARKUP = "<img src=x onerror=\"document.title='run'\">"
TEMPLATE = "${document.title='run'} {{constructor}} `"
HOSTILE = f"Edema {MARKUP} {TEMPLATE} </button><script>document.title='run'</script>"
PATIENT = f"p1 {MARKUP}"
DAMAGED = 7  # place of the image that cannot be decoded


def hostile_name(name: str) -> str:
    """Returns a file name with markup that, in a page, would be run."""
    return f"<img src=x onerror=document.title='run'>{name}"


def hostile_source(folder: Path, images: dict[str, bytes], table: list[dict[str, str]]) -> list[str]:
    """Writes the fixture with markup in all names and prompts, three patients, and one damaged image.

    Returns:
        The file names.
    """
    names = [hostile_name(name) for name in images]
    rows = [
        {**row, "filename": hostile_name(row["filename"]), "prompt": f"{row['prompt']} {HOSTILE}", "patientID": patient}
        for row, patient in zip(table, [PATIENT, "p2", "p3"] * 4)
    ]
    content = dict(zip(names, images.values()))
    # Every chunk is whole, so that only a decoder finds what is wrong.
    png = content[names[DAMAGED]]
    content[names[DAMAGED]] = png[:33] + chunk(b"IDAT", b"no pixels") + png[-12:]
    folder.mkdir()
    to_zip(folder / "images.zip", content)
    (folder / "metadata.csv").write_bytes(to_csv(rows))
    return names


def write_answers(path: Path, names: list[str]) -> Path:
    """Writes a LABELS_CSV: answers with markup, of two qualities in turn, for all but the last image."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["filename", "quality", "response", "model", "latency_s"])
        for place, name in enumerate(names[:-1]):
            quality = ("High Quality", "Low Quality")[place % 2]
            writer.writerow([name, quality, f"{quality}. {HOSTILE}", f"judge {MARKUP}", "0.100"])
    return path


def write_lists(path: Path, source: Path) -> Path:
    """Writes a RESULTS_JSON that lists images of a source, with the next one as the closest."""
    rows = synthchex_75k.examples(synthchex_75k.plan(str(source)), "keep")
    about = {row["filename"]: row["image"]["bytes"] for row in rows}
    fidelity = results(about)
    names = [*about]
    fidelity["images"]["biovil-t"] = {**lists_of(about, has_texts=True), "adds_most_to_fd": [], "least_like_real": []}
    images = [
        {"filename": name, "crc32": zlib.crc32(about[name]), "prompt": f"Training {MARKUP}"} for name in names[:3]
    ]
    pairs = [
        {"synthetic": images[0], "train": images[1], "value": 0.125, "about": {f"nearest {MARKUP}": 0.5}},
        {"synthetic": images[2], "train": images[0], "value": 0.25, "about": {}},
    ]
    privacy = section([], pairs={f"rad-dino {MARKUP}": {"closest": pairs}})
    path.write_text(json.dumps({"format": 2, "fidelity": fidelity, "privacy": privacy}), encoding="utf-8")
    return path


class Html(HTMLParser):
    """HTML as a browser reads it.

    Attributes:
        tags: Each tag with its attributes, in order.
        text: All text.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def opens(self) -> list[int]:
        """Returns the rows that its buttons open."""
        return [int(attributes["data-open"] or "") for _, attributes in self.tags if "data-open" in attributes]
