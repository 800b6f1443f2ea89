"""Random augmentation of spectrograms, as pure functions of a key.

``augment`` draws for each clip. ``siamese`` changes all clips in the same way: matching
compares real and synthetic clips under one key, and differentiates through the change,
which is piecewise linear in the images.

All functions act on standardised spectrograms, so that settings in dB are divided by
the standard deviation. The silence of a clip is its lowest level in dB.

References:
  Park et al., *SpecAugment*, Interspeech 2019 (the masks). Zhao and Bilen, *Dataset
  Condensation with Differentiable Siamese Augmentation*, ICML 2021, whose augmentations
  are for images.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Key, Num

from audiodd_jax.config import AugmentConfig, SiameseConfig
from audiodd_jax.features.normalization import Normalization, apply, invert

# Natural logarithm of power per dB.
_PER_DB = math.log(10) / 10
# Range in dB of the random signal-to-noise ratio.
_SNR_RANGE = 30.0


def time_shift(
    key: Key[Array, ""],
    images: Float[Array, "b f t 1"],
    share: float,
    stats: Normalization,
) -> Float[Array, "b f t 1"]:
    """Shifts each clip by up to ``share`` of its frames, and fills with silence."""
    b, _, t, _ = images.shape
    most = int(share * t)
    shift = jax.random.randint(key, (b, 1), -most, most + 1)
    source = jnp.arange(t)[None] - shift
    inside = (source >= 0) & (source < t)
    moved = jnp.take_along_axis(
        images, jnp.clip(source, 0, t - 1)[:, None, :, None], axis=2
    )
    return jnp.where(inside[:, None, :, None], moved, silence(images, stats))


def mask(
    key: Key[Array, ""],
    images: Float[Array, "b f t 1"],
    share: float,
    stats: Normalization,
    axis: int,
    bands: int,
) -> Float[Array, "b f t 1"]:
    """Silences a band of mel bins (axis 1) or frames (axis 2) of each clip.

    It covers at most a ``share`` of the axis. ``bands`` is ``b``, or 1 for one band
    that all clips share.
    """
    size = images.shape[axis]
    width_key, position_key = jax.random.split(key)
    width: Int[Array, "bands 1"] = jax.random.randint(
        width_key, (bands, 1), 0, int(share * size) + 1
    )
    room = size - width + 1
    start = (jax.random.uniform(position_key, (bands, 1)) * room).astype(jnp.int32)
    position = jnp.arange(size)[None]
    band = (position >= start) & (position < start + width)
    band = band[:, :, None, None] if axis == 1 else band[:, None, :, None]
    return jnp.where(band, silence(images, stats), images)


def add_noise(
    key: Key[Array, ""],
    images: Float[Array, "b f t 1"],
    largest: float,
    stats: Normalization,
    draws: int,
) -> Float[Array, "b f t 1"]:
    """Adds Gaussian noise of a random level of up to ``largest`` dB.

    ``draws`` is ``b``, or 1 for noise that all clips share.
    """
    level_key, noise_key = jax.random.split(key)
    level = jax.random.uniform(level_key, (draws, 1, 1, 1), maxval=largest)
    shape = (draws, *images.shape[1:])
    noise = jax.random.normal(noise_key, shape, images.dtype)
    return images + level.astype(images.dtype) * noise * per_decibel(images, stats)


def per_decibel(
    images: Float[Array, "b f t 1"], stats: Normalization
) -> Float[Array, "1 f 1 1"]:
    """Returns the change of standardised images per dB: one over the deviation."""
    return 1 / jnp.asarray(stats.std, images.dtype)[None, :, None, None]


def add_background(
    key: Key[Array, ""],
    images: Float[Array, "b f t 1"],
    noise: Num[Array, "pieces f t"],
    config: AugmentConfig,
    stats: Normalization,
) -> Float[Array, "b f t 1"]:
    """Adds the power of random pieces of noise to a random fraction of the clips.

    The loudest bin of a clip keeps its level, and its lowest value stays the floor.
    """
    which_key, level_key, share_key = jax.random.split(key, 3)
    b = images.shape[0]
    decibel = invert(images, stats)
    peak = lambda x: x.max(axis=(1, 2), keepdims=True)
    piece = noise[jax.random.randint(which_key, (b,), 0, noise.shape[0])]
    piece = piece.astype(decibel.dtype)
    snr = config.background_snr_db + jax.random.uniform(
        level_key, (b, 1, 1), maxval=_SNR_RANGE
    )
    piece = piece - peak(piece) + peak(decibel) - snr
    # log(10^(x/10) + 10^(n/10)), in dB.
    mixed = jnp.logaddexp(decibel * _PER_DB, piece * _PER_DB) / _PER_DB
    mixed = mixed - peak(mixed) + peak(decibel)
    mixed = jnp.maximum(mixed, decibel.min(axis=(1, 2), keepdims=True))
    chosen = jax.random.uniform(share_key, (b, 1, 1, 1)) < config.background
    return jnp.where(chosen, apply(mixed, stats), images)


def augment(
    key: Key[Array, ""],
    images: Float[Array, "b f t 1"],
    config: AugmentConfig,
    stats: Normalization,
    noise: Num[Array, "pieces f t"] | None = None,
) -> Float[Array, "b f t 1"]:
    """Applies the augmentations that ``config`` enables, drawn for each clip.

    ``noise`` is background noise in dB, which ``config.background`` requires.
    """
    keys = jax.random.split(key, 5)
    b = images.shape[0]
    if config.background:
        noise_key = jax.random.fold_in(key, 5)
        images = add_background(noise_key, images, noise, config, stats)
    if config.time_shift:
        images = time_shift(keys[0], images, config.time_shift, stats)
    if config.gain_db:
        gain = jax.random.uniform(keys[1], (b, 1, 1, 1), minval=-1.0, maxval=1.0)
        images = images + config.gain_db * gain * per_decibel(images, stats)
    if config.noise_db:
        images = add_noise(keys[2], images, config.noise_db, stats, b)
    if config.time_mask:
        images = mask(keys[3], images, config.time_mask, stats, 2, b)
    if config.frequency_mask:
        images = mask(keys[4], images, config.frequency_mask, stats, 1, b)
    return images


def silence(
    images: Float[Array, "b f t 1"], stats: Normalization
) -> Float[Array, "b _ 1 1"]:
    """Returns the lowest level of each clip, standardised.

    It is one value, or one per bin if bins have different statistics.
    """
    mean, std = (np.asarray(values) for values in stats)
    if (mean == mean[0]).all() and (std == std[0]).all():
        return images.min(axis=(1, 2, 3), keepdims=True)
    mean, std = (jnp.asarray(values, images.dtype)[:, None, None] for values in stats)
    floor = (images * std + mean).min(axis=(1, 2, 3), keepdims=True)
    return (floor - mean) / std


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


# Augmentations by the setting of their strength: ``(key, images, strength, stats)``.
CHANGES = {
    "time_shift": functools.partial(_shift, axis=2),
    "time_stretch": _stretch,
    "frequency_shift": functools.partial(_shift, axis=1),
    "gain_db": _gain,
    "noise_db": functools.partial(add_noise, draws=1),
    "time_mask": functools.partial(mask, axis=2, bands=1),
    "frequency_mask": functools.partial(mask, axis=1, bands=1),
}


def siamese(
    key: Key[Array, ""],
    images: Float[Array, "b f t 1"],
    config: SiameseConfig,
    stats: Normalization,
) -> Float[Array, "b f t 1"]:
    """Augments all images in the same way; compared images need the same key."""
    which_key, *keys = jax.random.split(key, 1 + len(CHANGES))
    applied = [
        lambda x, key=key, change=change, strength=strength: change(
            key, x, strength, stats
        )
        for key, (name, change) in zip(keys, CHANGES.items(), strict=True)
        if (strength := getattr(config, name))
    ]
    if not applied:
        return images
    if config.mode == "one":
        which = jax.random.randint(which_key, (), 0, len(applied))
        return lax.switch(which, applied, images)
    for change in applied:
        images = change(images)
    return images


def siamese_each(
    key: Key[Array, ""],
    images: Float[Array, "b f t 1"],
    config: SiameseConfig,
    stats: Normalization,
) -> Float[Array, "b f t 1"]:
    """Augments each image independently, for training."""
    change_image = lambda key, image: siamese(key, image[None], config, stats)[0]
    return jax.vmap(change_image)(jax.random.split(key, images.shape[0]), images)
