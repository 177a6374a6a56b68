"""What all Parquet files of a converted folder have in common: chunks that depend on the content, and their keys."""

import json
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest

from conftest import FIXTURE
from convert_to_parquet import main
from pipeline.parquet import shard, writer
from synthchex_75k import load


def footer(path: Path) -> dict[bytes, bytes]:
    return pq.read_metadata(path).metadata


def test_footers_tell_readers_of_content_defined_chunks(tmp_path: Path) -> None:
    assert main([str(FIXTURE), str(tmp_path), "--no-figures", "--max-shard-size", "300KB"]) == 0
    files = sorted(tmp_path.rglob("*.parquet"))
    assert {path.parent.name for path in files} == {"data", "labels"}
    for path in files:
        options = {"data": shard.OPTIONS, "labels": writer.WRITER_OPTIONS}[path.parent.name]
        assert json.loads(footer(path)[b"content_defined_chunking"]) == options["use_content_defined_chunking"]
        assert b"use_content_defined_chunking" in footer(path)  # the Hub's viewer reads no value


@pytest.mark.slow  # older versions of `datasets` write no such key
def test_the_key_of_datasets_is_the_same(tmp_path: Path) -> None:
    load(FIXTURE, cache_dir=tmp_path / "cache").to_parquet(tmp_path / "theirs.parquet")
    theirs = json.loads(footer(tmp_path / "theirs.parquet")[b"content_defined_chunking"])
    assert theirs == datasets.config.DEFAULT_CDC_OPTIONS
    assert theirs == writer.WRITER_OPTIONS["use_content_defined_chunking"]
    assert theirs.keys() == shard.OPTIONS["use_content_defined_chunking"].keys()
