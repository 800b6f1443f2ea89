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
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key, Num

from audiodd_jax import settings as settings_lib
from audiodd_jax.config import AugmentConfig, Config
from audiodd_jax.distillation import (
    cost,
    distribution_matching,
    gradient_matching,
    kip,
    rfad,
)
from audiodd_jax.distillation import start as start_lib
from audiodd_jax.distillation.coreset import CoresetArrays, Method
from audiodd_jax.distillation.cost import Plan, Sizes
from audiodd_jax.features import batches
from audiodd_jax.features.augment import augment
from audiodd_jax.features.batches import Streamed
from audiodd_jax.features.normalize import Normalization
from audiodd_jax.features.prepared import DeviceSplit, HostSplit, Prepared, Split
from audiodd_jax.kernels import regression
from audiodd_jax.runtime import devices
from audiodd_jax.runtime.devices import Grid
from audiodd_jax.runtime.errors import UserError
from audiodd_jax.runtime.journal import Job, Journal, Schedule, drive
from audiodd_jax.runtime.runs import RunDirectory

# The methods that take steps; ``start.selected`` has the choices of real clips.
METHODS: dict[str, Callable[[Config, Sizes, Normalization, Grid, Plan], Method]] = {
    "rfad": lambda config, sizes, stats, grid, plan: rfad.make(config, grid, plan),
    "kip": lambda config, sizes, stats, grid, plan: kip.make(
        config, (sizes.f, sizes.t), grid
    ),
    "dm": lambda config, sizes, stats, grid, plan: distribution_matching.make(
        config, sizes.c, stats, grid
    ),
    **dict.fromkeys(
        ("dc", "dsa"),
        lambda config, sizes, stats, grid, plan: gradient_matching.make(
            config, sizes.c, stats, grid
        ),
    ),
}

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
      start: the coreset that it started from.
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


def make_chunk(
    method: Method,
    key: Key[Array, ""],
    stats: Normalization,
    config: Config,
    noise: Num[Array, "pieces f t"] | None = None,
    mesh: Mesh | None = None,
) -> Callable[[Any, Split | DeviceSplit | Streamed, int], tuple[Any, dict[str, Array]]]:
    """``chunk(state, data, length)``: ``length`` steps, jitted, the state donated.

    ``data`` is the whole training split, from which every step draws its batch, or the
    streamed batches of just these steps. Returns the state and the metrics' means over
    the chunk.
    """
    draw = method.draw or batches.uniform(config.loop.batch_size)
    mesh = mesh or devices.make_mesh(devices=jax.local_devices()[:1])

    def steps(
        state: Any, data: Split | DeviceSplit | Streamed, key: Array, length: int
    ) -> tuple[Any, dict[str, Array]]:
        # Every device draws and changes the whole batch, whatever its share of it: so
        # the batches do not depend on how many devices there are.
        def body(state: Any, drawn: Streamed | None) -> tuple[Any, dict[str, Array]]:
            index_key, augment_key = batches.step_keys(key, state.step)
            if drawn is None:
                batch = batches.gather(index_key, data, draw)
            else:
                batch = batches.standardized(drawn, stats)
            images = augment(augment_key, batch.images, config.augment, stats, noise)
            return method.step(state, batch._replace(images=images))

        drawn = data if isinstance(data, Streamed) else None
        state, metrics = lax.scan(body, state, drawn, length=length)
        return state, jax.tree.map(jnp.mean, metrics)

    @functools.partial(jax.jit, static_argnums=2, donate_argnums=0)
    def chunk(
        state: Any, data: Split | DeviceSplit | Streamed, length: int, key: Array
    ) -> tuple[Any, dict[str, Array]]:
        own = functools.partial(steps, length=length)
        return devices.over(mesh, own)(state, data, key)

    # The key is an argument, so that runs of other seeds find the program compiled.
    return functools.partial(chunk, key=devices.replicate(key, mesh))


def make_validate(
    key: Key[Array, ""], data: Split, config: Config, mesh: Mesh
) -> Callable[[CoresetArrays], regression.Score] | None:
    """Scores a coreset on held-out clips with networks that stay the same.

    None where nothing is held out.
    """
    if not data.labels.size:
        return None
    settings = config.evaluation

    def score(arrays: CoresetArrays, data: Split, key: Array) -> regression.Score:
        arrays = arrays.unfolded(config.coreset.factor)
        predictions = regression.predict(
            key,
            data.images,
            arrays.images,
            arrays.labels,
            num_networks=settings.networks,
            config=config.network,
            regularizer=config.rfad.regularizer,
            chunk=settings.batch_size,
            grid=devices.grid_of(mesh),
        )
        return regression.score(predictions, data.labels)

    data, key = devices.replicate((data, key), mesh)
    validate = jax.jit(devices.over(mesh, score))
    return lambda arrays: validate(arrays, data, key)


def compiled_bytes(config: Config, sizes: Sizes, mesh: Mesh, plan: Plan) -> int:
    """Memory that a step takes for itself on each device, by the compiler's account.

    It compiles the step, which takes seconds, and allocates nothing.

    Args:
      config: of the run.
      sizes: of its data.
      mesh: the devices that share the work.
      plan: what a step computes at once, and keeps.
    """
    array = jax.ShapeDtypeStruct
    image = (sizes.f, sizes.t, 1)
    stats = Normalization(np.zeros(sizes.f, np.float32), np.ones(sizes.f, np.float32))
    grid = devices.grid_of(mesh)
    method = METHODS[config.method](config, sizes, stats, grid, plan)
    stored = sizes.s // config.coreset.factor
    start = CoresetArrays(
        array((stored, *image), jnp.float32),
        array((stored, sizes.c), jnp.float32),
        array((), jnp.float32),
    )
    key = jax.random.key(config.seed)
    state = jax.eval_shape(method.init, key, start)
    data = Split(array((sizes.b, *image), jnp.float32), array((sizes.b,), jnp.int32))
    plain = dataclasses.replace(config, augment=AugmentConfig())
    chunk = make_chunk(method, key, stats, plain, mesh=mesh)
    lowered = chunk.func.lower(state, data, 2, **chunk.keywords)
    analysis = lowered.compile().memory_analysis()
    return analysis.temp_size_in_bytes


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
    if config.method in settings_lib.SELECTION:
        return _select(config, data, run, mesh)
    mesh = mesh or make_mesh(config, data.num_classes)
    grid = devices.grid_of(mesh)
    scored = data.validation.labels.size + data.test.labels.size
    counts = (data.num_classes, data.train.labels.size, scored)
    sizes = cost.sizes_of(config, data.image_shape, *counts)
    plan = cost.choose(config, sizes, grid)
    method = METHODS[config.method](config, sizes, data.normalization, grid, plan)
    stream = _streams(config)
    start = start_lib.initial(
        stream(_INITIAL), data.train, data.class_names, config.coreset
    )
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
    validate = make_validate(stream(_VALIDATION), data.validation, config, mesh)
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
        advice=_advice(config.method),
    )
    schedule = Schedule(*(getattr(settings, name) for name in Schedule._fields))
    state, steps, history = drive(job, state, schedule, run)
    # On this process's own device: what follows is no longer done by all together.
    best = jax.tree.map(jnp.asarray, jax.device_get(state.best))
    return Distilled(start, best, int(state.best_step), steps, history)


def make_mesh(config: Config, num_classes: int) -> Mesh:
    """All devices, divided by what a method's work consists of.

    Args:
      config: of the run: random networks share devices, or classes that are matched.
      num_classes: ``c``.
    """
    if config.method in settings_lib.MATCHING:
        return devices.make_mesh(num_classes)
    return devices.make_mesh(config.rfad.networks if config.method == "rfad" else 1)


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
    with Journal(run) as journal:
        if run:
            run.start_from(-1)
        chosen = start_lib.selected(
            stream(_INITIAL), data.train, data.class_names, config
        )
        row = {"step": 0, "best": True}
        if validate:
            _score(validate, chosen, row)
        journal.record(row)
        return Distilled(chosen, chosen, 0, 0, journal.history)


def _advice(method: str) -> str:
    """What to change where a loss is not a number."""
    if method in settings_lib.MATCHING:
        return "lower --config.matching.learning_rate"
    return "lower --config.optimizer.learning_rate or raise --config.rfad.regularizer"


def _worst() -> regression.Score:
    """Worse than any coreset's."""
    return regression.Score(jnp.float32(-1), jnp.float32(jnp.inf))


def _copy(tree: Any) -> Any:
    return jax.tree.map(jnp.copy, tree)


def _score(
    validate: Callable[[CoresetArrays], regression.Score],
    arrays: CoresetArrays,
    row: dict[str, Any],
) -> regression.Score:
    """The validation of a coreset, written into ``row`` too."""
    score = validate(arrays)
    row["validation_accuracy"] = float(score.accuracy)
    row["validation_loss"] = float(score.loss)
    return score


def _keep_best(
    state: LoopState,
    method: Method,
    validate: Callable[[CoresetArrays], regression.Score] | None,
    row: dict[str, Any],
    keep: str,
) -> LoopState:
    """Validates the coreset into ``row``; keeps it if it is best, or ``last``."""
    candidate = method.coreset(state.method)
    score = regression.Score(state.best_accuracy, state.best_loss)
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
