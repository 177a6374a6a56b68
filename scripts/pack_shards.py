"""Packs a generator's output, a folder of PNG files and a CSV, into a SOURCE for the other programs.

OUTPUT_SOURCE:
  metadata.csv                      file name, prompt and 14 raw labels, written last
  data/images-00000-of-000NN.zip    the images, byte for byte or resized
  .manifest.jsonl                   fingerprint and SHA-256 of each finished file

Images and CSV are checked before anything is written. Each file is written atomically. After an interruption run the
same command again: finished files are verified and kept, and the result is the same to the byte.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.cli import add_on_mismatch, add_writing, exit_code, local_folder, make_parser, positive, start
from pipeline.errors import StepError, counted
from pipeline.folder import OutputFolder, local_source
from pipeline.jobs import WorkerPool
from pipeline.progress import notice
from pipeline.shards import MAX_SHARD_SIZE
from pipeline.source_writer import METADATA, write_source
from synthchex_75k import Files, list_files, plan

EXAMPLES = """
examples:
  python scripts/pack_shards.py path/to/images path/to/prompts.csv path/to/release
  python scripts/pack_shards.py path/to/images path/to/prompts.csv path/to/small --size 256
"""


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
        SourceError: Images or CSV cannot be used.
        StepError: The folder cannot be used, or an image is larger than `max_shard_size`.
        OSError: A file cannot be read or written.
    """
    if not metadata.is_file() or metadata.suffix.lower() != ".csv":
        raise StepError(f"{metadata}: " + ("rename it to *.csv" if metadata.is_file() else "no such file"))
    request = {"images": local_source(images), "metadata": local_source(metadata), "max_shard_size": max_shard_size}
    folder = OutputFolder(output, METADATA, request | {"size": size, "on_mismatch": on_mismatch}, overwrite)
    with WorkerPool(num_proc) as pool:
        with notice(f"checking {images} …"):
            rows = plan(str(images), on_mismatch, files=_list_inputs(images, metadata))
        entries, written, seconds = write_source(rows, folder, pool, max_shard_size, size)
    print(
        f"{output}: {len(rows):,} rows, zips: {len(entries)}\n"
        f"{len(written)} written ({sum(entry['size'] for entry in written) / 1e6:,.1f} MB in {seconds:.1f} s), "
        f"{len(entries) - len(written)} already up to date\n"
        f"load: synthchex_75k.load({str(output)!r})"
    )


def _list_inputs(images: Path, metadata: Path) -> Files:
    """Lists the PNG files of a folder and the CSV, as `synthchex_75k.plan` takes them."""
    files = {name: info for name, info in list_files(str(images)).items() if name.lower().endswith(".png")}
    if not files:
        jpegs = sum(path.suffix.lower() in (".jpg", ".jpeg") for path in images.rglob("*"))
        found = f", but {counted(jpegs, 'JPEG file')}; convert them to PNG first" if jpegs else " at any depth"
        raise StepError(f"{images}: no PNG file{found}")
    return files | {str(metadata): {"name": str(metadata.absolute()), "size": metadata.stat().st_size}}


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
    result = make_parser(__doc__, EXAMPLES, pack)
    add = result.add_argument
    add("images", metavar="IMAGE_DIR", type=Path, help="folder with PNG files, at any depth")
    add("metadata", metavar="METADATA_CSV", type=Path, help="CSV with file names, prompts and labels")
    add("output", metavar="OUTPUT_SOURCE", type=local_folder, help="folder for the result alone, created if needed")
    add_writing(add, "zip")
    resizing = "resize to this width and height (Lanczos, RGB, optimised PNG); default: copy files byte for byte"
    add("--size", type=positive, metavar="PIXELS", help=resizing)
    add_on_mismatch(add)
    return result


if __name__ == "__main__":
    start(main)
