"""The flags of the commands: plain ones, and a ``--config.`` one a setting."""

import dataclasses
import difflib
import re
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags
from ml_collections import config_flags

from audiodd_jax import config as config_lib
from audiodd_jax import presets as presets_lib
from audiodd_jax.config import Config
from audiodd_jax.data import datasets
from audiodd_jax.runtime.errors import UserError

# Plain flags that set a field of the configuration.
_FIELDS = {
    "dataset": "data.name",
    "data_dir": "data.data_dir",
    "variant": "data.variant",
    "fold": "data.fold",
    "allow_partial": "data.allow_partial",
    "skip_bad_files": "data.skip_bad_files",
    "method": "method",
    "samples_per_class": "coreset.samples_per_class",
    "steps": "loop.steps",
    "seed": "seed",
    "num_seeds": "evaluation.seeds",
}


Definition = Callable[[flags.FlagValues], None]


def _defined(define: Sequence[Definition]) -> flags.FlagValues:
    values = flags.FlagValues()
    for definition in define:
        definition(values)
    return values


def define_data_flags(values: flags.FlagValues) -> None:
    """Which recordings, and where."""
    string, boolean = flags.DEFINE_string, flags.DEFINE_bool
    options = {"flag_values": values}
    string("dataset", None, f"one of: {', '.join(datasets.DATASETS)}", **options)
    variants = "; ".join(
        f"{name}: {', '.join(entry.variants)}"
        for name, entry in datasets.DATASETS.items()
        if entry.variants
    )
    string("variant", None, f"configuration of a dataset ({variants})", **options)
    string("data_dir", None, "where the recordings, or their archive, lie", **options)
    string("fold", None, "fold that tests, for data with folds, or all", **options)
    boolean("allow_partial", None, "use an incomplete published dataset", **options)
    boolean("skip_bad_files", None, "leave out files that cannot be decoded", **options)
    string("cache_dir", None, "where downloads and features are kept", **options)


def define_preset_flag(values: flags.FlagValues) -> None:
    """Which named changes on top of a dataset's defaults."""
    presets = ", ".join(presets_lib.PRESETS)
    flags.DEFINE_string("preset", None, f"one of: {presets}", flag_values=values)


def define_distill_flags(values: flags.FlagValues) -> None:
    """What everyone sets of a distillation."""
    string, integer = flags.DEFINE_string, flags.DEFINE_integer
    options = {"flag_values": values}
    string("method", None, "distillation method: rfad", **options)
    integer("samples_per_class", None, "coreset clips a class", **options)
    integer("steps", None, "distillation steps", **options)
    integer("seed", None, "of the run: start, networks, batches", **options)
    integer("num_seeds", None, "evaluation seeds", **options)
    string(
        "workdir",
        None,
        "run directory (default: runs/DATASET-METHOD-SAMPLES-SEED)",
        **options,
    )


def define_evaluate_flags(values: flags.FlagValues) -> None:
    """Which coreset, and how it is scored."""
    options = {"flag_values": values}
    flags.DEFINE_string(
        "workdir", None, "run directory whose coreset to score", **options
    )
    flags.DEFINE_string("coreset", None, "or: path of a coreset.npz", **options)
    flags.DEFINE_string("protocol", "krr", "krr (kernel regression)", **options)
    flags.DEFINE_integer("num_seeds", None, "evaluation seeds", **options)


def parse(
    command: str,
    argv: Sequence[str],
    define: Sequence[Definition],
    base: Callable[[Any], Config],
) -> tuple[flags.FlagValues, Config]:
    """Parses flags onto the configuration that the plain ones choose.

    The plain flags come first, since the dataset and the preset say what every
    ``--config.`` flag defaults to.

    Args:
      command: its name, for messages.
      argv: what follows it.
      define: defines its plain flags.
      base: the configuration that the plain flags choose, before they set its fields.

    Raises:
      UserError: an unknown setting, or an argument that is no flag.
      flags.Error: an unknown flag, or a value of the wrong type.
    """
    values = _defined(define)
    # A --config flag with its value apart would leave that value as an argument.
    plain = [a for a in argv if not re.match(r"--?config\.", a)]
    split = [a for a in argv if re.match(r"--?config\.[^=]*$", a)]
    if split:
        raise UserError(f"write {split[0]}=VALUE, with an equals sign")
    rest = values([command, *plain])[1:]
    if rest:
        raise UserError(f"{command} takes flags alone; what is {rest[0]!r}?")
    set_fields = {
        field: _fold_number(values.fold) if flag == "fold" else values[flag].value
        for flag, field in _FIELDS.items()
        if flag in values and values[flag].present
    }
    config = config_lib.replace(base(values), set_fields)
    settings = [a for a in argv if a not in plain]
    names = list(config_lib.names(config))
    for name in (re.split("[.=]", s, maxsplit=1)[1].split("=")[0] for s in settings):
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]}?" if near else f"see {command} --help"
            raise UserError(f"there is no setting config.{name}; {hint}")
    holder = flags.FlagValues()
    config_flags.DEFINE_config_dataclass(
        "config", config, flag_values=holder, sys_argv=[command, *settings]
    )
    holder([command, *settings])
    return values, holder["config"].value


def _fold_number(fold: str) -> int:
    """The number of the fold that tests; 0 for all, of which each is set in turn."""
    if fold == "all":
        return 0
    if not fold.isdigit():
        raise UserError(f"--fold is the number of a fold, or all, not {fold!r}")
    return int(fold)


def dataset_config(values: Any) -> Config:
    """The configuration of ``--dataset`` under ``--preset``."""
    name = values.dataset or Config().data.name
    datasets.lookup(name)
    preset = values.preset if "preset" in values else None
    return presets_lib.for_dataset(name, preset or "default")


def help_text(command: str, summary: str, define: Sequence[Definition]) -> str:
    """Every plain flag of a command, and every setting with its default."""
    values = _defined(define)
    lines = [f"audiodd {command} [flags]", "", summary, ""]
    for name in values:
        flag = values[name]
        shown = f"--[no]{name}" if flag.boolean else f"--{name}=..."
        lines.append(f"  {shown:28s} {flag.help}")
    lines += ["", "Everything else, with the defaults before a dataset's own:", ""]
    lines += list(_describe(Config(), "--config"))
    return "\n".join(lines)


def _describe(config: Any, prefix: str) -> Sequence[str]:
    """A line a field, described by the ``Attributes`` of its dataclass."""
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
