"""Standardises log-mel spectrograms by statistics of the training split."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from audiodd_jax.errors import UserError

# Least standard deviation in dB; mel bins below it are silent in every clip.
_LEAST_STD = 1e-3


class Normalization(NamedTuple):
    """Mean and standard deviation of each bin in dB, global or per bin."""

    mean: Float[np.ndarray | Array, " f"]
    std: Float[np.ndarray | Array, " f"]


def moments(log_mel: Num[np.ndarray, "b f t"]) -> Float[np.ndarray, "2 b f"]:
    """Computes mean and mean square over each clip's frames, in float64."""
    values = log_mel.astype(np.float64)
    return np.stack([values.mean(axis=2), (values**2).mean(axis=2)])


def fit(clip_moments: Float[np.ndarray, "2 b f"], kind: str) -> Normalization:
    """Fits statistics of kind ``global`` or ``per_bin`` to ``moments`` of clips."""
    if kind not in ("global", "per_bin"):
        raise UserError(f"normalization is global or per_bin, not {kind!r}")
    mean, square = clip_moments.mean(axis=1)
    if kind == "global":
        mean, square = (np.full(mean.size, value.mean()) for value in (mean, square))
    std = np.sqrt(np.maximum(square - mean**2, 0))
    std = np.where(std < _LEAST_STD, 1.0, std)
    return Normalization(mean.astype(np.float32), std.astype(np.float32))


def apply(
    log_mel: Num[Array | np.ndarray, "b f t"], stats: Normalization
) -> Float[Array, "b f t 1"]:
    """Standardises spectrograms; returns float32 with a channel axis."""
    values = jnp.asarray(log_mel).astype(jnp.float32)
    scaled = (values - stats.mean[None, :, None]) / stats.std[None, :, None]
    return scaled[..., None]


def invert(
    images: Float[Array, "b f t 1"], stats: Normalization
) -> Float[Array, "b f t"]:
    """Returns log-mel in dB of standardised spectrograms: the inverse of ``apply``."""
    return images[..., 0] * stats.std[None, :, None] + stats.mean[None, :, None]
