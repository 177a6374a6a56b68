"""What `benchmark.py` measures ends with it, and needs a disk that is large enough."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import synthchex_75k
from conftest import ROOT
from pipeline.benchmark.full_size import measure_full_size
from pipeline.errors import StepError
from processes import PATIENCE

WAITS = """
import os, pathlib, sys, time
path = pathlib.Path(sys.argv[1])
time.sleep(0.3)  # until the benchmark waits
path.with_suffix(".new").write_text(str(os.getpid()))
path.with_suffix(".new").rename(path)
time.sleep(300)
"""
MEASURES = """
import pathlib, sys
from pipeline.benchmark.measure import measure
from pipeline.cli import end_on_signals
end_on_signals()
measure([sys.executable, "-c", sys.argv[1], sys.argv[2]], pathlib.Path(sys.argv[3]), watch_memory=sys.argv[4] == "True")
"""
DRAWS = """
import os, pathlib, sys, time
from pipeline.benchmark.sources import make_many_rows, make_release, small_png
from pipeline.cli import end_on_signals
forks = 0
def count():
    global forks
    forks += 1
os.register_at_fork(before=count, after_in_child=lambda: time.sleep(0.5 * forks))
end_on_signals()
folder = pathlib.Path(sys.argv[2])
exec(sys.argv[1])
"""
ENVIRONMENT = {"PYTHONPATH": f"{ROOT}:{ROOT / 'scripts'}"}


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_measured_command_ends_with_the_benchmark(sent: signal.Signals, watched: bool, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    command = [sys.executable, "-c", MEASURES, WAITS, str(file), str(tmp_path / "home"), str(watched)]
    benchmark = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    while not file.exists():
        assert benchmark.poll() is None
        time.sleep(0.01)
    measured = psutil.Process(int(file.read_text()))
    benchmark.send_signal(sent)
    assert benchmark.wait(PATIENCE) != 0
    assert not measured.is_running()


@pytest.mark.parametrize("source", ["make_release(folder, 40)", "make_many_rows(folder, 400, small_png)"])
def test_a_source_is_drawn_although_a_process_starts_late(source: str, tmp_path: Path) -> None:
    draws = subprocess.run([sys.executable, "-c", DRAWS, source, tmp_path / "new"], env=ENVIRONMENT)
    assert draws.returncode == 0
    count = 40 if "40)" in source else 400
    assert len(synthchex_75k.plan(str(tmp_path / "new"))) == count


def test_a_benchmark_that_draws_ends_with_its_processes(tmp_path: Path) -> None:
    command = [sys.executable, "-c", DRAWS, "make_release(folder, 100_000)", str(tmp_path / "new")]
    benchmark = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    while not list(tmp_path.glob("new/*.zip")):
        assert benchmark.poll() is None
        time.sleep(0.01)
    drawing = psutil.Process(benchmark.pid).children()
    benchmark.send_signal(signal.SIGTERM)
    assert benchmark.wait(PATIENCE) == 128 + signal.SIGTERM
    assert drawing
    assert not any(process.is_running() for process in drawing)


def test_a_disk_that_is_too_small_is_an_error_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"has \d+ GB free, and needs 530,000 GB: name another --work-dir"):
        next(measure_full_size(tmp_path, 1_000_000_000, 1))
    assert not [*tmp_path.iterdir()]
