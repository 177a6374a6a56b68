"""What `benchmark.py --chunking` measures: bytes that Xet storage lacks, bytes that a page read takes, its tables."""

import random
import tempfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.benchmark.chunking import (
    SETTINGS,
    XetStore,
    compare_chunkings,
    draw_source,
    edits_of,
    page_reads,
)
from pipeline.errors import StepError
from pipeline.parquet.shard import OPTIONS, parquet_shards, read_table
from pipeline.rows import plan
from synthchex_75k import Row

LARGEST_CHUNK = 128 << 10  # of Xet: bytes
SIZE = 2_000_000


def write(rows: list[Row], uncertainty: str, options: dict[str, Any], folder: Path) -> list[Path]:
    """Writes one file, a row group for each 100 rows."""
    folder.mkdir(parents=True)
    (file,) = parquet_shards(rows, folder, 500_000_000, 100, uncertainty)
    path = folder / "0.parquet"
    tables = [read_table(group, uncertainty, [], set()) for group in file.row_groups]
    with pq.ParquetWriter(path, tables[0].schema, **{**OPTIONS, **options}) as writer:
        for table in tables:
            writer.write_table(table)
    return [path]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    folder = tmp_path_factory.mktemp("made") / "source"
    draw_source(folder, 251)
    return plan(str(folder))


@settings(max_examples=8)
@given(st.just(0) | st.integers(0, SIZE), st.binary(min_size=1, max_size=2000))
def test_an_insertion_makes_few_chunks_new(place: int, new: bytes) -> None:
    data = random.Random(0).randbytes(SIZE)
    with tempfile.TemporaryDirectory() as name, XetStore(Path(name, "store")) as store:
        before, after = Path(name, "before"), Path(name, "after")
        before.write_bytes(data)
        after.write_bytes(data[:place] + new + data[place:])
        assert store.upload([before]) == SIZE
        assert store.new_bytes([before]) == 0
        found = store.new_bytes([after])
        assert len(new) <= found <= 4 * LARGEST_CHUNK + len(new)
        assert store.new_bytes([after]) == found == store.upload([after])
        assert store.new_bytes([before, after]) == 0


def test_an_edit_changes_what_its_name_says(rows: list[Row]) -> None:
    old, edits = edits_of(rows)
    names = [row.filename for row in old]
    after = {name: [row.filename for row in edited] for name, (edited, _) in edits.items()}
    assert len(names) == 250
    assert {name: len({*names} ^ {*of_edit}) for name, of_edit in after.items()} == {
        "a row inserted": 1,
        "a row removed": 1,
        "a prompt changed": 0,
        "a quarter filtered out": 63,
        "another label policy": 0,
    }
    changed = [new.prompt for row, new in zip(old, edits["a prompt changed"][0]) if row != new]
    assert changed == ["A prompt of other words."]
    assert [name for name, (_, policy) in edits.items() if policy != "keep"] == ["another label policy"]


def test_a_page_per_image_is_read_to_the_byte_and_makes_no_image_new(rows: list[Row], tmp_path: Path) -> None:
    old, edits = edits_of(rows)
    reads = {}
    for name in (
        "`convert_to_parquet.py`",
        "off, a page per image",
        "the same, a page per image",
        "4 to 16 KiB",
        "off",
    ):
        (path,) = write(old, "keep", SETTINGS[name], tmp_path / name)
        reads[name] = page_reads(path)
    one = reads["`convert_to_parquet.py`"]
    assert reads["off, a page per image"] == reads["the same, a page per image"] == one  # large chunks hold whole pages
    assert len(one.pages) == len(reads["4 to 16 KiB"].pages) == len(old)
    wanted = [row.size or 0 for row in old[150:250]]
    assert 0 <= one.one_row - wanted[0] < 20_000  # footer, page index and header
    assert 0 <= one.page_of_rows - sum(wanted) < 40_000
    assert len(reads["off"].pages) == 3
    assert reads["off"].page_of_rows > 1.4 * one.page_of_rows
    with XetStore(tmp_path / "store") as store:
        store.upload([tmp_path / "`convert_to_parquet.py`" / "0.parquet"])
        inserted = write(*edits["a row inserted"], {}, tmp_path / "after")
        assert store.new_bytes(inserted) < 2_000_000  # not the 33 MB behind the row


def test_a_file_without_page_index_is_refused(rows: list[Row], tmp_path: Path) -> None:
    (path,) = write(rows, "keep", {"write_page_index": False}, tmp_path / "folder")
    with pytest.raises(StepError, match="one by one"):
        page_reads(path)
    assert page_reads(*write(rows, "keep", {}, tmp_path / "indexed")).pages


def test_too_few_images_are_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(StepError, match="--images: 300 to 1500"):
        list(compare_chunkings(tmp_path, 299, 1, write))
    assert not [*tmp_path.iterdir()]


@pytest.mark.slow
def test_the_tables_have_each_setting_and_edit(tmp_path: Path) -> None:
    lines = [*compare_chunkings(tmp_path, 300, 1, write)]
    assert lines[0].startswith("300 images, ")
    cells = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    costs, transfers = (cells[: len(SETTINGS) + 1], cells[len(SETTINGS) + 1 :])
    assert [row[0] for row in costs[1:]] == [row[0] for row in transfers[1:]] == [*SETTINGS]
    assert {len(row) for row in costs} == {6}
    assert {len(row) for row in transfers} == {6}
    inserted = {row[0]: float(row[1].removesuffix(" MB")) for row in transfers[1:]}
    assert 0.3 < inserted["off, a page per image"] < 3
    assert [*tmp_path.iterdir()] == [tmp_path / "source"]
