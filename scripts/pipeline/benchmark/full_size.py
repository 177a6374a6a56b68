"""What the converter takes for a source of the size of the dataset, or larger than the memory."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from pipeline.benchmark.measure import SCRIPTS, described, make_environment, measure
from pipeline.benchmark.sources import DIFFERENT, make_many_rows, noise_png
from pipeline.errors import StepError

IMAGE_BYTES = 265_000


def measure_full_size(work: Path, rows: int, num_proc: int) -> Iterator[str]:
    """Measures a conversion, the same again, and `--verify`, once each, because they are long.

    As much of the source as fits into the memory is in the page cache.

    Args:
        work: An empty folder, on a disk that holds the source twice.
        rows: Of the source.
        num_proc: Processes of the converter.

    Yields:
        Lines of Markdown.

    Raises:
        StepError: The disk has not enough space.
    """
    needed, free = 2 * rows * IMAGE_BYTES, shutil.disk_usage(work).free
    if free < needed:
        raise StepError(
            f"{work} has {free / 1e9:.0f} GB free, and needs {needed / 1e9:,.0f} GB: name another --work-dir"
        )
    python = make_environment(work / "env", ["datasets", "pillow"])
    release, output = work / "release", work / "parquet"
    make_many_rows(release, rows, noise_png)
    size = (release / "ALL_FILES.zip").stat().st_size
    convert: list[str | Path] = [python, SCRIPTS / "convert_to_parquet.py", release, output, "--no-figures"]
    convert += ["--num-proc", str(num_proc)]
    steps = {
        "`convert_to_parquet.py`": convert,
        "the same again, nothing to do": convert,
        "`convert_to_parquet.py --verify`": [*convert, "--verify"],
    }
    machine = described(python, "datasets", "pyarrow")
    yield f"{rows:,} images ({DIFFERENT} that differ), one zip of {size / 1e9:.1f} GB; {machine}"
    yield ""
    yield "| step | time | of the source | peak memory |"
    yield "|---|---|---|---|"
    for name, command in steps.items():
        run = measure(command, work / "home", watch_memory=True)
        yield f"| {name} | {run.seconds:.0f} s | {size / run.seconds / 1e6:,.0f} MB/s | {run.memory / 1e6:,.0f} MB |"
