"""Command lines: plain flags, a ``--config.`` flag for every setting, and tables.

Imports neither JAX nor NumPy, so that ``audiodd help`` answers at once.
"""

import dataclasses
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

from absl import flags as absl_flags
from ml_collections import config_flags

from audiodd_jax.config import Config, fields, presets
from audiodd_jax.config.user_paths import expanded, is_url, with_urls
from audiodd_jax.data import datasets
from audiodd_jax.errors import UserError
from audiodd_jax.flags import COMMANDS, for_dataset, meant
from audiodd_jax.runtime.object_store import check_installed

FlagsError = absl_flags.Error

# Settings whose flags do more: apply the method's defaults, take several functions.
_SAME_AS_FLAG = {"method": "method", "active.acquisition": "acquisition"}
_PATHS = ("workdir", "cache_dir", "data_dir", "coreset", "indices", "labelled")
_PATHS += ("out", "labels", "known", "continue")
_RECORDED = ("--data_dir", "--cache_dir", "--labelled", "--indices")


@dataclasses.dataclass
class CommandLine:
    """A parsed command line.

    Attributes:
      flags: values of the plain flags, read as attributes.
      arguments: positional arguments, with ``~`` expanded.
      settings: the ``--config.NAME=VALUE`` flags.
    """

    command: str
    flags: absl_flags.FlagValues
    arguments: list[str]
    settings: list[str]

    def configure(self, base: Config) -> Config:
        """Returns ``base`` with the settings of the plain and ``--config.`` flags.

        Raises:
          UserError: a setting whose value is not allowed.
          flags.Error: a value of the wrong type.
        """
        if "coreset.samples" in self.changed("coreset"):
            base = fields.replace(base, presets.IN_ALL)
        config = fields.replace(base, self._set_by_flags())
        holder = absl_flags.FlagValues()
        argv = [self.command, *self.settings]
        config_flags.DEFINE_config_dataclass(
            "config", config, flag_values=holder, sys_argv=argv
        )
        holder(argv)
        config = holder["config"].value
        fields.validate(config)
        return config

    def configure_defaults(self, changes: dict[str, Any] | None = None) -> Config:
        """Configures the defaults of the dataset, the method and the network.

        ``changes`` are further defaults, by dotted names of settings.

        Raises:
          UserError: an unknown dataset, or a setting whose value is not allowed.
          flags.Error: a value of the wrong type.
        """
        if self.command == "label":
            given = {"encoder.name": self.flags.encoder or ""}
            base = presets.for_session(self.arguments[0], self.flags.model, **given)
            return self.configure(base)
        base = fields.replace(dataset_config(self.flags), changes or {})
        if self.command == "train":
            base = presets.for_model(base, self.flags.model)
        elif self.command == "active":
            base = presets.for_active(base, self.flags.model)
        return self.configure(base)

    def changed(self, *groups: str) -> list[str]:
        """Returns the names of the settings in some groups that the flags change."""
        names = (*self._set_by_flags(), *map(_setting_name, self.settings))
        return [name for name in names if name.split(".")[0] in groups]

    def _set_by_flags(self) -> dict[str, Any]:
        return {
            name: _setting_value(flag.name, self.flags[flag.name].value)
            for flag in COMMANDS[self.command].flags
            if self.flags[flag.name].present
            for name in flag.sets
        }


def parse(command: str, argv: Sequence[str]) -> CommandLine:
    """Parses the arguments after a command's name.

    Raises:
      UserError: an unknown setting, or too few or too many arguments.
      flags.Error: an unknown flag, or a value of the wrong type.
    """
    entry, values = COMMANDS[command], _define(command)
    for setting, flag in _SAME_AS_FLAG.items():
        if flag in values:
            argv = [re.sub(rf"^--?config\.{setting}=", f"--{flag}=", a) for a in argv]
    settings = []
    if entry.has_settings:
        settings = [a for a in argv if re.match(r"--?config\.", a)]
    known = list(fields.names(Config()))
    for setting in settings:
        # A value apart from its flag would count as an argument.
        if "=" not in setting:
            raise UserError(f"write {setting}=VALUE, with an equals sign")
        name = _setting_name(setting)
        if name not in known:
            near = meant(name, [], known)
            hint = f"did you mean {near[0]}?" if near else f"see {command} --help"
            raise UserError(f"there is no setting config.{name}; {hint}")
    values.set_gnu_getopt(bool(entry.argument))
    try:
        arguments = values([command, *(a for a in argv if a not in settings)])[1:]
    except absl_flags.UnrecognizedFlagError as error:
        names = [f"config.{name}" for name in known if entry.has_settings]
        near = meant(error.flagname, values, names)[:3]
        raise absl_flags.UnrecognizedFlagError(error.flagname, "", near) from error
    if entry.argument and not arguments:
        raise UserError(f"usage: audiodd {command} {entry.argument} [flags]")
    most = len(arguments) if entry.argument.endswith("...") else bool(entry.argument)
    if extra := arguments[most:]:
        takes = entry.argument or "no argument"
        raise UserError(f"unexpected argument {extra[0]!r}: {command} takes {takes}")
    arguments = [_local_path(command, path) for path in arguments]
    for name in _PATHS:
        if name in values and values[name].value:
            # Several coresets are separated by commas.
            paths = values[name].value.split(",")
            values[name].value = ",".join(_local_path(f"--{name}", p) for p in paths)
    return CommandLine(command, values, arguments, settings)


def _define(command: str) -> absl_flags.FlagValues:
    values = absl_flags.FlagValues()
    for flag in COMMANDS[command].flags:
        flag.define(flag.name, flag.default, flag.help, flag_values=values)
    return values


def _setting_name(setting: str) -> str:
    return setting.split(".", maxsplit=1)[1].split("=")[0]


def _setting_value(flag: str, value: Any) -> Any:
    """Converts a plain flag's value to its setting's; 0 is all folds, set in turn."""
    if flag != "fold":
        return tuple(value) if isinstance(value, list) else value
    if value != "all" and not value.isdigit():
        raise UserError(f"--fold is the number of a fold, or all, not {value!r}")
    return 0 if value == "all" else int(value)


def _local_path(flag: str, text: str) -> str:
    """Returns the local path of a path or URL; some settings record the URL itself."""
    if is_url(text):
        check_installed(text.partition(":")[0])
        return text if flag in _RECORDED else expanded(text)
    if "://" in text:
        raise UserError(
            f"{flag}: {text} is not a local path, nor in s3:// or gs://; mount or copy "
            "it first"
        )
    path = expanded(text)
    if path.startswith("~") and not os.path.exists(path):
        raise UserError(f"{flag}: the home folder of {text} is not known")
    return path


def dataset_config(values: absl_flags.FlagValues) -> Config:
    """Returns the defaults of --dataset, --method, --preset, --labelled, --encoder."""
    names = [n for n in ("preset", "method", "labelled", "encoder") if n in values]
    given = {name: values[name].value for name in names if values[name].value}
    name = values.dataset or Config().data.name
    if datasets.is_session(given.get("labelled", "")):
        name = values.dataset or "folder"
    return for_dataset(name, **given)


def names(text: str) -> list[str]:
    """Returns the names in a comma-separated list."""
    return [name.strip() for name in text.split(",") if name.strip()]


def percent(fraction: float) -> str:
    """Formats a fraction as a percentage."""
    return f"{100 * fraction:.2f} %"


def table(rows: Sequence[tuple[str, str]]) -> None:
    """Prints rows of name and value."""
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:{width}s}  {with_urls(value)}")


def help_text(command: str) -> str:
    """Returns a command's help: its flags, and every setting with its default."""
    entry, values = COMMANDS[command], _define(command)
    usage = " ".join(filter(None, ["audiodd", command, entry.argument, "[flags]"]))
    lines = [usage, "", entry.summary, ""]
    for name in values:
        flag = values[name]
        shown = f"--[no]{name}" if flag.boolean else f"--{name}=..."
        lines.append(f"  {shown:28s} {flag.help}")
    if entry.has_settings:
        title = "All settings, with their defaults (a dataset may override some):"
        lines += ["", title, "", *_describe(Config(), "--config")]
    return "\n".join(lines)


def _describe(config: Any, prefix: str) -> Iterator[str]:
    """Yields a line per field, described by the ``Attributes`` of its dataclass."""
    _, _, attributes = (type(config).__doc__ or "").partition("Attributes:")
    texts = dict(re.findall(r"^ {6}(\w+): (.*(?:\n {8}.*)*)", attributes, re.MULTILINE))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        name = f"{prefix}.{field.name}"
        if dataclasses.is_dataclass(value):
            yield ""
            yield from _describe(value, name)
        else:
            text = re.sub(r"\s+", " ", texts.get(field.name, "")).replace("`", "")
            yield f"  {f'{name}={value}':46s} {text}".rstrip()
