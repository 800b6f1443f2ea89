"""Differentiable Siamese augmentation: the same for all clips under one key.

Matching compares real and synthetic clips under the same augmentation and
differentiates through it. Each augmentation is piecewise linear in the images. As in
``augment``, images are standardised, settings in dB are divided by the standard
deviation, and the silence of a clip is its lowest level.

References:
  Zhao and Bilen, *Dataset Condensation with Differentiable Siamese Augmentation*, ICML
  2021, whose augmentations are for images; these are for spectrograms.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

from audiodd_jax.config import SiameseConfig
from audiodd_jax.features.augment import add_noise, mask, per_decibel, silence
from audiodd_jax.features.normalization import Normalization

# ``(key, images, strength, stats)`` to images.
Change = Callable[[Key[Array, ""], Array, float, Normalization], Array]


def _resample(
    images: Float[Array, "b f t 1"],
    source: Float[Array, " size"],
    axis: int,
    stats: Normalization,
) -> Float[Array, "b f t 1"]:
    """Interpolates an axis linearly at positions ``source``, with silence outside.

    As a matrix product, its gradient is the product with the transpose.
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


def _draw_symmetric(key: Key[Array, ""], largest: float) -> Float[Array, ""]:
    return jax.random.uniform(key, (), minval=-largest, maxval=largest)


def _shift(
    key: Array, images: Array, share: float, stats: Normalization, axis: int
) -> Array:
    size = images.shape[axis]
    by = _draw_symmetric(key, share * size)
    return _resample(images, jnp.arange(size) - by, axis, stats)


def _stretch(key: Array, images: Array, share: float, stats: Normalization) -> Array:
    size = images.shape[2]
    rate = jnp.exp(_draw_symmetric(key, 1.0) * jnp.log1p(share))
    middle = (size - 1) / 2
    return _resample(images, middle + (jnp.arange(size) - middle) * rate, 2, stats)


def _gain(key: Array, images: Array, decibel: float, stats: Normalization) -> Array:
    gain = _draw_symmetric(key, decibel).astype(images.dtype)
    return images + gain * per_decibel(images, stats)


# Augmentations by the name of the setting of their strength.
CHANGES: dict[str, Change] = {
    "time_shift": functools.partial(_shift, axis=2),
    "time_stretch": _stretch,
    "frequency_shift": functools.partial(_shift, axis=1),
    "gain_db": _gain,
    "noise_db": functools.partial(add_noise, draws=1),
    "time_mask": functools.partial(mask, axis=2, bands=1),
    "frequency_mask": functools.partial(mask, axis=1, bands=1),
}


def change(
    key: Key[Array, ""],
    images: Float[Array, "b f t 1"],
    config: SiameseConfig,
    stats: Normalization,
) -> Float[Array, "b f t 1"]:
    """Augments all images in the same way.

    Images that are compared must be augmented with the same key.
    """
    which_key, *keys = jax.random.split(key, 1 + len(CHANGES))
    applied = [
        lambda x, key=key, augment=augment, strength=strength: augment(
            key, x, strength, stats
        )
        for key, (name, augment) in zip(keys, CHANGES.items(), strict=True)
        if (strength := getattr(config, name))
    ]
    if not applied:
        return images
    if config.mode == "one":
        which = jax.random.randint(which_key, (), 0, len(applied))
        return lax.switch(which, applied, images)
    for augment in applied:
        images = augment(images)
    return images


def change_each(
    key: Key[Array, ""],
    images: Float[Array, "b f t 1"],
    config: SiameseConfig,
    stats: Normalization,
) -> Float[Array, "b f t 1"]:
    """Augments each image independently, for training."""
    change_image = lambda key, image: change(key, image[None], config, stats)[0]
    return jax.vmap(change_image)(jax.random.split(key, images.shape[0]), images)
