"""Processes under test, held back where a test wants it."""

import sys
import time
from pathlib import Path

PATIENCE = 60  # seconds in which a process ends, even on a busy machine
HELD_FOR = 700  # seconds; longer than a test lasts, so that a process whose test failed ends
HELD = f"""
import os, runpy, sys
from pathlib import Path
sys.path.append({str(Path(__file__).parent)!r})
from processes import hold
sys.argv = sys.argv[1:]
hold(sys.argv.pop(0), Path(sys.argv.pop(0)), int(sys.argv.pop(0)))
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def hold(name: str, proceed: Path, passing: int = 0) -> None:
    """Holds back this process and its forks when they open a file, so that they are not done before a test acts.

    Processes that are started in another way than by a fork are not held back.

    Args:
        name: Part of the path of that file.
        proceed: A file; they go on when it exists, or after `HELD_FOR` seconds.
        passing: How often they may open such a file before.
    """

    def look(event: str, arguments: tuple) -> None:
        nonlocal passing
        if event == "open" and isinstance(arguments[0], (str, Path)) and name in str(arguments[0]):
            passing -= 1
            end = time.monotonic() + HELD_FOR
            while passing < 0 and not proceed.exists() and time.monotonic() < end:
                time.sleep(0.01)

    sys.addaudithook(look)


def held(program: list[str], name: str, proceed: Path, passing: int = 0) -> list[str]:
    """Returns the command of a Python program that `hold` holds back."""
    return [program[0], "-c", HELD, name, str(proceed), str(passing), *program[1:]]
