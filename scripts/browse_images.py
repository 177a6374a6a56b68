# /// script
# requires-python = ">=3.10"
# dependencies = ["datasets", "gradio>=6.31", "pillow"]
# ///
"""Shows the images of a SOURCE, converted folder or dataset on the Hub in a browser, with filters.

The page filters by label, words of the prompt, file name, patient, and the quality that a judge gave; it sorts by what
an evaluation says of single images, counts the labels of what it shows, and shows one image large, with everything that
is known of it. Its address holds the filter: whoever opens it sees the same. Nothing is written to the disk, and the
page loads nothing from other servers. It is reachable from this machine only, unless --host says otherwise.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.browse.app import check_browse, listen, serve
from pipeline.browse.gallery import Gallery
from pipeline.browse.index import Answer, ClosestImage, ImageList, Index, Listed
from pipeline.cli import add_on_mismatch, exit_code, input_file, make_parser, start
from pipeline.columns import read_columns
from pipeline.errors import StepError, counted
from pipeline.evaluate.results.results import Results, read_results
from pipeline.evaluate.results.results_fidelity import Fidelity
from pipeline.evaluate.results.results_section import Section
from pipeline.hub import check_repo_id
from pipeline.progress import write_line
from pipeline.quality.labels_csv import read_labels
from pipeline.rows import AnyRow, plan_any

EXAMPLES = """
examples:
  python scripts/browse_images.py path/to/release
  python scripts/browse_images.py path/to/parquet --patient-column patientID --port 8000
  python scripts/browse_images.py USER/NAME --labels path/to/labels.csv --results path/to/results.json
"""
ARGUMENTS = "BROWSE_ARGUMENTS"  # of the environment; a Space starts this file without arguments
FIDELITY_TITLES = {
    "adds_most_to_fd": "adds most to FD",
    "least_like_real": "least like any real image",
    "least_like_prompt": "least like its prompt",
}


def main(arguments: list[str] | None = None) -> int:
    """Runs the program.

    Args:
        arguments: Of the command line. Default: those of this process, or without any those in `ARGUMENTS`.

    Returns:
        The exit code: 1 after an error, 130 after Ctrl-C.
    """
    if arguments is None:
        arguments = sys.argv[1:] or shlex.split(os.environ.get(ARGUMENTS, ""))
    options = vars(parser().parse_args(arguments))
    return exit_code(lambda: browse(**options))


def browse(
    source: str,
    labels: Path | None = None,
    results: Path | None = None,
    real: str | None = None,
    patient_column: str | None = None,
    on_mismatch: str = "error",
    host: str = "127.0.0.1",
    port: int = 7860,
) -> int:
    """Reads everything but the images, and serves the page until Ctrl-C.

    Args:
        source: SOURCE, PARQUET REPO or `USER/NAME`.
        labels: LABELS_CSV of `filter_quality.py`.
        results: RESULTS_JSON of `evaluate_images.py`.
        real: SOURCE or PARQUET REPO of the images that RESULTS_JSON names as the closest ones.
        patient_column: Column that names the patient of an image.
        on_mismatch: `"error"` or `"skip"`, as in `synthchex_75k.plan`.
        host: Address to listen at.
        port: Port; 0: any free one.

    Returns:
        The exit code.

    Raises:
        SourceError: A source cannot be used.
        StepError: Another file cannot, or the address.
    """
    check_browse()
    with listen(host, port) as listening:
        try:
            gallery = read_gallery(source, labels, results, real, patient_column, on_mismatch)
            serve(gallery, f"Images of {source}", listening)
        except KeyboardInterrupt:
            return 128 + signal.SIGINT
    return 0


def read_gallery(
    source: str, labels: Path | None, results: Path | None, real: str | None, patient_column: str | None, mismatch: str
) -> Gallery:
    """Returns what is shown, from the options of `browse`; no image is read.

    Raises:
        SourceError: A source cannot be used.
        StepError: Another file cannot.
    """
    answers = read_answers(labels) if labels else {}
    lists = [*image_lists(read_results(results))] if results else []
    address = address_of(source)
    rows = plan_any(address, mismatch)
    patients = read_columns(address, rows, [patient_column])[patient_column] if patient_column else []
    others = {row.filename: row for row in plan_any(address_of(real), "skip")} if real else {}
    report_strangers("--labels", labels, {*answers}, rows)
    report_strangers("--results", results, {name for found in lists for name in found.images}, rows)
    return Gallery(Index(rows, answers, patients, lists), others)


def address_of(source: str) -> str:
    """Returns the address of a source: of `USER/NAME`, unless it is a path that exists, that on the Hub.

    Example:
        >>> address_of("raman07/SynthCheX-75K"), address_of("./path/to/release")
        ('hf://datasets/raman07/SynthCheX-75K', './path/to/release')
    """
    if "://" in source or os.path.exists(source):
        return source
    try:
        return f"hf://datasets/{check_repo_id(source)}"
    except ValueError:
        return source


def read_answers(labels: Path) -> dict[str, Answer]:
    """Returns a judge's answers by file name."""
    return {found.filename: Answer(found.quality, found.response, found.model) for found in read_labels(labels)}


def image_lists(results: Results) -> Iterator[ImageList]:
    """Yields the lists of single images in a results file."""
    if results.fidelity:
        yield from _fidelity_lists(results.fidelity)
    for section in (results.privacy, results.utility, results.reports):
        if section:
            yield from _pair_lists(section)


def _fidelity_lists(fidelity: Fidelity) -> Iterator[ImageList]:
    for encoder, found in fidelity.images.items():
        for name, title in FIDELITY_TITLES.items():
            images = {}
            for image in getattr(found, name):
                near = image.nearest_real
                about = {"Distance": f"{near.distance:.6g} ({encoder})"} if near else {}
                closest = ClosestImage("real", near.filename, near.crc32, near.prompt, about) if near else None
                images[image.filename] = Listed(image.value, image.crc32, closest)
            if images:  # no encoder of images alone tells what is least like its prompt
                yield ImageList(f"{title} ({encoder})", images)


def _pair_lists(section: Section) -> Iterator[ImageList]:
    for method, lists in section.pairs.items():
        for name, pairs in lists.items():
            images: dict[str, Listed] = {}
            for pair in pairs:
                about = {"Value": f"{pair.value:.6g} ({method})"}
                about |= {text: f"{number:.6g}" for text, number in pair.about.items()}
                closest = ClosestImage("training", pair.train.filename, pair.train.crc32, pair.train.prompt, about)
                images.setdefault(pair.synthetic.filename, Listed(pair.value, pair.synthetic.crc32, closest))
            yield ImageList(f"nearest to a training image: {name.replace('_', ' ')} ({method})", images)


def report_strangers(option: str, path: Path | None, names: set[str], rows: list[AnyRow]) -> None:
    """Prints how many images of a file are not in the source, as after a filter; none at all is another source."""
    strange = names - {row.filename for row in rows}
    if strange and strange == names:
        raise StepError(f"{option} {path} is of another source: none of its {counted(len(names), 'image')} is here")
    if strange:
        write_line(f"{path}: {counted(len(strange), 'image')} of it are not in the source, and not shown")


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    result = make_parser(main, EXAMPLES, browse)
    add: Any = result.add_argument
    add("source", metavar="SOURCE", help="SOURCE or PARQUET REPO, a path or an address, or USER/NAME on the Hub")
    add("--labels", type=input_file, metavar="LABELS_CSV", help="answers of a judge, from `filter_quality.py label`")
    add("--results", type=input_file, metavar="RESULTS_JSON", help="an evaluation, from `evaluate_images.py`")
    real = "source of the images that RESULTS_JSON names as the closest ones; without it only their names are shown"
    add("--real", metavar="SOURCE", help=real)
    add("--patient-column", metavar="NAME", help="column of the metadata that names the patient of an image")
    add_on_mismatch(add)
    add("--host", metavar="ADDRESS", help="address to listen at; 0.0.0.0 is that of all networks")
    add("--port", type=int, metavar="N", help="port; 0 is any free one")
    return result


if __name__ == "__main__":
    start(main)
