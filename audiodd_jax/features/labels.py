"""Labels as the targets of kernel regression: classes or tags, centred.

A class becomes ``one_hot - 1/c``, which sums to zero, and tags become ``multi_hot -
1/c``, so that a clip with a single tag has the target of that class. An output plus
``1/c`` is the least-squares estimate of a tag's probability.
"""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int


def centred_targets(
    labels: Int[Array, "b *c"], num_classes: int, dtype: DTypeLike = jnp.float32
) -> Float[Array, "b c"]:
    """Returns the targets of classes ``[b]`` or tags ``[b, c]``."""
    if labels.ndim == 1:
        labels = jax.nn.one_hot(labels, num_classes, dtype=dtype)
    return labels.astype(dtype) - 1.0 / num_classes


def tag_threshold(num_classes: int) -> float:
    """Returns the output of kernel regression that means a probability of one half."""
    return 0.5 - 1.0 / num_classes


def hard_tags(labels: Float[Array, "s c"]) -> Int[Array, "s c"]:
    """Returns the tags whose probability in centred soft labels is above one half."""
    return (labels > tag_threshold(labels.shape[1])).astype(jnp.int8)


def probabilities(
    outputs: Float[Array, "b c"], has_tags: bool, platt_scale: float = 0.0
) -> Float[Array, "b c"]:
    """Estimates probabilities from outputs; 0: no scale was learnt with them."""
    if platt_scale:
        return jax.nn.softmax(platt_scale * outputs)
    estimates = outputs + 1.0 / outputs.shape[1]
    if has_tags:
        return jnp.clip(estimates, 0, 1)
    positive = jnp.maximum(estimates, 1e-9)
    return positive / positive.sum(1, keepdims=True)
