"""Synthetic images against their training images: pairs by name and by prompt, real image files, planted copies."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comparing import features_of
from conftest import convert
from paired_world import PATIENTS, N, by_name, encoded, reference, side, world, write_side
from pipeline.errors import StepError
from pipeline.evaluate.features import Features
from pipeline.evaluate.privacy.paired import SHOWN, paired_metrics
from pipeline.evaluate.privacy.paired_images import open_paired_sources
from pipeline.evaluate.privacy.paired_meanings import MEANINGS
from pipeline.evaluate.privacy.pairing import pair_images, plan_pairs
from synthchex_75k import SourceError


def named(names: list[str], prompts: list[str] | None = None, **options: Any) -> Features:
    """Returns features of images with these names."""
    values = np.random.default_rng(len(names)).normal(size=(len(names), 4)).astype(np.float32)
    crcs = np.array([zlib.crc32(name.encode()) for name in names], np.uint32)
    return features_of(values, prompts=prompts, **options)._replace(filenames=np.array(names), crc32=crcs)


# Which training image


@pytest.mark.parametrize(
    ("synthetic", "train"),
    [
        ("SyntheticImg_a.png", "a.jpg"),
        ("SyntheticImg_a.png", "a.png"),
        ("SyntheticImg_a_1.png", "a.jpeg"),
        ("SyntheticImg_a_12.PNG", "a.JPG"),
        ("a.png", "a.jpg"),
        ("a_3.png", "a.jpg"),
        ("SyntheticImg_a.png", "SyntheticImg_a.png"),
        ("SyntheticImg_a_2.png", "SyntheticImg_a.png"),
        ("a.b_1.png", "a.b.png"),
    ],
)
def test_names_that_are_a_pair(synthetic: str, train: str) -> None:
    pairing = pair_images(named(["b.jpg", train]), named([synthetic]), "filename")
    assert (pairing.synthetic.tolist(), pairing.train.tolist()) == ([0], [1])


@pytest.mark.parametrize(
    "synthetic", ["a_0.png", "a_01.png", "a-1.png", "Syntheticimg_a.png", "A.png", "ab.png", "a_1_b.png"]
)
def test_names_that_are_no_pair(synthetic: str) -> None:
    with pytest.raises(StepError, match="no pair") as raised:
        pair_images(named(["a.jpg", "b.jpg"]), named([synthetic]), "filename")
    for told in ("--pair filename", "2 training images", "SyntheticImg_", synthetic, "a.jpg"):
        assert told in str(raised.value)


def test_a_number_is_part_of_a_name_or_of_a_replicate() -> None:
    """`a_1` is the first replicate of `a`, or the image of `a_1`: the prompt tells, else the full name."""
    train = named(["a.jpg", "a_1.jpg"], ["Edema.", "No edema."])
    for prompt, row in (("Edema.", 0), ("No edema.", 1), ("Other.", 1)):
        pairing = pair_images(train, named(["a_1.png"], [prompt]), "filename")
        assert pairing.train.tolist() == [row]
        assert any("two different prompts" in note for note in pairing.notes) == (prompt == "Other.")


def test_unpaired_images_are_told() -> None:
    pairing = pair_images(named(["a.jpg", "b.jpg"]), named(["b.png", "c.png", "d.png", "a_1.png"]), "filename")
    assert pairing.synthetic.tolist() == [0, 3] and pairing.train.tolist() == [1, 0]
    assert "2 synthetic images without a training image, not counted" in pairing.notes


def test_two_training_images_that_differ_in_their_ending() -> None:
    with pytest.raises(StepError, match=r"ending of their names only: a\.jpg; a\.png"):
        pair_images(named(["a.jpg", "a.png"]), named(["a.png"]), "filename")


def test_an_unknown_way() -> None:
    with pytest.raises(StepError, match="filename or prompt"):
        pair_images(named(["a.jpg"]), named(["a.png"]), "patient")


def test_equal_prompts_are_a_pair_and_one_of_several_is_drawn() -> None:
    train = named([f"{i}.jpg" for i in range(12)], ["One."] + ["Two."] * 10 + [" "])
    synthetic = named(["x.png", "y.png", "z.png", "u.png", "v.png"], ["Two.", " One.\n", "Two.", "Three.", " "])
    seen = set()
    for seed in range(30):
        pairing = pair_images(train, synthetic, "prompt", seed)
        assert pairing.synthetic.tolist() == [0, 1, 2] and pairing.train[1] == 0
        assert pairing.train[0] == pairing.train[2], "images of a prompt have one training image"
        assert (pairing.train == pair_images(train, synthetic, "prompt", seed).train).all()
        assert any("2 synthetic images of 1 prompt with several training images" in note for note in pairing.notes)
        assert any("2 synthetic images without" in note for note in pairing.notes)
        seen.add(int(pairing.train[0]))
    assert len(seen) > 5
    with pytest.raises(StepError, match="--pair prompt: no pair"):
        pair_images(train, named(["x.png"], ["Four."]), "prompt")


# Real pairs


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5), st.booleans()), min_size=2, max_size=40),
    st.booleans(),
    st.integers(0, 5),
)
def test_real_pairs_are_what_they_are_called(rows: list[tuple[int, int, bool]], known: bool, seed: int) -> None:
    patients, contents, positive = zip(*rows)
    train = named([f"{i:02}.jpg" for i in range(len(rows))], patients=[f"p{p}" for p in patients] if known else None)
    train.labels[:, 0] = positive
    train = train._replace(crc32=np.array(contents, np.uint32))
    pairs = plan_pairs(train, named([f"{i:02}.png" for i in range(len(rows))]), "filename", seed, most=50)
    patient = np.array(patients) if known else np.arange(len(rows))
    for kind, same in ((pairs.strangers, False), (pairs.relatives, True)):
        assert len(kind) <= 50 and len({frozenset(pair) for pair in kind.tolist()}) == len(kind)
        for a, b in kind.tolist():
            assert contents[a] != contents[b] and (patient[a] == patient[b]) == same
    assert known or not len(pairs.relatives)
    for own, other in zip(pairs.own.tolist(), pairs.other.tolist()):
        fits = [i for i in range(len(rows)) if patient[i] != patient[own] and contents[i] != contents[own]]
        alike = [i for i in fits if positive[i] == positive[own]]
        assert other in (alike or fits or [-1])


def test_different_patients_have_the_same_positive_labels() -> None:
    train = named([f"{i:03}.jpg" for i in range(200)], patients=[f"{i // 2}" for i in range(200)])
    train.labels[:, 3] = np.arange(200) % 3 == 0
    train.labels[7, 5] = 1
    pairs = plan_pairs(train, named([f"{i:03}.png" for i in range(200)]), "filename", 0)
    unlike = (
        np.nan_to_num(train.labels[pairs.strangers[:, 0]]) != np.nan_to_num(train.labels[pairs.strangers[:, 1]])
    ).any(1)
    assert len(pairs.strangers) > 5000 and {*pairs.strangers[unlike].ravel().tolist()} & {7} == {7}
    assert unlike.sum() == (pairs.strangers[:, 0] == 7).sum()
    assert "no image of another patient has the same positive labels as 1 training image" in pairs.notes
    assert len(pairs.relatives) == 100


# Image files


@pytest.mark.parametrize("zipped", [False, True])
def test_planted_copies_are_found_by_each_measure(tmp_path: Path, zipped: bool) -> None:
    copies = 8
    train, synthetic, sources = world(tmp_path, copies, zipped=zipped)
    metrics, lists = paired_metrics(train, synthetic, pair="filename", images=sources, seed=0)
    found = by_name(metrics)
    assert {*found} == {name for name in MEANINGS if not name.startswith("reid")}
    for name in ("pixel_distance", "latent_distance"):
        closest = lists[f"closest_{name}"]
        assert len(closest) == SHOWN
        assert {pair.synthetic.filename for pair in closest[:copies]} == {
            f"SyntheticImg_r{i:03}.png" for i in range(copies)
        }
        assert all(pair.synthetic.filename == f"SyntheticImg_{pair.train.filename[:-4]}.png" for pair in closest)
        assert [pair.value for pair in closest] == sorted(pair.value for pair in closest)
        assert (
            closest[copies - 1].value
            < 5
            < 10
            < closest[copies].value
            < closest[0].about[f"{closest_title(name)} to another patient's image"]
        )
        rate = found[f"{name}_match_rate"]
        assert rate.value == pytest.approx(copies / N, abs=0.03) and rate.ci_low is not None and rate.ci_low > 0.02
        assert reference(rate, "different patients") == pytest.approx(0.01, abs=0.002)
        assert reference(rate, "same patient") > 0.9
        share = found[f"{name}_closer_share"]
        assert share.value is not None and share.value > 0.5 and reference(share, "chance") == 0.5
        assert share.n == {
            "synthetic": N,
            "train": N,
            "patients": PATIENTS,
            "same-patient pairs": PATIENTS,
            "different-patient pairs": rate.n["different-patient pairs"],
        }


def closest_title(name: str) -> str:
    return {"pixel_distance": "Pixel distance", "latent_distance": "Latent distance"}[name]


def test_without_copies_the_expected_values_are_inside(tmp_path: Path) -> None:
    train, synthetic, sources = world(tmp_path)
    found = by_name(paired_metrics(train, synthetic, pair="filename", images=sources, seed=1)[0])
    for name in ("pixel_distance", "latent_distance"):
        for metric, expected in (("match_rate", 0.01), ("closer_share", 0.5), ("auc", 0.5)):
            measured = found[f"{name}_{metric}"]
            assert measured.ci_low is not None and measured.ci_high is not None
            assert measured.ci_low <= expected <= measured.ci_high, measured
        assert reference(found[f"{name}_auc"], "same patient") > 0.99
        mean = found[name]
        assert mean.ci_low is not None and mean.ci_high is not None and mean.ci_low < (mean.value or 0) < mean.ci_high
        assert reference(mean, "same patient") < mean.ci_low < reference(mean, "different patients") < mean.ci_high
        assert found[f"{name}_min"].value is None and "one synthetic image for each" in found[f"{name}_min"].notes[0]


def test_pixel_distance_is_that_of_the_files(tmp_path: Path) -> None:
    """Black against white is 255, and two grey levels are 2, from files to the result."""
    train = {
        name: encoded(PIL.Image.new("L", (90, 60), grey)) for name, grey in (("a.png", 0), ("b.png", 100), ("c.png", 7))
    }
    synthetic = {
        "a.png": encoded(PIL.Image.new("RGB", (512, 512), "white")),
        "b.png": encoded(PIL.Image.new("L", (9, 9), 102)),
    }
    for name, files in (("train", train), ("synthetic", synthetic)):
        write_side(tmp_path / name, files, False)
    sources = open_paired_sources(str(tmp_path / "train"), str(tmp_path / "synthetic"))
    metrics, lists = paired_metrics(side(train, None), side(synthetic, None), pair="filename", images=sources, seed=0)
    assert [(pair.train.filename, pair.value) for pair in lists["closest_pixel_distance"]] == [
        ("b.png", 2),
        ("a.png", 255),
    ]
    assert by_name(metrics)["pixel_distance"].value == 128.5
    assert sources.describe()["pixels"]["preprocessing"]["size"] == [64, 64]


def test_images_of_one_prompt(tmp_path: Path) -> None:
    """With three images a prompt, the mean is that of all, and the extreme that of the closest."""
    train, synthetic, _ = world(tmp_path, copies=3, replicates=3)
    found = by_name(paired_metrics(train, synthetic, pair="filename", seed=0)[0])
    assert "pixel_distance" not in found
    rows = {str(name): row for row, name in enumerate(train.filenames)}
    own = [rows[f"{str(name)[13:17]}.jpg"] for name in synthetic.filenames]
    x, y = synthetic.outputs["feature"], train.outputs["feature"][own]
    distances = (np.linalg.norm(x - y, axis=1) / 6).reshape(N, 3)
    assert found["latent_distance"].value == pytest.approx(distances.mean(), rel=1e-6)
    least = found["latent_distance_min"]
    assert least.value == pytest.approx(distances.min(axis=1).mean(), rel=1e-6)
    assert least.ci_low is not None and least.ci_high is not None and least.ci_low < (least.value or 0) < least.ci_high
    assert reference(least, "another patient's image") < reference(found["latent_distance"], "another patient's image")
    assert found["latent_distance"].n["synthetic"] == 3 * N and found["latent_distance"].n["train"] == N


def test_without_patients_it_is_said(tmp_path: Path) -> None:
    train, synthetic, _ = world(tmp_path)
    for metric in paired_metrics(train._replace(patients=None), synthetic, pair="filename", seed=0)[0]:
        assert any("--patient-column" in note for note in metric.notes)
        assert any("no pairs of one patient" in note for note in metric.notes)
        assert "patients" not in metric.n and metric.n["same-patient pairs"] == 0
        assert not any(one.name == "same patient" for one in metric.references)
    alone = [f"p{i}" for i in range(N)]
    for metric in paired_metrics(train._replace(patients=np.array(alone, object)), synthetic, pair="filename", seed=0)[
        0
    ]:
        assert any("no training image is one of several of its patient" in note for note in metric.notes)


def test_the_order_of_rows_and_the_seed_decide_as_they_should(tmp_path: Path) -> None:
    train, synthetic, sources = world(tmp_path, copies=2)
    first = paired_metrics(train, synthetic, pair="filename", images=sources, seed=3)
    again = sources._replace(train=sources.train[::-1], synthetic=sources.synthetic[::-1], batch_size=3)
    assert paired_metrics(train, synthetic, pair="filename", images=again, seed=3) == first
    assert paired_metrics(train, synthetic, pair="filename", images=sources, seed=4)[0] != first[0]


def test_a_parquet_repository_is_a_source_too(tmp_path: Path) -> None:
    train, synthetic, sources = world(tmp_path, copies=2, patients=6)
    assert convert(tmp_path / "train", tmp_path / "parquet", "--uncertainty", "keep") == 0
    other = open_paired_sources(str(tmp_path / "parquet"), str(tmp_path / "synthetic"))
    found, wanted = (paired_metrics(train, synthetic, pair="filename", images=one, seed=0) for one in (other, sources))
    assert type(other.train[0]) is not type(sources.train[0]) and found == wanted


def test_few_pairs_have_no_threshold_and_no_interval_is_made_up() -> None:
    train, synthetic = named(["a.jpg", "b.jpg"], patients=["p", "p"]), named(["a.png", "b.png"])
    for metric in paired_metrics(train, synthetic, pair="filename", seed=0)[0]:
        if metric.metric != "latent_distance":
            assert metric.value is None and metric.notes
        else:
            assert metric.value is not None and metric.ci_low is None


def test_features_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    train, synthetic, sources = world(tmp_path)
    synthetic.outputs["feature"][5, 1] = np.inf
    metrics, lists = paired_metrics(train, synthetic, pair="filename", images=sources, seed=0)
    found = by_name(metrics)
    assert found["latent_distance"].value is None and "no finite numbers" in found["latent_distance"].notes[0]
    assert found["pixel_distance"].value is not None and "latent_distance_auc" not in found
    assert all(np.isfinite(list(pair.about.values())).all() for listed in lists.values() for pair in listed)


# Sources that are not those that were embedded


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("name", ["train", "synthetic"])
def test_an_image_that_changed(tmp_path: Path, name: str, zipped: bool) -> None:
    train, synthetic, sources = world(tmp_path, zipped=zipped)
    features = train if name == "train" else synthetic
    features.crc32[11] += 1
    with pytest.raises(StepError, match=f"--{name}: not the image that was embedded.*{features.filenames[11]}"):
        paired_metrics(train, synthetic, pair="filename", images=sources, seed=0)


@pytest.mark.parametrize("name", ["train", "synthetic"])
def test_an_image_that_is_missing(tmp_path: Path, name: str) -> None:
    train, synthetic, sources = world(tmp_path)
    sources = sources._replace(**{name: getattr(sources, name)[1:]})
    missing = (train if name == "train" else synthetic).filenames[0]
    with pytest.raises(StepError, match=f"--{name}: the source lacks 1 image .*{missing}"):
        paired_metrics(train, synthetic, pair="filename", images=sources, seed=0)


def test_an_image_that_is_damaged(tmp_path: Path) -> None:
    train, synthetic, sources = world(tmp_path)
    path = tmp_path / "synthetic" / str(synthetic.filenames[4])
    content = path.read_bytes()[:-200]
    path.write_bytes(content)
    synthetic.crc32[4] = zlib.crc32(content)
    with pytest.raises(SourceError, match=str(synthetic.filenames[4])):
        paired_metrics(train, synthetic, pair="filename", images=sources, seed=0)


def test_a_source_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(SourceError):
        open_paired_sources(str(tmp_path / "no"), str(tmp_path / "no"))


def test_every_metric_has_a_meaning(tmp_path: Path) -> None:
    train, synthetic, sources = world(tmp_path)
    metrics, _ = paired_metrics(train, synthetic, pair="filename", images=sources, seed=0)
    assert {metric.metric for metric in metrics} < {*MEANINGS}
