"""Initial coresets, and coresets that are a selection of real clips."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from audiodd_jax.config import CoresetConfig
from audiodd_jax.coreset import selection
from audiodd_jax.coreset.arrays import CoresetArrays, check_factor, pack
from audiodd_jax.coreset.selection import Embedding
from audiodd_jax.data import tags
from audiodd_jax.errors import UserError
from audiodd_jax.features.clips import Clips
from audiodd_jax.features.labels import centred_targets


def start(
    key: Key[Array, ""],
    train: Clips,
    class_names: tuple[str, ...],
    config: CoresetConfig,
    embedding: Embedding | None = None,
) -> CoresetArrays:
    """Makes the initial coreset that ``config.init`` names, unless it names a file.

    It has ``samples_per_class`` images per class, in class order.

    Raises:
      UserError: a class has too few clips, or ``factor`` does not divide the frames.
    """
    if config.init in ("herding", "k_center"):
        return selected(config.init, key, train, class_names, config, embedding)
    check_factor(train.image_shape[1], config.factor)
    if config.init == "noise":
        images = len(class_names) * config.samples_per_class
        shape = (images, *train.image_shape, 1)
        return _labelled(jax.random.normal(key, shape, jnp.float32), len(class_names))
    try:
        return selected("random", key, train, class_names, config)
    except UserError as error:
        raise UserError(f"{error}, or pass --config.coreset.init=noise") from error


def selected(
    method: str,
    key: Key[Array, ""],
    train: Clips,
    class_names: tuple[str, ...],
    config: CoresetConfig,
    embedding: Embedding | None = None,
) -> CoresetArrays:
    """Selects real clips as a coreset, by a method of ``selection.CHOOSE``.

    Raises:
      UserError: a class has too few clips, or ``factor`` does not divide the frames.
    """
    check_factor(train.image_shape[1], config.factor)
    per_class = config.samples_per_class * config.factor
    rows = selection.select(method, key, train, class_names, per_class, embedding)
    images = pack(train.take(rows), config.factor)
    if not tags.are_tags(train.labels):
        return _labelled(images, len(class_names))
    # A clip keeps all of its tags; the clips of one stored image share their mean.
    targets = centred_targets(train.labels[rows], len(class_names), images.dtype)
    labels = targets.reshape(len(images), config.factor, -1).mean(1)
    return CoresetArrays(images, labels, jnp.zeros((), images.dtype))


def filled(
    random: CoresetArrays,
    images: Float[Array, "k f t 1"],
    labels: Float[Array, "k c"],
    classes: Int[np.ndarray, " k"],
) -> CoresetArrays:
    """Puts an earlier coreset's spectrograms first in each class of an initial coreset.

    Args:
      random: an initial coreset of random clips, in class order.
      images: stored images of the earlier coreset, with the same normalisation.

    Raises:
      UserError: the earlier coreset has more images of a class than the new one holds.
    """
    num_classes = random.labels.shape[1]
    per_class = random.labels.shape[0] // num_classes
    most = np.bincount(classes).max()
    if most > per_class:
        raise UserError(
            f"the initial coreset has {most} spectrograms of a class, more than "
            f"coreset.samples_per_class={per_class}"
        )
    rows = classes * per_class + selection.ranks_in_class(classes)
    return random._replace(
        images=random.images.at[rows].set(images),
        labels=random.labels.at[rows].set(labels),
    )


def _labelled(images: Array, num_classes: int) -> CoresetArrays:
    """Images in class order, with centred labels."""
    per_class = images.shape[0] // num_classes
    labels = jnp.repeat(jnp.arange(num_classes, dtype=jnp.int32), per_class)
    targets = centred_targets(labels, num_classes, images.dtype)
    return CoresetArrays(images, targets, jnp.zeros((), images.dtype))
