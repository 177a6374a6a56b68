"""Filters a SOURCE by the judgement of a vision-language model on each image, as SynthCheX-75K was filtered.

1. label   asks the model about each image, and appends its answers to LABELS_CSV
2. report  counts the answers, and shows examples on a page: is the model right?
3. apply   writes the images that are kept as a new SOURCE

`filter_quality.py label --help` and so on describe the options of each.
"""

from __future__ import annotations

import argparse
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.cli import (
    add_command,
    add_on_mismatch,
    add_writing,
    exit_code,
    input_file,
    local_folder,
    make_parser,
    output_file,
    positive,
    start,
)
from pipeline.quality.answers import QUALITIES
from pipeline.quality.apply import apply
from pipeline.quality.label import label
from pipeline.quality.report import report

LABELS_CSV = """
LABELS_CSV, a row for each answer:
  filename    of the image
  quality     High Quality, Medium Quality, Low Quality, Not Relevant; or Unparsed: the answer names none or several
  response    the answer, unchanged
  model       --model
  latency_s   seconds from the question to the answer; of a batch, of all its images together
"""
LABEL = f"""{LABELS_CSV}
LABELS_CSV.json beside it holds the model and the meta-prompt; other ones need another file. After an interruption run
the same command again: images with a label are skipped. Images without an answer are listed at the end, and asked about
by the next run. An answer that a CSV cannot hold unchanged (NUL, lone surrogates, over 131,072 characters) is none.

Environment, with --base-url:
  OPENAI_API_KEY         the key; sent to the server that --base-url names
  OPENAI_ORG_ID, OPENAI_PROJECT_ID, OPENAI_CUSTOM_HEADERS
                         sent to OpenAI alone: https://openai.com, or a host below it such as api.openai.com

--callable my_model:judge calls judge(images, questions) of my_model.py, in this folder or installed, with PIL images
and texts (the meta-prompt and the image's own prompt). It returns the answers, a list of texts.

examples:
  python scripts/filter_quality.py label path/to/release labels.csv --model MODEL --base-url http://localhost:8000/v1
  python scripts/filter_quality.py label path/to/release labels.csv --model path/to/model --transformers
  python scripts/filter_quality.py label path/to/release labels.csv --model mine --callable my_model:judge
"""
REPORT = f"""{LABELS_CSV}
examples:
  python scripts/filter_quality.py report path/to/release labels.csv
  python scripts/filter_quality.py report path/to/release labels.csv --html report.html
"""
APPLY = f"""{LABELS_CSV}
Each image needs a label. After an interruption run the same command again: finished files are verified and kept.

examples:
  python scripts/filter_quality.py apply path/to/release labels.csv path/to/filtered
  python scripts/filter_quality.py apply path/to/release labels.csv path/to/strict --unparsed drop \\
    --drop "Medium Quality,Low Quality,Not Relevant"
"""
EXAMPLES = """
examples:
  python scripts/filter_quality.py label path/to/release labels.csv --model MODEL --base-url http://localhost:8000/v1
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
    options.pop("transformers", None)  # a model of `transformers` is what is left without a server or a callable
    name, function = options.pop("command"), options.pop("run")
    return exit_code(lambda: function(**options), "Labels" if name == "label" else "Finished files")


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    result = make_parser(main, EXAMPLES)
    commands = result.add_subparsers(dest="command", required=True, metavar="label|report|apply")
    _add_label(commands)
    _add_report(commands)
    _add_apply(commands)
    return result


def _add_label(commands: Any) -> None:
    command = _add_command(commands, label, LABEL)
    add = command.add_argument
    add("labels_csv", metavar="LABELS_CSV", type=output_file, help="CSV to write; an existing one is continued")
    add("--model", required=True, help="name of the model, or its folder; it goes into LABELS_CSV")
    judge = command.add_mutually_exclusive_group(required=True)
    server = "OpenAI-compatible server, such as http://localhost:8000/v1; its key is in OPENAI_API_KEY"
    judge.add_argument("--base-url", metavar="URL", type=_web_address, help=server)
    judge.add_argument("--transformers", action="store_true", help="a model of transformers in this process")
    in_python = "a Python function that takes images and questions and returns answers"
    judge.add_argument("--callable", dest="function", metavar="MODULE:FUNCTION", help=in_python)
    add("--concurrency", type=positive, metavar="N", help="parallel requests, with --base-url")
    add("--batch-size", type=positive, metavar="N", help="images at once, with --transformers or --callable")
    add("--max-tokens", type=positive, metavar="N", help="upper bound of an answer's length, not with --callable")
    add("--limit", type=positive, metavar="N", help="ask about at most N more images (default: all)")
    meta_prompt = "file with another question than that of SynthCheX-75K (default)"
    add("--meta-prompt", type=input_file, metavar="FILE", help=meta_prompt)
    add("--engine", choices=["local", "ray"], help="ask from this process, or from workers of Ray Data")
    add("--workers", type=positive, metavar="N", help="processes that ask, with --engine ray")
    add_on_mismatch(add)


def _add_report(commands: Any) -> None:
    add = _add_command(commands, report, REPORT).add_argument
    add("labels_csv", metavar="LABELS_CSV", type=Path, help="labels of some or all images")
    add("--html", type=output_file, metavar="FILE", help="page with examples of each quality (default: none)")
    add_on_mismatch(add)


def _add_apply(commands: Any) -> None:
    add = _add_command(commands, apply, APPLY).add_argument
    add("labels_csv", metavar="LABELS_CSV", type=Path, help="a label for each image")
    add("output", metavar="OUTPUT_SOURCE", type=local_folder, help="folder for the result alone, created if needed")
    add("--drop", type=_qualities, metavar="QUALITIES", help="qualities to leave out, separated by commas")
    unparsed = "images whose answer names no quality: list them and stop (error), or drop or keep them"
    add("--unparsed", choices=["error", "drop", "keep"], help=unparsed)
    add_writing(add, "zip")
    add_on_mismatch(add)


def _add_command(commands: Any, function: Callable[..., Any], epilog: str) -> argparse.ArgumentParser:
    command = add_command(commands, function, epilog)
    command.add_argument("source", metavar="SOURCE", help="folder or archive, or its address")
    return command


def _qualities(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not {*names} <= {*QUALITIES}:
        raise argparse.ArgumentTypeError(f"{text}: name some of {', '.join(QUALITIES)}")
    return names


def _web_address(text: str) -> str:
    address = urllib.parse.urlsplit(text)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise argparse.ArgumentTypeError(f"{text}: must start with http:// or https://, and a host")
    return text


if __name__ == "__main__":
    start(main)
