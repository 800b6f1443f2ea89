"""Random changes of real spectrograms, as pure functions of a key.

All act on log-mel in dB before normalisation is undone: that is, on standardised
images, with settings in dB divided by the standard deviation. Silence, in a clip, is
its lowest value.

References:
  Park et al., *SpecAugment*, Interspeech 2019 (the masks).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from audiodd_jax.config import AugmentConfig


def time_shift(
    key: Key[Array, ""], images: Float[Array, "b f t 1"], share: float
) -> Float[Array, "b f t 1"]:
    """Shifts each clip by up to ``share`` of its frames; silence comes in."""
    b, _, t, _ = images.shape
    most = int(share * t)
    shift = jax.random.randint(key, (b, 1), -most, most + 1)
    source = jnp.arange(t)[None] - shift
    inside = (source >= 0) & (source < t)
    moved = jnp.take_along_axis(
        images, jnp.clip(source, 0, t - 1)[:, None, :, None], axis=2
    )
    return jnp.where(inside[:, None, :, None], moved, _silence(images))


def mask(
    key: Key[Array, ""], images: Float[Array, "b f t 1"], share: float, axis: int
) -> Float[Array, "b f t 1"]:
    """Silences one band, up to ``share`` wide, of mel bins (axis 1) or frames (2)."""
    band = _random_band(key, images.shape[0], images.shape[axis], share)
    band = band[:, :, None, None] if axis == 1 else band[:, None, :, None]
    return jnp.where(band, _silence(images), images)


def augment(
    key: Key[Array, ""],
    images: Float[Array, "b f t 1"],
    config: AugmentConfig,
    std: Float[Array, " f"],
) -> Float[Array, "b f t 1"]:
    """Applies what ``config`` switches on, with fresh draws for every clip.

    Args:
      key: typed PRNG key.
      images: standardised spectrograms.
      config: which changes, and how large.
      std: standard deviation in dB that the images were divided by.
    """
    keys = jax.random.split(key, 5)
    b = images.shape[0]
    per_bin = 1.0 / std[None, :, None, None]
    if config.time_shift:
        images = time_shift(keys[0], images, config.time_shift)
    if config.gain_db:
        gain = jax.random.uniform(keys[1], (b, 1, 1, 1), minval=-1.0, maxval=1.0)
        images = images + config.gain_db * gain * per_bin
    if config.noise_db:
        level_key, noise_key = jax.random.split(keys[2])
        level = jax.random.uniform(level_key, (b, 1, 1, 1), maxval=config.noise_db)
        noise = jax.random.normal(noise_key, images.shape, images.dtype)
        images = images + level * noise * per_bin
    if config.time_mask:
        images = mask(keys[3], images, config.time_mask, axis=2)
    if config.frequency_mask:
        images = mask(keys[4], images, config.frequency_mask, axis=1)
    return images


def _silence(images: Float[Array, "b f t 1"]) -> Float[Array, "b 1 1 1"]:
    return images.min(axis=(1, 2, 3), keepdims=True)


def _random_band(
    key: Key[Array, ""], count: int, size: int, share: float
) -> Bool[Array, "b size"]:
    """A band a clip: its width uniform up to ``share * size``, its place uniform."""
    width_key, place_key = jax.random.split(key)
    width: Int[Array, "b 1"] = jax.random.randint(
        width_key, (count, 1), 0, int(share * size) + 1
    )
    room = size - width + 1
    start = (jax.random.uniform(place_key, (count, 1)) * room).astype(jnp.int32)
    position = jnp.arange(size)[None]
    return (position >= start) & (position < start + width)
