"""What the tests share: a cache of their own, and sources in every shape, made from the fixture."""

import csv
import importlib.util
import io
import os
import random
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from servers import local_hub

# Before `datasets` is imported: the tests leave nothing in the user's cache and reach nothing but a Hub of their own.
SCRATCH = Path(tempfile.mkdtemp(prefix="synthchex-tests-"))
SERVING = local_hub.serve(SCRATCH / "hub")
HUB = SERVING.__enter__()
ENVIRONMENT = {"HF_HOME": str(SCRATCH / "home"), "HF_ENDPOINT": HUB.url, "HF_HUB_DISABLE_XET": "1"}
os.environ.update(ENVIRONMENT, HF_HUB_DISABLE_PROGRESS_BARS="1")
for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
    os.environ.pop(name, None)

import datasets
import hypothesis
import PIL.Image
from huggingface_hub import HfFileSystem

import synthchex_75k
from images import chunk

ROOT = Path(__file__).parents[1]
FIXTURE = ROOT / "tests" / "fixture"

# On a busy machine every example and every test data generator is slow.
BUSY = hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
# The same examples in each run, so that what fails is the fault of the change at hand.
hypothesis.settings.register_profile("tests", BUSY, derandomize=True)
hypothesis.settings.register_profile("search", BUSY)  # others in each run; see CONTRIBUTING.md
hypothesis.settings.load_profile("tests")

# Ends a program at its last line: pyarrow sometimes aborts while the interpreter shuts down (Arrow's issue 45214).
EXIT = "if __name__ == '__main__': import os, sys; sys.stdout.flush(); os._exit(0)"

TAKES_SCRIPTS = int(datasets.__version__.split(".")[0]) < 4

collect_ignore = [] if TAKES_SCRIPTS else ["test_load_dataset.py"]
if not importlib.util.find_spec("ray"):
    # These have an environment of their own.
    collect_ignore += ["pipeline/evaluate/metrics/test_references.py", "pipeline/evaluate/test_embed_ray.py"]
    collect_ignore += ["pipeline/evaluate/test_encoders.py", "tiny_encoders.py"]
    collect_ignore += ["pipeline/evaluate/test_pretrained.py", "pretrained.py"]
    collect_ignore += ["pipeline/evaluate/test_privacy_pretrained.py", "programs/test_whole_story.py"]
    collect_ignore += ["pipeline/evaluate/test_reports.py", "pipeline/evaluate/test_text_scores.py"]
    collect_ignore += ["pipeline/evaluate/test_results_in_browser.py", "pipeline/benchmark/test_training.py"]
    collect_ignore += ["pipeline/evaluate/test_utility.py", "pipeline/evaluate/test_utility_references.py"]
    collect_ignore += ["pipeline/generate/test_pipelines.py", "tiny_pipelines.py"]
    collect_ignore += ["pipeline/quality/test_heavy.py", "tiny_vlm.py", "tiny_vlms.py"]
if not importlib.util.find_spec("f1chexbert"):
    collect_ignore += ["pipeline/evaluate/test_text_models.py", "tiny_scorers.py"]
if not importlib.util.find_spec("torch_fidelity"):
    collect_ignore += [
        "pipeline/evaluate/test_backbone.py",
        "pipeline/evaluate/test_vision_encoders.py",
        "pipeline/evaluate/test_reid.py",
        "evaluate_with_torchvision.py",
        "import_torchvision.py",
        "random_networks.py",
    ]
if not importlib.util.find_spec("playwright"):
    collect_ignore += ["pipeline/browse/test_in_browser.py"]


def pytest_unconfigure() -> None:
    """Ends the Hub, and removes it and the cache of the tests."""
    SERVING.__exit__(None, None, None)
    shutil.rmtree(SCRATCH, ignore_errors=True)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Tells how to run the tests that were left out."""
    if config.option.markexpr == "not slow" and "TOX_ENV_NAME" not in os.environ:
        terminalreporter.write_line("quick tests only; all tests, on all versions: uvx --with tox-uv tox")


@pytest.fixture(autouse=True)
def no_lines_of_slow_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine, a line of progress might come between those that a test expects."""
    for name in ("NOTICE_AFTER", "LOG_INTERVAL"):
        monkeypatch.setattr(f"pipeline.progress.{name}", 300)


@pytest.fixture
def hub() -> local_hub.Hub:
    """The Hub at HF_ENDPOINT, empty."""
    HUB.clear()
    HfFileSystem.clear_instance_cache()  # they remember what they have seen
    return HUB


@pytest.fixture(scope="session")
def images() -> dict[str, bytes]:
    """The fixture's images by file name, in order, read without the code under test."""
    found = {}
    for path in sorted(FIXTURE.glob("data/*.zip")):
        with zipfile.ZipFile(path) as archive:
            found.update({name: archive.read(name) for name in archive.namelist()})
    return found


@pytest.fixture
def table() -> list[dict[str, str]]:
    """The fixture's metadata, as text, read without the code under test."""
    with open(FIXTURE / "metadata.csv", newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def to_csv(rows: list[dict[str, str]], quoting: Any = csv.QUOTE_MINIMAL) -> bytes:
    """Writes rows as a CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), quoting=quoting)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def to_zip(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    """Writes a zip."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def to_tar(path: Path, members: dict[str, bytes]) -> None:
    """Writes a tar."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def to_files(folder: Path, members: dict[str, bytes]) -> None:
    """Writes loose files."""
    for name, data in members.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


Rows = list[dict[str, Any]]
Source = Callable[..., Path]
Write = Callable[[Path, dict[str, bytes], bytes], None]


def one_zip(folder: Path, images: dict[str, bytes], table: bytes) -> None:
    """The shape of the published release, as a Mac packs it."""
    members = {"ALL_FILES/": b""}
    for name, data in images.items():
        members[f"ALL_FILES/{name}"] = data
        members[f"__MACOSX/ALL_FILES/._{name}"] = b"Mac OS X"
    members |= {"ALL_FILES/.DS_Store": b"Bud1", "ALL_FILES/generations_with_metadata.csv": table}
    to_zip(folder / "ALL_FILES.zip", members, zipfile.ZIP_DEFLATED)


def zips(folder: Path, images: dict[str, bytes], table: bytes) -> None:
    """Zip shards in a folder, a CSV beside it."""
    names = list(images)
    for shard in range(3):
        to_zip(folder / "data" / f"s{shard}.zip", {name: images[name] for name in names[shard * 4 : shard * 4 + 4]})
    to_files(folder, {"metadata.csv": table})


def tars(folder: Path, images: dict[str, bytes], table: bytes) -> None:
    """Tar shards, the CSV inside the second."""
    names = list(images)
    to_tar(folder / "a.tar", {f"x/{name}": images[name] for name in names[:5]})
    to_tar(folder / "b.tar", {**{name: images[name] for name in names[5:]}, "meta/all.csv": table})


def loose(folder: Path, images: dict[str, bytes], table: bytes) -> None:
    """Loose images in folders, whose order by path is that of the rows."""
    to_files(folder, {f"img/{n // 4}/{n % 4}/{name}": data for n, (name, data) in enumerate(images.items())})
    to_files(folder, {"list.CSV": table, "img/._list.csv": b"Mac OS X", "notes.txt": b"not ours", ".DS_Store": b"Bud1"})


def mixed(folder: Path, images: dict[str, bytes], table: bytes) -> None:
    """A zip, a tar and loose images, the CSV in the zip."""
    names = list(images)
    to_zip(folder / "1.zip", {**{name: images[name] for name in names[:4]}, "all.csv": table})
    to_tar(folder / "2.tar", {name: images[name] for name in names[4:8]})
    to_files(folder / "0", {f"{n:02}/{name}": images[name] for n, name in enumerate(names[8:])})


SHAPES: list[Write] = [one_zip, zips, tars, loose, mixed]


def state_facts(folder: Path) -> None:
    """Gives a source the fixture's `dataset.json` and `provenance.json`: nothing is asked for when it is converted."""
    for name in ("dataset.json", "provenance.json"):
        shutil.copy(FIXTURE / name, folder)


@pytest.fixture
def source(tmp_path: Path, images: dict[str, bytes], table: list[dict[str, str]]) -> Callable[..., Path]:
    """Makes a source; `images`, `table` (rows or bytes) and `shape` replace the fixture's and zip shards."""

    def make(
        images: dict[str, bytes] = images, table: list[dict[str, str]] | bytes = table, shape: Write = zips
    ) -> Path:
        folder = tmp_path / f"source{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        shape(folder, images, table if isinstance(table, bytes) else to_csv(table))
        state_facts(folder)
        return folder

    return make


@pytest.fixture
def expected(images: dict[str, bytes], table: list[dict[str, str]]) -> list[dict[str, Any]]:
    """The fixture's rows as they must come out, images as bytes, labels raw."""
    raw = {"": None, "None": None, "NaN": None, "nan": None}
    prompts = {row["filename"]: row for row in table}
    rows = []
    for name, data in images.items():
        row = prompts[name]
        labels = {k: raw[v] if v in raw else int(float(v)) for k, v in list(row.items())[2:]}
        rows.append({"image": data, "filename": name, "prompt": row["prompt"], "labels_dict": labels})
    return rows


@pytest.fixture
def rows_of() -> Iterator[Callable[[Any], list[dict[str, Any]]]]:
    """Reads a dataset into a list as `expected` has it."""

    def read(dataset: Any) -> list[dict[str, Any]]:
        undecoded = dataset.cast_column("image", datasets.Image(decode=False))
        return [{**row, "image": row["image"]["bytes"]} for row in undecoded]

    yield read


def plan(source: Path, on_mismatch: str = "error") -> list[synthchex_75k.Row]:
    """Plans a local source."""
    return synthchex_75k.plan(str(source), on_mismatch)


def error_of(source: Path, **options: Any) -> str:
    """The message with which a source is refused."""
    with pytest.raises(synthchex_75k.SourceError) as caught:
        next(iter(synthchex_75k.load(source, streaming=True, **options)))
    return str(caught.value)


# Conversions


def convert(source: Path, output: Path, *options: str) -> int:
    """Converts in this process and its workers, without pictures unless `--figures` is given; returns the exit code."""
    import convert_to_parquet

    return convert_to_parquet.main([str(source), str(output), "--no-figures", *options])


def files_of(output: Path) -> list[Path]:
    """The Parquet files of a converted folder, in order."""
    return sorted(output.glob("data/*.parquet"))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, with what is in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def with_chunk(png: bytes, data: bytes) -> bytes:
    """Returns a PNG with a private chunk before its end, which a decoder would drop."""
    return png[:-12] + chunk(b"prVt", data) + png[-12:]


def padded(folder: Path, count: int, size: int) -> None:
    """Writes a source of one zip: images of one size, all different."""
    rng = random.Random(0)
    small = io.BytesIO()
    PIL.Image.new("RGB", (1, 1)).save(small, "PNG")
    padding = size - small.tell() - 12
    images = {f"{number:04}.png": with_chunk(small.getvalue(), rng.randbytes(padding)) for number in range(count)}
    to_zip(folder / "a.zip", images)
    labels = dict.fromkeys(synthchex_75k.LABELS, "0")
    to_files(folder, {"m.csv": to_csv([{"filename": n, "prompt": f"Picture {n}.", **labels} for n in images])})
    state_facts(folder)
