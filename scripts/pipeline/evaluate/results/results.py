"""RESULTS_JSON: what is known of one synthetic dataset, a section for each command.

    {"format": 2, "fidelity": FIDELITY, "privacy": SECTION, "utility": SECTION, "reports": SECTION}

Each command replaces its own section and keeps the others. FIDELITY is described in `results_fidelity`, SECTION in
`results_section`. An unknown key is no error: a later version may add one.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.errors import StepError, one_line
from pipeline.evaluate.results.results_fidelity import Fidelity, fidelity_in
from pipeline.evaluate.results.results_parts import DamagedError, SideResult, only, plain
from pipeline.evaluate.results.results_section import Section, section_in
from pipeline.files import atomic_write
from pipeline.lock import change_in
from pipeline.progress import write_line
from pipeline.source_json import parse_object
from synthchex_75k import SourceError

FORMAT = 2


class Results(NamedTuple):
    """The sections of a results file; None where its command has not run.

    Attributes:
        fidelity: How close synthetic images are to real ones.
        privacy: How close they are to the images that the generator was trained on.
        utility: What a classifier learns from them.
        reports: What a model that writes reports learns from them.
    """

    fidelity: Fidelity | None = None
    privacy: Section | None = None
    utility: Section | None = None
    reports: Section | None = None

    @property
    def synthetic(self) -> dict[str, SideResult]:
        """The synthetic images by name of the section that measured them."""
        sides = {name: section.sides for name, section in self._asdict().items() if isinstance(section, Section)}
        if self.fidelity:
            sides = {"fidelity": {"synthetic": self.fidelity.synthetic}, **sides}
        return {name: found["synthetic"] for name, found in sides.items() if "synthetic" in found}


def update_results(path: Path, **sections: Any) -> None:
    """Writes sections to RESULTS_JSON, atomically; those of other names stay.

    Args:
        path: RESULTS_JSON.
        sections: `fidelity=Fidelity(…)`, `privacy=Section(…)` and so on.

    Raises:
        ValueError: A number is not finite.
        DamagedError: A section is not of its schema, for example by a metric that is there twice.
        StepError: The file is there, and holds no results.
        OSError: It cannot be read or written.
    """
    with change_in(path.parent):  # two commands that end at once both keep their sections
        found = (read_results(path) if path.exists() else Results())._replace(**sections)
        content = {"format": FORMAT, **{name: plain(section) for name, section in found._asdict().items() if section}}
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        for name in sections:
            _section(name, content[name])  # a mistake of a command shows here, not in the next one
        atomic_write(path, text.encode())
    for caution in different_images(found):
        write_line(f"{path}: {caution}")


def different_images(results: Results) -> list[str]:
    """Returns a sentence if the sections of one file are not of the same synthetic images."""
    sources: dict[str, list[str]] = {}
    for name, side in results.synthetic.items():
        sources.setdefault(side.source, []).append(name)
    if len(sources) < 2:
        return []
    named = " and ".join(f"{', '.join(names)} of {source}" for source, names in sources.items())
    return [f"the sections are not of the same synthetic images: {named}"]


def read_results(path: Path) -> Results:
    """Reads RESULTS_JSON and checks all of it.

    Args:
        path: RESULTS_JSON.

    Raises:
        StepError: It is damaged, or of another format.
        OSError: It cannot be read.
    """
    try:
        found = parse_object(path.read_bytes(), str(path))
    except SourceError as error:
        raise StepError(f"{one_line(error)}: no results of `evaluate_images.py`") from None
    if "format" not in found or not {*Results._fields} & {*found}:
        raise StepError(f"{path}: no results of `evaluate_images.py`")
    if found["format"] != FORMAT:
        raise StepError(
            f"{path}: format {found['format']!r} instead of {FORMAT}, so another version of this program wrote it; "
            "delete it, and run `evaluate_images.py` again"
        )
    sections: dict[str, Any] = {}
    for name in Results._fields:
        if name in found:
            with _of(path, name):
                sections[name] = _section(name, only(found[name], dict, name))
    return Results(**sections)


def check_results_path(path: Path) -> None:
    """Checks, before the long work, that a section may be written to a path.

    Args:
        path: RESULTS_JSON.

    Raises:
        StepError: Another file is there, or damaged results, or no folder to write into.
        OSError: The file cannot be read.
    """
    if not path.parent.is_dir():
        raise StepError(f"{path}: the folder {path.parent} does not exist; create it")
    if not path.exists():
        return
    try:
        if not path.is_file():
            raise StepError("it is no file")
        read_results(path)
    except StepError as error:
        reason = one_line(error).removeprefix(f"{path}: ")
        raise StepError(f"{path}: no results can be added to this file, choose another name: {reason}") from None


def _section(name: str, found: dict[str, Any]) -> Fidelity | Section:
    return fidelity_in(found) if name == "fidelity" else section_in(found)


@contextlib.contextmanager
def _of(path: Path, name: str) -> Iterator[None]:
    try:
        yield
    except DamagedError as error:
        raise StepError(f"{path}: {name}: {one_line(error)}; delete it, and run `evaluate_images.py` again") from None
