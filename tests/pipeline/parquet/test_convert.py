"""The converter: what it writes, for whom, and what it refuses."""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
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
import synthchex_75k
from conftest import (
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
    to_files,
)
from servers.range_server import serve
from synthchex_75k import LABELS, load

SCRIPT = str(ROOT / "scripts" / "convert_to_parquet.py")
NEW = int(datasets.__version__.split(".")[0]) >= 3


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fixture, converted with raw labels into three files of two row groups each."""
    output = tmp_path_factory.mktemp("converted") / "parquet"
    options = ["--uncertainty", "keep", "--max-shard-size", "450kB", "--rows-per-group", "2"]
    assert convert(FIXTURE, output, *options) == 0
    return output


def snippets(output: Path) -> list[str]:
    text = (output / "README.md").read_text(encoding="utf-8")
    text = text.replace("hf://datasets/USER/NAME", str(output)).replace("USER/NAME", str(output))
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


# The rows, for every reader


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_source_gives_the_rows_of_the_script(
    shape: Write, source: Source, expected: Rows, rows_of: Callable[..., Rows], tmp_path: Path
) -> None:
    assert convert(source(shape=shape), tmp_path / "o", "--uncertainty", "keep", "--rows-per-group", "5") == 0
    dataset = datasets.load_dataset(str(tmp_path / "o"), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows_of(dataset) == expected


@pytest.mark.parametrize("uncertainty", ["zeros", "ones", "keep"])
def test_load_dataset(uncertainty: str, rows_of: Callable[..., Rows], tmp_path: Path) -> None:
    assert convert(FIXTURE, tmp_path / "o", "--uncertainty", uncertainty) == 0
    wanted = load(FIXTURE, uncertainty=uncertainty, cache_dir=tmp_path / "cache")
    dataset = datasets.load_dataset(str(tmp_path / "o"), split="train", cache_dir=str(tmp_path / "cache"))
    assert dataset.features == wanted.features == synthchex_75k.FEATURES
    assert dataset[0]["image"].size == (512, 512)
    stream = datasets.load_dataset(str(tmp_path / "o"), split="train", streaming=True)
    assert rows_of(dataset) == rows_of(stream) == rows_of(wanted)


def test_duckdb_polars_and_pandas(converted: Path, expected: Rows) -> None:
    files = f"{converted}/data/*.parquet"
    wanted = [{**row, "image": {"bytes": row["image"], "path": row["filename"]}} for row in expected]
    relation = duckdb.sql(f"SELECT * FROM '{files}'")
    assert relation is not None
    assert relation.to_arrow_table().to_pylist() == wanted
    assert polars.read_parquet(files).to_dicts() == wanted
    frame = pandas.concat([pandas.read_parquet(path) for path in files_of(converted)])
    assert frame.to_dict("records") == wanted


def test_the_snippets_of_the_card_run(converted: Path) -> None:
    codes = snippets(converted)
    assert [word for code in codes for word in re.findall(r"^import (?:duckdb|polars)|filters=", code, re.M)] == [
        "filters=",
        "import duckdb",
        "import polars",
    ]
    for code in codes if NEW else [code for code in codes if "filters=" not in code]:
        end = "import os, sys; sys.stdout.flush(); os._exit(0)"  # as the card advises
        run = subprocess.run([sys.executable, "-c", f"{code}\n{end}"], capture_output=True, text=True)
        assert run.returncode == 0, run.stderr


# The files


def test_the_layout_is_made_for_readers(converted: Path, images: dict[str, bytes]) -> None:
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


def test_files_take_little_more_than_their_images(tmp_path: Path) -> None:
    padded(tmp_path / "source", count=300, size=265_000)
    assert convert(tmp_path / "source", tmp_path / "o", "--max-shard-size", "30MB") == 0
    paths = files_of(tmp_path / "o")
    assert sum(path.stat().st_size for path in paths) <= 1.005 * 300 * 265_000
    pages = [pq.ParquetFile(path).metadata.row_group(0).column(0) for path in paths]
    assert all(page.total_uncompressed_size < 27e6 for page in pages)


def test_a_row_group_is_no_larger_than_the_viewer_takes(tmp_path: Path) -> None:
    padded(tmp_path / "source", count=5, size=30_000_000)
    assert convert(tmp_path / "source", tmp_path / "o") == 0
    (path,) = files_of(tmp_path / "o")
    metadata = pq.read_metadata(path)
    sizes = [metadata.row_group(n).total_byte_size for n in range(metadata.num_row_groups)]
    assert len(sizes) == 3
    assert max(sizes) < 100_000_000


SIZES = st.lists(st.integers(1, 500_000), min_size=1, max_size=400)


@settings(deadline=None)
@given(sizes=SIZES, max_size=st.integers(600_000, 20_000_000), per_group=st.integers(1, 100))
def test_cuts_keep_order_and_bound(sizes: list[int], max_size: int, per_group: int) -> None:
    rows = [synthchex_75k.Row(f"{n}.png", "a.zip", "", 0, size, size) for n, size in enumerate(sizes)]
    shards = convert_to_parquet.cut_shards(rows, Path("data"), max_size, per_group, "zeros")
    assert [row for shard in shards for row in shard.rows] == rows
    assert all(shard.rows and shard.size <= max_size for shard in shards)
    names = [f"data/train-{n:05d}-of-{len(shards):05d}.parquet" for n in range(len(shards))]
    assert [str(shard.path) for shard in shards] == names


@settings(deadline=None, max_examples=30)
@given(count=st.integers(1, 20_000), max_size=st.integers(30, 900), seed=st.integers(0, 2**32))
def test_files_are_of_even_size(count: int, max_size: int, seed: int) -> None:
    sizes = [230_000 + (n * 2654435761 + seed) % 70_000 for n in range(count)]
    rows = [synthchex_75k.Row(f"{n}.png", "a.zip", "", 0, size, size) for n, size in enumerate(sizes)]
    shards = convert_to_parquet.cut_shards(rows, Path("data"), max_size * 1_000_000, 100, "zeros")
    assert max(shard.size for shard in shards) <= 1.3 * min(shard.size for shard in shards)
    assert len(shards) <= 1.15 * sum(shard.size for shard in shards) / (max_size * 1_000_000) + 1


@pytest.mark.parametrize("rows_per_group", ["1", "100"])
def test_no_file_is_over_the_bound(rows_per_group: str, tmp_path: Path) -> None:
    padded(tmp_path / "source", count=300, size=1_000)
    options = ["--max-shard-size", "120kB", "--rows-per-group", rows_per_group]
    assert convert(tmp_path / "source", tmp_path / "o", *options) == 0
    sizes = [path.stat().st_size for path in files_of(tmp_path / "o")]
    assert len(sizes) > 2
    assert max(sizes) <= 120_000


def test_the_number_of_processes_does_not_show(tmp_path: Path) -> None:
    options = ["--max-shard-size", "300kB", "--rows-per-group", "3"]
    for num_proc in ("1", "3"):
        assert convert(FIXTURE, tmp_path / num_proc, *options, "--num-proc", num_proc) == 0
    assert contents(tmp_path / "1") == contents(tmp_path / "3")
    assert len(contents(tmp_path / "1")) > 3


# The card


def test_the_card_counts_as_datasets_does(converted: Path, tmp_path: Path) -> None:
    header = DatasetCard.load(converted / "README.md", ignore_metadata_errors=False).data.to_dict()
    shutil.copytree(converted / "data", tmp_path / "bare" / "data")
    counted = datasets.load_dataset(str(tmp_path / "bare"), split="train", cache_dir=str(tmp_path / "cache")).info
    split = {"name": "train", "num_bytes": counted.splits["train"].num_bytes, "num_examples": 12}
    assert header["dataset_info"]["splits"] == [split]
    assert header["dataset_info"]["dataset_size"] == counted.dataset_size
    assert header["dataset_info"]["download_size"] == sum(path.stat().st_size for path in files_of(converted))
    info = datasets.load_dataset_builder(str(converted)).info
    assert info.features == synthchex_75k.FEATURES
    assert header["configs"][0]["data_files"] == [{"split": "train", "path": "data/train-*.parquet"}]
    assert (header["license"], header["size_categories"]) == ("apache-2.0", ["n<1K"])
    assert "chest-x-ray" in header["tags"]


def test_the_card_is_for_someone_who_has_only_the_data(converted: Path) -> None:
    text = (converted / "README.md").read_text(encoding="utf-8")
    assert not re.search(r"trust_remote_code|synthchex_75k|uvx|tests/", text)
    for title in (
        "The row",
        "Use it",
        "Label policy",
        "How the dataset was made",
        "Intended use and limits",
        "Citation",
    ):
        assert f"\n## {title}\n" in text
    assert "Here are 12 rows in 3 Parquet files" in text
    assert "'No Finding': 1" in text
    assert 'Here it is `"keep"`' in text
    assert list(converted.rglob("*.py")) == []


# The program


def test_help_is_a_manual(capsys: Any) -> None:
    with pytest.raises(SystemExit, match="0"):
        convert_to_parquet.main(["--help"])
    shown = capsys.readouterr().out
    for word in ("SOURCE", "OUTPUT_DIR", "--num-proc", "--max-shard-size", "--rows-per-group", "--verify", "examples:"):
        assert word in shown


def test_what_it_says_at_the_end_is_so(tmp_path: Path, capsys: Any) -> None:
    command = [sys.executable, SCRIPT, str(FIXTURE), str(tmp_path / "o"), "--no-figures"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    assert re.search(r"12 rows, 1\.0 MB, Parquet files: 1\n1 written .* MB/s\), 0 were there\n", run.stdout)
    (load, verify) = (re.findall(rf"^{label}: +(.*)$", run.stdout, re.M)[0] for label in ("load", "verify"))
    assert ast.unparse(ast.parse(load)) == f"datasets.load_dataset('{tmp_path}/o', split='train')"
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    checked = subprocess.run(verify, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (checked.returncode, checked.stdout) == (0, "no difference\n")
    assert convert(FIXTURE, tmp_path / "o") == 0
    assert "0 written" in capsys.readouterr().out


def convert_apart(source: str, output: Path) -> subprocess.CompletedProcess[str]:
    """Converts in a process of its own: none with threads, such as a server's, is to be forked."""
    command = [sys.executable, SCRIPT, source, str(output), "--no-figures"]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_remote_source_is_read_in_large_requests(tmp_path: Path) -> None:
    padded(tmp_path / "source", count=40, size=500_000)
    with serve(tmp_path / "source") as server:
        assert convert_apart(server.url, tmp_path / "o").returncode == 0
        assert sum("/a.zip" in path for path in server.asked) < 20
    assert convert(tmp_path / "source", tmp_path / "local") == 0
    assert contents(tmp_path / "local") == contents(tmp_path / "o")


def test_loose_images_whose_server_does_not_say_their_size(source: Source, tmp_path: Path) -> None:
    with serve(source(shape=loose)) as server:
        run = convert_apart(server.url, tmp_path / "o")
    assert run.returncode == 1
    assert re.search(r"error: img/.*png: the server does not say how large it is; download it", run.stderr)


# What it refuses, before it writes anything


def test_a_source_that_cannot_be_used(source: Source, table: Rows, tmp_path: Path, capsys: Any) -> None:
    table[3] = {**table[3], "Edema": "7"}
    folder = source(table=table)
    assert convert(folder, tmp_path / "o") == 1
    message = capsys.readouterr().err
    with pytest.raises(synthchex_75k.SourceError) as told:
        synthchex_75k.plan(str(folder))
    assert message == f"error: {told.value}\n"
    assert not (tmp_path / "o").exists()


def test_on_mismatch(source: Source, table: Rows, tmp_path: Path, capsys: Any) -> None:
    folder = source(table=table[:-1])
    assert convert(folder, tmp_path / "o") == 1
    assert convert(folder, tmp_path / "o", "--on-mismatch", "skip") == 0
    told = capsys.readouterr().out
    assert "11 rows" in told
    assert re.search(r"^verify: .* --verify --uncertainty zeros --on-mismatch skip$", told, re.M)
    assert convert(folder, tmp_path / "o", "--on-mismatch", "skip", "--verify") == 0


@pytest.mark.parametrize(
    "foreign", ["notes.txt", "data/other.parquet", "data/train-00000-of-00001.parquet", "README.md"]
)
def test_foreign_files_are_refused_and_left(foreign: str, tmp_path: Path, capsys: Any) -> None:
    to_files(tmp_path / "o", {foreign: b"mine", ".git/config": b"git's", "data/.DS_Store": b"Bud1"})
    before = contents(tmp_path / "o")
    assert convert(FIXTURE, tmp_path / "o") == 1
    message = capsys.readouterr().err
    assert re.search(
        rf"{tmp_path}/o holds what no conversion has written.*\(1 in all\): {re.escape(foreign)}\n", message
    )
    assert contents(tmp_path / "o") == before


def test_somebody_elses_parquet_file_is_foreign(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "o/data").mkdir(parents=True)
    pq.write_table(pa.table({"a": [1]}), tmp_path / "o/data/train-00000-of-00001.parquet")
    assert convert(FIXTURE, tmp_path / "o") == 1
    assert "holds what no conversion has written" in capsys.readouterr().err


def test_an_edited_card_is_not_overwritten(tmp_path: Path, capsys: Any) -> None:
    assert convert(FIXTURE, tmp_path / "o") == 0
    card = tmp_path / "o/README.md"
    card.write_text(card.read_text().replace("## Citation", "My words.\n\n## Citation"))
    assert convert(FIXTURE, tmp_path / "o", "--uncertainty", "ones") == 1
    assert "edited" in capsys.readouterr().err
    assert "My words." in card.read_text()


def test_names_that_cannot_be(tmp_path: Path, capsys: Any) -> None:
    to_files(tmp_path, {"file": b""})
    assert convert(FIXTURE, tmp_path / "file") == 1
    assert "is a file; name a folder" in capsys.readouterr().err
    assert convert(FIXTURE, tmp_path / "SynthCheX_75K") == 1
    assert "SynthCheX_75K: name it otherwise" in capsys.readouterr().err
    assert convert(tmp_path / "nowhere", tmp_path / "o") == 1
    assert "nowhere: no such file or folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--num-proc", "0"], "0 is not positive"),
        (["--rows-per-group", "x"], "invalid positive value: 'x'"),
        (["--max-shard-size", "many"], "max-shard-size: .*many"),
        (["--uncertainty", "U-Zeros"], "invalid choice: 'U-Zeros'"),
        (["hf://datasets/a/b"], "unrecognized arguments"),
    ],
)
def test_wrong_arguments(options: list[str], told: str, tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(SystemExit, match="2"):
        convert(FIXTURE, tmp_path / "o", *options)
    assert re.search(told, capsys.readouterr().err)


def test_an_address_is_no_output(capsys: Any) -> None:
    with pytest.raises(SystemExit, match="2"):
        convert_to_parquet.main([str(FIXTURE), "hf://datasets/a/b"])
    assert "hf://datasets/a/b is no folder of this machine" in capsys.readouterr().err


def test_a_row_larger_than_a_file_may_be(tmp_path: Path, capsys: Any) -> None:
    assert convert(FIXTURE, tmp_path / "o", "--max-shard-size", "50kB") == 1
    assert re.search(r"--max-shard-size: data/images-.*png alone may take [\d,]+ bytes", capsys.readouterr().err)
    assert not (tmp_path / "o").exists()
