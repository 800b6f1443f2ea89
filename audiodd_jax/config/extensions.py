"""Methods, acquisition functions, encoders and trackers that installed packages add.

A package's ``pyproject.toml`` names them:

    [project.entry-points."audiodd.methods"]
    mean = "my_package.mean:make"

    [project.entry-points."audiodd.acquisitions"]
    least_confident = "my_package.scores:least_confident"

    [project.entry-points."audiodd.encoders"]
    birds = "my_package.birds:encoder"

    [project.entry-points."audiodd.trackers"]
    lab_book = "my_package.lab_book:start"
"""

import importlib
import importlib.metadata
import importlib.util
import operator
import os
import sys
from collections.abc import Callable

from audiodd_jax.config.names import TRACKERS as OUR_TRACKERS
from audiodd_jax.errors import UserError

METHODS, ACQUISITIONS = "audiodd.methods", "audiodd.acquisitions"
ENCODERS, TRACKERS = "audiodd.encoders", "audiodd.trackers"


def names(group: str) -> tuple[str, ...]:
    """Returns the sorted names of a group's entry points."""
    return tuple(sorted({e.name for e in importlib.metadata.entry_points(group=group)}))


def load(group: str, name: str) -> Callable:
    """Returns the function of an entry point.

    Raises:
      UserError: no entry point has this name, or its package cannot be imported.
    """
    entry_points = list(importlib.metadata.entry_points(group=group, name=name))
    if not entry_points:
        raise UserError(f"no installed package adds {name!r} to {group}")
    try:
        return entry_points[0].load()
    except (ImportError, AttributeError) as error:
        path = entry_points[0].value
        raise UserError(f"{path} cannot be imported: {error}") from error


def trackers(listed: str) -> dict[str, Callable]:
    """Returns the functions that start some trackers, by name.

    Args:
      listed: comma-separated names, as in the setting ``tracker``.

    Raises:
      UserError: a tracker's package is not installed.
    """
    starts = {}
    for name in filter(None, listed.split(",")):
        if name not in OUR_TRACKERS:
            starts[name] = load(TRACKERS, name)
            continue
        if name != "tensorboard" and not importlib.util.find_spec(name):
            raise UserError(
                f"--tracker={name} needs a package: pip install 'audiodd_jax[{name}]'"
            )
        # By name, since the functions import what writes runs.
        ours = importlib.import_module("audiodd_jax.runtime.trackers")
        starts[name] = getattr(ours, name)
    return starts


def from_path(path: str) -> Callable:
    """Imports the object at ``package.module:name``, also from the working directory.

    Raises:
      UserError: it cannot be imported.
    """
    module, _, name = path.partition(":")
    if os.getcwd() not in sys.path:  # as with python -m
        sys.path.append(os.getcwd())
    try:
        return operator.attrgetter(name)(importlib.import_module(module))
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{path} cannot be imported: {error}") from error
