"""Filters a SOURCE by the judgement of a vision-language model on each image, as SynthCheX-75K was filtered.

  label   asks the model about every image, and appends its answers to LABELS_CSV
  report  counts the answers by label, and shows examples on a page
  apply   writes the images that are kept as a new SOURCE

LABELS_CSV has a row for each image: filename, quality, response, model, latency_s. After an interruption run the same
command again: no image that has a label is asked about again. See also `filter_quality.py label --help` and so on.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pipeline.cli import (
    HelpFormatter,
    add_on_mismatch,
    add_writing,
    defaults_of,
    exit_code,
    local_folder,
    make_parser,
    positive,
    start,
)
from pipeline.quality.answers import DROPPED, QUALITIES
from pipeline.quality.apply import apply
from pipeline.quality.ask import label
from pipeline.quality.report import report

EXAMPLES = """
examples:
  python scripts/filter_quality.py label path/to/release labels.csv --model MODEL --base-url http://localhost:8000/v1
  python scripts/filter_quality.py label path/to/release labels.csv --model path/to/model --transformers
  python scripts/filter_quality.py report path/to/release labels.csv --html report.html
  python scripts/filter_quality.py apply path/to/release labels.csv path/to/filtered
"""


def main(arguments: list[str] | None = None) -> int:
    """Runs the program.

    Args:
        arguments: Of the command line. Default: those of this process.

    Returns:
        The exit code: 0; 1 after an error, or where an image got no label; 130 after Ctrl-C.
    """
    options = vars(parser().parse_args(arguments))
    options.pop("transformers", None)
    command: Any = {"label": label, "apply": apply, "report": report}[options.pop("command")]
    return exit_code(lambda: command(**options))


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    result: argparse.ArgumentParser = make_parser(__doc__, EXAMPLES)
    commands = result.add_subparsers(dest="command", required=True, metavar="label|report|apply")
    _add_label(commands)
    _add_report(commands)
    _add_apply(commands)
    return result


def _add_label(commands: Any) -> None:
    command = _command(commands, "label", label)
    add = command.add_argument
    add("--model", required=True, help="name of the model, or its folder; it goes into LABELS_CSV")
    where = command.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--base-url",
        metavar="URL",
        help="OpenAI-compatible server, such as http://localhost:8000/v1; its key is in OPENAI_API_KEY",
    )
    where.add_argument("--transformers", action="store_true", help="a model of transformers in this process")
    where.add_argument(
        "--callable", dest="function", metavar="MODULE:FUNCTION", help="a function of images and questions"
    )
    add("--concurrency", type=positive, help="parallel requests to a server")
    add("--batch-size", type=positive, help="images at once, without a server")
    add("--max-tokens", type=positive, help="upper bound of an answer's length, not with --callable")
    add("--limit", type=positive, metavar="N", help="ask about at most N more images")
    add("--meta-prompt", type=Path, metavar="FILE", help="another question; default: that of SynthCheX-75K")
    add("--engine", choices=["local", "ray"], help="ask from this process, or with Ray Data")
    add("--workers", type=positive, help="processes that ask, with Ray")


def _add_report(commands: Any) -> None:
    add = _command(commands, "report", report).add_argument
    add("--html", type=Path, metavar="FILE", help="write a page with examples of each quality")


def _add_apply(commands: Any) -> None:
    add = _command(commands, "apply", apply).add_argument
    add("output", metavar="OUTPUT_SOURCE", type=local_folder, help="folder for the result alone, created if needed")
    dropped = ",".join(DROPPED)
    add("--drop", type=_qualities, metavar="QUALITIES", help=f'what to leave out (default: "{dropped}")')
    add("--unparsed", choices=["error", "drop", "keep"], help="images whose answer names no quality")
    add_writing(add, "zip")


def _command(commands: Any, name: str, function: Any) -> argparse.ArgumentParser:
    about = function.__doc__.partition("\n")[0] if function.__doc__ else None
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=about, description=about, epilog=EXAMPLES, formatter_class=HelpFormatter
    )
    command.set_defaults(**defaults_of(function))
    add = command.add_argument
    add("source", metavar="SOURCE", help="folder or archive, or its address")
    add("labels_csv", metavar="LABELS_CSV", type=Path, help="CSV of labels")
    add_on_mismatch(add)
    return command


def _qualities(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not {*names} <= {*QUALITIES}:
        raise argparse.ArgumentTypeError(f"{text}: name some of {', '.join(QUALITIES)}")
    return names


if __name__ == "__main__":
    start(main)
