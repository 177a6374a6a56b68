"""Embeds the images of a SOURCE that have no features yet."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline.columns import read_patients
from pipeline.engine import check_engine, start_engine
from pipeline.errors import StepError, listing
from pipeline.evaluate.embedding.encoding import Encoding
from pipeline.evaluate.embedding.output import FeaturesWriter, Resolved, crc32_by_name, is_whole
from pipeline.evaluate.encoders.registry import resolve_encoder
from pipeline.evaluate.features import (
    FEATURES_JSON,
    EncodedWith,
    Features,
    changed_rows,
    fingerprint_of,
    read_features,
    read_index,
)
from pipeline.folder import OutputFolder, local_source, read_manifest
from pipeline.jobs import WorkerPool, available_cpus
from pipeline.rows import AnyRow, plan_any
from synthchex_75k import printable

DEFAULT = "rad-dino"
CHANGED = "of an image, prompt, label or patient that has changed"


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
    resolved = resolve_encoders(encoder or [DEFAULT], model or [], revision or [])
    wanted = Wanted(source, output, patient_column)
    with open_features([wanted], resolved, limit, on_mismatch, overwrite) as (opened,):
        opened.embed(batch_size, engine, workers)


class Wanted(NamedTuple):
    """What `open_features` opens.

    Attributes:
        source: The SOURCE or PARQUET REPO.
        output: FEATURES_DIR.
        patient_column: Column of the metadata CSV that names the patient of an image; None: no patients.
    """

    source: str
    output: Path
    patient_column: str | None = None


class OpenFeatures(NamedTuple):
    """A FEATURES_DIR that is locked and checked, and what a run has to do in it.

    Attributes:
        source: Address of the source; a local one as an absolute path.
        output: FEATURES_DIR, as it was named.
        rows: The images of the source that are asked for.
        patients: The patient of each, or None.
        source_rows: Number of images of the source.
        encoders: The encoders that are asked for.
        folder: The folder.
        writer: What has to be done.
    """

    source: str
    output: Path
    rows: list[AnyRow]
    patients: list[str | None]
    source_rows: int
    encoders: list[Resolved]
    folder: OutputFolder
    writer: FeaturesWriter

    def embed(self, batch_size: int, engine: str, workers: int) -> None:
        """Embeds the images that have no features yet.

        Args:
            batch_size: Images at once.
            engine: See `embed`.
            workers: See `embed`.

        Raises:
            SourceError: An image is damaged.
            StepError: An image cannot be embedded.
            OSError: A file cannot be read or written.
        """
        start, writer = time.monotonic(), self.writer
        if writer.items:
            task = Encoding(tuple(one.encoder for one in self.encoders), writer.needed, batch_size)
            writer.write(start_engine(task, engine, workers)(writer.items))
        writer.finish(self.source, self.source_rows)
        _report(self.output, read_index(self.folder.path), writer.embedded, time.monotonic() - start)

    def others(self) -> dict[str, EncodedWith]:
        """Returns the encoders whose features are there, which are not asked for, and which this run keeps; by name.

        Raises:
            StepError: `features.json` is damaged.
        """
        asked = [one.name for one in self.encoders]
        index = read_index(self.folder.path) if (self.folder.path / FEATURES_JSON).is_file() else {}
        return {name: one for name, one in index.items() if name not in asked and is_whole(one, self.folder)}

    def check_same_images(self, encoders: Sequence[EncodedWith]) -> None:
        """Checks that features are of the images that are asked for, as these are now.

        Args:
            encoders: Some of `others`.

        Raises:
            StepError: They are of other ones, or were embedded with other prompts, labels or patients.
            SourceError: An image is damaged.
            OSError: A file cannot be read.
        """
        asked = {row.filename for row in self.rows}
        found = [read_features(self.folder.path, encoder, ()) for encoder in encoders]
        for one in found:
            known = {*one.filenames.tolist()}
            self._refuse(one, f"of other images ({len(known):,}; this run takes {len(asked):,})", asked ^ known)
            self._refuse(one, CHANGED, [row.filename for row in changed_rows(one, self.rows, {}, self.patients)])
        crcs = self._crcs() if found else {}  # last, and once for all encoders: it may read all images
        for one in found:
            of_images = zip(one.filenames.tolist(), one.crc32.tolist())
            self._refuse(one, CHANGED, [name for name, crc32 in of_images if crcs.get(name, crc32) != crc32])

    def _refuse(self, features: Features, what: str, differing: Collection[str]) -> None:
        if differing:
            raise StepError(
                f"{self.output} has features of {features.encoder.name} too, {what}: {listing(sorted(differing), 3)}. "
                f"Take the same images as before, or name that encoder as well; else delete {self.output.parent}, or "
                "name another folder (--overwrite only replaces features of encoders that are named)."
            )

    def _crcs(self) -> dict[str, int]:
        """Returns the CRC-32 of images by file name, but of those that would be transferred a second time for it."""
        is_local = "://" not in self.source
        return crc32_by_name([row for row in self.rows if is_local or row.zipped])


@contextlib.contextmanager
def open_features(
    wanted: Sequence[Wanted], encoders: list[Resolved], limit: int | None, on_mismatch: str, overwrite: bool
) -> Iterator[list[OpenFeatures]]:
    """Opens FEATURES_DIRs until the end of the context: all are checked before an image is embedded for one of them.

    Args:
        wanted: Which ones.
        encoders: Those of `resolve_encoders`.
        limit: See `embed`.
        on_mismatch: See `embed`.
        overwrite: See `embed`.

    Raises:
        SourceError: A source cannot be used.
        StepError: A folder cannot be used, or features of another request would be lost.
        WorkerDiedError: A process that checked finished files was killed.
        OSError: A file cannot be read.
    """
    with contextlib.ExitStack() as stack:
        opened = []
        # The workers start before the plans are in memory. A network client may have threads already, which a fork
        # loses; the workers do not need them, since they read files of FEATURES_DIRs only.
        with WorkerPool(available_cpus()) as pool:
            for one in wanted:
                rows = plan_any(one.source, on_mismatch)
                chosen = sample(rows, limit)
                patients = read_patients(one.source, chosen, one.patient_column)
                folder = stack.enter_context(_open(one, limit, encoders, overwrite))
                writer = FeaturesWriter(folder, pool, chosen, patients, encoders)
                opened.append(
                    OpenFeatures(
                        source=local_source(one.source),  # absolute: a function may change the working directory
                        output=one.output,
                        rows=chosen,
                        patients=patients,
                        source_rows=len(rows),
                        encoders=encoders,
                        folder=folder,
                        writer=writer,
                    )
                )
        yield opened


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


def resolve_encoders(names: Sequence[str], models: Sequence[str], revisions: Sequence[str]) -> list[Resolved]:
    """Finds encoders, and what their features depend on; loads none.

    Args:
        names: Names of encoders; one that is repeated counts once.
        models: Their weights, as `embed` takes them.
        revisions: Revisions of weights on the Hub, as `embed` takes them.

    Raises:
        StepError: One cannot be used, or two would be stored under one name.
    """
    names = [*dict.fromkeys(names)]
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


def _by_encoder(option: str, names: Sequence[str], values: Sequence[str]) -> dict[str, str]:
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


def _open(wanted: Wanted, limit: int | None, encoders: list[Resolved], overwrite: bool) -> OutputFolder:
    """Opens FEATURES_DIR. Each encoder has a request of its own, and those of the encoders not asked for stay.

    The path becomes absolute, since a function may change the working directory.
    """
    path = wanted.output.absolute()
    asked = {"source": local_source(wanted.source), "limit": limit, "patient column": wanted.patient_column}
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
