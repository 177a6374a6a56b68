"""`provenance.json` beside `metadata.csv`: how a SOURCE was made, step by step.

The file holds `{"steps": [...]}`, oldest first. Each step is an object: `step` names it (`generate`, `pack`, `filter`),
`program` and `version` name the program, and the other fields depend on the step. Each program that makes a SOURCE of a
SOURCE copies the steps and adds its own.
"""

from __future__ import annotations

import json
from typing import Any

from synthchex_75k import SynthCheX75K

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
