"""A training as a run: its training set, run directory and scores."""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from audiodd_jax.config import AugmentConfig, Config, TrainingConfig, fields, presets
from audiodd_jax.config.names import TRAINING
from audiodd_jax.coreset.arrays import CoresetArrays
from audiodd_jax.coreset.file import Coreset
from audiodd_jax.coreset.subsets import Subset
from audiodd_jax.coreset.views import Views
from audiodd_jax.features.dataset import Dataset, DeviceSplit, HostSplit, Split
from audiodd_jax.features.labels import centred_targets, hard_tags
from audiodd_jax.report import cards, figures
from audiodd_jax.runtime import progress
from audiodd_jax.runtime.files import write_atomically
from audiodd_jax.runtime.run_directory import RunDirectory
from audiodd_jax.training import evaluation, fit, networks_file, programs
from audiodd_jax.training import scores as scores_lib
from audiodd_jax.training.scores import Evaluation

_NO_AUGMENTATION = {
    f"training.augment.{name}": 0.0
    for name in fields.names(AugmentConfig())
    if name != "background_snr_db"
}


class Source(NamedTuple):
    """A training set.

    Attributes:
      clips: a coreset, views of spectrograms with a teacher's labels, or real clips.
      record: identifies it in ``config.json``.
    """

    clips: CoresetArrays | Views | Split | DeviceSplit | HostSplit
    record: dict[str, Any]


class Trained(NamedTuple):
    """A finished training.

    Attributes:
      scores: on the test split.
      result: of ``result.json``.
      path: the run directory, or None.
    """

    scores: Evaluation
    result: dict[str, Any]
    path: Path | None


def network_source(coreset: Coreset, config: TrainingConfig) -> Source:
    """A coreset as the training set of a network: its views, if it has a teacher's."""
    if coreset.teacher_labels is None or not config.teacher_labels:
        return coreset_source(coreset.unpack())
    return views_source(coreset.views(), "coreset")


def views_source(views: Views, name: str) -> Source:
    """Views with a teacher's labels as a training set."""
    return Source(views, {"name": name, "digest": _digest(*views)})


def coreset_source(
    coreset: CoresetArrays, name: str = "coreset", has_tags: bool = False
) -> Source:
    """A coreset as a training set; with hard labels if the name is ``hard``.

    These are of the likeliest class, or of the tags that are likelier than not.
    """
    if name == "hard":
        classes = coreset.labels.argmax(1).astype(jnp.int32)
        hard = hard_tags(coreset.labels) if has_tags else classes
        labels = centred_targets(hard, coreset.labels.shape[1])
        coreset = coreset._replace(labels=labels)
    return Source(coreset, {"name": name, "digest": _digest(*coreset[:2])})


def _digest(*arrays: Array | np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.asarray(array).tobytes())
    return digest.hexdigest()[:16]


def subset_source(subset: Subset, rows: np.ndarray, data: Dataset, draw: int) -> Source:
    """Real clips as a training set.

    Args:
      subset: how they were chosen.
      rows: of ``data.train``.
      data: the prepared dataset.
      draw: seed of the choice.
    """
    record = {**subset._asdict(), "indices": list(subset.indices), "draw": draw}
    clips = data.train if subset.name == "all" else data.train.subset(rows)
    return Source(clips, record)


def support(source: Source, num_classes: int) -> CoresetArrays:
    """A training set as the support of kernel regression."""
    clips = source.clips
    if isinstance(clips, CoresetArrays):
        return clips
    images = clips.take(np.arange(len(clips.labels)))
    labels = centred_targets(clips.labels, num_classes, images.dtype)
    return CoresetArrays(images, labels, jnp.zeros((), images.dtype))


def train(
    config: Config,
    data: Dataset,
    source: Source,
    workdir: Path | None = None,
    model: nn.Module | None = None,
) -> Trained:
    """Trains ``config.model``, scores it on the test split, and records the run.

    The same call resumes an interrupted run, and returns a finished one.

    Args:
      config: model, training, and the first seed.
      data: the prepared dataset, for validation and test.
      source: the training set.
      workdir: the run directory; None: memory only.
      model: to train; None: as ``config.model`` describes it.

    Raises:
      UserError: bad settings, or a folder that holds something else.
      Interrupted: on SIGTERM or SIGINT; the state is saved.
    """
    if workdir is None:
        fitted = fit_source(config, data, source, None, model)
        scores = _score(config, data, fitted)
        return Trained(scores, _result(config, data, source, fitted, scores), None)
    kept = fields.record(config, TRAINING)
    kept["learns_from"] = source.record
    if model is not None:
        kept["module"] = " ".join(repr(model).split())
    with RunDirectory(workdir, kept, **presets.run_options(config, TRAINING)) as run:
        if result := run.result():
            return Trained(scores_lib.from_summary(result), result, run.path)
        run.use_data(data.clips_digest)
        fitted = fit_source(config, data, source, run, model)
        scores = _score(config, data, fitted)
        result = _result(config, data, source, fitted, scores)
        networks_file.save(
            run.path / "networks.npz", fitted.networks, data, config.model
        )
        folder = run.path / "figures"
        folder.mkdir(exist_ok=True)
        title = f"{data.name}, {config.model.name}, {result['learns_from']}"
        figures.curves(fitted.history, title, folder / "curves.png", data.metric)
        figures.by_class(scores, data.class_names, title, folder / "confusion.png")
        text = cards.training(result, str(scores), config.model, config.training)
        write_atomically(run.path / "README.md", text)
        run.finish(result)
        return Trained(scores, result, run.path)


def fit_source(
    config: Config,
    data: Dataset,
    source: Source,
    run: RunDirectory | None,
    model: nn.Module | None = None,
) -> fit.Fitted:
    """Trains without reading the test split.

    Args:
      config: model, training, and the first seed.
      data: the prepared dataset, for validation.
      source: the training set.
      run: the run directory, or None.
      model: to train; None: as ``config.model`` describes it.
    """
    clips = source.clips
    if isinstance(clips, Views):
        learnt = fit.views_set(*map(jnp.asarray, clips))
        # The views are augmented already.
        config = fields.replace(config, _NO_AUGMENTATION)
    elif isinstance(clips, CoresetArrays):
        learnt = fit.coreset_set(
            clips.images, clips.labels, config.training, data.has_tags
        )
    else:
        learnt = fit.real_set(clips, data.num_classes, config.training)
    made = programs.make(config, data, model=model)
    return fit.fit(config, learnt, made, run)


def _score(config: Config, data: Dataset, fitted: fit.Fitted) -> Evaluation:
    name, classes = config.model.name, data.num_classes
    with progress.waiting("scoring on the test split"):
        return evaluation.networks(fitted, data.test, name, classes)


def _parameters(fitted: fit.Fitted) -> int:
    """Number of parameters of one network."""
    leaves = jax.tree.leaves(fitted.networks.variables.params)
    return sum(leaf.size for leaf in leaves) // len(fitted.best_steps)


def _result(
    config: Config,
    data: Dataset,
    source: Source,
    fitted: fit.Fitted,
    scores: Evaluation,
) -> dict[str, Any]:
    clips = source.clips.labels.shape[0]
    last = fitted.history[-1]
    return {
        **data.origin,
        "model": config.model.name,
        "parameters": _parameters(fitted),
        "learns_from": source.record["name"],
        "num_samples": clips,
        "num_train": data.num_train,
        "fraction_of_train": clips / data.num_train,
        "seed": config.seed,
        "steps": fitted.steps,
        "best_steps": fitted.best_steps,
        "wall_seconds": last["seconds"],
        "validation_accuracy": last.get("validation_accuracy"),
        **scores.summary(data.class_names),
    }
