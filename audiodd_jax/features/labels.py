"""Labels as the targets of kernel regression: classes or tags, centred.

A class becomes ``one_hot - 1/c``, which sums to zero, and tags become ``multi_hot -
1/c``, so that a clip with a single tag has the target of that class. An output plus
``1/c`` is the least-squares estimate of a tag's probability.
"""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from audiodd_jax.data import tags


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


def clip_weights(
    labels: Int[Array, "b *c"],
    num_classes: int,
    recordings: Int[Array, " b"] | None = None,
) -> Float[Array, " b"]:
    """Weights clips so that classes, and recordings of a class, weigh the same.

    The weights of a class sum to one. The weight of a clip with tags is the sum of its
    weights for each tag; all clips without tags together weigh as much as one tag.
    ``recordings`` are as in ``Clips``.
    """
    clips = labels.shape[0]
    share = jnp.ones(clips)
    if recordings is not None:
        share /= jnp.bincount(recordings, length=clips)[recordings]
    if tags.are_tags(labels):
        has_none = ~labels.any(1, keepdims=True)
        shares = jnp.concatenate([labels, has_none], axis=1) * share[:, None]
        return jnp.sum(shares / jnp.maximum(shares.sum(0), 1e-30), axis=1)
    totals = jax.ops.segment_sum(share, labels, num_classes)
    return share / totals[labels]
