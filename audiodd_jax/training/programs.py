"""The programs of a training: initial states, chunks of steps, validation."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Key

from audiodd_jax.config import Config, TrainingConfig
from audiodd_jax.data import tags
from audiodd_jax.errors import UserError
from audiodd_jax.features import groups, metric
from audiodd_jax.features.dataset import Dataset, Split
from audiodd_jax.features.metric import ACCURACY
from audiodd_jax.networks import models
from audiodd_jax.networks.inference import CLIPS_AT_ONCE, Network, logits
from audiodd_jax.runtime import devices
from audiodd_jax.training import losses, trainer
from audiodd_jax.training.trainer import State

# Fraction of a device's memory for seeds that are trained at once, and an estimate
# of the activations per clip and channel that a seed's backward pass stores.
_DEVICE_SHARE = 0.5
_ACTIVATIONS_A_CLIP = 64


class Programs(NamedTuple):
    """What a training compiles; trainings that differ in clips or seeds share it.

    Attributes:
      model: module of the networks.
      initial: ``keys [k]`` to the seeds' states before the first step.
      chunk: of ``trainer.make_chunk``.
      validate: of ``make_validate``.
      mesh: devices of the training.
      metric: what the networks' scores are, in words.
    """

    model: nn.Module
    initial: Callable[[Key[Array, " k"]], State]
    chunk: Callable[..., tuple[State, dict[str, Array]]]
    validate: Callable[[Network], tuple[Array, Array]] | None
    mesh: Mesh
    metric: str = ACCURACY


def make(
    config: Config,
    data: Dataset,
    mesh: Mesh | None = None,
    model: nn.Module | None = None,
) -> Programs:
    """The programs of ``config.training``, compiled when they are first used.

    Args:
      config: model and training.
      data: whose shapes, statistics, noise and validation clips are used; the clips
        that are learnt from are an argument of ``fit``.
      mesh: devices of the training; None: all, of all processes.
      model: to train; None: as ``config.model`` describes it.

    Raises:
      UserError: settings that the data does not allow.
    """
    settings, shape = config.training, data.image_shape
    _check(settings, data)
    dtype = jnp.dtype(settings.precision)
    model = model or models.make(config.model, data.num_classes, dtype)
    initial = initial_program(model, shape, settings)
    mesh = mesh or devices.make_mesh(grid=seed_grid(settings.seeds))
    parallel = settings.parallel or _seeds_at_once(initial, config, shape)
    stats, validation = data.normalization, devices.replicate(data.validation, mesh)
    kind = losses.kind_of(settings, data.has_tags)
    chunk = trainer.make_chunk(
        model, settings, stats, data.noise, parallel, mesh, kind=kind
    )
    validate = make_validate(model, validation, settings)
    return Programs(model, initial, chunk, validate, mesh, data.metric)


def _check(settings: TrainingConfig, data: Dataset) -> None:
    """Checks settings that depend on the data.

    Raises:
      UserError: the data lacks background noise or validation clips.
    """
    if settings.augment.background and data.noise is None:
        raise UserError(
            "--config.training.augment.background needs background noise, which this "
            "dataset or coreset does not have"
        )
    if settings.patience and not len(data.validation.labels):
        raise UserError(
            "--config.training.patience needs validation clips; raise "
            "--config.data.validation_fraction"
        )
    if settings.patience and not settings.eval_every:
        raise UserError(
            "--config.training.patience counts validations: set "
            "--config.training.eval_every"
        )


def initial_program(
    model: nn.Module, image_shape: tuple[int, int], settings: TrainingConfig
) -> jax.stages.Wrapped:
    """The program that draws the states of all seeds from their keys."""
    one = functools.partial(
        trainer.init, model=model, image_shape=image_shape, config=settings
    )
    return jax.jit(lambda keys: jax.lax.map(one, keys))


def seed_grid(seeds: int, count: int | None = None) -> devices.Grid:
    """The mesh for ``seeds``: the networks axis has as many devices as divide them.

    Args:
      seeds: networks to train.
      count: devices; None: all, of all processes.
    """
    count = count or devices.make_mesh().size
    own = math.gcd(seeds, count)
    return devices.Grid(own, count // own)


def make_validate(
    model: nn.Module, data: Split, config: TrainingConfig
) -> Callable[[Network], tuple[Float[Array, " k"], Float[Array, " k"]]] | None:
    """Measure and loss of stacked networks on validation clips; None without clips."""
    if not len(data.labels):
        return None
    validate = validation_program(model, config)
    return lambda networks: validate(networks, data)


def validation_program(model: nn.Module, config: TrainingConfig) -> jax.stages.Wrapped:
    """The program of ``make_validate``: ``(networks, data)``."""

    @jax.jit
    def validate(networks: Network, data: Split) -> tuple[Array, Array]:
        def score(network: Network) -> tuple[Array, Array]:
            out = logits(network, data.images, model, CLIPS_AT_ONCE)
            targets = losses.hard_targets(data.labels, out.shape[1], config)
            kind = losses.kind_of(config, tags.are_tags(data.labels))
            values = losses.per_clip(out, targets, kind).astype(out.dtype)
            found = metric.estimate(out, data.labels, data.recordings).mean
            return found, groups.estimate(values, data.recordings).mean

        return jax.lax.map(score, networks)

    return validate


def _seeds_at_once(
    initial: Callable[..., State], config: Config, shape: tuple[int, int]
) -> int:
    """Number of seeds that are trained at once by ``vmap``, if it is automatic.

    One on CPU: a single seed keeps the cores busy, and batched convolutions are slow.
    """
    device = jax.local_devices()[0]
    known = device.memory_stats() if device.platform != "cpu" else None
    if not known or "bytes_limit" not in known:
        return 1
    seeds = config.training.seeds
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
    one = jax.eval_shape(initial, keys)
    own = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(one.opt_state))
    width = max(1, config.model.width) * _ACTIVATIONS_A_CLIP
    activations = 4 * config.training.batch_size * shape[0] * shape[1] * width
    # Total, not free memory: a resumed run must train the same seeds together.
    fitting = int(_DEVICE_SHARE * known["bytes_limit"] // (2 * own + activations))
    return max(1, min(seeds, fitting))
