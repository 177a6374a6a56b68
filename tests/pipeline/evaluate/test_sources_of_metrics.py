"""The manual names the source of each metric: a paper, or that it is defined here."""

import re

import pytest

from comparing import features_of, normal
from conftest import ROOT
from pipeline.evaluate.encoders.encoder import FEATURE, LOGITS, TEXT
from pipeline.evaluate.encoders.xrv import PATHOLOGIES
from pipeline.evaluate.fidelity.fidelity import compare
from pipeline.evaluate.fidelity.frd import RADIOMICS
from pipeline.evaluate.page.glossary import GLOSSARY, split_baseline
from pipeline.evaluate.reports.report_meanings import UNCERTAIN
from pipeline.evaluate.results.results_fidelity import PROTOCOLS

SOURCE = re.compile(r"\]\(https://|[Dd]efined here|CheXGenBench")
MANUAL = (ROOT / "scripts" / "README.md").read_text(encoding="utf-8")
SECTION = MANUAL.partition("\n## evaluate_images.py\n")[2].partition("\n## ")[0]


def rows() -> list[tuple[list[str], str]]:
    """Returns the names in the first cell of each line of the tables, and the line."""
    lines = [line for line in SECTION.splitlines() if line.startswith("| `")]
    return [(re.findall("`([^`]+)`", line.split("|")[1]), line) for line in lines]


def lines_of(metric: str) -> list[str]:
    """Returns the lines about a metric; a name that begins with … is the end of several."""
    metric = metric.removesuffix(UNCERTAIN)
    return [
        line
        for names, line in rows()
        if any(metric == name or (name.startswith("…_") and metric.endswith(name[1:])) for name in names)
    ]


@pytest.mark.parametrize("metric", GLOSSARY)
def test_each_metric_has_a_line_with_its_source(metric: str) -> None:
    found = lines_of(metric)
    assert found, f"no line about {metric}"
    assert any(SOURCE.search(line) for line in found), found


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("encoder", ["inception", RADIOMICS])
def test_each_metric_of_features_has_a_meaning(encoder: str, protocol: str) -> None:
    outputs = {name: normal(60, 3) for name in (FEATURE, TEXT, LOGITS, PATHOLOGIES)}
    side = features_of(outputs, encoder=encoder)
    found = compare([(side, side)], ("real", "synthetic"), protocol=protocol, labels=("Edema",))
    assert {split_baseline(metric.metric)[0] for metric in found.metrics} <= {*GLOSSARY}
