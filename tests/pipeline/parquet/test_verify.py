"""`--verify` finds every difference, and none where there is none; a rerun repairs data files."""

import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard

import synthchex_75k
from conftest import FIXTURE, SHAPES, Rows, Source, Write, contents, convert, files_of, loose, padded, to_csv
from pipeline.folder import MANIFEST

OPTIONS = ["--max-shard-size", "300kB", "--rows-per-group", "2"]
Verify = Callable[..., list[str]]
FIRST = "SyntheticImg_02aa804e-bde0afdd-112c0b34-7bc16630-4e384014.png"


@pytest.fixture
def output(converted: Path, tmp_path: Path) -> Path:
    """The fixture, converted into four files of three rows."""
    return shutil.copytree(converted, tmp_path / "o")


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("converted") / "o"
    assert convert(FIXTURE, output, *OPTIONS) == 0
    return output


@pytest.fixture
def verify(capsys: Any) -> Verify:
    """Verifies a folder; returns the differences that it printed."""

    def run(output: Path, source: Path = FIXTURE, *options: str) -> list[str]:
        capsys.readouterr()
        before = contents(output)
        code = convert(source, output, "--verify", *options)
        printed = capsys.readouterr()
        *found, last = printed.out.splitlines()
        assert last == (f"differences: {len(found)}" if found else "no difference")
        assert printed.err == ""
        assert code == (1 if found else 0)
        assert contents(output) == before
        return found

    return run


def test_no_difference(output: Path, verify: Verify) -> None:
    assert verify(output) == []


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("uncertainty", ["zeros", "ones", "keep"])
def test_no_difference_in_every_shape(
    shape: Write, uncertainty: str, source: Source, tmp_path: Path, verify: Verify
) -> None:
    folder = source(shape=shape)
    assert convert(folder, tmp_path / "o", *OPTIONS, "--uncertainty", uncertainty) == 0
    assert verify(tmp_path / "o", folder, "--uncertainty", uncertainty) == []


# A flipped bit


def flip(path: Path, at: int, bit: int = 0) -> None:
    """Flips a bit of a file."""
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << bit]))


@pytest.fixture(scope="module")
def with_figures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("with_figures") / "o"
    assert convert(FIXTURE, output, *OPTIONS, "--figures") == 0
    return output


def find_flips(output: Path, verify: Verify, per_file: int) -> None:
    rng = random.Random(0)
    for path in [path for path in output.rglob("*") if path.is_file()]:
        size = path.stat().st_size
        near_end = [size - 1 - rng.randrange(min(9_000, size)) for _ in range(per_file // 2)]  # metadata of Parquet
        for at in [*near_end, *(rng.randrange(size) for _ in range(per_file - len(near_end)))]:
            bit = rng.randrange(8)
            flip(path, at, bit)
            found = verify(output)
            name = path.relative_to(output).as_posix()
            assert any(line.startswith((f"{name}: ", f"{name} row")) for line in found), (name, at, found)
            flip(path, at, bit)


def test_flipped_bits_are_found_in_every_file(with_figures: Path, verify: Verify) -> None:
    assert len(contents(with_figures)) == 4 + 6, "data, labels, manifest, card, croissant.json, two figures"
    find_flips(with_figures, verify, per_file=1)
    assert verify(with_figures) == []


@pytest.mark.slow
def test_many_flipped_bits_are_found_in_every_file(with_figures: Path, verify: Verify) -> None:
    find_flips(with_figures, verify, per_file=40)
    assert verify(with_figures) == []


def test_flipped_bit_of_an_image_is_located(output: Path, verify: Verify) -> None:
    path = files_of(output)[0]
    flip(path, 5_000)
    assert verify(output) == [
        f"data/{path.name}: cannot be read to its end: could not verify page integrity, CRC checksum verification "
        "failed for page_ordinal 0",
        f"data/{path.name}: damaged or edited: its SHA-256 differs from that in .manifest.jsonl",
        *verify(output)[2:],
    ]


def test_rerun_repairs_data_files(output: Path, verify: Verify) -> None:
    whole = contents(output)
    first, *others = files_of(output)
    before = [path.stat().st_mtime_ns for path in others]
    for at in (5_000, first.stat().st_size - 20):  # an image, the metadata
        flip(first, at)
        assert verify(output) != []
        assert convert(FIXTURE, output, *OPTIONS) == 0
        assert contents(output) == whole
    assert [path.stat().st_mtime_ns for path in others] == before, "intact files are not written again"


@pytest.mark.parametrize("name", ["README.md", "croissant.json"])
def test_rerun_refuses_changed_small_files(name: str, output: Path, capsys: Any) -> None:
    whole = contents(output)
    flip(output / name, 100)
    damaged = contents(output)
    for options in ([], ["--overwrite"]):
        assert convert(FIXTURE, output, *OPTIONS, *options) == 1
        assert f"changed since then: {name}. Move or delete it and run the command again" in capsys.readouterr().err
        assert contents(output) == damaged
    (output / name).unlink()
    assert convert(FIXTURE, output, *OPTIONS) == 0
    assert contents(output) == whole


def test_rerun_repairs_the_manifest(output: Path, verify: Verify, capsys: Any) -> None:
    whole = contents(output)
    flip(output / MANIFEST, 30)  # the line of the request
    assert verify(output) == [f"{MANIFEST}: line 1 is damaged"]
    before = [path.stat().st_mtime_ns for path in files_of(output)]
    assert convert(FIXTURE, output, *OPTIONS) == 0
    assert contents(output) == whole
    assert [path.stat().st_mtime_ns for path in files_of(output)] == before


def test_damaged_line_of_the_manifest_costs_one_file(output: Path, verify: Verify, capsys: Any) -> None:
    whole = contents(output)
    name = "data/train-00002-of-00004.parquet"
    flip(output / MANIFEST, whole[MANIFEST].index(name.encode()))
    assert verify(output) == [f"{MANIFEST}: line 6 is damaged", f"{name}: not in {MANIFEST}"]
    assert convert(FIXTURE, output, *OPTIONS) == 1
    assert (
        f"contains 1 file that this program did not write or that changed since then: {name}. {MANIFEST} is damaged, "
        "which may be the reason. Move or delete it and run the command again"
    ) in capsys.readouterr().err
    (output / name).unlink()
    before = {path: path.stat().st_mtime_ns for path in files_of(output)}
    assert convert(FIXTURE, output, *OPTIONS) == 0
    assert contents(output) == whole
    assert [path for path in before if path.stat().st_mtime_ns != before[path]] == []


def test_folder_without_a_manifest(output: Path, capsys: Any) -> None:
    (output / MANIFEST).unlink()  # as in a downloaded repository
    assert convert(FIXTURE, output, "--verify") == 0
    assert f"no {MANIFEST}: figures and parts of the text of README.md are not checked\nno difference\n" in (
        capsys.readouterr().out
    )


def test_truncated_file(output: Path, verify: Verify) -> None:
    path = files_of(output)[2]
    path.write_bytes(path.read_bytes()[:-100])
    found = verify(output)
    assert any(re.match(rf"data/{path.name}: the file names cannot be read: ", line) for line in found)
    assert f"data/{path.name}: damaged or edited: its SHA-256 differs from that in .manifest.jsonl" in found


# Other content in intact files


def rewrite(path: Path, change: Callable[[list[dict[str, Any]]], Any], schema: pa.Schema | None = None) -> None:
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema or table.schema), path)


def change_image(rows: list[dict[str, Any]]) -> None:
    rows[0]["image"]["bytes"] = rows[0]["image"]["bytes"][:-20] + b"!" + rows[0]["image"]["bytes"][-19:]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            change_image,
            rf"row 0 \({FIRST}\): the image differs from byte [\d,]+ on; it has ([\d,]+) bytes, in SOURCE \1",
        ),
        (lambda rows: rows[0]["image"].update(bytes=None), "the image differs from byte 0 on; it has 0 bytes"),
        (lambda rows: rows[0]["image"].update(path="x"), rf"the image's path is 'x', in SOURCE '{FIRST}'"),
        (lambda rows: rows[0].update(prompt="x"), r"the prompt is 'x', in SOURCE 'There is no"),
        (lambda rows: rows[0]["labels_dict"].update(Edema=1), rf"row 0 \({FIRST}\): Edema is 1, in SOURCE None"),
        (lambda rows: rows[0]["labels_dict"].update(Consolidation=None), "Consolidation is None, in SOURCE 0"),
        (lambda rows: rows[0].update(labels_dict=None), "No Finding is None, in SOURCE 1"),
        (lambda rows: rows[0].update(filename="x.png"), rf"^{FIRST}: missing row$"),
        (lambda rows: rows[0].update(filename="x.png"), r"^x.png: not in SOURCE$"),
        (lambda rows: rows.pop(0), rf"^{FIRST}: missing row$"),
        (lambda rows: rows.append(rows[0]), rf"^{FIRST}: 2 rows$"),
        (lambda rows: rows.insert(0, rows.pop(1)), rf"^{FIRST}: after .*, in SOURCE before it$"),
        (lambda rows: rows.pop(0), r"^README.md: dataset_info.dataset_size is 9\d+, by the data 8\d+$"),
    ],
)
def test_other_rows(change: Callable[[list[dict[str, Any]]], Any], message: str, output: Path, verify: Verify) -> None:
    rewrite(files_of(output)[0], change)
    found = verify(output)
    assert "data/train-00000-of-00004.parquet: damaged or edited: its SHA-256 differs from that in .manifest.jsonl" in (
        found
    )
    assert [line for line in found if re.search(message, line)]


def test_other_schema(output: Path, verify: Verify) -> None:
    plain, other = files_of(output)[:2]
    table = pq.read_table(plain)
    pq.write_table(table.replace_schema_metadata(None), plain)
    pq.write_table(pq.read_table(other).drop_columns(["prompt"]), other)
    found = verify(output)
    for path in (plain, other):
        assert [line for line in found if line.startswith(f"data/{path.name}: the schema differs: ")]


def test_file_without_filename_column(output: Path, verify: Verify) -> None:
    path = files_of(output)[0]
    pq.write_table(pq.read_table(path).drop_columns(["filename"]), path)
    found = verify(output)
    assert [line for line in found if line.startswith(f"data/{path.name}: the file names cannot be read: ")]
    assert sum(line.endswith(".png: missing row") for line in found) == 3


def test_every_difference_is_listed(output: Path, verify: Verify) -> None:
    for path in files_of(output):
        rewrite(path, lambda rows: [row.update(prompt="x") for row in rows])
    assert sum("the prompt is 'x'" in line for line in verify(output)) == 12


def test_missing_and_unexpected_files(output: Path, verify: Verify) -> None:
    (output / "data/train-00001-of-00004.parquet").unlink()
    shutil.copy(output / "data/train-00000-of-00004.parquet", output / "data/train-00000-of-00003.parquet")
    (output / "notes.txt").write_text("mine")
    (output / ".gitattributes").write_text("git's")
    (output / "data/.train-00000-of-00004.parquet.1.tmp").write_text("left")
    (output / "README.md").unlink()
    found = verify(output)
    assert "data/train-00001-of-00004.parquet: missing" in found
    assert "data/train-00000-of-00003.parquet: unexpected file" in found
    assert "data/.train-00000-of-00004.parquet.1.tmp: unexpected file" in found
    assert "notes.txt: unexpected file" in found
    assert "README.md: missing" in found
    assert sum(line.endswith(".png: missing row") for line in found) == 3
    assert not any(".gitattributes" in line for line in found)


def test_empty_folder(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "o").mkdir()
    assert convert(FIXTURE, tmp_path / "o", "--verify") == 1
    found = capsys.readouterr().out.splitlines()
    assert {"README.md: missing", "croissant.json: missing", "data: no Parquet file"} < {*found}
    assert sum(line.endswith(".png: missing row") for line in found) == 12


# Errors, and long listings


def test_missing_folder_is_one_error_before_planning(tmp_path: Path, capsys: Any) -> None:
    assert convert(tmp_path / "no source", tmp_path / "nowhere", "--verify") == 1
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", f"error: {tmp_path}/nowhere: no such folder\n")


def test_unreadable_source_is_an_error_not_a_difference(source: Source, tmp_path: Path, capsys: Any) -> None:
    folder = source(shape=loose)
    assert convert(folder, tmp_path / "o", *OPTIONS) == 0
    image = sorted(folder.rglob("Synthetic*.png"))[5]
    image.write_bytes(image.read_bytes()[:-50])
    capsys.readouterr()
    assert convert(folder, tmp_path / "o", "--verify") == 1
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == (
        "",
        f"error: {image.relative_to(folder)}: not a whole PNG file; generate or copy it again\n",
    )


def test_listings_are_bounded(output: Path, tmp_path: Path, capsys: Any) -> None:
    padded(tmp_path / "source", count=100, size=200)
    assert convert(tmp_path / "source", output, "--verify") == 1
    *found, last = capsys.readouterr().out.splitlines()
    missing = [line for line in found if line.endswith(": missing row")]
    assert missing == [f"{number:04}.png: missing row" for number in range(20)]
    assert found[found.index(missing[-1]) + 1] == "and 80 more missing rows"
    assert last == f"differences: {len(found) - 1 + 80}"


def test_listings_of_a_file_are_bounded(output: Path, capsys: Any) -> None:
    assert convert(FIXTURE, output, "--verify", "--uncertainty", "zeros") == 1
    *found, last = capsys.readouterr().out.splitlines()
    of_first = [line for line in found if line.startswith("data/train-00000-of-00004.parquet row ")]
    assert len(of_first) == 20
    more = [int(line.split()[1]) for line in found if line.startswith("and ")]
    assert f"and {more[0]} more differences in data/train-0000" in "\n".join(found)
    assert last == f"differences: {len(found) - len(more) + sum(more)}"


# The card


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("num_examples: 12", "num_examples: 13", "dataset_info.splits"),
        ("download_size: ", "download_size: 1", "dataset_info.download_size"),
        ("dataset_size: ", "dataset_size: 1", "dataset_info.dataset_size"),
        ("dtype: int8", "dtype: int16", "dataset_info.features"),
        ("n<1K", "1K<n<10K", "size_categories"),
        ("data/train-*", "data/test-*", "configs.default"),
        ("num_examples: 12", "num_examples: 13", "dataset_info.labels.splits"),
        ("download_size: ", "download_size: 1", "dataset_info.labels.download_size"),
        ("dtype: int8", "dtype: int16", "dataset_info.labels.features"),
        ("labels/train-00000", "labels/train-00001", "configs.labels"),
    ],
)
def test_card_header_differs_from_the_data(old: str, new: str, key: str, output: Path, verify: Verify) -> None:
    card = output / "README.md"
    before, of_labels, after = card.read_text(encoding="utf-8").partition("- config_name: labels\n")
    texts = [before, after.replace(old, new, 1)] if "labels" in key else [before.replace(old, new, 1), after]
    if key == "configs.default":
        texts = [before, after.replace(old, new, 1)]
    card.write_text(of_labels.join(texts), encoding="utf-8")
    edited, found = verify(output)
    assert edited == "README.md: damaged or edited: its SHA-256 differs from that in .manifest.jsonl"
    assert re.match(rf"README.md: {key} is .*, by the data ", found)


def test_card_without_a_valid_header(output: Path, verify: Verify) -> None:
    (output / "README.md").write_text("---\nlicense: [\n---\n")
    assert any(line.startswith("README.md: the header cannot be read: ") for line in verify(output))


def test_card_with_other_configurations(output: Path, capsys: Any) -> None:
    # As publishing makes it for a repository that has configurations of its own.
    card = DatasetCard.load(output / "README.md")
    card.data["configs"] = [*card.data["configs"], {"config_name": "mine", "data_files": "mine.csv"}]
    card.data["dataset_info"] = [{"config_name": "mine"}, *card.data["dataset_info"]]
    card.save(output / "README.md")
    (output / MANIFEST).unlink()
    assert convert(FIXTURE, output, "--verify") == 0
    card.data["dataset_info"][1]["dataset_size"] += 1
    card.save(output / "README.md")
    assert convert(FIXTURE, output, "--verify") == 1
    assert "README.md: dataset_info.dataset_size is " in capsys.readouterr().out


# Another source


def test_other_labels_in_the_source(output: Path, source: Source, table: Rows, verify: Verify) -> None:
    table[4] = {**table[4], "Edema": "1"}
    found, flat = verify(output, source(table=to_csv(table)))
    name = table[4]["filename"]
    assert re.fullmatch(rf"labels/train-00000-of-00001.parquet row 4 \({name}\): Edema is (0|None), in SOURCE 1", flat)
    assert re.fullmatch(rf"data/train-00001-of-00004.parquet row 1 \({name}\): Edema is (0|None), in SOURCE 1", found)


def test_other_label_policy(output: Path, tmp_path: Path, verify: Verify) -> None:
    assert convert(FIXTURE, tmp_path / "zeros", *OPTIONS, "--uncertainty", "zeros") == 0
    found = verify(tmp_path / "zeros", FIXTURE, "--uncertainty", "ones")
    assert len(found) == 4
    assert all(re.search(r": \w+ is 0, in SOURCE 1$", line) for line in found if "Pleural" not in line)


def test_files_in_another_order(output: Path, verify: Verify) -> None:
    one, two = files_of(output)[:2]
    one.rename(one.with_suffix(".x"))
    two.rename(one)
    one.with_suffix(".x").rename(two)
    order, *sums = verify(output)
    assert re.search(rf"^{FIRST}: after .*, in SOURCE before it$", order)
    assert [line.split(" of ")[0].split(": its")[0] for line in sums] == [
        "data/train-00000-of-00004.parquet: damaged or edited",
        "data/train-00001-of-00004.parquet: damaged or edited",
        *["croissant.json: size or SHA-256"] * 2,
    ]


def test_pages_have_checksums(output: Path) -> None:
    # With them a reader that has no SOURCE finds a flipped bit too.
    path = files_of(output)[0]
    flip(path, 70_000)
    with pytest.raises(OSError, match="CRC checksum verification failed"):
        pc.count(pq.ParquetFile(path, page_checksum_verification=True).read()["image"])


def test_labels_without_a_value_at_the_start_of_a_row_group(tmp_path: Path, verify: Verify) -> None:
    # Rows are compared in batches; one without a null has no validity bitmap, and so a smaller size in memory.
    padded(tmp_path / "source", count=36, size=1_000)
    labels = synthchex_75k.LABELS
    rows = [
        {"filename": f"{n:04}.png", "prompt": "p", **dict.fromkeys(labels, "" if n < 32 else "0")} for n in range(36)
    ]
    (tmp_path / "source" / "m.csv").write_bytes(to_csv(rows))
    assert convert(tmp_path / "source", tmp_path / "o", "--uncertainty", "keep") == 0
    assert verify(tmp_path / "o", tmp_path / "source", "--uncertainty", "keep") == []
