"""Packs images and a CSV into a SOURCE."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.dataset_json import DATASET_JSON
from pipeline.errors import StepError, counted
from pipeline.facts import read_facts
from pipeline.folder import OutputFolder, local_source
from pipeline.jobs import WorkerPool
from pipeline.progress import notice
from pipeline.provenance import new_step
from pipeline.shards import MAX_SHARD_SIZE
from pipeline.source_writer import METADATA, write_source
from synthchex_75k import Files, file_info, list_files, plan


def pack(
    images: Path,
    metadata: Path,
    output: Path,
    *,
    num_proc: int = 1,
    max_shard_size: int = MAX_SHARD_SIZE,
    size: int | None = None,
    on_mismatch: str = "error",
    overwrite: bool = False,
) -> None:
    """Packs images and a CSV, as far as they are not packed yet.

    Args:
        images: Folder with PNG files, at any depth.
        metadata: The CSV, in any form that a SOURCE may have.
        output: The folder to write; created where it does not exist.
        num_proc: Processes that write.
        max_shard_size: Upper bound of a zip: bytes.
        size: Resize each image to this width and height: pixels. Default: copy each file byte for byte.
        on_mismatch: `"error"` or `"skip"`, as in `synthchex_75k.plan`.
        overwrite: Replace finished files of other images or other options.

    Raises:
        SourceError: Images or CSV, or a `dataset.json` or `provenance.json` beside them, cannot be used.
        StepError: The folder cannot be used, or an image is larger than `max_shard_size`.
        OSError: A file cannot be read or written.
    """
    if not metadata.is_file() or metadata.suffix.lower() != ".csv":
        raise StepError(f"{metadata}: " + ("rename it to *.csv" if metadata.is_file() else "no such file"))
    request: dict[str, Any] = {"images": local_source(images), "metadata": local_source(metadata)}
    request |= {"max_shard_size": max_shard_size, "size": size, "on_mismatch": on_mismatch}
    opened = OutputFolder(output, METADATA, request, overwrite, editable=[DATASET_JSON])
    with opened as folder, WorkerPool(num_proc) as pool:
        with notice(f"checking {images} …"):
            files = _list_inputs(images, metadata)
            rows = plan(str(images), on_mismatch, files=files)
        left_out = len(files) - 1 - len(rows)  # without the CSV
        fields = {"size": [size, size] if size else None, "fit": request.get("fit"), "left_out": left_out}
        step = new_step("pack", images=len(rows), **{name: value for name, value in fields.items() if value})
        beside = read_facts(rows, str(images), str(metadata.parent)).files_after(step)
        outcome = write_source(rows, folder, pool, max_shard_size, size, beside=beside)
    zips, written = len(outcome.entries), len(outcome.written)
    megabytes = sum(entry["size"] for entry in outcome.written) / 1e6
    print(
        f"{output}: {len(rows):,} rows, zips: {zips}\n"
        f"{written} written ({megabytes:,.1f} MB in {outcome.seconds:.1f} s), {zips - written} already up to date\n"
        f"load: synthchex_75k.load({str(output)!r})"
    )


def _list_inputs(images: Path, metadata: Path) -> Files:
    """Lists the PNG files of a folder and the CSV, as `synthchex_75k.plan` takes them."""
    files = {name: info for name, info in list_files(str(images)).items() if name.lower().endswith(".png")}
    if not files:
        jpegs = sum(path.suffix.lower() in (".jpg", ".jpeg") for path in images.rglob("*"))
        found = f", but {counted(jpegs, 'JPEG file')}; convert them to PNG first" if jpegs else " at any depth"
        raise StepError(f"{images}: no PNG file{found}")
    return files | {str(metadata): file_info(str(metadata.absolute()))}
