"""Means over groups of values that are not independent, and their standard errors."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Estimate(NamedTuple):
    """A mean and its standard error.

    Attributes:
      mean: over groups.
      error: standard error of the mean; 0 for a single group.
    """

    mean: Float[Array, ""]
    error: Float[Array, ""]


def estimate(
    values: Float[Array, " b"], groups: Int[Array, " b"] | None = None
) -> Estimate:
    """The mean of the groups' means, as if each group were one observation.

    Args:
      values: of the clips.
      groups: group of each clip, from 0 and below ``b``; None: each is its own.
    """
    if groups is None:
        count = values.shape[0]
        mean = jnp.mean(values)
        squares = jnp.sum((values - mean) ** 2)
    else:
        total = lambda x: jax.ops.segment_sum(x, groups, groups.shape[0])
        sizes = total(jnp.ones_like(values))
        means = total(values) / jnp.maximum(sizes, 1)
        is_there = sizes > 0
        count = jnp.sum(is_there)
        mean = jnp.sum(means, where=is_there) / count
        squares = jnp.sum((means - mean) ** 2, where=is_there)
    variance = squares / jnp.maximum(count - 1, 1)
    return Estimate(mean, jnp.sqrt(variance / count))
