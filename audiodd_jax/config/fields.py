"""Settings by dotted names: listing, changing and checking them.

Like ``config``, it imports neither JAX nor NumPy.
"""

import dataclasses
import os
from collections.abc import Iterable, Iterator
from typing import Any

from audiodd_jax.config import Config
from audiodd_jax.config.constraints import constraint_of
from audiodd_jax.config.names import MATCHING, REGRESSION, SELECTION
from audiodd_jax.errors import UserError


def names(config: Any) -> Iterator[str]:
    """Dotted names of all settings."""
    return (name for name, _ in _leaves(config))


def _leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field]]:
    """Dotted names of all settings, with their fields."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from _leaves(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, field


def get(config: Any, name: str) -> Any:
    """The field of ``config`` with a dotted name."""
    for part in name.split("."):
        config = getattr(config, part)
    return config


def replace(config: Config, changes: dict[str, Any]) -> Config:
    """A copy of ``config`` with fields changed by their dotted names.

    Raises:
      UserError: a field does not exist.
    """
    result = from_dict(dataclasses.asdict(config))
    known = set(names(config))
    for name, value in changes.items():
        if name not in known:
            raise UserError(f"unknown setting {name!r}")
        *groups, field = name.split(".")
        setattr(get(result, ".".join(groups)) if groups else result, field, value)
    return result


def record(config: Config, groups: Iterable[str]) -> dict[str, Any]:
    """Returns groups of settings as ``config.json`` records them.

    The cache folder belongs to the machine and not to the run, and is left out.
    """
    values = dataclasses.asdict(config)
    del values["data"]["cache_dir"]
    return {name: values[name] for name in groups}


def with_cache(config: Config, cache_dir: str | os.PathLike | None) -> Config:
    """Returns the configuration with a cache folder; None keeps the one it has."""
    if cache_dir is None:
        return config
    return replace(config, {"data.cache_dir": os.fspath(cache_dir)})


def from_dict(values: dict[str, Any]) -> Config:
    """Inverse of ``dataclasses.asdict``, ignoring fields of other versions."""
    return build(Config, values)


def build(kind: type, values: dict[str, Any]) -> Any:
    """Settings of one group from a dictionary, ignoring fields of other versions."""
    arguments = {}
    for field in dataclasses.fields(kind):
        if field.name in values:
            value = values[field.name]
            if isinstance(field.type, type) and dataclasses.is_dataclass(field.type):
                value = build(field.type, value)
            arguments[field.name] = value
    return kind(**arguments)


def validate(config: Config) -> None:
    """Checks every setting that can be checked without the data.

    Raises:
      UserError: the first setting whose constraint does not hold.
    """
    for name, field in _leaves(config):
        constraint = constraint_of(field)
        value = get(config, name)
        if constraint and not constraint.holds(value):
            raise UserError(f"{name} must be {constraint.text}, not {value!r}")
    if config.loop.patience and config.loop.keep == "last":
        raise UserError("loop.patience stops at the best: it needs loop.keep=best")
    if config.coreset.views and not config.teacher.networks:
        raise UserError(
            "coreset.views are labelled by a teacher: set teacher.networks, such as 2"
        )
    if config.views.augment.background:
        raise UserError(
            "views.augment.background is not possible: views are made from the coreset "
            "alone, which has no background noise"
        )
    if config.method in SELECTION and config.coreset.init.endswith(".npz"):
        raise UserError(
            f"{config.method} selects real clips: it does not start from the coreset "
            f"coreset.init={config.coreset.init}"
        )
    _check_labels(config)
    if config.method in (*MATCHING, *SELECTION):
        for name in (
            "coreset.learn_labels",
            "coreset.solve_labels",
            "coreset.preconditioner",
        ):
            if get(config, name):
                raise UserError(
                    f"{config.method} learns images only, with fixed labels: {name} "
                    f"is for {', '.join(REGRESSION)}"
                )


def _check_labels(config: Config) -> None:
    """Checks that the used labels are named once, and completely."""
    labels = config.labels
    named = [
        name
        for name, is_given in (
            ("labels.run", labels.run),
            ("labels.fraction", labels.fraction < 1),
            ("labels.indices", labels.indices),
        )
        if is_given
    ]
    if len(named) > 1:
        raise UserError(f"{named[0]} and {named[1]} exclude each other")
    if bool(labels.run) != bool(labels.budget):
        raise UserError(
            "labels.run and labels.budget belong together: --labelled=RUN@20%"
        )
    if labels.pseudo and not named:
        raise UserError(
            "labels.pseudo labels the clips that --labelled, --fraction or --indices "
            "leave out: give one of them"
        )
    if labels.pseudo and not config.teacher.networks:
        raise UserError(
            "labels.pseudo needs a teacher: set teacher.networks, such as 2"
        )
