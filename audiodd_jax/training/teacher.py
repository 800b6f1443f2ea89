"""The teacher of a coreset: a cached ensemble trained on all training clips.

It labels the views of a finished coreset, on which other networks are then trained, and
those of each step of the loss in ``distillation.aligned``.
"""

import base64
import contextlib
import dataclasses
import hashlib
import json
import logging
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int
from tqdm import tqdm

from audiodd_jax.config import Config, ModelConfig, TrainingConfig, fields, presets
from audiodd_jax.coreset import storage
from audiodd_jax.coreset import views as views_lib
from audiodd_jax.coreset.subsets import Subset
from audiodd_jax.coreset.views import Views
from audiodd_jax.data import datasets
from audiodd_jax.features.clips import Clips
from audiodd_jax.features.dataset import Dataset
from audiodd_jax.networks import models
from audiodd_jax.networks.models import Ensemble
from audiodd_jax.runtime import multiprocess, progress
from audiodd_jax.runtime.environment import standard_numerics
from audiodd_jax.runtime.files import exclusive, read_json
from audiodd_jax.runtime.run_directory import RunDirectory, run_once
from audiodd_jax.training import networks_file
from audiodd_jax.training import source as source_lib
from audiodd_jax.training.networks_file import TrainedNetworks

_log = logging.getLogger(__name__)

# Images labelled at a time.
_BATCH = 2048


class Labelled(NamedTuple):
    """Views of a coreset, labelled by a teacher.

    Attributes:
      views: images, and labels in float16, as a file gives them back.
      record: seconds spent on training the teacher and on labelling, and the
        validation accuracy of the teacher's networks.
      stored: the arrays that store the labels (see ``coreset.storage``).
    """

    views: Views
    record: dict[str, Any]
    stored: dict[str, np.ndarray]


def label(
    images: Float[Array | np.ndarray, "s f t 1"],
    config: Config,
    data: Dataset,
    layers: Int[np.ndarray, " s"] | None = None,
) -> Labelled:
    """Labels the views of a coreset's standardised, full-length spectrograms.

    The teacher is read from the cache, or trained on the clips of ``data`` without
    reading the test split. The same call resumes an interrupted training. ``layers``
    are those of a nested coreset.

    Raises:
      UserError: the cache is damaged, or the loss is not finite.
      Interrupted: on SIGTERM or SIGINT; the state is saved.
    """
    folder = trained(config, data)
    began = time.perf_counter()
    settings = (config.coreset.views, config.views, data.normalization, config.seed)
    with progress.waiting("making views"):
        views = views_lib.make(images, *settings, layers)
    labels = np.zeros((len(views), data.num_classes), np.float16)
    record: dict[str, Any] = {}
    if multiprocess.is_process_zero():  # other hosts may have other caches
        networks = networks_file.load_networks(folder / "networks.npz")
        with progress.bar(len(views), desc="labelling views", unit="view") as bar:
            labels[:] = _predict(networks, views, config.teacher.temperature, bar)
        record = {
            **read_json(folder / "result.json"),
            "labelling_seconds": time.perf_counter() - began,
        }
    labels = multiprocess.arrays_from_process_zero(labels)
    given = (config.coreset.storage, config.views.top_k, data.has_tags)
    stored = storage.encode_views(labels, *given)
    labels = storage.decode_views(stored, data.num_classes, data.has_tags)
    record = multiprocess.from_process_zero(lambda: record)
    return Labelled(Views(views, labels), record, stored)


def probabilities(
    clips: Clips, config: Config, data: Dataset
) -> Float[np.ndarray, "b c"]:
    """Predicts the probabilities of clips, averaged over the teacher's networks.

    The teacher is that of ``label``. The clips' own labels are not read.

    Raises:
      UserError: the cache is damaged, or the loss is not finite.
      Interrupted: on SIGTERM or SIGINT; the state is saved.
    """
    folder = trained(config, data)
    predicted = np.zeros((len(clips.labels), data.num_classes), np.float32)
    if multiprocess.is_process_zero():  # other hosts may have other caches
        networks = networks_file.load_networks(folder / "networks.npz")
        count = len(predicted)
        with progress.bar(count, desc="labelling clips", unit="clip") as bar:
            for start in range(0, count, _BATCH):
                rows = np.arange(start, min(start + _BATCH, count))
                images = np.asarray(clips.take(rows))
                predicted[rows] = _predict(networks, images, 1.0, bar)
    return multiprocess.arrays_from_process_zero(predicted)


def ensemble(folder: Path, temperature: float) -> Ensemble:
    """Returns the teacher in ``folder``, as arrays and a pure function of them.

    Every process has the networks of process 0; other hosts may have other caches.
    """
    path = folder / "networks.npz"
    if jax.process_count() == 1:
        networks = networks_file.load_networks(path)
    else:
        encoded = lambda: base64.b64encode(path.read_bytes()).decode()
        text = multiprocess.from_process_zero(encoded)
        with tempfile.TemporaryDirectory() as own:
            copy = Path(own) / path.name
            copy.write_bytes(base64.b64decode(text))
            networks = networks_file.load_networks(copy)
    model = models.make(networks.model, len(networks.class_names))
    return models.ensemble(networks.networks, model, temperature, networks.has_tags)


def _predict(
    networks: TrainedNetworks, images: np.ndarray, temperature: float, bar: tqdm
) -> Float[np.ndarray, "k c"]:
    """Returns the ensemble's probabilities of any number of spectrograms."""
    predicted = []
    for part in np.array_split(images, -(-len(images) // _BATCH)):
        predicted.append(np.asarray(networks.predict(part, temperature)))
        bar.update(len(part))
    return np.concatenate(predicted)


def trained(config: Config, data: Dataset) -> Path:
    """Returns the teacher's folder in the cache, after training it if necessary.

    Raises:
      UserError: the cache is damaged, or the loss is not finite.
      Interrupted: on SIGTERM or SIGINT; the state is saved.
    """
    recipe = recipe_of(config)
    record = fields.record(recipe, fields.TRAINING)
    # Everything that the numbers depend on, wherever the data lies.
    record["data"] = {"name": data.name, "clips": data.clips_digest}
    if data.is_balanced:
        record["balance"] = "classes"
    record["features"] = dataclasses.asdict(data.features)
    record["normalization"] = [
        np.asarray(values).tolist() for values in data.normalization
    ]
    text = json.dumps(record, sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    root = datasets.cache_root(config.data)
    folder = root / "teachers" / f"{data.name}-{key}"

    def train(run: RunDirectory) -> dict[str, Any]:
        _log.info("training the teacher: %d networks", recipe.training.seeds)
        clips = source_lib.subset_source(Subset(), np.array([], int), data, 0)
        model, training, seed = recipe.model, recipe.training, recipe.seed
        fitted = source_lib.fit_source(model, training, seed, data, clips, run)
        path = run.path / "networks.npz"
        networks_file.save(path, fitted.networks, data, model)
        last = fitted.history[-1]
        return {
            "seconds": last["seconds"],
            "validation_accuracy": last.get("validation_accuracy"),
        }

    with contextlib.ExitStack() as stack:
        lock = root / "locks" / f"teacher-{folder.name}"
        held = exclusive(lock, "training a teacher")
        multiprocess.from_process_zero(lambda: stack.enter_context(held))
        # Distillations with kernels in float64 share the teacher of the others.
        with standard_numerics(float64=False):
            run_once(folder, record, train)
    return folder


def recipe_of(config: Config) -> Config:
    """Returns the training of the ensemble, by the recipe of its network."""
    teacher = config.teacher
    # Independent of the other networks that a command trains, so that every command
    # finds the same teacher.
    base = dataclasses.replace(config, model=ModelConfig(), training=TrainingConfig())
    changes = {
        "training.steps": teacher.steps,
        "training.seeds": teacher.networks,
        "training.eval_every": 0,
        "seed": teacher.seed,
    }
    return fields.replace(presets.for_model(base, teacher.model), changes)
