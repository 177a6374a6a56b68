"""Filters a SOURCE by what a vision-language model says of each image, as SynthCheX-75K was made.

    label   asks the model about every image, and appends its answers to LABELS_CSV
    apply   writes the images that are kept as a new SOURCE
    report  shows the answers, by pathology and with examples

LABELS_CSV has a row for each image: filename, quality, response, model, latency_s. After any interruption run the same
command again: no image that has a label is asked about again. `filter_quality.py label --help` and so on say more.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for a clone in which nothing is installed

from _files import appearing
from _jobs import Jobs
from _judges import CallableJudge, Judge, ServerJudge, TransformersJudge
from _quality import DROPPED, META_PROMPT, QUALITIES, UNPARSED
from _quality_labels import LabelsFile, QualityLabel, check_belongs, read_labels
from _quality_report import count, table, write_page
from _quality_run import Run, run_here, write_answers
from _source import write_source
from _steps import StepError, add_on_mismatch, add_sharding, end_at_sigterm, exit_code, local_folder, positive

import synthchex_75k
from synthchex_75k import LABELS, Row

EXAMPLES = """
examples:
  python scripts/filter_quality.py label path/to/release labels.csv --model MODEL --base-url http://localhost:8000/v1
  python scripts/filter_quality.py label path/to/release labels.csv --model path/to/model --transformers
  python scripts/filter_quality.py report path/to/release labels.csv --html report.html
  python scripts/filter_quality.py apply path/to/release labels.csv path/to/filtered
"""


def label(
    source: str,
    labels_csv: Path,
    model: str,
    base_url: str | None = None,
    function: str | None = None,
    concurrency: int = 16,
    batch_size: int = 8,
    limit: int | None = None,
    meta_prompt: Path | None = None,
    engine: str = "here",
    workers: int = 2,
    on_mismatch: str = "error",
) -> int:
    """Labels the images of a source that have no label yet.

    Args:
        source: The SOURCE, as in `synthchex_75k.plan`.
        labels_csv: Where the labels go; continued if it is there.
        model: Name of the model, for the server or the Hub, or its folder.
        base_url: Address of an OpenAI-compatible server.
        function: A model with code of its own, as `MODULE:FUNCTION`. Without it and `base_url`, the model is one of
            `transformers` in this process.
        concurrency: Requests in flight, to a server.
        batch_size: Images at once, without a server.
        limit: Ask about at most so many images.
        meta_prompt: File with another meta-prompt than `META_PROMPT`.
        engine: `"here"`, or `"ray"` for Ray Data.
        workers: Processes of Ray that ask; each has a model of its own.
        on_mismatch: `"error"` or `"skip"`, as in `synthchex_75k.plan`.

    Returns:
        The exit code: 0, 1 if an image has no label.

    Raises:
        SourceError: The source cannot be used.
        StepError: No image gets an answer, or LABELS_CSV cannot be continued.
        OSError: Something could not be read or written.
    """
    text = meta_prompt.read_text(encoding="utf-8").strip() if meta_prompt else META_PROMPT
    rows = synthchex_75k.plan(source, on_mismatch)
    make = _judge(model, base_url, function, concurrency, batch_size)
    with LabelsFile(labels_csv, model, text) as labels:
        check_belongs(labels.labels, rows, labels_csv)
        if labels.repaired:
            print(f"{labels_csv}: a half-written last line of {labels.repaired} bytes was cut off", file=sys.stderr)
        labelled = {label.filename for label in labels.labels}
        todo = [row for row in rows if row.filename not in labelled][:limit]
        run = Run(todo, model, text, len(labelled) + len(todo))
        failed: dict[str, str] = {}
        if todo:
            answers = _ray(run, make, workers) if engine == "ray" else run_here(run, make())
            failed = write_answers(answers, run, labels)
        print(f"{labels_csv}: {len(labels.labels):,} of {len(rows):,} images have a label")
        print(table({"All images": Counter(label.quality for label in labels.labels)}))
    if failed:
        listed = "".join(f"\n- {name}: {why}" for name, why in [*failed.items()][:5])
        print(
            f"error: images without an answer; run this again to ask again ({len(failed):,} in all):{listed}",
            file=sys.stderr,
        )
    return min(len(failed), 1)


def apply(
    source: str,
    labels_csv: Path,
    output: Path,
    drop: tuple[str, ...] = DROPPED,
    unparsed: str = "error",
    num_proc: int = 1,
    max_shard_size: int = 500_000_000,
    on_mismatch: str = "error",
) -> None:
    """Writes the images that are kept as a new source, their bytes untouched, and prints what was dropped.

    Args:
        source: The SOURCE.
        labels_csv: A label for each of its images.
        output: The folder of the new SOURCE.
        drop: Qualities to leave out, of `QUALITIES`.
        unparsed: What to do with images whose answer was not understood: `"error"`, `"drop"` or `"keep"`.
        num_proc: Processes that write.
        max_shard_size: Upper bound of a zip: bytes.
        on_mismatch: `"error"` or `"skip"`, as in `synthchex_75k.plan`.

    Raises:
        SourceError: The source cannot be used.
        StepError: A label is missing or not understood, nothing is left, or the folder cannot be used.
        OSError: Something could not be read or written.
    """
    with Jobs(num_proc) as jobs:
        rows, labels = synthchex_75k.plan(source, on_mismatch), read_labels(labels_csv)
        check_belongs(labels, rows, labels_csv)
        quality = {label.filename: label.quality for label in labels}
        unlabelled = [row for row in rows if row.filename not in quality]
        _stop_for("images without a label; run `filter_quality.py label` again", unlabelled)
        if unparsed == "error":
            advice = "images whose answer was not understood; look at them, then pass --unparsed drop or keep"
            _stop_for(advice, [row for row in rows if quality[row.filename] == UNPARSED])
        dropped = {*drop, *([UNPARSED] if unparsed == "drop" else [])}
        kept = [row for row in rows if quality[row.filename] not in dropped]
        if not kept:
            raise StepError(f"{source}: no image is left; nothing was written")
        written = write_source(kept, output, jobs, max_shard_size)
    print(f"{output}: {len(kept):,} of {len(rows):,} images kept, zips: {written.shards}")
    print(_dropped(rows, labels, dropped))


def report(source: str, labels_csv: Path, html: Path | None = None, on_mismatch: str = "error") -> None:
    """Prints how many images have each quality, of all and of those with each pathology.

    Args:
        source: The SOURCE.
        labels_csv: Labels of some of its images, or all.
        html: Where to write a page with examples.
        on_mismatch: `"error"` or `"skip"`, as in `synthchex_75k.plan`.

    Raises:
        SourceError: The source cannot be used.
        StepError: LABELS_CSV cannot be used.
        OSError: Something could not be read or written.
    """
    rows, labels = synthchex_75k.plan(source, on_mismatch), read_labels(labels_csv)
    check_belongs(labels, rows, labels_csv)
    print(f"{labels_csv}: {len(labels):,} of {len(rows):,} images have a label")
    print(table(count(rows, labels)))
    if html:
        page = write_page(rows, labels)
        with appearing(html) as incomplete:
            incomplete.write_text(page, encoding="utf-8")
        print(f"{html}: {len(page.encode()) / 1e6:.1f} MB")


def _judge(model: str, base_url: str | None, function: str | None, concurrency: int, batch_size: int) -> Any:
    """Returns what makes the judge: where it is used, which with Ray is elsewhere."""

    def make() -> Judge:
        if base_url:
            return ServerJudge(model, base_url, concurrency)
        return CallableJudge(function, batch_size) if function else TransformersJudge(model, batch_size)

    return make


def _ray(run: Run, make: Any, workers: int) -> Any:
    from _quality_ray import run_with_ray  # which takes Ray

    return run_with_ray(run, make, workers)


def _stop_for(problem: str, rows: list[Row]) -> None:
    if rows:
        names = "; ".join(row.filename for row in rows[:5])
        raise StepError(f"{problem} ({len(rows):,} in all): {names}")


def _dropped(rows: list[Row], labels: list[QualityLabel], dropped: set[str]) -> str:
    """Says what was dropped, by quality and by pathology."""
    counts = count(rows, labels)
    by_quality = counts["All images"]
    lines = ["dropped: " + ", ".join(f"{name} {by_quality[name]:,}" for name in sorted(dropped))]
    for name in ("All images", *LABELS):
        lost, of = sum(counts[name][quality] for quality in dropped), counts[name].total()
        lines.append(f"  {name:28}{lost:>8,} of {of:>8,}{f'{lost / of:8.1%}' if of else '':>8}")
    return "\n".join(lines)


# The command line


def main(arguments: list[str] | None = None) -> int:
    """Runs the program.

    Args:
        arguments: Of the command line. Default: those of this process.

    Returns:
        The exit code: 0, 1 after an error or where an image got no label, 130 after Ctrl-C.
    """
    options = vars(parser().parse_args(arguments))
    options.pop("transformers", None)
    command = {"label": label, "apply": apply, "report": report}[options.pop("command")]
    return exit_code(lambda: command(**options))  # type: ignore[operator]


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    about, layout = str(__doc__).split("\n\n", 1)
    result = argparse.ArgumentParser(
        description=about, epilog=layout + EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = result.add_subparsers(dest="command", required=True, metavar="label|apply|report")
    _add_label(commands)
    _add_apply(commands)
    _add_report(commands)
    return result


def _add_label(commands: Any) -> None:
    add = _command(commands, "label", label)
    add("--model", required=True, help="name of the model, or its folder; it goes into LABELS_CSV")
    where = add.__self__.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--base-url", help="OpenAI-compatible server, such as http://localhost:8000/v1; its key is in OPENAI_API_KEY"
    )
    where.add_argument(
        "--transformers", action="store_true", help="run the model in this process, on a GPU if there is one"
    )
    where.add_argument(
        "--callable", dest="function", metavar="MODULE:FUNCTION", help="function of images and questions; see README"
    )
    add("--concurrency", type=positive, default=16, help="requests in flight, to a server (%(default)s)")
    add("--batch-size", type=positive, default=8, help="images at once, without a server (%(default)s)")
    add("--limit", type=positive, metavar="N", help="ask about at most N more images")
    add("--meta-prompt", type=Path, metavar="FILE", help="another question; default: that of SynthCheX-75K")
    add("--engine", choices=["here", "ray"], default="here", help="where to ask from: this process, or Ray Data")
    add("--workers", type=positive, default=2, help="processes that ask, with Ray (%(default)s)")


def _add_apply(commands: Any) -> None:
    add = _command(commands, "apply", apply)
    add("output", metavar="OUTPUT_SOURCE", type=local_folder, help="a folder of its own, made if it is not there")
    add(
        "--drop",
        type=_qualities,
        default=DROPPED,
        metavar="QUALITIES",
        help=f'what to leave out ("{",".join(DROPPED)}")',
    )
    add(
        "--unparsed",
        choices=["error", "drop", "keep"],
        default="error",
        help="images whose answer was not understood (%(default)s)",
    )
    add_sharding(add, "zip")


def _add_report(commands: Any) -> None:
    add = _command(commands, "report", report)
    add("--html", type=Path, metavar="FILE", help="write a page with examples of each quality")


def _command(commands: Any, name: str, function: Any) -> Any:
    about = function.__doc__.partition("\n")[0]
    add = commands.add_parser(
        name, help=about, description=about, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    ).add_argument
    add("source", metavar="SOURCE", help="folder or archive, or its address")
    add("labels_csv", metavar="LABELS_CSV", type=Path, help="CSV of labels")
    add_on_mismatch(add)
    return add


def _qualities(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not {*names} <= {*QUALITIES}:
        raise argparse.ArgumentTypeError(f"{text}: name some of {', '.join(QUALITIES)}")
    return names


if __name__ == "__main__":
    end_at_sigterm()
    try:
        code = main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # without waiting for requests in flight, whose answers nobody would read
