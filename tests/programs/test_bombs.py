"""Images of a source whose pixels would fill the memory: every program names them and goes no further."""

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from conftest import ROOT, Rows, Source, loose, to_csv
from images import SIGNATURE, chunk
from labelling import write_labels


def bomb(width: int, height: int) -> bytes:
    """A small PNG with a large header."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return SIGNATURE + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("program", ["convert", "resize", "report"])
@pytest.mark.parametrize(
    "size",
    [(13_000, 13_000), *(pytest.param(size, marks=pytest.mark.slow) for size in [(65_535, 65_535), (1 << 31, 1)])],
    ids=str,
)
def test_a_decompression_bomb_is_one_line(
    program: str, size: tuple[int, int], source: Source, images: dict[str, bytes], table: Rows, tmp_path: Path
) -> None:
    names = [*images]
    folder = source({**images, names[0]: bomb(*size)}, shape=loose)
    (tmp_path / "m.csv").write_bytes(to_csv(table))
    scripts, output = ROOT / "scripts", str(tmp_path / "o")
    command = {
        "convert": ["convert_to_parquet.py", str(folder), output],
        "resize": ["pack_shards.py", str(folder), str(tmp_path / "m.csv"), output, "--size", "64"],
        "report": ["filter_quality.py", "report", str(folder), str(write_labels(tmp_path, {})), "--html", output],
    }[program]
    run = subprocess.run([sys.executable, str(scripts / command[0]), *command[1:]], capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr.startswith("error: ") and run.stderr.count("\n") == 1
    assert f"{names[0]}: {size[0]:,} x {size[1]:,} pixels" in run.stderr
