"""Evaluates synthetic images against real ones: how close they are, with error bars.

1. embed     turns the images of a SOURCE into features, once for each encoder
2. fidelity  computes all metrics from the features of real and of synthetic images
3. report    shows results as a page

`evaluate_images.py embed --help` and so on describe the options of each.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from pipeline.cli import (
    HelpFormatter,
    add_on_mismatch,
    defaults_of,
    docstring_of,
    exit_code,
    local_folder,
    make_parser,
    positive,
    start,
)
from pipeline.engine import ENGINES
from pipeline.evaluate.embed import embed

EMBED = """
FEATURES_DIR:
  data/ENCODER-*.parquet  file name, CRC-32, size, prompt and labels of images, and the outputs of an encoder
  features.json           which files there are, and everything that the features depend on
  .manifest.jsonl         fingerprint and SHA-256 of each file

After an interruption run the same command again: finished files are verified and kept. Another run with other encoders
adds to the folder. An image that changed under its name is embedded again, and the others are not.

--encoder my_model:embed calls embed(images) of my_model.py, in this folder or installed, with a list of PIL images in
8-bit RGB. It returns an array of shape (images, width).

examples:
  python scripts/evaluate_images.py embed path/to/release path/to/features
  python scripts/evaluate_images.py embed path/to/release path/to/features --encoder my_model:embed --limit 5000
"""
EXAMPLES = """
examples:
  python scripts/evaluate_images.py embed path/to/real path/to/real_features
  python scripts/evaluate_images.py embed path/to/release path/to/features
"""


def main(arguments: list[str] | None = None) -> int:
    """Runs the program.

    Args:
        arguments: Of the command line. Default: those of this process.

    Returns:
        The exit code: 0; 1 after an error; 130 after Ctrl-C.
    """
    options = vars(parser().parse_args(arguments))
    options.pop("command")
    function = options.pop("run")
    return exit_code(lambda: function(**options), "Finished files")


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    result = make_parser(main, EXAMPLES)
    commands = result.add_subparsers(dest="command", required=True, metavar="embed|fidelity|report")
    _add_embed(commands)
    return result


def _add_embed(commands: Any) -> None:
    add = _add_command(commands, embed, EMBED).add_argument
    add("source", metavar="SOURCE", help="folder or archive, or its address")
    add("output", metavar="FEATURES_DIR", type=local_folder, help="folder for features alone, created if needed")
    add("--encoder", action="append", metavar="NAME", help="encoder, see above; may be repeated (default: rad-dino)")
    weights = "folder of the weights, or their name on the Hub; NAME=WEIGHTS for each of several encoders"
    add("--model", action="append", metavar="WEIGHTS", help=f"{weights} (default: those of the authors)")
    revision = "commit, branch or tag of weights on the Hub; NAME=SHA for each of several encoders (default: main)"
    add("--revision", action="append", metavar="SHA", help=revision)
    add("--batch-size", type=positive, metavar="N", help="images at once; halved when memory runs out")
    add("--engine", choices=ENGINES, help="embed in this process, or in workers of Ray")
    of_ray = "processes that embed, with --engine ray; each uses a GPU if there are any"
    add("--workers", type=positive, metavar="N", help=of_ray)
    limit = "embed N images, chosen at random; a larger N adds to them (default: all)"
    add("--limit", type=positive, metavar="N", help=limit)
    add_on_mismatch(add)
    add("--overwrite", action="store_true", help="replace features of another source, encoder or a larger limit")


def _add_command(commands: Any, function: Callable[..., Any], epilog: str) -> argparse.ArgumentParser:
    about = docstring_of(function).partition("\n")[0]
    command: argparse.ArgumentParser = commands.add_parser(
        function.__name__, help=about, description=about, epilog=epilog, formatter_class=HelpFormatter
    )
    command.set_defaults(run=function, **defaults_of(function))
    return command


if __name__ == "__main__":
    start(main)
