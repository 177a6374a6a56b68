"""Converts a SOURCE to a folder that is a complete Parquet dataset repository."""

from __future__ import annotations

import contextlib
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from pipeline.columns import read_other_columns
from pipeline.dataset_json import DATASET_JSON
from pipeline.errors import StepError, counted
from pipeline.facts import SourceFacts, read_facts
from pipeline.folder import OutputFolder, local_source
from pipeline.jobs import WorkerPool
from pipeline.parquet.card import MeasuredDataset, show, write_card
from pipeline.parquet.croissant import FileObject, write_croissant
from pipeline.parquet.figures import can_draw, draw_figures
from pipeline.parquet.labels import choose_columns, write_labels
from pipeline.parquet.layout import CARD, CROISSANT
from pipeline.parquet.pixels import merge_pixels
from pipeline.parquet.shard import parquet_shards
from pipeline.parquet_source import LABELS_FILE
from pipeline.provenance import PROVENANCE
from pipeline.rows import plan, read
from pipeline.shards import MAX_SHARD_SIZE, write_missing
from synthchex_75k import printable

OLDEST_PYARROW = 21  # the first with content-defined chunking


class Converted(NamedTuple):
    """Result of `convert`.

    Attributes:
        rows: Number of rows.
        files: Number of Parquet files with images.
        num_bytes: Their size: bytes.
        new_files: Number of the files that this run wrote.
        new_bytes: Their size: bytes.
        seconds: How long it wrote them.
        labels: Size of the file of the configuration `labels`: bytes.
        columns: The columns of the metadata CSV that are in it.
    """

    rows: int
    files: int
    num_bytes: int
    new_files: int
    new_bytes: int
    seconds: float
    labels: int
    columns: tuple[str, ...]


@contextlib.contextmanager
def convert(
    source: str,
    output: Path,
    num_proc: int = 1,
    max_shard_size: int = MAX_SHARD_SIZE,
    rows_per_group: int = 100,
    uncertainty: str = "keep",
    on_mismatch: str = "error",
    figures: bool | None = None,
    labels_columns: tuple[str, ...] | None = None,
    overwrite: bool = False,
    is_published: bool = False,
) -> Iterator[Converted]:
    """Converts a source, as far as it is not converted yet. The folder is locked until the context ends.

    Args:
        source: The SOURCE, as in `synthchex_75k.plan`.
        output: The folder; created where it does not exist.
        num_proc: Processes that write.
        max_shard_size: Upper bound of a Parquet file: bytes.
        rows_per_group: Upper bound of the rows of a row group.
        uncertainty: Label policy, a key of `synthchex_75k.UNCERTAINTY`.
        on_mismatch: `"error"` or `"skip"`, as in `synthchex_75k.plan`.
        figures: Draw the figures of the card. Default: if matplotlib is installed.
        labels_columns: The columns of the metadata CSV, beside file name, prompt and labels, that the configuration
            `labels` gets, as in `labels.choose_columns`.
        overwrite: Replace finished files of another source or other options.
        is_published: The result is to be published: then `labels_columns` has no default.

    Yields:
        The result.

    Raises:
        SourceError: The source, its `dataset.json` or `provenance.json`, or an image in it, cannot be used.
        StepError: The folder or `labels_columns` cannot be used, or a row is larger than `max_shard_size`.
        WorkerDiedError: A process that wrote was killed.
        OSError: A file cannot be read or written.
    """
    if int(pa.__version__.split(".")[0]) < OLDEST_PYARROW:
        raise StepError(f"pyarrow {pa.__version__} is too old: pip install -U 'pyarrow>={OLDEST_PYARROW}'")
    draws = _decide_figures(figures)
    request: dict[str, Any] = {"source": local_source(source)}
    request |= {"max_shard_size": max_shard_size, "rows_per_group": rows_per_group}
    request |= {"uncertainty": uncertainty, "on_mismatch": on_mismatch}
    with _open_folder(output, request, overwrite) as folder:
        with WorkerPool(num_proc) as pool:
            rows = plan(source, on_mismatch)
            facts = read_facts(rows, source)
            columns = read_other_columns(
                source, rows, lambda names: _choose(names, labels_columns, source, is_published)
            )
            _ask_for_missing(facts, source)
            shown_row = show(next(read(rows[:1], uncertainty))[1])
            drawn = draw_figures(pool, rows, uncertainty) if draws else []
            shards = parquet_shards(rows, output, max_shard_size, rows_per_group, uncertainty)
            entries, written, seconds = write_missing(pool, folder, shards, "Converting")
        paths = [folder.name_of(shard.path) for shard in shards]
        files = [FileObject(path, entry["size"], entry["sha256"]) for path, entry in zip(paths, entries)]
        num_bytes, sizes = sum(entry["num_bytes"] for entry in entries), [file.size for file in files]
        pixels = merge_pixels(entry["pixels"] for entry in entries)
        labels, measured_labels = write_labels(rows, columns)
        files.append(FileObject(LABELS_FILE, len(labels), hashlib.sha256(labels).hexdigest()))
        measured = MeasuredDataset(len(rows), num_bytes, sizes, uncertainty, pixels, measured_labels)
        card = write_card(measured, facts, shown_row, drawn)
        contents = {CARD: card.encode(), CROISSANT: write_croissant(measured, facts, files).encode()}
        contents |= {LABELS_FILE: labels, **{figure.path: figure.png for figure in drawn}}
        folder.finish(contents)
        new_bytes = sum(entry["size"] for entry in written)
        done = (len(rows), len(shards), sum(sizes), len(written), new_bytes, seconds)
        yield Converted(*done, len(labels), (*columns,))


def _choose(names: list[str], wanted: tuple[str, ...] | None, source: str, is_published: bool) -> list[str]:
    """Chooses the columns of the configuration `labels`, and prints how many have no name."""
    chosen = choose_columns(names, wanted, source, is_published)
    if unnamed := names.count("") * (wanted is None):
        left_out = f"{counted(unnamed, 'column')} without a name"
        print(printable(f"{source}: the metadata CSV has {left_out}, not written to {LABELS_FILE}"), file=sys.stderr)
    return chosen


def _ask_for_missing(facts: SourceFacts, source: str) -> None:
    """Prints one line that names what the source does not state."""
    missing = [f"{DATASET_JSON} with {', '.join(facts.dataset.missing)}"] if facts.dataset.missing else []
    missing += [] if facts.steps else [f"{PROVENANCE} with how the images were made"]
    if missing:
        asked = " and no ".join(missing)
        print(printable(f"{source} has no {asked}: the card says 'not stated'; see scripts/README.md"), file=sys.stderr)


def _decide_figures(figures: bool | None) -> bool:
    if figures is False or can_draw():
        return figures is not False
    install = "the figures of the card need matplotlib: pip install matplotlib, or `uv run --extra figures …`"
    if figures:
        raise StepError(install)
    print(f"no figures: {install}", file=sys.stderr)
    return False


def _open_folder(output: Path, request: dict[str, Any], overwrite: bool) -> OutputFolder:
    if output.resolve().name.lower() == "synthchex_75k":
        raise StepError(
            f"{output}: choose another name: beside a synthchex_75k.py, `datasets` 4 and later refuse a folder of the "
            "name synthchex_75k"
        )
    return OutputFolder(output, CARD, request, overwrite)
