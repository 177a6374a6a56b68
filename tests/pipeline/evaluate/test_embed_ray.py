"""`evaluate_images.py embed` in workers of Ray."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import ROOT, Rows, contents, to_csv, to_files
from ray_workers import ray_workers

pytestmark = pytest.mark.slow
PROGRAM = [sys.executable, str(ROOT / "scripts/evaluate_images.py"), "embed"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}


@pytest.mark.xdist_group("ray")
def test_two_workers_of_which_one_is_killed(tmp_path: Path, images: dict[str, bytes], table: Rows) -> None:
    rows = [{**row, "filename": f"{number:02}{row['filename']}"} for number in range(36) for row in table]
    to_files(tmp_path / "source", {row["filename"]: images[row["filename"][2:]] for row in rows})
    (tmp_path / "source/metadata.csv").write_bytes(to_csv(rows))
    whole, parts = ([str(tmp_path / "source"), str(tmp_path / name)] for name in ("whole", "ray"))
    encoders = ["--encoder", "embedding:slowly", "--encoder", "embedding:edges", "--batch-size", "4"]
    subprocess.run([*PROGRAM, *whole, *encoders], env=ENVIRONMENT, cwd=tmp_path, check=True, capture_output=True)
    command = [*PROGRAM, *parts, *encoders, "--engine", "ray", "--workers", "2"]
    program = subprocess.Popen(
        command, env=ENVIRONMENT, cwd=ROOT / "tests", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    while not [*(tmp_path / "ray").glob("data/*.parquet")] or len(workers := ray_workers(program)) < 2:
        assert program.poll() is None, program.communicate()[0]
        time.sleep(0.01)
    workers[0].kill()
    output, _ = program.communicate()
    assert program.returncode == 0, output
    assert contents(tmp_path / "ray/data") == contents(tmp_path / "whole/data")
