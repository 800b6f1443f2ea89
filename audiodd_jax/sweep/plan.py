"""Which runs a sweep has: a Python file with a list of them, or a grid.

A run is the flags of a command, by their names: ``{"dataset": "tones", "seed": 1,
"config.optimizer.learning_rate": 0.01}``. The file has ``RUNS``, a list of such, or
``GRID``, lists of values by flag, all of whose combinations are run; and ``COMMON``,
flags that all have, if it likes. ``command`` is ``distill`` unless it says otherwise.
"""

import itertools
import re
import runpy
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from audiodd_jax.config import Config, fields, presets
from audiodd_jax.flags import parse
from audiodd_jax.runtime.errors import UserError

COMMANDS = ("distill", "train", "active")
# Keys of a run that are no flags.
_OWN = ("command", "name")


class Planned(NamedTuple):
    """A run of a sweep.

    Attributes:
      name: of its directory in the sweep's.
      command: of ``audiodd``.
      flags: as the command line has them, less the run directory.
    """

    name: str
    command: str
    flags: tuple[str, ...]


def read(path: Path) -> list[Planned]:
    """The runs of a sweep file, each checked as its command would check it.

    Raises:
      UserError: no such file, none or both of ``RUNS`` and ``GRID``, flags that a
        command does not take, or two runs of one name.
    """
    if not path.is_file():
        raise UserError(f"there is no sweep file {path}")
    try:
        found = runpy.run_path(str(path))
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        raise UserError(f"{path} is no sweep file: {what}") from error
    if ("RUNS" in found) == ("GRID" in found):
        raise UserError(f"{path} has RUNS, a list of runs, or GRID, lists of values")
    common = found.get("COMMON", {})
    listed = found["RUNS"] if "RUNS" in found else _product(found["GRID"], path)
    if not isinstance(listed, list) or not all(isinstance(r, dict) for r in listed):
        raise UserError(f"RUNS of {path} is a list of dictionaries, flag by name")
    if not listed or not isinstance(common, dict):
        raise UserError(
            f"{path} has no run" if not listed else "COMMON is a dictionary"
        )
    runs = [{**common, **run} for run in listed]
    plans = [
        Planned(name, run.get("command", "distill"), _flags(run))
        for name, run in zip(_names(runs), runs, strict=True)
    ]
    for plan in plans:
        _check(plan)
    return plans


def _product(grid: Any, path: Path) -> list[dict[str, Any]]:
    lists = isinstance(grid, dict) and all(
        isinstance(values, list | tuple | range) for values in grid.values()
    )
    if not lists:
        raise UserError(f"GRID of {path} is a dictionary of lists, flag by name")
    return [
        dict(zip(grid, values, strict=True))
        for values in itertools.product(*grid.values())
    ]


def _flags(run: dict[str, Any]) -> tuple[str, ...]:
    return tuple(
        f"--{name}={_text(value)}"
        for name, value in run.items()
        if name not in _OWN and value is not None
    )


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ",".join(map(_text, value))
    return str(value)


def _names(runs: Sequence[dict[str, Any]]) -> Iterable[str]:
    """What tells each run from the others, as a folder can be called."""
    keys = dict.fromkeys(key for run in runs for key in run if key != "name")
    # As text: of values that a set could not hold.
    telling = [key for key in keys if len({repr(run.get(key)) for run in runs}) > 1]
    names = []
    for run in runs:
        parts = [
            f"{key.split('.')[-1]}={_text(run[key])}" for key in telling if key in run
        ]
        name = str(run.get("name") or ",".join(parts) or "run")
        names.append(re.sub(r"[^\w.=,+-]", "_", name).lstrip("."))
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two runs are called {name}: give each a name of its own")
        if not 0 < len(name) <= 200:
            raise UserError(f"{name!r} cannot be a folder's name: give the run a name")
    return names


def _check(plan: Planned) -> None:
    """Refuses what the command would refuse, before anything has run.

    Raises:
      UserError: naming the run.
    """
    if plan.command not in COMMANDS:
        raise UserError(
            f"run {plan.name}: a sweep runs {', '.join(COMMANDS)}, not {plan.command!r}"
        )
    if any(flag.startswith("--workdir=") for flag in plan.flags):
        raise UserError(
            f"run {plan.name}: the sweep says where its runs go, no workdir"
        )

    try:
        fields.validate(parsed(plan).config)
    except (UserError, parse.FlagsError) as error:
        told = str(error).replace("FATAL Flags parsing error:", "").strip()
        raise UserError(f"run {plan.name}: {told}") from error


def parsed(plan: Planned) -> parse.Parsed:
    """A run's flags, as its command reads them.

    Raises:
      UserError: an unknown setting, or an argument that is no flag.
      flags.Error: an unknown flag, or a value of the wrong type.
    """

    def base(values: Any) -> Config:
        config = parse.dataset_config(values)
        if plan.command == "distill":
            return config
        recipe = presets.for_model if plan.command == "train" else presets.for_active
        return recipe(config, values.model)

    return parse.parse(plan.command, plan.flags, base)
