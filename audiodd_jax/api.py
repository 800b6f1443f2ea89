"""The main jobs as functions: what the command line does, without a flag."""

import contextlib
import dataclasses
import math
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from audiodd_jax import active_run, training_run, verdict
from audiodd_jax import settings as settings_lib
from audiodd_jax.config import Config
from audiodd_jax.data import datasets
from audiodd_jax.distillation import coreset as coreset_lib
from audiodd_jax.distillation import loop, together
from audiodd_jax.distillation.coreset import Coreset, CoresetArrays
from audiodd_jax.features import normalize, prepared
from audiodd_jax.features.prepared import Prepared
from audiodd_jax.report import card, figures
from audiodd_jax.runtime import devices, processes
from audiodd_jax.runtime.errors import UserError
from audiodd_jax.runtime.runs import RunDirectory, write_atomically
from audiodd_jax.training import evaluation, subsets
from audiodd_jax.training.evaluation import Evaluation
from audiodd_jax.training.subsets import Subset
from audiodd_jax.training_run import Trained
from audiodd_jax.version import __version__


class Run(NamedTuple):
    """A finished run.

    Attributes:
      coreset: the artefact.
      result: what ``result.json`` holds.
      path: the run directory.
    """

    coreset: Coreset
    result: dict[str, Any]
    path: Path


def prepare(config: Config, cache_dir: Path | None = None) -> Prepared:
    """Finds or downloads the dataset, computes and caches features, loads the splits.

    Raises:
      UserError: the dataset or its recordings cannot be used.
    """
    settings_lib.validate(config)
    return prepared.load(config, cache_dir)


def distill(
    config: Config,
    workdir: str | Path,
    cache_dir: Path | None = None,
    mesh: Mesh | None = None,
) -> Run:
    """Distils ``config.data`` to a coreset, scores it and draws it, in ``workdir``.

    The same call continues a run that was cut, and returns a finished one.

    Args:
      config: of the run.
      workdir: the run directory.
      cache_dir: where downloads and features are kept.
      mesh: the devices that share the work, as ``runtime.devices.make_mesh`` makes it;
        None: all, of all processes. It changes results by rounding alone.

    Raises:
      UserError: bad settings or data, or a folder that holds something else.
      Interrupted: SIGTERM or SIGINT came; the state is saved.
    """
    settings_lib.validate(config)
    datasets.lookup(config.data.name)
    kept = settings_lib.record(config, settings_lib.DISTILLATION)
    with RunDirectory(workdir, kept) as run:
        if result := run.result():
            return Run(
                coreset_lib.load_coreset(run.path / "coreset.npz"), result, run.path
            )
        data = prepared.load(config, cache_dir)
        distilled = loop.distill(config, data, run, mesh)
        return _finish(run, distilled, data, config, mesh)


def distill_together(
    configs: Sequence[Config],
    workdirs: Sequence[str | Path],
    cache_dir: Path | None = None,
) -> list[Run | UserError]:
    """Distils several runs as one program, each in its directory, as ``distill`` would.

    They may differ in their seeds, learning rates and regularisers alone. On one device
    that a single run does not fill, it takes less time than one after the other.

    Args:
      configs: of the runs.
      workdirs: their run directories.
      cache_dir: where downloads and features are kept.

    Returns:
      Each run, or why it failed.

    Raises:
      UserError: runs that cannot be one program, or bad settings or data.
      Interrupted: SIGTERM or SIGINT came; the states of all are saved.
    """
    found: dict[int, Run | UserError] = {}
    with contextlib.ExitStack() as stack:
        todo: dict[int, RunDirectory] = {}
        for i, (config, workdir) in enumerate(zip(configs, workdirs, strict=True)):
            settings_lib.validate(config)
            kept = settings_lib.record(config, settings_lib.DISTILLATION)
            run = stack.enter_context(RunDirectory(workdir, kept))
            if result := run.result():
                coreset = coreset_lib.load_coreset(run.path / "coreset.npz")
                found[i] = Run(coreset, result, run.path)
            else:
                todo[i] = run
        if todo:
            chosen = [configs[i] for i in todo]
            data = prepared.load(chosen[0], cache_dir)
            outcomes = together.distill(chosen, data, list(todo.values()))
            for (i, run), outcome in zip(todo.items(), outcomes, strict=True):
                failed = isinstance(outcome, UserError)
                found[i] = (
                    outcome if failed else _finish(run, outcome, data, configs[i])
                )
    return [found[i] for i in range(len(configs))]


def _finish(
    run: RunDirectory,
    distilled: loop.Distilled,
    data: Prepared,
    config: Config,
    mesh: Mesh | None = None,
) -> Run:
    """Scores and draws what was distilled, and writes the artefact and the card."""
    artefact = make_coreset(distilled.best, data, config)
    both = [
        arrays.unfolded(config.coreset.factor)
        for arrays in (distilled.best, distilled.start)
    ]
    scores = evaluation.kernel_regression(both, data.test, config, mesh=mesh)
    result = _result(distilled, scores, artefact, data, config)
    if processes.is_lead():
        artefact.save(run.path / "coreset.npz")
        _draw(*both, distilled.history, data, config, run.path / "figures")
        text = _card(result, scores, data, config)
        write_atomically(run.path / "README.md", text)
    run.finish(result)
    return Run(artefact, result, run.path)


def evaluate(
    coreset: Coreset, config: Config | None = None, cache_dir: Path | None = None
) -> Evaluation:
    """Scores a coreset by kernel regression on the test split of its dataset.

    Args:
      coreset: the artefact.
      config: where the data lies and how to evaluate; None: as it was distilled. The
        feature settings and normalisation are always the coreset's.
      cache_dir: where downloads and features are kept.

    Raises:
      UserError: the dataset cannot be used, or has other classes.
    """
    return verdict.evaluate(coreset, config=config, cache_dir=cache_dir)[0].scores


def train(
    config: Config,
    workdir: str | Path,
    learns_from: Subset | Coreset | None = None,
    cache_dir: Path | None = None,
) -> Trained:
    """Trains ``config.model`` on real clips or a coreset and scores it, in ``workdir``.

    The same call continues a run that was cut, and returns a finished one.

    Args:
      config: data, model and training. With a coreset, the feature settings and the
        normalisation are the coreset's.
      workdir: the run directory.
      learns_from: which clips; None: all that train.
      cache_dir: where downloads and features are kept.

    Raises:
      UserError: bad settings or data, or a folder that holds something else.
      Interrupted: SIGTERM or SIGINT came; the state is saved.
    """
    if isinstance(learns_from, Coreset):
        config = dataclasses.replace(config, features=learns_from.features)
    settings_lib.validate(config)
    if isinstance(learns_from, Coreset):
        data = verdict.load_data(learns_from, config, False, cache_dir)
        source = training_run.coreset_source(learns_from.unfolded())
    else:
        data = prepared.load(config, cache_dir)
        subset = learns_from or Subset()
        rows = subsets.choose(subset, data, config, config.seed)
        source = training_run.subset_source(subset, rows, data, config.seed)
    return training_run.train(config, data, source, Path(workdir))


def active(
    config: Config, workdir: str | Path, cache_dir: Path | None = None
) -> dict[str, Any]:
    """Labels clips round by round by ``config.active``; what ``result.json`` holds.

    The same call continues a run that was cut, and returns a finished one.

    Args:
      config: as ``for_active`` makes it.
      workdir: the run directory.
      cache_dir: where downloads and features are kept.

    Raises:
      UserError: bad settings or data, or a folder that holds something else.
      Interrupted: SIGTERM or SIGINT came; the state is saved.
    """
    data = active_run.load(config, (), cache_dir)
    return active_run.learn(config, data, Path(workdir))


def make_coreset(arrays: CoresetArrays, data: Prepared, config: Config) -> Coreset:
    """The artefact of a learnt coreset: its arrays, and what it takes to use it."""
    settings = settings_lib.record(config, settings_lib.DISTILLATION)
    settings["data"]["data_dir"] = ""  # a path of this machine is nobody's business
    settings["features"] = dataclasses.asdict(data.features)
    metadata = {
        "format": coreset_lib.FORMAT,
        "audiodd_jax": __version__,
        "dataset": data.name,
        "dataset_version": data.version,
        "licence": data.licence,
        "split": {
            "num_train": data.num_train,
            "fold": data.fold,
            "is_partial": data.is_partial,
        },
        "sample_rate": data.features.sample_rate,
        "features": settings["features"],
        "normalization": {
            "mean": data.normalization.mean.tolist(),
            "std": data.normalization.std.tolist(),
        },
        "method": config.method,
        "settings": settings,
        "platt_scale": math.exp(float(arrays.log_scale)),
        "regularizer": config.rfad.regularizer,
    }
    images, labels = (np.asarray(a, np.float32) for a in arrays[:2])
    return Coreset(images, labels, data.class_names, metadata)


def _draw(
    best: CoresetArrays,
    start: CoresetArrays,
    history: list[dict[str, Any]],
    data: Prepared,
    config: Config,
    folder: Path,
) -> None:
    folder.mkdir(exist_ok=True)
    title = f"{data.name}, {config.method}, {config.coreset.samples_per_class} a class"
    if len(history) > 1:
        figures.curves(history, title, folder / "curves.png")
    decibel = [
        np.asarray(normalize.invert(arrays.images, data.normalization))
        for arrays in (start, best)
    ]
    path = folder / "coreset.png"
    seconds = data.features.clip_seconds
    is_choice = config.method in settings_lib.SELECTION
    names = ("random clips", "chosen") if is_choice else ("start", "distilled")
    figures.coreset_grid(*decibel, data.class_names, seconds, title, path, names)


def _result(
    distilled: loop.Distilled,
    scores: list[Evaluation],
    artefact: Coreset,
    data: Prepared,
    config: Config,
) -> dict[str, Any]:
    best, start = scores
    size = artefact.labels.shape[0]
    validation = [
        row["validation_accuracy"]
        for row in distilled.history
        if row["step"] == distilled.best_step and "validation_accuracy" in row
    ]
    return {
        **data.origin,
        "method": config.method,
        "samples_per_class": config.coreset.samples_per_class,
        "num_samples": size,
        "num_train": data.num_train,
        "fraction_of_train": size / data.num_train,
        "factor": artefact.factor,
        "stored_values": artefact.num_values,
        "bytes": artefact.num_bytes,
        "train_bytes": data.train_bytes,
        "seed": config.seed,
        "steps": distilled.steps,
        "best_step": distilled.best_step,
        "wall_seconds": distilled.history[-1]["seconds"],
        "peak_memory_bytes": devices.peak_bytes(),
        "validation_accuracy": validation[-1] if validation else None,
        "protocol": best.protocol,
        "test_accuracy": best.mean,
        "test_accuracy_std": best.std,
        "test_accuracies": best.accuracies,
        "start": "real" if not distilled.steps else config.coreset.init,
        "start_test_accuracy": start.mean,
        "start_test_accuracies": start.accuracies,
    }


def _split(protocol: str, data: Prepared) -> str:
    """The protocol of the test split, and what of it this run is."""
    told = f"{protocol}; here fold {data.fold}" if data.fold else protocol
    if data.is_partial:
        told += "; of data that may be incomplete, so not the official protocol"
    return told


def _command() -> str:
    """The command line of this process, as a user would type it."""
    program = Path(sys.argv[0]).name
    if program == "__main__.py":  # python -m audiodd_jax
        program = "audiodd"
    return shlex.join([program, *sys.argv[1:]])


def _card(
    result: dict[str, Any], scores: list[Evaluation], data: Prepared, config: Config
) -> str:
    entry = datasets.lookup(data.name)
    classes = data.num_classes
    noise = config.coreset.init == "noise"
    per_class = result["samples_per_class"]
    values = {
        "title": f"{data.name}: {per_class} a class by {config.method}",
        "classes": classes,
        "version": data.version,
        "percent": 100 * result["fraction_of_train"],
        "test": str(scores[0]),
        "start_test": str(scores[1]),
        "start": "noise" if noise else "real clips",
        "networks": config.evaluation.networks,
        "width": config.evaluation.width or config.network.width,
        "seeds": config.evaluation.seeds,
        "keep": config.loop.keep,
        "dataset_title": entry.title,
        "licence": data.licence,
        "split": _split(entry.split, data),
        "images_shape": [result["num_samples"], *data.image_shape, 1],
        "labels_shape": [result["num_samples"], classes],
        "command": _command(),
    }
    return card.render({**result, **values})
