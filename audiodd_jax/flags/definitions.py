"""The plain flags of every command, and which commands have them."""

from collections.abc import Callable

from absl import flags

from audiodd_jax.config import Config, fields
from audiodd_jax.config import presets as presets_lib
from audiodd_jax.config.names import ACQUISITIONS, METHODS
from audiodd_jax.data import datasets
from audiodd_jax.networks import parameter_count

Definition = Callable[[flags.FlagValues], None]


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
    methods = ", ".join(METHODS)
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
        model = fields.replace(Config(), {**own, "model.name": name}).model
        told.append(
            f"{name} ({parameter_count.parameters(model, (32, 64), 10):,} parameters)"
        )
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
        f"one of: {', '.join(ACQUISITIONS)}; or several, with commas, or "
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
