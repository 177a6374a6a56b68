"""Sources at addresses: from a Hub and over HTTP, through the unmodified clients."""

import os
import random
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import datasets
import pytest

import synthchex_75k
from conftest import (
    ROOT,
    SHAPES,
    Rows,
    Source,
    Write,
    contents,
    loose,
    mixed,
    one_zip,
    tars,
    to_csv,
    to_files,
    to_zip,
    zips,
)
from servers.local_hub import Hub
from servers.range_server import serve, serve_plainly
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


def test_errors_are_found_before_the_download(source: Source, table: Rows, tmp_path: Path) -> None:
    table[1] = {**table[1], "prompt": ""}
    folder = source(table=table)
    with serve(folder) as server:
        with pytest.raises(SourceError, match="empty prompt"):
            load(server.url, cache_dir=tmp_path / "cache")
        sizes = {path.name: path.stat().st_size for path in folder.glob("data/*.zip")}
        assert all(server.sent[name] < size / 10 for name, size in sizes.items())


# Errors of networks and servers


def last_line(address: str, environment: dict[str, str], read: str = "synthchex_75k.load({!r}, streaming=True)") -> str:
    """The last line of what Python prints when a source cannot be read; there is one exception, in one line."""
    code = f"import synthchex_75k; {read.format(address)}"
    environment = {**os.environ, **environment}
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr.count("Traceback") == 1
    lines = run.stderr.rstrip().splitlines()
    assert lines[-1].startswith("synthchex_75k.SourceError: ")
    return lines[-1].removeprefix("synthchex_75k.SourceError: ")


READ = [
    *(pytest.param(f"synthchex_75k.{read}", marks=pytest.mark.slow) for read in ("load({!r})", "plan({!r})")),
    "synthchex_75k.load({!r}, streaming=True)",
]


@pytest.mark.parametrize("read", READ)
@pytest.mark.parametrize("address", ["hf://datasets/raman07/SynthCheX-75K@main", "http://127.0.0.1:9/release/"])
def test_without_network_the_error_is_one_line_with_the_address(read: str, address: str, tmp_path: Path) -> None:
    closed = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    line = last_line(address, closed, read)
    assert line.startswith(f"{address} cannot be read: ")
    assert re.search(r"Connect(ion)?(or)?Error: .*(Connection refused|Connect call failed)", line)
    login = ", and your login at http://127.0.0.1:9 (`hf auth login`)" if address.startswith("hf:") else ""
    assert line.endswith(f"Check the network and the address{login}.")


def test_offline_mode_is_named(tmp_path: Path) -> None:
    line = last_line("hf://datasets/raman07/SynthCheX-75K", {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)})
    assert re.search(r"OfflineMode\w*: .*offline mode", line)


@pytest.mark.parametrize(
    "address", ["hf://datasets/alice/private", "hf://datasets/alice/nothing", "hf://datasets/a/b@v"]
)
def test_a_private_or_missing_repository_is_one_line(address: str, hub: Hub, table: Rows) -> None:
    hub.create("alice/private", private=True, files={"m.csv": to_csv(table)})
    hub.create("a/b", files={"m.csv": to_csv(table)})
    with pytest.raises(SourceError) as caught:
        load(address, streaming=True)
    message = str(caught.value)
    assert re.search(rf"^{address} cannot be read: .*(401|404|NotFound).*`hf auth login`\)\.$", message)
    assert caught.value.__suppress_context__


def test_a_csv_of_a_hub_repository_suggests_its_folder(hub: Hub, table: Rows) -> None:
    hub.create("a/b", files={"m.csv": to_csv(table)})
    with pytest.raises(SourceError, match=r"^hf://datasets/a/b/m\.csv(:| cannot be read)"):
        load("hf://datasets/a/b/m.csv", streaming=True)


@pytest.mark.parametrize(("path", "status"), [("gone/", 404), ("gone.zip", 404), ("500/", 500), ("403/", 403)])
def test_refusal_of_an_http_server_is_one_line(path: str, status: int, source: Source) -> None:
    with serve(source()) as server:
        with pytest.raises(SourceError) as caught:
            load(f"{server.url}/{path}", streaming=True)
        assert re.fullmatch(rf"{server.url}/{path} cannot be read: .*{status}.*the address\.", str(caught.value))


def test_an_archive_that_disappears_while_a_stream_is_read_is_one_line(source: Source) -> None:
    folder = source()
    with serve(folder) as server:
        rows = iter(load(server.url, streaming=True))
        next(rows)
        (folder / "data" / "s0.zip").unlink()
        with pytest.raises(SourceError, match=rf"^{server.url}/data/s0\.zip cannot be read: .*404") as caught:
            list(rows)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("function", ["members_of", "_read_image"])
@pytest.mark.parametrize("error", [KeyError("x"), AttributeError("x"), AssertionError()], ids=repr)
def test_mistakes_in_the_code_are_not_taken_for_errors_of_the_network(
    function: str, error: Exception, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthchex_75k, function, mock.Mock(side_effect=error))
    with serve(source()) as server, pytest.raises(type(error)) as caught:
        list(load(server.url, streaming=True))
    assert caught.value is error


def test_a_damaged_image_at_an_address_is_named_as_elsewhere(source: Source, images: dict[str, bytes]) -> None:
    names = list(images)
    with serve(source({**images, names[1]: b"x"})) as server, pytest.raises(SourceError) as caught:
        list(load(server.url, streaming=True))
    assert str(caught.value) == f"data/s0.zip: {names[1]}: not a whole PNG file; generate or copy it again"


# A server without range requests


@pytest.mark.parametrize("options", [{}, {"streaming": True}], ids=str)
@pytest.mark.parametrize(("shape", "count"), [(zips, 3), (one_zip, 1)])
def test_a_server_without_range_requests_is_named(
    shape: Write, count: int, options: dict[str, Any], source: Source, tmp_path: Path
) -> None:
    with serve_plainly(source(shape=shape)) as server:
        url = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(SourceError) as caught:
            load(url, cache_dir=tmp_path / "cache", **options)
    expected_text = (
        "- unreadable: the server ignores range requests; download the folder and load that, or serve it with nginx"
    )
    names = ["data/s0.zip", "data/s1.zip", "data/s2.zip"] if shape is zips else ["ALL_FILES.zip"]
    counted = " (3 in all)" if count > 1 else ""
    assert str(caught.value).splitlines()[1:] == [f"{expected_text}{counted}: {'; '.join(names)}"]


def test_loose_images_and_tars_need_no_range_requests(
    source: Source, expected: Rows, rows_of: Callable[..., Rows], tmp_path: Path
) -> None:
    with serve_plainly(source(shape=loose)) as server:
        url = f"http://127.0.0.1:{server.server_port}"
        assert rows_of(load(url, streaming=True, uncertainty="keep")) == expected
    with serve_plainly(source(shape=tars)) as server:
        url = f"http://127.0.0.1:{server.server_port}"
        assert rows_of(load(url, cache_dir=tmp_path / "cache", uncertainty="keep")) == expected


# Sources that change while they are read


def both_versions(source: Source, images: dict[str, bytes], table: Rows, shape: Write) -> tuple[Path, Path]:
    """Two versions of a source: the same file names and sizes, other images and prompts."""
    other = [{**row, "prompt": row["prompt"][::-1]} for row in table]
    reversed_images = dict(zip(images, reversed(images.values()), strict=True))
    return source(shape=shape), source(reversed_images, other, shape)


def flat(folder: Path, images: dict[str, bytes], table: bytes) -> None:
    """Loose images in one folder: listing more of them takes long."""
    to_files(folder, {**images, "metadata.csv": table})


def read_streaming(url: str, _: Path) -> list[Any]:
    return list(load(url, streaming=True).cast_column("image", datasets.Image(decode=False)))


def read_cached(url: str, cache_dir: Path) -> list[Any]:
    return list(load(url, cache_dir=cache_dir).cast_column("image", datasets.Image(decode=False)))


@pytest.mark.parametrize(
    ("shape", "read"),
    [
        (one_zip, read_cached),
        (flat, read_streaming),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [(one_zip, read_streaming), (tars, read_streaming), (tars, read_cached), (flat, read_cached)]
        ),
    ],
)
def test_rows_of_two_versions_of_a_server_never_mix(
    shape: Write,
    read: Callable[[str, Path], list[Any]],
    source: Source,
    images: dict[str, bytes],
    table: Rows,
    tmp_path: Path,
) -> None:
    few = dict([*images.items()][:3])
    before, after = both_versions(source, few, table[:3], shape)
    with serve(before) as server:
        first, requests = read(server.url, tmp_path / "first"), len(server.asked)
    with serve(after) as server:
        second = read(server.url, tmp_path / "second")
    assert first != second
    outcomes: list[Any] = []
    for count in range(0, requests, 1 + requests // 12):
        with serve(before, after, change_after=count) as server:
            try:
                outcomes.append(read(server.url, tmp_path / str(count)))
            except SourceError as error:
                outcomes.append(str(error))
    assert outcomes[0] == second
    assert all(outcome in (first, second) or isinstance(outcome, str) for outcome in outcomes)
    assert any("it changed while it was read; start again" in outcome for outcome in outcomes)


def test_a_commit_during_a_stream_changes_no_row(
    source: Source, images: dict[str, bytes], table: Rows, expected: Rows, rows_of: Callable[..., Rows], hub: Hub
) -> None:
    before, after = both_versions(source, images, table, one_zip)
    hub.create("raman07/SynthCheX-75K", files=contents(before))
    stream = load(streaming=True, uncertainty="keep")
    hub.push("raman07/SynthCheX-75K", contents(after))
    assert rows_of(stream) == expected
    assert rows_of(load(streaming=True, uncertainty="keep")) != expected
