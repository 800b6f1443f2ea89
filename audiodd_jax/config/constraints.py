"""Constraints of settings, stored as metadata of their fields."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from audiodd_jax.config import extensions


class Constraint(NamedTuple):
    """A constraint of a setting.

    Attributes:
      holds: returns whether a value is allowed.
      text: completes the error message "the setting must be ...".
    """

    holds: Callable[[Any], bool]
    text: str


AT_LEAST_ONE = Constraint(lambda value: value >= 1, "at least 1")
POSITIVE = Constraint(lambda value: value > 0, "positive")
NOT_NEGATIVE = Constraint(lambda value: value >= 0, "at least 0")
SHARE = Constraint(lambda value: 0 <= value <= 1, "between 0 and 1")
BELOW_ONE = Constraint(lambda value: 0 <= value < 1, "at least 0 and below 1")
SEED = Constraint(lambda value: 0 <= value < 2**32, "at least 0 and below 2**32")

STARTS = ("real", "herding", "k_center", "noise")
INITIAL = Constraint(
    lambda value: value in STARTS or value.endswith(".npz"),
    f"{', '.join(STARTS)} or the path of a coreset's .npz",
)


def one_of(*choices: str) -> Constraint:
    """Allows the given names."""
    return Constraint(lambda value: value in choices, " or ".join(choices))


def installed_or(group: str, *choices: str) -> Constraint:
    """Allows the given names, and those that installed packages add to a group."""
    return Constraint(
        lambda value: value in choices or value in extensions.names(group),
        f"{' or '.join(choices)}, or one that an installed package adds to {group}",
    )


def path_or(*choices: str) -> Constraint:
    """Allows the given names, and the path of a factory."""
    return Constraint(
        lambda value: value in choices or ":" in value,
        f"{', '.join(choices)} or package.module:factory",
    )


def setting(default: Any, constraint: Constraint) -> Any:
    """Returns a dataclass field with a default and a constraint."""
    return dataclasses.field(default=default, metadata={"constraint": constraint})


def constraint_of(field: dataclasses.Field) -> Constraint | None:
    """Returns the constraint of a field, or None."""
    return field.metadata.get("constraint")
