"""What was compared, on the page: images, options, encoders, versions, and what forbids a comparison."""

from __future__ import annotations

import json
from collections.abc import Sequence

from pipeline import page
from pipeline.errors import counted
from pipeline.evaluate.page.charts import legend
from pipeline.evaluate.page.side_by_side import FIDELITY, NAMES, Column, cautions, encoders_of, sections_shown
from pipeline.evaluate.results.results_parts import SideResult
from synthchex_75k import LABELS

MAX_OPEN = 2  # results; those of more are hidden until a click
CHEXGENBENCH = "chexgenbench"
PROTOCOLS = {
    "sound": "sound: with intervals and floors",
    CHEXGENBENCH: "chexgenbench: the definitions of the CheXGenBench code, to compare with its paper and nothing else",
}


def compared_parts(columns: Sequence[Column]) -> list[str]:
    """Returns what was compared, as HTML.

    Args:
        columns: The results.
    """
    found, sections = cautions(columns), sections_shown(columns)
    about = [part for column in columns for part in _about(column)]
    return [
        page.heading("What was compared"),
        page.block([page.bullets(found)], "warning") if found else "",
        *(about if len(columns) <= MAX_OPEN else [page.details("Images, options, seeds, dates and files", about)]),
        page.details("Encoders: weights, preprocessing, versions", _encoders(columns)),
        page.details("Versions that computed the metrics", map(_versions, columns)),
        legend(floors=FIDELITY in sections, references=sections != [FIDELITY]),
    ]


def _about(column: Column) -> list[str]:
    cards = page.block([_section(column, section) for section in sections_shown([column])], "cards")
    return [page.subheading(column.head), page.paragraph(f"File: {column.file}", muted=True), cards]


def _section(column: Column, section: str) -> str:
    terms = {_name(side): _describe(found) for side, found in _sides(column, section).items()}
    parts = [page.small_heading(section.capitalize())]
    other = column.section(section)
    if not other:
        return page.block([*parts, page.terms({**terms, **_of_fidelity(column)})], "card")
    parts.append(page.terms({**terms, "Seed": str(other.seed), "Date": other.created.replace("T", " ")}))
    if other.options:
        options = json.dumps(other.options, indent=2, ensure_ascii=False)
        parts.append(page.details(f"Options of {section}", [page.preformatted(options)]))
    return page.block(parts, "card")


def _sides(column: Column, section: str) -> dict[str, SideResult]:
    """Returns the sides of a section, the synthetic images first."""
    return dict(sorted(column.sides(section).items(), key=lambda item: item[0] != "synthetic"))


def _name(side: str) -> str:
    return f"{NAMES.get(side, side).capitalize()} images"


def _of_fidelity(column: Column) -> dict[str, str]:
    fidelity = column.results.fidelity
    assert fidelity
    labels = f"all {len(LABELS)}" if {*fidelity.labels} == {*LABELS} else ", ".join(fidelity.labels) or "none"
    return {
        "Encoders": ", ".join(encoders_of([column])) or "none",
        "Labels": labels,
        "Protocol": PROTOCOLS[fidelity.protocol],
        "Seed": str(fidelity.seed),
        "Date": fidelity.created.replace("T", " "),
    }


def _describe(side: SideResult) -> str:
    patients = f" of {counted(side.patients, 'patient')}" if side.patients is not None else ""
    return f"{side.name}: {counted(side.rows, 'image')}{patients}, from {side.source}"


def _encoders(columns: Sequence[Column]) -> list[str]:
    users: dict[tuple[str, str, str], dict[str, None]] = {}
    for column in columns:
        for section in sections_shown([column]):
            for side, found in column.sides(section).items():
                for name, encoder in found.encoders.items():
                    about = json.dumps(encoder.about, indent=2, ensure_ascii=False)
                    used = f"{column.letter} {NAMES.get(side, side)}".strip()
                    users.setdefault((name, encoder.fingerprint, about), {})[used] = None
    return [
        part
        for (name, fingerprint, about), used in users.items()
        for part in (
            page.subheading(name, ", ".join(used)),
            page.paragraph(f"Fingerprint {fingerprint}", muted=True),
            page.preformatted(about),
        )
    ]


def _versions(column: Column) -> str:
    parts = [page.subheading(column.head)]
    for section in sections_shown([column]):
        versions = getattr(column.results, section).versions
        parts += [page.small_heading(section.capitalize()), page.terms(versions)]
    return page.block(parts, "card")
