"""What the programs share of the command line: options, exit codes, signals."""

from __future__ import annotations

import argparse
import ast
import contextlib
import csv
import errno
import inspect
import io
import math
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from datasets.utils.py_utils import convert_file_size_to_int

from pipeline.errors import StepError, TerminatedError
from pipeline.jobs import WorkerDiedError, available_cpus
from synthchex_75k import SourceError, printable

CLEANING_UP = 5  # seconds

Add = Callable[..., Any]  # `add_argument` of a parser or a group


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps line breaks of the description, and adds the default of each option whose help names none."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text, default = action.help or "", action.default
        if default is None or isinstance(default, bool) or default == argparse.SUPPRESS or "default" in text:
            return text
        if action.type is file_size:
            default = f"{default / 1e6:g}MB"
        elif isinstance(default, tuple):
            default = ",".join(default)
        return f"{text} (default: {str(default).replace('%', '%%')})"


def start(main: Callable[[], int]) -> NoReturn:
    """Runs a program and ends the process with its exit code.

    Signals end it as `end_on_signals` tells. A closed pipe, as in `… | head`, ends it silently with 141. It does not
    wait for threads: nobody reads the answers to their requests. What an output cannot encode is printed as escapes.

    Args:
        main: The program; it returns the exit code.
    """
    end_on_signals()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # no name is a reason to fail
    try:
        try:
            code = main()
        except SystemExit as exit_:
            if isinstance(exit_.code, str):
                print(exit_.code, file=sys.stderr)
            code = exit_.code if isinstance(exit_.code, int) else bool(exit_.code)
        sys.stdout.flush()
    except BrokenPipeError:
        code = 128 + signal.SIGPIPE
    with contextlib.suppress(BrokenPipeError):
        sys.stderr.flush()
    os._exit(code)


def end_on_signals() -> None:
    """Makes Ctrl-C and SIGTERM end this process in an orderly way, with exit code 130 or 143.

    For `CLEANING_UP` seconds after the first one, others are ignored, or they would interrupt the removal of
    half-written files. Later ones count again, in case a library swallowed the exception of the first.
    """
    until = -math.inf

    def end(number: int, _: Any) -> None:
        nonlocal until
        now = time.monotonic()
        if now < until:
            return
        until = now + CLEANING_UP
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise TerminatedError(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)


def exit_code(step: Callable[[], int | None], kept: str = "Finished files") -> int:
    """Runs a step, and prints an error as one line.

    Args:
        step: What to run; it may return an exit code.
        kept: What an interruption does not lose, for messages.

    Returns:
        The exit code: that of the step, else 0; 1 after an error, 130 after Ctrl-C.
    """
    rerun = f"{kept} are kept: run the same command again to continue."
    try:
        return step() or 0
    except KeyboardInterrupt:
        print(f"\ninterrupted. {rerun}", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        raise
    except (SourceError, StepError) as error:
        lines = map(printable, str(error).split("\n"))  # a source has one for each problem
        print("error: " + "\n".join(lines), file=sys.stderr)
    except (WorkerDiedError, OSError, MemoryError) as error:
        too_many_files = isinstance(error, OSError) and error.errno == errno.EMFILE
        remedy = " Raise the limit (`ulimit -n 1024`), or pass --num-proc 1." if too_many_files else ""
        print(f"error: {error or type(error).__name__}.{remedy} {rerun}", file=sys.stderr)
    return 1


def make_parser(
    main: Callable[..., Any], examples: str, function: Callable[..., Any] | None = None
) -> argparse.ArgumentParser:
    """Returns a parser whose help is the docstring of the program.

    Args:
        main: The program, of whose module the docstring is: its first paragraph is shown above the options, the rest
            below.
        examples: Shown last.
        function: Its parameters' defaults are the options' defaults. Default: set them for each subcommand.
    """
    about, _, more = docstring_of(inspect.getmodule(main)).partition("\n\n")
    parser = argparse.ArgumentParser(description=about, epilog=f"{more}\n{examples}", formatter_class=HelpFormatter)
    if function:
        parser.set_defaults(**defaults_of(function))
    return parser


def add_command(commands: Any, function: Callable[..., Any], epilog: str) -> argparse.ArgumentParser:
    """Adds a subcommand that calls a function: its name, the first line of its docstring, and its defaults.

    Args:
        commands: What `add_subparsers` returned.
        function: The function; `run` of the parsed options.
        epilog: Shown below the options.
    """
    about = docstring_of(function).partition("\n")[0]
    command: argparse.ArgumentParser = commands.add_parser(
        function.__name__, help=about, description=about, epilog=epilog, formatter_class=HelpFormatter
    )
    command.set_defaults(run=function, **defaults_of(function))
    return command


def docstring_of(thing: Any) -> str:
    """Returns the docstring of a module or function, from the source: `python -OO` has none in memory."""
    tree: Any = ast.parse(inspect.getsource(thing))
    return ast.get_docstring(tree if inspect.ismodule(thing) else tree.body[0]) or ""


def defaults_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Returns the defaults of a function's parameters, by name."""
    parameters = inspect.signature(function).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.default is not parameter.empty}


def positive(text: str) -> int:
    """Reads a positive number."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return number


def file_size(text: str) -> int:
    """Reads a size as `datasets` does, such as 500MB or 1GiB: bytes."""
    try:
        return positive(str(convert_file_size_to_int(text)))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def finite(text: str) -> float:
    """Reads a finite number."""
    if not math.isfinite(number := float(text)):
        raise argparse.ArgumentTypeError(f"{text} is not finite")
    return number


def names(text: str) -> tuple[str, ...]:
    """Reads names separated by commas."""
    if not (found := tuple(name.strip() for name in text.split(",") if name.strip())):
        raise argparse.ArgumentTypeError("no name; separate names by commas")
    return found


def column_names(text: str) -> tuple[str, ...]:
    """Reads names of columns, as a line of a CSV has them: a name with a comma stands in double quotes."""
    try:
        names = tuple(name.strip() for name in next(csv.reader([text], strict=True)))
    except (csv.Error, StopIteration):
        names = ()
    if not names or not all(names) or len({*names}) < len(names):
        raise argparse.ArgumentTypeError(f"{text!r}: name all, none, or some columns, each once, separated by commas")
    return names


def local_folder(text: str) -> Path:
    """Reads the path of a local folder."""
    if "://" in text:
        raise argparse.ArgumentTypeError(f"{text} must be a local folder; upload the result afterwards")
    return Path(text)


def output_file(text: str) -> Path:
    """Reads the path of a file to write, in a folder that exists."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a folder; name a file")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{path.parent}: no such folder; create it first")
    return path


def input_file(text: str) -> Path:
    """Reads the path of a file that exists."""
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"{path}: no such file")
    return path


def add_writing(add: Add, file: str) -> None:
    """Adds the options of how files are written.

    Args:
        add: `add_argument`.
        file: Name of the kind of file.
    """
    processes = "processes (default: all CPUs, here %(default)s)"
    add("--num-proc", type=positive, default=available_cpus(), metavar="N", help=processes)
    add("--max-shard-size", type=file_size, metavar="SIZE", help=f"upper bound of a {file}, such as 200MB or 1GiB")
    add("--overwrite", action="store_true", help="replace finished files of another source or other options")


def add_on_mismatch(add: Add) -> None:
    """Adds the option of `synthchex_75k.plan`."""
    about = "images without a row, and rows without an image: list them and stop (error), or leave them out (skip)"
    add("--on-mismatch", choices=["error", "skip"], help=about)
