"""The structure that `scripts/pipeline/__init__.py` describes, read from the source."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import ROOT

SCRIPTS = ROOT / "scripts"
PIPELINE = SCRIPTS / "pipeline"
PROGRAMS = sorted(SCRIPTS.glob("*.py"))
ROOMS = sorted(path.parent.name for path in PIPELINE.glob("*/__init__.py"))
GROUND = sorted(PIPELINE.glob("*.py"))


def imports_of(path: Path) -> Iterator[str]:
    """Yields the modules that a file imports, at its top or in a function, as dotted names."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_imported_by(path: Path) -> set[str]:
    parts = (name.split(".") for name in imports_of(path))
    return {words[1] for words in parts if words[0] == "pipeline" and len(words) > 1 and words[1] in ROOMS}


def test_there_is_a_room_for_each_step() -> None:
    assert {"parquet", "quality"} <= {*ROOMS}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_no_other_room(room: str) -> None:
    for path in PIPELINE.joinpath(room).rglob("*.py"):
        assert rooms_imported_by(path) <= {room}, path


def test_the_ground_floor_imports_no_room() -> None:
    assert len(GROUND) > 10
    for path in GROUND:
        assert not rooms_imported_by(path), path


def test_nothing_imports_a_program() -> None:
    programs = {path.stem for path in PROGRAMS}
    for path in [ROOT / "synthchex_75k.py", *PIPELINE.rglob("*.py"), *PROGRAMS]:
        assert not {name.split(".")[0] for name in imports_of(path)} & programs, path


def test_the_loading_script_imports_nothing_of_the_project() -> None:
    assert not {name.split(".")[0] for name in imports_of(ROOT / "synthchex_75k.py")} & {"pipeline"}


def test_the_ground_floor_has_no_circle() -> None:
    arrows = {
        path.stem: {name.split(".")[1] for name in imports_of(path) if name.startswith("pipeline.")} for path in GROUND
    }
    while arrows:
        lowest = {module for module, needed in arrows.items() if not needed & {*arrows}}
        assert lowest, f"a circle among {sorted(arrows)}"
        arrows = {module: needed for module, needed in arrows.items() if module not in lowest}


def test_the_map_lists_every_module_of_the_ground_floor_and_every_room() -> None:
    text = ast.get_docstring(ast.parse(PIPELINE.joinpath("__init__.py").read_text(encoding="utf-8"))) or ""
    listed = {line.split()[0] for line in text.splitlines() if line.startswith("    ")}
    assert listed == {*ROOMS, *(path.stem for path in GROUND if path.stem != "__init__")}


def test_no_two_public_functions_share_a_name() -> None:
    places = defaultdict(list)
    for path in [ROOT / "synthchex_75k.py", *PIPELINE.rglob("*.py")]:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                places[node.name].append(str(path.relative_to(ROOT)))
    # `rows.plan` is `synthchex_75k.plan` with progress; two programs have a `report`, named as their function.
    allowed = {"plan", "report"}
    assert {name: paths for name, paths in places.items() if len(paths) > 1 and name not in allowed} == {}
