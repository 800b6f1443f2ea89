"""Compiled programs of every method: chunks of steps, and validation."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Num

from audiodd_jax.config import AugmentConfig
from audiodd_jax.config.packing import Factor
from audiodd_jax.coreset.arrays import CoresetArrays
from audiodd_jax.distillation.method import Method
from audiodd_jax.features import batches
from audiodd_jax.features.augment import augment
from audiodd_jax.features.batches import Draw, Streamed
from audiodd_jax.features.clips import Clips
from audiodd_jax.features.normalization import Normalization
from audiodd_jax.kernels import ridge
from audiodd_jax.kernels.ridge import Score, Scoring
from audiodd_jax.runtime import devices


def make_chunk(
    method: Method,
    draw: Draw,
    config: AugmentConfig,
    stats: Normalization,
    noise: Num[Array, "pieces f t"] | None = None,
    mesh: Mesh | None = None,
) -> jax.stages.Wrapped:
    """Returns ``chunk(state, data, length, key, rates)``; donates the state.

    ``data`` is the training split, from which each of the ``length`` steps draws a
    batch, or the streamed batches of these steps. ``chunk`` returns the state, and
    metrics averaged over the steps. Key and rates (``Method.rates``; None: constants of
    the program) are arguments, so that runs that differ in them share the program.
    """
    mesh = mesh or devices.make_mesh(devices=jax.local_devices()[:1])

    @functools.partial(
        jax.jit,
        static_argnums=2,
        donate_argnums=0,
        out_shardings=devices.replicated(mesh),
    )
    def chunk(
        state: Any, data: Clips | Streamed, length: int, key: Array, rates: Any = None
    ) -> tuple[Any, dict[str, Array]]:
        given = () if rates is None else (rates,)

        def body(state: Any, drawn: Streamed | None) -> tuple[Any, dict[str, Array]]:
            index_key, augment_key = batches.step_keys(key, state.step)
            if drawn is None:
                batch = batches.gather(index_key, data, draw)
            else:
                batch = batches.standardized(drawn, stats)
            images = augment(augment_key, batch.images, config, stats, noise)
            return method.step(state, batch._replace(features=images), *given)

        drawn = data if isinstance(data, Streamed) else None
        state, metrics = lax.scan(body, state, drawn, length=length)
        return state, jax.tree.map(jnp.mean, metrics)

    return chunk


def validation_program(
    scoring: Scoring, factor: Factor, mesh: Mesh
) -> jax.stages.Wrapped:
    """Returns ``(arrays, data, key, regularizer) -> score`` of a coreset, compiled."""

    def score(
        arrays: CoresetArrays,
        data: Clips,
        key: Array,
        regularizer: float | Float[Array, ""],
    ) -> Score:
        arrays = arrays.unpack(factor)
        settings = scoring._replace(regularizer=regularizer)
        predictions = ridge.predict_images(
            key, data.images, arrays.images, arrays.labels, settings, mesh
        )
        clips = data.labels, data.recordings, data.weights
        return ridge.score(predictions, *clips)

    # Key and regulariser are arguments: runs that differ in them share the program.
    return jax.jit(score, out_shardings=devices.replicated(mesh))
