"""The run of every distillation method: chunks of steps, validation, checkpoints.

``log_every`` steps run as one compiled scan with a donated state and no host transfer.
Randomness is ``fold_in(root, step)``: a resumed run ends with the bits of an
uninterrupted one.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key

from audiodd_jax.config import Config
from audiodd_jax.config.names import SELECTION
from audiodd_jax.coreset import initial
from audiodd_jax.coreset import selection as clips
from audiodd_jax.coreset.arrays import CoresetArrays
from audiodd_jax.distillation import label_solve, memory_plan
from audiodd_jax.distillation.memory_plan import Plan, Sizes
from audiodd_jax.distillation.method import Context, Method
from audiodd_jax.distillation.registry import (
    advice,
    check_labels,
    get_method,
    make_mesh,
)
from audiodd_jax.distillation.steps import make_chunk, make_validate
from audiodd_jax.errors import UserError
from audiodd_jax.features import batches
from audiodd_jax.features.dataset import Dataset
from audiodd_jax.kernels.ridge_scoring import Score, Scoring
from audiodd_jax.runtime import devices, multiprocess, progress
from audiodd_jax.runtime.run_directory import RunDirectory
from audiodd_jax.runtime.run_log import RunLog
from audiodd_jax.runtime.train_loop import Schedule, Task, train_loop

# Streams of randomness, folded into the key of the run's seed.
_INITIAL, _METHOD, _BATCH, _VALIDATION, _LABELS = range(5)


class LoopState(NamedTuple):
    """Everything that a resumed run needs.

    Attributes:
      method: state of the method.
      best: the coreset that validation has chosen so far.
      best_step: ``[]`` step at which it was reached.
      best_accuracy: ``[]`` highest accuracy so far on the validation clips.
      best_loss: ``[]`` lowest loss so far at that accuracy.
    """

    method: Any
    best: CoresetArrays
    best_step: Int[Array, ""]
    best_accuracy: Float[Array, ""]
    best_loss: Float[Array, ""]


class Distilled(NamedTuple):
    """The outcome of a run.

    Attributes:
      start: the initial coreset; for a selection, random clips.
      best: the choice by validation; without validation clips, the last.
      best_step: step at which it was reached.
      steps: steps taken, fewer than scheduled after early stopping.
      history: one row per chunk.
    """

    start: CoresetArrays
    best: CoresetArrays
    best_step: int
    steps: int
    history: list[dict[str, Any]]


def distill(
    config: Config,
    data: Dataset,
    run: RunDirectory | None = None,
    mesh: Mesh | None = None,
    start: CoresetArrays | None = None,
) -> Distilled:
    """Distils ``data`` to a coreset by ``config.method``.

    Args:
      config: of the run.
      data: the prepared dataset; its test split is not read.
      run: the run directory; None: memory only.
      mesh: devices of the run; None: all, of all processes.
      start: the initial coreset, as stored; None: by ``config.coreset.init``.

    Raises:
      UserError: settings that the data does not allow, or a loss that is not finite.
      Interrupted: on SIGTERM or SIGINT; the state is saved.
    """
    if config.rfad.kernel_precision == "float64" and not jax.config.jax_enable_x64:
        raise UserError(
            "--config.rfad.kernel_precision=float64 needs jax.config.jax_enable_x64, "
            "which the command line sets by itself"
        )
    if config.method in SELECTION:
        return _select(config, data, run, mesh)
    mesh = mesh or make_mesh(config, data.num_classes)
    stream = _streams(config)
    if start is None:
        with progress.waiting(f"choosing the start ({config.coreset.init})"):
            start = initial.start(
                stream(_INITIAL),
                data.train,
                data.class_names,
                config.coreset,
                clips.Embedding(config.network, config.evaluation.networks),
            )
    first = start
    if config.coreset.solve_labels:
        with progress.waiting("solving the labels of the start"):
            first = label_solve.solve(
                stream(_LABELS),
                start,
                data,
                config.coreset,
                Scoring.from_config(config.network, config.evaluation, config.rfad),
                mesh,
                by_recording=config.loop.draw == "recordings",
            )
    task, state = _prepare(config, data, mesh, first)
    schedule = Schedule(*(getattr(config.loop, name) for name in Schedule._fields))
    state, steps, history = train_loop(task, state, schedule, run)
    # On this process's own device: from here on each process works alone.
    best = jax.tree.map(jnp.asarray, jax.device_get(state.best))
    return Distilled(start, best, int(state.best_step), steps, history)


def _prepare(
    config: Config, data: Dataset, mesh: Mesh, start: CoresetArrays
) -> tuple[Task, LoopState]:
    """The task of a method that takes steps, and its state before the first one."""
    if config.augment.background and data.noise is None:
        raise UserError(
            "--config.augment.background needs background noise, which "
            f"{data.name} does not have"
        )
    check_labels(config.method, data.has_tags)
    stream = _streams(config)
    plan, sizes = plan_of(config, data, mesh)
    context = Context(sizes, data.normalization, mesh, plan)
    method = get_method(config.method)(config, context)
    if method.draw:
        clips.check_counts(data.train.labels, data.class_names)
    else:
        size = config.loop.batch_size
        by_recording = batches.by_recording(data.num_classes, size)
        own = {"clips": batches.uniform(size), "recordings": by_recording}
        method = method._replace(draw=own[config.loop.draw])
    # A method's state is donated: nothing else may share its buffers.
    state = LoopState(
        method.init(stream(_METHOD), _copy(start)),
        _copy(start),
        jnp.int32(0),
        *_worst(),
    )
    key, stats = stream(_BATCH), data.normalization
    chunk = make_chunk(method, key, stats, config, data.noise, mesh)
    scoring = Scoring.from_config(config.network, config.evaluation, config.rfad)
    validate = make_validate(
        stream(_VALIDATION), data.validation, scoring, config.coreset.factor, mesh
    )

    def start_at(step: int) -> Callable[[LoopState, int], tuple[LoopState, dict]]:
        drawn = _batches(config, data, method, mesh, step)

        def advance(state: LoopState, length: int) -> tuple[LoopState, dict]:
            method_state, metrics = chunk(state.method, next(drawn), length)
            return state._replace(method=method_state), metrics

        return advance

    task = Task(
        name=config.method,
        start=start_at,
        validate=lambda state, row: _keep_best(
            state, method, validate, row, config.loop.keep
        ),
        is_done=lambda state, step: _is_patience_over(state, step, config),
        advice=advice(config.method),
        metric=data.metric,
    )
    return task, devices.replicate(state, mesh)


def _batches(
    config: Config, data: Dataset, method: Method, mesh: Mesh, step: int
) -> Iterator[Any]:
    """The data of each chunk from ``step`` on: the whole split, or streamed batches."""
    if not data.train.is_on_host:
        return itertools.repeat(devices.replicate(data.train, mesh))
    settings, labels = config.loop, np.asarray(data.train.labels)
    draw = functools.partial(batches.draw_rows, data=data.train, draw=method.draw)
    span = (step, settings.steps, settings.log_every)
    return batches.stream(data.train, labels, draw, _streams(config)(_BATCH), *span)


def plan_of(config: Config, data: Dataset, mesh: Mesh) -> tuple[Plan, Sizes]:
    """The memory plan of a step, and the sizes that determine it."""
    scored = len(data.validation.labels) + len(data.test.labels)
    counts = (data.num_classes, len(data.train.labels), scored)
    sizes = memory_plan.sizes_of(config, data.image_shape, *counts)
    choose = lambda: list(memory_plan.choose(config, sizes, devices.grid_of(mesh)))
    # Hosts may have different memory, and must run the same program.
    return Plan(*multiprocess.from_process_zero(choose)), sizes


def _streams(config: Config) -> Callable[[int], Key[Array, ""]]:
    """Keys of the streams of randomness, by number."""
    root = jax.random.key(config.seed)
    return lambda name: jax.random.fold_in(root, name)


def _select(
    config: Config, data: Dataset, run: RunDirectory | None, mesh: Mesh | None
) -> Distilled:
    """A selection of real clips; an interrupted one starts again."""
    stream = _streams(config)
    mesh = mesh or make_mesh(config, data.num_classes)
    scoring = Scoring.from_config(config.network, config.evaluation, config.rfad)
    validate = make_validate(
        stream(_VALIDATION), data.validation, scoring, config.coreset.factor, mesh
    )
    with RunLog(run) as log, progress.waiting(f"choosing clips ({config.method})"):
        if run:
            run.start_from(-1)
        train = (stream(_INITIAL), data.train, data.class_names, config.coreset)
        embedding = clips.Embedding(config.network, config.evaluation.networks)
        chosen = initial.selected(config.method, *train, embedding)
        row = {"step": 0, "best": True}
        if validate:
            _score(validate, chosen, row)
        log.record(row)
        start = initial.random_clips(*train)
        return Distilled(start, chosen, 0, 0, log.history)


def _worst() -> tuple[Float[Array, ""], Float[Array, ""]]:
    """An accuracy and a loss that are worse than any coreset's."""
    return jnp.float32(-1), jnp.float32(jnp.inf)


def _copy(tree: Any) -> Any:
    return jax.tree.map(jnp.copy, tree)


def _score(
    validate: Callable[[CoresetArrays], Score],
    arrays: CoresetArrays,
    row: dict[str, Any],
) -> Score:
    """Validates a coreset, also into ``row``."""
    score = validate(arrays)
    row["validation_accuracy"] = float(score.accuracy)
    row["validation_error"] = float(score.error)
    row["validation_loss"] = float(score.loss)
    return score


def _keep_best(
    state: LoopState,
    method: Method,
    validate: Callable[[CoresetArrays], Score] | None,
    row: dict[str, Any],
    keep: str,
) -> LoopState:
    """Validates the coreset into ``row``, and keeps it unless it is clearly worse.

    That is the one-standard-error rule: of the coresets whose validation accuracy is
    within its standard error of the highest, the last is kept. A few held-out
    recordings cannot tell these apart, and further steps have seen more clips.

    References:
      Breiman, Friedman, Olshen, Stone, *Classification and Regression Trees*, 1984,
      section 3.4.3.
    """
    candidate = method.coreset(state.method)
    record = (state.best_accuracy, state.best_loss)
    if validate:
        score = _score(validate, candidate, row)
        is_kept = score.accuracy + score.error >= state.best_accuracy
        is_kept &= jnp.isfinite(score.loss) | ~jnp.isfinite(state.best_loss)
        if keep == "best" and not is_kept:
            return state
        found = (score.accuracy, score.loss)
        record = max(record, found, key=lambda pair: _rank(*map(float, pair)))
    row["best"] = True
    # With the sharding of the array that it replaces.
    best_step = jnp.full_like(state.best_step, row["step"])
    return LoopState(state.method, _copy(candidate), best_step, *record)


def _rank(accuracy: float, loss: float) -> tuple[float, float]:
    """Order of scores: by accuracy, then loss; NaN is the worst loss."""
    return accuracy, -math.inf if math.isnan(loss) else -loss


def _is_patience_over(state: LoopState, step: int, config: Config) -> bool:
    """Whether early stopping is enabled and its patience has run out."""
    patience = config.loop.patience * config.loop.eval_every
    return 0 < patience <= step - int(state.best_step)
