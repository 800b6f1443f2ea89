"""Command lines to configurations: plain flags, and ``--config.`` flags."""

import dataclasses
import difflib
import os
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from absl import flags
from ml_collections import config_flags

from audiodd_jax.config import Config, presets
from audiodd_jax.config import fields as fields_lib
from audiodd_jax.data import datasets
from audiodd_jax.errors import UserError
from audiodd_jax.flags.definitions import (
    ARGUMENTS,
    COMMAND_FLAGS,
    WITHOUT_SETTINGS,
    Definition,
)

# The settings of each plain flag, and those that differ for a command.
_FIELDS: dict[str, tuple[str, ...]] = {
    "dataset": ("data.name",),
    "data_dir": ("data.data_dir",),
    "variant": ("data.variant",),
    "fold": ("data.fold",),
    "allow_partial": ("data.allow_partial",),
    "skip_bad_files": ("data.skip_bad_files",),
    "method": ("method",),
    "samples_per_class": ("coreset.samples_per_class",),
    "fraction": ("labels.fraction",),
    "indices": ("labels.indices",),
    "steps": ("loop.steps",),
    "precision": ("network.precision",),
    "seed": ("seed",),
    "num_seeds": ("evaluation.seeds", "training.seeds"),
    "budgets": ("active.budgets",),
}
_OWN_FIELDS: dict[str, dict[str, tuple[str, ...]]] = {
    "train": {
        "steps": ("training.steps",),
        "samples_per_class": (),
        "fraction": (),
        "indices": (),
    },
    "evaluate": {"steps": ("training.steps",)},
    "active": {"steps": ("training.steps",), "num_seeds": ()},
}

_PATHS = ("workdir", "cache_dir", "data_dir", "coreset", "indices", "labelled", "out")

FlagsError = flags.Error


def _defined(define: Sequence[Definition]) -> flags.FlagValues:
    values = flags.FlagValues()
    for definition in define:
        definition(values)
    return values


class Parsed(NamedTuple):
    """A parsed command line.

    Attributes:
      values: values of the plain flags.
      config: the configuration.
      changes: settings given by plain or ``--config.`` flags, with their values.
    """

    values: flags.FlagValues
    config: Config
    changes: dict[str, Any]


def parse(command: str, argv: Sequence[str], base: Callable[..., Config]) -> Parsed:
    """Parses flags onto the configuration that the plain ones choose.

    The plain flags come first, since the dataset and the preset say what every
    ``--config.`` flag defaults to.

    Args:
      command: name of the command.
      argv: the arguments after it.
      base: the configuration that the plain flags choose, and the argument of a
        command of ``ARGUMENTS``, before flags set its fields.

    Raises:
      UserError: an unknown setting, or an argument too many or too few.
      flags.Error: an unknown flag, or a value of the wrong type.
    """
    values = _defined(COMMAND_FLAGS[command])
    if "method" in values:
        # As the plain flag, so that it brings what the method needs.
        argv = [re.sub(r"^--?config\.method=", "--method=", a) for a in argv]
    # A --config flag with its value apart would leave that value as an argument.
    plain = [a for a in argv if not re.match(r"--?config\.", a)]
    split = [a for a in argv if re.match(r"--?config\.[^=]*$", a)]
    if split:
        raise UserError(f"write {split[0]}=VALUE, with an equals sign")
    values.set_gnu_getopt(command in ARGUMENTS)
    rest = values([command, *plain])[1:]
    if command in ARGUMENTS and not rest:
        raise UserError(f"usage: audiodd {command} {ARGUMENTS[command]} [flags]")
    if extra := rest[command in ARGUMENTS :]:
        raise UserError(f"unexpected argument {extra[0]!r}")
    rest = [_local_path(command, path) for path in rest]
    _expand_paths(values)
    fields = {**_FIELDS, **_OWN_FIELDS.get(command, {})}
    set_fields = {
        field: _field_value(flag, values[flag].value)
        for flag, names in fields.items()
        if flag in values and values[flag].present
        for field in names
    }
    config = fields_lib.replace(base(values, *rest), set_fields)
    settings = [a for a in argv if a not in plain]
    names = list(fields_lib.names(config))
    named = [re.split("[.=]", s, maxsplit=1)[1].split("=")[0] for s in settings]
    for name in named:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]}?" if near else f"see {command} --help"
            raise UserError(f"there is no setting config.{name}; {hint}")
    holder = flags.FlagValues()
    config_flags.DEFINE_config_dataclass(
        "config", config, flag_values=holder, sys_argv=[command, *settings]
    )
    holder([command, *settings])
    config = holder["config"].value
    changes = {name: fields_lib.get(config, name) for name in (*set_fields, *named)}
    return Parsed(values, config, changes)


def parse_arguments(
    command: str, argv: Sequence[str]
) -> tuple[flags.FlagValues, list[str]]:
    """The plain flags and the arguments of a command of ``ARGUMENTS``.

    Raises:
      UserError: there is no argument.
      flags.Error: an unknown flag, or a value of the wrong type.
    """
    values = _defined(COMMAND_FLAGS[command])
    values.set_gnu_getopt(True)
    rest = values([command, *argv])[1:]
    if not rest:
        raise UserError(f"usage: audiodd {command} {ARGUMENTS[command]} [flags]")
    _expand_paths(values)
    return values, [_local_path(command, path) for path in rest]


def _expand_paths(values: flags.FlagValues) -> None:
    """Expands ``~`` in the flags that are paths, and refuses URLs."""
    for name in _PATHS:
        if name in values and values[name].value:
            # Several coresets are separated by commas.
            parts = values[name].value.split(",")
            parts = [_local_path(f"--{name}", part) for part in parts]
            values[name].value = ",".join(parts)


def _local_path(what: str, text: str) -> str:
    """A path with ``~`` expanded.

    Raises:
      UserError: a URL, or a home folder that is not known.
    """
    if "://" in text:
        raise UserError(f"{what}: {text} is not a local path; mount or copy it first")
    path = os.path.expanduser(text)
    if path.startswith("~"):
        raise UserError(f"{what}: the home folder of {text} is not known")
    return path


def _field_value(flag: str, value: Any) -> Any:
    """What a plain flag sets its field to."""
    if flag == "fold":
        return _fold_number(value)
    return tuple(value) if isinstance(value, list) else value


def _fold_number(fold: str) -> int:
    """The number of the fold that tests; 0 for all, of which each is set in turn."""
    if fold == "all":
        return 0
    if not fold.isdigit():
        raise UserError(f"--fold is the number of a fold, or all, not {fold!r}")
    return int(fold)


def dataset_config(values: Any) -> Config:
    """The configuration of ``--dataset`` under ``--method`` and ``--preset``."""
    name = values.dataset or Config().data.name
    datasets.lookup(name)
    preset = values.preset if "preset" in values else None
    method = values.method if "method" in values else None
    changes = {"method": method} if method else {}
    if "labelled" in values and values.labelled:
        run, _, budget = values.labelled.rpartition("@")
        if not run:
            raise UserError(
                "--labelled is a run of active learning and one of its budgets, "
                f"RUN@20%, not {values.labelled!r}"
            )
        changes |= {"labels__run": run, "labels__budget": budget}
    return presets.for_dataset(name, preset or "default", **changes)


def help_text(command: str, summary: str, define: Sequence[Definition]) -> str:
    """The help of a command: every plain flag, and every setting with its default."""
    values = _defined(define)
    arguments = f" {ARGUMENTS[command]}" if command in ARGUMENTS else ""
    lines = [f"audiodd {command}{arguments} [flags]", "", summary, ""]
    for name in values:
        flag = values[name]
        shown = f"--[no]{name}" if flag.boolean else f"--{name}=..."
        lines.append(f"  {shown:28s} {flag.help}")
    if command in WITHOUT_SETTINGS:
        return "\n".join(lines)
    lines += ["", "All settings, with their defaults before those of the dataset:", ""]
    lines += list(_describe(Config(), "--config"))
    return "\n".join(lines)


def _describe(config: Any, prefix: str) -> Sequence[str]:
    """One line per field, described by the ``Attributes`` of its dataclass."""
    texts = _attribute_texts(type(config).__doc__ or "")
    lines: list[str] = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        name = f"{prefix}.{field.name}"
        if dataclasses.is_dataclass(value):
            lines += ["", *_describe(value, name)]
        else:
            shown = f"{name}={value}"
            lines.append(f"  {shown:46s} {texts.get(field.name, '')}".rstrip())
    return lines


def _attribute_texts(docstring: str) -> dict[str, str]:
    _, _, attributes = docstring.partition("Attributes:")
    found = re.findall(r"^ {6}(\w+): (.*(?:\n {8}.*)*)", attributes, re.MULTILINE)
    return {name: re.sub(r"\s+", " ", text).replace("`", "") for name, text in found}
