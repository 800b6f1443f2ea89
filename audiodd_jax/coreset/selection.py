"""Selection of real clips: initial coresets, and baselines of the same size.

References:
  Welling, *Herding Dynamical Weights to Learn*, ICML 2009; Rebuffi et al., *iCaRL*,
  CVPR 2017 (herding selects exemplars). Sener and Savarese, *Active Learning for
  Convolutional Neural Networks: A Core-Set Approach*, ICLR 2018 (k-center).
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Key

from audiodd_jax.config import CoresetConfig, RandomNetworkConfig
from audiodd_jax.config.packing import Factor, Packing
from audiodd_jax.coreset.arrays import CoresetArrays, check_factor, pack
from audiodd_jax.coreset.clusters import k_medoids, squared_distances
from audiodd_jax.coreset.sizes import class_order, ranks_in_class
from audiodd_jax.data import tags
from audiodd_jax.errors import UserError
from audiodd_jax.features.clips import Clips
from audiodd_jax.features.labels import centred_targets
from audiodd_jax.kernels import random_kernels

# Clips embedded at once.
_CHUNK = 512
# Seed of the medoids' first clusters.
_SEEDING = 0


class Embedding(NamedTuple):
    """Random networks, ``count`` of them, or an encoder, which embed clips.

    Attributes:
      encoded: the same clips as embeddings of an encoder; None: random networks.
    """

    network: RandomNetworkConfig
    count: int
    encoded: Clips | None = None


def start(
    key: Key[Array, ""],
    train: Clips,
    class_names: tuple[str, ...],
    sizes: Int[np.ndarray, " c"],
    config: CoresetConfig,
    embedding: Embedding | None = None,
) -> CoresetArrays:
    """Makes the initial coreset that ``config.init`` names, unless it names a file.

    It has ``sizes`` images of the classes (``coreset.sizes``), in class order.

    Raises:
      UserError: a class has too few clips, or ``factor`` does not divide a spectrogram.
    """
    drawn = (key, train, class_names, sizes, config.factor)
    if config.init in ("herding", "k_center"):
        return selected(config.init, *drawn, embedding)
    check_factor(train.image_shape, config.factor)
    if config.init == "noise":
        packing = Packing.parse(config.factor)
        shape = (sizes.sum(), *packing.image_shape(train.image_shape), 1)
        return _labelled(jax.random.normal(key, shape, jnp.float32), sizes)
    try:
        return selected("random", *drawn)
    except UserError as error:
        raise UserError(f"{error}, or pass --config.coreset.init=noise") from error


def selected(
    method: str,
    key: Key[Array, ""],
    train: Clips,
    class_names: tuple[str, ...],
    sizes: Int[np.ndarray, " c"],
    factor: Factor,
    embedding: Embedding | None = None,
) -> CoresetArrays:
    """Selects real clips as a coreset, by a method of ``CHOOSE``."""
    count = Packing.parse(factor).per_image
    rows = select(method, key, train, class_names, sizes * count, embedding)
    return stored(train, rows, sizes, factor)


def stored(
    train: Clips,
    rows: Int[np.ndarray, " k"],
    sizes: Int[np.ndarray, " c"],
    factor: Factor,
) -> CoresetArrays:
    """Stores clips in class order as a coreset, packed as ``factor`` says.

    ``sizes`` are the stored images of each class.
    """
    check_factor(train.image_shape, factor)
    images = pack(train.take(rows), factor)
    if not tags.are_tags(train.labels):
        return _labelled(images, sizes)
    # A clip keeps all of its tags; the clips of one stored image share their mean.
    targets = centred_targets(train.labels[rows], sizes.size, images.dtype)
    count = Packing.parse(factor).per_image
    labels = targets.reshape(len(images), count, -1).mean(1)
    return CoresetArrays(images, labels, jnp.zeros((), images.dtype))


def filled(
    random: CoresetArrays,
    images: Float[Array, "k f t 1"],
    labels: Float[Array, "k c"],
    classes: Int[np.ndarray, " k"],
    sizes: Int[np.ndarray, " c"],
    class_names: tuple[str, ...],
) -> CoresetArrays:
    """Puts an earlier coreset's spectrograms first in each class of an initial coreset.

    ``random`` has ``sizes`` random clips, in class order. ``images`` are as stored,
    with the same normalisation.

    Raises:
      UserError: the earlier coreset has more images of a class than the new one holds.
    """
    has = np.bincount(classes, minlength=sizes.size)
    over = int((has - sizes).argmax())
    if has[over] > sizes[over]:
        raise UserError(
            f"the initial coreset has {has[over]} spectrograms of the class "
            f"{class_names[over]!r}, more than the {sizes[over]} of this one"
        )
    rows = (np.cumsum(sizes) - sizes)[classes] + ranks_in_class(classes)
    return random._replace(
        images=random.images.at[rows].set(images),
        labels=random.labels.at[rows].set(labels),
    )


def _labelled(images: Array, sizes: Int[np.ndarray, " c"]) -> CoresetArrays:
    """``sizes`` images of the classes, in their order, with centred labels."""
    labels = jnp.asarray(class_order(sizes), jnp.int32)
    targets = centred_targets(labels, sizes.size, images.dtype)
    return CoresetArrays(images, targets, jnp.zeros((), images.dtype))


def select(
    method: str,
    key: Key[Array, ""],
    clips: Clips,
    class_names: tuple[str, ...],
    sizes: Int[np.ndarray, " c"],
    embedding: Embedding | None,
) -> Int[np.ndarray, " s"]:
    """Selects ``sizes`` clips of the classes by a method of ``CHOOSE``.

    The embedding is not used by ``random``.
    """
    if method == "random":
        given = np.asarray(jax.random.permutation(key, len(clips.labels)))
    else:
        given = embed(key, clips, embedding)
    return class_by_class(method, given, clips.labels, class_names, sizes)


def class_by_class(
    method: str,
    given: Int[np.ndarray, " b"] | Float[Array, "b d"],
    labels: Int[Array, "b *c"],
    class_names: tuple[str, ...],
    sizes: Int[np.ndarray, " c"],
) -> Int[np.ndarray, " s"]:
    """Chooses ``sizes`` clips of the classes, as ``by_class`` does.

    ``given`` is what the method chooses by: a random order, or features.
    """
    choose = functools.partial(CHOOSE[method], given)
    return by_class(choose, labels, class_names, sizes)


def by_class(
    choose: Callable[..., Int[Array | np.ndarray, " count"]],
    labels: Int[Array, "b *c"],
    class_names: tuple[str, ...],
    sizes: Int[np.ndarray, " c"],
) -> Int[np.ndarray, " s"]:
    """Chooses ``sizes`` clips; returns them in class order, without repetitions.

    A clip with several tags can be chosen for any one of them, so rare tags choose
    first. ``choose`` takes masks of a class's clips and of its free clips, and their
    number.
    """
    labels = np.asarray(labels)
    counts = tags.counts(labels, len(class_names))
    has_tags = tags.are_tags(labels)
    order = np.argsort(counts, kind="stable") if has_tags else np.arange(counts.size)
    is_free, rows = np.ones(len(labels), bool), {}
    for label in order.tolist():
        members = labels[:, label] > 0 if has_tags else labels == label
        free = members & is_free
        if (left := int(free.sum())) < (size := int(sizes[label])):
            text = f"{left} clips of the class {class_names[label]!r} are available"
            if has_tags:
                text = (
                    f"{left} clips with the tag {class_names[label]!r} are left after "
                    "rarer tags have chosen theirs"
                )
            raise UserError(f"{text}, but {size} are needed; lower samples_per_class")
        rows[label] = np.asarray(choose(members, free, size))
        is_free[rows[label]] = False
    return np.concatenate([rows[label] for label in range(counts.size)])


def random_fraction(
    key: Key[Array, ""], labels: Int[Array, "b *c"], clips: int
) -> Int[np.ndarray, " s"]:
    """Draws ``clips`` clips, stratified by class or rarest tag; all if there are fewer.

    Remainders go to random classes.
    """
    clips = min(clips, len(labels))
    order = np.asarray(jax.random.permutation(key, len(labels)))
    shuffled = tags.strata(np.asarray(labels))[order]
    # Each clip's rank within its class, as a fraction of it; the lowest are kept.
    share = (ranks_in_class(shuffled) + 0.5) / np.bincount(shuffled)[shuffled]
    return np.sort(order[np.argsort(share, kind="stable")[:clips]])


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
    """Chooses ``count`` clips by greedy k-center.

    Gaps are squared distances to the nearest centre so far, infinite without a centre,
    and -1 for excluded clips. The highest noise, above -1, breaks ties.
    """

    def choose(gaps: Array, _: None) -> tuple[Array, Array]:
        row = highest(gaps, noise)
        gaps = jnp.minimum(gaps, squared_distances(features, features[row]))
        return gaps.at[row].set(-1.0), row

    # Chosen clips have a gap of -1, below the 0 of duplicates of a centre.
    return lax.scan(choose, gaps, None, count)[1]


# The functions below take masks of a class's clips, and of its free clips.


def _random(
    order: Int[np.ndarray, " b"], _: np.ndarray, free: np.ndarray, count: int
) -> Int[np.ndarray, " count"]:
    return order[free[order]][:count]


def _mean(features: Array, members: Array | np.ndarray) -> Float[Array, " d"]:
    return jnp.sum(jnp.where(members[:, None], features, 0), 0) / members.sum()


@functools.partial(jax.jit, static_argnums=3)
def _herding(
    features: Float[Array, "b d"], members: Array, free: Array, count: int
) -> Int[Array, " count"]:
    """Each step adds the clip that minimises ``|| mu - (sum + phi) / (i + 1) ||``."""
    mean = _mean(features, members)
    norms = jnp.sum(features**2, 1)

    def next_clip(carry: tuple, i: Array) -> tuple[tuple, Array]:
        total, free = carry
        # || (i + 1) mu - total - phi ||^2, without constant terms.
        target = (i + 1) * mean - total
        gap = norms - 2 * jnp.dot(features, target, precision="highest")
        row = jnp.argmin(jnp.where(free, gap, jnp.inf))
        return (total + features[row], free.at[row].set(False)), row

    start = (jnp.zeros_like(mean), free)
    return lax.scan(next_clip, start, jnp.arange(count))[1]


def _k_center(
    features: Float[Array, "b d"], members: np.ndarray, free: np.ndarray, count: int
) -> Int[Array, " count"]:
    """The clip nearest to the mean, and then always the farthest from those before."""
    nearness = 1 / (1 + squared_distances(features, _mean(features, members)))
    # Clips of other classes count as chosen.
    gaps = jnp.where(free, jnp.inf, -1.0)
    return farthest_first(features, gaps, nearness, count)


def _medoids(
    features: Float[Array, "b d"], _: np.ndarray, free: np.ndarray, count: int
) -> Int[np.ndarray, " count"]:
    """The medoids of ``count`` clusters of the class."""
    rows = np.flatnonzero(free)
    key = jax.random.key(_SEEDING)
    return rows[np.asarray(k_medoids(key, features[rows], count))]


CHOOSE = {
    "random": _random,
    "herding": _herding,
    "k_center": _k_center,
    "medoids": _medoids,
}


def embed(
    key: Key[Array, ""], clips: Clips, embedding: Embedding
) -> Float[Array, "b d"]:
    """Features of clips under random networks, or by an encoder, of unit length."""
    if embedding.encoded is not None:
        images = embedding.encoded.images
        return unit_length(images.reshape(len(images), -1))
    config = embedding.network
    networks = random_kernels.sample_networks(
        key, embedding.count, clips.image_shape, config
    )

    @jax.jit
    def part(images: Array) -> Array:
        phi = random_kernels.features(networks, images, config)
        return unit_length(jnp.moveaxis(phi, 0, 1).reshape(len(images), -1))

    rows = np.arange(len(clips.labels))
    starts = range(0, rows.size, _CHUNK)
    return jnp.concatenate(
        [part(clips.take(rows[start : start + _CHUNK])) for start in starts]
    )


def unit_length(phi: Float[Array, "b d"]) -> Float[Array, "b d"]:
    """Scales features to unit length."""
    return phi / jnp.linalg.norm(phi, axis=1, keepdims=True)


def check_counts(labels: Int[Array, "b *c"], class_names: tuple[str, ...]) -> None:
    """Refuses a class without clips."""
    counts = tags.counts(np.asarray(labels), len(class_names))
    if not counts.all():
        name = class_names[int(counts.argmin())]
        raise UserError(f"the class {name!r} has 0 training clips")
