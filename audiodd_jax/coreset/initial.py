"""Initial coresets, and coresets that are a selection of real clips."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from audiodd_jax.config import Config, CoresetConfig
from audiodd_jax.coreset import multi_formation
from audiodd_jax.coreset.arrays import CoresetArrays
from audiodd_jax.features.dataset import DeviceSplit, HostSplit, Split
from audiodd_jax.features.labels import centred_one_hot
from audiodd_jax.runtime.errors import UserError
from audiodd_jax.selection import clips as clips_lib


def initial(
    key: Key[Array, ""],
    train: Split | DeviceSplit | HostSplit,
    class_names: tuple[str, ...],
    config: CoresetConfig,
) -> CoresetArrays:
    """An initial coreset of ``samples_per_class`` images per class, in class order.

    Args:
      key: draws clips without replacement, or noise.
      train: clips to draw from.
      class_names: the classes.
      config: ``init`` is ``real`` or ``noise``; each image holds ``factor`` clips.

    Raises:
      UserError: a class has too few clips, ``init`` is unknown, or ``factor`` does not
        divide the frames.
    """
    per_class = config.samples_per_class
    if per_class < 1:
        raise UserError(f"samples_per_class must be at least 1, not {per_class}")
    multi_formation.check(train.image_shape[1], config.factor)
    if config.init == "noise":
        shape = (len(class_names) * per_class, *train.image_shape, 1)
        images = jax.random.normal(key, shape, jnp.float32)
        return _labelled(images, len(class_names))
    if config.init != "real":
        raise UserError(f"coreset.init is real or noise, not {config.init!r}")
    clips = per_class * config.factor
    try:
        rows = clips_lib.random_rows(key, train.labels, class_names, clips)
    except UserError as error:
        raise UserError(f"{error}, or pass --config.coreset.init=noise") from error
    return _of_clips(train, rows, class_names, config)


def selected(
    key: Key[Array, ""],
    train: Split | DeviceSplit | HostSplit,
    class_names: tuple[str, ...],
    config: Config,
) -> CoresetArrays:
    """Real clips chosen by ``config.method``, as a coreset.

    Args:
      key: draws clips, or the random networks that embed them.
      train: clips to choose from.
      class_names: the classes.
      config: ``method`` is ``random``, ``herding`` or ``k_center``.

    Raises:
      UserError: a class has too few clips, or ``factor`` does not divide the frames.
    """
    multi_formation.check(train.image_shape[1], config.coreset.factor)
    clips = config.coreset.samples_per_class * config.coreset.factor
    if config.method == "random":
        rows = clips_lib.random_rows(key, train.labels, class_names, clips)
    else:
        choose = {
            "herding": clips_lib.herding_rows,
            "k_center": clips_lib.k_center_rows,
        }[config.method]
        networks = config.evaluation.networks
        features = clips_lib.embed(key, train, config.network, networks)
        rows = choose(features, train.labels, class_names, clips)
    return _of_clips(train, rows, class_names, config.coreset)


def _of_clips(
    train: Split | DeviceSplit | HostSplit,
    rows: Int[np.ndarray, " k"],
    class_names: tuple[str, ...],
    config: CoresetConfig,
) -> CoresetArrays:
    """A coreset of clips that are in class order."""
    images = multi_formation.shorten(train.take(rows), config.factor)
    return _labelled(images, len(class_names))


def _labelled(images: Array, num_classes: int) -> CoresetArrays:
    """Images in class order, with centred labels."""
    per_class = images.shape[0] // num_classes
    labels = jnp.repeat(jnp.arange(num_classes, dtype=jnp.int32), per_class)
    targets = centred_one_hot(labels, num_classes, images.dtype)
    return CoresetArrays(images, targets, jnp.zeros((), images.dtype))
