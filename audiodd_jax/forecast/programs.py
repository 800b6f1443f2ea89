"""The programs that the commands run on devices, with abstract arguments.

They are the jitted functions that the commands call. Their arguments are
``jax.ShapeDtypeStruct``s on a mesh of devices that you need not have, so
``program.lower().compile()`` runs the compiler and allocates nothing.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from audiodd_jax.active_learning import coverage, monte_carlo, query
from audiodd_jax.config import AugmentConfig, FeaturesConfig
from audiodd_jax.config.names import MATCHING
from audiodd_jax.coreset.arrays import CoresetArrays
from audiodd_jax.distillation import registry, steps
from audiodd_jax.distillation.cost import Sizes
from audiodd_jax.distillation.method import Context
from audiodd_jax.features import batches, logmel
from audiodd_jax.features.batches import Streamed
from audiodd_jax.features.clips import Clips
from audiodd_jax.features.normalization import Normalization
from audiodd_jax.forecast.workload import Workload
from audiodd_jax.kernels.random_kernels import Plan
from audiodd_jax.kernels.ridge_scoring import Scoring
from audiodd_jax.networks import models
from audiodd_jax.runtime import devices
from audiodd_jax.runtime.devices import BATCH, NETWORKS
from audiodd_jax.training import evaluation, programs, trainer
from audiodd_jax.training.trainer import Drawn, TrainingSet


class Program(NamedTuple):
    """A jitted function and the shapes of its arguments.

    Attributes:
      function: the jitted function.
      arguments: abstract arrays on the mesh, and static values.
      steps: number of steps that one call takes.
      precision: name in ``random_conv.PRECISIONS`` of most of its products.
    """

    function: jax.stages.Wrapped
    arguments: tuple[Any, ...]
    steps: int
    precision: str

    def lower(self) -> jax.stages.Lowered:
        """Returns the program before it is compiled."""
        return self.function.lower(*self.arguments)


def on_mesh(tree: Any, mesh: Mesh, spec: PartitionSpec | None = None) -> Any:
    """Returns abstract arrays like those of ``tree``, by default replicated."""
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
    """Returns clips as the device stores them, in float16."""
    stats = Normalization(_array(sizes.f), _array(sizes.f))
    features = _array(count, sizes.f, sizes.t, dtype=jnp.float16)
    return Clips(features, _array(count, dtype=jnp.int32), stats)


def _coreset(sizes: Sizes, factor: int = 1) -> CoresetArrays:
    """Returns the coreset, with ``factor`` spectrograms per stored image."""
    count = sizes.s // factor
    images = _array(count, sizes.f, sizes.t, 1)
    return CoresetArrays(images, _array(count, sizes.c), _array())


def _chunk(
    work: Workload, mesh: Mesh, plan: Plan, augment: AugmentConfig
) -> tuple[jax.stages.Wrapped, Any]:
    """Returns the chunk of steps of a method, and its abstract state."""
    config, stats = work.config, _stats(work.sizes)
    context = Context(work.sizes, stats, mesh, plan)
    method = registry.get_method(config.method)(config, context)
    start = _coreset(work.sizes, config.coreset.factor)
    draw = method.draw or batches.uniform(config.loop.batch_size)
    function = steps.make_chunk(method, draw, augment, stats, mesh=mesh)
    return function, jax.eval_shape(method.init, _key(), start)


def distillation_step(work: Workload, mesh: Mesh, plan: Plan) -> Program:
    """The chunk of steps of ``audiodd distill``."""
    config, sizes = work.config, work.sizes
    chunk, state = _chunk(work, mesh, plan, config.augment)
    length = min(config.loop.log_every, config.loop.steps)
    if sizes.train:
        data = _stored(sizes, sizes.train)
    else:
        batch = (length, sizes.b)
        features = _array(*batch, sizes.f, sizes.t, dtype=jnp.float16)
        data = Streamed(features, _array(*batch, dtype=jnp.int32))
    state, data, key = on_mesh((state, data, _key()), mesh)
    is_rounded = config.method not in (*MATCHING, "kip", "frepo")
    precision = config.network.precision if is_rounded else "float32"
    return Program(chunk, (state, data, length, key), length, precision)


def compiled_bytes(work: Workload, mesh: Mesh, plan: Plan) -> int:
    """Returns the memory of a step on each device, by the compiler's analysis.

    It is that of a step without augmentation, on a split of one batch. Compiling takes
    seconds; nothing is allocated.
    """
    chunk, state = _chunk(work, mesh, plan, AugmentConfig())
    key = devices.replicate(jax.random.key(0), mesh)
    data = _clips(work.sizes, work.sizes.b)
    lowered = chunk.lower(state, data, 2, key)
    return lowered.compile().memory_analysis().temp_size_in_bytes


def coreset_validation(work: Workload, mesh: Mesh) -> Program:
    """The validation of a coreset between steps of ``audiodd distill``."""
    config, factor = work.config, work.config.coreset.factor
    scoring = Scoring.from_config(config.network, config.evaluation, config.rfad)
    function = steps.validation_program(scoring, factor, mesh)
    clips = _clips(work.sizes, work.validation)
    arguments = on_mesh((_coreset(work.sizes, factor), clips, _key()), mesh)
    precision = config.network.precision
    return Program(function, (*arguments, scoring.regularizer), 1, precision)


def coreset_scoring(work: Workload, mesh: Mesh) -> Program:
    """The test of a coreset by kernel regression."""
    config = work.config
    scoring = Scoring.for_test(config.network, config.evaluation, config.rfad)
    function = evaluation.regression_program(scoring, mesh)
    seed = _array(dtype=jnp.int32)
    arguments = on_mesh((seed, _coreset(work.sizes), _test(work)), mesh)
    return Program(function, arguments, 1, "float32")


def training_step(work: Workload, mesh: Mesh) -> Program:
    """The chunk of steps of ``audiodd train`` on ``learns_from`` clips."""
    settings = work.config.training
    model, states = _states(work)
    targets = _array(work.learns_from, work.sizes.c)
    data = TrainingSet(_stored(work.sizes, work.learns_from), targets)
    length = min(settings.log_every, settings.steps)
    batch = min(settings.batch_size, work.learns_from)
    rows = _array(settings.seeds, length, batch, dtype=jnp.int32)
    step = functools.partial(
        trainer.step,
        model=model,
        config=settings,
        stats=_stats(work.sizes),
        noise=None,
        loss=settings.loss,
    )
    chunk = trainer.make_chunk(step, settings.parallel or 1, mesh)
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
    arguments = on_mesh((states.final, _test(work).features), mesh)
    return Program(function, arguments, 1, work.config.training.precision)


def _test(work: Workload) -> Clips:
    """Returns the test split."""
    return _clips(work.sizes, max(1, work.sizes.scored - work.validation))


def _states(work: Workload) -> tuple[nn.Module, trainer.State]:
    """Returns a network, and the abstract training states of its seeds."""
    config, sizes = work.config, work.sizes
    settings = config.training
    model = models.make(config.model, sizes.c, jnp.dtype(settings.precision))
    draw = programs.initial_program(model, sizes.shape, settings)
    keys = lambda: jax.vmap(jax.random.key)(jnp.arange(settings.seeds))
    return model, jax.eval_shape(draw, jax.eval_shape(keys))


def acquisition(work: Workload, mesh: Mesh) -> Program:
    """One chunk of a pool's scores for ``audiodd active``."""
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


def features(config: FeaturesConfig, mesh: Mesh, clips: int) -> Program:
    """Log-mel spectrograms of ``clips`` waveforms."""
    function = logmel.program(config, False)
    waveforms = on_mesh(_array(clips, logmel.frontend(config).samples), mesh)
    return Program(function, (waveforms,), 1, "float32")


def of_command(
    command: str,
    work: Workload,
    chips: list[jax.Device],
    plan_for: Callable[[Mesh], Plan],
) -> dict[str, Callable[[], Program]]:
    """Returns the programs of a command by name, each built when it is called.

    ``command`` is ``distill``, ``train``, ``active`` or ``evaluate``, whose program is
    kernel regression.
    """
    config = work.config
    scoring_mesh = devices.make_mesh(config.evaluation.networks, chips)
    scoring = functools.partial(coreset_scoring, work, scoring_mesh)
    if command == "evaluate":
        return {"scoring": scoring}
    if command == "distill":
        classes, networks = work.sizes.c, config.rfad.networks
        mesh = registry.make_mesh(config.method, classes, networks, chips)
        makers = {
            "step": lambda: distillation_step(work, mesh, plan_for(mesh)),
            "validation": functools.partial(coreset_validation, work, mesh),
            "scoring": scoring,
        }
    else:
        grid = programs.seed_grid(config.training.seeds, len(chips))
        mesh = devices.make_mesh(devices=chips, grid=grid)
        makers = {
            "step": functools.partial(training_step, work, mesh),
            "validation": functools.partial(network_validation, work, mesh),
            "scoring": functools.partial(network_scoring, work, mesh),
        }
    if not work.validation:
        del makers["validation"]
    # Functions of the pool's embedding score nothing by a network.
    if command == "active" and config.active.acquisition not in coverage.COVERS:
        everywhere = devices.make_mesh(devices=chips)
        makers["acquisition"] = functools.partial(acquisition, work, everywhere)
    return makers
