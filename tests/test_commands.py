"""Each command of the two READMEs, as it stands, in a fresh clone with what they tell to install and nothing else."""

import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import PIL.Image
import PIL.ImageOps
import pytest

from conftest import FIXTURE, ROOT, contents, convert, to_csv, to_files
from images import to_jpeg
from servers.chat_server import Question, serve
from servers.local_hub import Hub

# Run by other means: `.ci/run` runs the tests; the environment `heavy` has torch and Ray; `datasets3` runs scripts.
ELSEWHERE = re.compile(
    r"pytest|tox|hf auth login|install torch|install .gradio|--model sana|--lora|--transformers|--engine ray|"
    r"evaluate_images\.py (embed|reports|run|score|utility)|browse_images\.py|benchmark\.py|import torch|pre-commit|"
    r"trust_remote_code"
)


def blocks(page: str) -> Iterator[tuple[str, str]]:
    """Yields language and code of each block of a page; of a shell block each command alone."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for language, code in re.findall(r"^```(bash|sh|python)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        parts = [code] if language == "python" else code.replace("\\\n", " ").splitlines()
        yield from ((language, part) for part in parts if part.strip())


def answer(question: Question) -> str:
    return "Low Quality" if "edema" in question.text else "High Quality"


def embed(clone: Path, source: str, features: str) -> None:
    """Embeds with the manual's encoder that needs numpy only."""
    program = [sys.executable, "scripts/evaluate_images.py", "embed", source, features]
    subprocess.run([*program, "--encoder", "my_encoder:embed"], cwd=clone, check=True, capture_output=True)


@pytest.fixture
def clone(tmp_path: Path, images: dict[str, bytes], table: list[dict[str, str]]) -> Path:
    """The files of the repository as git has them, and those that the READMEs call `path/to/…`."""
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in filter(None, names):
        (tmp_path / "clone" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "clone" / name)
    shutil.copytree(FIXTURE, tmp_path / "clone/path/to/release")
    assert convert(tmp_path / "clone/path/to/release", tmp_path / "clone/path/to/parquet", "--uncertainty", "keep") == 0
    to_files(tmp_path / "clone/path/to/images", images)
    to_files(tmp_path / "clone/path/to", {"prompts.csv": to_csv(table)})
    manual = (ROOT / "scripts/README.md").read_text(encoding="utf-8")
    for name, function in (("my_model", "draw"), ("my_encoder", "embed")):
        (code,) = re.findall(rf"^```\n((?:(?!```).*\n)*?def {function}\(.*\n(?:.*\n)*?)^```", manual, re.MULTILINE)
        (tmp_path / f"clone/{name}.py").write_text(code, encoding="utf-8")
    for features in ("path/to/features", "path/to/real-features"):
        embed(tmp_path / "clone", "path/to/release", features)
    others = {}  # training images: none of them may be among the held-out ones
    for name, data in images.items():
        file = io.BytesIO()
        PIL.ImageOps.mirror(PIL.Image.open(io.BytesIO(data))).save(file, "PNG")
        others[name] = file.getvalue()
    to_files(tmp_path / "others", {**others, "metadata.csv": to_csv(table)})
    embed(tmp_path / "clone", str(tmp_path / "others"), "path/to/train-features")
    for number, row in enumerate(table):  # as in MIMIC-CXR-JPG; the last rows have no image
        row["path"] = f"files/p10/p1{number}/s5/{number}.jpg"
        image = to_jpeg(PIL.Image.linear_gradient("L").resize((50, 60)))
        to_files(tmp_path / "clone/path/to/mimic", {row["path"]: image} if number < 9 else {"index.html": b""})
    real = [{key: value for key, value in row.items() if key != "filename"} for row in table[3:]]
    to_files(tmp_path / "clone/path/to", {"llavarad_test.csv": to_csv(real)})
    return tmp_path / "clone"


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", ["README.md", "scripts/README.md"])
def test_each_command_runs_in_a_fresh_clone(page: str, clone: Path, hub: Hub) -> None:
    hub.create("raman07/SynthCheX-75K", files=contents(FIXTURE))
    published = {name: data for name, data in contents(clone / "path/to/parquet").items() if not name.startswith(".")}
    hub.create("alice/chex", files=published)  # README reads it before it publishes
    venv = clone / ".venv"
    subprocess.run(["uv", "venv", "--quiet", "--seed", "--python", sys.executable, venv], check=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "TOX", "UV"))}
    environment |= {"PATH": f"{venv}/bin:{os.environ['PATH']}", "VIRTUAL_ENV": str(venv), "HF_TOKEN": "hf_alice"}
    ran = 0
    with serve(answer) as server:
        for language, code in blocks(page):
            if ELSEWHERE.search(code):
                continue
            code = code.replace("http://localhost:8000/v1", server.url).replace("USER/NAME", "alice/chex")
            command = ["python", "-c", code] if language == "python" else ["bash", "-c", code]
            run = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True)
            assert run.returncode == 0, f"{code}\n{run.stdout}\n{run.stderr}"
            ran += 1
    assert ran > 5
