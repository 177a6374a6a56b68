"""Sources at addresses: from a Hub and over HTTP, through the unmodified clients."""

import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import SHAPES, Rows, Source, Write, contents, mixed, one_zip, to_csv, to_zip
from servers.local_hub import Hub
from servers.range_server import serve
from synthchex_75k import LABELS, SourceError, load


@pytest.mark.parametrize(
    ("address", "options"),
    [(None, {"streaming": True}), ("hf://datasets/raman07/SynthCheX-75K@v1.0", {"num_proc": 2})],
    ids=["default, streaming", "address, cached"],
)
@pytest.mark.parametrize("shape", [one_zip, mixed])
def test_a_hub_repo_is_a_source(
    shape: Write,
    address: str | None,
    options: dict[str, Any],
    source: Source,
    expected: Rows,
    rows_of: Callable[..., Rows],
    hub: Hub,
    tmp_path: Path,
) -> None:
    repo = hub.create("raman07/SynthCheX-75K", files=contents(source(shape=shape)))
    repo.refs["refs/heads/v1.0"] = repo.refs["refs/heads/main"]
    options = options if "streaming" in options else {**options, "cache_dir": tmp_path / "cache"}
    assert rows_of(load(address, uncertainty="keep", **options)) == expected


@pytest.mark.parametrize("shape", SHAPES)
def test_an_http_folder_is_a_source(
    shape: Write, source: Source, expected: Rows, rows_of: Callable[..., Rows], tmp_path: Path
) -> None:
    with serve(source(shape=shape)) as server:
        assert rows_of(load(server.url, streaming=True, uncertainty="keep")) == expected
        assert rows_of(load(server.url, cache_dir=tmp_path / "cache", num_proc=2, uncertainty="keep")) == expected


def test_the_first_row_over_http_costs_directory_csv_and_one_member(tmp_path: Path, images: dict[str, bytes]) -> None:
    rng = random.Random(0)
    names = [f"{n:03}.png" for n in range(100)]
    png = next(iter(images.values()))
    padded = {name: png[:-12] + rng.randbytes(200_000) + png[-12:] for name in names}
    table = to_csv([{"filename": name, "prompt": "p", **dict.fromkeys(LABELS, "")} for name in names])
    to_zip(tmp_path / "ALL_FILES.zip", {**padded, "all.csv": table})
    with zipfile.ZipFile(tmp_path / "ALL_FILES.zip") as archive:
        directory = (tmp_path / "ALL_FILES.zip").stat().st_size - archive.start_dir
    with serve(tmp_path) as server:
        stream = iter(load(server.url, streaming=True))
        first = next(stream)
        assert first["filename"] == "000.png"
        needed = directory + len(table) + len(padded["000.png"])
        assert needed <= server.sent["ALL_FILES.zip"] <= needed + 3_000
        next(stream)
        assert server.sent["ALL_FILES.zip"] <= needed + len(padded["001.png"]) + 4_000


def test_what_cannot_be_used_is_found_before_the_download(source: Source, table: Rows, tmp_path: Path) -> None:
    table[1] = {**table[1], "prompt": ""}
    folder = source(table=table)
    with serve(folder) as server:
        with pytest.raises(SourceError, match="empty prompt"):
            load(server.url, cache_dir=tmp_path / "cache")
        sizes = {path.name: path.stat().st_size for path in folder.glob("data/*.zip")}
        assert all(server.sent[name] < size / 10 for name, size in sizes.items())
