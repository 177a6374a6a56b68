"""F1-RadGraph and CheXbert-F1: the packages' own code, with small networks of random weights."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from evaluate_images import main
from pipeline.evaluate.metrics.text_scores import finding_scores, finding_statistics
from pipeline.evaluate.reports.report_texts import ReportText, write_texts
from pipeline.evaluate.reports.text_models import RADGRAPH, annotate, label_findings
from pipeline.evaluate.results.results import read_results
from synthchex_75k import LABELS

pytestmark = pytest.mark.slow
REFERENCES = ["no effusion .", "large edema , the effusion", "no edema", "the large , no large", "effusion"]
TEXTS = ["large effusion .", "large edema , the effusion", "", "no edema , the effusion", "no ."]


@pytest.fixture(scope="module", autouse=True)
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Weights in the cache of the user, which is a folder of the tests."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        patch.chdir(folder)
        import tiny_scorers

        tiny_scorers.build(folder)
        yield
    os.chdir(folder)


def test_f1_radgraph_is_that_of_the_package() -> None:
    import radgraph

    reward = annotate([*REFERENCES, *TEXTS])
    wanted = radgraph.F1RadGraph(reward_level="partial", model_type=RADGRAPH)(refs=REFERENCES, hyps=TEXTS)[1]
    found = [*map(reward, REFERENCES, TEXTS)]
    assert found == pytest.approx(wanted)
    assert len({*found}) > 2
    assert found[1] == 1 and found[2] == 0


def test_findings_are_those_of_the_package() -> None:
    import f1chexbert

    found = label_findings([*REFERENCES, *TEXTS])
    model = f1chexbert.F1CheXbert()
    for text, labels in found.items():
        positive = dict(zip(model.target_names, model.get_label(text)))  # uncertain counts as positive there
        assert [int(value != 0) for value in labels] == [positive[label] for label in LABELS]
    assert {int(value) for labels in found.values() for value in labels} == {-1, 0, 1}


def test_the_command_scores_with_all_packages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = enumerate(zip(REFERENCES, TEXTS))
    texts = [ReportText(str(number), "real", 0, None, reference, text) for number, (reference, text) in rows]
    write_texts(tmp_path / "t.csv", texts)
    assert main(["score", str(tmp_path / "t.csv"), str(tmp_path / "r.json")]) == 0
    assert "left out" not in capsys.readouterr().out
    reports = read_results(tmp_path / "r.json").reports
    assert reports and reports.options["left_out"] == {}
    values = {(one.metric, one.label): one for one in reports.metrics}
    assert values["f1_radgraph", None].value == pytest.approx(
        np.mean([*map(annotate(REFERENCES + TEXTS), REFERENCES, TEXTS)])
    )
    found = label_findings([*REFERENCES, *TEXTS])
    labels = [np.stack([found[text] for text in part]) for part in (REFERENCES, TEXTS)]
    sums = finding_statistics(*labels).sum(0)
    for score in finding_scores():
        one, wanted = values[score.metric, score.label], float(score.value(sums))
        assert (one.value is None) if np.isnan(wanted) else (one.value == pytest.approx(wanted))
        if score.label and one.value is not None:
            assert one.n["positive"] == (labels[0][:, LABELS.index(score.label)] == 1).sum()
