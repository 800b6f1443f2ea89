"""Labels as the targets of kernel regression: classes or tags, centred.

A class is ``one_hot - 1/c``, which sums to zero, and tags are ``multi_hot - 1/c``: both
regress the same numbers, so that a clip with one tag has the target of its class. An
output plus ``1/c`` is the least-squares estimate of a tag's probability.
"""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int


def centred_targets(
    labels: Int[Array, "b *c"], num_classes: int, dtype: DTypeLike = jnp.float32
) -> Float[Array, "b c"]:
    """Targets of kernel regression.

    Args:
      labels: ``[b]`` classes, or ``[b, c]`` tags.
      num_classes: ``c``.
      dtype: of the targets.
    """
    if labels.ndim == 1:
        labels = jax.nn.one_hot(labels, num_classes, dtype=dtype)
    return labels.astype(dtype) - 1.0 / num_classes


def tag_threshold(num_classes: int) -> float:
    """The output of kernel regression above which a clip is said to have a tag.

    There the estimated probability is one half.
    """
    return 0.5 - 1.0 / num_classes


def hard_tags(labels: Float[Array, "s c"]) -> Int[Array, "s c"]:
    """The tags of centred soft labels: those whose probability is above one half."""
    return (labels > tag_threshold(labels.shape[1])).astype(jnp.int8)
