"""Packs images and a CSV into a SOURCE."""

from __future__ import annotations

import collections
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.columns import NONE, read_kept_columns
from pipeline.dataset_json import DATASET_JSON
from pipeline.errors import StepError
from pipeline.facts import read_facts
from pipeline.folder import Entry, OutputFolder, local_source
from pipeline.jobs import WorkerPool
from pipeline.progress import notice
from pipeline.provenance import new_step
from pipeline.shards import MAX_SHARD_SIZE
from pipeline.source_writer import FITS, METADATA, write_source
from synthchex_75k import Files, basename_of, file_info, kind_of, plan, read_csv, read_lines


def pack(
    images: Path,
    metadata: Path,
    output: Path,
    *,
    num_proc: int = 1,
    max_shard_size: int = MAX_SHARD_SIZE,
    size: int | None = None,
    fit: str | None = None,
    columns: tuple[str, ...] = NONE,
    on_mismatch: str = "error",
    overwrite: bool = False,
) -> None:
    """Packs images and a CSV, as far as they are not packed yet.

    Args:
        images: Folder with PNG and JPEG files, at any depth.
        metadata: The CSV, in any form that a SOURCE may have.
        output: The folder to write; created where it does not exist.
        num_proc: Processes that write.
        max_shard_size: Upper bound of a zip: bytes.
        size: Resize each image to this width and height, as a PNG: pixels. Default: copy each file byte for byte.
        fit: What to do then with images that are not square, one of `FITS`, as in `source_writer.resize`. Default: the
            first.
        columns: Further columns of the CSV to write, or `ALL` or `NONE`. They may hold what must not be passed on, such
            as the text of a report.
        on_mismatch: `"error"` or `"skip"`, as in `synthchex_75k.plan`.
        overwrite: Replace finished files of other images or other options.

    Raises:
        SourceError: Images or CSV, or a `dataset.json` or `provenance.json` beside them, cannot be used.
        StepError: The folder or a column cannot be used, or an image is larger than `max_shard_size`.
        OSError: A file cannot be read or written.
    """
    if not metadata.is_file():
        raise StepError(f"{metadata}: " + ("not a regular file" if metadata.exists() else "no such file"))
    if metadata.suffix.lower() != ".csv":
        raise StepError(f"{metadata}: rename it to *.csv")
    if not images.is_dir():
        raise StepError(f"{images}: " + ("not a folder" if images.exists() else "no such file or folder"))
    if fit and not size:
        raise StepError("--fit is for images that --size resizes; pass both")
    request: dict[str, Any] = {"images": local_source(images), "metadata": local_source(metadata)}
    request |= {"max_shard_size": max_shard_size, "size": size, "on_mismatch": on_mismatch}
    request |= {"fit": fit} if fit and fit != FITS[0] else {}  # folders that were finished before `fit` stay valid
    request |= {"columns": [*columns]} if columns != NONE else {}
    fit = fit or FITS[0]
    opened = OutputFolder(output, METADATA, request, overwrite, editable=(DATASET_JSON,))
    with opened as folder, WorkerPool(num_proc) as pool:
        with notice(f"checking {images} …"):
            files = _list_inputs(images, metadata)
            rows = plan(str(images), on_mismatch, files=files)
        left_out = len(files) - 1 - len(rows)  # without the CSV
        resized = {"size": [size, size], "fit": fit} if size else {}
        step = new_step("pack", images=len(rows), **resized, **({"left_out": left_out} if left_out else {}))
        beside = read_facts(rows, str(images), str(metadata.parent)).files_after(step)
        others = read_kept_columns(str(images), rows, columns, files)
        outcome = write_source(rows, folder, pool, max_shard_size, size, fit, beside=beside, others=others)
    zips, written = len(outcome.entries), len(outcome.written)
    megabytes = sum(entry["size"] for entry in outcome.written) / 1e6
    lines = [
        f"{output}: {len(rows):,} rows, zips: {zips}",
        *_describe_fit(outcome.entries, len(rows), fit),
        f"{written} written ({megabytes:,.1f} MB in {outcome.seconds:.1f} s), {zips - written} already up to date",
        f"load: synthchex_75k.load({str(output)!r})",
    ]
    print("\n".join(lines))


def _describe_fit(entries: list[Entry], rows: int, fit: str) -> list[str]:
    """Returns a line about the images that were not square, if there are any."""
    count, lost = (sum(entry.get(key, 0) for entry in entries) for key in ("not_square", "lost"))
    if not count:
        return []
    share = lost / count
    what = {
        "crop": f"cropped; of their pixels {share:.1%} were cut off on average",
        "pad": f"padded; black bars are {share:.1%} of their pixels on average",
        "stretch": f"stretched; their longer side shrank by {share:.1%} more than the other on average",
    }
    return [f"{count:,} of {rows:,} images were not square and were {what[fit]}"]


def _list_inputs(images: Path, metadata: Path) -> Files:
    """Lists the images of a folder and the CSV, as `synthchex_75k.plan` takes them.

    Only images that the CSV names are looked at, for a CSV can name a few of very many. The others share an entry.
    """
    info = file_info(str(metadata.absolute()))
    tables: dict[str, dict[str, Any]] = {}
    with open(metadata, "rb") as file:  # `plan` reads it again, for its problems
        read_csv(str(metadata), read_lines(file, info["size"]), tables, collections.defaultdict(list))
    named = {*next(iter(tables.values()), {})}
    unread = {"name": str(images), "type": "file", "size": None}
    found = {
        name: file_info(os.path.abspath(images / name)) if basename_of(name) in named else unread
        for name in sorted(_walk(images))
    }
    if not found:
        raise StepError(f"{images}: no image (.png, .jpg or .jpeg) at any depth")
    return found | {str(metadata): info}


def _walk(folder: Path) -> Iterator[str]:
    """Yields the relative path of each image in a folder, at any depth, without a look at the file."""
    folders = [""]
    while folders:
        below = folders.pop()
        with os.scandir(os.path.join(folder, below)) as entries:
            for entry in entries:
                name = below + entry.name
                if entry.is_dir(follow_symlinks=False):
                    folders.append(f"{name}/")
                elif kind_of(name) == "image":
                    yield name
