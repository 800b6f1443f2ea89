"""Initial coresets, and coresets that are a selection of real clips."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from audiodd_jax.config import Config, CoresetConfig
from audiodd_jax.coreset import packing
from audiodd_jax.coreset import selection as clips_lib
from audiodd_jax.coreset.arrays import CoresetArrays
from audiodd_jax.data import tags
from audiodd_jax.errors import UserError
from audiodd_jax.features.dataset import DeviceSplit, HostSplit, Split
from audiodd_jax.features.labels import centred_targets


def start(
    key: Key[Array, ""],
    train: Split | DeviceSplit | HostSplit,
    class_names: tuple[str, ...],
    config: Config,
) -> CoresetArrays:
    """The initial coreset of a run, by ``config.coreset.init``; not one from a file.

    Args:
      key: draws clips, noise, or the random networks that embed clips.
      train: clips to draw from.
      class_names: the classes.
      config: of the run.

    Raises:
      UserError: a class has too few clips, or ``factor`` does not divide the frames.
    """
    if config.coreset.init in ("herding", "k_center"):
        choice = dataclasses.replace(config, method=config.coreset.init)
        return selected(key, train, class_names, choice)
    return initial(key, train, class_names, config.coreset)


def filled(
    random: CoresetArrays,
    images: Float[Array, "k f t 1"],
    labels: Float[Array, "k c"],
    classes: Int[np.ndarray, " k"],
) -> CoresetArrays:
    """An initial coreset with an earlier coreset's spectrograms as its first ones.

    Args:
      random: an initial coreset of random clips, in class order.
      images: stored images of the earlier coreset, with the same normalisation.
      labels: its labels, in the order of the new classes.
      classes: for which class each image is.

    Raises:
      UserError: a class has more images there than the new coreset holds.
    """
    num_classes = random.labels.shape[1]
    per_class = random.labels.shape[0] // num_classes
    counts = np.bincount(classes, minlength=num_classes)
    if counts.max() > per_class:
        raise UserError(
            f"the initial coreset has {counts.max()} spectrograms of a class, more "
            f"than coreset.samples_per_class={per_class}"
        )
    order = np.argsort(classes, kind="stable")
    rank = np.arange(classes.size) - np.repeat(np.cumsum(counts) - counts, counts)
    rows = classes[order] * per_class + rank
    return random._replace(
        images=random.images.at[rows].set(images[order]),
        labels=random.labels.at[rows].set(labels[order]),
    )


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
      config: ``init`` is ``noise``, or else random clips; each image holds ``factor``
        of them.

    Raises:
      UserError: a class has too few clips, or ``factor`` does not divide the frames.
    """
    per_class = config.samples_per_class
    if per_class < 1:
        raise UserError(f"samples_per_class must be at least 1, not {per_class}")
    packing.check(train.image_shape[1], config.factor)
    if config.init == "noise":
        shape = (len(class_names) * per_class, *train.image_shape, 1)
        images = jax.random.normal(key, shape, jnp.float32)
        return _labelled(images, len(class_names))
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
    packing.check(train.image_shape[1], config.coreset.factor)
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
    """A coreset of clips that are in class order; of tags, with all tags of each."""
    images = packing.pack(train.take(rows), config.factor)
    if not tags.are_tags(train.labels):
        return _labelled(images, len(class_names))
    targets = centred_targets(train.labels[rows], len(class_names), images.dtype)
    # The clips of one stored image share its label.
    shared = targets.reshape(len(images), config.factor, -1).mean(1)
    return CoresetArrays(images, shared, jnp.zeros((), images.dtype))


def _labelled(images: Array, num_classes: int) -> CoresetArrays:
    """Images in class order, with centred labels."""
    per_class = images.shape[0] // num_classes
    labels = jnp.repeat(jnp.arange(num_classes, dtype=jnp.int32), per_class)
    targets = centred_targets(labels, num_classes, images.dtype)
    return CoresetArrays(images, targets, jnp.zeros((), images.dtype))
