"""Writes the images that a quality filter keeps as a new SOURCE."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from pipeline.columns import read_kept_columns
from pipeline.dataset_json import DATASET_JSON
from pipeline.errors import StepError, counted, listing
from pipeline.facts import read_facts
from pipeline.folder import OutputFolder, local_source
from pipeline.jobs import WorkerPool
from pipeline.provenance import Step, new_step
from pipeline.quality.answers import DROPPED, UNPARSED
from pipeline.quality.labels_csv import QualityLabel, check_belongs, read_labels, read_meta_prompt
from pipeline.quality.report import count_by_label
from pipeline.rows import plan
from pipeline.shards import MAX_SHARD_SIZE
from pipeline.source_writer import METADATA, write_source
from pipeline.table import text_table
from synthchex_75k import Row


def apply(
    source: str,
    labels_csv: Path,
    output: Path,
    *,
    drop: tuple[str, ...] = DROPPED,
    unparsed: str = "error",
    num_proc: int = 1,
    max_shard_size: int = MAX_SHARD_SIZE,
    on_mismatch: str = "error",
    overwrite: bool = False,
) -> None:
    """Writes the images that are kept as a new SOURCE, byte for byte, and prints what was dropped.

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
        SourceError: The source, or its `dataset.json` or `provenance.json`, cannot be used.
        StepError: A label is missing or `UNPARSED`, no image is left, or the folder cannot be used.
        OSError: A file cannot be read or written.
    """
    labels, meta_prompt = read_labels(labels_csv), read_meta_prompt(labels_csv)
    request: dict[str, Any] = {"source": local_source(source), "labels_csv": local_source(labels_csv), "drop": [*drop]}
    request |= {"unparsed": unparsed, "max_shard_size": max_shard_size, "on_mismatch": on_mismatch}
    dropped = {*drop, *([UNPARSED] if unparsed == "drop" else [])}
    opened = OutputFolder(output, METADATA, request, overwrite, editable=(DATASET_JSON,))
    with opened as folder, WorkerPool(num_proc) as pool:
        rows = plan(source, on_mismatch)
        check_belongs(labels, rows, labels_csv)
        qualities = {label.filename: label.quality for label in labels}
        _check_labels(rows, qualities, unparsed)
        kept = [row for row in rows if qualities[row.filename] not in dropped]
        if not kept:
            raise StepError(f"{source}: no image is left; nothing was written")
        counts = count_by_label(rows, labels)
        step = _filter_step(labels, counts, meta_prompt, drop=[*drop], unparsed=unparsed)
        beside, others = read_facts(rows, source).files_after(step), read_kept_columns(source, kept)
        outcome = write_source(kept, folder, pool, max_shard_size, beside=beside, others=others)
    print(f"{output}: {len(kept):,} of {len(rows):,} images kept, zips: {len(outcome.entries)}")
    print(_describe_dropped(counts, sorted(dropped)))


def _check_labels(rows: list[Row], qualities: dict[str, str], unparsed: str) -> None:
    """Checks that each row has a label, and unless `unparsed` says what to do with the others, a quality."""
    _fail_if_any(
        [row for row in rows if row.filename not in qualities], "without a label; run `filter_quality.py label` again"
    )
    if unparsed == "error":
        _fail_if_any(
            [row for row in rows if qualities[row.filename] == UNPARSED],
            "whose answer names no quality; look at them, then pass --unparsed drop or keep",
        )


def _fail_if_any(rows: list[Row], problem: str) -> None:
    if rows:
        raise StepError(f"{counted(len(rows), 'image')} {problem}: {listing([row.filename for row in rows])}")


def _filter_step(
    labels: list[QualityLabel], counts: dict[str, Counter[str]], meta_prompt: str | None, drop: list[str], unparsed: str
) -> Step:
    """Returns the step of `provenance.json`; it has no times, so that a rerun writes the same bytes."""
    dropped = [*drop, *([UNPARSED] if unparsed == "drop" else [])]
    by_label = {name: sum(by[quality] for quality in dropped) for name, by in counts.items()}
    total, lost = counts["All images"].total(), by_label.pop("All images")
    models = sorted({_public_name(label.model) for label in labels})
    judge = {"model": models[0] if len(models) == 1 else models, "meta_prompt": meta_prompt}
    return new_step(
        "filter",
        **{name: value for name, value in judge.items() if value},
        drop=drop,
        unparsed=unparsed,
        total=total,
        kept=total - lost,
        dropped_by_quality={quality: counts["All images"][quality] for quality in dropped},
        dropped_by_label=by_label,
    )


def _public_name(model: str) -> str:
    """Returns the name of a model; of a folder on this machine, only the last part.

    Example:
        >>> _public_name("org/judge"), _public_name("path/to/judge/")
        ('org/judge', 'judge')
    """
    parts = [part for part in model.replace("\\", "/").split("/") if part]
    is_path = len(parts) > 2 or model.startswith(("/", ".", "~")) or "\\" in model
    return parts[-1] if is_path and parts else model


def _describe_dropped(counts: dict[str, Counter[str]], dropped: list[str]) -> str:
    """Returns the numbers of images that were dropped, by quality and by label."""
    all_images = counts["All images"]
    by_quality = "dropped: " + ", ".join(f"{name} {all_images[name]:,}" for name in dropped)
    lines = [["", "dropped", "of", "share"]]
    for name, by in counts.items():
        lost, total = sum(by[quality] for quality in dropped), by.total()
        lines.append([name, f"{lost:,}", f"{total:,}", f"{lost / total:.1%}" if total else ""])
    return f"{by_quality}\n{text_table(lines)}"
