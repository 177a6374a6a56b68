"""Worker processes, and how many of them are started."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sized
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import pytest

from conftest import ROOT, to_files
from pipeline.jobs import WorkerDiedError, WorkerPool, _cgroup_quota, advance, available_cpus
from processes import PATIENCE

INTERRUPTED = """
import multiprocessing, os, random, signal, threading
from pipeline.jobs import WorkerPool

class Interrupted(BaseException):
    pass

def interrupt(*_):
    raise Interrupted

def send(delay):
    while not is_over.wait(delay):
        os.kill(os.getpid(), signal.SIGUSR1)
        delay = 30  # again, if a callback of a library swallowed the exception

signal.signal(signal.SIGUSR1, interrupt)
delays = random.Random(0)
for _ in range(30):
    is_over = threading.Event()
    sender = threading.Thread(target=send, args=[delays.uniform(0, 0.3)])
    try:
        with WorkerPool(2) as pool:
            sender.start()
            [*pool.run(abs, range(1_000_000), "Running")]
            raise AssertionError("not interrupted")
    except Interrupted:
        is_over.set()
    sender.join()
    assert not multiprocessing.active_children()
"""


def square(number: int) -> int:
    advance(1, number)
    return number * number


def fail_at_3(number: int) -> int:
    if number == 3:
        raise ValueError("three")
    time.sleep(0 if number < 3 else 60)
    return number


def wait_for_ever(file: Path) -> None:
    file.with_suffix(".new").write_text(str(os.getpid()))
    file.with_suffix(".new").rename(file)
    time.sleep(600)


def kill_itself(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def send_half_of_the_result(then: Callable[[], object]) -> bytes:
    """Returns a result, of which this process sends the first half; then it does something else."""
    header = 4  # bytes, which a connection sends first, alone if what follows is large

    def send(self: Connection, data: Sized) -> None:
        sent = len(data) if len(data) == header else len(data) // 2
        os.write(self.fileno(), memoryview(data)[:sent])  # type: ignore[arg-type]
        if sent < len(data):
            then()

    Connection._send = send  # type: ignore[attr-defined]
    return bytes(100_000)


def be_killed_while_sending(_: int) -> bytes:
    return send_half_of_the_result(lambda: kill_itself(0))


def wait_while_sending(folder: Path | None) -> bytes:
    if folder is None:
        return b""
    while not (folder / "go").exists():
        time.sleep(0.01)

    def wait() -> None:
        (folder / "sends").touch()
        time.sleep(600)

    return send_half_of_the_result(wait)


class TwoArgumentsError(OSError):
    """An exception that cannot be sent: pickle would call it with one argument."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")


def fail_with_two_arguments(_: int) -> None:
    raise TwoArgumentsError("this", "that")


def return_a_function(_: int) -> Callable[[], None]:
    return lambda: None


def is_alive(process: psutil.Process) -> bool:
    """Tells whether a process has not ended; a zombie has."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_results_come_with_their_jobs() -> None:
    with WorkerPool(2) as pool:
        assert sorted(pool.run(square, range(20), "Squaring")) == [(number, number**2) for number in range(20)]
        assert pool._counts() == [20, sum(range(20))]
        assert list(pool.run(square, [], "Squaring")) == []
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(
    ("function", "kind", "message", "where"),
    [
        (fail_with_two_arguments, OSError, "^TwoArgumentsError: this and that$", "in fail_with_two_arguments"),
        (return_a_function, Exception, "lambda", "pickle.dumps"),
    ],
)
def test_what_cannot_be_sent_is_an_error(
    function: Callable[[int], object], kind: type[Exception], message: str, where: str
) -> None:
    with pytest.raises(kind, match=message) as caught, WorkerPool(2) as pool:
        list(pool.run(function, range(2), "Failing"))
    assert where in str(caught.value.__cause__)


def test_a_stopped_pool_runs_nothing() -> None:
    with WorkerPool(2) as pool:
        pass
    with pytest.raises(RuntimeError, match="were stopped"):
        list(pool.run(square, range(20), "Squaring"))


def test_a_run_does_not_end_quietly_if_the_pool_is_stopped() -> None:
    with pytest.raises((OSError, WorkerDiedError), match=r"closed|killed"), WorkerPool(2) as pool:
        for _ in pool.run(square, range(20), "Squaring"):
            pool.stop()


def test_jobs_are_not_mixed_with_those_of_an_unfinished_run() -> None:
    with WorkerPool(2) as pool:
        next(pool.run(square, range(20), "Squaring"))
        with pytest.raises(RuntimeError, match="have other jobs"):
            list(pool.run(square, range(20), "Squaring"))


def test_a_signal_at_any_moment_of_a_run_ends_the_workers() -> None:
    run = subprocess.run([sys.executable, "-c", INTERRUPTED], cwd=ROOT / "scripts", stderr=subprocess.PIPE, text=True)
    assert run.returncode == 0, run.stderr


def test_a_list_of_jobs_may_change_meanwhile() -> None:
    jobs = [*range(20)]
    with WorkerPool(2) as pool:
        results = [(jobs.pop(), result)[1] for _, result in pool.run(square, jobs, "Squaring")]
    assert sorted(results) == [number**2 for number in range(20)]


def test_an_error_ends_all_workers() -> None:
    start = time.monotonic()
    with pytest.raises(ValueError, match="three"), WorkerPool(2) as pool:
        list(pool.run(fail_at_3, range(10), "Failing"))
    assert multiprocessing.active_children() == []
    assert time.monotonic() - start < 30


def test_killed_worker_is_an_error() -> None:
    with pytest.raises(WorkerDiedError, match="possibly out of memory"), WorkerPool(2) as pool:
        list(pool.run(kill_itself, range(2), "Dying"))
    assert multiprocessing.active_children() == []


def test_a_killed_worker_that_has_no_job_is_an_error(tmp_path: Path) -> None:
    def kill_the_other() -> None:
        while not (tmp_path / "pid").exists():
            time.sleep(0.01)
        pid = (tmp_path / "pid").read_text()
        (idle,) = (child for child in multiprocessing.active_children() if str(child.pid) != pid)
        idle.kill()

    with pytest.raises(WorkerDiedError, match="possibly out of memory"), WorkerPool(2) as pool:
        threading.Thread(target=kill_the_other).start()
        list(pool.run(wait_for_ever, [tmp_path / "pid"], "Waiting"))
    assert multiprocessing.active_children() == []


def test_a_worker_killed_while_it_sends_a_result_is_an_error() -> None:
    with pytest.raises(WorkerDiedError, match="possibly out of memory"), WorkerPool(2) as pool:
        list(pool.run(be_killed_while_sending, range(1), "Dying"))
    assert multiprocessing.active_children() == []


def test_an_error_ends_a_worker_that_sends_a_result(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="meanwhile"), WorkerPool(2) as pool:
        for _ in pool.run(wait_while_sending, [None, tmp_path], "Sending"):
            (tmp_path / "go").touch()
            while not (tmp_path / "sends").exists():
                time.sleep(0.01)
            raise ValueError("meanwhile")
    assert multiprocessing.active_children() == []


def test_a_worker_killed_before_it_has_received_its_job_is_an_error() -> None:
    with pytest.raises(WorkerDiedError, match="possibly out of memory"), WorkerPool(1) as pool:
        (worker,) = multiprocessing.active_children()
        os.kill(worker.pid or 0, signal.SIGSTOP)
        threading.Timer(0.3, worker.kill).start()
        list(pool.run(len, [bytes(10_000_000)], "Sending"))  # more than a connection holds
    assert multiprocessing.active_children() == []


@pytest.mark.slow  # test_interrupted.py checks it at each kill
def test_workers_end_with_their_parent() -> None:
    code = "import os, time\nfrom pipeline.jobs import WorkerPool\n"
    code += (
        "pool = WorkerPool(2)\nprint(*[p.pid for p in __import__('multiprocessing').active_children()], flush=True)\n"
    )
    code += "time.sleep(600)"
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT / "scripts", stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout
        workers = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
        assert len(workers) == 2
        parent.kill()
    deadline = time.monotonic() + PATIENCE
    while any(is_alive(worker) for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_number_of_processes_is_bounded() -> None:
    with WorkerPool(999):
        assert len(multiprocessing.active_children()) == max(2 * available_cpus(), 16)
    with WorkerPool(3):
        assert len(multiprocessing.active_children()) == 3


# CPUs


def test_available_cpus() -> None:
    assert 1 <= available_cpus() <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": b"max 100000\n"}, None),
        ({"cpu.max": b"250000 100000\n"}, 2),
        ({"cpu.max": b"400000 100000\n"}, 4),
        ({"cpu.max": b"50000 100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": b"-1\n", "cpu/cpu.cfs_period_us": b"100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": b"300000\n", "cpu/cpu.cfs_period_us": b"100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": b"20000\n", "cpu/cpu.cfs_period_us": b"100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": b"300000\n"}, None),
        ({"cpu.max": b"\n"}, None),
        ({}, None),
    ],
    ids=str,
)
def test_cgroup_quota(files: dict[str, bytes], quota: int | None, tmp_path: Path) -> None:
    to_files(tmp_path, files)
    assert _cgroup_quota(tmp_path) == quota
