"""The teacher of a coreset: an ensemble trained on all training clips, in the cache.

It labels the views of a finished coreset for networks that are trained on it.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from audiodd_jax.commands import recorded_training
from audiodd_jax.config import Config, ModelConfig, TrainingConfig, fields, presets
from audiodd_jax.config.names import TRAINING
from audiodd_jax.coreset import views as views_lib
from audiodd_jax.coreset.subsets import Subset
from audiodd_jax.coreset.views import Views
from audiodd_jax.data import datasets
from audiodd_jax.features.dataset import Dataset, DeviceSplit, HostSplit, Split
from audiodd_jax.networks import inference, models
from audiodd_jax.networks.inference import CLIPS_AT_ONCE, Network, logits
from audiodd_jax.runtime import multiprocess, progress
from audiodd_jax.runtime.files import read_json
from audiodd_jax.runtime.locks import exclusive
from audiodd_jax.runtime.run_directory import RunDirectory
from audiodd_jax.training import networks_file
from audiodd_jax.training.networks_file import TrainedNetworks

_log = logging.getLogger(__name__)

# Views labelled at once.
_AT_ONCE = 2048


class Labelled(NamedTuple):
    """Views of a coreset, labelled by a teacher.

    Attributes:
      views: images, and labels in float16, as they are stored.
      record: seconds of the teacher's training and of the labelling, and the
        validation accuracy of its networks.
    """

    views: Views
    record: dict[str, Any]


def label(
    images: Float[Array | np.ndarray, "s f t 1"],
    config: Config,
    data: Dataset,
    cache_dir: Path | None = None,
) -> Labelled:
    """Labels the views of a coreset's full-length spectrograms.

    The teacher is trained, or read from the cache. An interrupted training resumes with
    the same call. The test split is not read.

    Args:
      images: standardised spectrograms.
      config: of the teacher and the views.
      data: the prepared dataset.
      cache_dir: folder of downloads and features.

    Raises:
      UserError: the cache is damaged, or the loss is not finite.
      Interrupted: on SIGTERM or SIGINT; the state is saved.
    """
    place = _trained(config, data, cache_dir)
    began = time.perf_counter()
    made = views_lib.make(
        images,
        config.coreset.views,
        config.views,
        data.normalization,
        config.seed,
    )
    labels = np.zeros((len(made), data.num_classes), np.float16)
    record: dict[str, Any] = {}
    if multiprocess.is_process_zero():  # the cache may be its own
        networks = networks_file.load_networks(place / "networks.npz")
        with progress.waiting("labelling views"):
            labels[:] = _ensemble(networks, made, config.teacher.temperature)
        record = {
            **read_json(place / "result.json"),
            "labelling_seconds": time.perf_counter() - began,
        }
    labels = multiprocess.arrays_from_process_zero(labels)
    record = multiprocess.from_process_zero(lambda: record)
    return Labelled(Views(made, labels), record)


def probabilities(
    clips: Split | DeviceSplit | HostSplit,
    config: Config,
    data: Dataset,
    cache_dir: Path | None = None,
) -> Float[np.ndarray, "b c"]:
    """What the teacher of ``data`` says of some clips, averaged over its networks.

    The teacher is trained, or read from the cache, as by ``label``.

    Args:
      clips: whose labels are not read.
      config: of the teacher.
      data: what the teacher learns from.
      cache_dir: folder of downloads and features.

    Raises:
      UserError: the cache is damaged, or the loss is not finite.
      Interrupted: on SIGTERM or SIGINT; the state is saved.
    """
    place = _trained(config, data, cache_dir)
    found = np.zeros((len(clips.labels), data.num_classes), np.float32)
    if multiprocess.is_process_zero():  # the cache may be its own
        networks = networks_file.load_networks(place / "networks.npz")
        for start in range(0, len(found), _AT_ONCE):
            rows = np.arange(start, min(start + _AT_ONCE, len(found)))
            found[rows] = _ensemble(networks, np.asarray(clips.take(rows)), 1.0)
    return multiprocess.arrays_from_process_zero(found)


def _ensemble(
    trained: TrainedNetworks, images: np.ndarray, temperature: float
) -> Float[np.ndarray, "k c"]:
    """Probabilities at a temperature, averaged over the networks."""
    model = models.make(trained.model, len(trained.class_names))
    heat = jnp.float32(temperature)
    parts = (
        _probabilities(
            trained.networks,
            jnp.asarray(part),
            heat,
            model=model,
            has_tags=trained.has_tags,
        )
        for part in np.array_split(images, -(-len(images) // _AT_ONCE))
    )
    return np.concatenate([np.asarray(part) for part in parts])


@functools.partial(jax.jit, static_argnames=("model", "has_tags"))
def _probabilities(
    networks: Network,
    images: Float[Array, "k f t 1"],
    temperature: Float[Array, ""],
    *,
    model: Any,
    has_tags: bool,
) -> Float[Array, "k c"]:
    one = lambda network: inference.probabilities(
        logits(network, images, model, CLIPS_AT_ONCE) / temperature, has_tags
    )
    return jax.lax.map(one, networks).mean(0)


def _trained(config: Config, data: Dataset, cache_dir: Path | None) -> Path:
    """The folder of the teacher in the cache; trains it if it is not there."""
    recipe = _recipe(config)
    kept = fields.record(recipe, TRAINING)
    # What the numbers depend on, wherever the data lies.
    kept["data"] = {"name": data.name, "clips": data.clips_digest}
    kept["features"] = dataclasses.asdict(data.features)
    kept["normalization"] = [
        np.asarray(values).tolist() for values in data.normalization
    ]
    text = json.dumps(kept, sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    root = cache_dir or datasets.cache_root()
    place = root / "teachers" / f"{data.name}-{key}"
    with contextlib.ExitStack() as stack:
        lock = exclusive(root / "locks" / f"teacher-{place.name}", "training a teacher")
        multiprocess.from_process_zero(lambda: stack.enter_context(lock))
        _train(recipe, data, place, kept)
    return place


def _recipe(config: Config) -> Config:
    """The training of the ensemble, by the recipe of its model."""
    teacher = config.teacher
    own = {"steps": teacher.steps, "seeds": teacher.networks, "eval_every": 0}
    changes = {f"training.{name}": value for name, value in own.items()}
    # Not what else is trained: every command finds the same teacher.
    base = dataclasses.replace(config, model=ModelConfig(), training=TrainingConfig())
    recipe = presets.for_model(base, teacher.model)
    return fields.replace(recipe, {**changes, "seed": teacher.seed})


def _train(recipe: Config, data: Dataset, place: Path, kept: dict[str, Any]) -> None:
    with RunDirectory(place, kept) as run:
        if run.result():
            return
        _log.info("training the teacher: %d networks", recipe.training.seeds)
        source = recorded_training.subset_source(Subset(), np.array([]), data, 0)
        fitted = recorded_training.fit_source(recipe, data, source, run)
        networks_file.save(
            run.path / "networks.npz", fitted.networks, data, recipe.model
        )
        last = fitted.history[-1]
        run.finish(
            {
                "seconds": last["seconds"],
                "validation_accuracy": last.get("validation_accuracy"),
            }
        )
