"""Computes log-mel spectrograms: framing, window, rFFT, mel filter bank, log.

A clip has ``frames * hop`` samples, and frame ``i`` is centred on sample ``i * hop``,
with zeros beyond the ends. The values are those of librosa's ``melspectrogram`` with
``center=True``, which returns one more frame.

References:
  McFee et al., *librosa*, SciPy 2015; Slaney, *Auditory Toolbox*, 1998; Young et al.,
  *The HTK Book*, section 5.6.
"""

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Complex, Float

from audiodd_jax.config import FeaturesConfig
from audiodd_jax.errors import UserError

# Bands that the filter bank is applied in.
_BANDS = 4
# Power below which a bin is silent, far below the last bit of 24-bit audio.
SILENCE = 1e-20
# Blocks of this size take half the time of a whole batch on CPU.
_BLOCK_BYTES = 2 << 20


class Frontend(NamedTuple):
    """Sizes of the front end in samples, derived from the feature settings."""

    sample_rate: int  # in Hz
    samples: int  # of a clip
    hop: int
    window: int
    n_fft: int
    frames: int  # number of frames ``t``
    f_max: float  # highest mel frequency in Hz


def frontend(config: FeaturesConfig) -> Frontend:
    """Derives the sizes of the front end.

    Raises:
      UserError: the settings leave no frame, no bin or no mel filter.
    """
    rate = config.sample_rate
    if min(rate, config.frames, config.n_mels) < 1 or config.clip_seconds <= 0:
        raise UserError(
            "sample_rate, clip_seconds, frames and n_mels must be positive, not "
            f"{rate}, {config.clip_seconds:g}, {config.frames} and {config.n_mels}"
        )
    hop = math.ceil(round(config.clip_seconds * rate, 6) / config.frames)
    window = max(2, round(config.window_seconds * rate))
    n_fft = config.n_fft or 2 ** math.ceil(math.log2(window))
    f_max = config.f_max or rate / 2
    if window > n_fft:
        raise UserError(f"a window of {window} samples does not fit n_fft = {n_fft}")
    if not 0 <= config.f_min < f_max <= rate / 2:
        raise UserError(
            f"mel frequencies must satisfy 0 <= f_min < f_max <= {rate / 2:g} Hz, not "
            f"f_min = {config.f_min:g} and f_max = {f_max:g}"
        )
    if config.mel_scale not in ("slaney", "htk"):
        raise UserError(f"mel_scale is slaney or htk, not {config.mel_scale!r}")
    return Frontend(
        rate, hop * config.frames, hop, window, n_fft, config.frames, float(f_max)
    )


# The Slaney scale is linear up to 1 kHz (3 mel per 200 Hz) and logarithmic above.
_BREAK_HZ, _BREAK_MEL, _HZ_PER_MEL = 1000.0, 15.0, 200.0 / 3
_LOG_STEP = math.log(6.4) / 27


def hz_to_mel(hz: np.ndarray, scale: str) -> np.ndarray:
    """Converts Hz to mel, on the ``slaney`` or ``htk`` scale."""
    hz = np.asarray(hz, np.float64)
    if scale == "htk":
        return 2595.0 * np.log10(1.0 + hz / 700.0)
    above = _BREAK_MEL + np.log(np.maximum(hz, 1e-9) / _BREAK_HZ) / _LOG_STEP
    return np.where(hz < _BREAK_HZ, hz / _HZ_PER_MEL, above)


def mel_to_hz(mel: np.ndarray, scale: str) -> np.ndarray:
    """Converts mel to Hz: the inverse of ``hz_to_mel``."""
    mel = np.asarray(mel, np.float64)
    if scale == "htk":
        return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    above = _BREAK_HZ * np.exp(_LOG_STEP * (mel - _BREAK_MEL))
    return np.where(mel < _BREAK_MEL, mel * _HZ_PER_MEL, above)


def mel_filter_bank(config: FeaturesConfig) -> Float[np.ndarray, "f bins"]:
    """Computes triangular filters of unit area in Hz, ``[n_mels, n_fft // 2 + 1]``."""
    size = frontend(config)
    bins = np.fft.rfftfreq(size.n_fft, 1.0 / size.sample_rate)
    scale = config.mel_scale
    low, high = hz_to_mel(np.array([config.f_min, size.f_max]), scale)
    edges = mel_to_hz(np.linspace(low, high, config.n_mels + 2), scale)
    rising = (bins[None] - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins[None]) / np.diff(edges)[1:, None]
    filters = np.maximum(0.0, np.minimum(rising, falling))
    empty = int((filters.max(axis=1) == 0).sum())
    if empty:
        raise UserError(
            f"{empty} of {config.n_mels} mel filters lie between the bins of an FFT of "
            f"{size.n_fft} samples; lower --config.features.n_mels or raise n_fft"
        )
    area = 2.0 / (edges[2:] - edges[:-2])
    return (filters * area[:, None]).astype(np.float32)


def hann_window(size: Frontend) -> Float[np.ndarray, " n_fft"]:
    """Computes the periodic Hann window, centred in ``n_fft`` samples."""
    phase = 2 * np.pi * np.arange(size.window) / size.window
    left = (size.n_fft - size.window) // 2
    right = size.n_fft - size.window - left
    return np.pad(0.5 - 0.5 * np.cos(phase), (left, right)).astype(np.float32)


def stft(
    waveforms: Float[Array | np.ndarray, "b samples"], size: Frontend
) -> Complex[Array, "b t bins"]:
    """Computes the short-time Fourier transform of ``size.frames`` windowed frames."""
    half = size.n_fft // 2
    padded = jnp.pad(waveforms, ((0, 0), (half, half)))
    starts = size.hop * np.arange(size.frames)
    frames = padded[:, starts[:, None] + np.arange(size.n_fft)]
    return jnp.fft.rfft(frames * hann_window(size))


def mel_power(
    waveforms: Float[Array | np.ndarray, "b samples"], config: FeaturesConfig
) -> Float[Array, "b f t"]:
    """Computes mel power spectrograms of ``frontend(config).samples`` samples each."""
    size = frontend(config)
    if waveforms.shape[1] != size.samples:
        raise ValueError(f"clips have {waveforms.shape[1]} samples, not {size.samples}")
    spectrum = stft(waveforms, size)
    power = spectrum.real**2 + spectrum.imag**2
    # Most of the filter bank is zero, so each band of filters reads only its own bins.
    bands = []
    for filters in np.array_split(mel_filter_bank(config), _BANDS):
        covered = np.flatnonzero(filters.any(axis=0))
        bins = slice(covered[0], covered[-1] + 1)
        product = (filters[:, bins], power[..., bins])
        bands.append(jnp.einsum("fk,btk->bft", *product, precision="highest"))
    return jnp.concatenate(bands, axis=1)


def log_mel(
    waveforms: Float[Array | np.ndarray, "b samples"], config: FeaturesConfig
) -> Float[Array, "b f t"]:
    """Computes log-mel spectrograms in dB.

    With ``clip_reference="peak"`` values are between ``-top_db`` and 0; with
    ``"absolute"`` and ``"level"``, 0 dB is a mel power of one.
    """
    power = mel_power(waveforms, config)
    decibel = 10.0 * jnp.log10(jnp.maximum(power, SILENCE))
    if config.clip_reference == "absolute":
        return jnp.maximum(decibel, -config.top_db)
    peak = decibel.max(axis=(1, 2), keepdims=True)
    if config.clip_reference == "level":
        return jnp.maximum(decibel, peak - config.top_db)
    # The floor, not the peak, is the level of a silent clip.
    is_heard = power.max(axis=(1, 2), keepdims=True) > SILENCE
    relative = jnp.where(is_heard, decibel - peak, -jnp.inf)
    return jnp.maximum(relative, -config.top_db)


def block_size(config: FeaturesConfig) -> int:
    """Returns the number of clips whose frames fit the caches of a CPU."""
    size = frontend(config)
    return max(1, _BLOCK_BYTES // (4 * size.frames * size.n_fft))


def program(config: FeaturesConfig, blocked: bool) -> jax.stages.Wrapped:
    """Returns the program of ``compute``, for all waveforms at once or in blocks."""
    return _compiled(dataclasses.astuple(config), blocked)


@functools.cache
def _compiled(settings: tuple, blocked: bool) -> jax.stages.Wrapped:
    config = FeaturesConfig(*settings)
    transform = lambda waveforms: log_mel(waveforms, config)
    if not blocked:
        return jax.jit(transform)
    block = block_size(config)

    @jax.jit
    def by_blocks(waveforms: Array) -> Array:
        clips, samples = waveforms.shape
        rows = jnp.pad(waveforms, ((0, -clips % block), (0, 0)))
        values = lax.map(transform, rows.reshape(-1, block, samples))
        return values.reshape(-1, *values.shape[2:])[:clips]

    return by_blocks


def compute(
    waveforms: Float[Array | np.ndarray, "b samples"], config: FeaturesConfig
) -> Float[Array, "b f t"]:
    """``log_mel``, compiled once per settings and batch shape.

    On CPU the batch is transformed in blocks of ``block_size``.
    """
    return program(config, jax.default_backend() == "cpu")(waveforms)
