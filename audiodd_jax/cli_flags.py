"""The flags of the commands: plain ones, and a ``--config.`` one a setting."""

import dataclasses
import difflib
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from absl import flags
from ml_collections import config_flags

from audiodd_jax import presets as presets_lib
from audiodd_jax import settings as settings_lib
from audiodd_jax.config import Config
from audiodd_jax.data import datasets
from audiodd_jax.networks import sizes
from audiodd_jax.runtime.errors import UserError

# Plain flags that set fields of the configuration, and those of a command that set
# others than the same flag elsewhere.
_FIELDS: dict[str, tuple[str, ...]] = {
    "dataset": ("data.name",),
    "data_dir": ("data.data_dir",),
    "variant": ("data.variant",),
    "fold": ("data.fold",),
    "allow_partial": ("data.allow_partial",),
    "skip_bad_files": ("data.skip_bad_files",),
    "method": ("method",),
    "samples_per_class": ("coreset.samples_per_class",),
    "steps": ("loop.steps",),
    "precision": ("network.precision",),
    "seed": ("seed",),
    "num_seeds": ("evaluation.seeds", "training.seeds"),
    "budgets": ("active.budgets",),
}
_OWN_FIELDS: dict[str, dict[str, tuple[str, ...]]] = {
    "train": {"steps": ("training.steps",), "samples_per_class": ()},
    "evaluate": {"steps": ("training.steps",)},
    "active": {"steps": ("training.steps",), "num_seeds": ()},
}


FlagsError = flags.Error
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


def define_device_flag(values: flags.FlagValues) -> None:
    """How many devices."""
    flags.DEFINE_integer(
        "num_devices",
        None,
        "devices to use (default: all); on a CPU, so many are made of it",
        flag_values=values,
    )


def define_process_flags(values: flags.FlagValues) -> None:
    """Which processes are one run."""
    integer, options = flags.DEFINE_integer, {"flag_values": values}
    flags.DEFINE_string(
        "coordinator_address",
        None,
        "host:port of the run's first process, where a cluster does not tell (Slurm, "
        "Open MPI and TPU pods do)",
        **options,
    )
    integer("num_processes", None, "processes of the run, likewise", **options)
    integer("process_id", None, "number of this one, from 0, likewise", **options)


def define_preset_flag(values: flags.FlagValues) -> None:
    """Which named changes on top of a dataset's defaults."""
    presets = ", ".join(presets_lib.PRESETS)
    flags.DEFINE_string("preset", None, f"one of: {presets}", flag_values=values)


def define_distill_flags(values: flags.FlagValues) -> None:
    """What everyone sets of a distillation."""
    string, integer = flags.DEFINE_string, flags.DEFINE_integer
    options = {"flag_values": values}
    methods = ", ".join(settings_lib.METHODS)
    string("method", None, f"one of: {methods} (default: rfad)", **options)
    integer("samples_per_class", None, "coreset clips a class", **options)
    integer("steps", None, "distillation steps", **options)
    integer("seed", None, "of the run: start, networks, batches", **options)
    integer("num_seeds", None, "evaluation seeds", **options)
    string(
        "precision",
        None,
        "of the random networks' features: float32, or tf32 or bfloat16 with float32 "
        "sums",
        **options,
    )
    flags.DEFINE_bool(
        "dry_run",
        False,
        "show shapes, arithmetic, predicted memory and exchange, and stop",
        **options,
    )
    string(
        "workdir",
        None,
        "run directory (default: runs/DATASET-METHOD-SAMPLES-SEED)",
        **options,
    )


def define_train_flags(values: flags.FlagValues) -> None:
    """Which network, and what it learns from."""
    string, integer = flags.DEFINE_string, flags.DEFINE_integer
    options = {"flag_values": values}
    string("model", "convnet", f"one of: {_models()}", **options)
    string("coreset", None, "learn from this coreset.npz", **options)
    integer("samples_per_class", None, "or: from so many clips a class", **options)
    flags.DEFINE_float("fraction", None, "or: from this share of the clips", **options)
    string("indices", None, "or: from the training clips this file lists", **options)
    flags.DEFINE_bool("herding", False, "choose those a class by herding", **options)
    integer("steps", None, "training steps", **options)
    integer("seed", None, "the first of the networks' seeds", **options)
    integer("num_seeds", None, "networks", **options)
    string(
        "workdir", None, "run directory (default: runs/DATASET-MODEL-...)", **options
    )


def _models() -> str:
    """The networks with their sizes, for ten classes of 32 x 64 spectrograms."""
    told = []
    for name, recipe in presets_lib.MODEL_DEFAULTS.items():
        own = {key: value for key, value in recipe.items() if key.startswith("model.")}
        model = settings_lib.replace(Config(), {**own, "model.name": name}).model
        told.append(f"{name} ({sizes.parameters(model, (32, 64), 10):,} parameters)")
    return ", ".join(told) + "; sizes for ten classes, 32 x 64"


def define_evaluate_flags(values: flags.FlagValues) -> None:
    """Which coreset, how it is scored, and beside what."""
    options = {"flag_values": values}
    string = flags.DEFINE_string
    string("workdir", None, "run directory whose coreset to score", **options)
    string("coreset", None, "or: path of a coreset.npz", **options)
    string(
        "protocol",
        "krr",
        "krr (kernel regression with random networks), nngp or ntk (with the exact "
        f"kernel), or networks trained: {_models()}; or several, with commas",
        **options,
    )
    string(
        "against",
        "",
        "what else to score, with commas: random, herding (real clips, as many a "
        "class), hard (hard labels), 20% (of the clips), all",
        **options,
    )
    string(
        "out",
        None,
        "where trainings, tables and pictures go (default: evaluation in --workdir)",
        **options,
    )
    flags.DEFINE_integer("num_seeds", None, "evaluation seeds", **options)
    flags.DEFINE_integer("steps", None, "training steps", **options)


def define_active_flags(values: flags.FlagValues) -> None:
    """Which acquisition functions, up to how many labels, beside which coresets."""
    string, integer = flags.DEFINE_string, flags.DEFINE_integer
    options = {"flag_values": values}
    string(
        "acquisition",
        None,
        f"one of: {', '.join(settings_lib.ACQUISITIONS)}; or several, with commas, or "
        "all (default: bald)",
        **options,
    )
    string("model", "convnet", f"one of: {_models()}", **options)
    flags.DEFINE_list(
        "budgets",
        None,
        "labelled clips at which rounds end, rising, with commas: shares as 0.2 or "
        "20%, clips a class as 10/class (default: 20%,30%,40%,60%)",
        **options,
    )
    string(
        "coreset",
        None,
        "train on this coreset.npz too, by the same recipe, as a point on the picture; "
        "or several, with commas: one a seed",
        **options,
    )
    integer("steps", None, "training steps of a round", **options)
    integer("seed", None, "of the seed set, the networks and the choices", **options)
    integer("num_seeds", 1, "runs of each function, from --seed on", **options)
    string(
        "workdir", None, "run directory (default: runs/DATASET-active-...)", **options
    )


def define_report_flags(values: flags.FlagValues) -> None:
    """Where a report goes, and what of the coresets it shows."""
    string, integer = flags.DEFINE_string, flags.DEFINE_integer
    options = {"flag_values": values}
    string("out", "report", "the folder of the report", **options)
    integer("galleries", 4, "coresets that are shown and made audible", **options)
    integer(
        "per_class",
        0,
        "spectrograms of a class that are shown (default: a hundred of all classes)",
        **options,
    )
    integer("iterations", 64, "of Griffin-Lim", **options)
    integer("seed", 0, "of Griffin-Lim's first phases", **options)
    string("cache_dir", None, "downloads and features (default: see doctor)", **options)


def define_sweep_flags(values: flags.FlagValues) -> None:
    """Where a sweep's runs go, and what runs them."""
    string, integer, number = (
        flags.DEFINE_string,
        flags.DEFINE_integer,
        flags.DEFINE_float,
    )
    options = {"flag_values": values}
    string("workdir", None, "the sweep's folder (default: runs/FILE)", **options)
    flags.DEFINE_bool("dry_run", False, "list the runs, run none", **options)
    integer("retries", 3, "of a run whose process or worker is killed", **options)
    integer(
        "jobs",
        0,
        "runs at a time here (default: as devices serve; 1 on CPU)",
        **options,
    )
    integer(
        "together",
        1,
        "runs of equal shape (other seeds, learning rates, regularisers) that are one "
        "vmapped program, at most",
        **options,
    )
    integer("devices_per_run", 1, "accelerators of a run here", **options)
    string("ray", None, "run on a Ray cluster: auto, HOST:PORT, or local", **options)
    number("cpus_per_run", 1, "of a Ray cluster", **options)
    number("gpus_per_run", 0, "of a Ray cluster; below 1, shared", **options)
    number("tpus_per_run", 0, "chips of a Ray cluster", **options)


# What defines the plain flags of each command.
COMMAND_FLAGS: dict[str, tuple[Definition, ...]] = {
    "prepare": (define_data_flags, define_preset_flag, define_device_flag),
    "distill": (
        define_data_flags,
        define_preset_flag,
        define_distill_flags,
        define_device_flag,
        define_process_flags,
    ),
    "train": (
        define_data_flags,
        define_preset_flag,
        define_train_flags,
        define_device_flag,
    ),
    "evaluate": (define_data_flags, define_evaluate_flags, define_device_flag),
    "active": (
        define_data_flags,
        define_preset_flag,
        define_active_flags,
        define_device_flag,
    ),
    "report": (define_report_flags,),
    "sweep": (define_sweep_flags,),
    "doctor": (define_data_flags,),
}
# Commands that take no settings, but arguments: what they are.
ARGUMENTS = {"report": "RUNS...", "sweep": "FILE"}


class Parsed(NamedTuple):
    """What a command line asks for.

    Attributes:
      values: of the plain flags.
      config: the configuration.
      changes: the fields that were set, plainly or by ``--config.``, with their values.
    """

    values: flags.FlagValues
    config: Config
    changes: dict[str, Any]


def parse(command: str, argv: Sequence[str], base: Callable[[Any], Config]) -> Parsed:
    """Parses flags onto the configuration that the plain ones choose.

    The plain flags come first, since the dataset and the preset say what every
    ``--config.`` flag defaults to.

    Args:
      command: its name.
      argv: what follows it.
      base: the configuration that the plain flags choose, before they set its fields.

    Raises:
      UserError: an unknown setting, or an argument that is no flag.
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
    rest = values([command, *plain])[1:]
    if rest:
        raise UserError(f"{command} takes flags alone; what is {rest[0]!r}?")
    fields = {**_FIELDS, **_OWN_FIELDS.get(command, {})}
    set_fields = {
        field: _field_value(flag, values[flag].value)
        for flag, names in fields.items()
        if flag in values and values[flag].present
        for field in names
    }
    config = settings_lib.replace(base(values), set_fields)
    settings = [a for a in argv if a not in plain]
    names = list(settings_lib.names(config))
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
    changes = {name: settings_lib.get(config, name) for name in (*set_fields, *named)}
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
    return values, rest


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
    return presets_lib.for_dataset(name, preset or "default", **changes)


def help_text(command: str, summary: str, define: Sequence[Definition]) -> str:
    """Every plain flag of a command, and every setting with its default."""
    values = _defined(define)
    arguments = f" {ARGUMENTS[command]}" if command in ARGUMENTS else ""
    lines = [f"audiodd {command}{arguments} [flags]", "", summary, ""]
    for name in values:
        flag = values[name]
        shown = f"--[no]{name}" if flag.boolean else f"--{name}=..."
        lines.append(f"  {shown:28s} {flag.help}")
    if command in ARGUMENTS:
        return "\n".join(lines)
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
