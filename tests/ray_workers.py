"""The workers of a program that runs Ray."""

import contextlib
import subprocess

import psutil


def ray_workers(program: "subprocess.Popen[str]") -> list[psutil.Process]:
    """Returns the processes of Ray that hold a model of a program, and not those of a run that has just ended."""
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in psutil.Process(program.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if "MapWorker" in " ".join(process.cmdline()):
                    found.append(process)
    return found
