"""The command `utility` up to its classifiers, with one that needs numpy only."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import evaluate_images
from comparing import write_store
from pipeline.errors import StepError
from pipeline.evaluate.features import Features, fingerprint_of
from pipeline.evaluate.metrics.classification import DIFFERENCE, METRICS
from pipeline.evaluate.results.results import read_results, update_results
from pipeline.evaluate.results.results_section import Measured, Section
from pipeline.evaluate.results.results_table import section_table
from pipeline.evaluate.settings import Example, Split, plan_examples, splits
from pipeline.evaluate.utility.classifier import Classifier, Scores
from pipeline.evaluate.utility.probe import find_features
from pipeline.evaluate.utility.utility import train_and_score
from pipeline.evaluate.utility.utility_meanings import MEANINGS
from planting import PLANTED, Planted, drawn_targets, signal, write_source
from splitting import example
from synthchex_75k import LABELS

SHAPES = (60, 80, 40)


class Centroids:
    """Scores by the difference of the two classes' means; it keeps the features of the images."""

    name, is_main = "centroids", True

    def __init__(self, features: dict[str, np.ndarray]) -> None:
        self._features = features

    def describe(self) -> dict[str, Any]:
        return {"classifier": "difference of means"}

    def scores(self, split: Split) -> Scores:
        train, validation, test = (
            np.stack([self._features[one.row.filename] for one in part])
            for part in (split.train, split.validation, split.test)
        )
        targets = np.stack([one.targets for one in split.train])
        found = [np.full((len(part), len(LABELS)), np.nan) for part in (validation, test)]
        for label in range(len(LABELS)):
            positive = targets[:, label] == 1
            if positive.any() and not positive.all():
                direction = train[positive].mean(axis=0) - train[~positive].mean(axis=0)
                for scores, part in zip(found, (validation, test)):
                    scores[:, label] = part @ direction
        return Scores(*found)


def data(noisy: bool) -> tuple[Centroids, list[list[Example]]]:
    """Returns images of three sides with their labels, and a classifier that has their features."""
    features: dict[str, np.ndarray] = {}
    sides = []
    for number, (name, count) in enumerate((("real", 300), ("made", 400), ("test", 250))):
        targets = drawn_targets(count, number)
        values = signal(drawn_targets(count, 50) if noisy and name == "made" else targets, 2.0, number)
        full = np.zeros((count, len(LABELS)))
        full[:, [LABELS.index(label) for label in PLANTED]] = targets
        side = "synthetic" if name == "made" else "real"
        sides.append(
            [
                example(f"{name}-{i}.png", side, f"{name}-{i // 2}" if side == "real" else None, targets=row.tolist())
                for i, row in enumerate(full)
            ]
        )
        features |= {one.row.filename: row for one, row in zip(sides[-1], values)}
    return Centroids(features), sides


def measured(noisy: bool = False, **options: Any) -> dict[tuple[str, str | None, str | None], Measured]:
    classifier, (train, made, test) = data(noisy)
    chosen = splits(train, made, test, **options)
    classifiers: Iterator[Classifier] = iter([classifier])
    metrics, about = train_and_score(classifiers, 1, chosen)
    assert about == {"centroids": {"classifier": "difference of means"}}
    return {(one.metric, one.setting, one.label): one for one in metrics}


def test_values_have_sizes_intervals_and_what_they_compare_with() -> None:
    found = measured()
    assert len(found) == (4 + 3) * len(METRICS) * 15
    one = found["auroc", "augmented", "Edema"]
    positives = int(drawn_targets(250, 2)[:, 1].sum())
    assert one.n == {"train": 540, "train_positive": one.n["train_positive"], "test": 250, "positive": positives} | {
        "patients": 125
    }
    assert 100 < one.n["train_positive"] < 160
    real = found["auroc", "real", "Edema"]
    assert [(part.name, part.value) for part in one.references] == [("chance", 0.5), ("real", real.value)]
    assert [part.name for part in real.references] == ["chance"]
    for (metric, setting, _), part in found.items():
        assert (part.value is None) == (part.references == ()) and part.notes
        assert metric in MEANINGS
        assert metric.endswith(DIFFERENCE) <= (setting != "real")
        if part.value is not None:
            assert part.ci_low is not None and part.ci_high is not None and part.ci_low <= part.value <= part.ci_high
    for label in set(LABELS) - {*PLANTED}:
        assert found["auroc", "real", label].value is None


def test_labels_of_noise_are_worse_than_real_ones() -> None:
    good, bad = (
        measured(noisy, settings=["real", "synthetic"])["auroc_difference", "synthetic", None]
        for noisy in (False, True)
    )
    assert good.ci_low is not None and good.ci_high is not None and good.ci_low < 0.02 and good.ci_high > -0.02
    assert bad.ci_high is not None and bad.ci_high < -0.1


def test_without_the_setting_real_there_is_nothing_to_compare_with() -> None:
    found = measured(settings=["synthetic"], seeds=1)
    assert {metric for metric, *_ in found} == {*METRICS}
    assert {part.name for one in found.values() for part in one.references} == {"chance"}


def test_a_section_of_it_can_be_written_read_and_shown(tmp_path: Path) -> None:
    found = [*measured(settings=["real", "mixed"]).values()]
    path = tmp_path / "results.json"
    update_results(path, utility=Section("2026-11-27T10:00:00+00:00", 0, {}, {}, {}, found, {}))
    section = read_results(path).utility
    assert section and section.metrics == found
    table = section_table(section)
    assert "auroc_difference" in table and "Cardiomegaly" in table


# Errors, before a classifier is trained


def error_of(capsys: pytest.CaptureFixture, *command: str) -> str:
    assert evaluate_images.main([*command]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return str(error)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return Planted(tmp_path_factory.mktemp("planted"), sizes=SHAPES)


def test_one_kind_of_classifier_is_chosen(planted: Planted, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    sources = [*map(str, planted.sources), str(tmp_path / "results.json")]
    assert "choose one kind of classifier: --probe" in error_of(capsys, "utility", *sources)
    both = planted.command(tmp_path / "results.json", "--backbone", "resnet50")
    assert "choose one kind of classifier: --probe" in error_of(capsys, *both)


def test_another_file_is_not_replaced(planted: Planted, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "notes.json"
    path.write_text("{}", encoding="utf-8")
    assert "notes.json" in error_of(capsys, *planted.command(path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--settings", "real,fake"], "fake: name some of real, synthetic, mixed, augmented"),
        (["--seeds", "0"], "0 is not positive"),
    ],
)
def test_wrong_arguments_are_usage_errors(
    options: list[str], message: str, planted: Planted, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as caught:
        evaluate_images.main(planted.command(tmp_path / "results.json", *options))
    assert caught.value.code == 2 and message in capsys.readouterr().err


if not importlib.util.find_spec("sklearn"):

    def test_without_scikit_learn_a_line_names_it(
        planted: Planted, tmp_path: Path, capsys: pytest.CaptureFixture
    ) -> None:
        assert "pip install scikit-learn" in error_of(capsys, *planted.command(tmp_path / "results.json"))


# Features beside their sources


def sides_of(planted: Planted) -> dict[str, list[Example]]:
    kinds = {"train": "real", "synthetic": "synthetic", "test": "real"}
    return {name: plan_examples(str(source), kind) for (name, kind), source in zip(kinds.items(), planted.sources)}


def test_features_are_matched_by_file_name(planted: Planted) -> None:
    sides = sides_of(planted)
    fewer = {**sides, "train": sides["train"][::2]}  # features of further images are no error
    found, kept = find_features(planted.features, fewer)
    assert found.left_out == dict.fromkeys(sides, 0) and kept == fewer
    assert [one.name for one in found.encoders[0]] == ["rad-dino"] * 3


def changed_store(folder: Path, features: Features, **encoder: Any) -> Path:
    about = features.encoder.about | encoder
    return write_store(
        folder, features._replace(encoder=features.encoder._replace(about=about, fingerprint=fingerprint_of(about)))
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("prompt", "1 image of the source changed .* made-00003.png; embed the source again"),
        ("label", "1 image of the source changed .* made-00003.png; embed the source again"),
        ("encoder", "the train and the synthetic features differ in more than the images: layer"),
        ("source", "no features of the synthetic images"),
        ("name", "no encoder in common"),
    ],
)
def test_features_that_are_not_of_the_source_are_refused(
    change: str, message: str, planted: Planted, tmp_path: Path
) -> None:
    targets = drawn_targets(SHAPES[1], 1)
    values = signal(targets, 2.0, 11)
    name = "other" if change == "source" else "made"
    _, features = write_source(tmp_path, name, targets, values)
    if change == "prompt":
        features.prompts[3] = "Another radiograph."
    elif change == "label":
        features.labels[3, 0] = -1
    elif change == "name":
        features = features._replace(encoder=features.encoder._replace(name="dinov2"))
    store = changed_store(tmp_path / "store", features, **({"layer": 3} if change == "encoder" else {}))
    with pytest.raises(StepError, match=message):
        find_features([planted.features[0], store, planted.features[2]], sides_of(planted))
