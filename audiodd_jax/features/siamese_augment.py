"""Differentiable Siamese augmentation: the key alone decides, whatever the clips.

Matching compares real and synthetic clips under the same augmentation, and
differentiates through it. Each augmentation is piecewise linear in the images. As in
``augment``, images are standardised, settings in dB are divided by the standard
deviation, and the silence of a clip is its lowest level.

References:
  Zhao and Bilen, *Dataset Condensation with Differentiable Siamese Augmentation*, ICML
  2021, whose augmentations are for images; these are for spectrograms.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

from audiodd_jax.config import SiameseConfig
from audiodd_jax.features.augment import random_band, silence
from audiodd_jax.features.normalization import Normalization

# ``(key, images, strength, stats)`` to images.
Change = Callable[[Key[Array, ""], Array, float, Normalization], Array]


def _resample(
    images: Float[Array, "b f t 1"],
    source: Float[Array, " size"],
    axis: int,
    stats: Normalization,
) -> Float[Array, "b f t 1"]:
    """Linear interpolation at positions ``source`` of an axis; silence outside of it.

    A matrix product: its gradient is the product with the transpose.
    """
    size = images.shape[axis]
    gap = jnp.abs(source[:, None] - jnp.arange(size))
    weights = jnp.maximum(1 - gap, 0).astype(images.dtype)
    spec = "gf,bftk->bgtk" if axis == 1 else "ut,bftk->bfuk"
    moved = jnp.einsum(spec, weights, images, precision=lax.Precision.HIGHEST)
    shape = [1, 1, 1, 1]
    shape[axis] = size
    outside = 1 - weights.sum(1).reshape(shape)
    return moved + outside * silence(images, stats)


def _per_bin(images: Array, stats: Normalization) -> Array:
    """One over the standard deviation in dB of each bin, for images."""
    std = jnp.asarray(stats.std, images.dtype)
    return jnp.broadcast_to(1 / std, images.shape[1:2])[None, :, None, None]


def _symmetric(key: Key[Array, ""], largest: float) -> Float[Array, ""]:
    return jax.random.uniform(key, (), minval=-largest, maxval=largest)


def _shift(axis: int) -> Change:
    def change(key: Array, images: Array, share: float, stats: Normalization) -> Array:
        size = images.shape[axis]
        by = _symmetric(key, share * size)
        return _resample(images, jnp.arange(size) - by, axis, stats)

    return change


def _stretch(key: Array, images: Array, share: float, stats: Normalization) -> Array:
    size = images.shape[2]
    rate = jnp.exp(_symmetric(key, 1.0) * jnp.log1p(share))
    middle = (size - 1) / 2
    return _resample(images, middle + (jnp.arange(size) - middle) * rate, 2, stats)


def _mask(axis: int) -> Change:
    def change(key: Array, images: Array, share: float, stats: Normalization) -> Array:
        shape = [1, 1, 1, 1]
        shape[axis] = images.shape[axis]
        band = random_band(key, 1, images.shape[axis], share).reshape(shape)
        return jnp.where(band, silence(images, stats), images)

    return change


def _gain(key: Array, images: Array, decibel: float, stats: Normalization) -> Array:
    gain = _symmetric(key, decibel).astype(images.dtype)
    return images + gain * _per_bin(images, stats)


def _noise(key: Array, images: Array, decibel: float, stats: Normalization) -> Array:
    level_key, noise_key = jax.random.split(key)
    level = jax.random.uniform(level_key, (), maxval=decibel).astype(images.dtype)
    noise = jax.random.normal(noise_key, images.shape[1:], images.dtype)
    return images + level * noise * _per_bin(images, stats)


# By the name of the setting of each one's strength.
CHANGES: dict[str, Change] = {
    "time_shift": _shift(2),
    "time_stretch": _stretch,
    "frequency_shift": _shift(1),
    "gain_db": _gain,
    "noise_db": _noise,
    "time_mask": _mask(2),
    "frequency_mask": _mask(1),
}


def change(
    key: Key[Array, ""],
    images: Float[Array, "b f t 1"],
    config: SiameseConfig,
    stats: Normalization,
) -> Float[Array, "b f t 1"]:
    """Augments all images alike.

    Args:
      key: the same for all images that are compared.
      images: standardised spectrograms.
      config: strength of each augmentation, and whether to apply one of them or all.
      stats: statistics that standardised the images.
    """
    which_key, *keys = jax.random.split(key, 1 + len(CHANGES))
    applied = [
        lambda x, k=k, f=f, size=size: f(k, x, size, stats)
        for k, (name, f) in zip(keys, CHANGES.items(), strict=True)
        if (size := getattr(config, name))
    ]
    if not applied:
        return images
    if config.mode == "one":
        which = jax.random.randint(which_key, (), 0, len(applied))
        return lax.switch(which, applied, images)
    for f in applied:
        images = f(images)
    return images


def change_each(
    key: Key[Array, ""],
    images: Float[Array, "b f t 1"],
    config: SiameseConfig,
    stats: Normalization,
) -> Float[Array, "b f t 1"]:
    """Augments each image independently, for training; same arguments."""
    one = lambda key, image: change(key, image[None], config, stats)[0]
    return jax.vmap(one)(jax.random.split(key, images.shape[0]), images)
