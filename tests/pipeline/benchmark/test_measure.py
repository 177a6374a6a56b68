"""What `benchmark.py` measures ends with it, and needs a disk that is large enough."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from conftest import ROOT
from pipeline.benchmark.full_size import measure_full_size
from pipeline.benchmark.sources import drawing_pool
from pipeline.errors import StepError

WAITS = """
import os, pathlib, sys, time
path = pathlib.Path(sys.argv[1])
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


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_measured_command_ends_with_the_benchmark(sent: signal.Signals, watched: bool, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    command = [sys.executable, "-c", MEASURES, WAITS, str(file), str(tmp_path / "home"), str(watched)]
    benchmark = subprocess.Popen(command, env={"PYTHONPATH": f"{ROOT}:{ROOT / 'scripts'}"}, stderr=subprocess.DEVNULL)
    while not file.exists():
        assert benchmark.poll() is None
        time.sleep(0.01)
    measured = psutil.Process(int(file.read_text()))
    benchmark.send_signal(sent)
    assert benchmark.wait(60) != 0
    assert not measured.is_running()


def test_a_process_that_draws_is_ended_by_the_signal_of_its_pool() -> None:
    usual = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        with drawing_pool() as pool:
            assert pool.apply(signal.getsignal, (signal.SIGTERM,)) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, usual)


def test_a_disk_that_is_too_small_is_an_error_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"has \d+ GB free, and needs 530,000 GB: name another --work-dir"):
        next(measure_full_size(tmp_path, 1_000_000_000, 1))
    assert not [*tmp_path.iterdir()]
