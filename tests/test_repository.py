"""The fixture, and the words of the project."""

import io
import re
import subprocess
from pathlib import Path
from typing import Any

import PIL.Image
import PIL.ImageChops

import make_fixture
import synthchex_75k
from conftest import FIXTURE, ROOT, plan


def test_the_fixture_is_what_its_script_draws(tmp_path: Path) -> None:
    make_fixture.main(tmp_path)
    for name in ("metadata.csv", "dataset.json", "provenance.json"):
        assert (tmp_path / name).read_bytes() == (FIXTURE / name).read_bytes()
    drawn, kept = (
        [PIL.Image.open(io.BytesIO(row["image"]["bytes"])) for row in synthchex_75k.examples(plan(folder))]
        for folder in (tmp_path, FIXTURE)
    )
    assert len({image.tobytes() for image in kept}) == 12
    for image, wanted in zip(drawn, kept, strict=True):
        assert (image.mode, image.size) == ("RGB", (512, 512))
        # Pillow rounds differently from version to version, by a grey level or two.
        extrema: Any = PIL.ImageChops.difference(image, wanted).getextrema()
        assert max(high for _, high in extrema) <= 2


def test_the_fixture_is_small_and_uses_every_label_and_raw_value(table: list[dict[str, str]]) -> None:
    assert sum(path.stat().st_size for path in FIXTURE.rglob("*")) < 1_000_000
    for label in synthchex_75k.LABELS:
        assert any(row[label] in ("1", "1.0") for row in table)
    values = {row[label] for row in table for label in synthchex_75k.LABELS}
    assert values == {"", "1", "0", "-1", "1.0", "0.0", "-1.0", "None", "NaN", "nan"}


# Expressions that a reader would have to read twice; the project's words are those of the field.
UNCLEAR = re.compile(
    r"says? of (itself|themselves)|appears? under (its|their) name|for want of|\bmakes? of the\b|\bvouch|\broads?\b"
    r"|goes on where|what is there|were there\b|anew\b|so many (rows|files|images|bytes|more|pixels)",
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


def test_the_security_policy_has_every_bound_of_the_module() -> None:
    table = (ROOT / ".github/SECURITY.md").read_text(encoding="utf-8").partition("## Bounds")[2].partition("##")[0]
    bounds = {name: value for name, value in vars(synthchex_75k).items() if name.startswith("MAX_")}
    assert {*re.findall(r"MAX_[A-Z_]+", table)} == {*bounds}
    for name in ("MAX_PIXELS", "MAX_ROWS", "MAX_MEMBERS", "MAX_LABELS", "MAX_PROBLEMS", "MAX_CSVS"):
        assert f"{bounds[name]:,}" in table


def test_the_workflow_runs_every_environment() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    environments = re.findall('"(.*)"', project.partition("env_list = [")[2].partition("]")[0])
    workflow = (ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8")
    run = [name for names in re.findall("environments: (.*)", workflow) for name in names.split(",")]
    assert "scorers" in environments
    assert sorted(run) == sorted(environments)
