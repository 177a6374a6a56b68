"""Converts a SOURCE to a folder that is a complete Parquet dataset repository: data files and a dataset card.

    OUTPUT_DIR/README.md                            the card; it is there when all the rest is
    OUTPUT_DIR/croissant.json, figures/*.png        the same for machines, and the pictures of the card
    OUTPUT_DIR/data/train-00000-of-000NN.parquet    the rows of `synthchex_75k.load` in its order, images untouched

A file appears under its name when it is complete and on the disk. After any interruption run the same command again:
finished files are recognised by what they say of themselves, and the result is the same to the byte.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import shlex
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for a clone in which nothing is installed

import pyarrow as pa
from _checksum import is_intact, sealed, sha256_of
from _croissant import CROISSANT, FileObject, write_croissant
from _figures import FIGURES, Drawing, Figure, count_positive, draw, evenly_spaced
from _files import INCOMPLETE, appearing
from _jobs import Jobs
from _parquet_card import CARD, files_beside, show, write_card
from _parquet_shard import Shard, read_footer, row_size, sha256_if_finished, write_shard
from _parquet_verify import differences
from _publish import MAIN, Target, check, publish
from _shards import cut, write_missing
from _steps import StepError, add_on_mismatch, add_sharding, end_at_sigterm, exit_code, local_folder, positive, read
from huggingface_hub.utils import HFValidationError, validate_repo_id
from tqdm import tqdm

import synthchex_75k
from synthchex_75k import UNCERTAINTY, Row

OLDEST_PYARROW = 21  # which brought content-defined chunking
DATA_FILE = re.compile(r"train-\d{5}-of-\d{5}\.parquet")
EXAMPLES = """
examples:
  python scripts/convert_to_parquet.py path/to/release path/to/parquet
  python scripts/convert_to_parquet.py path/to/release path/to/parquet --verify
  python scripts/convert_to_parquet.py hf://datasets/raman07/SynthCheX-75K path/to/parquet --uncertainty keep
  python scripts/convert_to_parquet.py path/to/release path/to/parquet --push-to-hub USER/NAME --dry-run
"""


def convert(
    source: str,
    output: Path,
    num_proc: int,
    max_shard_size: int = 500_000_000,
    rows_per_group: int = 100,
    uncertainty: str = "zeros",
    on_mismatch: str = "error",
    figures: bool = True,
) -> None:
    """Converts a source, or what of it is not converted yet.

    Args:
        source: The SOURCE, as in `synthchex_75k.plan`.
        output: The folder; made if it is not there.
        num_proc: Processes that write.
        max_shard_size: Upper bound of a Parquet file: bytes.
        rows_per_group: Upper bound of the rows of a row group.
        uncertainty: Label policy, a key of `synthchex_75k.UNCERTAINTY`.
        on_mismatch: `"error"` or `"skip"`, as in `synthchex_75k.plan`.
        figures: Draw the pictures of the card.

    Raises:
        SourceError: The source, or an image in it, cannot be used.
        StepError: The folder cannot be used, or a row is larger than `max_shard_size`.
        _jobs.WorkerDiedError: A process that wrote was killed.
        OSError: Something could not be read or written.
    """
    if int(pa.__version__.split(".")[0]) < OLDEST_PYARROW:
        raise StepError(f"pyarrow {pa.__version__} is too old: pip install -U 'pyarrow>={OLDEST_PYARROW}'")
    if figures and not importlib.util.find_spec("matplotlib"):
        raise StepError("the pictures of the card take matplotlib: pip install matplotlib, or pass --no-figures")
    start = time.monotonic()
    found = look_at(output)
    with Jobs(num_proc) as jobs:
        rows = synthchex_75k.plan(source, on_mismatch)
        shown_row = show(next(read(rows[:1], uncertainty))[1])
        pictures = draw_figures(jobs, rows, uncertainty) if figures else []
        shards = cut_shards(rows, output / "data", max_shard_size, rows_per_group, uncertainty)
        wanted = {output / name for name in (CARD, CROISSANT, *(picture.path for picture in pictures))}
        sums, todo = write_missing(
            *(jobs, output, shards, found.parquet, found.leftovers, found.beside - wanted, output / CARD),
            *(sha256_if_finished, write_shard, "Converting"),
        )
    files = [FileObject(shard.path.name, shard.path.stat().st_size, sums[shard.path]) for shard in shards]
    num_bytes = sum(read_footer(shard.path)["num_bytes"] for shard in shards)
    described = write_croissant(len(rows), files, uncertainty).encode()
    beside = {CROISSANT: described, **{picture.path: picture.png for picture in pictures}}
    sizes = [file.size for file in files]
    save_beside(output, beside, write_card(len(rows), num_bytes, sizes, uncertainty, shown_row, pictures, beside))
    seconds, written = time.monotonic() - start, sum(shard.path.stat().st_size for shard in todo)
    policies = ["--uncertainty", uncertainty, "--on-mismatch", on_mismatch]
    print(
        f"{output}: {len(rows):,} rows, {sum(sizes) / 1e6:,.1f} MB, Parquet files: {len(shards)}\n"
        f"{len(todo)} written ({written / 1e6:,.1f} MB in {seconds:.1f} s, {written / 1e6 / seconds:,.0f} MB/s), "
        f"{len(shards) - len(todo)} were there\n"
        f'load:   datasets.load_dataset({str(output)!r}, split="train")\n'
        f"verify: python {shlex.join([__file__, source, str(output), '--verify', *policies])}"
    )


def draw_figures(jobs: Jobs, rows: list[Row], uncertainty: str) -> list[Figure]:
    """Draws the pictures of the card, in a worker: what draws takes memory that this process need not have."""
    shown = [example for _, example in read([rows[place] for place in evenly_spaced(len(rows))], uncertainty)]
    drawing = Drawing(len(rows), count_positive(rows, uncertainty), shown)
    return [picture for _, drawn in jobs.run(draw, [drawing], "Drawing", 0, 0) for picture in drawn]


# Before: what is there, what is to be written


class Found(NamedTuple):
    """What is in the folder already: Parquet files, what lies beside them, what an interrupted run has left."""

    parquet: set[Path]
    beside: set[Path]
    leftovers: list[Path]


def look_at(output: Path) -> Found:
    """Looks at what is in the folder already.

    Args:
        output: The folder.

    Returns:
        What conversions have written there.

    Raises:
        StepError: The folder holds anything else that is not hidden, or is named as the loading script.
    """
    if output.resolve().name.lower() == "synthchex_75k":
        raise StepError(
            f"{output}: name it otherwise: beside a synthchex_75k.py, `datasets` 4 and later load no synthchex_75k"
        )
    if not output.is_dir():
        if output.exists():
            raise StepError(f"{output} is a file; name a folder")
        return Found(set(), set(), [])
    folders = [folder for folder in (output / "data", output / "figures") if folder.is_dir()]
    entries = [path for folder in (output, *folders) for path in folder.iterdir() if path not in folders]
    leftovers = [path for path in entries if INCOMPLETE.fullmatch(path.name)]
    visible = {path for path in entries if not path.name.startswith(".")}
    in_data = {path for path in visible if path.parent == output / "data"}
    parquet = {path for path in in_data if DATA_FILE.fullmatch(path.name) and read_footer(path)}
    beside = {path for path in visible - in_data if path.is_file() and belongs_to_card(path, output)}
    foreign = sorted(str(path.relative_to(output)) for path in visible - parquet - beside)
    if foreign:
        raise StepError(
            f"{output} holds what no conversion has written, or what was edited or damaged since; move it away, or "
            f"name another folder ({len(foreign)} in all): {'; '.join(foreign[:5])}"
        )
    return Found(parquet, beside, leftovers)


def belongs_to_card(path: Path, output: Path) -> bool:
    """Tells whether a file is the card, unedited, or one that the card says belongs to it."""
    card = output / CARD
    if path == card:
        return is_intact(card)
    name = path.relative_to(output).as_posix()
    if card.is_file():
        return files_beside(card.read_text(encoding="utf-8")).get(name) == sha256_of(path)
    # A run that was interrupted before it wrote the card.
    return name in (CROISSANT, *FIGURES) and b"convert_to_parquet.py" in path.read_bytes()


def cut_shards(rows: list[Row], folder: Path, max_size: int, rows_per_group: int, uncertainty: str) -> list[Shard]:
    """Cuts a plan into files, as `cut` does.

    Args:
        rows: The plan.
        folder: Where the files go.
        max_size: Upper bound of a file: bytes.
        rows_per_group: Upper bound of the rows of a row group.
        uncertainty: Label policy, a key of `UNCERTAINTY`.

    Returns:
        The files. Their number and cuts depend on the arguments alone.

    Raises:
        StepError: A row alone is larger than `max_size`.
    """

    def shard(start: int, end: int, name: str = "") -> Shard:
        return Shard(folder / name, rows[start:end], rows_per_group, uncertainty)

    sizes = [row_size(row) for row in rows]
    largest = sizes.index(max(sizes))
    smallest = shard(largest, largest + 1).size
    if smallest > max_size:
        raise StepError(f"--max-shard-size: {rows[largest].where} alone may take {smallest:,} bytes; allow as much")
    parts = cut(sizes, max_size, lambda start, end: shard(start, end).size)
    return [shard(*part, f"train-{number:05d}-of-{len(parts):05d}.parquet") for number, part in enumerate(parts)]


def save_beside(output: Path, beside: dict[str, bytes], card: str) -> None:
    """Writes what lies beside the Parquet files, the card last; it holds the placeholder of its checksum."""
    contents = {**beside, CARD: sealed(card.encode())}
    if all((output / name).is_file() and (output / name).read_bytes() == data for name, data in contents.items()):
        return
    (output / CARD).unlink(missing_ok=True)  # where there is a card, it is of what is there
    for name, data in contents.items():
        path = output / name
        path.parent.mkdir(exist_ok=True)
        with appearing(path) as incomplete:
            incomplete.write_bytes(data)
    figures = output / "figures"
    if figures.is_dir() and not any(figures.iterdir()):
        figures.rmdir()


# The program


def main(arguments: list[str] | None = None) -> int:
    """Runs the program.

    Args:
        arguments: Of the command line. Default: those of this process.

    Returns:
        The exit code: 0, 1 after an error or where `--verify` found a difference, 130 after Ctrl-C.
    """
    options = vars(read_arguments(arguments))
    compares, target, dry_run = (options.pop(name) for name in ("verify", "target", "dry_run"))

    def step() -> int:
        if compares:
            return verify(**options)
        if target:
            check(target)
        convert(**options)
        if target:
            publish(options["output"], target, dry_run)
        return 0

    return exit_code(step)


def verify(source: str, output: Path, num_proc: int, uncertainty: str, on_mismatch: str, **_: Any) -> int:
    """Prints how the folder differs from the source, and returns the exit code."""
    count = 0
    with Jobs(num_proc) as jobs:
        for difference in differences(source, output, uncertainty, on_mismatch, jobs):
            tqdm.write(difference)  # beside the progress bar
            count += 1
    print(f"differences: {count:,}" if count else "no difference")
    return min(count, 1)


def read_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line, and checks what only its options together tell."""
    read = parser()
    options = read.parse_args(arguments)
    repo_id = options.push_to_hub
    target = Target(
        repo_id, *(vars(options).pop(name) for name in ("create_pr", "private", "revision", "commit_message"))
    )
    if (not repo_id and target._replace(repo_id="") != Target("")) or (not repo_id and options.dry_run):
        read.error("--create-pr, --private, --revision, --commit-message and --dry-run go with --push-to-hub")
    if repo_id and options.verify:
        read.error("--verify writes nothing, so it does not go with --push-to-hub")
    if target.create_pr and target.revision != MAIN:
        read.error("--create-pr makes a branch of its own, so it does not go with --revision")
    options.target = target if repo_id else None
    del options.push_to_hub
    return options


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    about, layout = str(__doc__).split("\n\n", 1)
    result = argparse.ArgumentParser(
        description=about, epilog=layout + EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = result.add_argument
    add(
        "source",
        metavar="SOURCE",
        help="folder or archive, or its address: hf://datasets/USER/NAME@REVISION, https://…",
    )
    add("output", metavar="OUTPUT_DIR", type=local_folder, help="a folder of its own, made if it is not there")
    add_sharding(add, "Parquet file")
    add(
        "--rows-per-group",
        type=positive,
        default=100,
        help="upper bound of a row group, which has ≤ 100 MB (%(default)s)",
    )
    add(
        "--uncertainty", choices=UNCERTAINTY, default="zeros", help="label policy: U-Zeros, U-Ones or raw (%(default)s)"
    )
    add_on_mismatch(add)
    add(
        "--figures",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="draw the pictures of the card; takes matplotlib",
    )
    add(
        "--verify",
        action="store_true",
        help="write nothing; compare OUTPUT_DIR with SOURCE, byte for byte; exit 0 or 1",
    )
    add = result.add_argument_group(
        "publish",
        "The token is that of `hf auth login` or of HF_TOKEN. One commit makes the repository right: it adds what is "
        "new, removes Parquet files, a loading script and its archives that are replaced, and touches nothing else.",
    ).add_argument
    add("--push-to-hub", type=repo_id, metavar="USER/NAME", help="then publish OUTPUT_DIR as this dataset repository")
    add("--create-pr", action="store_true", help="as a pull request")
    add("--private", action="store_true", help="make a new repository private")
    add("--revision", default=MAIN, metavar="BRANCH", help="branch, or refs/pr/N (%(default)s)")
    add("--commit-message", metavar="TEXT", help="default: one that says how many files there are")
    add("--dry-run", action="store_true", help="convert, then only print the commit that would be made")
    return result


def repo_id(text: str) -> str:
    """Reads the name of a repository."""
    try:
        validate_repo_id(text)
    except HFValidationError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if text.count("/") != 1:
        raise argparse.ArgumentTypeError(f"{text}: name the user or organization too, USER/NAME")
    return text


if __name__ == "__main__":
    end_at_sigterm()
    sys.exit(main())
