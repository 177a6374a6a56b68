"""Settings of the utility experiments: who is on which side."""

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import FIXTURE, to_csv, to_files
from pipeline.errors import StepError
from pipeline.evaluate.settings import SETTINGS, Example, Split, patient_of, plan_examples, splits
from splitting import example
from synthchex_75k import LABELS


def names(examples: list[Example]) -> list[str]:
    return [one.row.filename for one in examples]


def twin_of(one: Example, number: int = 0) -> Example:
    stem = one.row.filename.rpartition(".")[0]
    return example(f"SyntheticImg_{stem}{f'_{number}' * bool(number)}.png", "synthetic")


def patients_behind(split: Split, real: list[Example]) -> list[set[object]]:
    """Patients of real and of synthetic training images; of those, by the number that all names and prompts hold."""
    patients = {one.row.filename.rpartition(".")[0].removeprefix("real-"): patient_of(one) for one in real}
    found: list[set[object]] = [set(), set()]
    for one in split.train:
        if one.side == "real":
            found[0].add(patient_of(one))
        else:
            stem = one.row.filename.removeprefix("SyntheticImg_real-").removeprefix("made-")
            found[1].add(patients.get(stem.rpartition(".")[0].partition("_")[0]))
    return found


@st.composite
def sources(draw: st.DrawFn) -> tuple[list[Example], list[Example], list[Example]]:
    """Real training images, synthetic ones of some of both real sides, and test images of other patients."""
    knows_patients = draw(st.booleans())
    sides: list[list[Example]] = [[], []]
    number = 0
    for side, prefix in zip(sides, ("p", "q")):
        for patient, size in enumerate(draw(st.lists(st.integers(1, 4), min_size=4, max_size=12))):
            for _ in range(size):
                suffix = draw(st.sampled_from([".png", ".jpg", ".jpeg"]))
                side.append(example(f"real-{number}{suffix}", "real", f"{prefix}{patient}" if knows_patients else None))
                number += 1
    synthetic = [example("made-unrelated.png", "synthetic")]
    for one in [*sides[0], *sides[1]]:
        stem = one.row.filename.partition("-")[2].partition(".")[0]
        kind = draw(st.sampled_from(["name", "several", "prompt", "none"]))
        synthetic += [twin_of(one)] * (kind == "name")
        synthetic += [twin_of(one, 1), twin_of(one, 2)] * (kind == "several")
        prompt = f" {one.row.prompt} ".replace(" ", "\n ")
        synthetic += [example(f"made-{stem}.png", "synthetic", prompt=prompt)] * (kind == "prompt")
    return sides[0], synthetic, sides[1]


@settings(max_examples=60)
@given(sources(), st.integers(0, 5), st.randoms(use_true_random=False))
def test_splits_of_any_sources(
    data: tuple[list[Example], list[Example], list[Example]], seed: int, shuffle: random.Random
) -> None:
    real, _, test = data
    found = splits(*data, seeds=2, seed=seed)
    assert [(split.setting, split.seed) for split in found] == [
        (setting, number) for setting in SETTINGS for number in (seed, seed + 1)
    ]
    of_test = {patient_of(one) for one in test}
    by_setting = {(split.setting, split.seed): split for split in found}
    for (setting, number), split in by_setting.items():
        reference = by_setting["real", number]
        assert names(split.validation) == names(reference.validation) and names(split.test) == sorted(names(test))
        assert split.validation and split.train
        assert {one.side for one in [*split.validation, *split.test]} == {"real"}
        held_out = {patient_of(one) for one in split.validation}
        assert 1 <= len(held_out) <= max(1, round(0.1 * len({patient_of(one) for one in real})))
        of_real, of_synthetic = patients_behind(split, [*real, *test])
        assert not (held_out | of_test) & (of_real | of_synthetic)
        assert max(Counter(names(split.train)).values()) == 1
        counts = Counter(one.side for one in split.train)
        size = len(real) - len(split.validation)
        assert split.real_images == size
        if setting == "real":
            assert counts == {"real": size} and not split.notes
        elif setting == "synthetic":
            assert counts["real"] == 0 and 0 < counts["synthetic"] <= size
        elif setting == "mixed":
            assert not of_real & of_synthetic
            assert 0 < counts["real"] <= size / 2 and len(split.train) <= size
        else:
            assert names(split.train) == names(reference.train) + names(by_setting["synthetic", number].train)
        wanted = {"real": size, "synthetic": size, "mixed": size, "augmented": 2 * size}[setting]
        assert (len(split.train) < wanted) == any("in place of" in note for note in split.notes)
    mixed_up = [shuffle.sample(side, len(side)) for side in data]
    shuffled = splits(mixed_up[0], mixed_up[1], mixed_up[2], seeds=2, seed=seed)
    for one, two in zip(found, shuffled, strict=True):
        assert names(one.train) == names(two.train) and names(one.validation) == names(two.validation)
        assert one.notes == two.notes


def people(count: int, prefix: str, images: int = 1) -> list[Example]:
    return [example(f"{prefix}{i}-{j}.png", patient=f"{prefix}{i}") for i in range(count) for j in range(images)]


def test_sizes_with_enough_synthetic_images() -> None:
    real, test = people(100, "p", 2), people(10, "q")
    unrelated = [example(f"made-{i}.png", "synthetic") for i in range(500)]
    for split in splits(real, unrelated, test):
        counts = Counter(one.side for one in split.train)
        assert len(split.validation) == 20 and split.notes == ()
        wanted = {"real": (180, 0), "synthetic": (0, 180), "mixed": (90, 90), "augmented": (180, 180)}
        assert (counts["real"], counts["synthetic"]) == wanted[split.setting]


def test_seeds_draw_other_validation_patients_and_other_synthetic_images() -> None:
    unrelated = [example(f"made-{i}.png", "synthetic") for i in range(500)]
    one, two = splits(people(100, "p"), unrelated, people(10, "q"), ["synthetic"], seeds=2)
    assert names(one.validation) != names(two.validation) and names(one.train) != names(two.train)
    (again,) = splits(people(100, "p"), unrelated, people(10, "q"), ["synthetic"], seeds=1, seed=1)
    assert names(again.train) == names(two.train)


def test_mixed_takes_twins_of_the_other_half_first() -> None:
    real, test = people(100, "p"), people(10, "q")
    unrelated = [example(f"made-{i}.png", "synthetic") for i in range(500)]
    (split,) = splits(real, [*unrelated, *map(twin_of, real)], test, ["mixed"], seeds=1)
    of_real, of_synthetic = (
        {one.row.filename.removeprefix("SyntheticImg_") for one in split.train if one.side == side}
        for side in ("real", "synthetic")
    )
    assert len(of_real) == 45 and of_real | of_synthetic | {*names(split.validation)} == {*names(real)}
    assert split.notes == (
        "55 synthetic images left out: twins of images of patients that are held out or whose real images are trained "
        "on",
    )


def test_twins_of_another_image_of_a_held_out_patient_are_left_out() -> None:
    real, test = people(10, "p", 3), people(5, "q")
    for split in splits(real, [twin_of(one) for one in [*real, *test]], test, ["synthetic"]):
        held_out = {one.patient for one in split.validation}
        assert len(split.train) == 27
        assert {one.row.filename.removeprefix("SyntheticImg_").partition("-")[0] for one in split.train} == {
            f"p{i}" for i in range(10)
        } - held_out


def test_a_prompt_counts_only_where_the_name_tells_nothing() -> None:
    real = [example(f"p{i}.png", patient=f"p{i}", prompt="No finding.") for i in range(10)]
    named = [example(f"SyntheticImg_p{i}.png", "synthetic", prompt="No finding.") for i in range(10)]
    (split,) = splits(real, named, people(2, "q"), ["synthetic"], seeds=1)
    assert len(split.train) == 9
    unnamed = [example(f"made-{i}.png", "synthetic", prompt="No finding.") for i in range(10)]
    with pytest.raises(StepError, match="all 10 synthetic images are twins"):
        splits(real, unnamed, people(2, "q"), ["synthetic"], seeds=1)


def test_a_patient_that_a_synthetic_image_names_counts() -> None:
    real, test = people(10, "p"), people(5, "q")
    made = [example(f"made-{i}.png", "synthetic", f"{side}{i}") for side, n in (("p", 10), ("q", 5)) for i in range(n)]
    made = [one._replace(row=one.row._replace(filename=f"{one.patient}.png")) for one in made]
    for split in splits(real, made, test, ["synthetic"]):
        assert len(split.train) == 9 and not {one.patient for one in split.train} & {
            one.patient for one in [*split.validation, *test]
        }


@pytest.mark.parametrize(
    ("real", "synthetic", "test", "chosen", "message"),
    [
        (
            people(4, "p"),
            people(4, "s"),
            [*people(2, "q"), example("x.png", patient="p1")],
            SETTINGS,
            "1 patient among",
        ),
        ([example("x.png"), example("y.png")], [], [example("x.png")], ["real"], r"1 image among .*: x\.png"),
        (people(1, "p", 5), [], people(2, "q"), ["real"], "one patient"),
        (people(4, "p"), [], people(2, "q"), ["real", "mixed"], "no synthetic images"),
        ([], [], people(2, "q"), ["real"], "no training images"),
        (people(4, "p"), [], [], ["real"], "no test images"),
        (people(4, "p"), [], people(2, "q"), ["reel"], "unknown setting: reel"),
        (people(4, "p"), [], people(2, "q"), [], "no setting"),
        (people(4, "p"), [twin_of(people(1, "q")[0])], people(2, "q"), ["synthetic"], "twins of images that must not"),
        (people(2, "p"), people(4, "s"), people(2, "q"), ["mixed"], "too few patients"),
    ],
)
def test_what_cannot_be_split_is_an_error(
    real: list[Example], synthetic: list[Example], test: list[Example], chosen: list[str], message: str
) -> None:
    with pytest.raises(StepError, match=message):
        splits(real, synthetic, test, chosen)


def test_a_source_without_synthetic_images_is_enough_for_real() -> None:
    (split,) = splits(people(4, "p"), [], people(2, "q"), ["real"], seeds=1)
    assert (len(split.train), len(split.validation), len(split.test)) == (3, 1, 2)


def test_examples_of_a_source(tmp_path: Path, images: dict[str, bytes], table: list[dict[str, str]]) -> None:
    table.sort(key=lambda row: row["filename"])
    for number, row in enumerate(table):
        row["patientID"] = f"p{number // 2}"
    to_files(tmp_path, {**images, "metadata.csv": to_csv(table)})
    found = plan_examples(str(tmp_path), "real", "patientID")
    assert names(found) == [row["filename"] for row in table]
    assert [one.patient for one in found] == [row["patientID"] for row in table]
    values = {"1": 1.0, "1.0": 1.0, "-1": np.nan, "-1.0": np.nan}
    for one, row in zip(found, table):
        np.testing.assert_array_equal(one.targets, [values.get(row[label], 0.0) for label in LABELS])
    assert {one.patient for one in plan_examples(str(FIXTURE), "synthetic")} == {None}
    with pytest.raises(StepError, match="no column subject"):
        plan_examples(str(FIXTURE), "real", "subject")
