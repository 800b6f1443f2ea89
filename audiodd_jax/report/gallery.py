"""Spectrograms, labels, sounds and nearest real clips of a coreset."""

import io
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import soundfile
from jaxtyping import Array, Float, Int

from audiodd_jax.coreset import audio_folder
from audiodd_jax.coreset.file import Coreset
from audiodd_jax.features import inversion, normalization
from audiodd_jax.features.dataset import DeviceSplit, HostSplit, Split

# Training clips compared with a coreset at once.
_COMPARED_AT_ONCE = 4096
# Sample rates of MPEG 1, 2 and 2.5.
_MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)


class Heard(NamedTuple):
    """Spectrograms and their sounds.

    Attributes:
      log_mel: ``[k, f, t]`` in dB.
      waveforms: ``[k, samples]``.
      convergence: ``[k]`` spectral convergence of the inversion.
    """

    log_mel: Float[np.ndarray, "k f t"]
    waveforms: Float[np.ndarray, "k samples"]
    convergence: Float[np.ndarray, " k"]


class Nearest(NamedTuple):
    """The training clip nearest to each spectrogram.

    Attributes:
      rows: ``[s]`` of the training clips.
      labels: ``[s]`` their classes, or ``[s, c]`` their tags.
      distances: ``[s]`` root mean square, in standard deviations.
    """

    rows: Int[np.ndarray, " s"]
    labels: Int[np.ndarray, "s *c"]
    distances: Float[np.ndarray, " s"]


@jax.jit
def _distances(
    images: Float[Array, "s f t 1"], clips: Float[Array, "b f t 1"]
) -> Float[Array, "s b"]:
    a, b = (x.reshape(x.shape[0], -1) for x in (images, clips))
    square = lambda x: jnp.sum(x * x, 1)
    product = jnp.matmul(a, b.T, precision="highest")
    return (square(a)[:, None] + square(b) - 2 * product) / a.shape[1]


def nearest(
    images: Float[Array, "s f t 1"], train: Split | DeviceSplit | HostSplit
) -> Nearest:
    """The nearest training clips, of any class.

    Args:
      images: standardised spectrograms.
      train: training clips with the same preprocessing.
    """
    labels, parts = np.asarray(train.labels), []
    for first in range(0, len(labels), _COMPARED_AT_ONCE):
        rows = np.arange(first, min(first + _COMPARED_AT_ONCE, len(labels)))
        distances = np.asarray(_distances(images, train.take(rows)))
        best = distances.argmin(1)
        parts.append((rows[best], distances[np.arange(best.size), best]))
    rows, squares = (np.stack(values) for values in zip(*parts, strict=True))
    which, place = squares.argmin(0), np.arange(squares.shape[1])
    rows = rows[which, place]
    distances = np.sqrt(np.maximum(squares[which, place], 0.0))
    return Nearest(rows, labels[rows], distances)


def listen(
    images: Float[Array, "k f t 1"],
    coreset: Coreset,
    *,
    seed: int,
    iterations: int,
    done: Callable[[int], object] = lambda _: None,
) -> Heard:
    """Sounds of spectrograms, by ``features.inversion``.

    Args:
      images: standardised as the coreset.
      coreset: for its feature settings and normalisation.
      seed: draws the initial phases of Griffin-Lim.
      iterations: of Griffin-Lim.
      done: called with the number of spectrograms that are finished.
    """
    log_mel = normalization.invert(images, coreset.normalization)
    key, config = jax.random.key(seed), coreset.features
    found = inversion.invert_many(
        log_mel, config, key=key, iterations=iterations, done=done
    )
    return Heard(np.asarray(log_mel), *found)


def picture(log_mel: Float[np.ndarray, "f t"], limits: tuple[float, float]) -> bytes:
    """A spectrogram as a PNG with one pixel per bin, low frequencies at the bottom.

    Args:
      log_mel: in dB.
      limits: dB of the darkest and brightest colour.
    """
    from matplotlib import image  # slow to import; other commands draw nothing

    file = io.BytesIO()
    low, high = limits
    image.imsave(file, log_mel[::-1], vmin=low, vmax=high, cmap="magma", format="png")
    return file.getvalue()


def sound(waveform: Float[np.ndarray, " samples"], rate: int) -> tuple[bytes, str]:
    """A sound for a page, and its media type: MP3 if possible, else WAV.

    Args:
      waveform: in [-1, 1].
      rate: in Hz.
    """
    if "MP3" in soundfile.available_formats() and rate in _MP3_RATES:
        return audio_folder.encoded(waveform, rate, "MP3"), "audio/mpeg"
    return audio_folder.encoded(waveform, rate, "WAV"), "audio/wav"


def strongest(
    label: Float[np.ndarray, " c"], class_names: tuple[str, ...], count: int = 3
) -> Iterator[tuple[str, float]]:
    """The classes of a label with the largest values; 1 for a hard label.

    Args:
      label: centred.
      class_names: ``c`` names.
      count: most classes; values below 0.01 are left out.
    """
    values = label + 1 / label.size
    for place in np.argsort(-values, kind="stable")[:count]:
        if values[place] >= 0.01:
            yield class_names[place], float(values[place])
