"""What card and croissant.json state of a dataset: measured, stated by people, or that it is not stated."""

import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlcroissant
import PIL.Image
import pytest
from huggingface_hub import DatasetCard
from hypothesis import given, settings
from hypothesis import strategies as st

import filter_quality
import pack_shards
from conftest import FIXTURE, ROOT, contents, convert, files_of, to_csv, to_files, to_zip
from labelling import write_labels
from pipeline.dataset_json import DatasetFacts, parse_dataset_json
from pipeline.facts import META_PROMPT, RELEASE_FACTS, SourceFacts, read_facts
from pipeline.folder import MANIFEST
from pipeline.parquet.card import MeasuredDataset, write_card
from pipeline.parquet.card_merge import merge_cards, read_header, sections_of
from pipeline.parquet.croissant import UNNAMED, describe_dataset, write_croissant
from pipeline.parquet.pixels import Pixels, kind_of_image, summarize
from pipeline.provenance import provenance_json
from servers.local_hub import Hub, yaml_errors
from synthchex_75k import LABELS, plan

FORBIDDEN = re.compile(
    r"Sana|HealthGPT|MIMIC|CheXGenBench|SynthCheX|Dutt|\b512\b|512x512|75,?649|synthetic|no image shows|generated it"
    r"|apache-2|2505\.10496|none in images|false negatives",
    re.IGNORECASE,
)
SECTIONS = {"summary", "row", "use", "labels", "dataset", "citation"}
MEASURED = MeasuredDataset(12, 2_000, [3_000_000], "keep", Pixels(("PNG",), (256, 256), (256, 256)))
REAL = {
    "name": "Radiographs of hills",
    "images": "real",
    "authors": ["Ada", "Bo"],
    "license": "https://example.org/terms",
    "date": "2026-02-28",
}
GENERATED: dict[str, Any] = {
    "step": "generate",
    "model": "Mountain <b>2</b>",
    "revision": "abc123",
    "lora": {"name": "hills", "sha256": "ff00"},
    "pipeline": "HillPipeline",
    "steps": 20,
    "guidance": 4.5,
    "size": [256, 256],
    "seed": 12345,
    "prompts": {"name": "prompts.csv", "rows": 20000},
    "runs": [
        {"started": "2026-01-02T00:00:00Z", "ended": "2026-01-02T01:00:00Z", "hardware": "GPU A"},
        {"started": "2026-01-01T00:00:00Z", "ended": "2026-01-01T01:00:00Z", "hardware": "GPU B"},
    ],
    "sampler_of_theirs": "x|y",
}
SCANNED: dict[str, Any] = {"step": "scan", "sources": ["a hospital", {"name": "b", "url": "https://b.org"}, {}]}
ONE = ("--num-proc", "1")
Texts = tuple[str, dict[str, Any]]


def pngs(count: int, pixels: int) -> dict[str, bytes]:
    """Returns images of one size, all different."""
    images = {}
    for number in range(count):
        png = io.BytesIO()
        PIL.Image.new("L", (pixels, pixels), number).save(png, "PNG")
        images[f"picture{number}.png"] = png.getvalue()
    return images


def jpegs(count: int) -> dict[str, bytes]:
    """Returns JPEG images of 64x48 pixels."""
    images = {}
    for number in range(count):
        jpeg = io.BytesIO()
        PIL.Image.new("L", (64, 48), number).save(jpeg, "JPEG")
        images[f"radiograph{number}.jpg"] = jpeg.getvalue()
    return images


def write_images(folder: Path, images: dict[str, bytes], **files: Any) -> Path:
    """Writes a source from anywhere: a zip, a CSV, and JSON files."""
    to_zip(folder / "images.zip", images)
    rows = [{"filename": name, "prompt": f"About {name}.", **dict.fromkeys(LABELS, "0")} for name in images]
    to_files(folder, {"table.csv": to_csv(rows)})
    to_files(folder, {f"{name}.json": json.dumps(content).encode() for name, content in files.items()})
    return folder


def stated(output: Path) -> Texts:
    """Returns the text of the card without its examples of code, and what croissant.json holds."""
    card = (output / "README.md").read_text(encoding="utf-8")
    return card, json.loads((output / "croissant.json").read_text(encoding="utf-8"))


@pytest.fixture
def described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[str, dict[str, Any], str]]:
    """Converts images and returns card, croissant.json and the messages; the result verifies."""

    def run(images: dict[str, bytes], **files: Any) -> tuple[str, dict[str, Any], str]:
        source, output = write_images(tmp_path / "source", images, **files), tmp_path / "o"
        assert convert(source, output, "--num-proc", "1") == 0
        messages = capsys.readouterr().err
        assert convert(source, output, "--verify", "--num-proc", "1") == 0
        return *stated(output), messages

    return run


# What is not stated


def test_images_from_anywhere_are_not_the_release(described: Any, tmp_path: Path) -> None:
    card, croissant, messages = described(pngs(8, 256))
    assert not FORBIDDEN.search(card), FORBIDDEN.search(card)
    assert not FORBIDDEN.search(json.dumps(croissant)), FORBIDDEN.search(json.dumps(croissant))
    assert messages == (
        f"{tmp_path}/source has no dataset.json with name, description, images, authors, license, citation, homepage, "
        "paper, date, version and no provenance.json with how the images were made: the card says 'not stated'; see "
        "scripts/README.md\n"
    )
    assert "8 images in 1 Parquet file" in card
    assert "| Images | PNG, 256x256 pixels; origin not stated |" in card
    for name in ("Authors", "License", "Homepage", "Paper", "Date", "Version"):
        assert f"| {name} | not stated |" in card
    assert "How the images came about: not stated." in card
    assert not {"license", "pretty_name", "language", "annotations_creators"} & {*read_header(card)}
    assert croissant["name"] == UNNAMED
    absent = {"license", "creator", "datePublished", "citeAs", "version", "url", "rai:hasSyntheticData"}
    assert not {*absent, "prov:wasGeneratedBy", "rai:dataCollection", "rai:personalSensitiveInformation"} & {*croissant}


@pytest.mark.parametrize("missing", [["license"], ["name", "date"]])
def test_what_is_missing_is_asked_for_by_name(missing: list[str], described: Any, tmp_path: Path) -> None:
    dataset = json.loads((FIXTURE / "dataset.json").read_text())
    given_ = {key: value for key, value in dataset.items() if key not in missing}
    _, _, messages = described(pngs(1, 8), dataset=given_, provenance={"steps": [{"step": "scan"}]})
    asked = f"dataset.json with {', '.join(missing)}"
    assert messages == f"{tmp_path}/source has no {asked}: the card says 'not stated'; see scripts/README.md\n"


def test_unnamed_dataset_is_named_as_its_repository(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_alice")
    source = write_images(tmp_path / "source", pngs(1, 8))
    assert convert(source, tmp_path / "o", "--push-to-hub", "alice/hills") == 0
    croissant = json.loads(hub.files("alice/hills")["croissant.json"])
    assert croissant["name"] == "hills"
    assert "license" not in croissant
    capsys.readouterr()
    assert convert(source, tmp_path / "o", "--push-to-hub", "alice/hills") == 0
    assert "nothing to do" in capsys.readouterr().out
    hub.push("alice/hills", {"README.md": b"---\nlicense: mit\n---\nOurs.\n"})
    assert convert(source, tmp_path / "o", "--push-to-hub", "alice/hills") == 0
    assert json.loads(hub.files("alice/hills")["croissant.json"])["license"].endswith("/licenses/mit/")
    card = hub.files("alice/hills")["README.md"]
    assert card.startswith(b"---\nlicense: mit\n")
    assert b"| License | <https://choosealicense.com/licenses/mit/> |" in card
    shutil.rmtree(tmp_path / "o")
    to_files(tmp_path / "o", {name: data for name, data in hub.files("alice/hills").items() if name[0] != "."})
    assert convert(source, tmp_path / "o", "--verify") == 0, "what people wrote is no difference"


# What is stated


def test_real_images_are_not_called_synthetic(described: Any) -> None:
    steps = [{"step": "scan", "device": "Scanner 3", "personal_information": "Names were removed"}]
    card, croissant, _ = described(jpegs(3), dataset=REAL, provenance={"steps": steps})
    assert "| Images | JPEG, 64x48 pixels; real |" in card
    assert croissant["description"].endswith("; JPEG, 64x48 pixels.")
    assert not re.search("synthetic|generat(ed|or)", re.sub("generated by convert_to_parquet", "", card), re.IGNORECASE)
    assert not re.search("Synthetic(?!Data)|generat(ed(?!By)|or)", json.dumps(croissant), re.IGNORECASE)
    assert croissant["rai:hasSyntheticData"] is False
    assert "3 real images in 1 Parquet file" in card
    assert "| License | <https://example.org/terms> |" in card
    assert "1. **Scan.** Device: Scanner 3." in card
    assert "- Personal information: Names were removed." in card
    header = read_header(card)
    assert (header["license"], header["license_link"]) == ("other", REAL["license"])
    assert (croissant["license"], croissant["rai:personalSensitiveInformation"]) == (
        REAL["license"],
        "Names were removed.",
    )
    assert [author["name"] for author in croissant["creator"]] == REAL["authors"]


def test_output_of_another_generator_is_described(described: Any) -> None:
    card, croissant, messages = described(pngs(2, 256), provenance={"steps": [GENERATED]})
    assert "provenance.json" not in messages
    paragraph = sections_of(card)["dataset"]
    assert r"1. **Generation.** Mountain \<b\>2\</b\> generated the images." in paragraph
    for text in (
        "Revision: abc123",
        "LoRA: name hills, SHA-256 ff00",
        "steps: 20",
        "size: 256x256 pixels",
        "seed: 12345",
    ):
        assert text in paragraph
    for text in (
        "rows 20,000",
        r"sampler of theirs: x\|y",
        "hardware: GPU A or GPU B",
        "started: 2026-01-01T00:00:00Z",
    ):
        assert text in paragraph
    assert "2 synthetic images" in card
    assert "synthetic" in read_header(card)["tags"]
    (activity,) = croissant["prov:wasGeneratedBy"]
    assert activity["prov:wasAssociatedWith"]["prov:label"] == GENERATED["model"]
    assert (activity["prov:startedAtTime"], activity["prov:endedAtTime"]) == (
        "2026-01-01T00:00:00Z",
        "2026-01-02T01:00:00Z",
    )
    assert croissant["rai:hasSyntheticData"] is True
    assert f"{GENERATED['model']} generated the images." in croissant["rai:dataCollection"]


def test_provenance_goes_through_all_programs(tmp_path: Path) -> None:
    images, names = pngs(6, 64), [f"picture{number}.png" for number in range(6)]
    rows = [{"filename": name, "prompt": "A hill.", **dict.fromkeys(LABELS, "0")} for name in names]
    rows[0]["Edema"] = rows[1]["Edema"] = rows[4]["Edema"] = rows[2]["Fracture"] = "1"
    dataset = {"name": "Hills", "license": "mit"}
    files = {"provenance.json": provenance_json([GENERATED]), "dataset.json": json.dumps(dataset).encode()}
    to_files(tmp_path / "images", {**images, **files})
    to_files(tmp_path / "table", {"prompts.csv": to_csv(rows)})
    packing = [str(tmp_path / "images"), str(tmp_path / "table/prompts.csv"), str(tmp_path / "packed"), "--size", "32"]
    assert pack_shards.main([*packing, *ONE]) == 0
    qualities = ["Low Quality", "Not Relevant", "Unparsed", "High Quality", "High Quality", "Medium Quality"]
    labels = [
        {"filename": name, "quality": quality, "response": "x", "model": "/models/judge", "latency_s": "0.1"}
        for name, quality in zip(names, qualities, strict=True)
    ]
    judge = {"model": "/models/judge", "meta_prompt": "Is this *really* a hill?"}
    to_files(tmp_path, {"labels.csv": to_csv(labels), "labels.csv.json": json.dumps(judge).encode()})
    applying = ["apply", str(tmp_path / "packed"), str(tmp_path / "labels.csv"), str(tmp_path / "kept")]
    applying += ["--unparsed", "drop", *ONE]
    assert filter_quality.main(applying) == 0
    made = json.loads((tmp_path / "kept/provenance.json").read_text(encoding="utf-8"))["steps"]
    assert [step["step"] for step in made] == ["generate", "pack", "filter"]
    assert made[0] == GENERATED
    assert (made[1]["images"], made[1]["size"]) == (6, [32, 32])
    counts = {"Low Quality": 1, "Not Relevant": 1, "Unparsed": 1}
    assert (made[2]["kept"], made[2]["total"], made[2]["dropped_by_quality"]) == (3, 6, counts)
    assert made[2]["dropped_by_label"] == {**dict.fromkeys(LABELS, 0), "Edema": 2, "Fracture": 1}
    assert (made[2]["model"], made[2]["meta_prompt"]) == ("judge", judge["meta_prompt"]), "no path of this machine"
    assert (made[2]["drop"], made[2]["unparsed"]) == (["Low Quality", "Not Relevant"], "drop")
    for folder in ("packed", "kept"):
        assert (tmp_path / folder / "dataset.json").read_bytes() == files["dataset.json"]
    assert convert(tmp_path / "kept", tmp_path / "o", *ONE) == 0
    card, croissant = stated(tmp_path / "o")
    assert "3 synthetic images" in card
    assert "PNG, 32x32 pixels" in card
    for text in (r"Mountain \<b\>2\</b\> generated", "resized to 32x32 pixels", r"> Is this \*really\* a hill?"):
        assert text in card
    assert "judge judged each image." in card
    assert "dropped by quality: Low Quality 1, Not Relevant 1, Unparsed 1" in card
    assert "Edema 2" in card
    protocol = " ".join(croissant["rai:dataPreprocessingProtocol"])
    for text in (judge["meta_prompt"], "judge judged", "Not Relevant 1", "Edema 2", "32x32"):
        assert text in protocol
    agents = [activity["prov:wasAssociatedWith"]["prov:label"] for activity in croissant["prov:wasGeneratedBy"]]
    assert agents == [GENERATED["model"], "pack_shards.py 1.0.0", "judge"]
    assert (croissant["name"], croissant["license"]) == ("Hills", "https://choosealicense.com/licenses/mit/")
    before = {folder: contents(tmp_path / folder) for folder in ("packed", "kept", "o")}
    assert pack_shards.main([*packing, *ONE]) == filter_quality.main(applying) == 0
    assert convert(tmp_path / "kept", tmp_path / "o", *ONE) == 0
    assert {folder: contents(tmp_path / folder) for folder in before} == before, "a rerun gives the same bytes"


# The published release


def test_release_is_described_by_its_own_facts(hub: Hub) -> None:
    release = {name: data for name, data in contents(FIXTURE).items() if not name.endswith(".json")}
    cards, croissants = [], []
    for repo in ("raman07/SynthCheX-75K", "alice/copy"):
        hub.create(repo, files=release)
        address = f"hf://datasets/{repo}"
        facts = read_facts(plan(address), address)
        cards.append(write_card(MEASURED, facts, "{}", []))
        croissants.append(write_croissant(MEASURED, facts, []))
    for text in ("Sana (0.6B)", "HealthGPT", META_PROMPT, "MIMIC-CXR", "No image shows a patient.", "Raman Dutt"):
        assert text in cards[0]
        assert text in croissants[0]
    assert not FORBIDDEN.search(cards[1])
    assert not FORBIDDEN.search(croissants[1])


@pytest.mark.slow
def test_release_is_converted_from_the_hub(hub: Hub, tmp_path: Path) -> None:
    hub.create(
        "raman07/SynthCheX-75K", files={name: data for name, data in contents(FIXTURE).items() if "json" not in name}
    )
    # In a process of its own: one with threads, such as the Hub's, must not be forked.
    command = [sys.executable, str(ROOT / "scripts/convert_to_parquet.py"), "hf://datasets/raman07/SynthCheX-75K"]
    run = subprocess.run([*command, str(tmp_path / "o"), "--no-figures"], capture_output=True, text=True)
    assert (run.returncode, "not stated" in run.stderr) == (0, False)
    assert "Sana (0.6B)" in (tmp_path / "o/README.md").read_text(encoding="utf-8")
    run = subprocess.run([*command, str(tmp_path / "o"), "--verify"], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, "no difference\n")


def test_part_of_the_release_keeps_its_steps_and_asks_for_a_name() -> None:
    facts = SourceFacts(DatasetFacts(images="synthetic"), RELEASE_FACTS.steps)
    card = write_card(MEASURED, facts, "{}", [])
    assert "Sana (0.6B)" in card
    assert not re.search("SynthCheX-75K|Raman Dutt|apache-2", card)
    assert facts.dataset.missing[:2] == ["name", "description"]


# For every reader


@pytest.mark.parametrize(
    "facts",
    [
        RELEASE_FACTS,
        SourceFacts(DatasetFacts(images="synthetic", license="other"), (GENERATED,)),
        SourceFacts(parse_dataset_json(json.dumps(REAL).encode(), ""), (SCANNED,)),
        SourceFacts(),
    ],
    ids=["release", "generated", "real", "nothing"],
)
def test_card_and_croissant_are_valid(facts: SourceFacts, tmp_path: Path) -> None:
    card = write_card(MEASURED, facts, "{}", [])
    assert not yaml_errors(card)
    (tmp_path / "README.md").write_text(card, encoding="utf-8")
    DatasetCard.load(tmp_path / "README.md", ignore_metadata_errors=False)
    (tmp_path / "croissant.json").write_text(write_croissant(MEASURED, facts, []), encoding="utf-8")
    dataset = mlcroissant.Dataset(jsonld=str(tmp_path / "croissant.json"))  # which raises an error for an invalid file
    assert dataset.metadata.name == facts.dataset.name or UNNAMED
    assert not dataset.metadata.ctx.issues.errors
    assert bool(dataset.metadata.ctx.issues.warnings) == (facts != RELEASE_FACTS)


TEXTS = st.lists(
    st.sampled_from(["<!-- END use -->", "```", "\n", "# ", "|", "](", "USER/NAME", "---", "$rows"])
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
    min_size=1,
    max_size=6,
).map("".join)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
KEYS = ["model", "model_url", "about", "meta_prompt", "drop", "runs", "sources", "limits", "personal_information"]
KEYS += ["size", "fit", "program", "version", "images", "lora", "x"]
STEPS = st.lists(
    st.dictionaries(st.sampled_from(KEYS) | TEXTS, VALUES, max_size=5).flatmap(
        lambda fields: (st.sampled_from(["generate", "pack", "filter"]) | TEXTS).map(
            lambda name: {**fields, "step": name}
        )
    ),
    max_size=3,
).map(tuple)


@settings(max_examples=20)
@given(TEXTS, TEXTS, STEPS)
def test_any_text_is_data(name: str, description: str, steps: Any) -> None:
    dataset = DatasetFacts(name=" ".join(name.split()), description=description, authors=(name,), version=description)
    facts = SourceFacts(dataset, steps)
    card = write_card(MEASURED, facts, "{}", [])
    assert {*sections_of(card)} == SECTIONS
    assert merge_cards(card, card) == card
    assert read_header(card).get("pretty_name", "") == dataset.name
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", card, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    assert headings[1:] == [
        *("The row", "Use it", "Labels", "How the dataset was made", "Intended use and limits", "Citation")
    ]
    assert json.loads(json.dumps(describe_dataset(MEASURED, facts)))["isLiveDataset"] is False


def test_prompt_with_markup_is_data(described: Any, tmp_path: Path) -> None:
    images = pngs(1, 8)
    source = write_images(tmp_path / "other", images)
    prompt = "A\n```\n<!-- END row -->\n# USER/NAME"
    to_files(
        source, {"table.csv": to_csv([{"filename": "picture0.png", "prompt": prompt, **dict.fromkeys(LABELS, "")}])}
    )
    assert convert(source, tmp_path / "p") == 0
    card = (tmp_path / "p/README.md").read_text(encoding="utf-8")
    assert {*sections_of(card)} == SECTIONS
    assert r"\x3c!-- END row -->\n# USER/NAME'" in sections_of(card)["row"]


# Measured


def test_smallest_and_largest_image_are_measured_in_all_files(described: Any, tmp_path: Path) -> None:
    images = {f"{size:02}.png": pngs(1, size)["picture0.png"] for size in (40, 8, 30, 90)}
    source = write_images(tmp_path / "source", images)
    assert convert(source, tmp_path / "o", "--max-shard-size", "43kB") == 0
    assert len(files_of(tmp_path / "o")) > 1
    assert "PNG, 8x8 to 90x90 pixels" in (tmp_path / "o/README.md").read_text(encoding="utf-8")
    assert convert(source, tmp_path / "o", "--verify") == 0


def test_formats_of_images() -> None:
    kinds = [kind_of_image(image) for image in (*jpegs(1).values(), *pngs(1, 8).values())]
    assert kinds == [("JPEG", 64, 48), ("PNG", 8, 8)]
    assert str(summarize(kinds)) == "JPEG and PNG, 8x8 to 64x48 pixels"


# Compared, and refused


@pytest.mark.parametrize(
    ("name", "content", "sections"),
    [
        ("dataset.json", b'{"name": "Other", "images": "synthetic"}', ["summary", "citation"]),
        ("provenance.json", b'{"steps": [{"step": "scan"}]}', ["dataset"]),
    ],
)
def test_verify_finds_what_the_source_states_otherwise(
    name: str, content: bytes, sections: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = Path(shutil.copytree(FIXTURE, tmp_path / "source"))
    assert convert(source, tmp_path / "o") == 0
    to_files(source, {name: content})
    (tmp_path / "o" / MANIFEST).rename(tmp_path / MANIFEST)
    capsys.readouterr()
    assert convert(source, tmp_path / "o", "--verify") == 1
    found = capsys.readouterr().out
    for section in sections:
        assert f"README.md: the section `{section}` differs from SOURCE\n" in found
    assert re.search(r"^croissant\.json: .* is .*, by SOURCE ", found, re.MULTILINE)
    assert found.count("the section") == len(sections)
    (tmp_path / MANIFEST).rename(tmp_path / "o" / MANIFEST)
    assert convert(source, tmp_path / "o") == convert(source, tmp_path / "o", "--verify") == 0


@pytest.mark.parametrize("program", ["pack", "apply", "convert"])
@pytest.mark.parametrize("name", ["dataset.json", "provenance.json"])
def test_wrong_files_are_refused_by_name_before_anything_is_written(
    name: str, program: str, tmp_path: Path, images: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    source = Path(shutil.copytree(FIXTURE, tmp_path / "source"))
    to_files(source, {name: b"[", **images})
    shutil.rmtree(source / "data")
    if program == "pack":
        code = pack_shards.main([str(source), str(source / "metadata.csv"), str(tmp_path / "o")])
    elif program == "apply":
        code = filter_quality.main(["apply", str(source), str(write_labels(tmp_path, {})), str(tmp_path / "o")])
    else:
        code = convert(source, tmp_path / "o")
    assert code == 1
    assert f"error: {source}/{name}: not JSON in UTF-8: " in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_folder_of_before_is_completed(tmp_path: Path) -> None:
    write_labels(tmp_path, {})
    applying = ["apply", str(FIXTURE), str(tmp_path / "labels.csv"), str(tmp_path / "o"), "--num-proc", "1"]
    assert filter_quality.main(applying) == 0
    whole = contents(tmp_path / "o")
    lines = whole[MANIFEST].splitlines(keepends=True)
    kept = [line for line in lines if b"provenance.json" not in line and b"dataset.json" not in line]
    assert len(lines) - len(kept) == 2
    (tmp_path / "o" / MANIFEST).write_bytes(b"".join(kept))
    for name in ("provenance.json", "dataset.json"):
        (tmp_path / "o" / name).unlink()
    assert filter_quality.main(applying) == 0
    assert contents(tmp_path / "o") == whole
