"""All of an evaluation: features, fidelity, privacy, utility and the page; what is finished is kept."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.checkpoint import Checkpoint
from pipeline.engine import check_engine
from pipeline.errors import MissingPackageError, StepError, listing, one_line
from pipeline.evaluate.comparison import check_same_encoder
from pipeline.evaluate.embedding.embed import OpenFeatures, Wanted, open_features, resolve_encoders
from pipeline.evaluate.encoders.registry import resolve_encoder
from pipeline.evaluate.features import FEATURES_JSON
from pipeline.evaluate.fidelity.fidelity import fidelity
from pipeline.evaluate.names import DOUBLED, NamedPairs, pair_by_names
from pipeline.evaluate.page.report import report
from pipeline.evaluate.privacy.privacy import privacy
from pipeline.evaluate.reports.report_model import check_report_model
from pipeline.evaluate.reports.reports import reports
from pipeline.evaluate.results.results import Results, check_results_path, read_results
from pipeline.evaluate.settings import SETTINGS, Example, limited, plan_examples, splits
from pipeline.evaluate.utility.backbone import Backbone
from pipeline.evaluate.utility.utility import utility
from pipeline.files import atomic_write, sha256_of
from pipeline.folder import local_source
from pipeline.lock import FolderLock
from pipeline.progress import notice, write_line
from pipeline.source_json import parse_object
from synthchex_75k import SourceError, printable

AUTOMATIC = ("rad-dino", "xrv", "biovil-t")  # of radiographs: features; pathologies; images and texts
RESULTS, PAGE, STEPS = "results.json", "results.html", ".steps.json"


Sides = tuple[Wanted, Wanted, Wanted]  # real training images, synthetic ones, real test images


class Step(NamedTuple):
    """A step that writes a section of the results.

    Attributes:
        name: Name of the section.
        compute: Computes and writes it, from the options.
        options: What decides the section, beside the features.
        sees_images: Whether it reads images itself, of which some may have no features: it is never known to be done
            before, and resumes from its own files.
    """

    name: str
    compute: Callable[..., None]
    options: dict[str, Any]
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
    report_revision: str | None = None,
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
        limit: Take this number of images of each source. Default: all.
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
        report_revision: Commit, branch or tag of that model on the Hub. Default: main.
        seed: Seeds everything that is drawn.
        images: Whether the page shows images and their prompts.
        overwrite: Replace features of other sources, encoders or a larger limit.

    Raises:
        SourceError: A source cannot be used, or an image is damaged.
        StepError: A step cannot be done for another reason than a missing package.
        WorkerDiedError: A process that checked finished files was killed.
        OSError: A file cannot be read or written.
    """
    skipped: list[str] = []
    check_engine(engine)
    _check_folder(results_dir, [real_train, synthetic, real_test])
    results_dir = results_dir.absolute()  # as the sources: a function may change the working directory
    results_json, features = results_dir / RESULTS, results_dir / "features"
    sides = (
        Wanted(local_source(real_train), features / "train", patient_column),
        Wanted(local_source(synthetic), features / "synthetic"),
        Wanted(local_source(real_test), features / "test", patient_column),
    )
    writer = _find_report_model(report_model, report_revision)
    with notice("reading the sources"):
        drawn = {"settings": settings, "seeds": seeds, "seed": seed}
        pair = _check_sources(sides, limit, on_mismatch, drawn, skipped)
    encoders = resolve_encoders(encoder or _usable_encoders(skipped), model or [], revision or [])
    trained = {"settings": settings, "patient_column": patient_column, "limit": limit, "seed": seed}
    steps = [
        _fidelity(sides, results_json, {"labels": labels, "seed": seed}),
        _privacy(sides, results_json, {"pair": pair, "seed": seed}, on_mismatch),
        _utility(sides, results_json, {**trained, "seeds": seeds, "backbone": backbone}, on_mismatch),
    ]
    if writer:
        options = {**trained, "seeds": 1, "model": writer.name, "revision": writer.revision}
        steps.append(_reports(sides, results_json, options, on_mismatch, overwrite))
    with FolderLock(results_dir):
        check_results_path(results_json)
        _done(results_dir)  # an error of it comes before the long work
        opening = open_features(sides, encoders, limit, on_mismatch, overwrite)
        _embed(opening, partial(_check_backbone, backbone, results_json), batch_size, engine, workers)
        current = _do_all(steps, sides, results_dir, skipped)
        write_line("== report")
        report([results_json], html=results_dir / PAGE, images=images)
        _tell(results_dir, current, skipped)


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


def _find_report_model(name: str | None, revision: str | None) -> Checkpoint | None:
    """Returns the model that writes reports: a folder with an absolute path, one on the Hub with its commit.

    Raises:
        StepError: There is no such model or revision, or the revision is one of no model on the Hub.
    """
    if name is None:
        if revision:
            raise StepError(f"--report-revision {revision}: name the model with --report-model")
        return None
    checkpoint = Checkpoint(name, revision)
    is_folder = checkpoint.is_local and not revision  # `reports` pins it, which reads all of its weights
    found = Checkpoint(local_source(name)) if is_folder else checkpoint.pin()
    check_report_model(found)
    return found


def _check_sources(
    sides: Sides, limit: int | None, on_mismatch: str, drawn: dict[str, Any], skipped: list[str]
) -> str | None:
    """Reads the plans of the sources for their errors; they are not kept, since the long work needs the memory.

    Args:
        sides: The sources.
        limit: See `run`.
        on_mismatch: See `run`.
        drawn: Options of `splits`.
        skipped: Gets why pairs are not compared.

    Returns:
        See `_pair`.
    """
    planned = _plan(sides, on_mismatch)
    train, made, test = (limited(examples, limit) for examples in planned)
    splits(train, made, test, **drawn)
    return _pair(planned, (train, made, test), skipped)


def _plan(sides: Sides, on_mismatch: str) -> list[list[Example]]:
    kinds = ("real", "synthetic", "real")
    return [plan_examples(side.source, kind, side.patient_column, on_mismatch) for side, kind in zip(sides, kinds)]


def _pair(planned: Sequence[list[Example]], chosen: Sequence[list[Example]], skipped: list[str]) -> str | None:
    """Decides whether `privacy` compares pairs, and adds why not where some images of the sources are pairs.

    Args:
        planned: All images of the sources, in the order of `Sides`.
        chosen: Those that are embedded.
        skipped: Gets the reason.

    Returns:
        "filename" if some synthetic images are named for training images, as `privacy` pairs them; else None.
    """
    pairs = _named_pairs(chosen)
    if pairs.doubled:
        skipped.append(f"privacy of pairs: {DOUBLED}: {listing(pairs.doubled)}")
        return None
    if not pairs.has_pairs and _named_pairs(planned).has_pairs:
        reason = "no synthetic image that --limit chose is named for a training image that it chose"
        skipped.append(f"privacy of pairs: {reason}")
    return "filename" if pairs.has_pairs else None


def _named_pairs(sides: Sequence[list[Example]]) -> NamedPairs:
    """Pairs training and synthetic images as `privacy` does."""
    train, synthetic = ([(one.row.filename, one.row.prompt) for one in side] for side in sides[:2])
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


def _fidelity(sides: Sides, results_json: Path, options: dict[str, Any]) -> Step:
    _, made, test = sides
    return Step("fidelity", partial(fidelity, test.output, made.output, results_json), options)


def _privacy(sides: Sides, results_json: Path, options: dict[str, Any], on_mismatch: str) -> Step:
    train, made, test = sides
    sources = {"train_source": train.source, "synthetic_source": made.source} if options["pair"] else {}
    folders = partial(privacy, train.output, made.output, results_json, heldout=test.output)
    return Step("privacy", partial(folders, **sources, on_mismatch=on_mismatch), options)


def _utility(sides: Sides, results_json: Path, options: dict[str, Any], on_mismatch: str) -> Step:
    sees_images = options["backbone"] is not None
    probe = None if sees_images else [side.output for side in sides]
    compute = partial(utility, *_sources(sides), results_json, probe=probe, on_mismatch=on_mismatch)
    return Step("utility", compute, options, sees_images)


def _reports(sides: Sides, results_json: Path, options: dict[str, Any], on_mismatch: str, overwrite: bool) -> Step:
    compute = partial(reports, *_sources(sides), results_json, on_mismatch=on_mismatch, overwrite=overwrite)
    return Step("reports", compute, options, sees_images=True)


def _sources(sides: Sides) -> tuple[str, str, str]:
    train, made, test = sides
    return train.source, made.source, test.source


def _check_others(opened: Sequence[OpenFeatures]) -> None:
    """Checks that features of encoders that this run does not name fit, for the sections will hold them too.

    Raises:
        StepError: They are of other images than those of this run, or of another encoder on each side.
    """
    train, made, test = (one.others() for one in opened)
    names = [name for name in made if name in test]  # no section has another one
    for folder, index in zip(opened, (train, made, test)):
        others = [index[name] for name in names if name in index]
        for one in others:
            check_same_encoder(one, made[one.name], (folder.output.name, "synthetic"))
        folder.check_same_images(others)


def _check_backbone(name: str | None, results_json: Path) -> None:
    """Checks a network; without its packages, `utility` is skipped.

    Raises:
        StepError: There is no such network, or no weights of it.
    """
    if name is not None:
        with contextlib.suppress(MissingPackageError):
            Backbone(name, results_json.with_suffix(".utility"))


def _embed(
    opening: AbstractContextManager[list[OpenFeatures]],
    check: Callable[[], None],
    batch_size: int,
    engine: str,
    workers: int,
) -> None:
    """Embeds all sources, whose rows are in memory until its end only.

    Args:
        opening: What `open_features` returned.
        check: The last check before the long work.
        batch_size: See `run`.
        engine: See `run`.
        workers: See `run`.
    """
    with opening as opened:
        _check_others(opened)
        check()
        for one in opened:
            write_line(f"== embed: {one.output.name}")
            one.embed(batch_size, engine, workers)


def _do_all(steps: Sequence[Step], sides: Sides, results_dir: Path, skipped: list[str]) -> set[str]:
    """Does the steps that are not done, and adds why others cannot be.

    Returns:
        The names of the sections that are those of this run.
    """
    inputs = {
        "sources": [local_source(side.source) for side in sides],
        "features": [sha256_of(side.output / FEATURES_JSON) for side in sides],  # it has the SHA-256 of each file
        "code": _code(),
    }
    return {step.name for step in steps if _do(step, inputs, results_dir, skipped)}


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
        step.compute(**step.options)
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


def _code() -> str:
    """Returns a hash of this package: another version of a metric computes its section again."""
    content = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        content.update(path.read_bytes())
    return content.hexdigest()


def _tell(results_dir: Path, current: set[str], skipped: Sequence[str]) -> None:
    """Prints what was skipped, and which sections this run did not compute."""
    for reason in skipped:
        print(printable(f"skipped: {reason}"))
    path = results_dir / RESULTS
    for name, section in (read_results(path) if path.exists() else Results())._asdict().items():
        if section and name not in current:
            older = f"of an earlier run, perhaps of other images or options; {RESULTS} and {PAGE} keep it"
            print(printable(f"{name}: {older}"))
    print(printable(f"{results_dir}: {RESULTS}, {PAGE}"))
