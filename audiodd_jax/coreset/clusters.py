"""Clusters of embedded clips: k-means and k-medoids.

References:
  Lloyd, *Least squares quantization in PCM*, 1982; Arthur and Vassilvitskii,
  *k-means++: The Advantages of Careful Seeding*, SODA 2007. Park and Jun, *A simple and
  fast algorithm for K-medoids clustering*, Expert Systems with Applications, 2009.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key

from audiodd_jax.runtime.memory import in_chunks

# Clips whose distances to all others are held at once.
_CHUNK = 256
_MAX_ITERATIONS = 50


class Clusters(NamedTuple):
    """A partition of clips: the means, and the cluster of each clip."""

    centres: Float[Array, "k d"]
    assigned: Int[Array, " b"]


def squared_distances(
    features: Float[Array, "b d"], centres: Float[Array, "*k d"]
) -> Float[Array, "b *k"]:
    """``||h - centre||^2``, by matrix products."""
    products = jnp.dot(features, centres.T, precision=lax.Precision.HIGHEST)
    norms = jnp.sum(features**2, 1).reshape(-1, *(1,) * (centres.ndim - 1))
    return jnp.maximum(norms + jnp.sum(centres**2, -1) - 2 * products, 0.0)


@functools.partial(jax.jit, static_argnums=2)
def k_means(key: Key[Array, ""], features: Float[Array, "b d"], k: int) -> Clusters:
    """Clusters clips by at most 50 of Lloyd's iterations from a k-means++ seeding.

    A cluster that loses all of its clips keeps its centre. ``k`` is at most ``b``.
    """
    assign = lambda centres: _nearest(features, centres)

    def improve(carry: tuple) -> tuple:
        centres, assigned, _, i = carry
        sizes = jnp.bincount(assigned, length=k)
        sums = jax.ops.segment_sum(features, assigned, k)
        means = sums / jnp.maximum(sizes, 1)[:, None]
        centres = jnp.where(sizes[:, None] > 0, means, centres)
        updated = assign(centres)
        return centres, updated, jnp.any(updated != assigned), i + 1

    centres = features[seeding(key, features, k)]
    start = (centres, assign(centres), jnp.array(True), jnp.int32(0))
    is_unfinished = lambda carry: carry[2] & (carry[3] < _MAX_ITERATIONS)
    return Clusters(*lax.while_loop(is_unfinished, improve, start)[:2])


@functools.partial(jax.jit, static_argnums=2)
def k_medoids(
    key: Key[Array, ""], features: Float[Array, "b d"], k: int
) -> Int[Array, " k"]:
    """Rows of the medoids of ``k`` clusters.

    A medoid has the least sum of distances to the clips of its cluster. From a
    k-means++ seeding, clips are assigned to the nearest medoid and medoids are chosen
    again, until nothing changes or 50 times. ``k`` is at most ``b``.
    """
    b = features.shape[0]

    def costs(assigned: Int[Array, " b"]) -> Float[Array, " b"]:
        """Sum of each clip's distances to the clips of its cluster."""

        def part(rows: Int[Array, " rows"]) -> Float[Array, " rows"]:
            distances = jnp.sqrt(squared_distances(features[rows], features))
            is_same = assigned[rows][:, None] == assigned
            return jnp.sum(jnp.where(is_same, distances, 0), 1)

        return in_chunks(part, jnp.arange(b), _CHUNK)

    def improve(carry: tuple) -> tuple:
        medoids, _, i = carry
        # Duplicates of a medoid are nearest to the first of them: each keeps itself.
        assigned = _nearest(features, features[medoids]).at[medoids].set(jnp.arange(k))
        cost = costs(assigned)
        least = jax.ops.segment_min(cost, assigned, k)
        rows = jnp.where(cost == least[assigned], jnp.arange(b), b)
        best = jax.ops.segment_min(rows, assigned, k)
        # Without an improvement the medoid stays, so that ties end.
        best = jnp.where(cost[best] < cost[medoids], best, medoids)
        return best, jnp.any(best != medoids), i + 1

    start = (seeding(key, features, k), jnp.array(True), jnp.int32(0))
    is_unfinished = lambda carry: carry[1] & (carry[2] < _MAX_ITERATIONS)
    return lax.while_loop(is_unfinished, improve, start)[0]


@functools.partial(jax.jit, static_argnums=3)
def weighted_representatives(
    key: Key[Array, ""],
    features: Float[Array, "b d"],
    weights: Float[Array, " b"],
    k: int,
) -> Int[Array, " k"]:
    """Rows of ``k`` different clips, each the nearest to a centre of weighted k-means.

    Weights are positive. ``k`` is at most ``b``.
    """

    def improve(carry: tuple) -> tuple:
        centres, assigned, _, i = carry
        total = jax.ops.segment_sum(weights, assigned, k)[:, None]
        sums = jax.ops.segment_sum(weights[:, None] * features, assigned, k)
        centres = jnp.where(total > 0, sums / jnp.maximum(total, 1e-30), centres)
        updated = _nearest(features, centres)
        return centres, updated, jnp.any(updated != assigned), i + 1

    centres = features[seeding(key, features, k)]
    start = (centres, _nearest(features, centres), jnp.array(True), jnp.int32(0))
    is_unfinished = lambda carry: carry[2] & (carry[3] < _MAX_ITERATIONS)
    centres = lax.while_loop(is_unfinished, improve, start)[0]

    def choose(free: Array, centre: Array) -> tuple[Array, Array]:
        gaps = jnp.where(free, squared_distances(features, centre), jnp.inf)
        row = jnp.argmin(gaps)
        return free.at[row].set(False), row

    return lax.scan(choose, jnp.ones(len(features), bool), centres)[1]


def seeding(
    key: Key[Array, ""], features: Float[Array, "b d"], k: int
) -> Int[Array, " k"]:
    """Draws ``k`` clips, each by its squared distance to the nearest one before."""

    def draw(gaps: Float[Array, " b"], key: Key[Array, ""]) -> tuple[Array, Array]:
        # Chosen clips have a gap of -1. Their duplicates have 0: the last resort.
        weights = jnp.where(jnp.max(gaps) > 0, gaps, gaps + 1)
        row = jax.random.categorical(key, jnp.log(jnp.maximum(weights, 0)))
        near = squared_distances(features, features[row])
        gaps = jnp.where(gaps < 0, gaps, jnp.minimum(gaps, near))
        return gaps.at[row].set(-1), row

    # Equal gaps: the first clip is drawn uniformly.
    first = jnp.full(features.shape[0], jnp.finfo(features.dtype).max)
    return lax.scan(draw, first, jax.random.split(key, k))[1]


def _nearest(
    features: Float[Array, "b d"], centres: Float[Array, "k d"]
) -> Int[Array, " b"]:
    nearest = lambda rows: jnp.argmin(squared_distances(rows, centres), 1)
    return in_chunks(nearest, features, _CHUNK)
