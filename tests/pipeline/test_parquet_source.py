"""Rows of a converted folder are those of its SOURCE, or an error; further columns of both."""

import os
import random
import re
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import synthchex_75k
from conftest import (
    FIXTURE,
    SHAPES,
    Rows,
    Source,
    Write,
    contents,
    convert,
    files_of,
    one_zip,
    padded,
    tars,
    to_csv,
    to_files,
)
from pipeline.columns import read_columns, read_kept_columns
from pipeline.errors import StepError
from pipeline.parquet_source import MAX_GROUP_BYTES, ParquetRow, is_parquet_source, plan_parquet, read_parquet_rows
from pipeline.rows import AnyRow, iter_crc32, plan, plan_any, read, total_size
from servers.local_hub import Hub
from servers.range_server import serve, serve_plainly
from synthchex_75k import LABELS, SourceError

FIRST = "data/train-00000-of-00004.parquet"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fixture, converted: 12 rows in four files of two row groups."""
    output = tmp_path_factory.mktemp("small") / "o"
    assert convert(FIXTURE, output, "--max-shard-size", "300kB", "--rows-per-group", "2", "--num-proc", "1") == 0
    assert len(files_of(output)) == 4
    return output


@pytest.fixture
def converted(small: Path, tmp_path: Path) -> Path:
    """The same, to change."""
    return Path(shutil.copytree(small, tmp_path / "converted"))


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table], **options: Any) -> None:
    """Writes a Parquet file again with other content."""
    pq.write_table(change(pq.read_table(path)), path, **{"row_group_size": 2, **options})


def with_column(name: str, values: Any) -> Callable[[pa.Table], pa.Table]:
    """Returns a function that replaces or appends a column of a table."""

    def change(table: pa.Table) -> pa.Table:
        column = values(table) if callable(values) else values if isinstance(values, pa.Array) else pa.array(values)
        if name not in table.column_names:
            return table.append_column(name, column)
        return table.set_column(table.column_names.index(name), table.schema.field(name).with_type(column.type), column)

    return change


def refusal(source: Path | str) -> str:
    """The message with which a folder is refused before an image is read."""
    with pytest.raises(SourceError) as caught:
        plan_any(str(source))
    return str(caught.value)


# Equality


def test_rows_of_a_converted_folder_are_those_of_its_source(small: Path) -> None:
    wanted, found = plan(str(FIXTURE)), plan_any(str(small))
    for name in ("filename", "prompt", "labels"):
        assert [getattr(row, name) for row in found] == [getattr(row, name) for row in wanted]
    assert [example for _, example in read(found)] == [example for _, example in read(wanted)]
    assert [*iter_crc32(found)] == [*iter_crc32(wanted)] == [crc for crc, _ in read(found)]
    assert {row.where.partition(":")[0] for row in found} == {
        path.relative_to(small).as_posix() for path in files_of(small)
    }
    assert [row.where.partition(": ")[2] for row in found] == [row.filename for row in wanted]


@pytest.mark.parametrize("policy", ["zeros", "ones", "keep"])
def test_the_policy_of_labels_is_applied_when_it_was_not_in_the_conversion(policy: str, small: Path) -> None:
    wanted = [example["labels_dict"] for _, example in read(plan(str(FIXTURE)), policy)]
    assert [example["labels_dict"] for _, example in read(plan_any(str(small)), policy)] == wanted


def test_keep_returns_labels_as_they_were_converted(source: Source, tmp_path: Path) -> None:
    assert convert(source(), tmp_path / "o", "--uncertainty", "ones") == 0
    wanted = [example["labels_dict"] for _, example in read(plan(str(FIXTURE)), "ones")]
    assert [example["labels_dict"] for _, example in read(plan_any(str(tmp_path / "o")))] == wanted


def test_a_source_stays_a_source(source: Source) -> None:
    folder = source()
    assert plan_any(str(folder)) == synthchex_75k.plan(str(folder))
    assert not is_parquet_source(str(folder))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_folder_with_both_is_a_source(shape: Write, source: Source, small: Path) -> None:
    folder = source(shape=shape)
    before = plan_any(str(folder))
    shutil.copytree(small / "data", folder / "data", dirs_exist_ok=True)
    assert plan_any(str(folder)) == before


@pytest.mark.parametrize("order", ["reversed", "shuffled", "every third", "one twice", "none"])
def test_rows_are_read_in_any_order(order: str, small: Path) -> None:
    rows = plan_any(str(small))
    wanted = {row.filename: example for row, (_, example) in zip(rows, read(rows), strict=True)}
    chosen = {
        "reversed": rows[::-1],
        "shuffled": random.Random(1).sample(rows, len(rows)),
        "every third": rows[::3],
        "one twice": [rows[5], rows[5], rows[0]],
        "none": [],
    }[order]
    assert [example for _, example in read(chosen)] == [wanted[row.filename] for row in chosen]


def test_the_size_of_all_images_is_known_roughly_and_of_one_not(small: Path) -> None:
    rows = plan_any(str(small))
    assert all(row.size is None for row in rows)
    size = total_size(plan(str(FIXTURE)))
    assert size * 0.99 < total_size(rows) < size * 1.01


# Remote


def test_a_repository_of_the_hub_is_read_at_the_commit_of_the_plan(small: Path, hub: Hub) -> None:
    repo = hub.create("alice/chex", files=contents(small))
    commit = repo.refs["refs/heads/main"]
    rows = plan_any("hf://datasets/alice/chex")
    assert {row.path.rpartition("/data/")[0] for row in rows} == {f"hf://datasets/alice/chex@{commit}"}
    hub.push("alice/chex", {FIRST: b"other"})
    assert [example for _, example in read(rows)] == [example for _, example in read(plan(str(FIXTURE)))]
    assert "damaged" in refusal("hf://datasets/alice/chex@main")


def test_a_private_or_missing_repository_is_one_line(hub: Hub, small: Path) -> None:
    hub.create("alice/private", private=True, files=contents(small))
    for name in ("private", "nothing"):
        message = refusal(f"hf://datasets/alice/{name}")
        assert re.fullmatch(
            rf"hf://datasets/alice/{name} cannot be read: .*(401|404|NotFound).*hf auth login.*", message
        )


def test_a_folder_of_a_web_server_is_read_image_by_image(small: Path) -> None:
    with serve(small) as server:
        rows = plan_any(server.url)
        assert sum(server.sent.values()) > 0
        planned = dict(server.sent)
        assert [example for _, example in read(rows)] == [example for _, example in read(plan(str(FIXTURE)))]
        assert {name for name in server.sent if server.sent[name] > planned.get(name, 0)} == {
            path.name for path in files_of(small)
        }


def test_planning_at_an_address_reads_no_image(tmp_path: Path) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    padded(folder, count=12, size=400_000)
    assert convert(folder, tmp_path / "o", "--rows-per-group", "4") == 0
    with serve(tmp_path / "o") as server:
        rows = plan_any(server.url)
        assert sum(server.sent.values()) < 500_000
        before = sum(server.sent.values())
        assert len([*read(rows)]) == 12
        assert sum(server.sent.values()) - before < 12 * 400_000 + 500_000


def test_a_server_without_range_requests_is_named(small: Path) -> None:
    with serve_plainly(small) as server:
        assert "the server ignores range requests" in refusal(f"http://127.0.0.1:{server.server_port}")


@pytest.mark.parametrize("path", ["gone", "403"])
def test_refusal_of_a_server_is_one_line(path: str, small: Path) -> None:
    with serve(small) as server:
        message = refusal(f"{server.url}/{path}")
    assert message.count("\n") == 0 and message.startswith(f"{server.url}/{path}")


def test_rows_of_two_versions_of_a_server_never_mix(small: Path, converted: Path) -> None:
    for path in files_of(converted):
        rewrite(path, with_column("prompt", lambda table: pc.utf8_reverse(table["prompt"])))
    with serve(small) as server:
        wanted = [example for _, example in read(plan_any(server.url))]
        requests = len(server.asked)
    messages = []
    for count in range(1, requests, 1 + requests // 5):
        with serve(small, converted, change_after=count) as server:
            try:
                found = [example for _, example in read(plan_any(server.url))]
            except (SourceError, StepError) as error:
                messages.append(str(error))
            else:
                assert found == wanted or [row["prompt"][::-1] for row in found] == [row["prompt"] for row in wanted]
    assert any("it changed while it was read; start again" in message for message in messages)


# Folders and files that are refused


def test_a_missing_file_is_named(converted: Path) -> None:
    files_of(converted)[2].unlink()
    assert refusal(converted).splitlines()[1:] == ["- missing Parquet file; get it: data/train-00002-of-00004.parquet"]


def test_a_file_of_another_conversion_is_named(converted: Path) -> None:
    shutil.copy(files_of(converted)[0], converted / "data" / "train-00000-of-00003.parquet")
    assert re.search(r"beside .*: data/train-00000-of-00003\.parquet$", refusal(converted))


def test_a_link_to_nothing_is_named(converted: Path) -> None:
    files_of(converted)[0].unlink()
    files_of(converted)[0].with_name(Path(FIRST).name).symlink_to("gone")
    assert f"link to a file that does not exist; restore the file or remove the link: {FIRST}" in refusal(converted)


def test_a_folder_of_links_is_read(converted: Path, tmp_path: Path) -> None:
    """As the cache of the Hub's client is."""
    (tmp_path / "links" / "data").mkdir(parents=True)
    for path in files_of(converted):
        (tmp_path / "links" / "data" / path.name).symlink_to(path)
    assert len([*read(plan_any(str(tmp_path / "links")))]) == 12


@pytest.mark.parametrize("folder", ["", "gone"])
def test_a_folder_of_neither_kind_is_refused_as_by_the_loading_script(folder: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        synthchex_75k.plan(str(tmp_path / folder))
    assert refusal(tmp_path / folder) == str(caught.value)
    with pytest.raises(SourceError, match=r"no data/train-\*\.parquet"):
        plan_parquet(str(tmp_path / folder))


@pytest.mark.parametrize("keep", [0, 3, 100, 0.5, -1, -8])
def test_a_truncated_file_is_refused_before_an_image_is_read(keep: float, converted: Path) -> None:
    path = files_of(converted)[1]
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else int(keep)])
    assert re.search(
        r"\n- damaged, cut off or no Parquet file; .*: data/train-00001-of-00004\.parquet: ", refusal(converted)
    )


def test_a_flipped_bit_is_an_error_or_changes_no_row(converted: Path) -> None:
    wanted = [example for _, example in read(plan_any(str(converted)))]
    path = files_of(converted)[0]
    data, rng = path.read_bytes(), random.Random(0)
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    places = [*(rng.randrange(footer) for _ in range(30)), *(rng.randrange(footer, len(data)) for _ in range(30))]
    outcomes: list[str] = []
    for place in places:
        damaged = bytearray(data)
        damaged[place] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            found = [example for _, example in read(plan_any(str(converted)))]
        except SourceError as error:
            outcomes.append(str(error))
        else:
            outcomes.append("")
            assert found == wanted, place
    in_pages = outcomes[:30]
    assert sum("damaged, cut off" in text for text in in_pages) > 25  # the others are in an index, which is not read


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda table: table.drop_columns(["prompt"]), "prompt is missing"),
        (with_column("prompt", [1, 2, 3, 4]), "prompt is int64"),
        (with_column("filename", pa.array([b"a.png"] * 4)), "filename is binary"),
        (with_column("image", pa.array([b"x"] * 4)), "image is binary"),
        (with_column("labels_dict", [{"Edema": 1}] * 4), "labels_dict is struct<Edema: int64>"),
        (lambda table: table.select(["filename"]), "image is missing; prompt is missing; labels_dict is missing"),
        (lambda table: table.append_column("prompt", table["prompt"]), "prompt is missing"),
    ],
)
def test_other_columns_are_named(change: Callable[[pa.Table], pa.Table], problem: str, converted: Path) -> None:
    def four(table: pa.Table) -> pa.Table:
        return change(pa.concat_tables([table] * 4).slice(0, 4))

    rewrite(files_of(converted)[0], four)
    wanted = f"- other columns than those that convert_to_parquet.py writes: {FIRST}: {problem}"
    assert refusal(converted).splitlines()[1:] == [wanted]


def labels_of(**values: Any) -> dict[str, Any]:
    """A struct of labels, some of them as given, with spaces for `_`."""
    return {**dict.fromkeys(LABELS), **{name.replace("_", " "): value for name, value in values.items()}}


def labels_column(*rows: Any) -> Callable[[pa.Table], pa.Array]:
    """Returns a function that replaces the first labels of a table."""

    def column(table: pa.Table) -> pa.Array:
        return pa.array([*rows, *table["labels_dict"].to_pylist()[len(rows) :]], table["labels_dict"].type)

    return column


def first(name: str, value: str | None) -> Callable[[pa.Table], pa.Table]:
    """Returns a function that replaces the first text of a column."""
    return with_column(name, lambda table: pa.array([value, *table[name].to_pylist()[1:]], pa.string()))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (first("prompt", " \n"), "empty prompt; .*: FIRST row 0"),
        (first("prompt", None), "empty prompt; .*: FIRST row 0"),
        (first("filename", None), "not the file name .*: FIRST row 0: None"),
        (first("filename", ""), "not the file name .*: FIRST row 0: ''"),
        (first("filename", "../a.png"), r"not the file name .*: FIRST row 0: '\.\./a\.png'"),
        (first("filename", "a.gif"), r"not the file name .*: FIRST row 0: 'a\.gif'"),
        (with_column("labels_dict", labels_column(labels_of(Edema=2))), "bad labels; .*: FIRST row 0"),
        (with_column("labels_dict", labels_column(labels_of(), None)), "bad labels; .*: FIRST row 1"),
    ],
)
def test_rows_that_cannot_be_used_are_named(
    change: Callable[[pa.Table], pa.Table], problem: str, converted: Path
) -> None:
    rewrite(files_of(converted)[0], change)
    assert re.fullmatch("- " + problem.replace("FIRST", FIRST), refusal(converted).splitlines()[1])


def test_a_file_name_twice_is_named_with_both_places(converted: Path) -> None:
    one, other = files_of(converted)[1], files_of(converted)[3]
    shutil.copy(one, other)
    name = pq.read_table(one)["filename"][0].as_py()
    places = f"data/train-00001-of-00004.parquet: {name} and data/train-00003-of-00004.parquet: {name}"
    assert "- file name twice; remove or rename one (" in refusal(converted)
    assert places in refusal(converted)


def test_a_file_without_rows_is_refused(converted: Path) -> None:
    for path in files_of(converted)[1:]:
        path.unlink()
    path = files_of(converted)[0].rename(converted / "data" / "train-00000-of-00001.parquet")
    rewrite(path, lambda table: table.slice(0, 0))
    assert "no rows; convert the SOURCE again" in refusal(converted)


def test_a_row_group_that_takes_too_much_memory_is_refused(converted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.parquet_source.MAX_GROUP_BYTES", 10_000)
    assert f"row group too large; convert the SOURCE again (4 in all): {FIRST}: " in refusal(converted)
    assert MAX_GROUP_BYTES > 4 * (64 << 20)


def test_texts_that_repeat_take_memory_once(converted: Path) -> None:
    """A dictionary of one long text, and many rows that refer to it, make a small file."""
    long = "x" * 1_000_000
    for path in files_of(converted)[1:]:
        path.unlink()
    path = files_of(converted)[0].rename(converted / "data" / "train-00000-of-00001.parquet")

    def change(table: pa.Table) -> pa.Table:
        table = pa.concat_tables([table.slice(0, 1)] * 2000)
        names = pa.array([f"{number}.png" for number in range(len(table))])
        prompts = pa.DictionaryArray.from_arrays(pa.array([0] * len(table)), [long])
        return with_column("prompt", prompts)(with_column("filename", names)(table))

    rewrite(path, change, row_group_size=2000, store_schema=False, dictionary_pagesize_limit=8 << 20)
    tracemalloc.start()
    rows = plan_any(str(converted))
    assert tracemalloc.get_traced_memory()[1] < 50_000_000
    tracemalloc.stop()
    assert len(rows) == 2000 and rows[-1].prompt == long


# Images that are refused while they are read


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda image: b"no image", "not a whole PNG file; generate or copy it again"),
        (lambda image: image[:-1], "not a whole PNG file; generate or copy it again"),
        (lambda image: image[:1000] + b"\0\0\0\0" + image[1004:], "CRC error, the image is damaged; get it again"),
        (lambda image: b"\xff\xd8\xff" + image[3:], "JPEG file with the suffix of a PNG; rename it"),
        (lambda image: b"", "no image; convert the SOURCE again"),
        (lambda image: None, "no image; convert the SOURCE again"),
    ],
)
def test_an_image_is_checked_as_in_a_source(
    damage: Callable[[bytes], bytes | None], problem: str, converted: Path
) -> None:
    def change(table: pa.Table) -> pa.Array:
        images = table["image"].to_pylist()
        images[1]["bytes"] = damage(images[1]["bytes"])
        return pa.array(images, table["image"].type)

    rewrite(files_of(converted)[0], with_column("image", change))
    rows = plan_any(str(converted))
    examples = read(rows)
    assert next(examples)[1]["filename"] == rows[0].filename
    with pytest.raises(SourceError) as caught:
        next(examples)
    assert str(caught.value) == f"{FIRST}: {rows[1].filename}: {problem}"


def test_a_damaged_page_of_images_is_named_while_it_is_read(converted: Path) -> None:
    path = files_of(converted)[0]
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.write_bytes(data)
    rows = plan_any(str(converted))
    with pytest.raises(SourceError, match=rf"^{FIRST}: {rows[0].filename}: damaged, .*CRC"):
        next(read(rows))


# Files that change between plan and reading


@pytest.mark.parametrize("change", ["replaced", "removed", "touched", "cut off"])
def test_a_change_after_the_plan_is_an_error(change: str, converted: Path) -> None:
    rows = plan_any(str(converted))
    path = files_of(converted)[1]
    data = path.read_bytes()
    path.unlink()
    if change != "removed":
        path.write_bytes({"replaced": files_of(converted)[2].read_bytes(), "cut off": data[:9]}.get(change, data))
        os.utime(path, ns=(1, 1))
    assert next(read(rows))[1]["filename"] == rows[0].filename
    with pytest.raises(SourceError, match=r"train-00001-of-00004\.parquet: it changed while it was read; start again"):
        list(read(rows))


def test_a_change_while_a_file_is_read_is_an_error(converted: Path) -> None:
    rows = plan_any(str(converted))
    examples = read([row for row in rows if row.path == rows[0].path])
    next(examples)
    os.utime(rows[0].path, ns=(1, 1))
    with pytest.raises(SourceError, match="it changed while it was read; start again"):
        list(examples)


# Memory


def test_a_row_group_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    padded(folder, count=120, size=500_000)
    assert convert(folder, tmp_path / "o", "--rows-per-group", "1000") == 0
    rows = plan_any(str(tmp_path / "o"))
    assert len({(row.path, row.group) for row in map(parquet_row, rows)}) == 1
    pool = pa.default_memory_pool()
    before, most, size = pool.bytes_allocated(), 0, 0
    for _, example in read(rows):
        most, size = max(most, pool.bytes_allocated() - before), size + len(example["image"]["bytes"])
    assert size == 60_000_000
    assert most < 30_000_000


def parquet_row(row: AnyRow) -> ParquetRow:
    assert isinstance(row, ParquetRow)
    return row


def test_rows_in_order_read_each_row_group_once(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []
    original = pq.ParquetFile.iter_batches

    def counted(*args: Any, **options: Any) -> Any:
        opened.append(options["row_groups"])
        return original(*args, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counted)
    rows = plan_any(str(small))
    list(read_parquet_rows([*map(parquet_row, rows)]))
    assert len(opened) == len({(row.path, row.group) for row in map(parquet_row, rows)}) > 4


# Further columns


@pytest.fixture
def patients(table: Rows) -> Rows:
    """The fixture's metadata with two more columns."""
    return [
        {**row, "patientID": f"p{number // 3}", "view": "" if number % 2 else " PA"} for number, row in enumerate(table)
    ]


@pytest.mark.parametrize("shape", SHAPES)
def test_further_columns_of_a_source(shape: Write, source: Source, patients: Rows, table: Rows) -> None:
    folder = source(table=patients, shape=shape)
    rows = plan(str(folder))[::-1]
    by_name = {row["filename"]: row for row in patients}
    found = read_columns(str(folder), rows, ["patientID", "view", "prompt"])
    assert found == {
        "patientID": [by_name[row.filename]["patientID"] for row in rows],
        "view": [by_name[row.filename]["view"] or None for row in rows],
        "prompt": [row.prompt for row in rows],
    }
    assert read_columns(str(folder), rows[:1], ["patientID"]) == {"patientID": found["patientID"][:1]}
    assert read_columns(str(folder), rows, []) == {}


@pytest.mark.parametrize("shape", [one_zip, tars])
def test_further_columns_over_http(shape: Write, source: Source, patients: Rows) -> None:
    with serve(source(table=patients, shape=shape)) as server:
        rows = plan(server.url)
        wanted = {row["filename"]: row["patientID"] for row in patients}
        assert read_columns(server.url, rows, ["patientID"])["patientID"] == [wanted[row.filename] for row in rows]


def test_further_columns_on_the_hub_are_those_of_the_planned_commit(source: Source, patients: Rows, hub: Hub) -> None:
    hub.create("alice/real", files=contents(source(table=patients)))
    rows = plan("hf://datasets/alice/real")
    other = [{**row, "patientID": "other"} for row in patients]
    hub.push("alice/real", contents(source(table=other)))
    found = read_columns("hf://datasets/alice/real", rows, ["patientID"])["patientID"]
    assert {*found} == {row["patientID"] for row in patients}


def test_the_csv_is_the_one_with_the_rows(source: Source, patients: Rows, images: dict[str, bytes]) -> None:
    folder = source(table=patients)
    to_files(folder, {"a.csv": b"filename,patientID\n" + next(iter(images)).encode() + b",wrong\n"})
    assert read_columns(str(folder), plan(str(folder)), ["patientID"])["patientID"][0] == "p0"


def test_file_names_match_as_in_the_plan(source: Source, patients: Rows) -> None:
    moved = [{**row, "filename": f"C:\\x/y\\{row['filename']} ", "path": "another"} for row in patients]
    folder = source(table=moved)
    assert read_columns(str(folder), plan(str(folder)), ["patientID"])["patientID"][:4] == ["p0", "p0", "p0", "p1"]


def test_a_header_of_several_lines_is_read(source: Source, patients: Rows) -> None:
    folder = source(table=[{**row, "more\nthan one": str(number)} for number, row in enumerate(patients)])
    assert read_columns(str(folder), plan(str(folder)), ["more\nthan one"])["more\nthan one"][2] == "2"


def test_a_missing_column_lists_those_of_the_csv(source: Source, patients: Rows) -> None:
    folder = source(table=patients)
    with pytest.raises(StepError) as caught:
        read_columns(str(folder), plan(str(folder)), ["patientID", "age"])
    assert re.fullmatch(r"\S+\.csv: no column age, .*; it has filename, prompt, .*, patientID, view", str(caught.value))


def test_a_csv_that_has_changed_is_an_error(source: Source, patients: Rows) -> None:
    folder = source(table=patients)
    rows = plan(str(folder))
    path = next(folder.rglob("*.csv"))
    path.write_bytes(to_csv(patients[::-1]))
    os.utime(path, ns=(1, 1))
    with pytest.raises(SourceError, match="it changed while it was read; start again"):
        read_columns(str(folder), rows, ["patientID"])
    path.write_bytes(to_csv(patients[:3]))
    with pytest.raises(SourceError, match="start again"):
        read_columns(str(folder), rows, ["patientID"])


@pytest.mark.parametrize("at_an_address", [False, True])
@pytest.mark.parametrize("shape", [one_zip, tars])
def test_an_archive_that_was_damaged_after_the_plan_is_one_line(
    shape: Write, at_an_address: bool, source: Source, patients: Rows
) -> None:
    folder = source(table=patients, shape=shape)
    with serve(folder) as server:
        address = server.url if at_an_address else str(folder)
        rows = plan(address)
        for path in folder.rglob("*.*"):
            path.write_bytes(path.read_bytes().replace(b"ustar", b"rat's")[: -1000 if shape is one_zip else None])
        with pytest.raises(SourceError, match=r"^\w+\.(zip|tar): unreadable \(.*\); it changed, start again$"):
            read_columns(address, rows, ["patientID"])


def test_an_archive_that_disappears_after_the_plan_is_one_line(source: Source, patients: Rows) -> None:
    folder = source(table=patients, shape=one_zip)
    with serve(folder) as server:
        files = synthchex_75k.list_files(server.url)
        rows = plan(server.url)
        (folder / "ALL_FILES.zip").unlink()
        with pytest.raises(SourceError, match=rf"^{server.url}/ALL_FILES\.zip cannot be read: .*404"):
            read_kept_columns(server.url, rows, ("patientID",), files)


def test_further_columns_of_a_converted_folder(converted: Path) -> None:
    for number, path in enumerate(files_of(converted)):
        rewrite(path, with_column("age", lambda table, number=number: pa.array([number, None, 7][: len(table)])))
        rewrite(path, with_column("view", lambda table: pa.array(["PA", "", None][: len(table)])))
    rows = plan_any(str(converted))
    found = read_columns(str(converted), rows, ["age", "view", "prompt"])
    assert found["age"] == [value for number in range(4) for value in (str(number), None, "7")]
    assert found["view"] == ["PA", None, None] * 4
    assert found["prompt"] == [row.prompt for row in rows]
    picked = [rows[7], rows[0]]
    assert read_columns(str(converted), picked, ["age"]) == {"age": [found["age"][7], "0"]}
    assert [example for _, example in read(rows)] == [example for _, example in read(plan(str(FIXTURE)))]


@pytest.mark.parametrize("name", ["patientID", "image", "labels_dict"])
def test_a_missing_column_lists_those_of_the_parquet_files(name: str, small: Path) -> None:
    with pytest.raises(StepError) as caught:
        read_columns(str(small), plan_any(str(small)), [name])
    assert str(caught.value) == f"{FIRST}: no column {name}; it has filename, prompt"


def test_a_parquet_file_that_changed_has_no_columns(converted: Path) -> None:
    rows = plan_any(str(converted))
    os.utime(files_of(converted)[0], ns=(1, 1))
    with pytest.raises(SourceError, match="it changed while it was read; start again"):
        read_columns(str(converted), rows, ["prompt"])
    files_of(converted)[0].write_bytes(b"PAR1")
    with pytest.raises(SourceError, match=r"damaged|changed"):
        read_columns(str(converted), rows, ["prompt"])


def test_a_folder_with_the_name_of_an_archive(tmp_path: Path) -> None:
    folder = str(tmp_path / "chests.zip")
    assert convert(FIXTURE, Path(folder)) == 0
    assert is_parquet_source(folder)
    assert [row.filename for row in plan_any(folder)] == [row.filename for row in plan(str(FIXTURE))]
