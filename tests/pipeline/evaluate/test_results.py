"""results.json: written and read back equal; whatever is damaged is an error that names the place."""

import copy
import json
import multiprocessing
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import StepError
from pipeline.evaluate.metrics.floor import Floor
from pipeline.evaluate.results.results import Results, check_results_path, read_results, update_results
from pipeline.evaluate.results.results_fidelity import (
    ADDED_LISTS,
    EncoderImages,
    Fidelity,
    ImageResult,
    MetricResult,
    NearestImage,
)
from pipeline.evaluate.results.results_parts import DamagedError, EncoderResult, SideResult
from pipeline.evaluate.results.results_section import ImagePair, Measured, PairedImage, Reference, Section

FLOOR = Floor(0.5, None, 300, 1)
METRIC = MetricResult("fd", "clip", "Edema", 1.5, 0.1, 1.3, 1.7, 60, 60, FLOOR, "sound", ("one", "Zwölf"))
REFUSED = MetricResult("fd", "clip", None, None, None, None, None, 3, 60, None, "sound", ("too few",))
IMAGE = ImageResult("a.png", 7, "Small effusion.", 3.25, NearestImage("b.png", 1 << 31, "No effusion.", 4.0))
SIDE = SideResult("features", "/data", 60, 30, {"clip": EncoderResult("ff", {"model": "clip", "size": [224, 224]})})
FIDELITY = Fidelity(
    "sound",
    "2026-11-27T10:00:00+00:00",
    0,
    ("Edema",),
    SIDE,
    SIDE._replace(patients=None),
    {"python": "3.11.7"},
    [METRIC, REFUSED],
    {"clip": EncoderImages([IMAGE], [IMAGE._replace(nearest_real=None)], [IMAGE._replace(value=-0.5)])},
)
AUROC = Measured("auroc", "probe: clip", "mixed", "Edema", 0.7, 0.02, 0.66, 0.74, {"test": 60, "positive": 9})
MACRO = AUROC._replace(label=None, references=(Reference("chance", 0.5), Reference("real", 0.8, 0.7, 0.9)))
UNKNOWN = Measured(
    "auroc", "probe: clip", "mixed", "Fracture", None, None, None, None, {"test": 60}, (), ("no positives",)
)
PAIR = ImagePair(PairedImage("a.png", 7, "Small effusion."), PairedImage("b.png", 1 << 31, ""), 0.5, {"held-out": 2.5})
SECTION = Section(
    "2026-11-27T10:00:00+00:00",
    3,
    {"python": "3.11.7"},
    {"settings": ["real", "mixed"], "steps": 40, "flips": False},
    {"train": SIDE, "synthetic": SIDE, "test": SIDE},
    [AUROC, MACRO, UNKNOWN],
    {"clip": {"closest": [PAIR]}},
)
RESULTS = Results(FIDELITY, utility=SECTION)


def write(path: Path, **changes: Any) -> None:
    sections = {**RESULTS._asdict(), **changes}
    update_results(path, **{name: section for name, section in sections.items() if section})


def written(folder: Path, content: object) -> Path:
    path = folder / "results.json"
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def content(tmp_path: Path) -> dict[str, Any]:
    write(tmp_path / "results.json")
    found: dict[str, Any] = json.loads((tmp_path / "results.json").read_bytes())
    return found


def test_results_are_read_back_equal(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write(path)
    assert read_results(path) == RESULTS
    assert [*tmp_path.iterdir()] == [path]


finite = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=50)
@given(finite, st.none() | st.floats(0, 1e300), finite, finite, st.integers(0, 1 << 40), st.lists(st.text("aä\n\"'")))
def test_any_numbers_and_notes_are_read_back_equal(
    tmp_path_factory: pytest.TempPathFactory, value: float, se: float | None, a: float, b: float, n: int, notes: list
) -> None:
    path = tmp_path_factory.mktemp("results") / "results.json"
    low, high = sorted((a, b))
    metric = METRIC._replace(value=value, se=se, ci_low=low, ci_high=high, n_real=n, notes=tuple(notes))
    write(path, fidelity=FIDELITY._replace(metrics=[metric]))
    assert read_results(path) == RESULTS._replace(fidelity=FIDELITY._replace(metrics=[metric]))


def test_results_of_before_there_was_a_list_are_read_without_it(tmp_path: Path, content: dict[str, Any]) -> None:
    del content["fidelity"]["images"]["clip"]["least_like_prompt"]
    found = read_results(written(tmp_path, content)).fidelity
    images = FIDELITY.images["clip"]._replace(least_like_prompt=[])
    assert found == FIDELITY._replace(images={"clip": images})


def test_each_command_replaces_its_own_section(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    update_results(path, fidelity=FIDELITY)
    update_results(path, privacy=SECTION)
    update_results(path, fidelity=FIDELITY._replace(seed=5))
    assert read_results(path) == Results(FIDELITY._replace(seed=5), SECTION)


def replace_often(path: Path, name: str, begin: Barrier) -> None:
    begin.wait(100)
    for seed in range(30):
        update_results(path, **{name: SECTION._replace(seed=seed)})
        assert read_results(path)._asdict()[name].seed == seed


def test_commands_that_end_at_once_keep_the_sections_of_each_other(tmp_path: Path) -> None:
    forks, names = multiprocessing.get_context("fork"), ["privacy", "utility", "reports"]
    begin = forks.Barrier(len(names))
    commands = [forks.Process(target=replace_often, args=(tmp_path / "results.json", name, begin)) for name in names]
    for command in commands:
        command.start()
    for command in commands:
        command.join()
    assert [command.exitcode for command in commands] == [0, 0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_sections_of_different_images_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "same.json")
    assert capsys.readouterr() == ("", "")
    update_results(tmp_path / "same.json", privacy=SECTION._replace(sides={"synthetic": SIDE._replace(source="/b")}))
    told = capsys.readouterr().out
    assert "not of the same synthetic images: fidelity, utility of /data and privacy of /b" in told


def test_what_json_cannot_hold_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    with pytest.raises(ValueError):
        update_results(path, fidelity=FIDELITY._replace(metrics=[METRIC._replace(value=float("nan"))]))
    with pytest.raises(DamagedError, match="'chexgenbench' in results of 'sound'"):
        mixed = [METRIC, REFUSED._replace(protocol="chexgenbench")]
        update_results(path, fidelity=FIDELITY._replace(metrics=mixed))
    with pytest.raises(DamagedError, match="auroc is there twice"):
        update_results(path, utility=SECTION._replace(metrics=[AUROC, AUROC]))
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("place", "value", "problem"),
    [
        (["fidelity", "protocol"], "other", "unknown protocol 'other'"),
        (["fidelity", "labels"], ["Edema", "Gallstones"], "labels: holds an unknown label"),
        (
            ["fidelity", "metrics", 1, "protocol"],
            "chexgenbench",
            r"metrics\[1\]: protocol 'chexgenbench' in results of 'sound'",
        ),
        (["fidelity", "metrics", 1, "encoder"], "dinov2", r"metrics\[1\]: unknown encoder 'dinov2'"),
        (["fidelity", "metrics", 0, "label"], "Fracture", r"metrics\[0\]: unknown label 'Fracture'"),
        (["fidelity", "metrics", 0, "value"], "1.5", r"metrics\[0\].value is 1.5"),
        (["fidelity", "metrics", 0, "value"], True, r"metrics\[0\].value is True"),
        (["fidelity", "metrics", 0, "value"], 10**400, r"metrics\[0\].value is 1000"),
        (["fidelity", "metrics", 0, "n_real"], -1, r"metrics\[0\].n_real is -1"),
        (["fidelity", "metrics", 0, "ci_low"], 9, "no interval: 9 to 1.7"),
        (["fidelity", "metrics", 0, "ci_low"], None, "no interval: None to 1.7"),
        (["fidelity", "metrics", 0, "notes"], [1], r"metrics\[0\].notes: holds something else"),
        (["fidelity", "metrics", 0, "floor"], 0.5, r"metrics\[0\].floor is 0.5"),
        (["fidelity", "metrics", 0], REFUSED._asdict() | {"floor": None}, r"metrics\[1\]: fd is there twice"),
        (
            ["fidelity", "images", "clip", "least_like_real", 0, "crc32"],
            "7",
            r"images.clip.least_like_real\[0\].crc32 is 7",
        ),
        (["fidelity", "real", "encoders", "clip"], [], r"real.encoders.clip is \[\]"),
        (["fidelity", "versions", "numpy"], 2, "versions: holds something else"),
        (["utility", "metrics", 0, "n", "test"], -1, r"metrics\[0\].n.test is -1"),
        (["utility", "metrics", 0, "label"], None, r"metrics\[1\]: auroc is there twice"),
        (["utility", "metrics", 1, "references", 1, "ci_low"], 1, "no interval: 1 to 0.9"),
        (["utility", "pairs", "clip", "closest", 0, "train"], "b.png", r"closest\[0\].train is b.png"),
        (["utility", "sides", "test", "rows"], 1.5, "test.rows is 1.5"),
    ],
)
def test_what_is_damaged_is_named(
    tmp_path: Path, content: dict[str, Any], place: list, value: object, problem: str
) -> None:
    part: Any = content
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    with pytest.raises(StepError, match=f"results.json: .*{problem}.*; delete it, and run .* again"):
        read_results(written(tmp_path, content))


def places_in(value: Any, path: tuple = ()) -> list[tuple]:
    """Returns the places of all values in JSON, but not of what is free."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [] if not path or path[-1] == "format" else [path]
    for key, part in inner:
        if key not in ("about", "versions", "options"):
            found += places_in(part, (*path, key))
    return found


# What these hold is named freely, so that it may be missing; likewise each section.
NAMED = {(), ("encoders",), ("n",), ("sides",), ("images",)}


@settings(max_examples=200)
@given(st.data())
def test_any_missing_or_wrong_value_is_an_error_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("results")
    write(folder / "results.json")
    content = json.loads((folder / "results.json").read_bytes())
    place = data.draw(st.sampled_from(places_in(content)))
    damaged = copy.deepcopy(content)
    part = damaged
    for key in place[:-1]:
        part = part[key]
    if place[:2] == ("utility", "pairs") and len(place) < 5:
        return  # methods and lists are named freely
    if isinstance(place[-1], str) and place[-2:-1] not in NAMED and data.draw(st.booleans()):
        del part[place[-1]]
        if place[-1] in ADDED_LISTS:
            return  # an earlier version did not write it
    else:
        part[place[-1]] = data.draw(st.sampled_from([{"x": []}, [[]], True, "�"]))
        if isinstance(content_at(content, place), str) and part[place[-1]] == "�":
            return  # another text is no damage
        if isinstance(content_at(content, place), list) and part[place[-1]] == [[]] and not content_at(content, place):
            return
    with pytest.raises(StepError) as caught:
        read_results(written(folder, damaged))
    assert "\n" not in str(caught.value) and "results.json" in str(caught.value)


def content_at(content: Any, place: tuple) -> Any:
    for key in place:
        content = content[key]
    return content


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "not JSON"),
        (b'{"format": 1, "protocol": "sound", "metr', "not JSON"),
        (b"[]", "not an object"),
        (b"[" * 100_000, "not JSON"),
        (b'{"a": NaN}', "not a number"),
        (b"{}", "no results of"),
        (b'{"format": 2, "fidelity": []}', r"fidelity is \[\]"),
        (b'{"format": 3, "fidelity": {}}', "format 3 instead of 2"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(content)
    with pytest.raises(StepError, match=problem):
        read_results(path)


def test_only_results_are_added_to(tmp_path: Path, content: dict[str, Any]) -> None:
    check_results_path(tmp_path / "results.json")
    check_results_path(tmp_path / "new.json")
    others = {
        "prompts.csv": (b"filename,prompt\n", "not JSON"),
        "other.json": (b"{}", "no results"),
        "newer.json": (json.dumps(content | {"format": 7}).encode(), "format 7"),
        "damaged.json": (json.dumps(content | {"utility": {}}).encode(), "utility: sides is missing; delete it"),
    }
    for name, (other, reason) in others.items():
        (tmp_path / name).write_bytes(other)
        with pytest.raises(StepError, match=f"{name}: no results can be added to this file, .*{reason}"):
            check_results_path(tmp_path / name)
    with pytest.raises(StepError, match="it is no file"):
        check_results_path(tmp_path)
    with pytest.raises(StepError, match="does not exist; create it"):
        check_results_path(tmp_path / "folder" / "results.json")
