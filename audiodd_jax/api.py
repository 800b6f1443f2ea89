"""The main jobs as functions: what the command line does, without a flag."""

import dataclasses
import math
import shlex
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from audiodd_jax import config as config_lib
from audiodd_jax.config import Config
from audiodd_jax.data import datasets
from audiodd_jax.distillation import coreset as coreset_lib
from audiodd_jax.distillation import loop
from audiodd_jax.distillation.coreset import Coreset, CoresetArrays
from audiodd_jax.features import normalize, prepared
from audiodd_jax.features.prepared import Prepared
from audiodd_jax.report import card, figures
from audiodd_jax.runtime.errors import UserError
from audiodd_jax.runtime.runs import RunDirectory, write_atomically
from audiodd_jax.training import evaluation
from audiodd_jax.training.evaluation import Evaluation
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
    config_lib.validate(config)
    return prepared.load(config, cache_dir)


def distill(config: Config, workdir: str | Path, cache_dir: Path | None = None) -> Run:
    """Distils ``config.data`` to a coreset, scores it and draws it, in ``workdir``.

    The same call continues a run that was cut, and returns a finished one.

    Raises:
      UserError: bad settings or data, or a folder that holds something else.
      Interrupted: SIGTERM or SIGINT came; the state is saved.
    """
    config_lib.validate(config)
    datasets.lookup(config.data.name)
    with RunDirectory(workdir, dataclasses.asdict(config)) as run:
        if result := run.result():
            return Run(
                coreset_lib.load_coreset(run.path / "coreset.npz"), result, run.path
            )
        data = prepared.load(config, cache_dir)
        distilled = loop.distill(config, data, run)
        artefact = make_coreset(distilled.best, data, config)
        artefact.save(run.path / "coreset.npz")
        scores = evaluation.kernel_regression(
            [distilled.best, distilled.start], data.test, config
        )
        _draw(distilled, data, config, run.path / "figures")
        result = _result(distilled, scores, artefact, data, config)
        write_atomically(run.path / "README.md", _card(result, scores, data, config))
        run.finish(result)
        return Run(artefact, result, run.path)


def evaluate(
    coreset: Coreset, config: Config | None = None, cache_dir: Path | None = None
) -> Evaluation:
    """Scores a coreset on the test split of its dataset, with its own preprocessing.

    Args:
      coreset: the artefact.
      config: where the data lies and how to evaluate; None: as it was distilled. The
        feature settings and normalisation are always the coreset's.
      cache_dir: where downloads and features are kept.

    Raises:
      UserError: the dataset cannot be used, or has other classes.
    """
    config = config or coreset_config(coreset)
    config = dataclasses.replace(config, features=coreset.features)
    # Only the test split is read: the rest stays where it is.
    config = config_lib.replace(config, {"data.storage": "host"})
    config_lib.validate(config)
    data = prepared.load(config, cache_dir, coreset.normalization)
    if data.class_names != coreset.class_names:
        raise UserError(
            f"this coreset is of {coreset.metadata['dataset']} with the classes "
            f"{_some(coreset.class_names)}; {config.data.name} has "
            f"{_some(data.class_names)}"
        )
    own = coreset.metadata["split"]["fold"]
    if own and data.fold != own:
        raise UserError(
            f"fold {own} tests this coreset, which learnt from fold {data.fold}"
        )
    arrays = CoresetArrays(
        jnp.asarray(coreset.images),
        jnp.asarray(coreset.labels),
        jnp.float32(math.log(coreset.metadata["platt_scale"])),
    )
    return evaluation.kernel_regression([arrays], data.test, config)[0]


def coreset_config(coreset: Coreset) -> Config:
    """The configuration that a coreset was distilled with, less where its data lay."""
    return config_lib.from_dict(coreset.metadata["settings"])


def make_coreset(arrays: CoresetArrays, data: Prepared, config: Config) -> Coreset:
    """The artefact of a learnt coreset: its arrays, and what it takes to use it."""
    settings = dataclasses.asdict(config)
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


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if names[4:] else "")


def _draw(
    distilled: loop.Distilled, data: Prepared, config: Config, folder: Path
) -> None:
    folder.mkdir(exist_ok=True)
    title = f"{data.name}, {config.method}, {config.coreset.samples_per_class} a class"
    figures.curves(distilled.history, title, folder / "curves.png")
    decibel = [
        np.asarray(normalize.invert(arrays.images, data.normalization))
        for arrays in (distilled.start, distilled.best)
    ]
    path = folder / "coreset.png"
    seconds = data.features.clip_seconds
    figures.coreset_grid(*decibel, data.class_names, seconds, title, path)


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
        "dataset": data.name,
        "dataset_version": data.version,
        "licence": data.licence,
        "fold": data.fold,
        "is_partial": data.is_partial,
        "method": config.method,
        "samples_per_class": config.coreset.samples_per_class,
        "num_samples": size,
        "num_train": data.num_train,
        "fraction_of_train": size / data.num_train,
        "bytes": artefact.num_bytes,
        "train_bytes": data.train_bytes,
        "seed": config.seed,
        "steps": distilled.steps,
        "best_step": distilled.best_step,
        "wall_seconds": distilled.history[-1]["seconds"],
        "validation_accuracy": validation[-1] if validation else None,
        "protocol": best.protocol,
        "test_accuracy": best.mean,
        "test_accuracy_std": best.std,
        "test_accuracies": best.accuracies,
        "start": config.coreset.init,
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
        "dataset_title": entry.title,
        "licence": data.licence,
        "split": _split(entry.split, data),
        "images_shape": [result["num_samples"], *data.image_shape, 1],
        "labels_shape": [result["num_samples"], classes],
        "command": _command(),
    }
    return card.render({**result, **values})
