"""The programs that the commands run on devices, with arguments of shapes alone.

They are the jitted functions that the commands call. Their arguments are
``jax.ShapeDtypeStruct``s on a mesh whose devices need not exist, so that
``program.lower().compile()`` asks the compiler and allocates nothing.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from audiodd_jax.active_learning import coverage, monte_carlo, query
from audiodd_jax.config import Config
from audiodd_jax.config.names import MATCHING
from audiodd_jax.coreset.arrays import CoresetArrays
from audiodd_jax.distillation import registry, steps
from audiodd_jax.distillation.memory_plan import Plan, Sizes
from audiodd_jax.distillation.method import Context
from audiodd_jax.features import logmel
from audiodd_jax.features.batches import Streamed
from audiodd_jax.features.clips import Clips
from audiodd_jax.features.normalization import Normalization
from audiodd_jax.kernels.ridge_scoring import Scoring
from audiodd_jax.networks import models
from audiodd_jax.runtime import devices
from audiodd_jax.runtime.devices import BATCH, NETWORKS
from audiodd_jax.training import evaluation, programs, trainer
from audiodd_jax.training.trainer import Drawn, TrainingSet


class Program(NamedTuple):
    """A jitted function and the shapes of what it is called with.

    Attributes:
      function: jitted.
      arguments: abstract arrays on the mesh, and static values.
      steps: steps that one call takes.
      precision: name in ``ops.precision.PRECISIONS`` of most of its products.
      keywords: the same, by name.
    """

    function: jax.stages.Wrapped
    arguments: tuple[Any, ...]
    steps: int
    precision: str
    keywords: dict[str, Any] = {}  # noqa: RUF012 (never changed)

    def lower(self) -> jax.stages.Lowered:
        """The program before it is compiled."""
        return self.function.lower(*self.arguments, **self.keywords)


class Workload(NamedTuple):
    """What the programs' shapes depend on.

    Attributes:
      config: settings of the run.
      sizes: of its data.
      validation: clips held out; they, and those of the test, are ``sizes.scored``.
      learns_from: clips or spectrograms that a network trains on.
      pool: clips that are scored for labelling.
    """

    config: Config
    sizes: Sizes
    validation: int
    learns_from: int = 0
    pool: int = 0


def on_mesh(tree: Any, mesh: Mesh, spec: PartitionSpec | None = None) -> Any:
    """Abstract arrays of the shapes of ``tree``, by default replicated on a mesh."""
    sharding = NamedSharding(mesh, spec or PartitionSpec())
    like = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
    return jax.tree.map(like, tree)


def _array(*shape: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


def _key() -> jax.ShapeDtypeStruct:
    return jax.eval_shape(lambda: jax.random.key(0))


def _stats(sizes: Sizes) -> Normalization:
    return Normalization(np.zeros(sizes.f, np.float32), np.ones(sizes.f, np.float32))


def _clips(sizes: Sizes, count: int) -> Clips:
    labels = _array(count, dtype=jnp.int32)
    return Clips(_array(count, sizes.f, sizes.t, 1), labels)


def _stored(sizes: Sizes, count: int) -> Clips:
    """Clips on the device as they are kept there, in float16."""
    stats = Normalization(_array(sizes.f), _array(sizes.f))
    features = _array(count, sizes.f, sizes.t, dtype=jnp.float16)
    return Clips(features, _array(count, dtype=jnp.int32), stats)


def _coreset(sizes: Sizes, count: int) -> CoresetArrays:
    images = _array(count, sizes.f, sizes.t, 1)
    return CoresetArrays(images, _array(count, sizes.c), _array())


def distillation_step(
    config: Config, sizes: Sizes, mesh: Mesh, plan: Plan, length: int | None = None
) -> Program:
    """The chunk of steps of ``audiodd distill``.

    Args:
      config: of the run.
      sizes: of its data.
      mesh: of ``registry.make_mesh``.
      plan: what a step computes at once.
      length: steps of the chunk; None: those between two records.
    """
    stats = _stats(sizes)
    context = Context(sizes, stats, mesh, plan)
    method = registry.get_method(config.method)(config, context)
    length = length or min(config.loop.log_every, config.loop.steps)
    start = _coreset(sizes, sizes.s // config.coreset.factor)
    state = jax.eval_shape(method.init, _key(), start)
    if sizes.train:
        data = _stored(sizes, sizes.train)
    else:
        shape = (length, sizes.b, sizes.f, sizes.t)
        rows = _array(*shape[:2], dtype=jnp.int32)
        data = Streamed(_array(*shape, dtype=jnp.float16), rows)
    chunk = steps.chunk_program(method, stats, config, None, mesh)
    state, data, key = on_mesh((state, data, _key()), mesh)
    precision = config.network.precision
    if config.method in (*MATCHING, "kip", "frepo"):
        precision = "float32"
    arguments = (state, data, length)
    return Program(chunk, arguments, length, precision, {"key": key})


def coreset_validation(work: Workload, mesh: Mesh) -> Program:
    """The validation of a coreset between steps of ``audiodd distill``."""
    config, sizes = work.config, work.sizes
    scoring = Scoring.from_config(config.network, config.evaluation, config.rfad)
    function = steps.validation_program(scoring, config.coreset.factor, mesh)
    arrays = _coreset(sizes, sizes.s // config.coreset.factor)
    arguments = on_mesh((arrays, _clips(sizes, work.validation), _key()), mesh)
    precision = config.network.precision
    return Program(function, (*arguments, scoring.regularizer), 1, precision)


def coreset_scoring(work: Workload, mesh: Mesh) -> Program:
    """The test of a coreset by kernel regression."""
    config, sizes = work.config, work.sizes
    scoring = Scoring.for_test(config.network, config.evaluation, config.rfad)
    function = evaluation.regression_program(scoring, mesh)
    test = _clips(sizes, _tested(work))
    seed = _array(dtype=jnp.int32)
    arguments = on_mesh((seed, _coreset(sizes, sizes.s), test), mesh)
    return Program(function, arguments, 1, "float32")


def training_step(work: Workload, mesh: Mesh) -> Program:
    """The chunk of steps of ``audiodd train`` on ``learns_from`` clips."""
    config, sizes = work.config, work.sizes
    settings = config.training
    model, states = _states(work)
    targets = _array(work.learns_from, sizes.c)
    data = TrainingSet(_stored(sizes, work.learns_from), targets)
    length = min(settings.log_every, settings.steps)
    batch = min(settings.batch_size, work.learns_from)
    rows = _array(settings.seeds, length, batch, dtype=jnp.int32)
    parallel = settings.parallel or 1
    step = functools.partial(
        trainer.step,
        model=model,
        config=settings,
        stats=_stats(sizes),
        noise=None,
        loss=settings.loss,
    )
    chunk = trainer.make_chunk(step, parallel, mesh)
    states = on_mesh(states, mesh, PartitionSpec(NETWORKS))
    drawn = on_mesh(Drawn(data, rows), mesh)
    return Program(chunk, (states, drawn), length, settings.precision)


def network_validation(work: Workload, mesh: Mesh) -> Program:
    """The validation of networks in training."""
    settings = work.config.training
    model, states = _states(work)
    function = programs.validation_program(model, settings)
    clips = _clips(work.sizes, work.validation)
    arguments = on_mesh((states.final, clips), mesh)
    return Program(function, arguments, 1, settings.precision)


def network_scoring(work: Workload, mesh: Mesh) -> Program:
    """The test of trained networks."""
    model, states = _states(work)
    function = evaluation.prediction_program(model)
    test = _clips(work.sizes, _tested(work))
    arguments = on_mesh((states.final, test.images), mesh)
    return Program(function, arguments, 1, work.config.training.precision)


def _tested(work: Workload) -> int:
    """Clips of the test split."""
    return max(1, work.sizes.scored - work.validation)


def _states(work: Workload) -> tuple[Any, trainer.State]:
    """A network, and the abstract training states of its seeds."""
    config, sizes = work.config, work.sizes
    settings = config.training
    model = models.make(config.model, sizes.c, jnp.dtype(settings.precision))
    draw = programs.initial_program(model, (sizes.f, sizes.t), settings)
    keys = lambda: jax.vmap(jax.random.key)(jnp.arange(settings.seeds))
    return model, jax.eval_shape(draw, jax.eval_shape(keys))


def acquisition(work: Workload, mesh: Mesh) -> Program:
    """One chunk of a pool's scores for ``audiodd active``.

    Args:
      work: with ``pool``.
      mesh: all devices along the batch axis.
    """
    config, settings = work.config, work.config.active
    model, states = _states(work)
    function = query.clip_function(settings, model)
    program = monte_carlo.pool_program(function, settings.chunk, mesh, False)
    network = jax.tree.map(lambda x: _array(*x.shape[1:], dtype=x.dtype), states.final)
    clips = on_mesh(_stored(work.sizes, work.pool), mesh)
    rows = _array(settings.chunk * mesh.size, dtype=jnp.int32)
    rows = on_mesh(rows, mesh, PartitionSpec(BATCH))
    key, network = on_mesh((_key(), network), mesh)
    arguments = (clips, network, rows, rows, key)
    return Program(program, arguments, 1, config.training.precision)


def features(config: Config, mesh: Mesh, clips: int) -> Program:
    """Log-mel spectrograms of ``clips`` waveforms."""
    function = logmel.program(config.features, False)
    samples = logmel.frontend(config.features).samples
    waveforms = on_mesh(_array(clips, samples), mesh)
    return Program(function, (waveforms,), 1, "float32")


def of_command(
    command: str,
    work: Workload,
    chips: list[jax.Device],
    plan: Callable[[Mesh], Plan],
) -> dict[str, Callable[[], Program]]:
    """The programs of a command by name, each made when it is called.

    Args:
      command: ``distill``, ``train``, ``active`` or ``evaluate`` (kernel regression).
      work: what they depend on.
      chips: the devices.
      plan: the memory plan for a mesh.
    """
    config, sizes = work.config, work.sizes
    scoring = lambda: coreset_scoring(
        work, devices.make_mesh(config.evaluation.networks, chips)
    )
    if command == "evaluate":
        return {"scoring": scoring}
    if command == "distill":
        mesh = registry.make_mesh(config, sizes.c, chips)
        found = {"step": lambda: distillation_step(config, sizes, mesh, plan(mesh))}
        if work.validation:
            found["validation"] = lambda: coreset_validation(work, mesh)
        return {**found, "scoring": scoring}
    grid = programs.seed_grid(config.training.seeds, len(chips))
    mesh = devices.make_mesh(devices=chips, grid=grid)
    found = {"step": lambda: training_step(work, mesh)}
    if work.validation:
        found["validation"] = lambda: network_validation(work, mesh)
    found["scoring"] = lambda: network_scoring(work, mesh)
    # Functions of the pool's embedding score nothing by a network.
    if command == "active" and config.active.acquisition not in coverage.COVERS:
        everywhere = devices.make_mesh(devices=chips)
        found["acquisition"] = lambda: acquisition(work, everywhere)
    return found
