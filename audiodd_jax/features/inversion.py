r"""Inversion of log-mel spectrograms: least squares over the mel filters, Griffin-Lim.

A log-mel spectrogram holds neither phase nor the detail between mel bins and frames;
one of the many sounds that have it is found in three steps:

1. decibels are interpolated along time, to frames a quarter of a window apart;
2. linear power x of each frame: min ||A x - y||^2 over x >= 0, A the filter bank and y
   the mel power, by multiplicative updates from x = A^T y,
       x <- x (A^T y) / (A^T A x);
3. phases phi by fast Griffin-Lim from random phases: with S = sqrt(x) and P the STFT
   of the inverse STFT,
       c_i = P(S exp(i phi)),  phi <- angle(c_i + momentum (c_i - c_(i-1))).

References:
  Lee and Seung, *Algorithms for Non-negative Matrix Factorization*, NIPS 2000; Griffin
  and Lim, *Signal estimation from modified short-time Fourier transform*, IEEE TASSP
  1984; Perraudin, Balazs, Søndergaard, *A fast Griffin-Lim algorithm*, WASPAA 2013.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Complex, Float, Key

from audiodd_jax.config import FeaturesConfig
from audiodd_jax.errors import UserError
from audiodd_jax.features import logmel
from audiodd_jax.features.logmel import Frontend

# Most spectrograms that are inverted at once.
_PORTION = 32
# Frames per window; enough for neighbours to determine each other's phases.
_OVERLAP = 4
_UPDATES = 200
# The best of 0.9 to 1.1 for recorded digits after 32 and 64 iterations.
_MOMENTUM = 0.95
_SMALL = 1e-12
# dB above the floor that rounding may add.
_NEARLY_SILENT = 0.1
# Peak of a waveform that is not silent.
_PEAK = 0.9


class Inverted(NamedTuple):
    """Sounds of log-mel spectrograms.

    Attributes:
      waveforms: ``[b, samples]``, peak 0.9; zeros for silence.
      convergence: ``[b]`` spectral convergence after the last iteration.
    """

    waveforms: Float[Array | np.ndarray, "b samples"]
    convergence: Float[Array | np.ndarray, " b"]


def synthesis(config: FeaturesConfig) -> Frontend:
    """The front end's sizes with a hop small enough for synthesis."""
    size = logmel.frontend(config)
    hop = max(1, size.window // _OVERLAP)
    return size._replace(hop=hop, frames=size.samples // hop + 1)


def inverse_stft(
    spectrum: Complex[Array, "b t bins"], size: Frontend
) -> Float[Array, "b samples"]:
    """Waveforms whose STFT is nearest to ``spectrum``: inverse of ``logmel.stft``.

    Frames are windowed again, added, and divided by the sum of the squared windows.
    """
    window = logmel.hann_window(size)
    frames = jnp.fft.irfft(spectrum, size.n_fft) * window
    weights = np.broadcast_to(window**2, (1, size.frames, size.n_fft))
    total, weight = _overlap_add(frames, size), _overlap_add(weights, size)
    return jnp.where(weight > _SMALL, total / jnp.maximum(weight, _SMALL), 0.0)


def _overlap_add(
    frames: Float[Array | np.ndarray, "b t n_fft"], size: Frontend
) -> Float[Array, "b samples"]:
    """Sum of frames at their positions."""
    pieces = math.ceil(size.n_fft / size.hop)
    frames = jnp.pad(frames, ((0, 0), (0, 0), (0, pieces * size.hop - size.n_fft)))
    frames = frames.reshape(*frames.shape[:2], pieces, size.hop)
    total = sum(
        jnp.pad(frames[:, :, i], ((0, 0), (i, pieces - 1 - i), (0, 0)))
        for i in range(pieces)
    )
    half = size.n_fft // 2
    flat = total.reshape(frames.shape[0], -1)
    flat = jnp.pad(flat, ((0, 0), (0, max(0, half + size.samples - flat.shape[1]))))
    return flat[:, half : half + size.samples]


def linear_power(
    mel_power: Float[Array, "b f t"], config: FeaturesConfig
) -> Float[Array, "b bins t"]:
    """Step 2: non-negative power of Fourier bins with nearly this mel power.

    Bins outside of all filters are zero.
    """
    filters = logmel.mel_filter_bank(config)
    product = functools.partial(jnp.einsum, precision="highest")
    heard = product("fk,bft->bkt", filters, mel_power)

    def update(_: Array, x: Array) -> Array:
        # Two thin products instead of one by the square A^T A.
        mel = product("fk,bkt->bft", filters, x)
        return x * heard / jnp.maximum(product("fk,bft->bkt", filters, mel), _SMALL**2)

    return lax.fori_loop(0, _UPDATES, update, heard)


def magnitude(
    log_mel: Float[Array, "b f t"], config: FeaturesConfig
) -> Float[Array, "b t2 bins"]:
    """Steps 1 and 2: magnitudes of the frames of ``synthesis(config)``.

    Args:
      log_mel: in dB, relative to any reference.
      config: feature settings.
    """
    size, dense = logmel.frontend(config), synthesis(config)
    places = np.arange(dense.frames) * dense.hop / size.hop
    places = np.clip(places, 0, size.frames - 1)
    rows = np.maximum(0, 1 - np.abs(places - np.arange(size.frames)[:, None]))
    decibel = jnp.einsum("bft,tu->bfu", log_mel, rows, precision="highest")
    power = linear_power(10 ** (decibel / 10), config)
    return jnp.sqrt(power).swapaxes(1, 2)


def griffin_lim(
    magnitude: Float[Array, "b t bins"],
    size: Frontend,
    *,
    key: Key[Array, ""],
    iterations: int = 64,
    momentum: float = _MOMENTUM,
) -> Float[Array, "b samples"]:
    """Step 3: waveforms whose STFT has nearly this magnitude.

    Args:
      magnitude: of ``size.frames`` frames.
      size: of the STFT.
      key: draws the initial phases.
      iterations: of an inverse STFT and an STFT each.
      momentum: of the phases; 0: the original Griffin-Lim algorithm.
    """

    def projected(phases: Array) -> Array:
        return logmel.stft(inverse_stft(magnitude * phases, size), size)

    def body(_: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        phases, before = carry
        now = projected(phases)
        ahead = now + momentum * (now - before)
        return ahead / jnp.maximum(jnp.abs(ahead), _SMALL), now

    angles = jax.random.uniform(key, magnitude.shape, maxval=2 * np.pi)
    phases = lax.complex(jnp.cos(angles), jnp.sin(angles))
    phases, _ = lax.fori_loop(0, iterations, body, (phases, jnp.zeros_like(phases)))
    return inverse_stft(magnitude * phases, size)


def spectral_convergence(
    waveforms: Float[Array, "b samples"],
    magnitude: Float[Array, "b t bins"],
    size: Frontend,
) -> Float[Array, " b"]:
    """``||abs(STFT(x)) - S|| / ||S||`` in Frobenius norms; 0 is an exact match."""
    error = jnp.abs(logmel.stft(waveforms, size)) - magnitude
    norm = lambda x: jnp.sqrt(jnp.sum(x**2, (1, 2)))
    return norm(error) / jnp.maximum(norm(magnitude), _SMALL)


@functools.partial(jax.jit, static_argnums=(1, 3))
def _invert(log_mel, settings, key, iterations):
    config = FeaturesConfig(*settings)
    size, target = synthesis(config), magnitude(log_mel, config)
    waveforms = griffin_lim(target, size, key=key, iterations=iterations)
    convergence = spectral_convergence(waveforms, target, size)
    # A clip at the floor everywhere is silence; normalising it would make it loud.
    is_heard = log_mel.max((1, 2)) > _NEARLY_SILENT - config.top_db
    peak = jnp.abs(waveforms).max(1)
    gain = jnp.where(is_heard, _PEAK / jnp.maximum(peak, _SMALL), 0.0)
    return Inverted(waveforms * gain[:, None], convergence)


def invert(
    log_mel: Float[Array | np.ndarray, "b f t"],
    config: FeaturesConfig,
    *,
    key: Key[Array, ""],
    iterations: int = 64,
) -> Inverted:
    """Sounds with nearly these log-mel spectrograms, by steps 1 to 3.

    Args:
      log_mel: in dB, from ``logmel.log_mel`` or ``normalization.invert``.
      config: their feature settings.
      key: draws the initial phases.
      iterations: of Griffin-Lim; 0 keeps the initial phases.

    Raises:
      UserError: ``iterations`` is negative.
    """
    if iterations < 0:
        raise UserError(f"iterations must be at least 0, not {iterations}")
    return _invert(log_mel, dataclasses.astuple(config), key, iterations)


def invert_many(
    log_mel: Float[Array | np.ndarray, "b f t"],
    config: FeaturesConfig,
    *,
    key: Key[Array, ""],
    iterations: int = 64,
    done: Callable[[int], object] = lambda _: None,
) -> Inverted:
    """``invert`` of any number of spectrograms in chunks, compiled once.

    Same arguments and errors; returns NumPy arrays. ``done`` is called with the number
    of spectrograms in each finished chunk.
    """
    count = log_mel.shape[0]
    # Equal portions, so that little is padded.
    size = -(-count // max(1, -(-count // _PORTION)))
    filled = jnp.pad(log_mel, ((0, -count % size), (0, 0), (0, 0)), "edge")
    parts = []
    for first in range(0, count, size):
        portion = filled[first : first + size]
        own = jax.random.fold_in(key, first)
        found = invert(portion, config, key=own, iterations=iterations)
        parts.append(jax.tree.map(np.asarray, found))
        done(min(size, count - first))
    joined = (np.concatenate(arrays)[:count] for arrays in zip(*parts, strict=True))
    return Inverted(*joined)
