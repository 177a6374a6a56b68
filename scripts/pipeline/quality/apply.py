"""Writes the images that a quality filter keeps as a new SOURCE."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.errors import StepError, counted, listing
from pipeline.folder import OutputFolder, local_source
from pipeline.jobs import WorkerPool
from pipeline.quality.answers import DROPPED, UNPARSED
from pipeline.quality.labels import QualityLabel, check_belongs, read_labels
from pipeline.quality.report import count_by_label
from pipeline.rows import plan
from pipeline.shards import MAX_SHARD_SIZE
from pipeline.source_writer import METADATA, write_source
from synthchex_75k import LABELS, Row


def apply(
    source: str,
    labels_csv: Path,
    output: Path,
    drop: tuple[str, ...] = DROPPED,
    unparsed: str = "error",
    num_proc: int = 1,
    max_shard_size: int = MAX_SHARD_SIZE,
    on_mismatch: str = "error",
    overwrite: bool = False,
) -> None:
    """Writes the images that are kept as a new source, byte for byte, and prints what was dropped.

    Args:
        source: The SOURCE.
        labels_csv: A label for each of its images.
        output: Folder of the new SOURCE.
        drop: Qualities to leave out, of `QUALITIES`.
        unparsed: What to do with images whose answer names no quality: `"error"`, `"drop"` or `"keep"`.
        num_proc: Processes that write.
        max_shard_size: Upper bound of a zip: bytes.
        on_mismatch: `"error"` or `"skip"`, as in `synthchex_75k.plan`.
        overwrite: Replace finished files of another source or other options.

    Raises:
        SourceError: The source cannot be used.
        StepError: A label is missing or `UNPARSED`, no image is left, or the folder cannot be used.
        OSError: A file cannot be read or written.
    """
    request: dict[str, Any] = {"source": local_source(source), "labels_csv": local_source(labels_csv), "drop": [*drop]}
    request |= {"unparsed": unparsed, "max_shard_size": max_shard_size, "on_mismatch": on_mismatch}
    folder = OutputFolder(output, METADATA, request, overwrite)
    labels = read_labels(labels_csv)
    with WorkerPool(num_proc) as pool:
        rows = plan(source, on_mismatch)
        check_belongs(labels, rows, labels_csv)
        quality = {label.filename: label.quality for label in labels}
        unlabelled = [row for row in rows if row.filename not in quality]
        _fail_if_any(unlabelled, "without a label; run `filter_quality.py label` again")
        if unparsed == "error":
            names_no_quality = [row for row in rows if quality[row.filename] == UNPARSED]
            _fail_if_any(
                names_no_quality, "whose answer names no quality; look at them, then pass --unparsed drop or keep"
            )
        dropped = {*drop, *([UNPARSED] if unparsed == "drop" else [])}
        kept = [row for row in rows if quality[row.filename] not in dropped]
        if not kept:
            raise StepError(f"{source}: no image is left; nothing was written")
        entries, _ = write_source(kept, folder, pool, max_shard_size)
    print(f"{output}: {len(kept):,} of {len(rows):,} images kept, zips: {len(entries)}")
    print(_describe_dropped(rows, labels, dropped))


def _fail_if_any(rows: list[Row], problem: str) -> None:
    if rows:
        raise StepError(f"{counted(len(rows), 'image')} {problem}: {listing([row.filename for row in rows])}")


def _describe_dropped(rows: list[Row], labels: list[QualityLabel], dropped: set[str]) -> str:
    """Returns the numbers of images that were dropped, by quality and by label."""
    counts = count_by_label(rows, labels)
    by_quality = counts["All images"]
    lines = ["dropped: " + ", ".join(f"{name} {by_quality[name]:,}" for name in sorted(dropped))]
    for name in ("All images", *LABELS):
        lost, total = sum(counts[name][quality] for quality in dropped), counts[name].total()
        share = f"{lost / total:.1%}" if total else ""
        lines.append(f"  {name:28}{lost:>8,} of {total:>8,}{share:>8}")
    return "\n".join(lines)
