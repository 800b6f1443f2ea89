"""Data flows one way: a module imports from its own level or above it."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "audiodd_jax"
LEVELS = (
    "config",
    "settings",
    "presets",
    "data",
    "features",
    "networks",
    "kernels",
    "distillation",
    "training",
    "active_learning",
    "report",
    "training_run",
    "verdict",
    "active_run",
    "api",
    "report_gallery",
    "report_run",
    "cross_validation",
    "doctor",
    "cli_definitions",
    "cli_flags",
    "cli_support",
    "sweep",
    "cli_commands",
    "cli_active",
    "cli_report",
    "cli_sweep",
    "cli",
    "cli_group",
)
# What every level may use, and what itself uses nothing of the others.
ANYWHERE = ("runtime", "version")
MODULES = sorted(p.relative_to(PACKAGE) for p in PACKAGE.rglob("*.py"))


def _room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def _imported(path: Path) -> set[str]:
    """Rooms of the package that a module imports, wherever in its text."""
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


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_imports_go_one_way(module):
    room = module.parts[0].removesuffix(".py")
    if room in ("__init__", "__main__"):
        return
    allowed = set(ANYWHERE)
    if room not in ANYWHERE:
        allowed |= set(LEVELS[: LEVELS.index(room) + 1])
    imported = _imported(PACKAGE / module) - {"__version__"}
    assert imported <= allowed


def test_every_room_has_a_level():
    rooms = {module.parts[0].removesuffix(".py") for module in MODULES}
    assert rooms - {"__init__", "__main__"} == {*LEVELS, *ANYWHERE}
