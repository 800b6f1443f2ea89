"""A whole training: seeds, validation, early stopping, resume."""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key, Num

from audiodd_jax.config import Config, TrainingConfig
from audiodd_jax.features import batches
from audiodd_jax.features.dataset import HostSplit, Split
from audiodd_jax.features.normalization import Normalization
from audiodd_jax.networks import models
from audiodd_jax.networks.inference import CLIPS_AT_ONCE, Network, logits
from audiodd_jax.runtime import devices
from audiodd_jax.runtime.chunked_loop import Job, Schedule, drive
from audiodd_jax.runtime.errors import UserError
from audiodd_jax.runtime.run_directory import RunDirectory
from audiodd_jax.training import losses, trainer
from audiodd_jax.training.trainer import State, TrainingSet

# Of a device's free memory, for seeds that are trained at once, and how much a seed
# takes beyond its state: some activations of a batch for every parameter's gradient.
_DEVICE_SHARE = 0.5
_ACTIVATIONS_A_CLIP = 64


class FitState(NamedTuple):
    """Everything that a resumed training needs; seeds ``k`` are stacked in front.

    Attributes:
      states: those of the seeds.
      best: the best networks so far by validation, or None without early stopping.
      best_step: ``[k]`` when each was reached.
      best_accuracy: ``[k]`` on the validation clips.
      best_loss: ``[k]`` on the validation clips; decides between equal accuracies.
    """

    states: State
    best: Network | None
    best_step: Int[Array, " k"]
    best_accuracy: Float[Array, " k"]
    best_loss: Float[Array, " k"]


class Fitted(NamedTuple):
    """Trained networks.

    Attributes:
      networks: of the seeds, stacked.
      model: what they are.
      best_steps: when each was reached.
      steps: steps taken.
      history: a row a chunk.
    """

    networks: Network
    model: nn.Module
    best_steps: tuple[int, ...]
    steps: int
    history: list[dict[str, Any]]


def real_set(
    data: Split | Any, num_classes: int, config: TrainingConfig
) -> TrainingSet:
    """Real clips with their labels as a training set."""
    return TrainingSet(data, losses.hard_targets(data.labels, num_classes, config))


def coreset_set(
    images: Float[Array, "s f t 1"],
    labels: Float[Array, "s c"],
    config: TrainingConfig,
) -> TrainingSet:
    """A coreset with its learnt labels as a training set."""
    classes = labels.argmax(1).astype(jnp.int32)
    return TrainingSet(Split(images, classes), losses.soft_targets(labels, config))


def fit(
    config: Config,
    data: TrainingSet,
    validation: Split,
    stats: Normalization,
    noise: Num[Array, "pieces f t"] | None = None,
    run: RunDirectory | None = None,
    start: Network | None = None,
    mesh: Mesh | None = None,
) -> Fitted:
    """Trains ``config.training.seeds`` networks of ``config.model`` on ``data``.

    Args:
      config: model, training, and the first seed.
      data: what to learn from.
      validation: clips for early stopping and the record; may be empty.
      stats: what the images were standardised with.
      noise: background noise, in dB, for that augmentation.
      run: where to record, checkpoint and resume; None keeps all in memory.
      start: networks to go on from, one a seed; None: fresh ones.
      mesh: the devices that share the work; None: all, of all processes.

    Raises:
      UserError: settings that the data cannot serve, or a loss that is not a number.
      Interrupted: SIGTERM or SIGINT came; the state is saved.
    """
    settings = config.training
    if settings.augment.background and noise is None:
        raise UserError(
            "--config.training.augment.background needs background noise, which this "
            "dataset or coreset does not bring"
        )
    if settings.patience and not validation.labels.size:
        raise UserError(
            "--config.training.patience needs validation clips; raise "
            "--config.data.validation_fraction"
        )
    dtype = jnp.dtype(settings.precision)
    model = models.make(config.model, data.targets.shape[1], dtype)
    keys = jax.vmap(jax.random.key)(config.seed + np.arange(settings.seeds))
    shape = data.clips.image_shape
    begin_one = functools.partial(
        trainer.init, model=model, image_shape=shape, config=settings
    )
    states = jax.jit(lambda keys: jax.lax.map(begin_one, keys))(keys)
    if start is not None:
        states = states.starting_from(start)
    states = jax.tree.map(jnp.copy, states)  # no two leaves share a donated buffer
    parallel = settings.parallel or _seeds_at_once(states, config, shape)
    mesh = mesh or devices.make_mesh(grid=seed_grid(settings.seeds))
    chunk = trainer.make_chunk(model, settings, stats, noise, parallel, mesh)
    validate = make_validate(model, devices.replicate(validation, mesh), settings)
    worst = jnp.full(settings.seeds, jnp.inf)
    state = FitState(
        states,
        jax.tree.map(jnp.copy, states.final) if settings.patience else None,
        jnp.zeros(settings.seeds, jnp.int32),
        -jnp.ones(settings.seeds),
        worst,
    )
    state = devices.replicate(state, mesh)
    waited = settings.patience * settings.eval_every
    if settings.patience and not settings.eval_every:
        raise UserError(
            "--config.training.patience counts validations: set "
            "--config.training.eval_every"
        )

    def begin(first: int) -> Callable[[FitState, int], tuple[FitState, dict]]:
        parts = _parts(data, keys, first, settings, mesh)

        def advance(state: FitState, length: int) -> tuple[FitState, dict]:
            states, metrics = chunk(state.states, next(parts), length)
            return state._replace(states=states), metrics

        return advance

    def review(state: FitState, row: dict[str, Any]) -> FitState:
        if validate is None:
            return state
        accuracy, loss = validate(state.states.final)
        row["validation_accuracy"] = float(accuracy.mean())
        row["validation_loss"] = float(loss.mean())
        if not settings.patience:
            return state
        # A seed that has waited long enough is at its end, whatever the others do.
        alive = row["step"] - state.best_step <= waited
        better = (accuracy > state.best_accuracy) | (
            (accuracy == state.best_accuracy) & (loss <= state.best_loss)
        )
        return _keep(state, alive & better, row["step"], accuracy, loss)

    job = Job(
        name=config.model.name,
        begin=begin,
        review=review,
        is_done=lambda state, step: 0 < waited <= step - int(jnp.max(state.best_step)),
        advice="lower --config.training.learning_rate",
    )
    schedule = Schedule(*(getattr(settings, name) for name in Schedule._fields))
    state, steps, history = drive(job, state, schedule, run)
    networks, best = state.states.final, (steps,) * settings.seeds
    if state.best is not None:
        networks, best = state.best, tuple(map(int, state.best_step))
    # On this process's own device: what follows is no longer done by all together.
    networks = jax.tree.map(jnp.asarray, jax.device_get(networks))
    return Fitted(networks, model, best, steps, history)


def seed_grid(seeds: int) -> devices.Grid:
    """Devices for some seeds: as many along the networks' axis as divide them."""
    count = devices.make_mesh().size
    own = math.gcd(seeds, count)
    return devices.Grid(own, count // own)


def _keep(
    state: FitState,
    chosen: Array,
    step: int,
    accuracy: Float[Array, " k"],
    loss: Float[Array, " k"],
) -> FitState:
    """The state with the networks of the ``chosen`` seeds as their best."""

    def pick(new: Array, old: Array) -> Array:
        return jnp.where(chosen.reshape(-1, *(1,) * (new.ndim - 1)), new, old)

    return FitState(
        state.states,
        jax.tree.map(pick, state.states.final, state.best),
        pick(jnp.full_like(state.best_step, step), state.best_step),
        pick(accuracy, state.best_accuracy),
        pick(loss, state.best_loss),
    )


def _parts(
    data: TrainingSet,
    keys: Key[Array, " k"],
    first: int,
    config: TrainingConfig,
    mesh: Mesh,
) -> Any:
    """What each chunk is given: the whole set, or its batches streamed."""
    if not isinstance(data.clips, HostSplit):
        return itertools.repeat(devices.replicate(data, mesh))
    one = functools.partial(
        trainer.rows, clips=data.targets.shape[0], size=config.batch_size
    )
    draw = lambda roots, step: jax.vmap(lambda key: one(key, step, 1)[0])(roots)
    table = np.asarray(data.targets)
    sizes = (first, config.steps, config.log_every)
    return batches.stream(data.clips, table, draw, keys, *sizes)


def make_validate(
    model: nn.Module, data: Split, config: TrainingConfig
) -> Callable[[Network], tuple[Float[Array, " k"], Float[Array, " k"]]] | None:
    """Accuracy and cross-entropy of stacked networks on held-out clips.

    None where nothing is held out.
    """
    if not data.labels.size:
        return None

    @jax.jit
    def validate(networks: Network, data: Split) -> tuple[Array, Array]:
        def score(network: Network) -> tuple[Array, Array]:
            out = logits(network, data.images, model, CLIPS_AT_ONCE)
            hits = jnp.argmax(out, axis=1) == data.labels
            targets = losses.hard_targets(data.labels, out.shape[1], config)
            return hits.mean(), losses.loss(out, targets, config.loss)

        return jax.lax.map(score, networks)

    return lambda networks: validate(networks, data)


def _seeds_at_once(states: State, config: Config, shape: tuple[int, int]) -> int:
    """How many seeds ``vmap`` takes together where the settings leave it open.

    On a CPU one: its cores are busy with that, and batched convolutions are slow.
    """
    device = jax.local_devices()[0]
    known = device.memory_stats() if device.platform != "cpu" else None
    if not known or "bytes_limit" not in known:
        return 1
    seeds = config.training.seeds
    own = sum(leaf.nbytes for leaf in jax.tree.leaves(states.opt_state)) // seeds
    width = max(1, config.model.width) * _ACTIVATIONS_A_CLIP
    activations = 4 * config.training.batch_size * shape[0] * shape[1] * width
    free = known["bytes_limit"] - known.get("bytes_in_use", 0)
    fitting = int(_DEVICE_SHARE * free // (2 * own + activations))
    return max(1, min(seeds, fitting))
