"""What the converter takes for a source of the size of the dataset, or larger than the memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipeline.benchmark.measure import SCRIPTS, described, make_environment, measure
from pipeline.benchmark.sources import DIFFERENT, make_many_rows, noise_png


def measure_full_size(work: Path, rows: int, num_proc: int) -> Iterator[str]:
    """Measures a conversion, the same again, and `--verify`, once each: they are long, and read from the disk.

    Args:
        work: An empty folder, on a disk that holds the source twice.
        rows: Of the source.
        num_proc: Processes of the converter.

    Yields:
        Lines of Markdown.
    """
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
    yield "| step | time | read | peak memory |"
    yield "|---|---|---|---|"
    for name, command in steps.items():
        run = measure(command, work / "home", watch_memory=True)
        yield f"| {name} | {run.seconds:.0f} s | {size / run.seconds / 1e6:,.0f} MB/s | {run.memory / 1e6:,.0f} MB |"
