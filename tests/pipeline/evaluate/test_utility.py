"""Probes on planted signals: their order, labels that cannot be learnt, and plain scikit-learn beside them.

Needs scikit-learn.
"""

import importlib
import shutil
from pathlib import Path

import numpy as np
import pytest

import evaluate_images
from comparing import features_of, write_store
from pipeline.evaluate.metrics.auroc import auroc_placements
from pipeline.evaluate.results.results import read_results
from pipeline.evaluate.results.results_section import Measured, Section
from pipeline.evaluate.settings import SETTINGS, Split
from pipeline.evaluate.utility.classifier import Scores
from pipeline.evaluate.utility.probe import STRENGTHS, Probe
from planting import PLANTED, WIDTH, Planted, drawn_targets, signal, write_source
from splitting import example
from synthchex_75k import LABELS

pytestmark = pytest.mark.slow


def run(planted: Planted, results: Path, *options: str) -> Section:
    assert evaluate_images.main(planted.command(results, *options)) == 0
    section = read_results(results).utility
    assert section
    return section


def value(section: Section, metric: str, setting: str, label: str | None = None) -> Measured:
    found = [one for one in section.metrics if (one.metric, one.setting, one.label) == (metric, setting, label)]
    assert len(found) == 1
    return found[0]


@pytest.fixture(scope="module")
def useful(tmp_path_factory: pytest.TempPathFactory) -> tuple[Planted, Section]:
    folder = tmp_path_factory.mktemp("useful")
    planted = Planted(folder)
    return planted, run(planted, folder / "results.json")


def test_real_is_better_than_synthetic_is_better_than_noise(useful: tuple[Planted, Section], tmp_path: Path) -> None:
    _, section = useful
    noise = run(Planted(tmp_path, unrelated=1.0), tmp_path / "results.json", "--settings", "real,synthetic")
    for metric in ("auroc", "average_precision", "f1"):
        real, synthetic, of_noise = (
            value(part, metric, setting).value
            for part, setting in ((section, "real"), (section, "synthetic"), (noise, "synthetic"))
        )
        assert real is not None and synthetic is not None and of_noise is not None
        assert real > synthetic + 0.01 > of_noise + 0.1
        difference = value(section, f"{metric}_difference", "synthetic")
        assert difference.value == pytest.approx(synthetic - real)
        assert difference.references[0][:2] == ("no difference", 0.0)
        of_noise_ = value(noise, f"{metric}_difference", "synthetic")
        assert of_noise_.ci_high is not None and of_noise_.ci_high < 0
    lost = value(section, "auroc_difference", "synthetic")
    assert lost.ci_high is not None and lost.ci_high < 0
    # A random direction finds some of a strong signal, or of its opposite, by chance.
    chance = value(noise, "auroc", "synthetic")
    assert chance.value == pytest.approx(0.5, abs=0.15)
    assert [one.name for one in chance.references] == ["chance", "real"]


def test_labels_without_positives_are_null_and_shift_no_other(useful: tuple[Planted, Section]) -> None:
    _, section = useful
    truth = drawn_targets(400, 2)
    for label in LABELS:
        one = value(section, "auroc", "real", label)
        if label in PLANTED:
            assert one.value is not None and one.value > 0.75
            assert one.n["positive"] == truth[:, PLANTED.index(label)].sum()
        else:
            assert one.value is None and one.notes == ("the test set has 0 positive and 400 negative images",)
            assert one.references == ()
    assert any("mean of 3 labels, without Atelectasis, " in note for note in value(section, "auroc", "real").notes)
    assert value(section, "auroc", "real").n == {"train": 450, "test": 400, "patients": 200}
    assert {one.setting for one in section.metrics} == {*SETTINGS}
    assert section.sides["train"].rows == 500 and section.sides["synthetic"].patients is None
    assert section.options["classifiers"]["probe: rad-dino"]["features"] == WIDTH


def test_results_are_repeatable_and_keep_other_sections(useful: tuple[Planted, Section], tmp_path: Path) -> None:
    planted, section = useful
    again = run(planted, tmp_path / "results.json")
    assert again.metrics == section.metrics and again.options == section.options
    other = run(planted, tmp_path / "results.json", "--seed", "7", "--seeds", "1")
    assert other.metrics != section.metrics and other.seed == 7
    assert "not seeds, as there is one" in " ".join(value(other, "auroc", "real").notes)


def test_images_without_features_are_left_out_and_counted(
    useful: tuple[Planted, Section], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    planted, _ = useful
    targets = drawn_targets(700, 1)
    _, features = write_source(tmp_path, "made", targets, signal(targets, 2.0, 11))
    crcs = np.full(300, features.crc32[0])
    limited = features._replace(
        encoder=features.encoder._replace(rows=300, source_rows=700),
        filenames=features.filenames[:300],
        crc32=crcs,
        prompts=features.prompts[:300],
        labels=features.labels[:300],
        outputs={"feature": features.outputs["feature"][:300]},
    )
    few = Planted.__new__(Planted)
    few.sources = planted.sources
    few.features = [planted.features[0], write_store(tmp_path / "limited", limited), planted.features[2]]
    section = run(few, tmp_path / "results.json", "--settings", "real,synthetic")
    assert section.options["left_out"] == {"train": 0, "synthetic": 400, "test": 0}
    assert f"400 images of {planted.sources[1]} left out: without features" in capsys.readouterr().out
    assert value(section, "auroc", "synthetic").n["train"] == 300
    assert any("300 synthetic images in place of 450" in note for note in value(section, "auroc", "synthetic").notes)


def test_a_limit_takes_the_images_that_embed_takes(
    useful: tuple[Planted, Section], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    section = run(useful[0], tmp_path / "results.json", "--settings", "real,synthetic", "--limit", "200")
    assert {name: side.rows for name, side in section.sides.items()} == dict.fromkeys(section.sides, 200)
    assert section.options["limit"] == 200 and "left out: without features" not in capsys.readouterr().out
    assert 160 < value(section, "auroc", "real").n["train"] < 200


def test_features_of_another_version_of_the_source_are_refused(
    useful: tuple[Planted, Section], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    planted, _ = useful
    changed = Planted.__new__(Planted)
    shutil.copytree(planted.sources[1], tmp_path / "made")
    table = tmp_path / "made" / "metadata.csv"
    table.write_text(
        table.read_text(encoding="utf-8").replace("Radiograph 7 of", "Radiograph seven of"), encoding="utf-8"
    )
    changed.sources = [planted.sources[0], tmp_path / "made", planted.sources[2]]
    changed.features = planted.features
    assert evaluate_images.main(changed.command(tmp_path / "results.json")) == 1
    error = capsys.readouterr().err
    assert "1 image of the source changed" in error and "made-00007.png" in error and error.count("\n") == 1


def test_a_patient_on_both_sides_is_an_error(
    useful: tuple[Planted, Section], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    planted, _ = useful
    twice = Planted.__new__(Planted)
    shutil.copytree(planted.sources[2], tmp_path / "test")
    table = tmp_path / "test" / "metadata.csv"
    table.write_text(table.read_text(encoding="utf-8").replace(",test-3\n", ",real-3\n"), encoding="utf-8")
    twice.sources, twice.features = [*planted.sources[:2], tmp_path / "test"], planted.features
    assert evaluate_images.main(twice.command(tmp_path / "results.json")) == 1
    error = capsys.readouterr().err
    assert (
        error.count("\n") == 1
        and "1 patient among the training and the test images: real-3; test on other patients" in error
    )


# The probe alone


def split_of(targets: np.ndarray, values: np.ndarray) -> tuple[Split, Probe]:
    """Returns a split of 60 % training, 20 % validation and 20 % test images, and a probe on their features."""
    ends = len(targets) * 3 // 5, len(targets) * 4 // 5
    everything = features_of(values)
    full = np.zeros((len(targets), len(LABELS)))
    full[:, [LABELS.index(label) for label in PLANTED]] = targets
    examples = [example(name, targets=row.tolist()) for name, row in zip(everything.filenames.tolist(), full)]
    split = Split("real", 0, examples[: ends[0]], examples[ends[0] : ends[1]], examples[ends[1] :])
    return split, Probe({"train": everything, "synthetic": everything, "test": everything})


def test_the_probe_is_plain_logistic_regression_on_standardised_features() -> None:
    """Drawn so that each label needs another strength, whose AUROC is the highest by more than 0.01."""
    linear_model = importlib.import_module("sklearn.linear_model")
    metrics = importlib.import_module("sklearn.metrics")
    targets = drawn_targets(500, 10)
    common = np.random.default_rng(5).normal(size=(500, 1)).astype(np.float32)
    values = (signal(targets, 1.0, 1) + common) * np.geomspace(1, 1e4, WIDTH, dtype=np.float32) + 50
    split, probe = split_of(targets, values)
    found = probe.scores(split)
    train, validation, test = np.split(values.astype(np.float64), [300, 400])
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    train, validation, test = ((part - mean) / deviation for part in (train, validation, test))
    chosen = set()
    for number, label in enumerate(PLANTED):
        models = []
        for strength in STRENGTHS:
            model = linear_model.LogisticRegression(C=strength, tol=1e-10, max_iter=10_000)
            models.append(model.fit(train, targets[:300, number]))
        areas = [metrics.roc_auc_score(targets[300:400, number], one.decision_function(validation)) for one in models]
        assert np.diff(np.sort(areas))[-1] > 0.01
        best = int(np.argmax(areas))
        chosen.add(best)
        mine, wanted = found.test[:, LABELS.index(label)], models[best].decision_function(test)
        np.testing.assert_allclose(mine, wanted, atol=0.005)
        area = metrics.roc_auc_score(targets[400:, number], mine)
        assert area == pytest.approx(metrics.roc_auc_score(targets[400:, number], wanted), abs=1e-3)
    assert len(chosen) == 3


def scores_with(column: float | None) -> Scores:
    targets = drawn_targets(600, 0)
    split, probe = split_of(targets, signal(targets, 1.0, 1))
    if column is not None:
        for one in split.train:
            one.targets[LABELS.index("Fracture")] = column
    return probe.scores(split)


@pytest.mark.parametrize("column", [0.0, 1.0, np.nan])
def test_a_label_of_one_kind_is_not_learnt_and_changes_no_other(column: float) -> None:
    usual, without = scores_with(None), scores_with(column)
    place = LABELS.index("Fracture")
    for one, other in zip(usual, without):
        assert np.isnan(other[:, place]).all() and not np.isnan(one[:, place]).any()
        np.testing.assert_array_equal(np.delete(one, place, axis=1), np.delete(other, place, axis=1))


def test_uncertain_images_are_left_out_of_the_training() -> None:
    targets = drawn_targets(600, 0)
    split, probe = split_of(targets, signal(targets, 1.0, 1))
    place = LABELS.index("Fracture")
    for one in split.train[:200]:
        one.targets[place] = 1 - one.targets[place]  # a third of the labels is wrong
    wrong = probe.scores(split).test
    for one in split.train[:200]:
        one.targets[place] = np.nan
    left_out = probe.scores(split).test
    truth = targets[480:, PLANTED.index("Fracture")] == 1
    areas = [auroc_placements(scores[:, place], truth)[truth].mean() for scores in (left_out, wrong)]
    assert areas[0] > areas[1] + 0.02
    np.testing.assert_array_equal(np.delete(left_out, place, axis=1), np.delete(wrong, place, axis=1))
