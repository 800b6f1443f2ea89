"""The job of ``audiodd distill``: a coreset in a run directory, scored and drawn."""

import dataclasses
import math
import shlex
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from audiodd_jax.active_learning import bought_labels
from audiodd_jax.commands import teacher
from audiodd_jax.config import Config, fields, presets
from audiodd_jax.config.names import DISTILLATION, MATCHING, SELECTION
from audiodd_jax.coreset import dataset as coreset_data
from audiodd_jax.coreset import file as coreset_file
from audiodd_jax.coreset.arrays import CoresetArrays
from audiodd_jax.coreset.file import Coreset
from audiodd_jax.data import datasets
from audiodd_jax.distillation import loop, registry
from audiodd_jax.features import dataset, normalization
from audiodd_jax.features.dataset import Dataset
from audiodd_jax.kernels.ridge_scoring import Scoring
from audiodd_jax.report import cards, figures
from audiodd_jax.runtime import multiprocess, progress
from audiodd_jax.runtime.files import write_atomically
from audiodd_jax.runtime.memory import peak_bytes
from audiodd_jax.runtime.run_directory import RunDirectory
from audiodd_jax.training import evaluation
from audiodd_jax.training.scores import Evaluation
from audiodd_jax.version import __version__


class Run(NamedTuple):
    """A finished run.

    Attributes:
      coreset: the coreset.
      result: of ``result.json``.
      path: the run directory.
    """

    coreset: Coreset
    result: dict[str, Any]
    path: Path


def distill(
    config: Config,
    workdir: str | Path,
    cache_dir: Path | None = None,
    mesh: Mesh | None = None,
) -> Run:
    """Distils ``config.data`` to a coreset in ``workdir``, scores and draws it.

    The same call resumes an interrupted run, and returns a finished one.

    Args:
      config: of the run.
      workdir: the run directory.
      cache_dir: folder of downloads and features.
      mesh: devices of the run (``runtime.devices.make_mesh``); None: all, of all
        processes. It changes results by rounding only.

    Raises:
      UserError: bad settings or data, or a folder that holds something else.
      Interrupted: on SIGTERM or SIGINT; the state is saved.
    """
    fields.validate(config)
    check_labels(config, Path(workdir), cache_dir)
    kept = fields.record(config, DISTILLATION)
    options = presets.run_options(config, DISTILLATION)
    with RunDirectory(workdir, kept, **options) as run:
        if result := run.result():
            return Run(
                coreset_file.load_coreset(run.path / "coreset.npz"), result, run.path
            )
        data = bought_labels.restrict(
            config, dataset.load(config, cache_dir), cache_dir
        )
        run.use_data(data.clips_digest)
        start = None
        if config.coreset.init.endswith(".npz"):
            start = coreset_data.warm_start(
                Path(config.coreset.init), config.coreset, data, config.seed
            )
        distilled = loop.distill(config, data, run, mesh, start)
        return _finish(run, distilled, data, config, mesh, cache_dir)


def check_labels(config: Config, workdir: Path, cache_dir: Path | None) -> None:
    """Checks, before a new run has a folder, that its method can learn from the labels.

    Raises:
      UserError: it cannot, or there is no such dataset.
    """
    datasets.lookup(config.data.name)
    if config.method in MATCHING and not (workdir / "config.json").exists():
        found = datasets.open_source(config.data, cache_dir)
        registry.check_labels(config.method, found.has_tags)


def _finish(
    run: RunDirectory,
    distilled: loop.Distilled,
    data: Dataset,
    config: Config,
    mesh: Mesh | None = None,
    cache_dir: Path | None = None,
) -> Run:
    """Labels, scores and draws a learnt coreset, and writes its file and card."""
    artefact = make_coreset(distilled.best, data, config)
    labelling = None
    if config.teacher.networks:
        artefact, labelling = _labelled(artefact, data, config, cache_dir)
    both = [
        arrays.unpack(config.coreset.factor)
        for arrays in (distilled.best, distilled.start)
    ]
    with progress.waiting("scoring on the test split"):
        scoring = Scoring.for_test(config.network, config.evaluation, config.rfad)
        seeds = range(config.evaluation.seeds)
        scores = evaluation.kernel_regression(both, data.test, scoring, seeds, mesh)
    result = _result(distilled, scores, artefact, data, config)
    result["teacher"] = labelling
    if multiprocess.is_process_zero():
        artefact.save(run.path / "coreset.npz")
        with progress.waiting("drawing"):
            _draw(*both, distilled.history, data, config, run.path / "figures")
        text = _card(result, scores, data, config)
        write_atomically(run.path / "README.md", text)
    run.finish(result)
    return Run(artefact, result, run.path)


def make_coreset(arrays: CoresetArrays, data: Dataset, config: Config) -> Coreset:
    """A learnt coreset with its metadata, ready to be saved."""
    settings = fields.record(config, DISTILLATION)
    # Coresets are shared; local paths are private.
    settings["data"]["data_dir"] = ""
    settings["coreset"]["init"] = Path(config.coreset.init).name
    for name in ("run", "indices"):
        settings["labels"][name] = Path(settings["labels"][name]).name
    settings["features"] = dataclasses.asdict(data.features)
    metadata = {
        "format": coreset_file.FORMAT,
        "audiodd_jax": __version__,
        "dataset": data.name,
        "dataset_version": data.version,
        "licence": data.licence,
        "split": {
            "num_train": data.num_train,
            "fold": data.fold,
            "is_partial": data.is_partial,
            "test_digest": data.test_digest,
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
        **({"has_tags": True} if data.has_tags else {}),
    }
    images, labels = (np.asarray(a, np.float32) for a in arrays[:2])
    return Coreset(images, labels, data.class_names, metadata)


def _labelled(
    artefact: Coreset, data: Dataset, config: Config, cache_dir: Path | None
) -> tuple[Coreset, dict[str, Any]]:
    """The coreset with the teacher's labels of its views, and the teacher's record."""
    images = artefact.unpack().images
    found = teacher.label(images, config, data, cache_dir)
    own = {
        "views": {
            "count": config.coreset.views,
            "seed": config.seed,
            "settings": dataclasses.asdict(config.views),
        },
        "teacher": dataclasses.asdict(config.teacher),
    }
    metadata = {**artefact.metadata, **own}
    labelled = dataclasses.replace(
        artefact, metadata=metadata, teacher_labels=found.views.labels
    )
    return labelled, found.record


def _draw(
    best: CoresetArrays,
    start: CoresetArrays,
    history: list[dict[str, Any]],
    data: Dataset,
    config: Config,
    folder: Path,
) -> None:
    folder.mkdir(exist_ok=True)
    title = (
        f"{data.name}, {config.method}, {config.coreset.samples_per_class} per class"
    )
    if len(history) > 1:
        figures.curves(history, title, folder / "curves.png", data.metric)
    decibel = [
        np.asarray(normalization.invert(arrays.images, data.normalization))
        for arrays in (start, best)
    ]
    path = folder / "coreset.png"
    seconds = data.features.clip_seconds
    is_choice = config.method in SELECTION
    names = ("random clips", "selected") if is_choice else ("start", "distilled")
    figures.coreset_grid(*decibel, data.class_names, seconds, title, path, names)


def _result(
    distilled: loop.Distilled,
    scores: list[Evaluation],
    artefact: Coreset,
    data: Dataset,
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
        "views": config.coreset.views,
        "labels": _labels(data, config),
        "solved_labels": config.coreset.solve_labels,
        "seed": config.seed,
        "steps": distilled.steps,
        "best_step": distilled.best_step,
        "wall_seconds": distilled.history[-1]["seconds"],
        "peak_memory_bytes": peak_bytes(),
        "validation_accuracy": validation[-1] if validation else None,
        "protocol": best.protocol,
        "test_accuracy": best.mean,
        "test_accuracy_std": best.std,
        "test_accuracies": best.accuracies,
        "start": Path(config.coreset.init).name if distilled.steps else "real",
        "start_test_accuracy": start.mean,
        "start_test_accuracies": start.accuracies,
        **(
            {"macro_f1": best.macro_f1, "start_macro_f1": start.macro_f1}
            if data.has_tags
            else {}
        ),
    }


def _labels(data: Dataset, config: Config) -> dict[str, Any] | None:
    """Which labels of the training split were used; None: all of them."""
    settings = config.labels
    if not settings.is_part:
        return None
    chosen = "at random"
    if settings.run:
        chosen = f"by the run {Path(settings.run).name} at {settings.budget}"
    elif settings.indices:
        chosen = f"by {Path(settings.indices).name}"
    used = len(data.train.labels) - data.num_pseudo
    return {"used": used, "pseudo": data.num_pseudo, "chosen": chosen}


def _split(protocol: str, data: Dataset) -> str:
    """The protocol of the test split, with this run's fold and deviations."""
    text = f"{protocol}; here fold {data.fold}" if data.fold else protocol
    if data.is_partial:
        text += "; of data that may be incomplete, so not the official protocol"
    return text


def _command() -> str:
    """The command line of this process, as a user would type it."""
    program = Path(sys.argv[0]).name
    if program == "__main__.py":  # python -m audiodd_jax
        program = "audiodd"
    if program != "audiodd":
        return "audiodd_jax.distill(config, workdir), from Python"
    return shlex.join([program, *map(_without_folders, sys.argv[1:])])


def _without_folders(argument: str) -> str:
    """A flag or its value, with the last part only of a path that leads elsewhere."""
    flag, sign, value = ("", "", argument)
    if argument.startswith("--"):
        flag, sign, value = argument.partition("=")
    path = Path(value)
    if path.is_absolute() or path.parts[:1] in (("..",), ("~",)):
        return f"{flag}{sign}{path.name}"
    return argument


def _card(
    result: dict[str, Any], scores: list[Evaluation], data: Dataset, config: Config
) -> str:
    entry = datasets.lookup(data.name)
    classes = data.num_classes
    per_class = result["samples_per_class"]
    values = {
        "title": f"{data.name}: {per_class} per class by {config.method}",
        "classes": classes,
        "has_tags": data.has_tags,
        "version": data.version,
        "percent": 100 * result["fraction_of_train"],
        "factor": result["factor"],
        "test": str(scores[0]),
        "start_test": str(scores[1]),
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
    return cards.distillation({**result, **values})
