"""Evaluates synthetic images against real ones: how close they are, with error bars.

1. embed     turns the images of a SOURCE into features, once for each encoder
2. fidelity  computes all metrics from the features of real and of synthetic images
3. report    shows results as a page

`evaluate_images.py embed --help` and so on describe the options of each.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pipeline.cli import (
    add_command,
    add_on_mismatch,
    exit_code,
    local_folder,
    make_parser,
    output_file,
    positive,
    start,
)
from pipeline.engine import ENGINES
from pipeline.evaluate.embed import embed
from pipeline.evaluate.encoders.registry import ENCODERS
from pipeline.evaluate.fidelity import fidelity
from pipeline.evaluate.report import report
from pipeline.evaluate.results_fidelity import PROTOCOLS
from synthchex_75k import LABELS

ENCODER_LINES = "\n".join(f"  {name:10} {about}" for name, about in ENCODERS.items())
EMBED = f"""
encoders:
{ENCODER_LINES}
  PATH or USER/NAME  any vision model of transformers, a folder or on the Hub
  MODULE:FUNCTION    a function; needs numpy only, see below

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
FIDELITY = """
RESULTS_JSON holds each metric overall and for each label: value, standard error, 95 % interval, n on both sides, and
the floor, which is the same metric between two halves of the real images. scripts/README.md tells what each metric
means and when not to believe it.

examples:
  python scripts/evaluate_images.py fidelity path/to/real-features path/to/features path/to/results.json
  python scripts/evaluate_images.py fidelity path/to/real-features path/to/features path/to/results.json --labels none
"""
REPORT = """
The page shows images of the sources that were embedded, if they are there. Real images may be covered by a data use
agreement: --no-images leaves all of them out.

examples:
  python scripts/evaluate_images.py report path/to/results.json --html path/to/results.html
  python scripts/evaluate_images.py report path/to/one.json path/to/other.json --html path/to/both.html --no-images
"""
EXAMPLES = """
examples:
  python scripts/evaluate_images.py embed path/to/real path/to/real-features
  python scripts/evaluate_images.py embed path/to/release path/to/features
  python scripts/evaluate_images.py fidelity path/to/real-features path/to/features path/to/results.json
  python scripts/evaluate_images.py report path/to/results.json --html path/to/results.html
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
    _add_fidelity(commands)
    _add_report(commands)
    return result


def _add_embed(commands: Any) -> None:
    add = add_command(commands, embed, EMBED).add_argument
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
    patients = "column of the metadata CSV that names the patient of an image (default: none)"
    add("--patient-column", metavar="NAME", help=patients)
    add_on_mismatch(add)
    add("--overwrite", action="store_true", help="replace features of another source, encoder or a larger limit")


def _add_fidelity(commands: Any) -> None:
    add = add_command(commands, fidelity, FIDELITY).add_argument
    add("real", metavar="REAL_FEATURES", type=Path, help="FEATURES_DIR of real images")
    add("synthetic", metavar="SYNTHETIC_FEATURES", type=Path, help="FEATURES_DIR of synthetic images, embedded alike")
    add("results_json", metavar="RESULTS_JSON", type=output_file, help="file for the results")
    protocol = "sound, or the definitions of the CheXGenBench code, with their faults"
    add("--protocol", choices=PROTOCOLS, help=protocol)
    labels = "labels to look at for themselves: all, none, or names separated by commas (default: all)"
    add("--labels", type=_labels, metavar="NAMES", help=labels)
    add("--seed", type=int, metavar="N", help="seed of everything that is drawn")


def _add_report(commands: Any) -> None:
    add = add_command(commands, report, REPORT).add_argument
    add("results_json", metavar="RESULTS_JSON", nargs="+", type=Path, help="results; several become columns of a table")
    add("--html", required=True, type=output_file, metavar="PAGE", help="file for the page")
    add("--real", metavar="SOURCE", help="source of the real images of fidelity, if it has moved")
    add("--synthetic", metavar="SOURCE", help="source of the synthetic images, if it has moved")
    add("--train", metavar="SOURCE", help="source of the training images, if it has moved")
    add("--no-images", dest="images", action="store_false", help="show no images and no prompts")
    add("--published", action="store_true", help="show the published values beside results of --protocol chexgenbench")


def _labels(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if names in (("all",), ("none",)):
        return LABELS if names == ("all",) else ()
    if unknown := [name for name in names if name not in LABELS]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: name all, none, or some of {', '.join(LABELS)}")
    return names


if __name__ == "__main__":
    start(main)
