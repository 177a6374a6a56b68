"""`provenance.json` beside `metadata.csv`: how a SOURCE was made, step by step.

The file holds `{"steps": [...]}`, oldest first. Each step is an object: `step` names it (`generate`, `pack`, `filter`,
or any other name), `program` and `version` name the program, and the other fields depend on the step. Each program that
makes a SOURCE of a SOURCE copies the steps and adds its own. People may write the file for images of other programs.
"""

from __future__ import annotations

import json
from typing import Any

from pipeline.source_json import address_in, parse_object, read_source_file
from synthchex_75k import SourceError, SynthCheX75K

PROVENANCE = "provenance.json"

PROGRAMS = {"generate": "generate_images.py", "pack": "pack_shards.py", "filter": "filter_quality.py"}

Step = dict[str, Any]


def new_step(name: str, **fields: Any) -> Step:
    """Returns a step.

    Args:
        name: A key of `PROGRAMS`.
        **fields: What it did, as JSON holds it.
    """
    return {"step": name, "program": PROGRAMS[name], "version": str(SynthCheX75K.VERSION), **fields}


def provenance_json(steps: list[Step]) -> bytes:
    """Returns the content of `provenance.json`."""
    return json.dumps({"steps": steps}, indent=2, ensure_ascii=False).encode() + b"\n"


def read_provenance(source: str) -> list[Step]:
    """Reads the steps of a SOURCE.

    Args:
        source: The SOURCE, local or remote; one that is a single archive has no steps.

    Returns:
        The steps, oldest first; none where there is no `provenance.json`.

    Raises:
        SourceError: `provenance.json` is damaged or too large.
        StepError: A remote source failed.
        OSError: It cannot be read.
    """
    content = read_source_file(source, PROVENANCE)
    return [] if content is None else parse_provenance(content, address_in(source, PROVENANCE))


def parse_provenance(content: bytes, where: str) -> list[Step]:
    """Reads the steps from the content of a `provenance.json`.

    Args:
        content: The file. Steps of any name, with any fields, are allowed.
        where: Its address, for messages.

    Raises:
        SourceError: It is no such file.

    Example:
        >>> parse_provenance(b'{"steps": [{"step": "scan", "scanner": "X"}]}', "provenance.json")
        [{'step': 'scan', 'scanner': 'X'}]
    """
    found = parse_object(content, where)
    steps = found.get("steps")
    if {*found} != {"steps"} or not isinstance(steps, list):
        raise SourceError(f'{where}: it must hold {{"steps": [...]}} and nothing else')
    for number, step in enumerate(steps, 1):
        name = step.get("step") if isinstance(step, dict) else None
        if not isinstance(name, str) or not name.strip():
            raise SourceError(f'{where}: step {number} must be an object with a text "step", its name')
    return steps
