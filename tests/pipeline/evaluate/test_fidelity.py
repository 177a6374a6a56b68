"""All metrics of two FEATURES_DIRs: closed forms, labels at a common n, floors, refusals, both protocols."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comparing import features_of, normal, write_store
from pipeline.errors import StepError
from pipeline.evaluate.features import Features
from pipeline.evaluate.fidelity.fidelity import compare, fidelity
from pipeline.evaluate.metrics.frechet import fd, fd_value
from pipeline.evaluate.results.results import read_results
from pipeline.evaluate.results.results_fidelity import Fidelity, MetricResult
from synthchex_75k import LABELS

OF_FEATURES = ["fd", "kid", "kid_subsets", "cmmd", "precision", "recall", "density", "coverage", "vendi"]
OF_TEXT = ["alignment", "alignment_shuffled", "retrieval_1", "retrieval_5", "retrieval_10"]


def compared(real: Features, synthetic: Features, **options: Any) -> Fidelity:
    return compare([(real, synthetic)], ("real", "synthetic"), **{"labels": (), **options})


def read(path: Path) -> Fidelity:
    found = read_results(path).fidelity
    assert found
    return found


def by_name(results: Fidelity, label: str | None = None) -> dict[str, MetricResult]:
    return {metric.metric: metric for metric in results.metrics if metric.label == label}


def bits(results: Fidelity) -> Fidelity:
    return results._replace(created="")


# Values


def test_a_set_against_itself() -> None:
    x = features_of(normal(300, 4))
    found = by_name(compared(x, x))
    assert [*found] == OF_FEATURES
    values = {name: metric.value for name, metric in found.items()}
    assert values["fd"] == pytest.approx(0, abs=1e-9) and values["vendi"] == 1
    assert values["precision"] == values["recall"] == values["coverage"] == 1
    assert values["kid"] is not None and values["kid"] < 0
    for name, metric in found.items():
        assert metric.n_real == metric.n_synthetic == 300 and metric.label is None, name
        assert metric.floor and metric.floor.n == 150 and metric.floor.splits == 10, name
        assert any("floor: between parts of 150 rows" in note for note in metric.notes), name
        assert any("at more rows it would be lower" in note for note in metric.notes) == (name == "fd"), name


def test_a_shift_has_the_frechet_distance_of_its_square() -> None:
    x, y = normal(600, 3), normal(600, 3, seed=1) + np.float32(2)
    found = by_name(compared(features_of(x), features_of(y)))
    fd_ = found["fd"]
    assert fd_.ci_low is not None and fd_.ci_high is not None and fd_.ci_low < 12 < fd_.ci_high
    assert fd_.floor and fd_.floor.value and fd_.floor.sd and 0 < fd_.floor.value < 0.1
    for name in ("kid", "cmmd"):
        metric = found[name]
        assert metric.floor and metric.floor.value is not None and metric.floor.sd
        assert metric.ci_low is not None and metric.ci_low > abs(metric.floor.value) + 5 * metric.floor.sd
    assert found["kid_subsets"].value == pytest.approx(found["kid"].value, rel=0.2)


def test_the_floor_is_the_metric_between_halves_of_the_real_set() -> None:
    """With as many real rows as the comparison needs twice, the floor is of the same n."""
    x, y = normal(400, 5), normal(200, 5, seed=1)
    found = by_name(compared(features_of(x), features_of(y)))
    for name, metric in found.items():
        assert metric.floor and metric.floor.n == 200 and metric.floor.sd is not None, name
        assert not any("floor: between" in note for note in metric.notes), name
        assert metric.value is not None and metric.floor.value is not None
        assert abs(metric.value - metric.floor.value) < 5 * metric.floor.sd + 2 * (metric.se or 0), name


def test_metrics_that_depend_on_n_take_as_many_rows_of_both_sides() -> None:
    found = by_name(compared(features_of(normal(400, 4)), features_of(normal(150, 4, seed=1))))
    for name, metric in found.items():
        sizes = (400, 150) if name in ("kid", "kid_subsets", "cmmd") else (150, 150)
        assert (metric.n_real, metric.n_synthetic) == sizes, name
    notes = " ".join(found["precision"].notes)
    assert "150 rows a side, drawn from 400 real" in notes


def test_copies_of_patients_widen_the_intervals() -> None:
    x = np.repeat(normal(60, 3), 4, axis=0) + normal(240, 3, seed=2) / 100
    y = features_of(normal(240, 3, seed=1))
    alone, grouped = (
        by_name(compared(features_of(x, patients=patients), y))
        for patients in (None, [f"p{i // 4}" for i in range(240)])
    )
    for name, factor in {"fd": 1.15, "kid": 1.15, "cmmd": 1.15, "recall": 1, "coverage": 1, "vendi": 1.15}.items():
        one, two = alone[name].se, grouped[name].se
        assert one and two and two > factor * one, name


def test_rows_without_a_patient_are_their_own() -> None:
    x, y = normal(120, 3), features_of(normal(120, 3, seed=1))
    unknown = compared(features_of(x, patients=["a", *[None] * 119]), y)
    assert unknown.real.patients == 1 and unknown.synthetic.patients is None
    alone = compared(features_of(x), y)
    assert by_name(unknown)["fd"].se == pytest.approx(by_name(alone)["fd"].se, rel=1e-12)


def test_few_rows_are_refused_and_few_for_the_features_marked() -> None:
    few = by_name(compared(features_of(normal(49, 3)), features_of(normal(200, 3, seed=1))))
    assert few["fd"].value is None and few["fd"].floor is None and "at least 50 rows" in few["fd"].notes[0]
    assert few["kid"].value is not None
    marked = by_name(compared(features_of(normal(60, 70)), features_of(normal(60, 70, seed=1))))
    assert marked["fd"].value is not None and any("singular" in note for note in marked["fd"].notes)


def test_features_too_large_for_a_number_are_refused() -> None:
    x = normal(80, 3) * np.float32(1e25)
    found = by_name(compared(features_of(x), features_of(x[::-1].copy())))
    assert found["kid"].value is None and "too large" in found["kid"].notes[0]


def test_features_too_large_for_a_number_are_refused_by_the_authors_protocol_too() -> None:
    x = normal(80, 3) * np.float32(1e25)
    found = by_name(compared(features_of(x), features_of(x[::-1].copy()), protocol="chexgenbench"))
    assert found["kid"].value is None and any("too large" in note for note in found["kid"].notes)


@pytest.mark.parametrize("protocol", ["sound", "chexgenbench"])
@pytest.mark.parametrize("output", ["feature", "text", "logits"])
def test_the_image_whose_features_are_no_numbers_is_named(protocol: str, output: str) -> None:
    sides = [
        features_of({name: normal(60, 3) for name in ("feature", "text", "logits")}, name=name)
        for name in ("real", "made")
    ]
    sides[1].outputs[output][7, 1] = np.nan
    with pytest.raises(StepError, match=f"rad-dino: made-00007.png of the synthetic images: {output} is not finite"):
        compared(*sides, protocol=protocol)


def test_wide_features_of_few_images_are_quick() -> None:
    """No matrix of all features by all features, which would have 3 GB here."""
    x, y = normal(60, 20_000), normal(60, 20_000, seed=1)
    y[17] += 1
    images = compared(features_of(x), features_of(y)).images["rad-dino"]
    assert images.adds_most_to_fd[0].filename == "image-00017.png"


def test_ties_are_marked() -> None:
    grid = np.random.default_rng(0).integers(0, 3, size=(200, 3)).astype(np.float32)
    tied, free = (by_name(compared(features_of(x), features_of(x[::-1].copy()))) for x in (grid, normal(200, 3)))
    for name in ("precision", "recall", "density", "coverage"):
        assert any("too narrow" in note for note in tied[name].notes), name
        assert not any("too narrow" in note for note in free[name].notes), name


# Labels


def labelled(seed: int, rows: dict[str, Any], d: int = 3, n: int = 400) -> Features:
    return features_of(normal(n, d, seed), positive=rows)


def test_labels_are_compared_at_the_size_of_the_rarest_that_is_not_refused() -> None:
    real = labelled(0, {"Edema": range(300), "Fracture": range(100, 190), "Pneumonia": range(20)})
    synthetic = labelled(1, {"Edema": range(200), "Fracture": range(300), "Pneumonia": range(400)})
    results = compared(real, synthetic, labels=LABELS)
    assert results.labels == LABELS
    assert [*dict.fromkeys(metric.label for metric in results.metrics)] == [None, *LABELS]
    for label in ("Edema", "Fracture"):
        found = by_name(results, label)
        assert [*found] == OF_FEATURES
        for name in ("fd", "precision", "recall", "density", "coverage", "vendi"):
            metric = found[name]
            assert metric.value is not None and (metric.n_real, metric.n_synthetic) == (90, 90), name
            assert any("common n" in note for note in metric.notes), name
        for name in ("kid", "kid_subsets", "cmmd"):
            metric = found[name]
            assert (metric.n_real, metric.n_synthetic) == ((300, 200) if label == "Edema" else (90, 300))
            assert any("does not depend on n" in note for note in metric.notes), name
    edema, fracture = (by_name(results, label)["fd"] for label in ("Edema", "Fracture"))
    assert edema.floor and edema.floor.n == 90
    assert fracture.floor is None and any("no floor: refused between" in note for note in fracture.notes)
    other = by_name(results, "Fracture")["coverage"].floor
    assert other and other.n == 45
    rare, missing = by_name(results, "Pneumonia"), by_name(results, "Pneumothorax")
    assert rare["fd"].value is None and rare["fd"].notes == ("fewer than 50 rows on a side: 20 real, 400 synthetic",)
    assert rare["kid"].value is not None and (rare["kid"].n_real, rare["kid"].n_synthetic) == (20, 400)
    assert [*missing] == OF_FEATURES and {metric.value for metric in missing.values()} == {None}
    assert all(metric.notes and metric.floor is None for metric in missing.values())


def assert_close(one: MetricResult, two: MetricResult) -> None:
    """Checks that two metrics differ in the last digits of numbers only."""
    for mine, its in zip((one.value, one.se, *(one.floor or ())), (two.value, two.se, *(two.floor or ())), strict=True):
        assert mine == (None if its is None else pytest.approx(its, rel=1e-3, abs=1e-5))
    assert (one.notes, one.n_real, one.n_synthetic) == (two.notes, two.n_real, two.n_synthetic)


def test_the_common_n_is_that_of_the_labels_asked_for() -> None:
    rows = {"Edema": range(300), "Fracture": range(90)}
    both = compared(labelled(0, rows), labelled(1, rows), labels=("Edema", "Fracture"))
    alone = compared(labelled(0, rows), labelled(1, rows), labels=("Edema",))
    assert (by_name(both, "Edema")["fd"].n_real, by_name(alone, "Edema")["fd"].n_real) == (90, 300)
    # Sums of kernels are of all sets of rows at once: their last bits depend on what other sets there are.
    for name, one in by_name(both).items():
        assert_close(one, by_name(alone)[name])
    assert_close(by_name(both, "Edema")["kid"], by_name(alone, "Edema")["kid"])


def test_a_label_of_all_rows_has_the_values_of_all_rows() -> None:
    rows = {"No Finding": range(200)}
    results = compared(labelled(0, rows, n=200), labelled(1, rows, n=200), labels=("No Finding",))
    overall, label = by_name(results), by_name(results, "No Finding")
    for name in set(OF_FEATURES) - {"kid_subsets"}:
        assert label[name].value == pytest.approx(overall[name].value, rel=1e-5), name
        assert label[name].se == pytest.approx(overall[name].se, rel=1e-5), name


@pytest.mark.parametrize(("images_of_patient", "protocol"), [(1, "sound"), (6, "sound"), (1, "chexgenbench")])
def test_labels_of_one_distribution_are_not_ranked_by_their_numbers(images_of_patient: int, protocol: str) -> None:
    """The correlation of ranks of FD and of prevalence: near 0, but near -1 in the authors' protocol."""
    encoder, metric = ("radiomics", "frd") if protocol == "sound" else ("rad-dino", "fd")  # frd alone is quick
    sizes, n, found = [*range(60, 340, 20)], 480, []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        patients = np.arange(n) // images_of_patient
        x = 0.3 * rng.normal(size=(n, 8)) + rng.normal(size=(n, 8))[patients]
        y = 1.04 * rng.normal(size=(n, 8))
        sides = [
            features_of(
                values.astype(np.float32),
                encoder=encoder,
                positive={
                    label: np.flatnonzero(rng.permutation(units[-1] + 1)[units] < size * (units[-1] + 1) // n)
                    for label, size in zip(LABELS, sizes)
                },
                patients=[*patients.tolist()],
            )
            for values, units in ((x, patients), (y, np.arange(n)))
        ]
        results = compared(*sides, labels=LABELS, protocol=protocol, seed=seed)
        values = [one.value or 0 for one in results.metrics if one.label and one.metric == metric]
        assert len(values) == len(LABELS)
        found.append(np.corrcoef(np.argsort(np.argsort(values)), sizes)[0, 1])
    assert abs(np.mean(found)) < 0.4 if protocol == "sound" else np.mean(found) < -0.8


def test_uncertain_is_not_positive() -> None:
    real, synthetic = (labelled(seed, {"Edema": range(60)}) for seed in (0, 1))
    real.labels[60:, LABELS.index("Edema")] = -1
    real.labels[100:, LABELS.index("Edema")] = 0
    assert by_name(compared(real, synthetic, labels=("Edema",)), "Edema")["kid"].n_real == 60


@settings(max_examples=15)
@given(
    st.lists(st.tuples(st.sampled_from(LABELS[:4]), st.integers(0, 130), st.integers(0, 130)), max_size=4),
    st.integers(1, 130),
    st.integers(1, 130),
    st.booleans(),
)
def test_any_counts_of_labels_end_in_results_that_can_be_written(
    tmp_path_factory: pytest.TempPathFactory, counts: list, n: int, m: int, patients: bool
) -> None:
    sides = [
        features_of(
            normal(size, 2, seed),
            positive={label: range(min(size, sizes[seed])) for label, *sizes in counts},
            patients=[f"p{i // 3}" for i in range(size)] if patients else None,
        )
        for seed, size in ((0, n), (1, m))
    ]
    folder = tmp_path_factory.mktemp("features")
    real, synthetic = (write_store(folder / name, side) for name, side in zip(("real", "synthetic"), sides))
    labels = LABELS[:4]
    fidelity(real, synthetic, folder / "results.json", labels=labels)
    results = read(folder / "results.json")
    assert [(metric.label, metric.metric) for metric in results.metrics] == [
        (label, name) for label in (None, *labels) for name in OF_FEATURES
    ]
    sizes = {
        metric.n_real
        for metric in results.metrics
        if metric.label and metric.metric == "fd" and metric.value is not None
    }
    assert len(sizes) <= 1
    assert all(metric.value is not None or metric.notes for metric in results.metrics)


# Other outputs


def test_alignment_stands_beside_that_of_real_images_and_of_shuffled_prompts() -> None:
    texts = normal(200, 16)
    sides = [
        features_of(
            {"feature": texts + noise * normal(200, 16, seed=9), "text": texts},
            encoder="biovil-t",
            positive={"Edema": range(60)},
        )
        for noise in (np.float32(0.3), np.float32(3))
    ]
    results = compared(*sides, labels=("Edema", "Fracture"))
    found = by_name(results)
    assert {*found} == {*OF_FEATURES, *OF_TEXT, *(f"{name}_real" for name in OF_TEXT)}
    value: dict[str, float] = {name: metric.value or 0 for name, metric in found.items()}
    assert value["alignment_real"] > 0.9 > 0.5 > value["alignment"] > value["alignment_shuffled"] + 0.1
    assert value["retrieval_1_real"] == 1 > value["retrieval_10"] > value["retrieval_1"]
    for name in OF_TEXT:
        assert (found[name].n_real, found[name].n_synthetic, found[name].floor) == (0, 200, None)
        assert (found[f"{name}_real"].n_real, found[f"{name}_real"].n_synthetic) == (200, 0)
    assert by_name(results, "Edema")["retrieval_1"].n_synthetic == 60
    assert by_name(results, "Fracture")["retrieval_1"].value is None


def test_labels_are_found_by_the_classifier_by_name() -> None:
    """The classifier has its columns in an order of its own, and does not know all labels."""
    rows = {"Edema": range(0, 200, 2), "Pleural Effusion": range(150), "Support Devices": range(90)}
    sides = []
    for seed, strength in ((0, 3), (1, 1)):
        side = labelled(seed, rows, n=200)
        positive = np.nan_to_num(side.labels)
        scores = normal(200, 3, seed + 5)
        scores[:, 0] += strength * positive[:, LABELS.index("Pleural Effusion")]
        scores[:, 2] += strength * positive[:, LABELS.index("Edema")]
        outputs = {**side.outputs, "pathologies": scores}
        about = {"classes": {"pathologies": ["Effusion", "Hernia", "Edema"]}}
        sides.append(features_of(outputs, encoder="xrv", about=about, positive=rows))
    results = compared(*sides, labels=("Edema", "Pleural Effusion", "Support Devices", "Fracture"))
    for label in ("Edema", "Pleural Effusion"):
        found = by_name(results, label)
        real, synthetic = found["label_auroc_real"], found["label_auroc"]
        assert real.value and synthetic.value and real.value > 0.95 > synthetic.value > 0.6
        assert real.n_synthetic == synthetic.n_real == 0 and synthetic.se
    unknown = by_name(results, "Support Devices")["label_auroc"]
    assert unknown.value is None and "does not know" in unknown.notes[0]
    assert by_name(results, "Fracture")["label_auroc"].value is None
    assert "label_auroc" not in by_name(results)


def test_uncertain_labels_are_left_out_of_the_auroc() -> None:
    about = {"classes": {"pathologies": ["Edema"]}}
    outputs = {"feature": normal(100, 2), "pathologies": np.linspace(0, 1, 100, dtype=np.float32)[:, None]}
    side = features_of(outputs, encoder="xrv", about=about, positive={"Edema": range(60, 100)})
    side.labels[:60:2, LABELS.index("Edema")] = -1
    found = by_name(compared(side, side, labels=("Edema",)), "Edema")["label_auroc"]
    assert found.value == 1 and found.n_synthetic == 70 and "40 positive, 30 negative" in found.notes


def test_logits_make_an_inception_score_beside_that_of_real_images() -> None:
    real, made = (
        features_of(
            {"feature": normal(n, 1, n), "logits": (100 * np.eye(4, dtype=np.float32))[np.arange(n) % classes]},
            encoder="inception",
            positive={"Edema": range(80)},
            patients=patients,
        )
        for n, classes, patients in ((600, 4, [f"p{i // 3}" for i in range(600)]), (1000, 2, None))
    )
    results = compared(real, made, labels=("Edema", "Fracture"))
    found = by_name(results)
    mine, reference = found["inception_score"], found["inception_score_real"]
    assert mine.value == pytest.approx(2, rel=0.05) and (mine.n_real, mine.n_synthetic) == (0, 600)
    assert reference.value == pytest.approx(4, rel=0.05) and (reference.n_real, reference.n_synthetic) == (600, 0)
    assert any("600 rows a side, drawn from 1,000 synthetic" in note for note in mine.notes)
    edema, fracture = by_name(results, "Edema"), by_name(results, "Fracture")
    assert edema["inception_score"].n_synthetic == edema["inception_score_real"].n_real == 80
    assert fracture["inception_score"].value is fracture["inception_score_real"].value is None


def test_the_inception_score_of_real_images_counts_patients() -> None:
    logits = normal(200, 5).repeat(3, axis=0)
    made = features_of({"feature": normal(600, 1), "logits": logits}, encoder="inception")
    alone, grouped = (
        by_name(compared(made._replace(patients=patients), made))["inception_score_real"]
        for patients in (None, np.array([f"p{i // 3}" for i in range(600)], object))
    )
    assert alone.value == grouped.value and alone.se and grouped.se == pytest.approx(3**0.5 * alone.se, rel=0.01)


def test_frd_is_the_logarithm_of_fd_of_scaled_features_without_those_that_are_no_numbers() -> None:
    x, y = normal(300, 4), normal(300, 4, seed=1) * 2
    names = ["energy", "entropy", "contrast", "kurtosis"]
    kept = [0, 3]
    expected_x, expected_y = (side[:, kept].astype(np.float64) for side in (x, y))
    mean, sd = expected_x.mean(axis=0), expected_x.std(axis=0)
    expected = np.log(fd_value((expected_x - mean) / sd, (expected_y - mean) / sd))
    y[7, 1] = np.nan
    x[:, 2] = 0.1
    about = {"classes": {"feature": names}}
    sides = [features_of(side, encoder="radiomics", about=about, positive={"Edema": range(100)}) for side in (x, y)]
    results = compared(*sides, labels=("Edema", "Fracture"))
    assert [(metric.label, metric.metric) for metric in results.metrics] == [
        (None, "frd"),
        ("Edema", "frd"),
        ("Fracture", "frd"),
    ]
    frd, edema, fracture = results.metrics
    assert frd.value == pytest.approx(expected, rel=1e-12)
    assert frd.value and frd.se and frd.floor and frd.floor.value and frd.floor.value < frd.value
    assert any(note.endswith("constant on the real one: entropy, contrast") for note in frd.notes)
    assert edema.value and edema.n_real == 100 and fracture.value is None
    assert results.images == {}


def test_images_that_stand_out_come_with_the_nearest_real_one() -> None:
    x, y = normal(200, 3), normal(200, 3, seed=1)
    y[17] = 40
    x[5] = 38
    real, synthetic = features_of(x, name="real"), features_of(y, name="made")
    images = compared(real, synthetic).images["rad-dino"]
    assert images.least_like_prompt == []
    for listed in images[:2]:
        assert len(listed) == 12 and [image.value for image in listed] == sorted(
            (image.value for image in listed), reverse=True
        )
        first = listed[0]
        assert (first.filename, first.prompt, first.crc32) == ("made-00017.png", "Prompt 17.", synthetic.crc32[17])
        assert first.nearest_real and first.nearest_real.filename == "real-00005.png"
        assert first.nearest_real.distance == pytest.approx(np.sqrt(12))
    assert images.least_like_real[0].value == images.least_like_real[0].nearest_real.distance  # type: ignore[union-attr]
    assert images.adds_most_to_fd[0].value == pytest.approx(fd(x, y).synthetic[17])  # type: ignore[index]


def test_images_least_like_their_prompts_are_listed_with_their_cosines() -> None:
    texts, noise = normal(200, 8), normal(200, 8, seed=1)
    images = texts + noise
    images[17], images[30] = -texts[17], 3 * texts[30] - 4 * texts[30][::-1]
    real = features_of({"feature": texts, "text": texts}, encoder="biovil-t", name="real")
    made = features_of({"feature": images, "text": texts}, encoder="biovil-t", name="made")
    listed = compared(real, made).images["biovil-t"].least_like_prompt
    cosines = [float(i @ t / np.sqrt((i @ i) * (t @ t))) for i, t in zip(images.astype(float), texts.astype(float))]
    worst = sorted(range(200), key=cosines.__getitem__)[:12]
    assert [image.filename for image in listed] == [f"made-{i:05}.png" for i in worst]
    assert [image.value for image in listed] == pytest.approx([cosines[i] for i in worst], abs=1e-6)
    assert (listed[0].prompt, listed[0].crc32) == ("Prompt 17.", made.crc32[17])
    assert listed[0].nearest_real and listed[0].nearest_real.filename.startswith("real-")


def test_all_synthetic_images_are_ranked_where_the_sides_differ_in_size() -> None:
    y = normal(300, 3, seed=1)
    y[250:] = 50 + normal(50, 3, seed=3)
    images = compared(features_of(normal(60, 3)), features_of(y)).images["rad-dino"]
    assert all(int(image.filename[6:11]) >= 250 for listed in images[:2] for image in listed)


# The protocol of CheXGenBench


def prdc(x: np.ndarray, y: np.ndarray, k: int = 5) -> dict[str, float]:
    """Returns the metrics of the package prdc, which the authors call, by its formulas."""

    def distances(one: np.ndarray, two: np.ndarray) -> np.ndarray:
        return np.sqrt(np.square(one[:, None].astype(np.float64) - two[None]).sum(axis=2))

    real, synthetic = (np.sort(distances(side, side), axis=1)[:, k] for side in (x, y))
    between = distances(x, y)
    inside = between < real[:, None]
    return {
        "precision": inside.any(axis=0).mean(),
        "recall": (between < synthetic).any(axis=1).mean(),
        "density": inside.sum(axis=0).mean() / k,
        "coverage": (between.min(axis=1) < real).mean(),
    }


def poly_mmd(x: np.ndarray, y: np.ndarray) -> float:
    """Returns KID over all rows, as torchmetrics computes it."""

    def kernel(one: np.ndarray, two: np.ndarray) -> np.ndarray:
        return np.power(one.astype(np.float64) @ two.T / one.shape[1] + 1, 3)

    n, within = len(x), 0.0
    for side in (x, y):
        values = kernel(side, side)
        within += (values.sum() - np.trace(values)) / (n * (n - 1))
    return float(within - 2 * kernel(x, y).mean())


def test_chexgenbench_has_the_values_of_the_authors_formulas() -> None:
    x, y, text = normal(120, 4), normal(120, 4, seed=1) + np.float32(0.5), normal(120, 4, seed=2)
    sides = [features_of({"feature": side, "text": text}, encoder="inception") for side in (x, y)]
    results = compared(*sides, protocol="chexgenbench", labels=("Edema",))
    found = by_name(results)
    assert results.protocol == "chexgenbench" and results.images == {}
    assert {metric.protocol for metric in results.metrics} == {"chexgenbench"}
    assert {(metric.se, metric.ci_low, metric.floor) for metric in results.metrics} == {(None, None, None)}
    assert found["fd"].value == pytest.approx(fd_value(x, y), rel=1e-12)
    assert found["kid"].value == pytest.approx(poly_mmd(x, y), rel=1e-5)
    for name, value in prdc(x, y).items():
        assert found[name].value == pytest.approx(value, rel=1e-12), name
    cosines = (y * text).sum(axis=1) / np.linalg.norm(y, axis=1) / np.linalg.norm(text, axis=1)
    assert found["alignment"].value == pytest.approx(np.round(cosines, 3).mean(), abs=1e-5)
    assert [*found] == ["fd", "kid", "precision", "recall", "density", "coverage", "inception_score", "alignment"]
    assert {metric.value for metric in by_name(results, "Edema").values()} == {None}


def test_chexgenbench_takes_the_synthetic_images_of_the_prompts_that_real_rows_of_the_label_have() -> None:
    """And the first real row of each prompt; labels of synthetic rows play no part."""
    x, y = normal(90, 3), normal(150, 3, seed=1)
    prompts = [f"Prompt {i % 80}." for i in range(90)]  # rows 80 to 89 repeat 0 to 9
    real = features_of(x, prompts=prompts, positive={"Edema": [*range(5, 30), *range(80, 90)]})
    made = [f"Prompt {i % 60}." for i in range(150)]
    synthetic = features_of(y, prompts=made, positive={"Edema": range(150)})
    results = compared(real, synthetic, protocol="chexgenbench", labels=("Edema",))
    overall, edema = by_name(results), by_name(results, "Edema")
    assert (overall["fd"].n_real, overall["fd"].n_synthetic) == (80, 150)
    mine, theirs = np.arange(5, 30), [i for i in range(150) if 5 <= i % 60 < 30]
    assert (edema["fd"].n_real, edema["fd"].n_synthetic) == (25, len(theirs))
    assert edema["fd"].value == pytest.approx(fd_value(x[mine], y[theirs]), rel=1e-12)
    assert overall["fd"].value == pytest.approx(fd_value(x[:80], y), rel=1e-12)
    for name, value in prdc(x[mine], y[theirs]).items():
        assert edema[name].value == pytest.approx(value, rel=1e-12), name


def test_chexgenbench_has_frd_of_all_rows_only() -> None:
    sides = [features_of(normal(size, 3, size), encoder="radiomics") for size in (100, 80)]
    [frd] = compared(*sides, protocol="chexgenbench", labels=("Edema",)).metrics
    assert (frd.metric, frd.n_real, frd.n_synthetic) == ("frd", 80, 80) and frd.value is not None


# Order, seeds, files


def stores(folder: Path, order: list[int] | None = None) -> tuple[Path, Path]:
    real, synthetic = (
        features_of(
            normal(150, 6, seed),
            positive={"Edema": range(70)},
            patients=[f"p{i // 2}" for i in range(150)] if not seed else None,
        )
        for seed in (0, 1)
    )
    return write_store(folder / "real", real, order=order), write_store(folder / "synthetic", synthetic, order=order)


def test_the_order_of_rows_changes_no_bit_and_the_seed_does(tmp_path: Path) -> None:
    shuffled = np.random.default_rng(0).permutation(150).tolist()
    found = []
    for name, order, seed in (("a", None, 0), ("b", shuffled, 0), ("c", None, 0), ("d", None, 1)):
        real_store, synthetic_store = stores(tmp_path / name, order)
        fidelity(real_store, synthetic_store, tmp_path / f"{name}.json", labels=("Edema",), seed=seed)
        found.append(read(tmp_path / f"{name}.json"))
    assert bits(found[0]) == bits(found[1]) == bits(found[2])
    assert found[0].metrics != found[3].metrics
    real, synthetic = (features_of(normal(80, 3, seed)) for seed in (0, 1))
    turned = real._replace(
        filenames=real.filenames[::-1],
        crc32=real.crc32[::-1],
        prompts=real.prompts[::-1],
        outputs={"feature": real.outputs["feature"][::-1]},
    )
    assert bits(compared(real, synthetic)) == bits(compared(turned, synthetic))


def test_results_are_written_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    real, synthetic = stores(tmp_path)
    path = tmp_path / "results.json"
    fidelity(real, synthetic, path)
    results = read(path)
    assert (results.real.name, results.real.rows, results.real.patients) == ("image", 150, 75)
    assert results.labels == LABELS and results.seed == 0 and {"python", "numpy"} <= {*results.versions}
    assert results.real.encoders["rad-dino"].about == {"model": "rad-dino"}
    assert "NaN" not in path.read_text() and json.loads(path.read_bytes())["format"] == 2
    shown = capsys.readouterr().out
    assert all(name in shown for name in [*OF_FEATURES, *LABELS, "floor", f"{path}: 135 values"])
    marked = [metric for metric in results.metrics if metric.label is None or metric.value is None]
    assert all(note in shown for metric in marked for note in metric.notes)
    fidelity(real, synthetic, path, labels=(), protocol="chexgenbench")
    assert {metric.protocol for metric in read(path).metrics} == {"chexgenbench"}
    assert sorted(os.listdir(tmp_path)) == ["real", "results.json", "synthetic"]


def test_encoders_are_compared_in_turn_and_those_of_one_side_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real, synthetic = (
        write_store(tmp_path / side, *(features_of(normal(60, 2, len(name)), encoder=name) for name in names))
        for side, names in (("real", ("clip", "dinov2", "rad-dino")), ("synthetic", ("rad-dino", "clip")))
    )
    fidelity(real, synthetic, tmp_path / "results.json", labels=())
    results = read(tmp_path / "results.json")
    assert [*dict.fromkeys(metric.encoder for metric in results.metrics)] == ["clip", "rad-dino"]
    assert f"left out, as not all folders have it: dinov2 of {real}" in capsys.readouterr().out


# Refusals


def test_what_cannot_be_compared_is_refused_before_the_long_work(tmp_path: Path) -> None:
    x = features_of(normal(60, 2), about={"dtype": "float32", "versions": {"torch": "2.6"}})
    other = features_of(normal(60, 2), about={"dtype": "float32", "versions": {"torch": "2.7"}, "crop": 224})
    clip = features_of(normal(60, 2), encoder="clip")
    one, two, three = (
        write_store(tmp_path / name, side) for name, side in (("x", x), ("other", other), ("clip", clip))
    )
    path = tmp_path / "results.json"
    with pytest.raises(StepError, match=r"rad-dino: the real and the .* features differ.*: versions; crop; embed"):
        fidelity(one, two, path)
    with pytest.raises(StepError, match=r"no encoder in common: .*x has rad-dino and .*clip has clip"):
        fidelity(one, three, path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(StepError, match=r"empty has no features.json"):
        fidelity(one, tmp_path / "empty", path)
    (tmp_path / "prompts.csv").write_text("filename,prompt\n")
    with pytest.raises(StepError, match="no results can be added to this file"):
        fidelity(one, one, tmp_path / "prompts.csv")
    assert (tmp_path / "prompts.csv").read_text() == "filename,prompt\n" and not path.exists()


def test_encoders_of_one_side_must_have_the_same_patients() -> None:
    patients: list[Any] = [f"p{number // 2}" for number in range(60)]
    one = features_of(normal(60, 3), patients=patients)
    other = features_of(normal(60, 3), encoder="clip", patients=None)
    pairs = [(one, features_of(normal(60, 3))), (other, features_of(normal(60, 3), encoder="clip"))]
    with pytest.raises(StepError, match="the real features of rad-dino and clip have other patients"):
        compare(pairs, ("real", "synthetic"), labels=())


def test_encoders_of_one_side_must_have_the_same_images() -> None:
    x, y = normal(60, 2), normal(60, 2, seed=1)
    first, second = (features_of(x), features_of(y)), (features_of(x, encoder="clip"), features_of(y, encoder="clip"))
    for changed in (
        second[1]._replace(crc32=np.concatenate([second[1].crc32[:59], [7]]).astype(np.uint32)),
        features_of(y[:59], encoder="clip"),
    ):
        with pytest.raises(StepError, match=r"synthetic .* of rad-dino and clip .* images: image-00059.png; embed"):
            compare([first, (second[0], changed)], ("real", "synthetic"), labels=())
    assert compare([first, second], ("real", "synthetic"), labels=()).metrics


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"labels": ("Edema", "Gallstones")}, "unknown label: Gallstones; the labels are Atelectasis, "),
        ({"protocol": "quick"}, "unknown protocol 'quick'"),
        ({"seed": -1}, "the seed must not be negative"),
    ],
)
def test_unknown_options_are_refused(options: dict[str, Any], problem: str) -> None:
    x = features_of(normal(60, 2))
    with pytest.raises(StepError, match=problem):
        compared(x, x, **options)


def test_no_images_are_refused() -> None:
    x, nothing = features_of(normal(60, 2)), features_of(normal(0, 2))
    for pair in ((x, nothing), (nothing, x)):
        with pytest.raises(StepError, match="no images to compare"):
            compared(*pair)
    with pytest.raises(StepError, match="no features to compare"):
        compare([], ("real", "synthetic"))
