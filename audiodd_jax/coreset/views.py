"""Views: random changes of a coreset's spectrograms, reproducible from a seed.

A view is an augmentation of a spectrogram, and some views are mixed with another
spectrogram. Only the views' labels are stored; the views follow from the spectrograms,
the seed and the settings.

References:
  Shen, Xing, *A Fast Knowledge Distillation Framework for Visual Recognition*, ECCV
  2022 (stored soft labels of random crops). Beyer et al., *Knowledge Distillation: A
  Good Teacher is Patient and Consistent*, CVPR 2022 (teachers that label mixtures).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Key

from audiodd_jax.config import ViewsConfig
from audiodd_jax.features.augment import augment
from audiodd_jax.features.normalization import Normalization
from audiodd_jax.runtime.environment import standard_numerics

# Folded into a view's key, to draw its mixing partner.
_MIX = 1
# The seeds of layers, which are far from those of other runs.
_LAYER = 1_000_003


class Views(NamedTuple):
    """Standardised spectrograms, and the probabilities that a teacher gives them."""

    images: Float[Array | np.ndarray, "k f t 1"]
    labels: Float[Array | np.ndarray, "k c"]


def make(
    images: Float[Array | np.ndarray, "s f t 1"],
    count: int,
    config: ViewsConfig,
    stats: Normalization,
    seed: int,
    layers: Int[np.ndarray, " s"] | None = None,
) -> Float[np.ndarray, "k f t 1"]:
    """Makes ``k = count * s`` views: the first of every spectrogram, then the second...

    They are computed on the CPU, whatever the other devices and the settings of JAX:
    the same arguments give the same bits on machines of one kind. If ``count`` is 0,
    returns the spectrograms themselves.

    Args:
      layers: spectrograms are mixed with those of the same layer, and their views do
        not depend on the others (see ``coreset.sizes``); None: all with all.
    """
    if layers is not None:
        views = np.empty((max(count, 1), *images.shape), np.float32)
        for layer in np.unique(layers).tolist():
            rows = layers == layer
            own = make(images[rows], count, config, stats, seed + _LAYER * layer)
            views[:, rows] = own.reshape(-1, rows.sum(), *images.shape[1:])
        return views.reshape(-1, *images.shape[1:])
    images = np.asarray(images, np.float32)
    stats = Normalization(*(np.asarray(values, np.float32) for values in stats))
    if not count:
        return images
    cpu = jax.local_devices(backend="cpu")[0]
    with standard_numerics(float64=False), jax.default_device(cpu):

        @jax.jit
        def all_views(root: Key[Array, ""], images: Array) -> Array:
            one = lambda i: view(jax.random.fold_in(root, i), images, config, stats)
            return lax.map(one, jnp.arange(count))

        views = np.asarray(all_views(jax.random.key(seed), images))
    return views.reshape(-1, *images.shape[1:])


def view(
    key: Key[Array, ""],
    images: Float[Array, "s f t 1"],
    config: ViewsConfig,
    stats: Normalization,
) -> Float[Array, "s f t 1"]:
    """Returns one view of each spectrogram; differentiable in ``images``."""
    images = augment(key, images, config.augment, stats)
    if not config.mixed:
        return images
    mix_key = jax.random.fold_in(key, _MIX)
    pair_key, weight_key, which_key = jax.random.split(mix_key, 3)
    shape = (images.shape[0], 1, 1, 1)
    other = images[jax.random.permutation(pair_key, images.shape[0])]
    weight = jax.random.uniform(weight_key, shape)
    is_mixed = jax.random.uniform(which_key, shape) < config.mixed
    return jnp.where(is_mixed, weight * images + (1 - weight) * other, images)
