"""Embeds the images of a SOURCE that have no features yet."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections import Counter
from pathlib import Path

from pipeline.columns import read_patients
from pipeline.engine import check_engine, start_engine
from pipeline.errors import StepError
from pipeline.evaluate.embedding.encoding import Encoding
from pipeline.evaluate.embedding.output import FeaturesWriter, Resolved
from pipeline.evaluate.encoders.registry import resolve_encoder
from pipeline.evaluate.features import FEATURES_JSON, EncodedWith, fingerprint_of, read_index
from pipeline.folder import OutputFolder, local_source, read_manifest
from pipeline.jobs import WorkerPool, available_cpus
from pipeline.rows import AnyRow, plan_any
from synthchex_75k import printable

DEFAULT = "rad-dino"


def embed(
    source: str,
    output: Path,
    *,
    encoder: list[str] | None = None,
    model: list[str] | None = None,
    revision: list[str] | None = None,
    batch_size: int = 16,
    engine: str = "local",
    workers: int = 2,
    limit: int | None = None,
    patient_column: str | None = None,
    on_mismatch: str = "error",
    overwrite: bool = False,
) -> None:
    """Embeds the images of a SOURCE that have no features yet.

    Args:
        source: The SOURCE, or a folder that `convert_to_parquet.py` wrote, or the address of either.
        output: FEATURES_DIR; created where it does not exist. Encoders that are there already stay.
        encoder: Names of encoders. Default: `rad-dino`.
        model: Weights, folders or names on the Hub: one for the only encoder, or `NAME=WEIGHTS` for each of several.
            Default: those of the encoder's authors.
        revision: Commits, branches or tags of weights on the Hub, given as `model` is.
        batch_size: Images at once; halved when memory runs out.
        engine: `"local"`, or `"ray"` for Ray Data.
        workers: Processes of Ray; each loads the encoders.
        limit: Embed this number of images, chosen at random by a hash of the file name, so that a larger limit adds to
            the images of a smaller one. Default: all.
        patient_column: Column of the metadata CSV that names the patient of an image. Default: none; each image counts
            as a draw of its own.
        on_mismatch: `"error"` or `"skip"`, as in `synthchex_75k.plan`.
        overwrite: Remove features of another source, of another version of an encoder, or beyond the limit, and
            patients if no column is given now.

    Raises:
        SourceError: The source cannot be used, or an image is damaged.
        StepError: An encoder or the folder cannot be used, or an image cannot be embedded.
        WorkerDiedError: A process that checked finished files was killed.
        OSError: A file cannot be read or written.
    """
    check_engine(engine)
    resolved = _resolve([*dict.fromkeys(encoder or [DEFAULT])], model or [], revision or [])
    with contextlib.ExitStack() as stack:
        with WorkerPool(available_cpus()) as pool:  # starts before a network client starts threads, which a fork breaks
            rows = plan_any(source, on_mismatch)
            chosen = sample(rows, limit)
            patients = read_patients(source, chosen, patient_column)
            request = (output.absolute(), source, limit, patient_column, resolved, overwrite)
            folder = stack.enter_context(_open(*request))
            writer = FeaturesWriter(folder, pool, chosen, patients, resolved)
        start = time.monotonic()
        if writer.items:
            task = Encoding(tuple(one.encoder for one in resolved), writer.needed, batch_size)
            writer.write(start_engine(task, engine, workers)(writer.items))
        writer.finish(local_source(source), len(rows))
        _report(output, read_index(folder.path), writer.embedded, time.monotonic() - start)


def sample(rows: list[AnyRow], limit: int | None) -> list[AnyRow]:
    """Returns some rows in their order, chosen at random by a hash of the file name: a larger sample has a smaller one.

    Args:
        rows: The rows.
        limit: How many. Default: all.
    """
    if limit is None or limit >= len(rows):
        return rows
    ranked = sorted(rows, key=lambda row: hashlib.sha256(row.filename.encode()).digest())
    chosen = {row.filename for row in ranked[:limit]}
    return [row for row in rows if row.filename in chosen]


def _resolve(names: list[str], models: list[str], revisions: list[str]) -> list[Resolved]:
    of_model, of_revision = _by_encoder("--model", names, models), _by_encoder("--revision", names, revisions)
    resolved = []
    for name in names:
        encoder = resolve_encoder(name, of_model.get(name), of_revision.get(name))
        about = json.loads(json.dumps(encoder.describe()))
        resolved.append(Resolved(encoder, about, fingerprint_of(about)))
    doubled = [name for name, count in Counter(one.name for one in resolved).items() if count > 1]
    if doubled:
        raise StepError(f"two encoders would be stored as {doubled[0]}; rename the folder of one, or use two folders")
    return resolved


def _by_encoder(option: str, names: list[str], values: list[str]) -> dict[str, str]:
    """Returns the value of an option for each encoder: `VALUE` for the only one, or `NAME=VALUE`."""
    if len(names) == 1 and len(values) == 1 and not values[0].startswith(f"{names[0]}="):
        return {names[0]: values[0]}
    found: dict[str, str] = {}
    for value in values:
        name, _, rest = value.partition("=")
        if name not in names or not rest or name in found:
            raise StepError(
                f"{option} {value}: give one {option} for the only encoder, or NAME={option[2:].upper()} once for each "
                f"of {', '.join(names)}"
            )
        found[name] = rest
    return found


def _open(
    path: Path,
    source: str,
    limit: int | None,
    patient_column: str | None,
    encoders: list[Resolved],
    overwrite: bool,
) -> OutputFolder:
    """Opens FEATURES_DIR. Each encoder has a request of its own, and those of the encoders not asked for stay.

    The path is absolute, since a function may change the working directory.
    """
    asked = {"source": local_source(source), "limit": limit, "patient column": patient_column}
    request = {f"{one.name} {key}": value for one in encoders for key, value in {**asked, **one.about}.items()}
    folder = OutputFolder(path, FEATURES_JSON, request, overwrite, live=(FEATURES_JSON,))
    names = [one.name for one in encoders]
    earlier = read_manifest(path)["request"]  # read again, in case another run held the lock
    kept = {key: value for key, value in earlier.items() if key.partition(" ")[0] not in names}
    folder.request = dict(sorted((kept | request).items()))  # else a run with nothing to do would change the manifest
    return folder


def _report(output: Path, index: dict[str, EncodedWith], embedded: int, seconds: float) -> None:
    speed = f" in {seconds:.1f} s, {embedded / seconds:,.1f} images/s" if embedded else ""
    print(f"{printable(str(output))}: {embedded:,} images embedded{speed}")
    for name, encoder in index.items():
        outputs = ", ".join(f"{output} {width:,}" for output, width in encoder.outputs.items())
        print(f"  {name}: {encoder.rows:,} of {encoder.source_rows:,} images; {outputs}")
