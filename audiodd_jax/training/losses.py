"""Targets and losses of networks trained on hard or soft labels, of classes or tags.

A coreset's labels are centred, as kernel regression learns them: a hard label is
``one_hot - 1/c``, learnt labels are unconstrained. Targets are their multiples by
``label_scale``. Classes are learnt by cross-entropy with a softmax, tags by binary
cross-entropy with a sigmoid each.
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from audiodd_jax.config import TrainingConfig
from audiodd_jax.data import tags
from audiodd_jax.errors import UserError
from audiodd_jax.features.labels import centred_targets, hard_tags, tag_threshold

# The loss for tags; the loss for classes is a setting.
BINARY = "binary_cross_entropy"


def loss_name(config: TrainingConfig, has_tags: bool) -> str:
    """Returns the name of a training's loss, as ``per_clip`` takes it.

    Raises:
      UserError: tags are to be learnt by squared error.
    """
    if not has_tags:
        return config.loss
    if config.loss != "cross_entropy":
        raise UserError(
            f"--config.training.loss={config.loss} is for one class per clip; tags are "
            "learnt by cross_entropy"
        )
    return BINARY


def hard_targets(
    labels: Int[Array, "b *c"], num_classes: int, config: TrainingConfig
) -> Float[Array, "b c"]:
    """Smoothed one-hot or multi-hot labels, or scaled centred ones for ``mse``."""
    if config.loss == "mse":
        return config.label_scale * centred_targets(labels, num_classes)
    if tags.are_tags(labels):  # each tag is a binary question
        return labels + config.label_smoothing * (0.5 - labels)
    return optax.smooth_labels(
        jax.nn.one_hot(labels, num_classes), config.label_smoothing
    )


def soft_targets(
    labels: Float[Array, "s c"], config: TrainingConfig, has_tags: bool = False
) -> Float[Array, "s c"]:
    """Targets of a coreset's centred labels.

    With ``labels = "hard"``, targets of the largest class, which separates the gain by
    the images from the gain by the labels. The target of a tag is the softmax of its
    two answers, ``y`` and ``1 - y``, for the estimated probability ``y``.
    """
    if has_tags:
        if config.labels == "hard":
            return hard_targets(hard_tags(labels), labels.shape[1], config)
        centred = labels - tag_threshold(labels.shape[1])
        return jax.nn.sigmoid(2 * config.label_scale * centred)
    if config.labels == "hard":
        return hard_targets(labels.argmax(1), labels.shape[1], config)
    scaled = config.label_scale * labels
    return scaled if config.loss == "mse" else jax.nn.softmax(scaled)


def per_clip(
    logits: Float[Array, "b c"], targets: Float[Array, "b c"], name: str
) -> Float[Array, " b"]:
    """Cross-entropy of each clip, its mean over tags, or half the squared error."""
    if name == "mse":
        return 0.5 * jnp.sum((logits - targets) ** 2, axis=1)
    if name == BINARY:
        return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, targets), axis=1)
    return optax.softmax_cross_entropy(logits, targets)


def mixup(
    key: Key[Array, ""],
    images: Float[Array, "b f t 1"],
    targets: Float[Array, "b c"],
    alpha: float,
) -> tuple[Float[Array, "b f t 1"], Float[Array, "b c"]]:
    """Convex combinations of pairs of clips, with weights from Beta(alpha, alpha).

    References:
      Zhang, Cisse, Dauphin, Lopez-Paz, *mixup*, ICLR 2018.
    """
    share_key, pair_key = jax.random.split(key)
    b = images.shape[0]
    share = jax.random.beta(share_key, alpha, alpha, (b,), images.dtype)
    other = jax.random.permutation(pair_key, b)

    def mix(values: Array) -> Array:
        weight = share.reshape(b, *(1,) * (values.ndim - 1))
        return weight * values + (1 - weight) * values[other]

    return mix(images), mix(targets)
