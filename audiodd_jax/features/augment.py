"""Random augmentation of real spectrograms, as pure functions of a key.

All functions act on standardised images; settings in dB are divided by the standard
deviation. The silence of a clip is its lowest level in dB.

References:
  Park et al., *SpecAugment*, Interspeech 2019 (the masks).
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, Num

from audiodd_jax.config import AugmentConfig
from audiodd_jax.features.normalization import Normalization, apply, invert

# Natural log of power per decibel, and the range of the drawn signal-to-noise ratio.
_PER_DB = math.log(10) / 10
_SNR_RANGE = 30.0


def time_shift(
    key: Key[Array, ""],
    images: Float[Array, "b f t 1"],
    share: float,
    stats: Normalization,
) -> Float[Array, "b f t 1"]:
    """Shifts each clip by up to ``share`` of its frames and fills with silence."""
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
    axis: int,
    stats: Normalization,
) -> Float[Array, "b f t 1"]:
    """Silences one band, up to ``share`` wide, of mel bins (axis 1) or frames (2)."""
    band = random_band(key, images.shape[0], images.shape[axis], share)
    band = band[:, :, None, None] if axis == 1 else band[:, None, :, None]
    return jnp.where(band, silence(images, stats), images)


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
    highest = lambda x: x.max(axis=(1, 2), keepdims=True)
    piece = noise[jax.random.randint(which_key, (b,), 0, noise.shape[0])]
    piece = piece.astype(decibel.dtype)
    snr = config.background_snr_db + jax.random.uniform(
        level_key, (b, 1, 1), maxval=_SNR_RANGE
    )
    piece = piece - highest(piece) + highest(decibel) - snr
    # log(10^(x/10) + 10^(n/10)), in dB.
    mixed = jnp.logaddexp(decibel * _PER_DB, piece * _PER_DB) / _PER_DB
    mixed = mixed - highest(mixed) + highest(decibel)
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

    Args:
      key: typed PRNG key.
      images: standardised spectrograms.
      config: strength of each augmentation.
      stats: statistics that standardised the images.
      noise: background noise in dB; required by ``config.background``.
    """
    keys = jax.random.split(key, 5)
    b = images.shape[0]
    per_bin = 1.0 / jnp.asarray(stats.std)[None, :, None, None]
    if config.background:
        noise_key = jax.random.fold_in(key, 5)
        images = add_background(noise_key, images, noise, config, stats)
    if config.time_shift:
        images = time_shift(keys[0], images, config.time_shift, stats)
    if config.gain_db:
        gain = jax.random.uniform(keys[1], (b, 1, 1, 1), minval=-1.0, maxval=1.0)
        images = images + config.gain_db * gain * per_bin
    if config.noise_db:
        level_key, noise_key = jax.random.split(keys[2])
        level = jax.random.uniform(level_key, (b, 1, 1, 1), maxval=config.noise_db)
        noise = jax.random.normal(noise_key, images.shape, images.dtype)
        images = images + level * noise * per_bin
    if config.time_mask:
        images = mask(keys[3], images, config.time_mask, 2, stats)
    if config.frequency_mask:
        images = mask(keys[4], images, config.frequency_mask, 1, stats)
    return images


def silence(
    images: Float[Array, "b f t 1"], stats: Normalization
) -> Float[Array, "b _ 1 1"]:
    """The lowest level of each clip: a value per bin if bins have their own statistics.

    Args:
      images: standardised spectrograms.
      stats: statistics that standardised them.
    """
    mean, std = (np.asarray(values) for values in stats)
    if (mean == mean[0]).all() and (std == std[0]).all():
        return images.min(axis=(1, 2, 3), keepdims=True)
    mean, std = (jnp.asarray(values, images.dtype)[:, None, None] for values in stats)
    floor = (images * std + mean).min(axis=(1, 2, 3), keepdims=True)
    return (floor - mean) / std


def random_band(
    key: Key[Array, ""], count: int, size: int, share: float
) -> Bool[Array, "b size"]:
    """A band per clip: uniform width up to ``share * size``, uniform position."""
    width_key, place_key = jax.random.split(key)
    width: Int[Array, "b 1"] = jax.random.randint(
        width_key, (count, 1), 0, int(share * size) + 1
    )
    room = size - width + 1
    start = (jax.random.uniform(place_key, (count, 1)) * room).astype(jnp.int32)
    position = jnp.arange(size)[None]
    return (position >= start) & (position < start + width)
