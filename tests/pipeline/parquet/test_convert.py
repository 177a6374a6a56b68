"""`convert_to_parquet.py`: what it writes, for which readers, and what it refuses."""

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import duckdb
import pandas
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard
from hypothesis import given, settings
from hypothesis import strategies as st

import convert_to_parquet
import pack_shards
import synthchex_75k
from conftest import (
    EXIT,
    FIXTURE,
    ROOT,
    SHAPES,
    Rows,
    Source,
    Write,
    contents,
    convert,
    files_of,
    loose,
    padded,
    tars,
    to_csv,
    to_files,
    with_chunk,
    zips,
)
from pipeline.errors import StepError
from pipeline.folder import MANIFEST
from pipeline.jobs import available_cpus
from pipeline.parquet.convert import convert as convert_source
from pipeline.parquet.shard import parquet_shards
from pipeline.rows import iter_crc32, read
from servers.range_server import serve
from synthchex_75k import LABELS, load

SCRIPT = str(ROOT / "scripts" / "convert_to_parquet.py")
NEW = int(datasets.__version__.split(".")[0]) >= 3
PYTHON = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fixture, converted with the default label policy into three files of two row groups each."""
    output = tmp_path_factory.mktemp("converted") / "parquet"
    assert convert(FIXTURE, output, "--max-shard-size", "450kB", "--rows-per-group", "2") == 0
    return output


def snippets(output: Path) -> list[str]:
    """The Python examples of the card, for the folder."""
    text = (output / "README.md").read_text(encoding="utf-8")
    return PYTHON.findall(text.replace("hf://datasets/USER/NAME", str(output)).replace("USER/NAME", str(output)))


def published(output: Path) -> dict[str, bytes]:
    """Every file of a folder with its content, without the manifest, in which the address of the source differs."""
    return {name: content for name, content in contents(output).items() if name != MANIFEST}


def identities(output: Path) -> dict[Path, tuple[int, int]]:
    """For each Parquet file, numbers that change when it is written again."""
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files_of(output)}


def run(*arguments: str | Path, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the program in a process of its own."""
    command = [sys.executable, SCRIPT, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True)


# Rows, for every reader


@pytest.mark.parametrize("shape", SHAPES)
def test_rows_equal_the_source_in_every_shape(
    shape: Write, source: Source, expected: Rows, rows_of: Callable[..., Rows], tmp_path: Path
) -> None:
    assert convert(source(shape=shape), tmp_path / "o", "--rows-per-group", "5") == 0
    dataset = datasets.load_dataset(str(tmp_path / "o"), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows_of(dataset) == expected


@pytest.mark.parametrize("uncertainty", ["zeros", "ones", "keep"])
def test_load_dataset_returns_the_rows_of_load(uncertainty: str, rows_of: Callable[..., Rows], tmp_path: Path) -> None:
    assert convert(FIXTURE, tmp_path / "o", "--uncertainty", uncertainty) == 0
    wanted = load(FIXTURE, uncertainty=uncertainty, cache_dir=tmp_path / "cache")
    dataset = datasets.load_dataset(str(tmp_path / "o"), split="train", cache_dir=str(tmp_path / "cache"))
    assert dataset.features == wanted.features == synthchex_75k.FEATURES
    assert dataset[0]["image"].size == (512, 512)
    stream = datasets.load_dataset(str(tmp_path / "o"), split="train", streaming=True)
    assert rows_of(dataset) == rows_of(stream) == rows_of(wanted)


def test_duckdb_polars_and_pandas_read_the_rows(converted: Path, expected: Rows) -> None:
    files = f"{converted}/data/*.parquet"
    wanted = [{**row, "image": {"bytes": row["image"], "path": row["filename"]}} for row in expected]
    relation = duckdb.sql(f"SELECT * FROM '{files}'")
    assert relation is not None
    assert relation.to_arrow_table().to_pylist() == wanted
    assert polars.read_parquet(files).to_dicts() == wanted
    frame = pandas.concat([pandas.read_parquet(path) for path in files_of(converted)])
    assert frame.to_dict("records") == wanted


def test_card_examples_are_python(converted: Path) -> None:
    codes = snippets(converted)
    for code in codes:
        compile(code, "example", "exec")
    joined = "\n".join(codes)
    for word in ("load_dataset(", "streaming=True", "filters=", "import torch", "import duckdb", "import polars"):
        assert word in joined


@pytest.mark.slow
def test_card_examples_run(converted: Path) -> None:
    count = 0
    for code in snippets(converted):
        modules = {name.partition(".")[0] for name in re.findall(r"^(?:import|from) (\S+)", code, re.MULTILINE)}
        if not all(map(importlib.util.find_spec, modules)) or ("filters=" in code and not NEW):
            continue
        finished = subprocess.run([sys.executable, "-c", f"{code}\n{EXIT}"], capture_output=True, text=True)
        assert finished.returncode == 0, finished.stderr
        count += 1
    assert count >= 5


# Files


def test_row_groups_pages_and_statistics(converted: Path, images: dict[str, bytes]) -> None:
    for path in files_of(converted):
        parquet = pq.ParquetFile(path)
        assert b"huggingface" in parquet.schema_arrow.metadata
        for group in map(parquet.metadata.row_group, range(parquet.num_row_groups)):
            assert group.num_rows <= 2
            columns = {group.column(n).path_in_schema: group.column(n) for n in range(group.num_columns)}
            assert all(column.has_offset_index for column in columns.values())
            for name, column in columns.items():
                if name == "image.bytes":
                    assert (column.compression, column.has_dictionary_page) == ("UNCOMPRESSED", False)
                else:
                    assert column.compression == "ZSTD"
                if name.startswith("labels_dict."):
                    assert column.has_column_index
                    assert column.statistics.null_count is not None
    first_group = pq.ParquetFile(files_of(converted)[0]).metadata.row_group(0)
    labels = first_group.column(4 + LABELS.index("Pleural Effusion"))
    assert labels.path_in_schema == "labels_dict.Pleural Effusion"
    assert (labels.statistics.min, labels.statistics.max) == (0, 1)


def test_files_are_hardly_larger_than_their_images(tmp_path: Path) -> None:
    padded(tmp_path / "source", count=150, size=265_000)
    assert convert(tmp_path / "source", tmp_path / "o", "--max-shard-size", "15MB") == 0
    paths = files_of(tmp_path / "o")
    assert sum(path.stat().st_size for path in paths) <= 1.005 * 150 * 265_000
    pages = [pq.ParquetFile(path).metadata.row_group(0).column(0) for path in paths]
    assert all(page.total_uncompressed_size < 27e6 for page in pages)


def test_row_groups_have_a_bound_of_bytes() -> None:
    (shard,) = parquet_shards(rows_of_sizes([30_000_000] * 5), Path("o"), 10**9, 100, "zeros")
    assert [len(group) for group in shard.row_groups] == [2, 2, 1]


@pytest.mark.slow
def test_row_groups_of_large_images_fit_the_dataset_viewer(tmp_path: Path) -> None:
    padded(tmp_path / "source", count=3, size=30_000_000)
    assert convert(tmp_path / "source", tmp_path / "o") == 0
    (path,) = files_of(tmp_path / "o")
    metadata = pq.read_metadata(path)
    sizes = [metadata.row_group(n).total_byte_size for n in range(metadata.num_row_groups)]
    assert len(sizes) == 2
    assert max(sizes) < 100_000_000


SIZES = st.lists(st.integers(1, 500_000), min_size=1, max_size=400)


def rows_of_sizes(sizes: list[int]) -> list[synthchex_75k.Row]:
    return [synthchex_75k.Row(f"{n}.png", "a.zip", "", 0, size, size) for n, size in enumerate(sizes)]


@settings(max_examples=50)
@given(sizes=SIZES, max_size=st.integers(600_000, 20_000_000), per_group=st.integers(1, 100))
def test_shards_keep_the_order_and_the_size_bound(sizes: list[int], max_size: int, per_group: int) -> None:
    rows = rows_of_sizes(sizes)
    shards = parquet_shards(rows, Path("o"), max_size, per_group, "zeros")
    assert [row for shard in shards for row in shard.rows] == rows
    assert all(shard.rows and shard.max_bytes <= max_size for shard in shards)
    names = [f"o/data/train-{n:05d}-of-{len(shards):05d}.parquet" for n in range(len(shards))]
    assert [str(shard.path) for shard in shards] == names


@settings(max_examples=15)
@given(count=st.integers(1, 8_000), max_size=st.integers(30, 900), seed=st.integers(0, 2**32))
def test_shards_are_of_even_size(count: int, max_size: int, seed: int) -> None:
    rows = rows_of_sizes([230_000 + (n * 2654435761 + seed) % 70_000 for n in range(count)])
    shards = parquet_shards(rows, Path("o"), max_size * 1_000_000, 100, "zeros")
    sizes = [shard.max_bytes for shard in shards]
    assert max(sizes) <= 1.3 * min(sizes)
    assert len(shards) <= 1.15 * sum(sizes) / (max_size * 1_000_000) + 1


@pytest.mark.parametrize("rows_per_group", ["1", "100"])
def test_files_are_within_the_size_bound(rows_per_group: str, tmp_path: Path) -> None:
    padded(tmp_path / "source", count=120, size=1_000)
    options = ["--max-shard-size", "120kB", "--rows-per-group", rows_per_group]
    assert convert(tmp_path / "source", tmp_path / "o", *options) == 0
    sizes = [path.stat().st_size for path in files_of(tmp_path / "o")]
    assert len(sizes) > 2
    assert max(sizes) <= 120_000


def test_result_does_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    options = ["--max-shard-size", "300kB", "--rows-per-group", "3"]
    for num_proc in ("1", "3"):
        assert convert(FIXTURE, tmp_path / num_proc, *options, "--num-proc", num_proc) == 0
    assert contents(tmp_path / "1") == contents(tmp_path / "3")
    assert len(contents(tmp_path / "1")) > 3


# Card


def test_card_header_has_the_counts_of_datasets(converted: Path, tmp_path: Path) -> None:
    header = DatasetCard.load(converted / "README.md", ignore_metadata_errors=False).data.to_dict()
    shutil.copytree(converted / "data", tmp_path / "bare" / "data")
    counted = datasets.load_dataset(str(tmp_path / "bare"), split="train", cache_dir=str(tmp_path / "cache")).info
    split = {"name": "train", "num_bytes": counted.splits["train"].num_bytes, "num_examples": 12}
    written = header["dataset_info"][0]
    assert (written["config_name"], written["splits"]) == ("default", [split])
    assert written["dataset_size"] == counted.dataset_size
    assert written["download_size"] == sum(path.stat().st_size for path in files_of(converted))
    info = datasets.load_dataset_builder(str(converted)).info
    assert info.features == synthchex_75k.FEATURES
    assert header["configs"][0]["data_files"] == [{"split": "train", "path": "data/train-*.parquet"}]
    assert (header["license"], header["size_categories"]) == ("apache-2.0", ["n<1K"])
    assert "chest-x-ray" in header["tags"]


def test_card_needs_nothing_but_the_data(converted: Path) -> None:
    text = (converted / "README.md").read_text(encoding="utf-8")
    assert not re.search(r"trust_remote_code|synthchex_75k|uvx|tests/", text)
    assert re.search(r"\b12 synthetic .* in 3 Parquet files", text)
    assert list(converted.rglob("*.py")) == []


def test_card_shows_raw_values_by_default(converted: Path, expected: Rows) -> None:
    text = (converted / "README.md").read_text(encoding="utf-8")
    shown = text.split("```\n")[1]
    row = ast.literal_eval(re.sub(r"<PIL.*?>", "0", shown))
    assert row == {**expected[0], "image": 0}
    assert None in row["labels_dict"].values()


# Program


def test_help(capsys: Any) -> None:
    with pytest.raises(SystemExit, match="0"):
        convert_to_parquet.main(["--help"])
    shown = capsys.readouterr().out
    for word in ("SOURCE", "OUTPUT_DIR", "--num-proc", "--max-shard-size", "--rows-per-group", "--verify", "examples:"):
        assert word in shown


def test_printed_commands_run_as_printed(tmp_path: Path) -> None:
    finished = run(FIXTURE, "a folder", "--no-figures", cwd=tmp_path)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert re.search(
        r"12 rows, 1\.0 MB, Parquet files: 1\n1 written \(.* MB/s\), 0 already up to date\n", finished.stdout
    )
    (load, verify) = (re.findall(rf"^{label}: +(.*)$", finished.stdout, re.M)[0] for label in ("load", "verify"))
    assert ast.unparse(ast.parse(load)) == "datasets.load_dataset('a folder', split='train')"
    checked = subprocess.run(verify, shell=True, cwd=tmp_path, env={}, capture_output=True, text=True)
    assert (checked.returncode, checked.stdout) == (0, "no difference\n")


CHECKING = 0.5  # seconds; more than all that is neither checking nor writing


def test_speed_is_that_of_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    assert convert(FIXTURE, tmp_path / "o", "--max-shard-size", "300kB") == 0
    path = files_of(tmp_path / "o")[1]
    size = path.stat().st_size
    path.unlink()

    def slowly(rows: list[synthchex_75k.Row]) -> Iterator[int]:
        time.sleep(CHECKING)
        return iter_crc32(rows)

    monkeypatch.setattr("pipeline.shards.iter_crc32", slowly)  # which is used to check files
    start = time.monotonic()
    with convert_source(str(FIXTURE), tmp_path / "o", max_shard_size=300_000, num_proc=3, figures=False) as done:
        pass
    assert (done.files, done.new_files, done.new_bytes) == (4, 1, size)
    assert 0 < done.seconds <= time.monotonic() - start - CHECKING
    capsys.readouterr()
    assert convert(FIXTURE, tmp_path / "o", "--max-shard-size", "300kB") == 0
    assert "\n0 written (0.0 MB), 4 already up to date\n" in capsys.readouterr().out


@pytest.mark.slow
def test_num_proc_is_bounded(tmp_path: Path) -> None:
    padded(tmp_path / "source", count=20, size=500_000)
    options = ["--num-proc", "999", "--no-figures"]
    command = [sys.executable, SCRIPT, str(tmp_path / "source"), str(tmp_path / "o"), *options]
    most = 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            most = max(most, len(children.read_text().split()))
    assert process.returncode == 0
    assert 1 < most <= max(2 * available_cpus(), 16)


def pipe(arguments: str, reader: str) -> str:
    """Runs the program in a shell pipe; returns its exit code, and checks its messages."""
    piped = f"{sys.executable} {SCRIPT} {arguments} | {reader}; echo ${{PIPESTATUS[0]}}"
    finished = subprocess.run(["bash", "-c", piped], capture_output=True, text=True)
    assert finished.stderr == ""
    return finished.stdout.splitlines()[-1]


def test_closed_pipe_prints_no_traceback(converted: Path) -> None:
    assert pipe(f"{FIXTURE} {converted} --verify --uncertainty zeros", "true") == "141"


@pytest.mark.slow
def test_pipe_closed_after_the_first_line_prints_no_traceback(tmp_path: Path) -> None:
    padded(tmp_path / "source", count=600, size=200)
    assert convert(tmp_path / "source", tmp_path / "o", "--max-shard-size", "50kB") == 0
    table = tmp_path / "source" / "m.csv"
    table.write_text(table.read_text().replace("Picture", "Other picture"))
    for reader in ("true", "head -1"):
        assert pipe("--help", reader) in ("0", "141"), "argparse ignores errors of writing"
    assert pipe(f"{tmp_path}/source {tmp_path}/o --verify", "head -1") == "141"


def test_remote_source_is_read_in_large_requests(tmp_path: Path) -> None:
    padded(tmp_path / "source", count=40, size=500_000)
    with serve(tmp_path / "source") as server:
        rows = synthchex_75k.plan(server.url)
        server.asked.clear()
        assert len([*read(rows)]) == 40
        assert len(server.asked) <= 5  # two of them ask whether the files have changed


@pytest.mark.slow
def test_remote_source_is_converted_with_few_requests(tmp_path: Path) -> None:
    padded(tmp_path / "source", count=40, size=500_000)
    with serve(tmp_path / "source") as server:
        # In a process of its own: one with threads, such as a server's, must not be forked.
        assert run(server.url, tmp_path / "o", "--no-figures").returncode == 0
        assert sum("/a.zip" in path for path in server.asked) < 20
    assert convert(tmp_path / "source", tmp_path / "local") == 0
    assert published(tmp_path / "local") == published(tmp_path / "o")


def test_images_of_unknown_size_are_refused() -> None:
    rows = [synthchex_75k.Row("a.png", "https://host/a.png", "img/a.png", 0, None, None)]
    with pytest.raises(StepError, match=r"img/a.png: unknown size, the server sends no Content-Length; download"):
        parquet_shards(rows, Path("o"), 1_000_000, 100, "zeros")


@pytest.mark.slow
def test_remote_images_of_unknown_size_are_refused(source: Source, tmp_path: Path) -> None:
    with serve(source(shape=loose)) as server:
        finished = run(server.url, tmp_path / "o", "--no-figures")
    assert finished.returncode == 1
    assert re.search(r"error: img/.*png: unknown size, the server sends no Content-Length; download", finished.stderr)


# Without matplotlib


@pytest.fixture
def without_matplotlib(tmp_path: Path) -> str:
    """A folder for PYTHONPATH: where it is on the path, matplotlib cannot be imported."""
    to_files(tmp_path / "hidden", {"sitecustomize.py": HIDE_MATPLOTLIB.encode()})
    return str(tmp_path / "hidden")


HIDE_MATPLOTLIB = """
import sys

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "matplotlib":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hide())
"""


def test_without_matplotlib_the_card_has_no_figures(without_matplotlib: str, tmp_path: Path) -> None:
    finished = run(FIXTURE, tmp_path / "o", PYTHONPATH=without_matplotlib)
    assert finished.returncode == 0
    assert finished.stderr == (
        "no figures: the figures of the card need matplotlib: pip install matplotlib, or `uv run --extra figures …`\n"
    )
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == [
        ".manifest.jsonl",
        "README.md",
        "croissant.json",
        "data",
        "labels",
    ]
    assert "![" not in (tmp_path / "o/README.md").read_text(encoding="utf-8")


def test_figures_without_matplotlib_are_an_error_at_once(without_matplotlib: str, tmp_path: Path) -> None:
    finished = run(tmp_path / "no source", tmp_path / "o", "--figures", PYTHONPATH=without_matplotlib)
    assert finished.returncode == 1
    assert finished.stderr.startswith("error: the figures of the card need matplotlib: pip install matplotlib")
    assert finished.stderr.count("\n") == 1
    assert not (tmp_path / "o").exists()


# Results of another source or other options


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        (["--uncertainty", "zeros"], "uncertainty was 'keep' and is now 'zeros'"),
        pytest.param(["--rows-per-group", "1"], "rows_per_group was 100 and is now 1", marks=pytest.mark.slow),
        pytest.param(
            ["--max-shard-size", "400kB"], "max_shard_size was 300000 and is now 400000", marks=pytest.mark.slow
        ),
    ],
)
def test_overwrite_is_required_for_other_options(
    options: list[str], difference: str, source: Source, tmp_path: Path, capsys: Any
) -> None:
    folder = source()
    before = ["--max-shard-size", "300kB"]
    assert convert(folder, tmp_path / "o", *before) == 0
    whole = contents(tmp_path / "o")
    assert convert(folder, tmp_path / "o", *before, *options) == 1
    assert capsys.readouterr().err == (
        f"error: {tmp_path}/o contains the result of another source or other options: {difference}. This run would "
        "replace 4 finished files. Name another folder, or pass --overwrite.\n"
    )
    assert contents(tmp_path / "o") == whole
    assert convert(folder, tmp_path / "o", *before, *options, "--overwrite") == 0
    assert convert(folder, tmp_path / "fresh", *before, *options) == 0
    assert contents(tmp_path / "o") == contents(tmp_path / "fresh")


def test_overwrite_is_required_for_another_source(source: Source, table: Rows, tmp_path: Path, capsys: Any) -> None:
    first, same = source(), source()
    options = ["--max-shard-size", "300kB"]
    table[0] = {**table[0], "prompt": "Another."}
    other = source(table=to_csv(table))
    assert convert(first, tmp_path / "o", *options) == 0
    before = identities(tmp_path / "o")
    assert convert(same, tmp_path / "o", *options) == 0
    assert identities(tmp_path / "o") == before, "the same rows at another place are the same result"
    assert convert(other, tmp_path / "o", *options) == 1
    message = capsys.readouterr().err
    assert f"source was '{same}' and is now '{other}'. This run would replace 1 finished file. " in message
    assert convert(other, tmp_path / "o", *options, "--overwrite") == 0
    assert [path.name for path in before if identities(tmp_path / "o")[path] != before[path]] == [
        "train-00000-of-00004.parquet"
    ]
    assert convert(other, tmp_path / "fresh", *options) == 0
    assert contents(tmp_path / "o") == contents(tmp_path / "fresh")


@pytest.mark.parametrize("shape", [zips, *(pytest.param(one, marks=pytest.mark.slow) for one in (tars, loose))])
def test_changed_source_is_updated(shape: Write, source: Source, images: dict[str, bytes], tmp_path: Path) -> None:
    options = ["--max-shard-size", "300kB", "--rows-per-group", "2"]
    folder = source(shape=shape)
    assert convert(folder, tmp_path / "o", *options) == 0
    before = identities(tmp_path / "o")
    assert len(before) == 4
    name, png = list(images.items())[-1]
    shutil.rmtree(folder)
    source({**images, name: with_chunk(png, bytes(38))}, shape=shape).rename(folder)
    assert convert(folder, tmp_path / "o", *options) == 0
    after = identities(tmp_path / "o")
    assert [path for path in before if before[path] != after.get(path)] == [list(before)[-1]]
    assert convert(folder, tmp_path / "fresh", *options) == 0
    assert contents(tmp_path / "fresh") == contents(tmp_path / "o")


def test_changed_prompt_rewrites_its_file_and_the_card(source: Source, table: Rows, tmp_path: Path) -> None:
    options = ["--max-shard-size", "300kB"]
    folder = source()
    assert convert(folder, tmp_path / "o", *options) == 0
    before = identities(tmp_path / "o")
    table[0] = {**table[0], "prompt": "Another."}
    to_files(folder, {"metadata.csv": to_csv(table)})
    assert convert(folder, tmp_path / "o", *options) == 0
    after = identities(tmp_path / "o")
    assert [path.name for path in before if before[path] != after[path]] == ["train-00000-of-00004.parquet"]
    assert "Another." in (tmp_path / "o/README.md").read_text(encoding="utf-8")


def test_another_pyarrow_version_rewrites_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as older:
        older.setattr("pyarrow.__version__", "9999.0.0")
        assert convert(FIXTURE, tmp_path / "o") == 0
    before = identities(tmp_path / "o")
    assert convert(FIXTURE, tmp_path / "o") == 0
    assert before != identities(tmp_path / "o")


# Refused before anything is written


def test_invalid_source(source: Source, table: Rows, tmp_path: Path, capsys: Any) -> None:
    table[3] = {**table[3], "Edema": "7"}
    folder = source(table=table)
    assert convert(folder, tmp_path / "o") == 1
    message = capsys.readouterr().err
    with pytest.raises(synthchex_75k.SourceError) as refused:
        synthchex_75k.plan(str(folder))
    assert message == f"error: {refused.value}\n"
    assert not (tmp_path / "o").exists()


def test_on_mismatch(source: Source, table: Rows, tmp_path: Path, capsys: Any) -> None:
    folder = source(table=table[:-1])
    assert convert(folder, tmp_path / "o") == 1
    assert convert(folder, tmp_path / "o", "--on-mismatch", "skip") == 0
    printed = capsys.readouterr().out
    assert "11 rows" in printed
    assert re.search(r"^verify: .* --verify --uncertainty keep --on-mismatch skip$", printed, re.M)
    assert convert(folder, tmp_path / "o", "--on-mismatch", "skip", "--verify") == 0


@pytest.mark.parametrize(
    "foreign", ["notes.txt", "data/other.parquet", "data/train-00000-of-00001.parquet", "README.md"]
)
def test_foreign_files_are_refused_and_kept(foreign: str, tmp_path: Path, capsys: Any) -> None:
    to_files(tmp_path / "o", {foreign: b"mine", ".git/config": b"git's", "data/.DS_Store": b"Bud1"})
    before = contents(tmp_path / "o")
    for options in ([], ["--overwrite"]):
        assert convert(FIXTURE, tmp_path / "o", *options) == 1
        assert capsys.readouterr().err == (
            f"error: {tmp_path}/o contains 1 file that this program did not write or that changed since then: "
            f"{foreign}. Move or delete it and run the command again, or name another folder.\n"
        )
        assert contents(tmp_path / "o") == before


@pytest.mark.parametrize("foreign", ["notes.txt", "data/mine.parquet"])
def test_foreign_files_beside_a_result_are_refused_and_kept(foreign: str, tmp_path: Path, capsys: Any) -> None:
    assert convert(FIXTURE, tmp_path / "o") == 0
    to_files(tmp_path / "o", {foreign: b"mine", ".git/config": b"git's", "data/.mine.tmp": b"mine"})
    before = contents(tmp_path / "o")
    assert convert(FIXTURE, tmp_path / "o", "--uncertainty", "ones", "--overwrite") == 1
    assert f"1 file that this program did not write or that changed since then: {foreign}. Move" in (
        capsys.readouterr().err
    )
    assert contents(tmp_path / "o") == before
    (tmp_path / "o" / foreign).unlink()
    assert convert(FIXTURE, tmp_path / "o", "--uncertainty", "ones", "--overwrite") == 0
    assert {".git/config", "data/.mine.tmp"} < {*contents(tmp_path / "o")}, "hidden files stay"


def test_parquet_file_of_another_program_is_refused(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "o/data").mkdir(parents=True)
    pq.write_table(pa.table({"a": [1]}), tmp_path / "o/data/train-00000-of-00001.parquet")
    assert convert(FIXTURE, tmp_path / "o") == 1
    assert "that this program did not write" in capsys.readouterr().err


def test_edited_card_is_refused_and_kept(tmp_path: Path, capsys: Any) -> None:
    assert convert(FIXTURE, tmp_path / "o") == 0
    card = tmp_path / "o/README.md"
    card.write_text(card.read_text(encoding="utf-8").replace("## Citation", "My words.\n\n## Citation"))
    for options in ([], ["--overwrite"]):
        assert convert(FIXTURE, tmp_path / "o", "--uncertainty", "ones", *options) == 1
        assert "changed since then: README.md. Move or delete it and run the command again" in capsys.readouterr().err
        assert "My words." in card.read_text(encoding="utf-8")
    card.rename(tmp_path / "edited.md")
    assert convert(FIXTURE, tmp_path / "o") == 0


def test_output_must_not_be_a_source(tmp_path: Path, capsys: Any) -> None:
    with zipfile.ZipFile(FIXTURE / "data/images-00000-of-00002.zip") as archive:
        archive.extractall(tmp_path / "images")
    packing = [str(tmp_path / "images"), str(FIXTURE / "metadata.csv"), str(tmp_path / "packed")]
    assert pack_shards.main([*packing, "--on-mismatch", "skip"]) == 0
    before = contents(tmp_path / "packed")
    assert convert(tmp_path / "packed", tmp_path / "packed", "--overwrite") == 1
    assert f"{tmp_path}/packed is the source as well; name another folder" in capsys.readouterr().err
    assert convert(FIXTURE, tmp_path / "packed", "--overwrite") == 1
    assert f"{tmp_path}/packed contains the result of another program; name another folder" in capsys.readouterr().err
    assert contents(tmp_path / "packed") == before


def test_invalid_names(tmp_path: Path, capsys: Any) -> None:
    to_files(tmp_path, {"file": b""})
    assert convert(FIXTURE, tmp_path / "file") == 1
    assert "is a file; name a folder" in capsys.readouterr().err
    assert convert(FIXTURE, tmp_path / "SynthCheX_75K") == 1
    assert "SynthCheX_75K: choose another name: beside a synthchex_75k.py, `datasets` 4" in capsys.readouterr().err
    assert convert(tmp_path / "nowhere", tmp_path / "o") == 1
    assert "nowhere: no such file or folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num-proc", "0"], "0 is not positive"),
        (["--rows-per-group", "x"], "invalid positive value: 'x'"),
        (["--max-shard-size", "many"], "max-shard-size: .*many"),
        (["--uncertainty", "U-Zeros"], "invalid choice: 'U-Zeros'"),
        (["hf://datasets/a/b"], "unrecognized arguments"),
    ],
)
def test_invalid_options(options: list[str], message: str, tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(SystemExit, match="2"):
        convert(FIXTURE, tmp_path / "o", *options)
    assert re.search(message, capsys.readouterr().err)


def test_address_as_output(capsys: Any) -> None:
    with pytest.raises(SystemExit, match="2"):
        convert_to_parquet.main([str(FIXTURE), "hf://datasets/a/b"])
    assert "hf://datasets/a/b must be a local folder; upload the result afterwards" in capsys.readouterr().err


def test_row_larger_than_the_bound_of_a_file(tmp_path: Path, capsys: Any) -> None:
    assert convert(FIXTURE, tmp_path / "o", "--max-shard-size", "50kB") == 1
    assert re.search(
        r"--max-shard-size is too small: one row \(data/images-.*png\) needs [\d,]+ bytes", capsys.readouterr().err
    )
    assert not (tmp_path / "o").exists()
