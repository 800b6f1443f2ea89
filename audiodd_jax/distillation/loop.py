"""The loop of every distillation method: chunks of steps, validation, checkpoints.

``log_every`` steps run as one compiled scan whose state is donated; nothing crosses to
the host inside. Randomness is ``fold_in(root, step)``, so that a run that was killed
and resumed from its last checkpoint ends with the bits of the uninterrupted one.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key

from audiodd_jax.config import Config
from audiodd_jax.config.names import SELECTION
from audiodd_jax.coreset import initial
from audiodd_jax.coreset.arrays import CoresetArrays
from audiodd_jax.distillation import memory_plan
from audiodd_jax.distillation.memory_plan import Plan, Sizes
from audiodd_jax.distillation.method import Method
from audiodd_jax.distillation.registry import METHODS, advice, make_mesh
from audiodd_jax.distillation.steps import Scorer, make_chunk, make_validate
from audiodd_jax.features import batches
from audiodd_jax.features.dataset import HostSplit, Prepared
from audiodd_jax.kernels import ridge_scoring
from audiodd_jax.runtime import devices
from audiodd_jax.runtime.chunked_loop import Job, Outcome, Schedule, drive
from audiodd_jax.runtime.errors import UserError
from audiodd_jax.runtime.run_directory import RunDirectory
from audiodd_jax.runtime.run_log import RunLog
from audiodd_jax.selection import clips

# What each stream of randomness is folded with, under the run's seed.
_INITIAL, _METHOD, _BATCH, _VALIDATION = range(4)


class LoopState(NamedTuple):
    """Everything that a resumed run needs.

    Attributes:
      method: the method's own state.
      best: the best coreset so far, by validation.
      best_step: ``[]`` when it was reached.
      best_accuracy: ``[]`` on the validation clips.
      best_loss: ``[]`` on the validation clips; decides between equal accuracies.
    """

    method: Any
    best: CoresetArrays
    best_step: Int[Array, ""]
    best_accuracy: Float[Array, ""]
    best_loss: Float[Array, ""]


class Distilled(NamedTuple):
    """The outcome of a run.

    Attributes:
      start: the coreset that it started from, or random clips beside chosen ones.
      best: the best by validation (the last, where nothing is held out).
      best_step: when it was reached.
      steps: steps taken, fewer than asked for if it stopped early.
      history: a row a chunk.
    """

    start: CoresetArrays
    best: CoresetArrays
    best_step: int
    steps: int
    history: list[dict[str, Any]]


def distill(
    config: Config,
    data: Prepared,
    run: RunDirectory | None = None,
    mesh: Mesh | None = None,
) -> Distilled:
    """Runs ``config.method`` on ``data`` to a coreset.

    Args:
      config: the run's configuration.
      data: the prepared dataset; its test split is never touched.
      run: where to record, checkpoint and resume; None keeps all in memory.
      mesh: the devices that share the work; None: all, of all processes.

    Raises:
      UserError: settings that the data cannot serve, or a loss that is not a number.
      Interrupted: SIGTERM or SIGINT came; the state is saved.
    """
    if config.rfad.kernel_precision == "float64" and not jax.config.jax_enable_x64:
        raise UserError(
            "--config.rfad.kernel_precision=float64 needs jax.config.jax_enable_x64, "
            "which the command line sets by itself"
        )
    if config.method in SELECTION:
        return _select(config, data, run, mesh)
    mesh = mesh or make_mesh(config, data.num_classes)
    member = prepare(config, data, mesh)
    outcome = drive(member.job, member.state, schedule_of(config), run)
    return finished(member, outcome)


class Member(NamedTuple):
    """A distillation that is ready to take steps.

    Attributes:
      start: the coreset that it starts from.
      state: before the first step.
      job: what to do, chunk by chunk.
    """

    start: CoresetArrays
    state: LoopState
    job: Job


def schedule_of(config: Config) -> Schedule:
    """How long a distillation is, and how often what happens."""
    return Schedule(*(getattr(config.loop, name) for name in Schedule._fields))


def finished(member: Member, outcome: Outcome) -> Distilled:
    """What a distillation has come to."""
    state, steps, history = outcome
    # On this process's own device: what follows is no longer done by all together.
    best = jax.tree.map(jnp.asarray, jax.device_get(state.best))
    return Distilled(member.start, best, int(state.best_step), steps, history)


def prepare(
    config: Config, data: Prepared, mesh: Mesh, score: Scorer | None = None
) -> Member:
    """A distillation of a method that takes steps, before its first one.

    Args:
      config: the run's configuration.
      data: the prepared dataset; its test split is never touched.
      mesh: the devices that share the work.
      score: the program that validates, where several runs share one.

    Raises:
      UserError: settings that the data cannot serve.
    """
    plan, sizes = plan_of(config, data, mesh)
    method = METHODS[config.method](config, sizes, data.normalization, mesh, plan)
    stream = _streams(config)
    start = initial.initial(
        stream(_INITIAL), data.train, data.class_names, config.coreset
    )
    if method.draw:
        clips.check_counts(data.train.labels, data.class_names)
    # A method's state is donated: what outlives it must not share its buffers.
    state = LoopState(
        method.init(stream(_METHOD), _copy(start)),
        _copy(start),
        jnp.int32(0),
        *_worst(),
    )
    state = devices.replicate(state, mesh)
    if config.augment.background and data.noise is None:
        raise UserError(
            f"--config.augment.background needs background noise, and {data.name} "
            "brings none"
        )
    key, stats = stream(_BATCH), data.normalization
    chunk = make_chunk(method, key, stats, config, data.noise, mesh)
    validate = make_validate(stream(_VALIDATION), data.validation, config, mesh, score)
    settings = config.loop

    def begin(step: int) -> Callable[[LoopState, int], tuple[LoopState, dict]]:
        if not isinstance(data.train, HostSplit):
            drawn = itertools.repeat(devices.replicate(data.train, mesh))
        else:
            labels, root = np.asarray(data.train.labels), stream(_BATCH)
            uniform = batches.uniform(settings.batch_size)
            draw = functools.partial(
                batches.draw_rows, labels=labels, draw=method.draw or uniform
            )
            span = (step, settings.steps, settings.log_every)
            drawn = batches.stream(data.train, labels, draw, root, *span)

        def advance(state: LoopState, length: int) -> tuple[LoopState, dict]:
            method_state, metrics = chunk(state.method, next(drawn), length)
            return state._replace(method=method_state), metrics

        return advance

    job = Job(
        name=config.method,
        begin=begin,
        review=lambda state, row: _keep_best(
            state, method, validate, row, settings.keep
        ),
        is_done=lambda state, step: _waits_in_vain(state, step, config),
        advice=advice(config.method),
    )
    return Member(start, state, job)


def plan_of(config: Config, data: Prepared, mesh: Mesh) -> tuple[Plan, Sizes]:
    """The memory plan of a step, and the sizes that it follows from."""
    scored = data.validation.labels.size + data.test.labels.size
    counts = (data.num_classes, data.train.labels.size, scored)
    sizes = memory_plan.sizes_of(config, data.image_shape, *counts)
    return memory_plan.choose(config, sizes, devices.grid_of(mesh)), sizes


def _streams(config: Config) -> Callable[[int], Key[Array, ""]]:
    """The key of each stream of randomness, under the run's seed."""
    root = jax.random.key(config.seed)
    return lambda name: jax.random.fold_in(root, name)


def _select(
    config: Config, data: Prepared, run: RunDirectory | None, mesh: Mesh | None
) -> Distilled:
    """A choice of real clips: no step, so a run that was cut begins anew."""
    stream = _streams(config)
    mesh = mesh or make_mesh(config, data.num_classes)
    validate = make_validate(stream(_VALIDATION), data.validation, config, mesh)
    with RunLog(run) as log:
        if run:
            run.start_from(-1)
        chosen = initial.selected(
            stream(_INITIAL), data.train, data.class_names, config
        )
        row = {"step": 0, "best": True}
        if validate:
            _score(validate, chosen, row)
        log.record(row)
        random = dataclasses.replace(config.coreset, init="real")
        start = initial.initial(stream(_INITIAL), data.train, data.class_names, random)
        return Distilled(start, chosen, 0, 0, log.history)


def _worst() -> ridge_scoring.Score:
    """Worse than any coreset's."""
    return ridge_scoring.Score(jnp.float32(-1), jnp.float32(jnp.inf))


def _copy(tree: Any) -> Any:
    return jax.tree.map(jnp.copy, tree)


def _score(
    validate: Callable[[CoresetArrays], ridge_scoring.Score],
    arrays: CoresetArrays,
    row: dict[str, Any],
) -> ridge_scoring.Score:
    """The validation of a coreset, written into ``row`` too."""
    score = validate(arrays)
    row["validation_accuracy"] = float(score.accuracy)
    row["validation_loss"] = float(score.loss)
    return score


def _keep_best(
    state: LoopState,
    method: Method,
    validate: Callable[[CoresetArrays], ridge_scoring.Score] | None,
    row: dict[str, Any],
    keep: str,
) -> LoopState:
    """Validates the coreset into ``row``; keeps it if it is best, or ``last``."""
    candidate = method.coreset(state.method)
    score = ridge_scoring.Score(state.best_accuracy, state.best_loss)
    if validate:
        score = _score(validate, candidate, row)
    rank = lambda accuracy, loss: (float(accuracy), -float(loss))
    worse = rank(*score) < rank(state.best_accuracy, state.best_loss)
    if worse and keep == "best":
        return state
    row["best"] = True
    # An array like the one that it replaces, on as many devices.
    best_step = jnp.full_like(state.best_step, row["step"])
    return LoopState(state.method, _copy(candidate), best_step, *score)


def _waits_in_vain(state: LoopState, step: int, config: Config) -> bool:
    """Whether early stopping is on, and its patience is at an end."""
    patience = config.loop.patience * config.loop.eval_every
    return 0 < patience <= step - int(state.best_step)
