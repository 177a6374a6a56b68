"""The configuration `labels`: what is in its file, who reads it, and which columns of the metadata it gets."""

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import duckdb
import mlcroissant
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard
from hypothesis import given, settings
from hypothesis import strategies as st

import convert_to_parquet
import synthchex_75k
from conftest import FIXTURE, SHAPES, Rows, Source, Write, contents, convert, to_csv
from pipeline.columns import read_columns
from pipeline.errors import StepError
from pipeline.folder import MANIFEST
from pipeline.parquet.labels import choose_columns, features_of, write_labels
from pipeline.parquet_source import LABELS_FILE
from pipeline.rows import plan_any
from servers.range_server import serve
from synthchex_75k import LABELS

Table = list[dict[str, str]]
OTHERS = ["view", "patient id", "age", "score"]


def with_others(table: Table) -> Table:
    """Adds columns to a metadata table: texts, numbers, an empty cell, and the index that pandas writes."""
    return [
        {
            "": str(number),
            **row,
            "view": ["PA", "AP"][number % 2],
            "patient id": f"00{number // 2}",
            "age": "" if number == 3 else str(40 + number),
            "score": repr(number / 4),
        }
        for number, row in enumerate(table)
    ]


def flat(expected: Rows, table: Table, names: list[str]) -> list[dict[str, Any]]:
    """Returns the rows as the configuration must have them."""
    types: dict[str, Any] = {"age": int, "score": float}
    by_name = {row["filename"]: row for row in table}
    rows = []
    for row in expected:
        cells = {name: by_name[row["filename"]][name] for name in names}
        others = {name: types.get(name, str)(cell) if cell else None for name, cell in cells.items()}
        rows.append({"filename": row["filename"], "prompt": row["prompt"], **row["labels_dict"], **others})
    return rows


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fixture, with further columns in its metadata."""
    folder = Path(shutil.copytree(FIXTURE, tmp_path_factory.mktemp("wide") / "source"))
    with open(FIXTURE / "metadata.csv", newline="", encoding="utf-8") as file:
        (folder / "metadata.csv").write_bytes(to_csv(with_others([*csv.DictReader(file)])))
    return folder


@pytest.fixture(scope="module")
def converted(wide: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, converted with U-Zeros, a policy that the configuration does not follow."""
    output = tmp_path_factory.mktemp("converted") / "o"
    assert convert(wide, output, "--uncertainty", "zeros", "--max-shard-size", "450kB") == 0
    return output


@pytest.fixture
def output(converted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(converted, tmp_path / "o"))


@pytest.fixture
def wanted(expected: Rows, table: Table) -> list[dict[str, Any]]:
    return flat(expected, with_others(table), OTHERS)


# What is in it, for every reader


def test_load_dataset_reads_raw_labels_and_the_default_stays(
    converted: Path, wanted: list[dict[str, Any]], tmp_path: Path
) -> None:
    dataset = datasets.load_dataset(str(converted), "labels", split="train", cache_dir=str(tmp_path))
    assert [*dataset] == wanted
    assert dataset.features == features_of({**dict.fromkeys(OTHERS, "string"), "age": "int64", "score": "float64"})
    assert [*datasets.load_dataset(str(converted), "labels", split="train", streaming=True)] == wanted
    default = datasets.load_dataset(str(converted), split="train", cache_dir=str(tmp_path))
    assert default.features == synthchex_75k.FEATURES
    assert len(default) == 12
    assert datasets.get_dataset_config_names(str(converted)) == ["default", "labels"]


def test_duckdb_and_polars_read_it(converted: Path, wanted: list[dict[str, Any]]) -> None:
    file = f"{converted}/labels/*.parquet"
    names = [row["filename"] for row in wanted if row["Pleural Effusion"] == 1]
    assert 0 < len(names) < 12
    query = f"""SELECT filename FROM '{file}' WHERE "Pleural Effusion" = 1"""
    relation = duckdb.sql(query)
    assert relation is not None
    assert [name for (name,) in relation.fetchall()] == names
    rows = polars.scan_parquet(file)
    assert rows.filter(polars.col("Pleural Effusion") == 1).collect()["filename"].to_list() == names
    assert rows.collect().to_dicts() == wanted


def test_mlcroissant_reads_it(converted: Path, wanted: list[dict[str, Any]]) -> None:
    dataset = mlcroissant.Dataset(jsonld=str(converted / "croissant.json"))
    for record, row in zip(dataset.records("labels"), wanted, strict=True):
        found = [value.decode() if isinstance(value, bytes) else value for value in record.values()]
        assert [None if value != value else value for value in found] == [*row.values()]
        assert [*record] == [f"labels/{name.replace(' ', '_')}" for name in row]


def test_columns_are_flat_and_have_a_page_index(converted: Path) -> None:
    metadata = pq.read_metadata(converted / LABELS_FILE)
    group = metadata.row_group(0)
    columns = {group.column(number).path_in_schema: group.column(number) for number in range(group.num_columns)}
    assert [*columns] == ["filename", "prompt", *LABELS, *OTHERS]
    for name, column in columns.items():
        assert (column.compression, column.has_offset_index) == ("ZSTD", True)
        assert column.has_column_index == (name != "prompt")
        assert column.has_dictionary_page == (name != "filename")


def test_card_has_the_counts_of_datasets_over_several_row_groups(tmp_path: Path) -> None:
    count = 25_000
    values = [1, 0, -1, None]
    rows = [
        synthchex_75k.Row(
            f"{n}.png", "", "", 0, 1, 1, None, f"Prompt {n}.", tuple(values[(n + k) % 4] for k in range(14))
        )
        for n in range(count)
    ]
    ages: list[str | None] = [str(n % 90) for n in range(count)]
    content, measured = write_labels(rows, {"age": ages})
    (tmp_path / "l.parquet").write_bytes(content)
    assert pq.ParquetFile(tmp_path / "l.parquet").num_row_groups == 3
    files = {"data_files": str(tmp_path / "l.parquet"), "cache_dir": str(tmp_path / "cache")}
    dataset = datasets.load_dataset("parquet", split="train", **files)
    assert (dataset.info.splits["train"].num_bytes, dataset.info.dataset_size) == (measured.num_bytes,) * 2
    assert (measured.file_size, measured.columns) == (len(content), {"age": "int64"})
    assert write_labels(rows, {"age": ages})[0] == content


@settings(max_examples=60)
@given(
    st.lists(
        st.none()
        | st.sampled_from(["0", "-0", "007", "1.0", "-0.0", "1e5", "nan", "inf", "9223372036854775808", " 1", "1 "])
        | st.integers().map(str)
        | st.floats().map(repr)
        | st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
        min_size=1,
        max_size=4,
    )
)
def test_no_type_changes_a_cell(cells: list[str | None]) -> None:
    row = synthchex_75k.Row("a.png", "", "", 0, 1, 1, None, "P.", (None,) * 14)
    content, measured = write_labels([row] * len(cells), {"x": cells})
    found = pq.read_table(pa.BufferReader(content))["x"]
    assert [None if cell is None else str(cell) for cell in found.to_pylist()] == cells
    assert measured.columns == {"x": {"double": "float64"}.get(str(found.type), str(found.type))}


@pytest.mark.parametrize("shape", SHAPES)
def test_columns_are_read_in_every_shape(
    shape: Write, source: Source, table: Table, wanted: list[dict[str, Any]], tmp_path: Path
) -> None:
    assert convert(source(table=with_others(table), shape=shape), tmp_path / "o") == 0
    assert pq.read_table(tmp_path / "o" / LABELS_FILE).to_pylist() == wanted


def test_rows_that_are_left_out_are_left_out(source: Source, table: Table, tmp_path: Path) -> None:
    more = {**with_others(table)[0], "filename": "other.png", "view": "LATERAL"}
    folder = source(table=[more, *with_others(table)])
    assert convert(folder, tmp_path / "o", "--on-mismatch", "skip") == 0
    found = pq.read_table(tmp_path / "o" / LABELS_FILE)
    assert (len(found), {*found["view"].to_pylist()}) == (12, {"PA", "AP"})
    assert convert(folder, tmp_path / "o", "--on-mismatch", "skip", "--verify") == 0


def test_card_and_croissant_tell_the_columns(converted: Path) -> None:
    card = (converted / "README.md").read_text(encoding="utf-8")
    for line in ("| view | `string` |", "| patient id | `string` |", "| age | `int64` |", "| score | `float64` |"):
        assert f"\n{line}\n" in card
    assert "Its values are always raw" in card
    assert "U-Zeros, a policy" in card


def test_any_name_is_data(source: Source, table: Table, tmp_path: Path) -> None:
    names = ["a b", "a_b", "Pleural_Effusion", "<!-- END labels -->", "a|b", "$rows", 'say "x"', "a.b", "dtype", "å"]
    folder = source(table=[{**row, **dict.fromkeys(names, "x")} for row in table])
    assert convert(folder, tmp_path / "o") == 0
    assert convert(folder, tmp_path / "o", "--verify") == 0
    dataset = datasets.load_dataset(str(tmp_path / "o"), "labels", split="train", cache_dir=str(tmp_path / "cache"))
    assert [dataset[0][name] for name in names] == ["x"] * len(names)
    described = mlcroissant.Dataset(jsonld=str(tmp_path / "o/croissant.json"))
    ids = [field.id for record_set in described.metadata.record_sets for field in record_set.fields]
    assert len({*ids}) == len(ids)
    assert r"\<\!-- END labels --\>" in (tmp_path / "o/README.md").read_text(encoding="utf-8")


# Which columns


def published(output: Path) -> dict[str, bytes]:
    return {name: data for name, data in contents(output).items() if name != MANIFEST}


def test_rerun_does_nothing_and_other_columns_change_three_files(output: Path, wide: Path, capsys: Any) -> None:
    options = ["--uncertainty", "zeros", "--max-shard-size", "450kB"]
    before, times = published(output), {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    assert convert(wide, output, *options) == 0
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == times
    assert convert(wide, output, *options, "--labels-columns", "age, view") == 0
    assert "with 14 labels and age, view\n" in capsys.readouterr().out
    after = published(output)
    changed = {name for name in after if after[name] != before[name]}
    assert (changed, {*after}) == ({LABELS_FILE, "README.md", "croissant.json"}, {*before})
    assert pq.read_schema(output / LABELS_FILE).names == ["filename", "prompt", *LABELS, "age", "view"]
    assert b"patient id" not in b"".join(after.values())
    assert convert(wide, output, *options[:2], "--verify", "--labels-columns", "age,view") == 0
    assert convert(wide, output, *options, "--labels-columns", "none") == 0
    assert pq.read_schema(output / LABELS_FILE).names == ["filename", "prompt", *LABELS]
    assert convert(wide, output, *options, "--labels-columns", "all") == 0
    assert published(output) == before


def test_unnamed_column_is_left_out_and_told(wide: Path, tmp_path: Path, capsys: Any) -> None:
    assert convert(wide, tmp_path / "o") == 0
    assert "the metadata CSV has 1 column without a name, not written to labels/" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("names", "wanted", "message"),
    [
        (["view"], ("age",), "--labels-columns: the metadata CSV has no column age; it has view"),
        ([""], ("age",), "no column age; it has none beside file name, prompt and labels"),
        (["view", "view"], None, "the column view is there twice; rename it in the CSV, or leave it out"),
        (["view", "View"], None, "the column View differs from view by case only"),
        (["Filename"], None, "the column Filename differs from filename by case only"),
        (["PROMPT"], None, "the column PROMPT differs from prompt by case only"),
        (["x", "edema"], ("all",), "the column edema differs from Edema by case only"),
        (["_type"], None, "the column _type has a name that a Parquet file for `datasets` cannot have"),
        (["a\nb"], None, "has a name that a Parquet file"),
    ],
)
def test_columns_that_cannot_be_written(names: list[str], wanted: Any, message: str) -> None:
    with pytest.raises(StepError, match=re.escape(message)):
        choose_columns(names, wanted, "path/to/release")
    assert choose_columns(["x", "view", "view"], ("x",), "") == ["x"], "a column that is not chosen may be there twice"


def test_collision_is_an_error_before_anything_is_written(
    source: Source, table: Table, tmp_path: Path, capsys: Any
) -> None:
    folder = source(table=[{**row, "edema": "1"} for row in table])
    assert convert(folder, tmp_path / "o") == 1
    assert "error: " in (error := capsys.readouterr().err)
    assert "the column edema differs from Edema by case only; rename it in the CSV" in error
    assert not [name for name in contents(tmp_path / "o") if not name.startswith(".")]
    assert convert(folder, tmp_path / "o", "--labels-columns", "none") == 0


@pytest.mark.parametrize("text", ["", ",", "view,", "view,view", '"view'])
def test_names_that_are_no_list(text: str, tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(SystemExit):
        convert(FIXTURE, tmp_path / "o", "--labels-columns", text)
    assert "name all, none, or some columns, each once" in capsys.readouterr().err


def test_name_with_a_comma(source: Source, table: Table, tmp_path: Path, capsys: Any) -> None:
    folder = source(table=[{**row, "a, b": "1", "c": "2"} for row in table])
    assert convert(folder, tmp_path / "o", "--labels-columns", 'c,"a, b"') == 0
    assert pq.read_schema(tmp_path / "o" / LABELS_FILE).names[-2:] == ["c", "a, b"]
    assert """--labels-columns 'c,"a, b"'""" in capsys.readouterr().out


# Verified


@pytest.fixture
def verify(wide: Path, capsys: Any) -> Callable[..., list[str]]:
    def run(output: Path, *options: str) -> list[str]:
        capsys.readouterr()
        code = convert(wide, output, "--verify", "--uncertainty", "zeros", *options)
        *found, last = capsys.readouterr().out.splitlines()
        assert (code, last) == ((1, f"differences: {len(found)}") if found else (0, "no difference"))
        return [line for line in found if MANIFEST not in line and "croissant.json: size" not in line]

    return run


def spoil(table: pa.Table, column: str) -> pa.Table:
    """Returns a table in which the first text of a column is not UTF-8."""
    texts = pa.array([b"\xff", *((text or "").encode() for text in table[column].to_pylist()[1:])], pa.binary())
    place = table.column_names.index(column)
    return table.set_column(place, table.schema.field(place), texts.view(pa.string()))


def rewrite(output: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(output / LABELS_FILE)), output / LABELS_FILE)


def test_changed_cells_are_found(output: Path, wanted: list[dict[str, Any]], verify: Any) -> None:
    assert verify(output) == []
    rows = [{**row} for row in wanted]
    rows[0]["Edema"], rows[1]["age"], rows[2]["view"], rows[3]["prompt"] = 1, 7, None, "x"
    rewrite(output, lambda table: pa.Table.from_pylist(rows, table.schema))
    at = [f"{LABELS_FILE} row {number} ({rows[number]['filename']}): " for number in range(4)]
    found = [line for line in verify(output) if line.startswith(LABELS_FILE)]
    assert found == [
        f"{at[3]}prompt is 'x', in SOURCE {wanted[3]['prompt']!r}",
        f"{at[0]}Edema is 1, in SOURCE None",
        f"{at[2]}view is None, in SOURCE 'PA'",
        f"{at[1]}age is '7', in SOURCE '41'",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop_columns(["age"]), "the columns differ: age is missing; --labels-columns"),
        (lambda table: table.append_column("x", table["age"]), "the columns differ: x is unexpected; --labels"),
        (lambda table: table.replace_schema_metadata(None), "the columns differ: filename: string"),
        (lambda table: table.slice(1), "11 rows, in SOURCE 12"),
    ],
)
def test_other_columns_and_rows_are_found(change: Any, message: str, output: Path, verify: Any) -> None:
    rewrite(output, change)
    assert [line for line in verify(output) if line.startswith(f"{LABELS_FILE}: {message}")]


def test_damaged_file_is_found(output: Path, verify: Any) -> None:
    data = (output / LABELS_FILE).read_bytes()
    (output / LABELS_FILE).write_bytes(data[:40] + bytes([data[40] ^ 1]) + data[41:])
    assert any(line.startswith(f"{LABELS_FILE}: cannot be read: ") for line in verify(output))


def test_text_that_is_not_utf8_is_found(output: Path, verify: Any) -> None:
    rewrite(output, lambda table: spoil(table, "prompt"))
    assert any(line.startswith(f"{LABELS_FILE}: cannot be read: ") and "UTF8" in line for line in verify(output))


def test_repository_of_an_older_version_is_told_to_be_converted_again(output: Path, wide: Path, capsys: Any) -> None:
    shutil.rmtree(output / "labels")
    (output / MANIFEST).unlink()  # as in a downloaded repository
    card, path = DatasetCard.load(output / "README.md"), output / "croissant.json"
    described = json.loads(path.read_text(encoding="utf-8"))
    described["recordSet"].pop()
    described["distribution"] = [one for one in described["distribution"] if one["@id"] != LABELS_FILE]
    path.write_text(json.dumps(described), encoding="utf-8")
    card.data["configs"].pop()
    card.data["dataset_info"] = {k: v for k, v in card.data["dataset_info"][0].items() if k != "config_name"}
    card.save(output / "README.md")
    capsys.readouterr()
    assert convert(wide, output, "--verify", "--uncertainty", "zeros") == 1
    missing, _, last = capsys.readouterr().out.splitlines()
    assert missing == f"{LABELS_FILE}: missing; older versions wrote no configuration labels: convert again"
    assert last == "differences: 1"


def test_removed_file_is_written_again(output: Path, wide: Path) -> None:
    before = published(output)
    shutil.rmtree(output / "labels")
    assert convert(wide, output, "--uncertainty", "zeros", "--max-shard-size", "450kB") == 0
    assert published(output) == before


def test_record_set_without_a_column_is_found(output: Path, verify: Any) -> None:
    path = output / "croissant.json"
    described = json.loads(path.read_text(encoding="utf-8"))
    described["recordSet"][1]["field"].pop()
    path.write_text(json.dumps(described), encoding="utf-8")
    assert verify(output) == ["croissant.json: the record set labels is missing, or differs from SOURCE"]


# As a source of the other programs


def test_converted_folder_is_read_as_before(converted: Path, table: Table) -> None:
    rows = plan_any(str(converted))
    assert [row.path for row in rows[:1]] == [f"{converted}/data/train-00000-of-00003.parquet"]
    assert len(rows) == 12
    others = {row["filename"]: row for row in with_others(table)}
    found = read_columns(str(converted), rows, ["patient id", "prompt", "age"])
    assert found["patient id"] == [others[row.filename]["patient id"] for row in rows]
    assert found["age"] == [others[row.filename]["age"] or None for row in rows]
    assert found["prompt"] == [row.prompt for row in rows]
    with pytest.raises(StepError, match="no column nobody"):
        read_columns(str(converted), rows, ["nobody"])


def test_columns_of_a_remote_folder(converted: Path, table: Table, hub: Any) -> None:
    hub.create("alice/chex", files=published(converted))
    wanted = {row["filename"]: row["view"] for row in with_others(table)}
    with serve(converted) as server:
        for address in ("hf://datasets/alice/chex", server.url):
            rows = plan_any(address)
            assert read_columns(address, rows, ["view"])["view"] == [wanted[row.filename] for row in rows]


def test_columns_that_are_not_utf8_are_damage(output: Path) -> None:
    rewrite(output, lambda table: spoil(table, "view"))
    rows = plan_any(str(output))
    with pytest.raises(synthchex_75k.SourceError, match=f"{LABELS_FILE}: .*UTF8"):
        read_columns(str(output), rows, ["view"])


def test_labels_of_other_images_are_refused(output: Path) -> None:
    rewrite(output, lambda table: table.slice(1))
    rows = plan_any(str(output))
    with pytest.raises(synthchex_75k.SourceError, match=rf"has no row of .*{rows[0].filename}; convert the SOURCE"):
        read_columns(str(output), rows, ["view"])


# Published


def test_further_columns_are_published_only_by_name(
    wide: Path, output: Path, monkeypatch: pytest.MonkeyPatch, hub: Any, capsys: Any
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_alice")
    options = ["--uncertainty", "zeros", "--max-shard-size", "450kB", "--num-proc", "1", "--no-figures"]
    push = [str(wide), str(output), *options, "--push-to-hub", "alice/chex"]
    before = contents(output)
    assert convert_to_parquet.main(push) == 1
    assert (
        "the metadata CSV has the columns view; patient id; age; score, which would be published in the configuration "
        "labels; name those to publish with --labels-columns, or all, or none\n"
    ) in capsys.readouterr().err
    assert (contents(output), hub.repos) == (before, {})
    assert convert_to_parquet.main([*push, "--labels-columns", "view"]) == 0
    assert LABELS_FILE in hub.files("alice/chex")
    assert hub.files("alice/chex")[LABELS_FILE] == (output / LABELS_FILE).read_bytes()
    assert len(hub.repos["alice/chex"].commits) == 2, "that of the Hub, and ours"
    loaded = datasets.load_dataset("alice/chex", "labels", split="train", streaming=True)
    assert [*next(iter(loaded))] == ["filename", "prompt", *LABELS, "view"]
    assert "hf://datasets/alice/chex/labels/*.parquet" in hub.files("alice/chex")["README.md"].decode()
    capsys.readouterr()
    assert convert_to_parquet.main([*push, "--labels-columns", "view"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert convert_to_parquet.main([*push, "--labels-columns", "none"]) == 0
    printed = capsys.readouterr().out
    assert sorted(re.findall(r"^  upload     (\S+),", printed, re.MULTILINE)) == sorted(
        ["README.md", "croissant.json", LABELS_FILE]
    )
    assert b"| view |" not in hub.files("alice/chex")["README.md"]
    hub.clear()
    own = b"---\nconfigs:\n- config_name: labels\n  data_files: mine.csv\n---\n"
    hub.create("alice/chex", files={"README.md": own, "mine.csv": b"a\n1\n"})
    assert convert_to_parquet.main([*push, "--labels-columns", "view"]) == 1
    assert "its configuration `labels`, which would be replaced, has other files; rename it" in capsys.readouterr().err
    assert {*hub.files("alice/chex")} == {".gitattributes", "README.md", "mine.csv"}
