"""Choosing real clips: what a coreset of the same size is compared with.

References:
  Welling, *Herding Dynamical Weights to Learn*, ICML 2009; Rebuffi et al., *iCaRL*,
  CVPR 2017 (herding as a choice of exemplars). Sener and Savarese, *Active Learning for
  Convolutional Neural Networks: A Core-Set Approach*, ICLR 2018 (k-center).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Key

from audiodd_jax.config import RandomNetworkConfig
from audiodd_jax.features.dataset import DeviceSplit, HostSplit, Split
from audiodd_jax.kernels import random_features
from audiodd_jax.networks import random_conv
from audiodd_jax.runtime.errors import UserError

# Clips whose features are computed at once.
_CHUNK = 512


def random_rows(
    key: Key[Array, ""],
    labels: Int[Array, " b"],
    class_names: tuple[str, ...],
    per_class: int,
) -> Int[np.ndarray, " s"]:
    """``per_class`` random clips of each class, without replacement, in class order.

    Raises:
      UserError: a class has fewer.
    """
    counts = check_counts(labels, class_names, per_class)
    # Shuffled, then sorted stably by class: each class's clips in random order.
    order = jax.random.permutation(key, labels.size)
    order = np.asarray(order[jnp.argsort(labels[order], stable=True)])
    starts = np.cumsum(counts) - counts
    return order[(starts[:, None] + np.arange(per_class)).reshape(-1)]


def random_fraction(
    key: Key[Array, ""], labels: Int[Array, " b"], clips: int
) -> Int[np.ndarray, " s"]:
    """``clips`` random ones, as many of each class as its share of all.

    What does not divide goes to random classes. All clips, where there are fewer.
    """
    clips = min(clips, labels.size)
    order = np.asarray(jax.random.permutation(key, labels.size))
    shuffled = np.asarray(labels)[order]
    # The rank of each clip within its class, as a share of it: cut where it suffices.
    by_class = np.argsort(shuffled, kind="stable")
    counts = np.bincount(shuffled)
    ranks = np.arange(labels.size) - np.repeat(np.cumsum(counts) - counts, counts)
    share = np.empty(labels.size)
    share[by_class] = (ranks + 0.5) / np.repeat(counts, counts)
    return np.sort(order[np.argsort(share, kind="stable")[:clips]])


def herding_rows(
    features: Float[Array, "b d"],
    labels: Int[Array, " b"],
    class_names: tuple[str, ...],
    per_class: int,
) -> Int[np.ndarray, " s"]:
    """Clips of each class whose mean follows the class's mean, greedily.

    Each next clip is the one that brings the mean of the chosen nearest to that of the
    class: ``argmin || mu - (sum + phi) / (i + 1) ||``.

    Raises:
      UserError: a class has fewer clips than asked for.
    """
    check_counts(labels, class_names, per_class)

    @jax.jit
    def choose(features: Array, mine: Array) -> Array:
        mean = jnp.sum(jnp.where(mine[:, None], features, 0), 0) / mine.sum()
        norms = jnp.sum(features**2, 1)

        def next_clip(carry: tuple, i: Array) -> tuple[tuple, Array]:
            total, free = carry
            # || (i + 1) mu - total - phi ||^2, less what no clip changes.
            target = (i + 1) * mean - total
            gap = norms - 2 * jnp.dot(features, target, precision="highest")
            row = jnp.argmin(jnp.where(free, gap, jnp.inf))
            return (total + features[row], free.at[row].set(False)), row

        start = (jnp.zeros_like(mean), mine)
        return lax.scan(next_clip, start, jnp.arange(per_class))[1]

    chosen = [choose(features, labels == c) for c in range(len(class_names))]
    return np.concatenate([np.asarray(rows) for rows in chosen])


def k_center_rows(
    features: Float[Array, "b d"],
    labels: Int[Array, " b"],
    class_names: tuple[str, ...],
    per_class: int,
) -> Int[np.ndarray, " s"]:
    """Clips of each class that cover it: each is the farthest from all before it.

    The first is the one nearest to the class's mean.

    Raises:
      UserError: a class has fewer clips than asked for.
    """
    check_counts(labels, class_names, per_class)
    chosen = []
    for label in range(len(class_names)):
        mine = labels == label
        mean = jnp.sum(jnp.where(mine[:, None], features, 0), 0) / mine.sum()
        nearness = 1 / (1 + squared_distances(features, mean))
        # Clips of other classes are as if chosen already.
        gaps = jnp.where(mine, jnp.inf, -1.0)
        chosen.append(farthest_first(features, gaps, nearness, per_class))
    return np.concatenate([np.asarray(rows) for rows in chosen])


def squared_distances(
    features: Float[Array, "b d"], centres: Float[Array, "*k d"]
) -> Float[Array, "b *k"]:
    """``||h - centre||^2``, by products."""
    products = jnp.dot(features, centres.T, precision=lax.Precision.HIGHEST)
    norms = jnp.sum(features**2, 1).reshape(-1, *(1,) * (centres.ndim - 1))
    return jnp.maximum(norms + jnp.sum(centres**2, -1) - 2 * products, 0.0)


def highest(scores: Float[Array, " b"], noise: Float[Array, " b"]) -> Int[Array, ""]:
    """Place of the highest score; of equals, that of the highest noise, above -1."""
    return jnp.argmax(jnp.where(scores == scores.max(), noise, -1.0))


@functools.partial(jax.jit, static_argnums=3)
def farthest_first(
    features: Float[Array, "b d"],
    gaps: Float[Array, " b"],
    noise: Float[Array, " b"],
    count: int,
) -> Int[Array, " count"]:
    """Greedy k-center, from the squared distances to the centres so far.

    Args:
      features: of the clips.
      gaps: squared distances; infinite where there is no centre yet, -1 for a clip that
        is not to be chosen.
      noise: above -1; the highest decides between equals.
      count: clips to choose.
    """

    def choose(gaps: Array, _: None) -> tuple[Array, Array]:
        place = highest(gaps, noise)
        gaps = jnp.minimum(gaps, squared_distances(features, features[place]))
        return gaps.at[place].set(-1.0), place

    # What is chosen has a gap of -1, below the 0 of what lies on a centre.
    return lax.scan(choose, gaps, None, count)[1]


def embed(
    key: Key[Array, ""],
    clips: Split | DeviceSplit | HostSplit,
    config: RandomNetworkConfig,
    num_networks: int,
) -> Float[Array, "b d"]:
    """Features of clips under random networks, scaled to length one.

    Args:
      key: draws the networks.
      clips: real ones.
      config: of the networks.
      num_networks: how many.
    """
    networks = random_features.sample_networks(
        key, num_networks, clips.image_shape, config, jnp.float32
    )

    @jax.jit
    def part(images: Array) -> Array:
        one = lambda network: random_conv.apply(network, images, config)
        phi = jnp.moveaxis(lax.map(one, networks), 0, 1).reshape(len(images), -1)
        return phi / jnp.linalg.norm(phi, axis=1, keepdims=True)

    starts = range(0, clips.labels.size, _CHUNK)
    chunks = (
        clips.take(np.arange(start, min(start + _CHUNK, clips.labels.size)))
        for start in starts
    )
    return jnp.concatenate([part(images) for images in chunks])


def check_counts(
    labels: Int[Array, " b"], class_names: tuple[str, ...], per_class: int = 1
) -> Int[np.ndarray, " c"]:
    """Clips of each class, of which each has ``per_class`` at least.

    Raises:
      UserError: a class has fewer.
    """
    counts = np.bincount(np.asarray(labels), minlength=len(class_names))
    fewest = int(counts.argmin())
    if counts[fewest] < per_class:
        name, there = class_names[fewest], counts[fewest]
        if not there:
            raise UserError(f"the class {name!r} has 0 training clips")
        raise UserError(
            f"samples_per_class={per_class}, but the class {name!r} has {there} "
            "training clips; lower it (or --config.coreset.factor, which multiplies "
            "it), or pass --config.coreset.init=noise"
        )
    return counts
