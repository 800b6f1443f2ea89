"""``audiodd train``: trains a network on all clips, a subset, or a coreset."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from absl import flags as absl_flags

from audiodd_jax.command_line import CommandLine, percent, table
from audiodd_jax.commands.common import resumable, start, target
from audiodd_jax.config import Config, fields, presets
from audiodd_jax.config.names import file_stem
from audiodd_jax.config.user_paths import local
from audiodd_jax.coreset import subsets
from audiodd_jax.coreset.dataset import coreset_config, load_data
from audiodd_jax.coreset.file import Coreset, load_coreset
from audiodd_jax.coreset.subsets import Subset
from audiodd_jax.data import datasets
from audiodd_jax.errors import UserError
from audiodd_jax.features import dataset
from audiodd_jax.features.dataset import Dataset
from audiodd_jax.features.metric import score_of
from audiodd_jax.forecast import estimates
from audiodd_jax.forecast.workload import measure
from audiodd_jax.networks import user_network
from audiodd_jax.report import cards, figures, tables
from audiodd_jax.runtime.environment import standard_numerics
from audiodd_jax.runtime.files import write_atomically
from audiodd_jax.runtime.run_directory import RunDirectory, run_once
from audiodd_jax.training import evaluation, networks_file
from audiodd_jax.training import scores as scores_lib
from audiodd_jax.training import source as source_lib
from audiodd_jax.training.scores import Evaluation
from audiodd_jax.training.source import Source


def run(line: CommandLine) -> None:
    """Trains as the command line says, and prints the result."""
    flags = line.flags
    coreset = None if flags.coreset is None else load_coreset(flags.coreset)
    if coreset:
        base = presets.for_model(coreset_config(coreset), flags.model)
        config = line.configure(base)
    else:
        config = line.configure_defaults()
    if flags.fold == "all":
        raise UserError("train uses one test fold: give --fold its number")
    subset, name = _training_set(flags)
    chips = target(flags, "train")
    start(flags, config.data)
    if chips:
        table(estimates.training(measure(config, chips), chips, coreset or subset))
        return
    network = file_stem(config.model.name)
    default = f"{datasets.title_of(config.data)}-{network}-{name}-seed{config.seed}"
    workdir = Path(flags.workdir or Path("runs") / default)
    with resumable(workdir, is_run=True):
        trained = train(config, workdir, coreset or subset)
    _show(trained, workdir)


def _training_set(flags: absl_flags.FlagValues) -> tuple[Subset, str]:
    """Returns the clips that the flags select, and the name of the training set."""
    choices = ("coreset", "samples_per_class", "samples", "fraction", "indices")
    given = [name for name in choices if flags[name].present]
    if len(given) > 1:
        raise UserError(f"--{given[0]} and --{given[1]} exclude each other")
    per_class, samples = flags.samples_per_class, flags.samples
    has_size = per_class is not None or samples is not None
    if flags.herding and not has_size:
        raise UserError("--herding needs --samples_per_class or --samples")
    if flags.spread not in ("even", "proportional"):
        raise UserError(f"--spread is even or proportional, not {flags.spread!r}")
    if flags["spread"].present and samples is None:
        raise UserError("--spread needs --samples")
    if has_size:
        name = "samples" if per_class is None else "samples_per_class"
        if (flags[name].value or 0) < 1:
            raise UserError(f"{name} must be at least 1")
        kind = "herding" if flags.herding else "random"
        if per_class is not None:
            return Subset(kind, per_class=per_class), f"{kind}{per_class}"
        subset = Subset(kind, samples=samples, spread=flags.spread)
        return subset, f"{kind}-{samples}-{flags.spread}"
    if flags.fraction is not None:
        percentage = f"{100 * flags.fraction:g}percent"
        return subsets.fraction_of(flags.fraction), percentage
    if flags.indices is not None:
        return subsets.read_indices(local(flags.indices)), "indices"
    return Subset(), "coreset" if flags.coreset else "all"


class Trained(NamedTuple):
    """A finished training: test scores, contents of ``result.json``, run directory."""

    scores: Evaluation
    result: dict[str, Any]
    path: Path | None


@standard_numerics()
def train(
    config: Config,
    workdir: str | Path,
    learns_from: Subset | Coreset | None = None,
    cache_dir: Path | None = None,
    model: nn.Module | Callable[..., Any] | None = None,
) -> Trained:
    """Trains ``config.model`` in ``workdir``, and scores it on the test split.

    The same call resumes an interrupted run, and returns a finished one.

    Args:
      config: data, model and training. With a coreset, the feature settings and the
        normalisation are the coreset's.
      learns_from: training set; None: all training clips.
      cache_dir: folder for downloads and features; None: ``config.data.cache_dir``.
      model: your own network: a Flax linen module, or the factory of a linen or nnx
        module (``networks.user_network``); None: as ``config.model`` describes it.

    Raises:
      UserError: bad settings or data, or a folder that holds something else.
      Interrupted: on SIGTERM or SIGINT; the state is saved.
    """
    config = fields.with_cache(config, cache_dir)
    if isinstance(learns_from, Coreset):
        config = dataclasses.replace(config, features=learns_from.features)
    if model is not None:
        config = fields.replace(config, {"model.name": user_network.name_of(model)})
    fields.validate(config)
    if isinstance(learns_from, Coreset):
        settings = (config.data, config.features, False, config.evaluation.metric)
        data = load_data(learns_from, *settings)
        source = source_lib.network_source(learns_from, config.training)
    else:
        data = dataset.load(
            config.data, config.features, None, config.evaluation.metric
        )
        subset = learns_from or Subset()
        embedding = subsets.Embedding(config.network, config.evaluation.networks)
        rows = subsets.choose(subset, data, embedding, config.seed)
        source = source_lib.subset_source(subset, rows, data, config.seed)
    module = None if model is None else user_network.wrapped(model, data.num_classes)
    return train_source(config, data, source, local(workdir), module)


def train_source(
    config: Config,
    data: Dataset,
    source: Source,
    workdir: Path | None = None,
    model: nn.Module | None = None,
) -> Trained:
    """Trains on a training set, scores the networks, and records the run.

    Args:
      data: the dataset, for validation and test.
      workdir: the run directory; None: memory only.
      model: the module to train; None: as ``config.model`` describes it.
    """

    def work(run: RunDirectory | None) -> dict[str, Any]:
        if run:
            run.use_data(data.clips_digest)
        fitted = source_lib.fit_source(
            config.model, config.training, config.seed, data, source, run, model
        )
        name = config.model.name
        scores = evaluation.networks(fitted, data.test, name, data.num_classes)
        scores = scores._replace(metric=data.metric)
        leaves = jax.tree.leaves(fitted.networks.variables.params)
        clips, last = source.clips.labels.shape[0], fitted.history[-1]
        learns_from = source.record["name"]
        result = {
            **data.origin,
            "model": name,
            "seed": config.seed,
            "parameters": sum(x.size for x in leaves) // len(fitted.best_steps),
            "learns_from": learns_from,
            "num_samples": clips,
            "num_train": data.num_train,
            "fraction_of_train": clips / data.num_train,
            "steps": fitted.steps,
            "best_steps": fitted.best_steps,
            "wall_seconds": last["seconds"],
            "validation_accuracy": last.get("validation_accuracy"),
            **scores.summary(data.class_names),
        }
        if run:
            save = networks_file.save
            save(run.path / "networks.npz", fitted.networks, data, config.model)
            card = cards.training(result, str(scores), config.model, config.training)
            write_atomically(run.path / "README.md", card)
            title = f"{data.title}, {name}, {learns_from}"
            folder = run.path / "figures"
            folder.mkdir(exist_ok=True)
            figures.curves(fitted.history, title, folder / "curves.png", data.metric)
            figures.by_class(scores, data.class_names, title, folder / "confusion.png")
        return result

    if workdir is None:
        result = work(None)
        return Trained(scores_lib.from_summary(result), result, None)
    record = fields.record(config, fields.TRAINING)
    record["learns_from"] = source.record
    if model is not None:
        record["module"] = " ".join(repr(model).split())
    options = presets.run_options(config, fields.TRAINING)
    result, path = run_once(workdir, record, work, **options)
    return Trained(scores_lib.from_summary(result), result, path)


def _show(trained: Trained, workdir: Path) -> None:
    """Prints the result of a training."""
    scores, result = trained.scores, trained.result
    interval = ""
    half_width = score_of(result, "test_accuracy_interval95")
    if half_width is not None:
        interval = f" (95 % interval ± {100 * half_width:.1f})"
    tested = {k: v for k, v in cards.per_class(result).items() if v is not None}
    hardest = min(tested, key=tested.__getitem__)
    rows = [
        ("network", f"{result['model']}, {result['parameters']:,} parameters"),
        ("trained on", f"{result['learns_from']}: {result['num_samples']:,} "
         f"spectrograms, {percent(result['fraction_of_train'])} of "
         f"the {result['num_train']:,} clips in the training split"),
        (f"test {scores.metric}", f"{scores}{interval}"),
        ("each seed", ", ".join(f"{100 * a:.1f} %" for a in scores.values)),
        *tables.beside([result]).items(),
        ("hardest class", f"{hardest}, {100 * tested[hardest]:.1f} %"),
        ("training", f"{result['steps']} steps, {result['wall_seconds']:.0f} s"),
        ("weights", str(workdir / "networks.npz")),
        ("pictures", str(workdir / "figures")),
        ("card", str(workdir / "README.md")),
    ]  # fmt: skip
    table(rows)
    if warning := cards.constant_warning(result):
        print("", warning, sep="\n")
