"""Packs images, a generator's or real radiographs, and a CSV into a SOURCE for the other programs.

OUTPUT_SOURCE:
  metadata.csv                      file name, prompt, 14 raw labels and --columns, written last
  data/images-00000-of-000NN.zip    the images, byte for byte or resized
  provenance.json                   how the images were made, this step included
  dataset.json                      what the dataset is called; copied, if there is one
  .manifest.jsonl                   fingerprint and SHA-256 of each finished file

Images and CSV are checked before anything is written. Each file is written atomically. After an interruption run the
same command again: finished files are verified and kept, and the result is the same to the byte.
"""

from __future__ import annotations

import argparse
from pathlib import Path

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
from pipeline.pack.pack import pack
from pipeline.source_writer import FITS

EXAMPLES = """
examples:
  python scripts/pack_shards.py path/to/images path/to/prompts.csv path/to/release
  python scripts/pack_shards.py path/to/images path/to/prompts.csv path/to/small --size 256
  python scripts/pack_shards.py path/to/mimic path/to/test.csv path/to/real --size 512 --on-mismatch skip
"""


def main(arguments: list[str] | None = None) -> int:
    """Runs the program.

    Args:
        arguments: Of the command line. Default: those of this process.

    Returns:
        The exit code: 0, 1 after an error, 130 after Ctrl-C.
    """
    options = vars(parser().parse_args(arguments))
    return exit_code(lambda: pack(**options))


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    result = make_parser(main, EXAMPLES, pack)
    add = result.add_argument
    add("images", metavar="IMAGE_DIR", type=Path, help="folder with PNG and JPEG files, at any depth")
    add("metadata", metavar="METADATA_CSV", type=Path, help="CSV with file names, prompts and labels")
    add("output", metavar="OUTPUT_SOURCE", type=local_folder, help="folder for the result alone, created if needed")
    add_writing(add, "zip")
    resizing = "resize to this width and height (Lanczos, RGB, optimised PNG); default: copy files byte for byte"
    add("--size", type=positive, metavar="PIXELS", help=resizing)
    fitting = "with --size, of images that are not square: cut the ends off, add black bars, or distort (default: crop)"
    add("--fit", choices=FITS, help=fitting)
    kept = "further columns of the CSV to write, such as a patient's: all, none (default), or names separated by commas"
    add("--columns", type=column_names, metavar="NAMES", help=kept)
    add_on_mismatch(add)
    return result


if __name__ == "__main__":
    start(main)
