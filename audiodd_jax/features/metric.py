"""How good predictions are: accuracy of classes, mean average precision of tags.

The form of the labels says which. Everything that validates, selects or reports asks
here, so that a run has one measure.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from audiodd_jax.data import tags
from audiodd_jax.features import groups
from audiodd_jax.features.average_precision import mean_average_precision

ACCURACY, MEAN_AVERAGE_PRECISION = "accuracy", "mean average precision"


def name_of(labels: Int[Any, "b *c"]) -> str:
    """The measure of clips with these labels, in words."""
    return MEAN_AVERAGE_PRECISION if tags.are_tags(labels) else ACCURACY


def estimate(
    outputs: Float[Array, "b c"],
    labels: Int[Array, "b *c"],
    recordings: Int[Array, " b"] | None = None,
) -> groups.Estimate:
    """The measure and its standard error, with which recordings weigh the same.

    Args:
      outputs: the higher, the likelier the class or tag.
      labels: ``[b]`` classes, or ``[b, c]`` tags.
      recordings: number of each clip's recording; None: one clip of each.
    """
    if tags.are_tags(labels):
        return mean_average_precision(outputs, labels, recordings)
    hits = jnp.argmax(outputs, axis=1) == labels
    return groups.estimate(hits.astype(outputs.dtype), recordings)


def of_batch(
    outputs: Float[Array, "b c"], labels: Int[Array, "b *c"]
) -> Float[Array, ""]:
    """The measure of the clips of a step."""
    if tags.are_tags(labels):
        return mean_average_precision(outputs, labels).mean
    return jnp.mean(jnp.argmax(outputs, axis=1) == labels)
