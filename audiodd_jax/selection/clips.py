"""Selection of real clips: the baselines of a coreset of the same size.

References:
  Welling, *Herding Dynamical Weights to Learn*, ICML 2009; Rebuffi et al., *iCaRL*,
  CVPR 2017 (herding selects exemplars). Sener and Savarese, *Active Learning for
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

# Clips embedded at once.
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
    order = jax.random.permutation(key, len(labels))
    order = np.asarray(order[jnp.argsort(labels[order], stable=True)])
    starts = np.cumsum(counts) - counts
    return order[(starts[:, None] + np.arange(per_class)).reshape(-1)]


def random_fraction(
    key: Key[Array, ""], labels: Int[Array, " b"], clips: int
) -> Int[np.ndarray, " s"]:
    """``clips`` random clips, stratified by class, or all if there are fewer.

    Remainders go to random classes.
    """
    clips = min(clips, len(labels))
    order = np.asarray(jax.random.permutation(key, len(labels)))
    shuffled = np.asarray(labels)[order]
    # Each clip's rank within its class, as a fraction of it; the lowest are kept.
    by_class = np.argsort(shuffled, kind="stable")
    counts = np.bincount(shuffled)
    ranks = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    share = np.empty(len(labels))
    share[by_class] = (ranks + 0.5) / np.repeat(counts, counts)
    return np.sort(order[np.argsort(share, kind="stable")[:clips]])


def herding_rows(
    features: Float[Array, "b d"],
    labels: Int[Array, " b"],
    class_names: tuple[str, ...],
    per_class: int,
) -> Int[np.ndarray, " s"]:
    """Clips of each class whose mean approximates the class's mean, greedily.

    Each step adds the clip that minimises ``|| mu - (sum + phi) / (i + 1) ||``.

    Raises:
      UserError: a class has fewer than ``per_class`` clips.
    """
    check_counts(labels, class_names, per_class)

    @jax.jit
    def choose(features: Array, mine: Array) -> Array:
        mean = jnp.sum(jnp.where(mine[:, None], features, 0), 0) / mine.sum()
        norms = jnp.sum(features**2, 1)

        def next_clip(carry: tuple, i: Array) -> tuple[tuple, Array]:
            total, free = carry
            # || (i + 1) mu - total - phi ||^2, without constant terms.
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
    """Clips that cover each class: each is the farthest from the ones before it.

    The first is nearest to the class's mean.

    Raises:
      UserError: a class has fewer than ``per_class`` clips.
    """
    check_counts(labels, class_names, per_class)
    chosen = []
    for label in range(len(class_names)):
        mine = labels == label
        mean = jnp.sum(jnp.where(mine[:, None], features, 0), 0) / mine.sum()
        nearness = 1 / (1 + squared_distances(features, mean))
        # Clips of other classes count as chosen.
        gaps = jnp.where(mine, jnp.inf, -1.0)
        chosen.append(farthest_first(features, gaps, nearness, per_class))
    return np.concatenate([np.asarray(rows) for rows in chosen])


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
    labels: Int[Array, " b"], class_names: tuple[str, ...], per_class: int = 1
) -> Int[np.ndarray, " c"]:
    """The number of clips in each class, at least ``per_class``.

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
            "training clips; lower it (or --config.coreset.factor, which multiplies it)"
        )
    return counts
