"""`--verify` finds whatever differs, and nothing where nothing does."""

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

from conftest import FIXTURE, SHAPES, Rows, Source, Write, contents, convert, files_of, loose, padded, to_csv

OPTIONS = ["--max-shard-size", "300kB", "--rows-per-group", "2"]
FIRST = "SyntheticImg_02aa804e-bde0afdd-112c0b34-7bc16630-4e384014.png"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """The fixture, converted into four files of three rows."""
    assert convert(FIXTURE, tmp_path / "o", *OPTIONS) == 0
    return tmp_path / "o"


@pytest.fixture
def verify(capsys: Any) -> Callable[..., list[str]]:
    """Verifies a folder; returns the differences that it printed."""

    def run(output: Path, source: Path = FIXTURE, *options: str) -> list[str]:
        capsys.readouterr()
        before = contents(output)
        code = convert(source, output, "--verify", *options)
        *found, last = capsys.readouterr().out.splitlines()
        assert last == (f"differences: {len(found)}" if found else "no difference")
        assert code == (1 if found else 0)
        assert contents(output) == before
        return found

    return run


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("uncertainty", ["zeros", "keep"])
def test_no_difference(
    shape: Write, uncertainty: str, source: Source, tmp_path: Path, verify: Callable[..., list[str]]
) -> None:
    folder = source(shape=shape)
    assert convert(folder, tmp_path / "o", *OPTIONS, "--uncertainty", uncertainty) == 0
    assert verify(tmp_path / "o", folder, "--uncertainty", uncertainty) == []


# A flipped bit


def test_every_bit_of_a_file_counts(tmp_path: Path) -> None:
    padded(tmp_path / "source", count=3, size=200)
    assert convert(tmp_path / "source", tmp_path / "o") == 0
    for path in [*files_of(tmp_path / "o"), tmp_path / "o/README.md"]:
        assert is_intact(path)
        data = bytearray(path.read_bytes())
        for at in range(len(data)):
            data[at] ^= 1 << at % 8
            path.write_bytes(data)
            assert not is_intact(path), f"{path.name}, byte {at} of {len(data)}"
            data[at] ^= 1 << at % 8


def test_a_flipped_bit_anywhere_is_found(output: Path, verify: Callable[..., list[str]]) -> None:
    rng = random.Random(0)
    for path in [files_of(output)[1], output / "README.md"]:
        whole = path.read_bytes()
        places = [0, 5, len(whole) - 1, len(whole) - 6, *(rng.randrange(len(whole)) for _ in range(12))]
        for at in [*places, *(len(whole) - rng.randrange(min(9_000, len(whole))) for _ in range(12))]:
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << rng.randrange(8)]) + whole[at + 1 :])
            found = verify(output)
            assert any(line.startswith(f"{path.relative_to(output)}: ") for line in found), (at, found)
        path.write_bytes(whole)
    assert verify(output) == []


def test_a_flipped_bit_of_an_image_is_told_where(output: Path, verify: Callable[..., list[str]]) -> None:
    path = files_of(output)[0]
    data = bytearray(path.read_bytes())
    data[5_000] ^= 1
    path.write_bytes(data)
    assert verify(output) == [
        f"data/{path.name}: not to the bit what was written: damaged or edited",
        f"data/{path.name}: cannot be read to its end: could not verify page integrity, CRC checksum verification "
        "failed for page_ordinal 0",
        *verify(output)[2:],
    ]


def test_a_file_that_is_cut_off(output: Path, verify: Callable[..., list[str]]) -> None:
    path = files_of(output)[2]
    path.write_bytes(path.read_bytes()[:-100])
    assert any(re.match(rf"data/{path.name}: its file names cannot be read: ", line) for line in verify(output))


# Other content in sound files


def rewrite(path: Path, change: Callable[[list[dict[str, Any]]], Any], schema: pa.Schema | None = None) -> None:
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema or table.schema), path)


def change_image(rows: list[dict[str, Any]]) -> None:
    rows[0]["image"]["bytes"] = rows[0]["image"]["bytes"][:-20] + b"!" + rows[0]["image"]["bytes"][-19:]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            change_image,
            rf"row 0 \({FIRST}\): the image differs from byte [\d,]+ on; it has ([\d,]+) bytes, in SOURCE \1",
        ),
        (lambda rows: rows[0]["image"].update(bytes=None), "the image differs from byte 0 on; it has 0 bytes"),
        (lambda rows: rows[0]["image"].update(path="x"), rf"the image's path is 'x', in SOURCE '{FIRST}'"),
        (lambda rows: rows[0].update(prompt="x"), r"the prompt is 'x', in SOURCE 'There is no"),
        (lambda rows: rows[0]["labels_dict"].update(Edema=1), rf"row 0 \({FIRST}\): Edema is 1, in SOURCE 0"),
        (lambda rows: rows[0]["labels_dict"].update(Edema=None), "Edema is None, in SOURCE 0"),
        (lambda rows: rows[0].update(labels_dict=None), "Edema is None, in SOURCE 0"),
        (lambda rows: rows[0].update(filename="x.png"), rf"^{FIRST}: missing$"),
        (lambda rows: rows[0].update(filename="x.png"), r"^x.png: not in SOURCE$"),
        (lambda rows: rows.pop(0), rf"^{FIRST}: missing$"),
        (lambda rows: rows.append(rows[0]), rf"^{FIRST}: there 2 times$"),
        (lambda rows: rows.insert(0, rows.pop(1)), rf"^{FIRST}: after .*, in SOURCE before it$"),
        (lambda rows: rows.pop(0), r"^README.md: dataset_info.dataset_size is 9\d+, by the data 8\d+$"),
    ],
)
def test_other_rows(
    change: Callable[[list[dict[str, Any]]], Any], told: str, output: Path, verify: Callable[..., list[str]]
) -> None:
    rewrite(files_of(output)[0], change)
    found = verify(output)
    assert "data/train-00000-of-00004.parquet: not to the bit what was written: damaged or edited" in found
    assert [line for line in found if re.search(told, line)]


def test_another_schema(output: Path, verify: Callable[..., list[str]]) -> None:
    plain, other = files_of(output)[:2]
    table = pq.read_table(plain)
    pq.write_table(table.replace_schema_metadata(None), plain)
    pq.write_table(pq.read_table(other).drop_columns(["prompt"]), other)
    found = verify(output)
    for path in (plain, other):
        assert [line for line in found if line.startswith(f"data/{path.name}: the schema is not that of the rows: ")]


def test_a_file_without_file_names(output: Path, verify: Callable[..., list[str]]) -> None:
    path = files_of(output)[0]
    pq.write_table(pq.read_table(path).drop_columns(["filename"]), path)
    found = verify(output)
    assert [line for line in found if line.startswith(f"data/{path.name}: its file names cannot be read: ")]
    assert sum(line.endswith(".png: missing") for line in found) == 3


def test_a_source_that_cannot_be_read_is_no_difference(source: Source, tmp_path: Path, capsys: Any) -> None:
    folder = source(shape=loose)
    assert convert(folder, tmp_path / "o", *OPTIONS) == 0
    image = sorted(folder.rglob("Synthetic*.png"))[5]
    image.write_bytes(image.read_bytes()[:-50])
    capsys.readouterr()
    assert convert(folder, tmp_path / "o", "--verify") == 1
    said = capsys.readouterr()
    assert (said.out, said.err) == (
        "",
        f"error: {image.relative_to(folder)}: not a whole PNG file; generate or copy it again\n",
    )


def test_every_difference_is_told(output: Path, verify: Callable[..., list[str]]) -> None:
    for path in files_of(output):
        rewrite(path, lambda rows: [row.update(prompt="x") for row in rows])
    assert sum("the prompt is 'x'" in line for line in verify(output)) == 12


def test_files_that_are_missing_or_too_many(output: Path, verify: Callable[..., list[str]]) -> None:
    (output / "data/train-00001-of-00004.parquet").unlink()
    shutil.copy(output / "data/train-00000-of-00004.parquet", output / "data/train-00000-of-00003.parquet")
    (output / "notes.txt").write_text("mine")
    (output / ".gitattributes").write_text("git's")
    (output / "data/.train-00000-of-00004.parquet.1.incomplete").write_text("left")
    (output / "README.md").unlink()
    found = verify(output)
    assert "data/train-00001-of-00004.parquet: missing" in found
    assert "data/train-00000-of-00003.parquet: does not belong here" in found
    assert "data/.train-00000-of-00004.parquet.1.incomplete: does not belong here" in found
    assert "notes.txt: does not belong here" in found
    assert "README.md: missing" in found
    assert sum(line.endswith(".png: missing") for line in found) == 3
    assert not any(".gitattributes" in line for line in found)


def test_an_empty_folder(tmp_path: Path, verify: Callable[..., list[str]]) -> None:
    found = verify(tmp_path / "nowhere")
    assert "data: no Parquet file" in found
    assert sum(line.endswith(".png: missing") for line in found) == 12


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("num_examples: 12", "num_examples: 13", "dataset_info.splits"),
        ("download_size: ", "download_size: 1", "dataset_info.download_size"),
        ("dataset_size: ", "dataset_size: 1", "dataset_info.dataset_size"),
        ("dtype: int8", "dtype: int16", "dataset_info.features"),
        ("n<1K", "1K<n<10K", "size_categories"),
        ("data/train-*", "data/test-*", "configs"),
    ],
)
def test_what_the_card_says(old: str, new: str, key: str, output: Path, verify: Callable[..., list[str]]) -> None:
    card = output / "README.md"
    card.write_text(card.read_text().replace(old, new))
    edited, found = verify(output)
    assert edited == "README.md: not to the bit what was written: damaged or edited"
    assert re.match(rf"README.md: {key} is .*, by the data ", found)


def test_a_card_that_is_no_card(output: Path, verify: Callable[..., list[str]]) -> None:
    (output / "README.md").write_text("---\nlicense: [\n---\n")
    assert any(line.startswith("README.md: its header cannot be read: ") for line in verify(output))


# Another source


def test_another_source(output: Path, source: Source, table: Rows, verify: Callable[..., list[str]]) -> None:
    table[4] = {**table[4], "Edema": "1"}
    (found,) = verify(output, source(table=to_csv(table)))
    assert re.match(
        rf"data/train-00001-of-00004.parquet row 1 \({table[4]['filename']}\): Edema is 0, in SOURCE 1", found
    )


def test_another_label_policy(output: Path, verify: Callable[..., list[str]]) -> None:
    found = verify(output, FIXTURE, "--uncertainty", "ones")
    assert len(found) == 4
    assert all(re.search(r": \w+ is 0, in SOURCE 1$", line) for line in found if "Pleural" not in line)


def test_an_order_that_is_not_that_of_the_names(output: Path, verify: Callable[..., list[str]]) -> None:
    one, two = files_of(output)[:2]
    one.rename(one.with_suffix(".x"))
    two.rename(one)
    one.with_suffix(".x").rename(two)
    order, *sums = verify(output)
    assert re.search(rf"^{FIRST}: after .*, in SOURCE before it$", order)
    assert [line.split(" of ")[0] for line in sums] == ["croissant.json: size or SHA-256"] * 2


def test_page_checksums_are_there(output: Path) -> None:
    # Without them a reader that has no SOURCE could not tell.
    path = files_of(output)[0]
    data = bytearray(path.read_bytes())
    data[70_000] ^= 1
    path.write_bytes(data)
    with pytest.raises(OSError, match="CRC checksum verification failed"):
        pc.count(pq.ParquetFile(path, page_checksum_verification=True).read()["image"])
