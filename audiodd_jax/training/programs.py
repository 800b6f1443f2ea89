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

from audiodd_jax.config import ModelConfig, TrainingConfig
from audiodd_jax.data import tags
from audiodd_jax.errors import UserError
from audiodd_jax.features import metric
from audiodd_jax.features.batches import Streamed
from audiodd_jax.features.clips import Clips
from audiodd_jax.features.dataset import Dataset
from audiodd_jax.networks import models
from audiodd_jax.networks.models import Network, network_logits
from audiodd_jax.runtime import devices
from audiodd_jax.training import losses, trainer
from audiodd_jax.training.trainer import Drawn, Metrics, State

# Fraction of a device's memory for seeds that are trained at once, and an estimate
# of the activations per clip and channel that a seed's backward pass stores.
_DEVICE_SHARE = 0.5
_ACTIVATIONS_A_CLIP = 64


class Programs(NamedTuple):
    """The programs of a training; trainings that differ in clips or seeds share them.

    Attributes:
      name: name of the network.
      initial: maps ``keys [k]`` to the seeds' states before the first step.
      validate: metric and loss of stacked networks on the validation clips; None
        without such clips.
      metric: name of the networks' scores.
    """

    name: str
    settings: TrainingConfig
    model: nn.Module
    initial: Callable[[Key[Array, " k"]], State]
    chunk: Callable[[State, Drawn | Streamed], tuple[State, Metrics]]
    validate: Callable[[Network], tuple[Float[Array, " k"], Float[Array, " k"]]] | None
    mesh: Mesh
    metric: str


def make(
    model: ModelConfig,
    settings: TrainingConfig,
    data: Dataset,
    mesh: Mesh | None = None,
    module: nn.Module | None = None,
) -> Programs:
    """Makes the programs of a training, which are compiled when they are first used.

    Args:
      data: gives shapes, statistics, noise and validation clips; the clips to train on
        are an argument of ``fit``.
      mesh: devices of the training; None: all, of all processes.
      module: the module to train; None: the one that ``model`` describes.

    Raises:
      UserError: settings that the data does not allow.
    """
    _check(settings, data)
    dtype = jnp.dtype(settings.precision)
    module = module or models.make(model, data.num_classes, dtype)
    initial = initial_program(module, data.image_shape, settings)
    mesh = mesh or devices.make_mesh(grid=seed_grid(settings.seeds))
    parallel = settings.parallel or _seeds_at_once(
        initial, model.width, settings, data.image_shape
    )
    step = functools.partial(
        trainer.step,
        model=module,
        config=settings,
        stats=data.normalization,
        noise=data.noise,
        loss=losses.loss_name(settings, data.has_tags),
    )
    validate = None
    if len(data.validation.labels):
        validate = functools.partial(
            validation_program(module, settings),
            data=devices.replicate(data.validation, mesh),
        )
    rates = jax.tree.map(jnp.asarray, trainer.Rates.of(settings))
    chunk = trainer.make_chunk(step, data.normalization, parallel, mesh)
    return Programs(
        model.name,
        settings,
        module,
        initial,
        functools.partial(chunk, rates=devices.replicate(rates, mesh)),
        validate,
        mesh,
        data.metric,
    )


def _check(settings: TrainingConfig, data: Dataset) -> None:
    """Refuses settings that the data does not allow."""
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
    init = functools.partial(
        trainer.init, model=model, image_shape=image_shape, config=settings
    )
    return jax.jit(lambda keys: jax.lax.map(init, keys))


def seed_grid(seeds: int, count: int | None = None) -> devices.Grid:
    """The grid for ``seeds``: the networks axis has as many devices as divide them.

    ``count`` is the number of devices; None: all, of all processes.
    """
    count = count or devices.make_mesh().size
    # A host reads only what its own devices hold, so each holds all networks.
    networks = math.gcd(seeds, count) if jax.process_count() == 1 else 1
    return devices.Grid(networks, count // networks)


def validation_program(model: nn.Module, config: TrainingConfig) -> jax.stages.Wrapped:
    """The program that validates: ``(networks, data)`` to metrics and losses."""

    @jax.jit
    def validate(
        networks: Network, data: Clips
    ) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
        def score(network: Network) -> tuple[Array, Array]:
            out = network_logits(network, data.images, model)
            targets = losses.hard_targets(data.labels, out.shape[1], config)
            loss = losses.loss_name(config, tags.are_tags(data.labels))
            values = losses.per_clip(out, targets, loss).astype(out.dtype)
            groups = data.recordings, data.weights
            accuracy = metric.estimate(out, data.labels, *groups).mean
            return accuracy, metric.grouped_mean(values, *groups).mean

        return jax.lax.map(score, networks)

    return validate


def _seeds_at_once(
    initial: Callable[..., State],
    width: int,
    settings: TrainingConfig,
    shape: tuple[int, int],
) -> int:
    """Number of seeds that are trained at once by ``vmap``, if it is automatic.

    One on CPU: a single seed keeps the cores busy, and batched convolutions are slow.
    """
    device = jax.local_devices()[0]
    memory = device.memory_stats() if device.platform != "cpu" else None
    if not memory or "bytes_limit" not in memory:
        return 1
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
    seed = jax.eval_shape(initial, keys)
    stored = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(seed.opt_state))
    channels = max(1, width) * _ACTIVATIONS_A_CLIP
    activations = 4 * settings.batch_size * shape[0] * shape[1] * channels
    # Total, not free memory: a resumed run must train the same seeds together.
    fitting = int(_DEVICE_SHARE * memory["bytes_limit"] // (2 * stored + activations))
    return max(1, min(settings.seeds, fitting))
