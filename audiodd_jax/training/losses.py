"""Targets and losses of networks trained on hard or soft labels, of classes or tags.

A coreset's labels are centred, as kernel regression learns them: a hard label is
``one_hot - 1/c``, learnt labels are unconstrained. Targets are their multiples by
``label_scale``. Classes are learnt by cross-entropy with a softmax, tags by the binary
one with a sigmoid each.
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from audiodd_jax.config import TrainingConfig
from audiodd_jax.data import tags
from audiodd_jax.errors import UserError
from audiodd_jax.features.labels import centred_targets, hard_tags, tag_threshold

# The loss of tags; that of classes is a setting.
BINARY = "binary_cross_entropy"


def kind_of(config: TrainingConfig, has_tags: bool) -> str:
    """The loss of a training, as ``loss`` takes it.

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
    """Smoothed one-hot or multi-hot labels, or scaled centred ones for ``mse``.

    Args:
      labels: classes or tags.
      num_classes: ``c``.
      config: loss, smoothing and scale.
    """
    if config.loss == "mse":
        return config.label_scale * centred_targets(labels, num_classes)
    if tags.are_tags(labels):  # each tag is a question of two answers
        return labels + config.label_smoothing * (0.5 - labels)
    return optax.smooth_labels(
        jax.nn.one_hot(labels, num_classes), config.label_smoothing
    )


def soft_targets(
    labels: Float[Array, "s c"], config: TrainingConfig, has_tags: bool = False
) -> Float[Array, "s c"]:
    """Targets of a coreset's centred labels.

    With ``labels = "hard"``, targets of the largest class, which separates the gain by
    the images from the gain by the labels.

    Args:
      labels: centred.
      config: loss, scale and kind of the labels.
      has_tags: whether they are of tags. A target is then the softmax of the tag's two
        answers, ``y`` and ``1 - y``, for the estimated probability ``y``.
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


def loss(
    logits: Float[Array, "b c"], targets: Float[Array, "b c"], kind: str
) -> Float[Array, ""]:
    """Cross-entropy, or half the squared error, averaged over the batch.

    Args:
      logits: of the network.
      targets: as ``hard_targets`` or ``soft_targets`` makes them.
      kind: of ``kind_of``.
    """
    return jnp.mean(per_clip(logits, targets, kind))


def per_clip(
    logits: Float[Array, "b c"], targets: Float[Array, "b c"], kind: str
) -> Float[Array, " b"]:
    """Cross-entropy, or half the squared error, of each clip; the same arguments.

    Binary cross-entropy is the mean over tags.
    """
    if kind == "mse":
        return 0.5 * jnp.sum((logits - targets) ** 2, axis=1)
    if kind == BINARY:
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
