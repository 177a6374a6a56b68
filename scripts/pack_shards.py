"""Packs a generator's output, a folder of PNG files and a CSV, into a SOURCE for the other programs.

    OUTPUT_SOURCE/metadata.csv                      filename, prompt, 14 raw labels; it is there when all the rest is
    OUTPUT_SOURCE/data/images-00000-of-000NN.zip    the images, stored as they are or resized

A file appears under its name when it is complete and on the disk. After any interruption run the same command again:
finished files are recognised, and the result is the same to the byte.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for a clone in which nothing is installed

from _jobs import Jobs
from _source import write_source
from _steps import StepError, add_on_mismatch, add_sharding, end_at_sigterm, exit_code, local_folder, positive

import synthchex_75k

EXAMPLES = """
examples:
  python scripts/pack_shards.py path/to/images path/to/prompts.csv path/to/release
  python scripts/pack_shards.py path/to/images path/to/prompts.csv path/to/release --size 512
"""


def pack(
    images: Path,
    metadata: Path,
    output: Path,
    num_proc: int,
    max_shard_size: int = 500_000_000,
    size: int | None = None,
    on_mismatch: str = "error",
) -> None:
    """Packs images and a CSV, or what of them is not packed yet.

    Args:
        images: Folder with PNG files, at any depth.
        metadata: The CSV, in any form that a SOURCE may have.
        output: The folder to write; made if it is not there.
        num_proc: Processes that write.
        max_shard_size: Upper bound of a zip: bytes.
        size: Resize each image to so many pixels each way. Default: leave the bytes as they are.
        on_mismatch: `"error"` or `"skip"`, as in `synthchex_75k.plan`.

    Raises:
        SourceError: Images or CSV cannot be used.
        StepError: The folder cannot be used, or an image is larger than `max_shard_size`.
        OSError: Something could not be read or written.
    """
    start = time.monotonic()
    if not metadata.is_file() or metadata.suffix.lower() != ".csv":
        raise StepError(f"{metadata}: " + ("name it *.csv" if metadata.is_file() else "no such file"))
    listed = synthchex_75k.list_files(str(images))
    files = {name: info for name, info in listed.items() if name.lower().endswith(".png")}
    files[str(metadata)] = {"name": str(metadata.absolute()), "size": metadata.stat().st_size}
    with Jobs(num_proc) as jobs:
        rows = synthchex_75k.plan(str(images), on_mismatch, files=files)
        written = write_source(rows, output, jobs, max_shard_size, size)
    seconds = time.monotonic() - start
    print(
        f"{output}: {len(rows):,} rows, zips: {written.shards}; "
        f"{written.new} written ({written.num_bytes / 1e6:,.1f} MB in {seconds:.1f} s), "
        f"{written.shards - written.new} were there\n"
        f"load: synthchex_75k.load({str(output)!r})"
    )


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
    about, layout = str(__doc__).split("\n\n", 1)
    result = argparse.ArgumentParser(
        description=about, epilog=layout + EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = result.add_argument
    add("images", metavar="IMAGE_DIR", type=Path, help="folder with PNG files, at any depth")
    add("metadata", metavar="METADATA_CSV", type=Path, help="CSV with file names, prompts and labels; see README")
    add("output", metavar="OUTPUT_SOURCE", type=local_folder, help="a folder of its own, made if it is not there")
    add_sharding(add, "zip")
    add("--size", type=positive, metavar="PIXELS", help="resize to so many pixels each way: Lanczos, RGB, optimised")
    add_on_mismatch(add)
    return result


if __name__ == "__main__":
    end_at_sigterm()
    sys.exit(main())
