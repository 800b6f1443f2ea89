"""The plain flags of every command."""

from collections.abc import Callable

from absl import flags

from audiodd_jax.config import Config, fields
from audiodd_jax.config import presets as presets_lib
from audiodd_jax.config.names import ACQUISITIONS, EXPORTS, METHODS
from audiodd_jax.data import datasets
from audiodd_jax.forecast import targets
from audiodd_jax.networks import parameter_count

Definition = Callable[[flags.FlagValues], None]


def define_data_flags(values: flags.FlagValues) -> None:
    """Flags for the dataset."""
    string, boolean = flags.DEFINE_string, flags.DEFINE_bool
    options = {"flag_values": values}
    listed = ", ".join(datasets.DATASETS)
    help_text = f"one of: {listed}; or tfds:NAME, a prepared data set of TFDS"
    string("dataset", None, help_text, **options)
    variants = "; ".join(
        f"{name}: {', '.join(entry.variants)}"
        for name, entry in datasets.DATASETS.items()
        if entry.variants
    )
    string("variant", None, f"configuration of a dataset ({variants})", **options)
    string("data_dir", None, "folder or archive with the recordings", **options)
    string("fold", None, "test fold, for data with folds, or all", **options)
    boolean("allow_partial", None, "use an incomplete published dataset", **options)
    boolean("skip_bad_files", None, "leave out files that cannot be decoded", **options)
    string("cache_dir", None, "folder for downloads and features", **options)


def define_device_flag(values: flags.FlagValues) -> None:
    """Flag for the number of devices."""
    flags.DEFINE_integer(
        "num_devices",
        None,
        "devices to use (default: all); on CPU, simulate this many devices",
        flag_values=values,
    )


def define_dry_run_flags(values: flags.FlagValues) -> None:
    """Flags for forecasts."""
    flags.DEFINE_bool(
        "dry_run",
        False,
        "print shapes, arithmetic, predicted memory and communication volume, and stop",
        flag_values=values,
    )
    flags.DEFINE_string(
        "target",
        None,
        "with --dry_run: an accelerator to compile for, whether or not it is there: "
        f"{', '.join(targets.CHIPS)}, with a topology or number as v5e:2x4 or h100:8",
        flag_values=values,
    )


def define_process_flags(values: flags.FlagValues) -> None:
    """Flags for a run of several processes."""
    integer, options = flags.DEFINE_integer, {"flag_values": values}
    flags.DEFINE_string(
        "coordinator_address",
        None,
        "host:port of process 0 (found automatically under Slurm, Open MPI and on TPU "
        "pods)",
        **options,
    )
    integer("num_processes", None, "number of processes of the run", **options)
    integer("process_id", None, "index of this process, from 0", **options)


def define_preset_flag(values: flags.FlagValues) -> None:
    """Flag for a preset on top of a dataset's defaults."""
    presets = ", ".join(presets_lib.PRESETS)
    flags.DEFINE_string("preset", None, f"one of: {presets}", flag_values=values)


def define_distill_flags(values: flags.FlagValues) -> None:
    """Common flags of a distillation."""
    string, integer = flags.DEFINE_string, flags.DEFINE_integer
    options = {"flag_values": values}
    methods = ", ".join(METHODS)
    string("method", None, f"one of: {methods} (default: rfad)", **options)
    integer("samples_per_class", None, "coreset samples per class", **options)
    integer("steps", None, "distillation steps", **options)
    string(
        "labelled",
        None,
        "learn from the labels alone that a run of audiodd active had bought at one of "
        "its budgets: RUN@20%",
        **options,
    )
    flags.DEFINE_float(
        "fraction", None, "learn from this share of the labels alone", **options
    )
    string("indices", None, "learn from the clips listed in this file alone", **options)
    integer("seed", None, "random seed", **options)
    integer("num_seeds", None, "number of evaluation seeds", **options)
    string(
        "precision",
        None,
        "precision of the random features: float32, or tf32 or bfloat16 with float32 "
        "sums",
        **options,
    )
    string(
        "workdir",
        None,
        "run directory (default: runs/DATASET-METHOD-SAMPLES-SEED)",
        **options,
    )


def define_train_flags(values: flags.FlagValues) -> None:
    """Flags for the network and its training data."""
    string, integer = flags.DEFINE_string, flags.DEFINE_integer
    options = {"flag_values": values}
    string("model", "convnet", f"one of: {_models()}", **options)
    string("coreset", None, "train on this coreset.npz, or example", **options)
    integer("samples_per_class", None, "train on this many clips per class", **options)
    flags.DEFINE_float(
        "fraction", None, "train on this share of the training split", **options
    )
    string("indices", None, "train on the clips listed in this file", **options)
    flags.DEFINE_bool(
        "herding", False, "select --samples_per_class clips by herding", **options
    )
    integer("steps", None, "training steps", **options)
    integer("seed", None, "random seed of the first network", **options)
    integer("num_seeds", None, "number of networks", **options)
    string(
        "workdir", None, "run directory (default: runs/DATASET-MODEL-...)", **options
    )


def _models() -> str:
    """The networks with their sizes, for ten classes of 32 x 64 spectrograms."""
    lines = []
    for name, recipe in presets_lib.MODEL_DEFAULTS.items():
        own = {key: value for key, value in recipe.items() if key.startswith("model.")}
        model = fields.replace(Config(), {**own, "model.name": name}).model
        lines.append(
            f"{name} ({parameter_count.parameters(model, (32, 64), 10):,} parameters)"
        )
    own = "or the factory of another Flax module as package.module:factory"
    return f"{', '.join(lines)}, {own}; sizes for ten classes, 32 x 64"


def define_evaluate_flags(values: flags.FlagValues) -> None:
    """Flags for the coreset, protocols and baselines."""
    options = {"flag_values": values}
    string = flags.DEFINE_string
    string("workdir", None, "run directory whose coreset to score", **options)
    string(
        "coreset",
        None,
        "coreset.npz to score, or example: that of the package",
        **options,
    )
    string(
        "protocol",
        "krr",
        "comma-separated: krr (kernel regression with random networks), nngp or ntk "
        f"(exact kernels), or networks to train: {_models()}",
        **options,
    )
    string(
        "against",
        "",
        "comma-separated baselines: random, herding (real clips, the same number per "
        "class), hard (hard labels), 20% (of the clips), all",
        **options,
    )
    string(
        "out",
        None,
        "folder for trainings, tables and pictures (default: evaluation in --workdir)",
        **options,
    )
    flags.DEFINE_integer("num_seeds", None, "number of evaluation seeds", **options)
    flags.DEFINE_integer("steps", None, "training steps", **options)


def define_active_flags(values: flags.FlagValues) -> None:
    """Flags for acquisition functions, budgets and coresets to compare with."""
    string, integer = flags.DEFINE_string, flags.DEFINE_integer
    options = {"flag_values": values}
    string(
        "acquisition",
        None,
        f"comma-separated: {', '.join(ACQUISITIONS)}, or all (default: bald)",
        **options,
    )
    string("model", "convnet", f"one of: {_models()}", **options)
    flags.DEFINE_list(
        "budgets",
        None,
        "increasing sizes of the labelled pool, comma-separated: shares as 0.2 or 20%, "
        "clips per class as 10/class (default: 20%,30%,40%,60%)",
        **options,
    )
    string(
        "coreset",
        None,
        "comma-separated coreset.npz files, one per seed, to train on with the same "
        "recipe for comparison",
        **options,
    )
    integer("steps", None, "training steps per round", **options)
    integer("seed", None, "random seed", **options)
    integer("num_seeds", 1, "seeds per acquisition function, from --seed on", **options)
    string(
        "workdir", None, "run directory (default: runs/DATASET-active-...)", **options
    )


def define_report_flags(values: flags.FlagValues) -> None:
    """Flags for the report's folder and contents."""
    string, integer = flags.DEFINE_string, flags.DEFINE_integer
    options = {"flag_values": values}
    string("out", "report", "folder of the report", **options)
    integer("galleries", 4, "number of coresets shown and made audible", **options)
    integer(
        "per_class",
        0,
        "spectrograms shown per class (default: a hundred in all)",
        **options,
    )
    flags.DEFINE_bool(
        "all_sounds",
        False,
        "write WAV files of all spectrograms, not only of those shown",
        **options,
    )
    integer("iterations", 64, "iterations of Griffin-Lim", **options)
    integer("seed", 0, "random seed of Griffin-Lim's phases", **options)
    string(
        "cache_dir",
        None,
        "folder for downloads and features (default: see doctor)",
        **options,
    )


def define_export_flags(values: flags.FlagValues) -> None:
    """Flags for the format and folder of an export."""
    string, options = flags.DEFINE_string, {"flag_values": values}
    string("format", None, f"one of: {', '.join(EXPORTS)}", **options)
    string(
        "out",
        None,
        "new folder of the export (default: export/FORMAT in RUN)",
        **options,
    )
    flags.DEFINE_bool(
        "test_clips",
        False,
        "pytorch, numpy: also write the test clips of the dataset as waveforms",
        **options,
    )
    string("data_dir", None, "folder or archive with the recordings", **options)
    string(
        "cache_dir",
        None,
        "folder for downloads and features (default: see doctor)",
        **options,
    )


def define_sweep_flags(values: flags.FlagValues) -> None:
    """Flags for a sweep's folder and resources."""
    string, integer, number = (
        flags.DEFINE_string,
        flags.DEFINE_integer,
        flags.DEFINE_float,
    )
    options = {"flag_values": values}
    string("workdir", None, "the sweep's folder (default: runs/FILE)", **options)
    flags.DEFINE_bool("dry_run", False, "list the runs and stop", **options)
    integer(
        "retries", 3, "retries of a run whose process or worker is killed", **options
    )
    integer(
        "jobs",
        0,
        "runs at a time on this machine (default: one per device; 1 on CPU)",
        **options,
    )
    integer("devices_per_run", 1, "accelerators per run on this machine", **options)
    string("ray", None, "run on a Ray cluster: auto, HOST:PORT, or local", **options)
    number("cpus_per_run", 1, "CPUs per run on a Ray cluster", **options)
    number(
        "gpus_per_run",
        0,
        "GPUs per run on a Ray cluster; fractions share one",
        **options,
    )
    number("tpus_per_run", 0, "TPU chips per run on a Ray cluster", **options)


# The plain flags of each command.
COMMAND_FLAGS: dict[str, tuple[Definition, ...]] = {
    "prepare": (define_data_flags, define_preset_flag, define_device_flag),
    "distill": (
        define_data_flags,
        define_preset_flag,
        define_distill_flags,
        define_dry_run_flags,
        define_device_flag,
        define_process_flags,
    ),
    "train": (
        define_data_flags,
        define_preset_flag,
        define_train_flags,
        define_dry_run_flags,
        define_device_flag,
    ),
    "evaluate": (
        define_data_flags,
        define_evaluate_flags,
        define_dry_run_flags,
        define_device_flag,
    ),
    "active": (
        define_data_flags,
        define_preset_flag,
        define_active_flags,
        define_dry_run_flags,
        define_device_flag,
    ),
    "report": (define_report_flags,),
    "export": (define_export_flags,),
    "sweep": (define_sweep_flags,),
    "doctor": (define_data_flags,),
}
# Commands that take arguments: what they are. Two of them take no settings.
ARGUMENTS = {"report": "RUNS...", "sweep": "FILE", "export": "RUN"}
WITHOUT_SETTINGS = ("report", "sweep")
