"""The two READMEs: their Python blocks run, their links exist, and the manual has every option of every program."""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import PIL.Image
import pytest
from huggingface_hub import DatasetCard

import make_examples
import synthchex_75k
from conftest import EXIT, FIXTURE, ROOT, TAKES_SCRIPTS, contents, convert
from servers.local_hub import Hub

README = ROOT / "README.md"
MANUAL = ROOT / "scripts" / "README.md"
PAGES = [README, MANUAL]
SHARED = "What all programs that write have in common"  # a section of the manual
PROGRAMS = sorted(path.name for path in (ROOT / "scripts").glob("*.py"))
SUBCOMMANDS = {
    "evaluate_images.py": ["embed", "fidelity", "privacy", "utility", "reports", "score", "report", "run"],
    "filter_quality.py": ["label", "report", "apply"],
}
MAX_WORDS, MAX_COLUMNS = 1_800, 120  # of README; words without header and code
SECTIONS = (
    *("Load it", "The row", "How the dataset was made", "Intended use and limits", "FAQ", "Build and publish"),
    *("Develop", "Changes", "Citation"),
)


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    code: str


def blocks(page: Path) -> list[Block]:
    """Returns the fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [Block(*found) for found in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)]


def runnable() -> list[str]:
    """Returns the Python blocks of README that can run with the packages at hand."""
    found = [block.code for block in blocks(README) if block.language == "python"]
    if not TAKES_SCRIPTS:
        found = [code for code in found if "trust_remote_code" not in code]
    if not importlib.util.find_spec("torch"):  # which the environment `heavy` has
        found = [code for code in found if "import torch" not in code]
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with everything that the blocks of README call `path/to/…`."""
    shutil.copytree(FIXTURE, tmp_path / "path/to/release")
    for name in ("synthchex_75k.py", "path/to/synthchex_75k.py"):
        shutil.copy(ROOT / "synthchex_75k.py", tmp_path / name)
    assert convert(FIXTURE, tmp_path / "path/to/parquet") == 0
    return tmp_path


@pytest.mark.parametrize("code", runnable(), ids=lambda code: f"{len(code.splitlines())} lines")
def test_each_python_block_runs(code: str, folder: Path, hub: Hub) -> None:
    hub.create("raman07/SynthCheX-75K", files=contents(FIXTURE))
    published = {name: data for name, data in contents(folder / "path/to/parquet").items() if not name.startswith(".")}
    hub.create("alice/chex", files=published)
    environment = {**os.environ, "HF_HOME": str(folder / "home")}
    code = code.replace("USER/NAME", "alice/chex")
    code = f"{code}\n{EXIT}\n"
    (folder / "block.py").write_text(code, encoding="utf-8")  # a file, so that worker processes can import it
    run = subprocess.run([sys.executable, "block.py"], cwd=folder, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, f"{code}\n{run.stdout}\n{run.stderr}"


def test_the_first_command_prints_the_row_and_the_second_runs_the_tests() -> None:
    first, second = (block.code.strip() for block in blocks(README) if block.language == "bash")
    assert shlex.split(first)[:3] == ["uv", "run", "python"]
    assert second == "uv run pytest"
    program = [sys.executable, *shlex.split(first)[3:]]
    run = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=True)
    printed = re.sub(r"(<PIL\..*?) at 0x\w+>", r"\1>", run.stdout)
    shown = next(block.code for block in blocks(README) if not block.language)
    assert "".join(printed.split()) == "".join(shown.split())


def test_the_card_is_valid_for_the_hub() -> None:
    card = DatasetCard.load(README, ignore_metadata_errors=False)
    card.data.to_yaml()
    assert (card.data.license, card.data.language) == ("apache-2.0", ["en"])
    assert card.data.size_categories == ["10K<n<100K"]
    assert card.data.task_categories == ["text-to-image", "image-classification"]
    assert (card.data.pretty_name, "synthetic" in card.data.tags) == ("SynthCheX-75K", True)


def test_the_sections_are_in_order() -> None:
    text = re.sub(r"^```.*?^```$", "", README.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    assert tuple(re.findall(r"^## (.*)$", text, re.MULTILINE)) == SECTIONS


def test_readme_is_short() -> None:
    body = README.read_text(encoding="utf-8").partition("\n# ")[2]
    prose = re.sub(r"^```.*?^```$", "", body, flags=re.DOTALL | re.MULTILINE)
    assert len(prose.split()) <= MAX_WORDS
    citation = next(block.code for block in blocks(README) if block.language == "bibtex")
    assert [line for line in body.replace(citation, "").splitlines() if len(line) > MAX_COLUMNS] == []


def test_the_citation_is_that_of_the_module() -> None:
    assert [block.code.strip() for block in blocks(README) if block.language == "bibtex"] == [synthchex_75k.CITATION]


def anchors(page: Path) -> set[str]:
    """Returns the anchors of a page's headings, as GitHub and the Hub make them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, ROOT / ".github" / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_relative_links_and_images_exist(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    missing = []
    for link in links:
        if "://" not in link:
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            if not target.exists() or (anchor and anchor not in anchors(target)):
                missing.append(link)
    assert missing == []


def own_options(text: str) -> set[str]:
    """Returns the options that a text names, but for those of uv, pip and torchrun."""
    return {*re.findall(r"(?<![\w-])--[a-z][\w-]*", re.sub(r"(uv run|pip install|torchrun) --[\w-]+", "", text))}


def options_of(program: str) -> set[str]:
    """Returns the options of a program and its subcommands, from their `--help`; of the benchmark from its source."""
    if program == "benchmark.py":  # which needs packages of its own
        return {*re.findall(r'add_argument\(\s*"(--[\w-]+)"', (ROOT / "scripts" / program).read_text(encoding="utf-8"))}
    commands = [[], *([name] for name in SUBCOMMANDS.get(program, []))]
    found: set[str] = set()
    for command in commands:
        run = [sys.executable, str(ROOT / "scripts" / program), *command, "--help"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        shown = subprocess.run(run, env=environment, capture_output=True, text=True, check=True).stdout
        text = shown.partition("\nexamples:")[0]
        found |= own_options(text)
    return found - {"--help"}


def options_in(title: str) -> set[str]:
    """Returns the options that a section of the manual names."""
    text = MANUAL.read_text(encoding="utf-8")
    section = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    assert section, f"{MANUAL} has no section {title}"
    return own_options(section[1])


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_manual_has_every_option_and_no_other(program: str) -> None:
    options = options_of(program)
    shared = options_in(SHARED)
    assert options_in(program) | (shared & options) == options
    cuts_no_rows = ("benchmark.py", "browse_images.py", "evaluate_images.py", "generate_images.py")
    assert shared <= options or program in cuts_no_rows


def test_the_manual_lists_every_program_and_package() -> None:
    text = MANUAL.read_text(encoding="utf-8").partition("\n## ")[0]
    packages = [f"pipeline/{path.parent.name}/" for path in (ROOT / "scripts" / "pipeline").glob("*/__init__.py")]
    assert [name for name in [*PROGRAMS, *sorted(packages)] if f"`{name}`" not in text] == []


if int(PIL.__version__.split(".")[0]) >= 11:  # older versions have another font, or none

    def test_the_picture_is_what_its_script_draws(tmp_path: Path) -> None:
        kept = ROOT / ".github" / "examples.png"
        assert kept.stat().st_size < 200_000
        make_examples.main(tmp_path / "drawn.png")
        drawn, wanted = (PIL.Image.open(path).convert("L") for path in (tmp_path / "drawn.png", kept))
        assert drawn.size == wanted.size
        # Pillow and FreeType round differently from version to version.
        different = sum(abs(a - b) > 24 for a, b in zip(drawn.tobytes(), wanted.tobytes(), strict=True))
        assert different < 0.01 * len(wanted.tobytes())
