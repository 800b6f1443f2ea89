"""A training run: seeds, validation, early stopping, resumption."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key

from audiodd_jax.config import TrainingConfig
from audiodd_jax.features import batches
from audiodd_jax.features.batches import Streamed
from audiodd_jax.features.clips import Clips
from audiodd_jax.networks.models import Network
from audiodd_jax.runtime import devices
from audiodd_jax.runtime.run_directory import RunDirectory
from audiodd_jax.runtime.train_loop import Task, train_loop
from audiodd_jax.training import losses, trainer
from audiodd_jax.training.programs import Programs
from audiodd_jax.training.trainer import Drawn, State, TrainingSet


class FitState(NamedTuple):
    """Everything that a resumed training needs, for ``k`` stacked seeds.

    Attributes:
      best: the best networks so far by validation, or None without early stopping.
      best_step: steps at which they were reached.
      best_accuracy: their accuracy on the validation clips.
      best_loss: their loss on the validation clips; breaks ties of accuracy.
    """

    states: State
    best: Network | None
    best_step: Int[Array, " k"]
    best_accuracy: Float[Array, " k"]
    best_loss: Float[Array, " k"]


class Fitted(NamedTuple):
    """Trained networks of all seeds, stacked.

    Attributes:
      best_steps: steps at which they were reached.
      steps: steps taken.
      history: one row per chunk.
    """

    networks: Network
    model: nn.Module
    best_steps: tuple[int, ...]
    steps: int
    history: list[dict[str, Any]]


def real_set(
    data: Clips,
    num_classes: int,
    config: TrainingConfig,
    rows: Int[np.ndarray, " n"] | None = None,
) -> TrainingSet:
    """Makes a training set of real clips.

    ``rows`` are the clips to train on, and no other label is read; None: all.
    """
    if rows is None:
        return TrainingSet(data, losses.hard_targets(data.labels, num_classes, config))
    rows = jnp.asarray(rows)
    targets = jnp.zeros((len(data.labels), num_classes))
    labelled = losses.hard_targets(data.labels[rows], num_classes, config)
    return TrainingSet(data, targets.at[rows].set(labelled), rows)


def fit(
    programs: Programs,
    data: TrainingSet,
    seed: int,
    run: RunDirectory | None = None,
    start: Network | None = None,
) -> Fitted:
    """Trains the networks of ``programs`` on ``data``.

    Args:
      run: the run directory; None: memory only.
      start: networks to fine-tune, one per seed; None: random initialisation.

    Raises:
      UserError: a loss that is not finite.
      Interrupted: on SIGTERM or SIGINT; the state is saved.
    """
    settings, mesh = programs.settings, programs.mesh
    keys = jax.vmap(jax.random.key)(seed + np.arange(settings.seeds))
    states = programs.initial(keys)
    if start is not None:
        average = start.variables if states.average is not None else None
        states = states._replace(network=start, average=average)
    states = jax.tree.map(jnp.copy, states)  # no two leaves share a donated buffer

    def start_at(first: int) -> Callable[[FitState, int], tuple[FitState, dict]]:
        parts = _batches(data, keys, first, settings, mesh)

        def advance(state: FitState, _: int) -> tuple[FitState, dict]:
            states, metrics = programs.chunk(state.states, next(parts))
            return state._replace(states=states), metrics

        return advance

    patience = settings.patience * settings.eval_every
    task = Task(
        name=programs.name,
        start=start_at,
        validate=functools.partial(
            _validate, validate=programs.validate, patience=patience
        ),
        is_done=lambda state, step: 0 < patience <= step - int(state.best_step.max()),
        advice="lower --config.training.learning_rate",
        metric=programs.metric,
    )
    state = FitState(
        states,
        jax.tree.map(jnp.copy, states.final) if settings.patience else None,
        jnp.zeros(settings.seeds, jnp.int32),
        -jnp.ones(settings.seeds),
        jnp.full(settings.seeds, jnp.inf),
    )
    outcome = train_loop(task, devices.replicate(state, mesh), settings, run)
    networks = outcome.state.states.final
    best_steps = (outcome.step,) * settings.seeds
    if outcome.state.best is not None:
        networks = outcome.state.best
        best_steps = tuple(map(int, outcome.state.best_step))
    # On this process's own device: from here on each process works alone.
    networks = jax.tree.map(jnp.asarray, jax.device_get(networks))
    return Fitted(networks, programs.model, best_steps, outcome.step, outcome.history)


def _validate(
    state: FitState, row: dict[str, Any], *, validate: Callable | None, patience: int
) -> FitState:
    """Validates into ``row``; with early stopping, keeps each seed's best network.

    Args:
      patience: steps without improvement that end a seed's training; 0: none do.
    """
    if validate is None:
        return state
    accuracy, loss = validate(state.states.final)
    row["validation_accuracy"] = float(accuracy.mean())
    row["validation_loss"] = float(loss.mean())
    if not patience:
        return state
    # A seed is finished once its patience has run out, even if the others continue.
    is_alive = row["step"] - state.best_step <= patience
    is_better = (accuracy > state.best_accuracy) | (
        (accuracy == state.best_accuracy) & (loss <= state.best_loss)
    )
    chosen = is_alive & is_better

    def pick(new: Array, old: Array) -> Array:
        return jnp.where(chosen.reshape(-1, *(1,) * (new.ndim - 1)), new, old)

    return FitState(
        state.states,
        jax.tree.map(pick, state.states.final, state.best),
        pick(jnp.full_like(state.best_step, row["step"]), state.best_step),
        pick(accuracy, state.best_accuracy),
        pick(loss, state.best_loss),
    )


def _batches(
    data: TrainingSet,
    keys: Key[Array, " k"],
    first: int,
    config: TrainingConfig,
    mesh: Mesh,
) -> Iterator[Drawn | Streamed]:
    """Yields the batches of each chunk of steps, from the device or from the host."""
    rows = data.rows if data.rows is not None else jnp.arange(data.targets.shape[0])
    draw = functools.partial(trainer.draw, rows=rows, size=config.batch_size)
    if data.clips.is_on_host:
        draw_step = lambda roots, step: draw(roots, step, 1)[:, 0]
        table = np.asarray(data.targets)
        span = (first, config.steps, config.log_every)
        yield from batches.stream(data.clips, table, draw_step, keys, *span)
        return
    # Another number of rows would compile another program, so they stay out of it.
    data = devices.replicate(data._replace(rows=None), mesh)
    for start in range(first, config.steps, config.log_every):
        length = min(config.log_every, config.steps - start)
        yield Drawn(data, devices.replicate(draw(keys, start, length), mesh))
