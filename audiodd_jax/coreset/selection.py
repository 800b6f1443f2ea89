"""Selection of real clips: the baselines of a coreset of the same size.

References:
  Welling, *Herding Dynamical Weights to Learn*, ICML 2009; Rebuffi et al., *iCaRL*,
  CVPR 2017 (herding selects exemplars). Sener and Savarese, *Active Learning for
  Convolutional Neural Networks: A Core-Set Approach*, ICLR 2018 (k-center).
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key

from audiodd_jax.config import RandomNetworkConfig
from audiodd_jax.data import tags
from audiodd_jax.errors import UserError
from audiodd_jax.features.dataset import DeviceSplit, HostSplit, Split
from audiodd_jax.kernels import random_features
from audiodd_jax.networks import random_conv

# Clips embedded at once.
_CHUNK = 512


def random_rows(
    key: Key[Array, ""],
    labels: Int[Array, "b *c"],
    class_names: tuple[str, ...],
    per_class: int,
) -> Int[np.ndarray, " s"]:
    """``per_class`` random clips of each class, without replacement, in class order.

    Raises:
      UserError: a class has fewer.
    """
    order = np.asarray(jax.random.permutation(key, len(labels)))
    first = lambda mine, free: order[free[order]][:per_class]
    return _class_by_class(first, labels, class_names, per_class)


def _class_by_class(
    choose: Callable[[Bool[np.ndarray, " b"], Bool[np.ndarray, " b"]], Any],
    labels: Int[Array, "b *c"],
    class_names: tuple[str, ...],
    per_class: int,
) -> Int[np.ndarray, " s"]:
    """The clips that are chosen for each class, in class order, none of them twice.

    A clip with several tags can be chosen for any one of them, so that rare tags choose
    first.

    Args:
      choose: ``(mine, free)``, the clips of a class and those of them that are not
        chosen yet, to ``per_class`` rows.
      labels: classes or tags.
      class_names: the classes.
      per_class: clips per class.

    Raises:
      UserError: a class has fewer.
    """
    counts = check_counts(labels, class_names, per_class)
    labels = np.asarray(labels)
    has_tags = tags.are_tags(labels)
    order = np.argsort(counts, kind="stable") if has_tags else np.arange(counts.size)
    is_free, rows = np.ones(len(labels), bool), {}
    for label in order.tolist():
        mine = labels[:, label] > 0 if has_tags else labels == label
        free = mine & is_free
        if (left := int(free.sum())) < per_class:
            raise UserError(
                f"samples_per_class={per_class}, but {left} clips with the tag "
                f"{class_names[label]!r} are left once rarer tags have theirs; lower it"
            )
        rows[label] = np.asarray(choose(mine, free))
        is_free[rows[label]] = False
    return np.concatenate([rows[label] for label in range(counts.size)])


def random_fraction(
    key: Key[Array, ""], labels: Int[Array, "b *c"], clips: int
) -> Int[np.ndarray, " s"]:
    """``clips`` random clips, stratified by class or rarest tag; all if fewer.

    Remainders go to random classes.
    """
    clips = min(clips, len(labels))
    order = np.asarray(jax.random.permutation(key, len(labels)))
    shuffled = tags.strata(np.asarray(labels))[order]
    # Each clip's rank within its class, as a fraction of it; the lowest are kept.
    by_class = np.argsort(shuffled, kind="stable")
    counts = np.bincount(shuffled)
    ranks = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    share = np.empty(len(labels))
    share[by_class] = (ranks + 0.5) / np.repeat(counts, counts)
    return np.sort(order[np.argsort(share, kind="stable")[:clips]])


def herding_rows(
    features: Float[Array, "b d"],
    labels: Int[Array, "b *c"],
    class_names: tuple[str, ...],
    per_class: int,
) -> Int[np.ndarray, " s"]:
    """Clips of each class whose mean approximates the class's mean, greedily.

    Each step adds the clip that minimises ``|| mu - (sum + phi) / (i + 1) ||``.

    Raises:
      UserError: a class has fewer than ``per_class`` clips.
    """

    @jax.jit
    def choose(features: Array, mine: Array, free: Array) -> Array:
        mean = jnp.sum(jnp.where(mine[:, None], features, 0), 0) / mine.sum()
        norms = jnp.sum(features**2, 1)

        def next_clip(carry: tuple, i: Array) -> tuple[tuple, Array]:
            total, free = carry
            # || (i + 1) mu - total - phi ||^2, without constant terms.
            target = (i + 1) * mean - total
            gap = norms - 2 * jnp.dot(features, target, precision="highest")
            row = jnp.argmin(jnp.where(free, gap, jnp.inf))
            return (total + features[row], free.at[row].set(False)), row

        start = (jnp.zeros_like(mean), free)
        return lax.scan(next_clip, start, jnp.arange(per_class))[1]

    of_class = functools.partial(choose, features)
    return _class_by_class(of_class, labels, class_names, per_class)


def k_center_rows(
    features: Float[Array, "b d"],
    labels: Int[Array, "b *c"],
    class_names: tuple[str, ...],
    per_class: int,
) -> Int[np.ndarray, " s"]:
    """Clips that cover each class: each is the farthest from the ones before it.

    The first is nearest to the class's mean.

    Raises:
      UserError: a class has fewer than ``per_class`` clips.
    """

    def choose(mine: np.ndarray, free: np.ndarray) -> Int[Array, " count"]:
        mean = jnp.sum(jnp.where(mine[:, None], features, 0), 0) / mine.sum()
        nearness = 1 / (1 + squared_distances(features, mean))
        # Clips of other classes count as chosen.
        gaps = jnp.where(free, jnp.inf, -1.0)
        return farthest_first(features, gaps, nearness, per_class)

    return _class_by_class(choose, labels, class_names, per_class)


def squared_distances(
    features: Float[Array, "b d"], centres: Float[Array, "*k d"]
) -> Float[Array, "b *k"]:
    """``||h - centre||^2``, by matrix products."""
    products = jnp.dot(features, centres.T, precision=lax.Precision.HIGHEST)
    norms = jnp.sum(features**2, 1).reshape(-1, *(1,) * (centres.ndim - 1))
    return jnp.maximum(norms + jnp.sum(centres**2, -1) - 2 * products, 0.0)


def highest(scores: Float[Array, " b"], noise: Float[Array, " b"]) -> Int[Array, ""]:
    """Index of the highest score; ties are broken by the highest noise, above -1."""
    return jnp.argmax(jnp.where(scores == scores.max(), noise, -1.0))


@functools.partial(jax.jit, static_argnums=3)
def farthest_first(
    features: Float[Array, "b d"],
    gaps: Float[Array, " b"],
    noise: Float[Array, " b"],
    count: int,
) -> Int[Array, " count"]:
    """Greedy k-center, given the squared distances to the centres so far.

    Args:
      features: of the clips.
      gaps: squared distances; infinite without a centre, -1 for excluded clips.
      noise: above -1; the highest breaks ties.
      count: clips to choose.
    """

    def choose(gaps: Array, _: None) -> tuple[Array, Array]:
        place = highest(gaps, noise)
        gaps = jnp.minimum(gaps, squared_distances(features, features[place]))
        return gaps.at[place].set(-1.0), place

    # Chosen clips have a gap of -1, below the 0 of duplicates of a centre.
    return lax.scan(choose, gaps, None, count)[1]


def embed(
    key: Key[Array, ""],
    clips: Split | DeviceSplit | HostSplit,
    config: RandomNetworkConfig,
    num_networks: int,
) -> Float[Array, "b d"]:
    """Features of clips under random networks, scaled to unit length.

    Args:
      key: draws the networks.
      clips: real clips.
      config: of the networks.
      num_networks: number of networks.
    """
    networks = random_features.sample_networks(
        key, num_networks, clips.image_shape, config, jnp.float32
    )

    @jax.jit
    def part(images: Array) -> Array:
        one = lambda network: random_conv.apply(network, images, config)
        phi = jnp.moveaxis(lax.map(one, networks), 0, 1).reshape(len(images), -1)
        return phi / jnp.linalg.norm(phi, axis=1, keepdims=True)

    starts = range(0, len(clips.labels), _CHUNK)
    chunks = (
        clips.take(np.arange(start, min(start + _CHUNK, len(clips.labels))))
        for start in starts
    )
    return jnp.concatenate([part(images) for images in chunks])


def check_counts(
    labels: Int[Array, "b *c"], class_names: tuple[str, ...], per_class: int = 1
) -> Int[np.ndarray, " c"]:
    """The number of clips in each class, at least ``per_class``.

    Raises:
      UserError: a class has fewer.
    """
    counts = tags.counts(np.asarray(labels), len(class_names))
    fewest = int(counts.argmin())
    if counts[fewest] < per_class:
        name, there = class_names[fewest], counts[fewest]
        if not there:
            raise UserError(f"the class {name!r} has 0 training clips")
        raise UserError(
            f"samples_per_class={per_class}, but the class {name!r} has {there} "
            "training clips; lower it (or --config.coreset.factor, which multiplies it)"
        )
    return counts
