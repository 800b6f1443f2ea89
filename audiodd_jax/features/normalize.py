"""Standardisation of log-mel spectrograms by statistics of the training split."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from audiodd_jax.runtime.errors import UserError

# Below this spread, in dB, a mel bin is silent in every clip.
_LEAST_STD = 1e-3


class Normalization(NamedTuple):
    """Mean and standard deviation in dB, over all bins or a bin each.

    Attributes:
      mean: ``[f]``.
      std: ``[f]``.
    """

    mean: Float[np.ndarray, " f"]
    std: Float[np.ndarray, " f"]


def fit(log_mel: Num[np.ndarray, "b f t"], kind: str) -> Normalization:
    """Statistics of training spectrograms: ``global``, or ``per_bin`` of mel.

    Summed clip by clip in float64, so that a memory-mapped float16 array is never held
    whole in memory.

    Raises:
      UserError: another kind.
    """
    if kind not in ("global", "per_bin"):
        raise UserError(f"normalization is global or per_bin, not {kind!r}")
    clips, f, t = log_mel.shape
    total, squares = np.zeros(f), np.zeros(f)
    for start in range(0, clips, 1024):
        part = log_mel[start : start + 1024].astype(np.float64)
        total += part.sum(axis=(0, 2))
        squares += (part**2).sum(axis=(0, 2))
    mean, square = total / (clips * t), squares / (clips * t)
    if kind == "global":
        mean, square = (np.full(f, value.mean()) for value in (mean, square))
    std = np.sqrt(np.maximum(square - mean**2, 0))
    std = np.where(std < _LEAST_STD, 1.0, std)
    return Normalization(mean.astype(np.float32), std.astype(np.float32))


def apply(
    log_mel: Num[Array | np.ndarray, "b f t"], stats: Normalization
) -> Float[Array, "b f t 1"]:
    """Standardised spectrograms in float32, with their channel axis."""
    values = jnp.asarray(log_mel).astype(jnp.float32)
    scaled = (values - stats.mean[:, None]) / stats.std[:, None]
    return scaled[..., None]


def invert(
    images: Float[Array, "b f t 1"], stats: Normalization
) -> Float[Array, "b f t"]:
    """Log-mel in dB from standardised spectrograms: the inverse of ``apply``."""
    return images[..., 0] * stats.std[:, None] + stats.mean[:, None]
