"""Training of networks: ``init`` and ``step``, and jitted chunks of steps.

A step draws a batch, augments it, and takes a gradient step. All seeds advance in one
program: one after the other, or several at once by ``vmap``. Randomness is
``fold_in(seed's key, step)``: neither the other seeds nor a resumption change a number.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key, Num

from audiodd_jax.config import TrainingConfig
from audiodd_jax.features import batches, metric
from audiodd_jax.features.augment import augment
from audiodd_jax.features.batches import Streamed
from audiodd_jax.features.clips import Clips
from audiodd_jax.features.normalization import Normalization
from audiodd_jax.networks import models
from audiodd_jax.networks.models import Network, Variables
from audiodd_jax.runtime import devices, schedules
from audiodd_jax.training import losses

# Streams of randomness, folded into a seed's key.
_INITIAL, _ORDER, _STEP = range(3)
# Steps over which the decay of the moving average ramps up.
_AVERAGE_WARMUP = 10

Metrics = dict[str, Array]


class TrainingSet(NamedTuple):
    """Clips and their targets.

    Attributes:
      clips: real clips, or the spectrograms of a coreset.
      targets: ``[b, c]`` targets, as ``losses`` makes them.
      rows: ``[n]`` clips to train on; None: all. A program compiled for a pool of clips
        serves any part of it.
    """

    clips: Clips
    targets: Float[Array, "b c"]
    rows: Int[Array, " n"] | None = None


class Drawn(NamedTuple):
    """Batches of several steps of ``k`` seeds: rows of a set on the device."""

    data: TrainingSet
    rows: Int[Array, "k steps b"]


class State(NamedTuple):
    """State of one seed, or of ``k`` stacked along a leading axis.

    Attributes:
      step: number of steps taken.
      key: the seed's root key.
      average: moving average of the network's variables, or None.
    """

    step: Int[Array, "*k"]
    key: Key[Array, "*k"]
    network: Network
    average: Variables | None
    opt_state: optax.OptState

    @property
    def final(self) -> Network:
        """The network for inference, with averaged variables if they are computed."""
        return self.network._replace(variables=self.average or self.network.variables)


class Rates(NamedTuple):
    """The numbers of a schedule, which are arguments of compiled programs.

    Attributes:
      highest: learning rate after the warm-up.
      warmup: steps of the warm-up.
      rise: share of the warm-up that a step is.
      steps: steps over which a cosine falls to zero.
      angle: the cosine's angle of a step.
    """

    highest: float | Array
    warmup: int | Array
    rise: np.float32 | Array
    steps: int | Array
    angle: float | Array

    @classmethod
    def of(cls, config: TrainingConfig) -> "Rates":
        """Returns the numbers of a training's settings."""
        warmup = round(config.warmup * config.steps)
        steps = max(1, config.steps - warmup)
        rise = np.float32(1) / np.float32(max(1, warmup))
        angle = schedules.angle_of_step(steps)
        return cls(config.learning_rate, warmup, rise, steps, angle)


def optimizer(
    config: TrainingConfig, rates: Rates | None = None
) -> optax.GradientTransformation:
    """AdamW or SGD with Nesterov momentum; warm-up, then a cosine or constant rate.

    ``rates`` take the place of the settings' own.
    """
    highest, warmup, rise, steps, angle = rates or Rates.of(config)

    def rate(step: Array) -> Array:
        # Shifted by one, so that the first step's rate is not zero.
        missing = 1 - jnp.clip(step + 1, 0, warmup) * rise
        after = highest
        if config.schedule == "cosine":
            after = schedules.cosine(highest, step - warmup, steps, angle)
        return jnp.where(step < warmup, highest - highest * missing, after)

    kernels = lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
    return optax.chain(
        optax.scale_by_adam()
        if config.optimizer == "adamw"
        else optax.trace(config.momentum, nesterov=True),
        optax.add_decayed_weights(config.weight_decay, kernels),
        optax.scale_by_learning_rate(rate),
    )


def init(
    key: Key[Array, ""],
    model: nn.Module,
    image_shape: tuple[int, int],
    config: TrainingConfig,
) -> State:
    """Returns the state of one seed before its first step.

    ``key`` is the seed's root key, ``image_shape`` is ``(f, t)``.
    """
    variables = models.init(jax.random.fold_in(key, _INITIAL), model, image_shape)
    network = Network(variables, variables if config.centre_outputs else None)
    average = variables if config.average else None
    opt_state = optimizer(config).init(variables.params)
    return State(jnp.int32(0), key, network, average, opt_state)


def step(
    state: State,
    images: Float[Array, "b f t 1"],
    targets: Float[Array, "b c"],
    *,
    model: nn.Module,
    config: TrainingConfig,
    stats: Normalization,
    noise: Num[Array, "pieces f t"] | None,
    loss: str,
    rates: Rates | None = None,
) -> tuple[State, Metrics]:
    """Takes one step of one seed on a batch; returns its loss and accuracy too.

    ``loss`` is a name from ``losses.loss_name``; ``rates`` are those of ``optimizer``.
    """
    key = jax.random.fold_in(jax.random.fold_in(state.key, _STEP), state.step)
    augment_key, mixup_key, dropout_key, start_key = jax.random.split(key, 4)
    images = augment(augment_key, images, config.augment, stats, noise)
    if config.mixup:
        images, targets = losses.mixup(mixup_key, images, targets, config.mixup)
    network, start = state.network.variables, state.network.start
    before = 0.0
    if start is not None:
        # Its running statistics are updated too, for inference.
        before, statistics = models.train_logits(model, start, images, start_key)
        start = start._replace(statistics=statistics)

    def objective(params: Any) -> tuple[Array, tuple[Array, Any]]:
        out, statistics = models.train_logits(
            model, network._replace(params=params), images, dropout_key
        )
        out = out - before
        value = jnp.mean(losses.per_clip(out, targets, loss))
        return value, (out, statistics)

    (value, (out, statistics)), grads = jax.value_and_grad(objective, has_aux=True)(
        network.params
    )
    updates, opt_state = optimizer(config, rates).update(
        grads, state.opt_state, network.params
    )
    network = Variables(optax.apply_updates(network.params, updates), statistics)
    average = state.average
    if average is not None:
        ramp = (1.0 + state.step) / (_AVERAGE_WARMUP + state.step)
        decay = jnp.minimum(config.average, ramp)
        average = optax.incremental_update(network, average, 1 - decay)
    # Targets may be mixed or soft: the likeliest class, or the tags above one half.
    has_tags = loss == losses.BINARY
    labels = (targets > 0.5).astype(int) if has_tags else jnp.argmax(targets, axis=1)
    state = State(
        state.step + 1, state.key, Network(network, start), average, opt_state
    )
    return state, {"loss": value, "batch_accuracy": metric.of_batch(out, labels)}


@functools.partial(jax.jit, static_argnums=(2, 4))
def draw(
    keys: Key[Array, " k"],
    first: Int[Array, ""] | int,
    length: int,
    rows: Int[Array, " n"],
    size: int,
) -> Int[Array, "k steps b"]:
    """Draws the clips of every seed's batches from step ``first`` on."""

    def draw_seed(key: Key[Array, ""]) -> Int[Array, "steps b"]:
        order = jax.random.fold_in(key, _ORDER)
        return rows[batches.epoch_rows(order, rows.shape[0], size, first, length)]

    return jax.vmap(draw_seed)(keys)


def make_chunk(
    step: Callable[..., tuple[State, Metrics]],
    stats: Normalization,
    parallel: int = 1,
    mesh: Mesh | None = None,
) -> Callable[..., tuple[State, Metrics]]:
    """Makes ``chunk(states, batches, rates)``: jitted steps of all seeds.

    The batches are rows of a set on the device, or clips that are streamed from the
    host, in arrays whose second axis is the seed. The chunk donates the states, and
    averages the metrics over the steps and the seeds. ``rates`` go to ``step``.

    Args:
      step: the function ``step`` with all of its keyword arguments.
      stats: standardise streamed clips.
      parallel: number of seeds that advance at once.
      mesh: devices: seeds are shared along its networks axis, batches along the other;
        None: the first local device.
    """
    mesh = mesh or devices.make_mesh(devices=jax.local_devices()[:1])

    @functools.partial(jax.jit, donate_argnums=0)
    def chunk(
        states: State, drawn: Drawn | Streamed, rates: Rates | None = None
    ) -> tuple[State, Metrics]:
        if isinstance(drawn, Drawn):
            data, by_seed = drawn
            take = lambda rows, data: Clips(data.clips.take(rows), data.targets[rows])
        else:
            data, by_seed = None, jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), drawn)
            take = lambda batch, _: batches.standardized(batch, stats)

        def advance_shard(
            stacked: tuple[State, Any], shared: tuple[TrainingSet | None, Rates | None]
        ) -> tuple[State, Metrics]:
            data, rates = shared

            def advance(state: State, drawn: Any) -> tuple[State, Metrics]:
                batch = devices.constrain_batch(mesh, take(drawn, data))
                return step(state, batch.images, batch.labels, rates=rates)

            seed = lambda pair: lax.scan(advance, *pair)
            return lax.map(seed, stacked, batch_size=parallel if parallel > 1 else None)

        advance_all = devices.map_networks(mesh, advance_shard)
        states, metrics = advance_all((states, by_seed), (data, rates))
        return states, jax.tree.map(jnp.mean, metrics)

    return chunk
