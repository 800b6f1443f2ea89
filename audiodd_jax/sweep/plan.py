"""The runs of a sweep, from a Python file with a list or a grid.

A run is a dictionary of flags: ``{"dataset": "tones", "seed": 1,
"config.optimizer.learning_rate": 0.01}``. The file defines ``RUNS``, a list of runs, or
``GRID``, a dictionary of lists of values; a grid runs all their combinations.
``COMMON`` optionally adds flags to all runs. The key ``command`` is ``distill`` by
default.
"""

import itertools
import re
import runpy
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from audiodd_jax import command_line
from audiodd_jax.errors import UserError

COMMANDS = ("distill", "train", "active")
# Names of the sweep's own files and folders.
_RESERVED = ("logs", "status.md", "sweep.jsonl")
# Keys of a run that are not flags.
_NOT_FLAGS = ("command", "name")


class Planned(NamedTuple):
    """A run of a sweep.

    Attributes:
      name: its directory in the sweep's folder.
      command: one of ``COMMANDS``.
      flags: as on the command line, without the run directory.
    """

    name: str
    command: str
    flags: tuple[str, ...]


def read(path: Path) -> list[Planned]:
    """Reads the runs of a sweep file, checked as their commands would check them.

    Raises:
      UserError: no such file, none or both of ``RUNS`` and ``GRID``, bad flags, or two
        runs with one name.
    """
    if not path.is_file():
        raise UserError(f"there is no sweep file {path}")
    try:
        variables = runpy.run_path(str(path))
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{path} is not a sweep file: {reason}") from error
    if ("RUNS" in variables) == ("GRID" in variables):
        raise UserError(
            f"{path} must define RUNS, a list of runs, or GRID, lists of values"
        )
    common, runs = variables.get("COMMON", {}), variables.get("RUNS")
    if "GRID" in variables:
        grid = variables["GRID"]
        is_grid = isinstance(grid, dict) and all(
            isinstance(values, list | tuple | range) for values in grid.values()
        )
        if not is_grid:
            raise UserError(
                f"GRID in {path} must be a dictionary of lists, one per flag"
            )
        combinations = itertools.product(*grid.values())
        runs = [dict(zip(grid, values, strict=True)) for values in combinations]
    if not isinstance(runs, list) or not all(isinstance(run, dict) for run in runs):
        raise UserError(f"RUNS in {path} must be a list of dictionaries of flags")
    if not runs:
        raise UserError(f"{path} has no runs")
    if not isinstance(common, dict):
        raise UserError("COMMON must be a dictionary")
    runs = [{**common, **run} for run in runs]
    return [_planned(name, run) for name, run in zip(_names(runs), runs, strict=True)]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ",".join(map(_text, value))
    return str(value)


def _names(runs: Sequence[dict[str, Any]]) -> Iterable[str]:
    """Names the runs, by default after the flags in which they differ."""
    keys = dict.fromkeys(key for run in runs for key in run if key != "name")
    # By their text, since values may not be hashable.
    differing = [key for key in keys if len({repr(run.get(key)) for run in runs}) > 1]
    names = []
    for run in runs:
        parts = [
            f"{key.split('.')[-1]}={_text(run[key])}" for key in differing if key in run
        ]
        name = str(run.get("name") or ",".join(parts) or "run")
        names.append(re.sub(r"[^\w.=,+-]", "_", name).lstrip("."))
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two runs are named {name}; give each its own name")
        if name.lower() in _RESERVED:
            raise UserError(f"a run cannot be named {name}: the sweep has such a file")
        if not 0 < len(name) <= 200:
            raise UserError(f"{name!r} cannot be a folder's name; name the run")
    return names


def _planned(name: str, run: dict[str, Any]) -> Planned:
    """Checks a run's flags before anything has run."""
    command = run.get("command", "distill")
    if command not in COMMANDS:
        raise UserError(
            f"run {name}: a sweep runs {', '.join(COMMANDS)}, not {command!r}"
        )
    flags = tuple(
        f"--{flag}={_text(value)}"
        for flag, value in run.items()
        if flag not in _NOT_FLAGS and value is not None
    )
    if run.get("workdir") is not None:
        raise UserError(f"run {name}: workdir is set by the sweep")
    try:
        command_line.parse(command, flags).configure_defaults()
    except (UserError, command_line.FlagsError) as error:
        reason = str(error).replace("FATAL Flags parsing error:", "").strip()
        raise UserError(f"run {name}: {reason}") from error
    return Planned(name, command, flags)
