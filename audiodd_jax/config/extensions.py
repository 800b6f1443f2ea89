"""Methods and acquisition functions of installed packages, by their entry points.

A package's ``pyproject.toml`` names them:

    [project.entry-points."audiodd.methods"]
    mean = "my_package.mean:make"

    [project.entry-points."audiodd.acquisitions"]
    least_confident = "my_package.scores:least_confident"
"""

import importlib
import importlib.metadata
import os
import sys
from collections.abc import Callable
from typing import Any

from audiodd_jax.errors import UserError

METHODS, ACQUISITIONS = "audiodd.methods", "audiodd.acquisitions"


def names(group: str) -> tuple[str, ...]:
    """The names that installed packages give to a group's entry points, sorted."""
    return tuple(sorted({e.name for e in importlib.metadata.entry_points(group=group)}))


def load(group: str, name: str) -> Callable:
    """The function of an entry point.

    Raises:
      UserError: there is none of this name, or its package cannot be imported.
    """
    found = list(importlib.metadata.entry_points(group=group, name=name))
    if not found:
        raise UserError(f"no installed package has {name!r} among its {group}")
    try:
        return found[0].load()
    except (ImportError, AttributeError) as error:
        raise UserError(f"{found[0].value} cannot be imported: {error}") from error


def from_path(path: str) -> Callable:
    """What ``package.module:name`` names, also in the working directory.

    Raises:
      UserError: it cannot be imported.
    """
    module, _, name = path.partition(":")
    if os.getcwd() not in sys.path:  # as python -m has it
        sys.path.append(os.getcwd())
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{path} cannot be imported: {error}") from error
    return found
