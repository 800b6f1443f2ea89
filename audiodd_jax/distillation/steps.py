"""Compiled programs of every method: chunks of steps, and validation."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Key, Num

from audiodd_jax.config import AugmentConfig, Config
from audiodd_jax.coreset.arrays import CoresetArrays
from audiodd_jax.distillation.memory_plan import Plan, Sizes
from audiodd_jax.distillation.method import Context, Method
from audiodd_jax.distillation.registry import get_method
from audiodd_jax.features import batches
from audiodd_jax.features.augment import augment
from audiodd_jax.features.batches import Streamed
from audiodd_jax.features.clips import Clips
from audiodd_jax.features.normalization import Normalization
from audiodd_jax.kernels import ridge_scoring
from audiodd_jax.runtime import devices


def make_chunk(
    method: Method,
    key: Key[Array, ""],
    stats: Normalization,
    config: Config,
    noise: Num[Array, "pieces f t"] | None = None,
    mesh: Mesh | None = None,
) -> Callable[[Any, Clips | Streamed, int], tuple[Any, dict[str, Array]]]:
    """``chunk(state, data, length)``: ``length`` jitted steps; donates the state.

    ``data`` is the training split, from which every step draws a batch, or the streamed
    batches of these steps. Returns the state, and metrics averaged over the chunk.
    """
    mesh = mesh or devices.make_mesh(devices=jax.local_devices()[:1])
    chunk = chunk_program(method, stats, config, noise, mesh)
    # The key is an argument, so that other seeds find the program compiled.
    return functools.partial(chunk, key=devices.replicate(key, mesh))


def chunk_program(
    method: Method,
    stats: Normalization,
    config: Config,
    noise: Num[Array, "pieces f t"] | None,
    mesh: Mesh,
) -> jax.stages.Wrapped:
    """The program of ``make_chunk``: ``(state, data, length, key)``."""
    draw = method.draw or batches.uniform(config.loop.batch_size)

    @functools.partial(
        jax.jit,
        static_argnums=2,
        donate_argnums=0,
        out_shardings=devices.replicated(mesh),
    )
    def chunk(
        state: Any, data: Clips | Streamed, length: int, key: Array
    ) -> tuple[Any, dict[str, Array]]:
        def body(state: Any, drawn: Streamed | None) -> tuple[Any, dict[str, Array]]:
            index_key, augment_key = batches.step_keys(key, state.step)
            if drawn is None:
                batch = batches.gather(index_key, data, draw)
            else:
                batch = batches.standardized(drawn, stats)
            images = augment(augment_key, batch.images, config.augment, stats, noise)
            return method.step(state, batch._replace(features=images))

        drawn = data if isinstance(data, Streamed) else None
        state, metrics = lax.scan(body, state, drawn, length=length)
        return state, jax.tree.map(jnp.mean, metrics)

    return chunk


def make_validate(
    key: Key[Array, ""],
    data: Clips,
    scoring: ridge_scoring.Scoring,
    factor: int,
    mesh: Mesh,
) -> Callable[[CoresetArrays], ridge_scoring.Score] | None:
    """Scores a coreset on validation clips, always with the same networks.

    None if there are no validation clips.
    """
    if not len(data.labels):
        return None
    program = validation_program(scoring, factor, mesh)
    data, key = devices.replicate((data, key), mesh)

    def validate(arrays: CoresetArrays) -> ridge_scoring.Score:
        return program(arrays, data, key, scoring.regularizer)

    return validate


def validation_program(
    scoring: ridge_scoring.Scoring, factor: int, mesh: Mesh
) -> jax.stages.Wrapped:
    """The program of ``make_validate``: ``(arrays, data, key, regularizer)``."""

    def score(
        arrays: CoresetArrays,
        data: Clips,
        key: Array,
        regularizer: float | Float[Array, ""],
    ) -> ridge_scoring.Score:
        arrays = arrays.unpack(factor)
        settings = scoring._replace(regularizer=regularizer)
        predictions = ridge_scoring.predict(
            key, data.images, arrays.images, arrays.labels, settings, mesh
        )
        return ridge_scoring.score(predictions, data.labels, data.recordings)

    # Key and regulariser are arguments: runs that differ in them share the program.
    return jax.jit(score, out_shardings=devices.replicated(mesh))


def compiled_bytes(config: Config, sizes: Sizes, mesh: Mesh, plan: Plan) -> int:
    """Memory of a step on each device, from the compiler's memory analysis.

    Compiling takes seconds; nothing is allocated.

    Args:
      config: of the run.
      sizes: of its data.
      mesh: devices of the run.
      plan: memory plan of the step.
    """
    array = jax.ShapeDtypeStruct
    image = (sizes.f, sizes.t, 1)
    stats = Normalization(np.zeros(sizes.f, np.float32), np.ones(sizes.f, np.float32))
    context = Context(sizes, stats, mesh, plan)
    method = get_method(config.method)(config, context)
    stored = sizes.s // config.coreset.factor
    start = CoresetArrays(
        array((stored, *image), jnp.float32),
        array((stored, sizes.c), jnp.float32),
        array((), jnp.float32),
    )
    key = jax.random.key(config.seed)
    state = jax.eval_shape(method.init, key, start)
    data = Clips(array((sizes.b, *image), jnp.float32), array((sizes.b,), jnp.int32))
    plain = dataclasses.replace(config, augment=AugmentConfig())
    chunk = make_chunk(method, key, stats, plain, mesh=mesh)
    lowered = chunk.func.lower(state, data, 2, **chunk.keywords)
    analysis = lowered.compile().memory_analysis()
    return analysis.temp_size_in_bytes
