"""Converts waveforms in memory to standardised spectrograms."""

import numpy as np
from jaxtyping import Array, Float

from audiodd_jax.config import FeaturesConfig
from audiodd_jax.data import audio
from audiodd_jax.features import logmel, normalization


def standardized(
    waveform: Float[np.ndarray, "..."],
    sample_rate: int,
    config: FeaturesConfig,
    stats: normalization.Normalization,
) -> Float[Array, "b f t 1"]:
    """Computes standardised spectrograms.

    Args:
      waveform: ``[samples]`` or ``[b, samples]``, mono, in [-1, 1].
      sample_rate: sample rate of ``waveform`` in Hz.
      config: resolved feature settings.
      stats: statistics that standardise the spectrograms.
    """
    samples = logmel.frontend(config).samples
    rows = [
        audio.fit(
            audio.resample(row, sample_rate, config.sample_rate), samples, config.align
        )
        for row in np.atleast_2d(np.asarray(waveform, np.float32))
    ]
    return normalization.apply(logmel.compute(np.stack(rows), config), stats)
