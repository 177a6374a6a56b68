"""What README promises, the card and the fixture."""

import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import PIL.Image
from huggingface_hub import DatasetCard

import make_fixture
import synthchex_75k
from conftest import FIXTURE, ROOT, TAKES_SCRIPTS

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_the_card_is_one_for_the_hub() -> None:
    card = DatasetCard.load(ROOT / "README.md", ignore_metadata_errors=False)
    card.data.to_yaml()
    assert (card.data.license, card.data.language) == ("apache-2.0", ["en"])
    assert card.data.size_categories == ["10K<n<100K"]
    assert card.data.task_categories == ["text-to-image", "image-classification"]
    assert (card.data.pretty_name, "synthetic" in card.data.tags) == ("SynthCheX-75K", True)


def test_the_first_command_prints_the_row_that_readme_shows(tmp_path: Path) -> None:
    command, tests = (line for block in blocks("bash") for line in block.splitlines())
    assert shlex.split(command)[:3] == ["uv", "run", "python"]
    assert tests.startswith("uvx ")
    run = subprocess.run(
        [sys.executable, *shlex.split(command)[3:]], cwd=ROOT, capture_output=True, text=True, check=True
    )
    printed = re.sub(r"(<PIL\..*?) at 0x\w+>", r"\1>", run.stdout)
    shown = blocks("")[0]
    assert "".join(printed.split()) == "".join(shown.split())


def test_the_quick_start_runs(tmp_path: Path) -> None:
    shutil.copytree(FIXTURE, tmp_path / "path/to/release")
    shutil.copy(ROOT / "synthchex_75k.py", tmp_path / "path/to/synthchex_75k.py")
    shutil.copy(ROOT / "synthchex_75k.py", tmp_path / "synthchex_75k.py")
    new, old = blocks("python")[:2]
    for code in [new, old] if TAKES_SCRIPTS else [new]:
        environment = {**os.environ, "HF_HOME": str(tmp_path / "home")}
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, capture_output=True)


def test_the_fixture_is_what_its_script_draws(tmp_path: Path) -> None:
    make_fixture.main(tmp_path)
    assert (tmp_path / "metadata.csv").read_bytes() == (FIXTURE / "metadata.csv").read_bytes()
    drawn, kept = (list(synthchex_75k.examples(synthchex_75k.plan(str(folder)))) for folder in (tmp_path, FIXTURE))
    pixels = [PIL.Image.open(io.BytesIO(row["image"]["bytes"])).tobytes() for row in kept]
    assert len(set(pixels)) == 12
    # Pillow rounds differently from version to version, by a grey level or two.
    for row, wanted in zip(drawn, pixels, strict=True):
        image = PIL.Image.open(io.BytesIO(row["image"]["bytes"]))
        assert (image.mode, image.size) == ("RGB", (512, 512))
        assert max(abs(a - b) for a, b in zip(image.tobytes(), wanted, strict=True)) <= 2


def test_the_fixture_is_small_and_uses_every_label_and_raw_value(table: list[dict[str, str]]) -> None:
    assert sum(path.stat().st_size for path in FIXTURE.rglob("*")) < 1_000_000
    for label in synthchex_75k.LABELS:
        assert any(row[label] in ("1", "1.0") for row in table)
    values = {row[label] for row in table for label in synthchex_75k.LABELS}
    assert values == {"", "1", "0", "-1", "1.0", "0.0", "-1.0", "None", "NaN", "nan"}


# Expressions that a reader would have to read twice; the project's words are those of the field.
UNCLEAR = re.compile(
    r"says? of (itself|themselves)|appears? under (its|their) name|for want of|\bmakes? of the\b|\bvouch|\broads?\b"
    r"|goes on where|what is there|were there\b|anew\b|so many (rows|files|images|bytes|more|pixels)|in all\)",
    re.IGNORECASE,
)


def test_words_are_plain() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = [ROOT / name for name in tracked.splitlines() if name.endswith((".py", ".md", ".toml", ".css"))]
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in paths
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if UNCLEAR.search(line) and path != Path(__file__)
    ]
    assert found == []
