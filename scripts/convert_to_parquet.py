"""Converts a SOURCE to a folder that is a complete Parquet dataset repository, and publishes it.

OUTPUT_DIR:
  README.md                            the dataset card, written last
  croissant.json                       a machine-readable description
  figures/labels.png, examples.png     the figures of the card, if matplotlib is installed
  labels/train-00000-of-00001.parquet  the rows without images, with a column for each label
  data/train-00000-of-000NN.parquet    the rows of `synthchex_75k.load` in their order, each image byte for byte
  .manifest.jsonl                      fingerprint and SHA-256 of each finished file; not published

What the card states is measured, or comes from dataset.json and provenance.json in SOURCE; what they lack is asked for
by name. The source is checked before anything is written. Each file is written atomically. After an interruption run
the same command again: finished files are verified and kept, and the result is the same to the byte.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from pipeline.cli import (
    add_on_mismatch,
    add_writing,
    column_names,
    exit_code,
    local_folder,
    make_parser,
    positive,
    start,
)
from pipeline.errors import listing
from pipeline.hub import check_repo_id
from pipeline.jobs import WorkerPool
from pipeline.parquet.convert import Converted, convert
from pipeline.parquet.labels import OPTION
from pipeline.parquet.publish import MAIN, Target, check, publish
from pipeline.parquet.verify import differences
from pipeline.progress import write_line
from pipeline.table import csv_bytes
from synthchex_75k import UNCERTAINTY

EXAMPLES = """
examples:
  python scripts/convert_to_parquet.py path/to/release path/to/parquet
  python scripts/convert_to_parquet.py path/to/release path/to/parquet --verify
  python scripts/convert_to_parquet.py hf://datasets/raman07/SynthCheX-75K path/to/parquet --uncertainty zeros
  python scripts/convert_to_parquet.py path/to/release path/to/parquet --push-to-hub USER/NAME --dry-run
"""
TARGET_OPTIONS = ("create_pr", "private", "revision", "commit_message", "replace_card")


def main(arguments: list[str] | None = None) -> int:
    """Runs the program.

    Args:
        arguments: Of the command line. Default: those of this process.

    Returns:
        The exit code: 0; 1 after an error, or where `--verify` found a difference; 130 after Ctrl-C.
    """
    options = read_arguments(arguments)
    compares, target, dry_run = (options.pop(name) for name in ("verify", "target", "dry_run"))

    def step() -> int:
        if compares:
            return verify(**options)
        if target:
            check(target)
        with convert(**options) as done:
            report(done, **options)
            if target:
                publish(options["output"], target, dry_run)
        return 0

    return exit_code(step)


def report(done: Converted, source: str, output: Path, uncertainty: str, on_mismatch: str, **more: Any) -> None:
    """Prints the result of a conversion, and the commands that load and verify it."""
    again = [sys.executable, __file__, source, str(output), "--verify", "--uncertainty", uncertainty]
    if more["labels_columns"] is not None:
        again += [OPTION, _as_csv(more["labels_columns"])]
    columns = f" and {listing(done.columns, 20, ', ')}" if done.columns else ""
    speed = f" in {done.seconds:.1f} s, {done.new_bytes / 1e6 / done.seconds:,.0f} MB/s" if done.new_files else ""
    print(
        f"{output}: {done.rows:,} rows, {done.num_bytes / 1e6:,.1f} MB, Parquet files: {done.files}\n"
        f"{done.new_files} written ({done.new_bytes / 1e6:,.1f} MB{speed}), "
        f"{done.files - done.new_files} already up to date\n"
        f"configuration labels: {done.labels / 1e6:,.1f} MB, with 14 labels{columns}\n"
        f'load:   datasets.load_dataset({str(output)!r}, split="train")\n'
        f"verify: {shlex.join([*again, '--on-mismatch', on_mismatch])}"
    )


def verify(source: str, output: Path, num_proc: int, uncertainty: str, on_mismatch: str, **more: Any) -> int:
    """Prints how the folder differs from the source, and returns the exit code."""
    count = 0
    with WorkerPool(num_proc) as pool:
        for difference in differences(source, output, uncertainty, on_mismatch, pool, more["labels_columns"]):
            write_line(difference.text)
            count += difference.number
    print(f"differences: {count:,}" if count else "no difference")
    return min(count, 1)


def read_arguments(arguments: list[str] | None) -> dict[str, Any]:
    """Reads the command line, and checks its options together.

    Returns:
        The parameters of `convert`, and `verify`, `dry_run` and `target`, which is None without --push-to-hub.
    """
    arguments_parser = parser()
    options = vars(arguments_parser.parse_args(arguments))
    repo_id = options.pop("push_to_hub")
    target = Target(repo_id or "", **{name: options.pop(name) for name in TARGET_OPTIONS})
    if not repo_id and (target != Target("") or options["dry_run"]):
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in TARGET_OPTIONS)
        arguments_parser.error(f"{flags} and --dry-run require --push-to-hub")
    if repo_id and options["verify"]:
        arguments_parser.error("--verify writes nothing and excludes --push-to-hub")
    if target.create_pr and target.revision != MAIN:
        arguments_parser.error("--create-pr makes a branch of its own and excludes --revision")
    return {**options, "target": target if repo_id else None, "is_published": bool(repo_id)}


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    result = make_parser(main, EXAMPLES, convert)
    add = result.add_argument
    add("source", metavar="SOURCE", help="folder or archive, or address: hf://datasets/USER/NAME@REVISION, https://…")
    add("output", metavar="OUTPUT_DIR", type=local_folder, help="folder for the result alone, created if needed")
    add_writing(add, "Parquet file")
    add("--rows-per-group", type=positive, help="upper bound of the rows of a row group, which also has at most 64 MiB")
    add("--uncertainty", choices=UNCERTAINTY, help="label policy: raw (keep), U-Zeros or U-Ones")
    add_on_mismatch(add)
    add("--figures", action=argparse.BooleanOptionalAction, help="draw the figures of the card; needs matplotlib")
    add(
        OPTION,
        type=column_names,
        metavar="NAMES",
        help="further columns of the metadata CSV in the configuration labels: all (default, if it is not published), "
        "none, or names separated by commas",
    )
    add(
        "--verify", action="store_true", help="write nothing; compare OUTPUT_DIR with SOURCE byte for byte; exit 0 or 1"
    )
    add = result.add_argument_group(
        "publish",
        "The token is that of `hf auth login` or of HF_TOKEN. One commit adds new files and removes Parquet files, a "
        "loading script and its archives that are replaced. License, name and text that people wrote in the card stay.",
    ).add_argument
    add("--push-to-hub", type=repo_id, metavar="USER/NAME", help="then publish OUTPUT_DIR as this dataset repository")
    add("--create-pr", action="store_true", help="open a pull request")
    add("--private", action="store_true", help="make a new repository private")
    add("--revision", default=MAIN, metavar="BRANCH", help="branch, or refs/pr/N")
    add("--commit-message", metavar="TEXT", help='default: "Publish as Parquet: N files"')
    add("--replace-card", action="store_true", help="replace the published card, its license and text included")
    add("--dry-run", action="store_true", help="convert, then only print the commit and the changes of the card")
    return result


def _as_csv(names: tuple[str, ...]) -> str:
    return csv_bytes([names]).decode().rstrip("\n")


def repo_id(text: str) -> str:
    """Reads the name of a repository."""
    try:
        return check_repo_id(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


if __name__ == "__main__":
    start(main)
