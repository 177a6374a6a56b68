"""Where rows are cut into files, and writing the files that are missing."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import FIXTURE, contents, plan
from pipeline.errors import StepError
from pipeline.files import NewFile
from pipeline.folder import OutputFolder
from pipeline.jobs import WorkerPool
from pipeline.shards import Outcome, check_space, cut, write_missing
from synthchex_75k import Row


class TextShard(NamedTuple):
    """A file with a text, which writing can be made to fail with."""

    path: Path
    text: str
    rows: list[Row]
    max_bytes: int = 100

    def fingerprint(self, crcs: Iterable[int]) -> str:
        return f"{self.text} {[*crcs]}"

    def write(self, file: NewFile) -> tuple[list[int], dict[str, Any]]:
        file.write(self.text.encode())
        if self.text == "bad":
            raise StepError("bad text")
        return [row.zipped[2] for row in self.rows if row.zipped], {"letters": len(self.text)}


def shards(output: Path, *texts: str) -> list[TextShard]:
    rows = plan(FIXTURE)
    return [TextShard(output / f"data/{number}.txt", text, [rows[number]]) for number, text in enumerate(texts)]


def write(output: Path, *texts: str, overwrite: bool = False, **request: str) -> Outcome:
    with OutputFolder(output, "done", request, overwrite) as folder:
        with WorkerPool(2) as pool:
            outcome = write_missing(pool, folder, shards(output, *texts), "Writing")
        folder.finish({"done": b""})
    return outcome


def mtimes(output: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in output.glob("data/*")}


def test_only_missing_and_changed_files_are_written(tmp_path: Path) -> None:
    first = write(tmp_path / "o", "a", "b", "c")
    assert [entry["letters"] for entry in first.entries] == [1, 1, 1]
    assert first.written == first.entries
    assert first.seconds > 0
    before = mtimes(tmp_path / "o")
    again = write(tmp_path / "o", "a", "b", "c")
    assert (again.entries, again.written, mtimes(tmp_path / "o")) == (first.entries, [], before)
    (tmp_path / "o/data/0.txt").unlink()
    changed = write(tmp_path / "o", "a", "B!", "c")
    assert [entry["letters"] for entry in changed.written] == [1, 2]
    assert mtimes(tmp_path / "o")["2.txt"] == before["2.txt"]
    assert (tmp_path / "o/data/1.txt").read_text() == "B!"


def test_unwanted_files_are_removed(tmp_path: Path) -> None:
    write(tmp_path / "o", "a", "b", "c")
    write(tmp_path / "o", "a")
    write(tmp_path / "fresh", "a")
    assert contents(tmp_path / "o") == contents(tmp_path / "fresh")


def test_an_error_keeps_finished_files_and_no_others(tmp_path: Path) -> None:
    with pytest.raises(StepError, match="bad text"):
        write(tmp_path / "o", *"abcdefgh", "bad")
    assert not (tmp_path / "o/done").exists()
    assert all(path.read_text() in "abcdefgh" for path in tmp_path.glob("o/data/*.txt"))
    assert list(tmp_path.glob("o/data/.*")) == []
    finished = mtimes(tmp_path / "o")
    assert write(tmp_path / "o", *"abcdefghi").entries
    assert finished.items() <= mtimes(tmp_path / "o").items()


def test_finished_files_of_another_request_are_replaced_with_overwrite_only(tmp_path: Path) -> None:
    write(tmp_path / "o", "a", "b", size="1")
    before = contents(tmp_path / "o")
    with pytest.raises(StepError, match=r"size was '1' and is now '2'. This run would replace 1 finished file. "):
        write(tmp_path / "o", "a", "B", size="2")
    assert contents(tmp_path / "o") == before
    write(tmp_path / "o", "a", "b", size="2")  # would replace nothing
    write(tmp_path / "o", "a", "B", size="3", overwrite=True)
    assert (tmp_path / "o/data/1.txt").read_text() == "B"


def test_interrupted_overwrite_is_completed_without_the_option(tmp_path: Path) -> None:
    write(tmp_path / "o", "a", "b", size="1")
    with pytest.raises(StepError, match="bad text"):
        write(tmp_path / "o", "A", "bad", size="2", overwrite=True)
    write(tmp_path / "o", "A", "B", size="2")
    write(tmp_path / "fresh", "A", "B", size="2")
    assert contents(tmp_path / "o") == contents(tmp_path / "fresh")


def test_disk_without_space(tmp_path: Path) -> None:
    check_space(tmp_path / "no/such/folder", 1, 0)
    check_space(tmp_path, 1 << 60, 1 << 60)
    with pytest.raises(StepError, match=r"[\d,]+ bytes are needed and [\d,]+ are free; free some, or use another"):
        check_space(tmp_path / "no/such/folder", 1 << 60, 0)
    huge = [shard._replace(max_bytes=1 << 60) for shard in shards(tmp_path / "o", "a")]
    with (
        pytest.raises(StepError, match="are needed"),
        OutputFolder(tmp_path / "o", "done", {}) as folder,
        WorkerPool(1) as pool,
    ):
        write_missing(pool, folder, huge, "Writing")
    assert not (tmp_path / "o").exists()


@given(sizes=st.lists(st.integers(1, 1000), min_size=1, max_size=300), max_size=st.integers(1000, 20_000))
def test_cuts_cover_all_rows_within_the_bound(sizes: list[int], max_size: int) -> None:
    parts = cut(sizes, max_size, lambda start, end: sum(sizes[start:end]))
    assert [number for part in parts for number in range(*part)] == [*range(len(sizes))]
    assert all(sum(sizes[slice(*part)]) <= max_size for part in parts)


def test_a_slightly_larger_row_moves_no_cut() -> None:
    sizes = [1000 + number % 7 for number in range(1000)]
    before = cut(sizes, 120_000, lambda start, end: sum(sizes[start:end]))
    sizes[500] += 300
    assert cut(sizes, 120_000, lambda start, end: sum(sizes[start:end])) == before
    assert len(before) > 5
