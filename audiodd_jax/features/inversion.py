r"""Inverts log-mel spectrograms by least squares over mel filters and Griffin-Lim.

A log-mel spectrogram has neither phase nor the detail between mel bins and frames, so
that many sounds share it. Three steps find one of them:

1. Interpolate the levels in dB along time, to frames a quarter of a window apart.
2. Solve for the linear power x of each frame: min ||A x - y||^2 over x >= 0, where A is
   the filter bank and y the mel power, by multiplicative updates from x = A^T y,
       x <- x (A^T y) / (A^T A x).
3. Find phases phi by fast Griffin-Lim from random phases: with S = sqrt(x), and P the
   STFT of the inverse STFT,
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
from audiodd_jax.runtime.memory import balanced

# Largest number of spectrograms that are inverted at once.
_MOST_AT_ONCE = 32
# Frames per window, enough for neighbours to determine each other's phases.
_OVERLAP = 4
_UPDATES = 200
# The best of 0.9 to 1.1 for recorded digits after 32 and 64 iterations.
_MOMENTUM = 0.95
_SMALL = 1e-12
# Level in dB above the floor that rounding may add.
_NEARLY_SILENT = 0.1
# Peak of waveforms that are not silent.
_PEAK = 0.9


class Inverted(NamedTuple):
    """Sounds, of peak 0.9 or zeros for silence, and their spectral convergence."""

    waveforms: Float[Array | np.ndarray, "b samples"]
    convergence: Float[Array | np.ndarray, " b"]


def synthesis(config: FeaturesConfig) -> Frontend:
    """Returns the sizes of the front end with a hop small enough for synthesis."""
    size = logmel.frontend(config)
    hop = max(1, size.window // _OVERLAP)
    return size._replace(hop=hop, frames=size.samples // hop + 1)


def inverse_stft(
    spectrum: Complex[Array, "b t bins"], size: Frontend
) -> Float[Array, "b samples"]:
    """Computes waveforms whose STFT is nearest to ``spectrum``.

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
    """Adds frames at their positions."""
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
    """Step 2: solves for non-negative power of Fourier bins; 0 outside all filters."""
    filters = logmel.mel_filter_bank(config)
    product = functools.partial(jnp.einsum, precision="highest")
    target = product("fk,bft->bkt", filters, mel_power)

    def update(_: Array, x: Array) -> Array:
        # Two thin products instead of one by the square A^T A.
        mel = product("fk,bkt->bft", filters, x)
        return x * target / jnp.maximum(product("fk,bft->bkt", filters, mel), _SMALL**2)

    return lax.fori_loop(0, _UPDATES, update, target)


def magnitude(
    log_mel: Float[Array, "b f t"], config: FeaturesConfig
) -> Float[Array, "b t2 bins"]:
    """Steps 1 and 2: computes magnitudes of the frames of ``synthesis(config)``.

    ``log_mel`` is in dB relative to any reference.
    """
    size, dense = logmel.frontend(config), synthesis(config)
    positions = np.arange(dense.frames) * dense.hop / size.hop
    positions = np.clip(positions, 0, size.frames - 1)
    weights = np.maximum(0, 1 - np.abs(positions - np.arange(size.frames)[:, None]))
    decibel = jnp.einsum("bft,tu->bfu", log_mel, weights, precision="highest")
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
    """Step 3: finds waveforms whose STFT has nearly this magnitude.

    ``key`` draws the initial phases; an iteration is an inverse STFT and an STFT. With
    ``momentum=0`` it is the original Griffin-Lim algorithm.
    """

    def body(_: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        phases, previous = carry
        current = logmel.stft(inverse_stft(magnitude * phases, size), size)
        ahead = current + momentum * (current - previous)
        return ahead / jnp.maximum(jnp.abs(ahead), _SMALL), current

    angles = jax.random.uniform(key, magnitude.shape, maxval=2 * np.pi)
    phases = lax.complex(jnp.cos(angles), jnp.sin(angles))
    phases, _ = lax.fori_loop(0, iterations, body, (phases, jnp.zeros_like(phases)))
    return inverse_stft(magnitude * phases, size)


def spectral_convergence(
    waveforms: Float[Array, "b samples"],
    magnitude: Float[Array, "b t bins"],
    size: Frontend,
) -> Float[Array, " b"]:
    """Computes ``||abs(STFT(x)) - S|| / ||S||`` in Frobenius norms; 0: exact match."""
    error = jnp.abs(logmel.stft(waveforms, size)) - magnitude
    norm = lambda x: jnp.sqrt(jnp.sum(x**2, (1, 2)))
    return norm(error) / jnp.maximum(norm(magnitude), _SMALL)


@functools.partial(jax.jit, static_argnums=(1, 3))
def _invert(log_mel, settings, key, iterations):
    config = FeaturesConfig(*settings)
    size, target = synthesis(config), magnitude(log_mel, config)
    waveforms = griffin_lim(target, size, key=key, iterations=iterations)
    convergence = spectral_convergence(waveforms, target, size)
    # Normalising a clip that is at the floor everywhere would make silence loud.
    is_audible = log_mel.max((1, 2)) > _NEARLY_SILENT - config.top_db
    peak = jnp.abs(waveforms).max(1)
    gain = jnp.where(is_audible, _PEAK / jnp.maximum(peak, _SMALL), 0.0)
    return Inverted(waveforms * gain[:, None], convergence)


def invert(
    log_mel: Float[Array | np.ndarray, "b f t"],
    config: FeaturesConfig,
    *,
    key: Key[Array, ""],
    iterations: int = 64,
) -> Inverted:
    """Inverts log-mel spectrograms in dB by steps 1 to 3.

    Args:
      key: draws the initial phases.
      iterations: iterations of Griffin-Lim; 0 keeps the initial phases.

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
    """Inverts any number of spectrograms in chunks, compiled once.

    Takes the arguments of ``invert`` and returns NumPy arrays. ``done`` is called with
    the number of spectrograms in each finished chunk.
    """
    count = log_mel.shape[0]
    size = balanced(count, _MOST_AT_ONCE)
    padded = jnp.pad(log_mel, ((0, -count % size), (0, 0), (0, 0)), "edge")
    parts = []
    for first in range(0, count, size):
        rows, own_key = padded[first : first + size], jax.random.fold_in(key, first)
        inverted = invert(rows, config, key=own_key, iterations=iterations)
        parts.append(jax.tree.map(np.asarray, inverted))
        done(min(size, count - first))
    joined = (np.concatenate(arrays)[:count] for arrays in zip(*parts, strict=True))
    return Inverted(*joined)
