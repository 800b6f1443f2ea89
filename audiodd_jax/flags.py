"""The flags of every command, in one table.

Imports neither JAX nor NumPy, so that ``audiodd help`` answers at once.
"""

import difflib
import functools
import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple, ParamSpec

from absl import flags as absl_flags

from audiodd_jax.config import Config, fields, presets
from audiodd_jax.config.names import (
    ACQUISITIONS,
    CHIPS,
    ENCODERS,
    EXPORTS,
    METHODS,
    TRACKERS,
)
from audiodd_jax.data import datasets
from audiodd_jax.errors import UserError
from audiodd_jax.networks import parameter_count


class Flag(NamedTuple):
    """A plain flag of a command.

    Attributes:
      define: the absl function that defines it.
      default: its default; None: the setting keeps its own default.
      sets: dotted names of the settings that the flag sets.
    """

    define: Callable[..., Any]
    name: str
    help: str
    default: Any
    sets: tuple[str, ...]


def _flag(
    define: Callable[..., Any], name: str, text: str, *sets: str, default: Any = None
) -> Flag:
    return Flag(define, name, text, default, sets)


_boolean = partial(_flag, absl_flags.DEFINE_bool)
_integer = partial(_flag, absl_flags.DEFINE_integer)
_list = partial(_flag, absl_flags.DEFINE_list)
_number = partial(_flag, absl_flags.DEFINE_float)
_switch = partial(_flag, absl_flags.DEFINE_bool, default=False)
_text = partial(_flag, absl_flags.DEFINE_string)


def _models() -> str:
    """Returns the networks and their sizes for ten classes of 32 x 64 spectrograms."""
    models = []
    for name, recipe in presets.MODEL_DEFAULTS.items():
        settings = {k: v for k, v in recipe.items() if k.startswith("model.")}
        model = fields.replace(Config(), {**settings, "model.name": name}).model
        count = parameter_count.parameters(model, (32, 64), 10)
        models.append(f"{name} ({count:,} parameters)")
    custom = "or the factory of another Flax module as package.module:factory"
    return f"{', '.join(models)}, {custom}; sizes for ten classes, 32 x 64"


_MODELS = _models()
_VARIANTS = "; ".join(
    f"{name}: {', '.join(entry.variants)}"
    for name, entry in datasets.DATASETS.items()
    if entry.variants
)
_CACHE_DIR = _text(
    "cache_dir",
    "folder for downloads and features (default: see doctor)",
    "data.cache_dir",
)
_DATA_DIR = _text("data_dir", "folder or archive with the recordings", "data.data_dir")
_SKIP_BAD_FILES = _boolean(
    "skip_bad_files", "leave out files that cannot be decoded", "data.skip_bad_files"
)
_DATA = (
    _text(
        "dataset",
        f"one of: {', '.join(datasets.DATASETS)}; or tfds:NAME, a dataset prepared by "
        "TensorFlow Datasets",
        "data.name",
    ),
    _text("variant", f"variant of a dataset ({_VARIANTS})", "data.variant"),
    _DATA_DIR,
    _text("fold", "test fold of a dataset with folds: its number, or all", "data.fold"),
    _boolean(
        "allow_partial", "use an incomplete published dataset", "data.allow_partial"
    ),
    _SKIP_BAD_FILES,
    _CACHE_DIR,
)
_PRESET = _text("preset", f"one of: {', '.join(presets.PRESETS)}")
_ENCODER = _text(
    "encoder",
    f"encoder of the clips: {', '.join(ENCODERS)}, package.module:factory, an ONNX "
    "file, or the networks.npz of audiodd train",
    "encoder.name",
)
_SEED = _integer("seed", "random seed", "seed")
_MODEL = _text("model", f"one of: {_MODELS}", default="convnet")
_DEVICES = _integer(
    "num_devices", "devices to use (default: all); on CPU, simulate this many devices"
)
_TRACKER = _text(
    "tracker",
    f"comma-separated: {', '.join(TRACKERS)} (default: tensorboard)",
    "tracker",
)
_SPREAD = (
    "how --samples are spread over the classes: even, or proportional to their clips"
)
_NUM_SEEDS = ("evaluation.seeds", "training.seeds")
_DRY_RUN = (
    _switch(
        "dry_run",
        "print shapes, FLOPs, predicted memory and communication volume, then exit",
    ),
    _text(
        "target",
        "with --dry_run: the accelerator to compile for (need not be present): "
        f"{', '.join(CHIPS)}, with a topology or a number of chips as in "
        "v5e:2x4 or h100:8",
    ),
    _DEVICES,
)
_PROCESSES = (
    _text(
        "coordinator_address",
        "host:port of process 0 (detected under Slurm, Open MPI and on TPU pods)",
    ),
    _integer("num_processes", "number of processes of the run"),
    _integer("process_id", "index of this process, from 0"),
)
_DISTILL = (
    *_DATA,
    _PRESET,
    _text(
        "method",
        f"one of: {', '.join(METHODS)} (default: rfad); random, herding, "
        "k_center and medoids select real clips",
        "method",
    ),
    _ENCODER,
    _text(
        "distil",
        "with --encoder: spectrograms (default), or their embeddings alone",
        "encoder.distil",
    ),
    _integer(
        "samples_per_class", "coreset samples per class", "coreset.samples_per_class"
    ),
    _text(
        "budget",
        "bytes of the coreset's file, as in 16kB, 64KiB or 1MB: chooses the samples "
        "per class, packing, precision, views and their labels",
        "coreset.budget",
    ),
    _integer(
        "samples",
        "coreset samples in all, instead of --samples_per_class",
        "coreset.samples",
    ),
    _text("spread", f"{_SPREAD} (default: even)", "coreset.spread"),
    _boolean(
        "nested",
        "the first 1, 2, 5, ... spectrograms of each class are coresets, too",
        "coreset.nested",
    ),
    _integer("steps", "distillation steps", "loop.steps"),
    _text(
        "continue",
        "start from this coreset.npz, with its features and packing: for more labels, "
        "or more classes",
        "coreset.init",
    ),
    _text(
        "labelled",
        "use only the labels that an audiodd active run had acquired at a budget, "
        "as RUN@BUDGET: runs/a@20%; or those of a session of audiodd label",
    ),
    _number("fraction", "use only this fraction of the labels", "labels.fraction"),
    _text("indices", "use only the clips listed in this file", "labels.indices"),
    _SEED,
    _integer("num_seeds", "number of evaluation seeds", *_NUM_SEEDS),
    _text(
        "precision",
        "precision of the random features: float32, or tf32 or bfloat16 with "
        "float32 accumulation",
        "network.precision",
    ),
    _text("workdir", "run directory (default: runs/DATASET-METHOD-SAMPLES-SEED)"),
    _TRACKER,
    *_DRY_RUN,
    *_PROCESSES,
)
_TRAIN = (
    *_DATA,
    _PRESET,
    _MODEL,
    _text("coreset", "train on this coreset.npz, or example"),
    _integer("samples_per_class", "train on this many clips per class"),
    _integer("samples", "train on this many clips in all, at least one per class"),
    _text("spread", _SPREAD, default="even"),
    _number("fraction", "train on this fraction of the training split"),
    _text("indices", "train on the clips listed in this file"),
    _switch(
        "herding", "select the clips of --samples_per_class or --samples by herding"
    ),
    _integer("steps", "training steps", "training.steps"),
    _integer("seed", "random seed of the first network", "seed"),
    _integer("num_seeds", "number of networks", *_NUM_SEEDS),
    _text("workdir", "run directory (default: runs/DATASET-MODEL-...)"),
    _TRACKER,
    *_DRY_RUN,
)
_EVALUATE = (
    *_DATA,
    _text("workdir", "run directory with the coreset to score"),
    _text("coreset", "coreset.npz to score, or example, which ships with the package"),
    _text(
        "protocol",
        "comma-separated: krr (kernel regression with random networks, or with "
        "--encoder), knn (nearest neighbours, with --encoder), "
        f"nngp or ntk (exact kernels), or networks to train: {_MODELS}",
        default="krr",
    ),
    _ENCODER,
    _text(
        "against",
        "comma-separated baselines: random, herding (real clips, the same "
        "number per class), hard (hard labels), 20% (of the clips), all",
        default="",
    ),
    _text(
        "out",
        "folder for trainings, tables and pictures (default: evaluation in --workdir)",
    ),
    _integer("num_seeds", "number of evaluation seeds", *_NUM_SEEDS),
    _integer("steps", "training steps", "training.steps"),
    *_DRY_RUN,
)
_SCORE = (
    *_DATA,
    _text("model", f"comma-separated: {_MODELS}", default="convnet"),
    _text(
        "out",
        "folder for trainings, table and picture (default: score in the run "
        "directory, or runs/DATASET-score)",
    ),
    _integer("num_seeds", "number of networks of each arm", *_NUM_SEEDS),
    _integer("steps", "training steps", "training.steps"),
    _switch("dry_run", "print the number of trainings, then exit"),
    _DEVICES,
)
_ACTIVE = (
    *_DATA,
    _PRESET,
    _text(
        "acquisition",
        f"comma-separated: {', '.join(ACQUISITIONS)}, or all (default: bald)",
    ),
    _MODEL,
    _ENCODER,
    _list(
        "budgets",
        "increasing sizes of the labelled pool, comma-separated: fractions as "
        "0.2 or 20%, clips per class as 10/class (default: 20%,30%,40%,60%)",
        "active.budgets",
    ),
    _text(
        "coreset",
        "comma-separated coreset.npz files, one per seed, to train on with the "
        "same recipe for comparison",
    ),
    _integer("steps", "training steps per round", "training.steps"),
    _SEED,
    _integer(
        "num_seeds", "seeds per acquisition function, starting at --seed", default=1
    ),
    _text("workdir", "run directory (default: runs/DATASET-active-...)"),
    _TRACKER,
    *_DRY_RUN,
)
_LABEL = (
    _text("ask", "csv: write to_label.csv, and continue once it is filled in"),
    _switch("serve", "ask on a page in the browser, on 127.0.0.1"),
    _integer("port", "port of the page (default: any free one)", default=0),
    _switch("review", "ask again about answers that all networks contradict"),
    _text("known", "folder or table of labelled recordings", "session.known"),
    _boolean("tags", "recordings have any number of tags", "session.tags"),
    _list(
        "classes", "the first classes, in the order of their keys", "session.classes"
    ),
    _integer("batch", "recordings per batch (default: 10)", "session.batch"),
    _integer(
        "budget", "answers in all (default: until all are answered)", "session.budget"
    ),
    _text(
        "acquisition",
        f"chooses recordings once two classes are known: {', '.join(ACQUISITIONS)} "
        "(default: bald)",
        "active.acquisition",
    ),
    _MODEL,
    _ENCODER,
    _integer("steps", "training steps per round", "training.steps"),
    _SEED,
    _text("workdir", "folder of the session (default: runs/FOLDER-label)"),
    _DEVICES,
    _CACHE_DIR,
)
_SWEEP = (
    _text("workdir", "the sweep's folder (default: runs/FILE)"),
    _switch("dry_run", "list the runs and stop"),
    _integer(
        "retries", "retries of a run whose process or worker is killed", default=3
    ),
    _integer(
        "jobs",
        "runs at a time on this machine (default: one per device; 1 on CPU)",
        default=0,
    ),
    _integer("devices_per_run", "accelerators per run on this machine", default=1),
    _text("ray", "run on a Ray cluster: auto, HOST:PORT, or local"),
    _number("cpus_per_run", "CPUs per run on a Ray cluster", default=1),
    _number(
        "gpus_per_run",
        "GPUs per run on a Ray cluster; fractions share a GPU",
        default=0,
    ),
    _number("tpus_per_run", "TPU chips per run on a Ray cluster", default=0),
)
_REPORT = (
    _text("out", "folder of the report", default="report"),
    _integer(
        "galleries", "number of coresets to show and to invert to sound", default=4
    ),
    _integer(
        "per_class",
        "spectrograms to show per class (default: a hundred in all)",
        default=0,
    ),
    _switch(
        "all_sounds",
        "write WAV files of all spectrograms, including those that are not shown",
    ),
    _integer("iterations", "iterations of Griffin-Lim", default=64),
    _integer("seed", "random seed of Griffin-Lim's phases", default=0),
    _CACHE_DIR,
)
_PREDICT = (
    _text("out", "CSV file of the predictions (default: print them)"),
    _text("labels", "folder for Audacity label tracks, one per recording"),
    _integer("top", "most likely classes or tags in the CSV; 0: all", default=3),
    _number(
        "window",
        "seconds of each window of a long recording (default: the model's clips); 0: "
        "recordings are cropped to one clip",
    ),
    _number("hop", "seconds from window to window (default: the window's length)"),
    _switch("overwrite", "replace existing files of --out and --labels"),
    _SKIP_BAD_FILES,
    _DEVICES,
    _CACHE_DIR,
)
_EXPORT = (
    _text("format", f"one of: {', '.join(EXPORTS)}"),
    _text("out", "new folder of the export (default: export/FORMAT in RUN)"),
    _integer("first", "export this many per class of a coreset of --nested", default=0),
    _switch(
        "test_clips",
        "pytorch, numpy: also write the test clips of the dataset as waveforms",
    ),
    _DATA_DIR,
    _CACHE_DIR,
)


class Command(NamedTuple):
    """A command's line in ``audiodd help``, and its flags.

    Attributes:
      summary: one sentence.
      flags: the plain flags.
      argument: its positional argument, if it takes one.
      has_settings: whether it takes ``--config.`` flags.
    """

    summary: str
    flags: tuple[Flag, ...]
    argument: str = ""
    has_settings: bool = True


COMMANDS = {
    "prepare": Command(
        "Finds or downloads a dataset, checks it, and caches its features.",
        (*_DATA, _PRESET, _DEVICES),
    ),
    "distill": Command(
        "Distils a dataset to a coreset, scores it and draws it.", _DISTILL
    ),
    "train": Command(
        "Trains a network on all clips, a subset, or a coreset, and scores it.", _TRAIN
    ),
    "evaluate": Command(
        "Scores a coreset on the test split of its dataset, with optional baselines.",
        _EVALUATE,
    ),
    "score": Command(
        "Compares networks on a coreset and on real clips, with the same kind of "
        "labels.",
        _SCORE,
        argument="CORESET_OR_RUN",
    ),
    "predict": Command(
        "Predicts the classes of new sounds with trained networks or a coreset.",
        _PREDICT,
        argument="MODEL SOUNDS...",
        has_settings=False,
    ),
    "active": Command(
        "Labels clips round by round, and scores a network trained on them.", _ACTIVE
    ),
    "label": Command(
        "Asks you to label the recordings that teach a network most.",
        _LABEL,
        argument="SOUNDS",
    ),
    "sweep": Command(
        "Runs the list or grid of runs in a file, on this machine or on a Ray cluster.",
        _SWEEP,
        argument="FILE",
        has_settings=False,
    ),
    "report": Command(
        "Makes tables, figures, sounds and a web page from run directories.",
        _REPORT,
        argument="RUNS...",
        has_settings=False,
    ),
    "export": Command(
        "Writes a coreset for PyTorch, NumPy, or Hugging Face datasets.",
        _EXPORT,
        argument="RUN",
    ),
    "doctor": Command(
        "Shows devices, versions, datasets and free space, with advice.", _DATA
    ),
}

_P = ParamSpec("_P")
# Names that other programs give to flags of this one.
_ELSEWHERE = {
    "samples_per_class": ("ipc", "images_per_class"),
    "steps": ("epochs", "iterations", "num_steps"),
    "workdir": ("output", "output_dir", "save_dir"),
    "data_dir": ("data", "data_path", "root"),
}


def meant(name: str, flags: Iterable[str], settings: Iterable[str]) -> list[str]:
    """Returns the flags and settings that someone may mean who writes ``name``."""
    known = [*flags, *settings]
    same = [flag for flag, others in _ELSEWHERE.items() if name in others]
    same += [one for one in known if re.split(r"\.|__", one)[-1] == name]
    return same or difflib.get_close_matches(name, known, n=1)


def _takes_flags(command: str, make: Callable[_P, Config]) -> Callable[_P, Config]:
    """Lets a function of ``config.presets`` take the plain flags of a command too."""

    @functools.wraps(make)
    def made(*given: _P.args, **changes: _P.kwargs) -> Config:
        config = make(*given, **_settings(command, changes))
        datasets.lookup(config.data.name)
        return config

    return made


for_dataset = _takes_flags("distill", presets.for_dataset)
for_model = _takes_flags("train", presets.for_model)
for_active = _takes_flags("active", presets.for_active)
for_session = _takes_flags("label", presets.for_session)


def _settings(command: str, changes: dict[str, Any]) -> dict[str, Any]:
    """Returns changes with flags replaced by the settings that they set."""
    flags = {flag.name: flag.sets for flag in COMMANDS[command].flags if flag.sets}
    settings = [name.replace(".", "__") for name in fields.names(Config())]
    result: dict[str, Any] = {}
    for name, value in changes.items():
        if name == "labelled":
            is_session = datasets.is_session(value)
            has_budget = "@" in value and not is_session
            run, _, budget = value.rpartition("@") if has_budget else (value, "", "")
            result |= {"labels.run": run, "labels.budget": budget}
            if is_session:  # its recordings are the data
                result |= {"data.data_dir": run, "data.validation_fraction": 0.0}
        elif name in flags and name not in settings:
            result |= dict.fromkeys(flags[name], value)
        elif name in (*settings, "name", "preset", "config", "model"):
            result[name] = value
        else:
            near = " or ".join(meant(name, flags, settings)[:3])
            hint = f"did you mean {near}?" if near else f"see audiodd {command} --help"
            raise UserError(f"unknown setting {name!r}; {hint}")
    return result
