"""All of an evaluation: features, fidelity, privacy, utility and the page; what is finished is kept."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.errors import MissingPackageError, StepError, listing, one_line
from pipeline.evaluate.embedding.embed import embed
from pipeline.evaluate.encoders.registry import resolve_encoder
from pipeline.evaluate.features import FEATURES_JSON
from pipeline.evaluate.fidelity.fidelity import fidelity
from pipeline.evaluate.names import DOUBLED, NamedPairs, pair_by_names
from pipeline.evaluate.page.report import report
from pipeline.evaluate.privacy.privacy import privacy
from pipeline.evaluate.reports.reports import reports
from pipeline.evaluate.results.results import Results, check_results_path, read_results
from pipeline.evaluate.settings import SETTINGS, Example, limited, plan_examples, splits
from pipeline.evaluate.utility.utility import utility
from pipeline.files import atomic_write, sha256_of
from pipeline.folder import local_source
from pipeline.lock import FolderLock
from pipeline.progress import notice, write_line
from pipeline.source_json import parse_object
from synthchex_75k import SourceError, printable

AUTOMATIC = ("rad-dino", "xrv", "biovil-t")  # of radiographs: features; pathologies; images and texts
RESULTS, PAGE, STEPS = "results.json", "results.html", ".steps.json"


class Step(NamedTuple):
    """A step that writes a section of the results.

    Attributes:
        name: Name of the section.
        options: What decides the section, beside the features.
        run: Computes and writes it.
        sees_images: Whether it reads images itself, of which some may have no features: it is never known to be done
            before, and resumes from its own files.
    """

    name: str
    options: dict[str, Any]
    run: Callable[[], None]
    sees_images: bool = False


def run(
    real_train: str,
    synthetic: str,
    real_test: str,
    results_dir: Path,
    *,
    encoder: list[str] | None = None,
    model: list[str] | None = None,
    revision: list[str] | None = None,
    limit: int | None = None,
    patient_column: str | None = None,
    batch_size: int = 16,
    engine: str = "local",
    workers: int = 2,
    on_mismatch: str = "error",
    labels: tuple[str, ...] | None = None,
    settings: tuple[str, ...] = SETTINGS,
    seeds: int = 3,
    backbone: str | None = None,
    report_model: str | None = None,
    seed: int = 0,
    images: bool = True,
    overwrite: bool = False,
) -> None:
    """Does embed, fidelity, privacy, utility and report; reports, frd and inception_score only if asked for.

    Args:
        real_train: SOURCE of the real images that the generator was trained on, or a folder that
            `convert_to_parquet.py` wrote.
        synthetic: The same of the synthetic images.
        real_test: The same of real images of other patients.
        results_dir: Gets `features/`, `results.json` and `results.html`.
        encoder: Names of encoders, as in `embed`. Default: those of `rad-dino`, `xrv` and `biovil-t` whose packages
            are installed and whose weights are at hand or can be downloaded.
        model: Weights of encoders, as in `embed`.
        revision: Revisions of weights on the Hub, as in `embed`.
        limit: Embed this number of images of each source. Default: all.
        patient_column: Column of the real images' metadata that names the patient. Default: none; each image counts as
            a draw of its own.
        batch_size: Images at once.
        engine: `"local"`, or `"ray"` for Ray Data.
        workers: Processes of Ray.
        on_mismatch: `"error"` or `"skip"`, as in `synthchex_75k.plan`.
        labels: The labels whose rows are compared for themselves too. Default: all 14.
        settings: What classifiers are trained on.
        seeds: How often each is trained.
        backbone: A model of `timm` to train on images. Default: none; a probe is trained on the features.
        report_model: A model of `transformers` that learns to write reports. Default: none.
        seed: Seeds everything that is drawn.
        images: Whether the page shows images and their prompts.
        overwrite: Replace features of other sources, encoders or a larger limit.

    Raises:
        SourceError: A source cannot be used, or an image is damaged.
        StepError: A step cannot be done for another reason than a missing package.
        WorkerDiedError: A process that checked finished files was killed.
        OSError: A file cannot be read or written.
    """
    sources = {"train": real_train, "synthetic": synthetic, "test": real_test}
    patients = {"train": patient_column, "synthetic": None, "test": patient_column}
    _check_folder(results_dir, sources.values())
    skipped: list[str] = []
    with notice("reading the sources"):
        sides = {
            side: plan_examples(source, "synthetic" if side == "synthetic" else "real", patients[side], on_mismatch)
            for side, source in sources.items()
        }
        chosen = {side: limited(examples, limit) for side, examples in sides.items()}
        splits(chosen["train"], chosen["synthetic"], chosen["test"], settings, seeds, seed)  # for its errors
        pair = _pair(sides, chosen, skipped)
    names = encoder or _usable_encoders(skipped)
    with FolderLock(results_dir):
        results_json = results_dir / RESULTS
        check_results_path(results_json)
        _done(results_dir)  # an error of it comes before the long work
        folders = {side: results_dir / "features" / side for side in sources}
        for side, source in sources.items():
            write_line(f"== embed: {side}")
            embed(
                source,
                folders[side],
                encoder=names,
                model=model,
                revision=revision,
                batch_size=batch_size,
                engine=engine,
                workers=workers,
                limit=limit,
                patient_column=patients[side],
                on_mismatch=on_mismatch,
                overwrite=overwrite,
            )
        train, made, test = folders.values()
        trained = {"settings": settings, "seeds": seeds, "patient_column": patient_column, "seed": seed}
        steps = [
            Step(
                "fidelity",
                {"labels": labels, "seed": seed},
                lambda: fidelity(test, made, results_json, labels=labels, seed=seed),
            ),
            Step(
                "privacy",
                {"pair": pair, "seed": seed},
                lambda: privacy(
                    train,
                    made,
                    results_json,
                    heldout=test,
                    pair=pair,
                    train_source=real_train if pair else None,
                    synthetic_source=synthetic if pair else None,
                    on_mismatch=on_mismatch,
                    seed=seed,
                ),
            ),
            Step(
                "utility",
                {**trained, "backbone": backbone},
                lambda: utility(
                    real_train,
                    synthetic,
                    real_test,
                    results_json,
                    settings=settings,
                    probe=None if backbone else [*folders.values()],
                    seeds=seeds,
                    patient_column=patient_column,
                    seed=seed,
                    on_mismatch=on_mismatch,
                    backbone=backbone,
                ),
                sees_images=backbone is not None,
            ),
        ]
        if report_model:
            steps.append(
                Step(
                    "reports",
                    {**trained, "seeds": 1, "model": report_model, "limit": limit},
                    lambda: reports(
                        real_train,
                        synthetic,
                        real_test,
                        results_json,
                        model=report_model,
                        settings=settings,
                        seed=seed,
                        patient_column=patient_column,
                        limit=limit,
                        on_mismatch=on_mismatch,
                        overwrite=overwrite,
                    ),
                    sees_images=True,
                )
            )
        inputs = {"sources": [*map(local_source, sources.values())], "features": _hashes(folders), "code": _code()}
        current = {step.name for step in steps if _do(step, inputs, results_dir, skipped)}
        present = read_results(results_json)._asdict() if results_json.exists() else {}
        older = [name for name, section in present.items() if section and name not in current]
        write_line("== report")
        report([results_json], html=results_dir / PAGE, images=images)
    for reason in skipped:
        print(printable(f"skipped: {reason}"))
    for name in older:
        print(printable(f"{name}: of an earlier run, perhaps of other images or options; {RESULTS} and {PAGE} keep it"))
    print(printable(f"{results_dir}: {RESULTS}, {PAGE}"))


def _check_folder(folder: Path, sources: Iterable[str]) -> None:
    """Checks that results can be written to a folder, and into no source.

    Raises:
        StepError: It is a file or a source, or a folder has the name of a file of results.
    """
    if folder.exists() and not folder.is_dir():
        raise StepError(f"{folder} is a file; name a folder")
    if any(os.path.realpath(local_source(source)) == os.path.realpath(folder) for source in sources):
        raise StepError(f"{folder} is a source as well; name another folder")
    for path in (folder / PAGE, folder / STEPS):
        if path.is_dir():
            raise StepError(f"{path} is a folder; move it, or name another RESULTS_DIR")


def _pair(sides: dict[str, list[Example]], chosen: dict[str, list[Example]], skipped: list[str]) -> str | None:
    """Decides whether `privacy` compares pairs, and adds why not where some images of the sources are pairs.

    Args:
        sides: All images of the sources.
        chosen: Those that are embedded.
        skipped: Gets the reason.

    Returns:
        "filename" if some synthetic images are named for training images, as `privacy` pairs them; else None.
    """
    pairs = _named_pairs(chosen)
    if pairs.doubled:
        skipped.append(f"privacy of pairs: {DOUBLED}: {listing(pairs.doubled)}")
        return None
    if not pairs.has_pairs and _named_pairs(sides).has_pairs:
        reason = "no synthetic image that --limit chose is named for a training image that it chose"
        skipped.append(f"privacy of pairs: {reason}")
    return "filename" if pairs.has_pairs else None


def _named_pairs(sides: dict[str, list[Example]]) -> NamedPairs:
    """Pairs images as `privacy` does."""
    train, synthetic = ([(one.row.filename, one.row.prompt) for one in sides[side]] for side in ("train", "synthetic"))
    return pair_by_names(train, synthetic)


def _usable_encoders(skipped: list[str]) -> list[str]:
    """Returns those of `AUTOMATIC` that can be used here, and adds why others cannot.

    Raises:
        StepError: None can.
    """
    usable, reasons = [], []
    for name in AUTOMATIC:
        try:
            resolve_encoder(name)
            usable.append(name)
        except StepError as error:
            reasons.append(f"encoder {name}: {one_line(error)}")
    if not usable:
        raise StepError("\n".join(["no encoder can be used; name one with --encoder", *reasons]))
    skipped += reasons
    return usable


def _do(step: Step, inputs: dict[str, Any], results_dir: Path, skipped: list[str]) -> bool:
    """Does a step unless its section was computed from the same inputs; a step whose package is missing is skipped.

    Returns:
        Whether the section is that of these inputs.
    """
    key = hashlib.sha256(json.dumps({**inputs, **step.options}, sort_keys=True).encode()).hexdigest()
    if not step.sees_images and _done(results_dir).get(step.name) == [key, _created(results_dir, step.name)]:
        write_line(f"== {step.name}: done before")
        return True
    write_line(f"== {step.name}")
    try:
        step.run()
    except MissingPackageError as error:
        skipped.append(f"{step.name}: {one_line(error)}")
        return False
    done = {**_done(results_dir), step.name: [key, _created(results_dir, step.name)]}
    atomic_write(results_dir / STEPS, json.dumps(done, indent=1).encode() + b"\n")
    return True


def _done(results_dir: Path) -> dict[str, Any]:
    """Returns for each section what it was computed from, and when.

    Raises:
        StepError: The file that holds it is damaged.
        OSError: It cannot be read.
    """
    path = results_dir / STEPS
    try:
        return parse_object(path.read_bytes(), str(path)) if path.exists() else {}
    except SourceError as error:
        raise StepError(f"{one_line(error)}: the file is damaged; delete it, and run again") from error


def _created(results_dir: Path, name: str) -> str | None:
    path = results_dir / RESULTS
    section = getattr(read_results(path) if path.exists() else Results(), name)
    return section.created if section else None


def _hashes(folders: dict[str, Path]) -> list[str]:
    """Returns what identifies the features: `features.json` has the SHA-256 of each file."""
    return [sha256_of(folder / FEATURES_JSON) for folder in folders.values()]


def _code() -> str:
    """Returns a hash of this package: another version of a metric computes its section again."""
    content = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        content.update(path.read_bytes())
    return content.hexdigest()
