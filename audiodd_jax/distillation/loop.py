"""The run of every distillation method: chunks of steps, validation, checkpoints.

``log_every`` steps run as one compiled scan with a donated state and no host transfer.
Randomness is ``fold_in(root, step)``, so that a resumed run ends with the bits of an
uninterrupted one.
"""

import functools
import itertools
import logging
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key

from audiodd_jax.config import Config
from audiodd_jax.config.names import SELECTION
from audiodd_jax.coreset import selection
from audiodd_jax.coreset import sizes as coreset_sizes
from audiodd_jax.coreset.arrays import CoresetArrays
from audiodd_jax.distillation import cost, label_solve, registry, steps
from audiodd_jax.distillation.method import Context, Method
from audiodd_jax.errors import UserError
from audiodd_jax.features import batches
from audiodd_jax.features.dataset import Dataset, Encoded
from audiodd_jax.kernels.random_kernels import Plan
from audiodd_jax.kernels.ridge import Score, Scoring
from audiodd_jax.networks.models import Ensemble
from audiodd_jax.runtime import devices, multiprocess, progress
from audiodd_jax.runtime.run_directory import RunDirectory
from audiodd_jax.runtime.train_loop import Outcome, RunLog, Task, train_loop

_log = logging.getLogger(__name__)

# Scores a coreset on the validation clips.
Validate = Callable[[CoresetArrays], Score]
Metrics = dict[str, Array]


class Keys(NamedTuple):
    """Independent keys of a run, folded from its seed in this order."""

    initial: Key[Array, ""]
    method: Key[Array, ""]
    batch: Key[Array, ""]
    validation: Key[Array, ""]
    labels: Key[Array, ""]


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
      best: the coreset chosen by validation; without validation clips, the last.
      best_step: step at which it was reached.
      steps: number of steps taken; fewer than scheduled after early stopping.
      history: one row per chunk.
      classes: class or tag that each stored image is of.
    """

    start: CoresetArrays
    best: CoresetArrays
    best_step: int
    steps: int
    history: list[dict[str, Any]]
    classes: Int[np.ndarray, " s"]


def distill(
    config: Config,
    data: Dataset,
    run: RunDirectory | None = None,
    mesh: Mesh | None = None,
    start: CoresetArrays | None = None,
    teacher: Ensemble | None = None,
    encoded: Encoded | None = None,
) -> Distilled:
    """Distils ``data`` to a coreset by ``config.method``.

    Args:
      config: settings of the run.
      data: the dataset; its test split is not read.
      run: the run directory; None: memory only.
      mesh: devices of the run; None: all, of all processes.
      start: the initial coreset, as stored, with the sizes that ``coreset.sizes``
        gives; None: by ``config.coreset.init``. If an earlier coreset stands in for
        clips, it is the outcome, too.
      teacher: labels the views of each step, if ``config.is_aligned``.
      encoded: the encoder that the coreset is made for; None: random networks.

    Raises:
      UserError: settings that the data does not allow, or a loss that is not finite.
      Interrupted: on SIGTERM or SIGINT; the state is saved.
    """
    if config.rfad.is_float64 and not jax.config.jax_enable_x64:
        raise UserError(
            "--config.rfad.kernel_precision=float64 needs jax_enable_x64, which the "
            "command line and audiodd_jax.distill set by themselves"
        )
    root, coreset = jax.random.key(config.seed), config.coreset
    keys = Keys(*(jax.random.fold_in(root, i) for i in range(len(Keys._fields))))
    networks = config.rfad.networks
    mesh = mesh or registry.make_mesh(config.method, data.num_classes, networks)
    embedding = selection.Embedding(config.network, config.evaluation.networks)
    scoring, learnt = Scoring.from_config(config), data
    if encoded:
        learnt = encoded.data
        embedding = embedding._replace(encoded=learnt.train)
        scoring = scoring._replace(embed=encoded.embed)
    validate = None
    if len(learnt.validation.labels):
        # Always with the same networks.
        program = steps.validation_program(scoring, coreset.factor, mesh)
        held_out, key = devices.replicate((learnt.validation, keys.validation), mesh)
        validate = lambda arrays: program(arrays, held_out, key, scoring.regularizer)
    asked = coreset, config.method, data.class_clips, data.class_names
    sizes = coreset_sizes.of_classes(*asked)
    if shortage := coreset_sizes.shortage(*asked):
        _log.warning("%s", shortage)
    classes = coreset_sizes.class_order(sizes)
    train = (keys.initial, data.train, data.class_names, sizes)
    if config.method in SELECTION:
        choose = lambda name: selection.selected(
            name, *train, coreset.factor, embedding
        )
        return _select(config.method, choose, classes, validate, run)
    if data.num_replayed:
        # Learning from recordings of a new class alone makes all recordings like it.
        return _select(config.method, lambda _: start, classes, None, run)
    if start is None:
        with progress.waiting(f"choosing the start ({coreset.init})"):
            start = selection.start(*train, coreset, embedding)
    first = start
    if coreset.solve_labels:
        by_recording = config.loop.draw == "recordings"
        given = (start, learnt, coreset, scoring, mesh)
        first = label_solve.solve(keys.labels, *given, by_recording=by_recording)
    if config.augment.background and data.noise is None:
        raise UserError(
            "--config.augment.background needs background noise, which "
            f"{data.name} does not have"
        )
    registry.check_labels(config.method, data.has_tags)
    context = Context(
        cost.sizes_of(
            config,
            data.image_shape,
            sizes,
            len(data.train.labels),
            len(data.validation.labels) + len(data.test.labels),
        ),
        data.normalization,
        mesh,
        teacher=teacher,
        embed=encoded and encoded.embed,
    )
    outcome = _learn(config, learnt, context, keys, first, validate, run)
    # On this process's own device: from here on each process works alone.
    best = jax.tree.map(jnp.asarray, jax.device_get(outcome.state.best))
    best_step = int(outcome.state.best_step)
    return Distilled(start, best, best_step, outcome.step, outcome.history, classes)


def _learn(
    config: Config,
    data: Dataset,
    context: Context,
    keys: Keys,
    first: CoresetArrays,
    validate: Validate | None,
    run: RunDirectory | None,
) -> Outcome:
    """Takes the steps of a method, whose batches are drawn from ``data``.

    Raises:
      UserError: the method draws clips of every class, and a class has too few.
    """
    train, classes, loop, mesh = data.train, data.num_classes, config.loop, context.mesh
    if context.embed is None:
        problem, grid = cost.problem_of(config, context.sizes), devices.grid_of(mesh)
        # Hosts may have different memory, and must run the same program.
        plan = multiprocess.from_process_zero(
            lambda: list(cost.plan_for_device(problem, grid))
        )
        context = context._replace(plan=Plan(*plan))
    stats = data.normalization
    method = registry.get_method(config.method)(config, context)
    if method.draw:
        selection.check_counts(train.labels, data.class_names)
        draw = method.draw
    elif loop.draw == "recordings":
        draw = batches.by_recording(classes, loop.batch_size)
    else:
        rows = batches.oversampled(train.labels) if data.is_balanced else None
        draw = batches.uniform(loop.batch_size, rows)
    chunk = steps.make_chunk(method, draw, config.augment, stats, data.noise, mesh)
    rates = jax.tree.map(jnp.asarray, method.rates)
    key, rates = devices.replicate((keys.batch, rates), mesh)

    def start_at(step: int) -> Callable[[LoopState, int], tuple[LoopState, Metrics]]:
        """Returns what advances the state by a chunk, from ``step`` on."""
        if train.is_on_host:
            draw_rows = lambda root, step: draw(batches.step_keys(root, step)[0], train)
            labels, span = np.asarray(train.labels), (step, loop.steps, loop.log_every)
            drawn = batches.stream(train, labels, draw_rows, keys.batch, *span)
        else:
            drawn = itertools.repeat(devices.replicate(train, mesh))

        def advance(state: LoopState, length: int) -> tuple[LoopState, Metrics]:
            method_state, metrics = chunk(state.method, next(drawn), length, key, rates)
            return state._replace(method=method_state), metrics

        return advance

    patience = loop.patience * loop.eval_every
    task = Task(
        name=config.method,
        start=start_at,
        validate=functools.partial(_validate, method, validate, loop.keep),
        is_done=lambda state, step: 0 < patience <= step - int(state.best_step),
        advice=registry.advice(config.method),
        metric=data.metric,
    )
    state = devices.replicate(_first_state(method, keys.method, first), mesh)
    return train_loop(task, state, loop, run)


def _first_state(
    method: Method, key: Key[Array, ""], start: CoresetArrays
) -> LoopState:
    """Returns the state before the first step, worse than any coreset's score."""
    # A method's state is donated: nothing else may share its buffers.
    return LoopState(
        method.init(key, _copy(start)),
        best=_copy(start),
        best_step=jnp.int32(0),
        best_accuracy=jnp.float32(-1),
        best_loss=jnp.float32(jnp.inf),
    )


def _copy(tree: Any) -> Any:
    return jax.tree.map(jnp.copy, tree)


def _select(
    method: str,
    choose: Callable[[str], CoresetArrays],
    classes: Int[np.ndarray, " s"],
    validate: Validate | None,
    run: RunDirectory | None,
) -> Distilled:
    """Selects real clips of these classes; an interrupted selection starts again."""
    log = RunLog(run)
    with progress.waiting(f"choosing clips ({method})"):
        if run:
            run.start_from(-1)
        chosen = choose(method)
        row = {"step": 0, "best": True}
        if validate:
            _score(validate, chosen, row)
        log.record(row)
        start = choose("random")
        return Distilled(start, chosen, 0, 0, log.history, classes)


def _score(validate: Validate, arrays: CoresetArrays, row: dict[str, Any]) -> Score:
    """Validates a coreset, and writes its score to ``row``."""
    score = validate(arrays)
    row["validation_accuracy"] = float(score.accuracy)
    row["validation_error"] = float(score.error)
    row["validation_loss"] = float(score.loss)
    return score


def _validate(
    method: Method,
    validate: Validate | None,
    keep: str,
    state: LoopState,
    row: dict[str, Any],
) -> LoopState:
    """Validates the coreset into ``row``, and keeps it unless it is clearly worse.

    This is the one-standard-error rule: of the coresets whose validation accuracy is
    within one standard error of the highest, the last is kept. A few held-out
    recordings cannot distinguish these, and later coresets have seen more clips.

    References:
      Breiman, Friedman, Olshen, Stone, *Classification and Regression Trees*, 1984,
      section 3.4.3.
    """
    candidate = method.coreset(state.method)
    if validate:
        score = _score(validate, candidate, row)
        is_kept = score.accuracy + score.error >= state.best_accuracy
        is_kept &= jnp.isfinite(score.loss) | ~jnp.isfinite(state.best_loss)
        if keep == "best" and not is_kept:
            return state
        before = _rank(state.best_accuracy, state.best_loss)
        if _rank(score.accuracy, score.loss) > before:
            state = state._replace(best_accuracy=score.accuracy, best_loss=score.loss)
    row["best"] = True
    # With the sharding of the array that it replaces.
    best_step = jnp.full_like(state.best_step, row["step"])
    return state._replace(best=_copy(candidate), best_step=best_step)


def _rank(accuracy: Float[Array, ""], loss: Float[Array, ""]) -> tuple[float, float]:
    """Orders scores by accuracy, then by loss; NaN is the worst loss."""
    return float(accuracy), -math.inf if math.isnan(loss) else -float(loss)
