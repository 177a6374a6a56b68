"""Labels the images of a SOURCE that have no label yet."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from pipeline.engine import check_engine, start_engine
from pipeline.errors import StepError, counted, listing
from pipeline.facts import META_PROMPT
from pipeline.quality.ask import Questions, write_answers
from pipeline.quality.judges import MAX_TOKENS, JudgeOptions
from pipeline.quality.labels_csv import LabelsFile, check_belongs, check_run
from pipeline.quality.report import counts_table
from pipeline.rows import plan


def label(
    source: str,
    labels_csv: Path,
    model: str,
    *,
    base_url: str | None = None,
    function: str | None = None,
    concurrency: int = 16,
    batch_size: int = 8,
    max_tokens: int = MAX_TOKENS,
    limit: int | None = None,
    meta_prompt: Path | None = None,
    engine: str = "local",
    workers: int = 2,
    on_mismatch: str = "error",
) -> int:
    """Asks a model about each image without a label, and appends the answers to LABELS_CSV.

    Args:
        source: The SOURCE, as in `synthchex_75k.plan`.
        labels_csv: File for the labels; an existing one is continued.
        model: Name of the model, for the server or the Hub, or its folder.
        base_url: Address of an OpenAI-compatible server.
        function: A model with code of its own, as `MODULE:FUNCTION`. Without it and `base_url`, the model is one of
            `transformers` in this process.
        concurrency: Parallel requests to a server.
        batch_size: Images at once, without a server.
        max_tokens: Upper bound of an answer's length, not with `function`: tokens.
        limit: Ask about at most this number of images.
        meta_prompt: File with another meta-prompt than `META_PROMPT`.
        engine: `"local"`, or `"ray"` for Ray Data.
        workers: Processes of Ray that ask; each has a model of its own.
        on_mismatch: `"error"` or `"skip"`, as in `synthchex_75k.plan`.

    Returns:
        The exit code: 0, 1 if an image has no label.

    Raises:
        SourceError: The source cannot be used.
        StepError: No image gets an answer, LABELS_CSV cannot be continued, or the meta-prompt cannot be read.
        OSError: A file cannot be read or written.
    """
    text = _read_meta_prompt(meta_prompt) if meta_prompt else META_PROMPT
    check_run(labels_csv, model, text)
    judge = JudgeOptions(model, base_url, function, concurrency, batch_size, max_tokens)
    judge.check_installed()
    check_engine(engine)
    questions = Questions(judge, text)
    rows = plan(source, on_mismatch)
    # A new file is created when the model is loaded; if an old one has all labels, no model is needed.
    ask = None if labels_csv.is_file() else start_engine(questions, engine, workers)
    with LabelsFile(labels_csv, model, text) as labels:
        check_belongs(labels.labels, rows, labels_csv)
        if labels.repaired:
            print(f"{labels_csv}: cut off a half-written last line of {labels.repaired} bytes", file=sys.stderr)
        labelled = {known.filename for known in labels.labels}
        todo = [row for row in rows if row.filename not in labelled][:limit]
        failed: dict[str, str] = {}
        if todo:
            ask = ask or start_engine(questions, engine, workers)
            failed = write_answers(ask(todo), labels, len(todo))
        print(f"{labels_csv}: {len(labels.labels):,} of {len(rows):,} images have a label")
        print(counts_table({"All images": Counter(known.quality for known in labels.labels)}))
    if failed:
        reasons = listing([f"{name}: {why}" for name, why in failed.items()], separator="\n- ")
        count = counted(len(failed), "image")
        print(f"error: no answer for {count}; run the command again to ask again:\n- {reasons}", file=sys.stderr)
    return min(len(failed), 1)


def _read_meta_prompt(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError as error:
        raise StepError(f"--meta-prompt {path}: not a text in UTF-8: {error}") from None
