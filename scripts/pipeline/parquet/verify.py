"""Compares a converted folder with its SOURCE, byte for byte.

Rows are read with pyarrow and compared with those of `synthchex_75k.examples`; files are compared with their SHA-256 in
the manifest and in `croissant.json`; the numbers in the card are compared with the data, and its sections and
`croissant.json` with what is known of the SOURCE. None of the code that writes Parquet files is used.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import DatasetCard

import synthchex_75k
from pipeline.columns import read_other_columns
from pipeline.errors import StepError, listing, one_line
from pipeline.facts import read_facts
from pipeline.files import TEMPORARY, sha256_of
from pipeline.folder import MANIFEST, Manifest, read_manifest
from pipeline.jobs import WorkerPool, advance
from pipeline.parquet.card import (
    LICENSE_LINE,
    MeasuredDataset,
    dataset_info,
    labels_info,
    show,
    size_category,
    write_card,
)
from pipeline.parquet.card_merge import DEFAULT, sections_of
from pipeline.parquet.croissant import FileObject, describe_dataset, read_files, record_sets
from pipeline.parquet.labels import (
    CONFIG,
    DATA_FILES_OF_LABELS,
    OPTION,
    MeasuredLabels,
    choose_columns,
    column_type,
    features_of,
    measure_memory,
)
from pipeline.parquet.layout import CARD, CROISSANT, FIGURES
from pipeline.parquet.pixels import Kind, Pixels, kind_of_image, merge_pixels, summarize
from pipeline.parquet_source import DATA_FILES, LABELS_FILE, data_files
from pipeline.rows import READ_AHEAD, plan, read, total_size
from synthchex_75k import FEATURES, LABELS, Row

SCHEMA = FEATURES.arrow_schema
SMALL_COLUMNS = [name for name in SCHEMA.names if name != "image"]
ROWS_IN_MEMORY = 32
# Sections that follow from rows, `dataset.json` and `provenance.json`; publishing changes only the license in them.
COMPARED_SECTIONS = ("summary", "row", "dataset", "citation")
NOT_DESCRIBING = {"@context", "@type", "conformsTo", "distribution", "recordSet"}  # properties of `croissant.json`
PUBLISHING_CHANGES = {"url", "name", "license"}
FIGURE = re.compile(rf"^!\[.*\]\(({'|'.join(map(re.escape, FIGURES))})\)$", re.MULTILINE)
MAX_LISTED = 20  # differences of a kind, and of a Parquet file
UNREADABLE = (pa.ArrowException, OSError, ValueError, MemoryError)  # pyarrow's errors for a damaged file


class DataFile(NamedTuple):
    """A Parquet file, and for each of its rows the row of SOURCE with that file name."""

    path: Path
    wanted: list[Row | None]
    uncertainty: str


class Difference(NamedTuple):
    """A line for the user, and the number of differences that it stands for; 0 for a note."""

    text: str
    number: int = 1


class Comparison(NamedTuple):
    """Result for a Parquet file: size of its rows in memory, as Arrow has them, in bytes; SHA-256; differences.

    And formats and sizes of the images of SOURCE that belong to its rows; None if there are none.
    """

    num_bytes: int
    sha256: str
    differences: list[Difference]
    pixels: Pixels | None


def differences(
    source: str,
    output: Path,
    uncertainty: str,
    on_mismatch: str,
    pool: WorkerPool,
    labels_columns: tuple[str, ...] | None = None,
) -> Iterator[Difference]:
    """Compares a converted folder with its SOURCE.

    Args:
        source: The SOURCE.
        output: The folder.
        uncertainty: Label policy of the folder's labels.
        on_mismatch: `"error"` or `"skip"`, as in `synthchex_75k.plan`.
        pool: The workers.
        labels_columns: The further columns of the configuration `labels`, as in `labels.choose_columns`.

    Yields:
        The differences; of a kind that occurs often, the first `MAX_LISTED` and the number of the others.

    Raises:
        StepError: The folder does not exist, or `labels_columns` cannot be used.
        SourceError: SOURCE cannot be used, or an image in it cannot be read.
    """
    if not output.is_dir():
        raise StepError(f"{output}: no such folder")
    manifest = read_manifest(output)
    rows = plan(source, on_mismatch)
    facts = read_facts(rows, source)
    columns = read_other_columns(source, rows, lambda names: choose_columns(names, labels_columns, source))
    present = _list_files(output)
    yield from _compare_names(present, manifest)
    paths = [output / name for name in data_files(present) if name in present]
    filenames: dict[Path, list[str]] = {}
    for path in paths:
        try:
            filenames[path] = _read_filenames(path)
        except (*UNREADABLE, KeyError) as error:
            yield Difference(f"data/{path.name}: the file names cannot be read: {one_line(error)}")
    yield from _compare_order([row.filename for row in rows], [*itertools.chain(*filenames.values())])
    by_name = {row.filename: row for row in rows}
    files = [DataFile(path, [by_name.get(name) for name in names], uncertainty) for path, names in filenames.items()]
    wanted = [row for file in files for row in file.wanted if row]
    compared: dict[Path, Comparison] = {}
    for file, comparison in pool.run(compare_file, files, "Comparing", len(wanted), total_size(wanted)):
        compared[file.path] = comparison
        yield from comparison.differences
    sha256s = {path: compared[path].sha256 if path in compared else sha256_of(path) for path in paths}
    sha256s |= {output / LABELS_FILE: sha256_of(output / LABELS_FILE)} if LABELS_FILE in present else {}
    objects = [
        FileObject(path.relative_to(output).as_posix(), path.stat().st_size, sha256) for path, sha256 in sha256s.items()
    ]
    yield from _compare_checksums(output, present, manifest, objects)
    num_bytes = sum(comparison.num_bytes for comparison in compared.values())
    sizes = [file.size for file in objects if file.path != LABELS_FILE]
    labels = (yield from _compare_labels(output / LABELS_FILE, rows, columns)) if LABELS_FILE in present else None
    seen = [comparison.pixels.entry for comparison in compared.values() if comparison.pixels]
    pixels = merge_pixels(seen) if seen else Pixels((), (0, 0), (0, 0))
    measured = MeasuredDataset(len(rows), num_bytes, sizes, uncertainty, pixels, labels or MeasuredLabels())
    yield from _compare_card(output / CARD, measured, labels is not None)
    yield from _compare_croissant(output / CROISSANT, objects)
    if seen and len(wanted) == len(rows):  # else rows are missing, and some images were not looked at
        shown_row = show(next(read(rows[:1], uncertainty))[1])
        may_be_published = not (output / MANIFEST).exists()
        yield from _compare_sections(output / CARD, write_card(measured, facts, shown_row, []), may_be_published)
        described = describe_dataset(measured, facts)
        wanted_sets = [one for one in record_sets(measured, facts) if one["@id"] == CONFIG and labels]
        yield from _compare_description(output / CROISSANT, described, wanted_sets, may_be_published)


def compare_file(file: DataFile) -> Comparison:
    """Compares a Parquet file with the rows of SOURCE, in a worker.

    Args:
        file: The file.

    Returns:
        The result.

    Raises:
        SourceError: An image of SOURCE cannot be read.
    """
    at = f"data/{file.path.name}"
    found, num_bytes = [], 0
    kinds: set[Kind] = set()
    try:
        with _open(file.path) as handle, pq.ParquetFile(handle, page_checksum_verification=True) as parquet:
            schema = parquet.schema_arrow
            if not _is_schema(schema, SCHEMA):
                found.append(f"{at}: the schema differs: {one_line(schema)}")
            for size, texts in _compare_rows(parquet, file, kinds) if schema.equals(SCHEMA) else ():
                num_bytes += size
                found += (f"{at} {text}" for text in texts)
    except synthchex_75k.SourceError:
        raise
    except UNREADABLE as error:
        found.append(f"{at}: cannot be read to its end: {one_line(error)}")
    differing = [*_first(found, f"differences in {at}")]
    return Comparison(num_bytes, sha256_of(file.path), differing, summarize(kinds) if kinds else None)


def _compare_rows(parquet: pq.ParquetFile, file: DataFile, kinds: set[Kind]) -> Iterator[tuple[int, list[str]]]:
    """Yields for each row group its size in memory, as `datasets` counts it, and how its rows differ.

    The kinds of the images of SOURCE are added to `kinds`.
    """
    examples = synthchex_75k.examples([row for row in file.wanted if row], file.uncertainty, read_ahead=READ_AHEAD)
    wanted_rows = enumerate(file.wanted)
    for group in range(parquet.num_row_groups):
        # A batch without a null has no validity bitmap, so all columns but the large one are measured as a whole.
        num_bytes = parquet.read_row_group(group, columns=SMALL_COLUMNS, use_threads=False).nbytes
        texts: list[str] = []
        for batch in parquet.iter_batches(ROWS_IN_MEMORY, row_groups=[group], use_threads=False):
            num_bytes += batch["image"].nbytes
            for found, (number, wanted) in zip(batch.to_pylist(), wanted_rows):
                if wanted:
                    at = f"row {number} ({wanted.filename})"
                    example = _next(examples, wanted)
                    kinds.add(kind_of_image(example["image"]["bytes"]))
                    texts += (f"{at}: {text}" for text in _compare_row(example, found))
                    advance(1, wanted.size or 0)
        yield num_bytes, texts


def _next(examples: Iterator[dict[str, Any]], row: Row) -> dict[str, Any]:
    try:
        return next(examples)
    except OSError as error:  # else it would pass for an error of the Parquet file
        raise synthchex_75k.SourceError(f"{row.where}: {error}") from error


def _compare_row(wanted: dict[str, Any], found: dict[str, Any]) -> Iterator[str]:
    image, labels = found["image"] or {}, found["labels_dict"] or {}
    png, wanted_png = image.get("bytes") or b"", wanted["image"]["bytes"]
    if png != wanted_png:
        first = next((at for at, (a, b) in enumerate(zip(png, wanted_png)) if a != b), min(len(png), len(wanted_png)))
        yield f"the image differs from byte {first:,} on; it has {len(png):,} bytes, in SOURCE {len(wanted_png):,}"
    values = [
        ("the image's path", image.get("path"), wanted["image"]["path"]),
        ("the prompt", found["prompt"], wanted["prompt"]),
        *((label, labels.get(label), value) for label, value in wanted["labels_dict"].items()),
    ]
    for name, value, wanted_value in values:
        if value != wanted_value:
            yield f"{name} is {value!r}, in SOURCE {wanted_value!r}"


def _compare_labels(
    path: Path, rows: list[Row], others: dict[str, list[str | None]]
) -> Generator[Difference, None, MeasuredLabels | None]:
    """Compares the file of the configuration `labels`; returns what was measured of it, None where it is damaged."""
    try:
        with _open(path) as handle, pq.ParquetFile(handle, page_checksum_verification=True) as parquet:
            table, num_bytes = parquet.read(use_threads=False), measure_memory(parquet)
            table.validate(full=True)  # as for texts that are not UTF-8
    except UNREADABLE as error:
        yield Difference(f"{LABELS_FILE}: cannot be read: {one_line(error)}")
        return None
    filenames = [row.filename for row in rows]
    wanted: dict[str, list[Any]] = {"filename": filenames, "prompt": [row.prompt for row in rows]}
    wanted |= {label: [row.labels[number] for row in rows] for number, label in enumerate(LABELS)}
    types = {name: column_type(cells) for name, cells in others.items()}
    if not _is_schema(table.schema, features_of(types).arrow_schema):
        found_names = {*table.column_names}
        texts = [f"{name} is missing" for name in [*wanted, *others] if name not in found_names]
        texts += [f"{name} is unexpected" for name in table.column_names if name not in {*wanted, *others}]
        see = f"; {OPTION} chooses columns" if texts else one_line(table.schema)
        yield Difference(f"{LABELS_FILE}: the columns differ: {listing(texts, 20, ', ')}{see}")
        return None
    if len(table) != len(rows):
        yield Difference(f"{LABELS_FILE}: {len(table):,} rows, in SOURCE {len(rows):,}")
        return None
    found = []
    for name, values in {**wanted, **others}.items():
        cells = table[name].to_pylist()
        if name in others:  # the texts of numbers are compared
            cells = [None if cell is None else str(cell) for cell in cells]
        if cells != values:
            pairs = enumerate(zip(cells, values, filenames))
            found += [
                f"{LABELS_FILE} row {number} ({filename}): {name} is {cell!r}, in SOURCE {value!r}"
                for number, (cell, value, filename) in pairs
                if cell != value
            ]
    yield from _first(found, f"differences in {LABELS_FILE}")
    return MeasuredLabels(num_bytes, path.stat().st_size, types)


def _list_files(output: Path) -> set[str]:
    """Lists the files of a folder, without hidden ones, which belong to git, a file manager or `hf upload`."""
    names = {path.relative_to(output).as_posix(): path for path in output.rglob("*") if path.is_file()}
    return {name for name, path in names.items() if not re.search(r"(^|/)\.", name) or TEMPORARY.fullmatch(path.name)}


def _read_filenames(path: Path) -> list[str]:
    with _open(path) as handle:
        return pq.read_table(handle, columns=["filename"], use_threads=False)["filename"].to_pylist()


def _is_schema(found: pa.Schema, wanted: pa.Schema) -> bool:
    """True if columns and features are equal; other keys of the footer, such as those about chunks, do not count."""
    features = {key: value for key, value in (found.metadata or {}).items() if key in wanted.metadata}
    return found.with_metadata(features).equals(wanted, check_metadata=True)


def _open(path: Path) -> pa.NativeFile:
    return pa.OSFile(os.fsencode(path))  # pyarrow would encode a text as UTF-8, which not every path is


def _first(texts: list[str], others: str) -> Iterator[Difference]:
    """Yields the first `MAX_LISTED` differences, and the number of the others."""
    yield from map(Difference, texts[:MAX_LISTED])
    if more := len(texts[MAX_LISTED:]):
        yield Difference(f"and {more:,} more {others}", more)


def _compare_names(present: set[str], manifest: Manifest) -> Iterator[Difference]:
    wanted = {*data_files(present), CARD, CROISSANT, LABELS_FILE, *manifest["files"]}
    notes = {LABELS_FILE: f"; older versions wrote no configuration {CONFIG}: convert again"}
    missing = [f"{name}: missing{notes.get(name, '')}" for name in sorted(wanted - present)]
    yield from _first(missing, "missing files")
    if not data_files(present):
        yield Difference("data: no Parquet file")
    yield from _first(
        [f"{name}: unexpected file" for name in sorted(present - wanted - {*FIGURES})], "unexpected files"
    )


def _compare_order(wanted: list[str], found: list[str]) -> Iterator[Difference]:
    place = {name: number for number, name in enumerate(wanted)}
    counts = Counter(found)
    yield from _first([f"{name}: missing row" for name in wanted if name not in counts], "missing rows")
    yield from _first([f"{name}: not in SOURCE" for name in counts if name not in place], "rows not in SOURCE")
    repeated = [f"{name}: {count} rows" for name, count in counts.items() if name in place and count > 1]
    yield from _first(repeated, "repeated rows")
    common = [name for name in found if name in place]
    pairs = [(before, after) for before, after in itertools.pairwise(common) if place[before] > place[after]]
    yield from _first([f"{after}: after {before}, in SOURCE before it" for before, after in pairs], "misplaced rows")


def _compare_checksums(
    output: Path, present: set[str], manifest: Manifest, objects: list[FileObject]
) -> Iterator[Difference]:
    """Compares files with the manifest, which a downloaded repository has not."""
    if not (output / MANIFEST).exists():
        yield Difference(f"no {MANIFEST}: figures and parts of the text of {CARD} are not checked", 0)
        return
    yield from (Difference(f"{MANIFEST}: line {number} is damaged") for number in manifest["damaged"])
    sha256s = {file.path: file.sha256 for file in objects}
    sha256s |= {name: sha256_of(output / name) for name in (CARD, CROISSANT, *FIGURES) if name in present}
    for name, sha256 in sha256s.items():
        if name not in manifest["files"]:
            yield Difference(f"{name}: not in {MANIFEST}")
        elif manifest["files"][name]["sha256"] != sha256:
            yield Difference(f"{name}: damaged or edited: its SHA-256 differs from that in {MANIFEST}")


def _compare_card(path: Path, measured: MeasuredDataset, has_labels: bool) -> Iterator[Difference]:
    """Compares the numbers in the header of the card with the data; other configurations than ours may be there."""
    if not path.is_file():
        return  # `_compare_names` has found it missing
    try:
        header = DatasetCard.load(path).data.to_dict()
    except Exception as error:  # YAML errors of many classes
        yield Difference(f"{path.name}: the header cannot be read: {one_line(error)}")
        return
    infos, configs = header.get("dataset_info"), header.get("configs")
    ours = [(DEFAULT, "dataset_info", dataset_info(measured), [{"split": "train", "path": DATA_FILES}])]
    ours += [(CONFIG, f"dataset_info.{CONFIG}", labels_info(measured), DATA_FILES_OF_LABELS)] * has_labels
    wanted: dict[str, Any] = {"size_categories": [size_category(measured.rows)]}
    found = {"size_categories": header.get("size_categories")}
    for name, key, info, files in ours:
        wanted |= {f"configs.{name}": {"config_name": name, "data_files": files}}
        wanted |= {f"{key}.{field}": value for field, value in info._to_yaml_dict().items()}
        found |= {f"configs.{name}": _configuration(configs, name)}
        found |= {f"{key}.{field}": value for field, value in _configuration(infos, name).items()}
    for key, value in wanted.items():
        if found.get(key) != value:
            yield Difference(f"{path.name}: {key} is {found.get(key)!r}, by the data {value!r}")


def _compare_sections(path: Path, wanted: str, may_be_published: bool) -> Iterator[Difference]:
    """Compares sections of the card with those that would be written now, figures aside; people may remove sections."""
    try:
        found = sections_of(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        yield Difference(f"{path.name}: the sections cannot be read: {one_line(error)}")
        return
    ignored = [FIGURE, *[LICENSE_LINE] * may_be_published]
    new = sections_of(wanted)
    for name in COMPARED_SECTIONS:
        if name in found and _words(found[name], ignored) != _words(new[name], ignored):
            yield Difference(f"{path.name}: the section `{name}` differs from SOURCE")


def _words(text: str, ignored: list[re.Pattern[str]]) -> list[str]:
    for pattern in ignored:
        text = pattern.sub("", text.replace("\r\n", "\n"))
    return text.split()


def _compare_description(
    path: Path, wanted: dict[str, Any], record_sets: list[dict[str, Any]], may_be_published: bool
) -> Iterator[Difference]:
    """Compares what `croissant.json` states of the dataset as a whole, and some of its record sets."""
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError:
        found = {}
    if not found or not isinstance(found, dict):
        return  # `_compare_names` or `_compare_croissant` has found it
    other = NOT_DESCRIBING | (PUBLISHING_CHANGES if may_be_published else set())
    for key in sorted({*wanted, *found} - other):
        if found.get(key) != wanted.get(key):
            yield Difference(f"{path.name}: {key} is {found.get(key)!r:.200}, by SOURCE {wanted.get(key)!r:.200}")
    present = found.get("recordSet")
    for one in record_sets:
        if not isinstance(present, list) or one not in present:
            yield Difference(f"{path.name}: the record set {one['name']} is missing, or differs from SOURCE")


def _configuration(configurations: Any, name: str) -> dict[str, Any]:
    """Returns one of several configurations, or the only one."""
    several = configurations if isinstance(configurations, list) else [configurations]
    dicts = [one for one in several if isinstance(one, dict)]
    return next((one for one in dicts if one.get("config_name", DEFAULT) == name), {})


def _compare_croissant(path: Path, objects: list[FileObject]) -> Iterator[Difference]:
    if not path.is_file():
        return
    try:
        described = {file.path: file for file in read_files(path.read_text(encoding="utf-8"))}
    except ValueError as error:
        yield Difference(f"{path.name}: cannot be read: {one_line(error)}")
        return
    missing = sorted(described.keys() - {file.path for file in objects})
    yield from _first([f"{path.name}: describes {name}, which is missing" for name in missing], "missing files")
    differing = [file.path for file in objects if described.get(file.path) != file]
    texts = [f"{path.name}: size or SHA-256 of {name} differ from the file's" for name in differing]
    yield from _first(texts, "differing files")
