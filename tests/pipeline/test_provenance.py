"""`provenance.json`: where it is read, and what is refused."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import FIXTURE, to_files
from pipeline.errors import StepError
from pipeline.provenance import new_step, parse_provenance, provenance_json, read_provenance
from pipeline.source_json import MAX_DEPTH, MAX_JSON_BYTES, pin_commit
from servers.local_hub import Hub
from servers.range_server import serve
from synthchex_75k import SourceError, plan

STEPS: list[dict[str, Any]] = [{"step": "generate", "model": "Mountain"}, {"step": "scan", "by": ["A", {"b": None}]}]
CONTENT = provenance_json(STEPS)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(TEXTS, VALUES, max_size=4)), st.just("x") | TEXTS.filter(str.strip))
def test_steps_are_read_back_equal(fields: list[dict[str, Any]], name: str) -> None:
    steps = [{**step, "step": name} for step in fields]
    assert parse_provenance(provenance_json(steps), "provenance.json") == steps


def test_folder_with_and_without_it(tmp_path: Path) -> None:
    assert read_provenance(str(tmp_path)) == []
    to_files(tmp_path, {"provenance.json": b"\xef\xbb\xbf" + CONTENT})
    assert read_provenance(str(tmp_path)) == read_provenance(f"{tmp_path}/") == STEPS, "as Windows editors save it"


@pytest.mark.parametrize("name", ["a.zip", "a.TAR"])
def test_archive_has_none(name: str, tmp_path: Path) -> None:
    to_files(tmp_path, {name: b"PK"})
    assert read_provenance(str(tmp_path / name)) == []
    assert read_provenance(f"https://no.host.invalid/{name}") == []


def test_folder_at_a_web_address(tmp_path: Path) -> None:
    with serve(tmp_path) as server:
        assert read_provenance(server.url) == []
        to_files(tmp_path, {"provenance.json": CONTENT})
        assert read_provenance(server.url) == STEPS


def test_folder_on_the_hub_is_read_at_the_commit_of_the_plan(hub: Hub) -> None:
    files = {path.relative_to(FIXTURE).as_posix(): path.read_bytes() for path in FIXTURE.rglob("*") if path.is_file()}
    hub.create(
        "alice/chest", files={f"v1/{name}": data for name, data in {**files, "provenance.json": CONTENT}.items()}
    )
    source = "hf://datasets/alice/chest/v1"
    rows = plan(source)
    hub.push("alice/chest", {"v1/provenance.json": provenance_json([{"step": "other"}])})
    pinned = pin_commit(source, rows)
    assert re.fullmatch("hf://datasets/alice/chest@[0-9a-f]{40}/v1", pinned)
    assert read_provenance(pinned) == STEPS
    assert read_provenance(pinned.replace("/v1", "/v2")) == []


def test_unreachable_server_is_an_error(tmp_path: Path) -> None:
    with serve(tmp_path) as server:
        url = server.url
    with pytest.raises(StepError, match=re.escape(f"{url.rstrip('/')}/provenance.json cannot be read: ")):
        read_provenance(url)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON in UTF-8: Expecting value"),
        (b"\xff{}", "not JSON in UTF-8: 'utf-8' codec can't decode"),
        (b"[]", "not JSON in UTF-8: not an object in braces"),
        (b'{"steps": [], "steps": []}', "the key 'steps' is there twice"),
        (b'{"steps": [{"step": "a", "x": NaN}]}', "NaN is not a number that JSON can hold"),
        (b'{"steps": [{"step": "a", "x": 1e999}]}', "1e999 is not a number that JSON can hold"),
        (b'{"steps": [{"step": "\\ud800"}]}', r"a text with a lone surrogate: '\ud800'"),
        (b'{"steps": [{"step": "a", "\\ud800": 1}]}', r"a text with a lone surrogate: '\ud800'"),
        (b'{"steps": ' + b"[" * (MAX_DEPTH + 2) + b"]" * (MAX_DEPTH + 2) + b"}", "nested deeper than 32"),
        (b'{"steps": ' + b"[" * 100_000, "not JSON in UTF-8: "),
        (b"{}", 'it must hold {"steps": [...]} and nothing else'),
        (b'{"steps": {}}', 'it must hold {"steps": [...]} and nothing else'),
        (b'{"steps": [], "model": "x"}', 'it must hold {"steps": [...]} and nothing else'),
        (b'{"steps": [{"step": "a"}, "b"]}', 'step 2 must be an object with a text "step", its name'),
        (b'{"steps": [{"model": "a"}]}', 'step 1 must be an object with a text "step", its name'),
        (b'{"steps": [{"step": " "}]}', 'step 1 must be an object with a text "step", its name'),
        (b" " * (MAX_JSON_BYTES + 1), "more than 1,048,576 bytes; shorten it"),
    ],
    ids=range(17),
)
def test_wrong_file_is_refused_by_name(content: bytes, message: str, tmp_path: Path) -> None:
    to_files(tmp_path, {"provenance.json": content})
    with pytest.raises(SourceError) as caught:
        read_provenance(str(tmp_path))
    assert str(caught.value).startswith(f"{tmp_path}/provenance.json: ")
    assert message in str(caught.value)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "provenance.json").mkdir()
    with pytest.raises(SourceError, match=r"provenance\.json: not a regular file; remove it"):
        read_provenance(str(tmp_path))
    (tmp_path / "provenance.json").rmdir()
    (tmp_path / "provenance.json").symlink_to("nowhere")
    with pytest.raises(SourceError, match=r"provenance\.json: not a regular file; remove it"):
        read_provenance(str(tmp_path))


def test_new_steps_name_their_program() -> None:
    step = new_step("pack", images=3)
    assert json.loads(provenance_json([step])) == {"steps": [step]}
    assert (step["step"], step["program"], step["version"], step["images"]) == ("pack", "pack_shards.py", "1.0.0", 3)
