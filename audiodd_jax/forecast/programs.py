"""The programs that the commands run on devices, and what compilers say of them.

They are the commands' jitted functions. Their arguments are ``jax.ShapeDtypeStruct``s
on a mesh of devices that you need not have, so ``program.lower().compile()`` runs the
compiler and allocates nothing. ``python -m`` of this module answers ``accounts``.
"""

import functools
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from audiodd_jax.active_learning import coverage, monte_carlo, query
from audiodd_jax.config import AugmentConfig, FeaturesConfig
from audiodd_jax.config.names import COMMITTEE, MATCHING
from audiodd_jax.config.packing import Factor, Packing
from audiodd_jax.coreset.arrays import CoresetArrays
from audiodd_jax.distillation import cost, registry, steps
from audiodd_jax.distillation.cost import Sizes
from audiodd_jax.distillation.method import Context
from audiodd_jax.errors import UserError
from audiodd_jax.features import batches, logmel
from audiodd_jax.features.batches import Streamed
from audiodd_jax.features.clips import Clips
from audiodd_jax.features.normalization import Normalization
from audiodd_jax.forecast import compilers, hlo, targets
from audiodd_jax.forecast.targets import Chip, Target
from audiodd_jax.forecast.workload import Workload
from audiodd_jax.kernels.random_kernels import Plan
from audiodd_jax.kernels.ridge import Scoring
from audiodd_jax.networks import models
from audiodd_jax.networks.models import Ensemble
from audiodd_jax.runtime import devices, environment, signals
from audiodd_jax.runtime.devices import BATCH, NETWORKS
from audiodd_jax.training import evaluation, programs, teacher, trainer
from audiodd_jax.training.trainer import Drawn, TrainingSet


class Program(NamedTuple):
    """A jitted function, and abstract arrays and static values for it.

    The mesh has a copy of every array that has no sharding of its own. One call takes
    ``steps`` steps. Most products have a ``precision`` of ``random_conv.PRECISIONS``.
    """

    function: jax.stages.Wrapped
    arguments: tuple[Any, ...]
    mesh: Mesh
    precision: str = "float32"
    steps: int = 1

    def lower(self) -> jax.stages.Lowered:
        """Returns the program before it is compiled."""
        replicated = devices.replicated(self.mesh)

        def place(x: Any) -> Any:
            if getattr(x, "sharding", replicated) is None:
                return x.update(sharding=replicated)
            return x

        return self.function.lower(*jax.tree.map(place, self.arguments))


def _sharded(tree: Any, mesh: Mesh, axis: str) -> Any:
    """Divides the first axis of abstract arrays along an axis of the mesh."""
    sharding = NamedSharding(mesh, PartitionSpec(axis))
    return jax.tree.map(lambda x: x.update(sharding=sharding), tree)


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


def _coreset(sizes: Sizes, factor: Factor = 1) -> CoresetArrays:
    """Returns the coreset, with images packed by ``factor``."""
    packing = Packing.parse(factor)
    count = sizes.s // packing.per_image
    images = _array(count, *packing.image_shape(sizes.shape), 1)
    return CoresetArrays(images, _array(count, sizes.c), _array())


def _chunk(
    work: Workload, mesh: Mesh, plan: Plan, augment: AugmentConfig
) -> tuple[jax.stages.Wrapped, Any]:
    """Returns the chunk of steps of a method, and its abstract state."""
    config, stats = work.config, _stats(work.sizes)
    context = Context(work.sizes, stats, mesh, plan, teacher=_teacher(work))
    method = registry.get_method(config.method)(config, context)
    start = _coreset(work.sizes, config.coreset.factor)
    draw = method.draw or batches.uniform(config.loop.batch_size)
    function = steps.make_chunk(method, draw, augment, stats, mesh=mesh)
    return function, jax.eval_shape(method.init, _key(), start)


def _teacher(work: Workload) -> Ensemble | None:
    """Returns the teacher of the views of a step, with zeros in its networks."""
    if not work.config.is_aligned:
        return None
    recipe = teacher.recipe_of(work.config)
    model, states = _states(work._replace(config=recipe))
    networks = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), states.final)
    # Probabilities of tags cost as much as those of classes.
    return models.ensemble(networks, model, work.config.teacher.temperature, False)


def distillation_step(work: Workload, mesh: Mesh, chip: Chip | None) -> Program:
    """The chunk of steps of ``audiodd distill``."""
    config, sizes, plan = work.config, work.sizes, Plan()
    if chip:
        problem, grid = cost.problem_of(config, sizes), devices.grid_of(mesh)
        plan = cost.choose_plan(problem, grid, chip.kind, chip.memory)
    chunk, state = _chunk(work, mesh, plan, config.augment)
    length = min(config.loop.log_every, config.loop.steps)
    if sizes.train:
        data = _stored(sizes, sizes.train)
    else:
        batch = (length, sizes.b)
        features = _array(*batch, sizes.f, sizes.t, dtype=jnp.float16)
        data = Streamed(features, _array(*batch, dtype=jnp.int32))
    is_rounded = config.method not in (*MATCHING, "kip", "frepo")
    precision = config.network.precision if is_rounded else "float32"
    return Program(chunk, (state, data, length, _key()), mesh, precision, length)


def compiled_bytes(work: Workload, mesh: Mesh, plan: Plan) -> int:
    """Returns the memory of a step on each device, by the compiler's analysis.

    The step has no augmentation, and a split of one batch. Compiling takes seconds.
    """
    chunk, state = _chunk(work, mesh, plan, AugmentConfig())
    key = devices.replicate(jax.random.key(0), mesh)
    data = _clips(work.sizes, work.sizes.b)
    lowered = chunk.lower(state, data, 2, key)
    return lowered.compile().memory_analysis().temp_size_in_bytes


def coreset_validation(work: Workload, mesh: Mesh) -> Program:
    """The validation of a coreset between steps of ``audiodd distill``."""
    config, factor = work.config, work.config.coreset.factor
    scoring = Scoring.from_config(config)
    function = steps.validation_program(scoring, factor, mesh)
    coreset = _coreset(work.sizes, factor)
    clips = _clips(work.sizes, work.validation)
    arguments = (coreset, clips, _key(), scoring.regularizer)
    return Program(function, arguments, mesh, config.network.precision)


def coreset_scoring(work: Workload, mesh: Mesh) -> Program:
    """The test of a coreset by kernel regression."""
    config, sizes = work.config, work.sizes
    scoring = Scoring.from_config(config, is_test=True)
    seed, clips = _array(dtype=jnp.int32), _clips(sizes, work.tested)
    function = evaluation.regression_program(scoring, mesh)
    return Program(function, (seed, _coreset(sizes), clips), mesh)


def training_step(work: Workload, mesh: Mesh) -> Program:
    """The chunk of steps of ``audiodd train`` on ``learns_from`` clips."""
    settings = work.config.training
    model, states = _states(work)
    targets = _array(work.learns_from, work.sizes.c)
    data = TrainingSet(_stored(work.sizes, work.learns_from), targets)
    length = min(settings.log_every, settings.steps)
    batch = min(settings.batch_size, work.learns_from)
    rows = _array(settings.seeds, length, batch, dtype=jnp.int32)
    stats, loss = _stats(work.sizes), settings.loss
    step = functools.partial(
        trainer.step, model=model, config=settings, stats=stats, noise=None, loss=loss
    )
    chunk = trainer.make_chunk(step, stats, settings.parallel or 1, mesh)
    arguments = (_sharded(states, mesh, NETWORKS), Drawn(data, rows))
    return Program(chunk, arguments, mesh, settings.precision, length)


def network_validation(work: Workload, mesh: Mesh) -> Program:
    """The validation of networks in training."""
    settings = work.config.training
    model, states = _states(work)
    function = programs.validation_program(model, settings)
    arguments = (states.final, _clips(work.sizes, work.validation))
    return Program(function, arguments, mesh, settings.precision)


def network_scoring(work: Workload, mesh: Mesh) -> Program:
    """The test of trained networks."""
    model, states = _states(work)
    function = evaluation.prediction_program(model)
    arguments = (states.final, _clips(work.sizes, work.tested).features)
    return Program(function, arguments, mesh, work.config.training.precision)


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
    settings = work.config.active
    model, states = _states(work)
    function = query.clip_function(settings, model)
    program = monte_carlo.pool_program(function, settings.chunk, mesh, False)
    members = (settings.committee,) if settings.acquisition in COMMITTEE else ()
    one = lambda x: _array(*members, *x.shape[1:], dtype=x.dtype)
    network = jax.tree.map(one, states.final)
    rows = _array(settings.chunk * mesh.size, dtype=jnp.int32)
    rows = _sharded(rows, mesh, BATCH)
    arguments = (_stored(work.sizes, work.pool), network, rows, rows, _key())
    return Program(program, arguments, mesh, work.config.training.precision)


def features(config: FeaturesConfig, mesh: Mesh, clips: int) -> Program:
    """Log-mel spectrograms of ``clips`` waveforms."""
    waveforms = _array(clips, logmel.frontend(config).samples)
    return Program(logmel.program(config, False), (waveforms,), mesh)


def of_command(
    command: str, work: Workload, chips: list[jax.Device], chip: Chip | None = None
) -> dict[str, Callable[[], Program]]:
    """Returns the programs of a command by name, each built when it is called.

    ``command`` is ``distill``, ``train``, ``active`` or ``evaluate``, whose program is
    kernel regression. The memory of ``chip`` decides how much a step of ``distill``
    computes at once; None: everything.
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
            "step": functools.partial(distillation_step, work, mesh, chip),
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


def accounts(
    target: Target, command: str, work: Workload, only: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Returns the account of a command's programs, or ``only`` some (see ``ask``)."""
    request = {"target": str(target), "command": command, "only": list(only)}
    request["work"] = work.to_json()
    return compilers.ask(target, request, "audiodd_jax.forecast.programs")


def main() -> None:
    """Answers a request of ``accounts`` on standard input."""
    signals.follow()
    request = json.load(sys.stdin)
    work = Workload.from_json(request["work"])
    with environment.standard_numerics(work.config.rfad.is_float64):
        _answer(request, work)


def _answer(request: dict[str, Any], work: Workload) -> None:
    target = targets.parse(request["target"])
    try:
        chips = compilers.devices_of(target)
    except UserError as error:
        compilers.answer({"error": str(error)})
        return
    makers = of_command(request["command"], work, chips, target.chip)
    names = request["only"] or list(makers)
    compilers.answer({"programs": names})
    for name in names[request["skip"] :]:
        compilers.answer(compiled(makers[name], target))


def compiled(make: Callable[[], Program], target: Target) -> dict[str, Any]:
    """Returns the compiler's account of the program that ``make`` returns, as JSON."""
    began = time.perf_counter()
    try:
        program = make()
        executable = program.lower().compile()
    except UserError as error:
        return {"error": str(error)}
    except Exception as error:
        return {"error": f"the {target.name} compiler: {compilers.first_line(error)}"}
    seconds = time.perf_counter() - began
    memory = executable.memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes
    held -= memory.alias_size_in_bytes
    return {
        "seconds": seconds,
        "steps": program.steps,
        "precision": program.precision,
        "step_bytes": memory.temp_size_in_bytes,
        "memory": held + memory.temp_size_in_bytes,
        "aliased": memory.alias_size_in_bytes,
        **hlo.account(executable.as_text())._asdict(),
    }


if __name__ == "__main__":
    main()
