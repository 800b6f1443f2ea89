"""Imports go one way: from a room to itself and to rooms on lower levels."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "audiodd_jax"
# From the bottom up; rooms on one level do not import each other.
LEVELS = (
    {"version", "errors"},
    {"config", "runtime"},
    {"data", "networks"},
    {"features", "flags"},
    {"kernels", "command_line"},
    {"coreset"},
    {"distillation", "training"},
    {"active_learning"},
    {"report", "forecast"},
    {"sweep"},
    {"commands"},
)
ROOT_MODULES = {
    "__init__.py",
    "__main__.py",
    "command_line.py",
    "errors.py",
    "flags.py",
    "version.py",
}
MODULES = sorted(p.relative_to(PACKAGE) for p in PACKAGE.rglob("*.py"))


def _room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def _imported(path: Path) -> set[str]:
    """Returns the rooms that a module imports, anywhere in its text."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            base = node.module
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {_room(name) for name in names if name.startswith("audiodd_jax.")}
    return found


def _level(room: str) -> int:
    return next(i for i, rooms in enumerate(LEVELS) if room in rooms)


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_imports_go_one_way(module):
    room = module.parts[0].removesuffix(".py")
    if room in ("__init__", "__main__"):
        return
    below = set().union(*LEVELS[: _level(room)])
    imported = _imported(PACKAGE / module) - {"__version__"}
    assert imported <= below | {room}


def test_every_room_has_a_level():
    rooms = {module.parts[0].removesuffix(".py") for module in MODULES}
    assert rooms - {"__init__", "__main__"} == set().union(*LEVELS)


def test_there_are_at_most_eleven_levels():
    assert len(LEVELS) <= 11


def test_there_are_at_most_fourteen_rooms():
    assert len(list(PACKAGE.glob("*/__init__.py"))) <= 14


def test_the_package_root_holds_no_other_modules():
    assert {path.name for path in PACKAGE.glob("*.py")} == ROOT_MODULES


@pytest.mark.parametrize(
    "room", sorted(p.parent.name for p in PACKAGE.glob("*/__init__.py"))
)
def test_every_room_has_a_docstring_of_one_sentence(room):
    text = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text()))
    assert text.endswith(".")
    assert len(text.splitlines()) == 1


def test_tests_mirror_the_rooms():
    tests = Path(__file__).parents[1]
    folders = {
        path.name
        for path in tests.iterdir()
        if path.is_dir() and any(path.glob("*.py"))
    }
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    others = {"docs", "experiments", "helpers", "hostile", "house", "previous_version"}
    assert folders - others <= rooms
    assert [path.name for path in tests.glob("*.py")] == ["conftest.py"]
