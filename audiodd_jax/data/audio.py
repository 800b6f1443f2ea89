"""Decoding of recordings: mono, resampled, of fixed length."""

import collections
import contextlib
import itertools
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import soundfile
import soxr
from jaxtyping import Float, Int

from audiodd_jax.runtime.errors import UserError

_log = logging.getLogger(__name__)

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".oga", ".opus", ".aif", ".aiff")
# Longer recordings are damaged, or are not clips.
MAX_SECONDS = 600.0
# Ten minutes in stereo at 48 kHz; 268 MB as float32.
_MAX_SAMPLES = 1 << 26
_RATES = (100, 1_000_000)
# Full scale is 1; floating-point files far beyond are not sound.
_MAX_LEVEL = 1e6
# Subtypes of at most 16 bits.
_SHORT = frozenset(("PCM_16", "PCM_S8", "PCM_U8", "IMA_ADPCM", "MS_ADPCM"))


class BadAudioError(UserError):
    """A recording that cannot be used; the message names the file and the reason."""


class Headers(NamedTuple):
    """The headers of recordings.

    Attributes:
      seconds: ``[clips]`` lengths.
      rates: ``[clips]`` sample rates in Hz; 0 for a bad one.
      bad: index -> error.
    """

    seconds: Float[np.ndarray, " clips"]
    rates: Int[np.ndarray, " clips"]
    bad: dict[int, BadAudioError]


def headers(sources: Sequence[str | os.PathLike]) -> Headers:
    """Reads the headers of recordings, without decoding them."""
    result = Headers(
        np.zeros(len(sources), np.float32), np.zeros(len(sources), np.int32), {}
    )

    def read(index: int) -> None:
        try:
            with _opened(sources[index]) as file:
                result.seconds[index] = file.frames / file.samplerate
                result.rates[index] = file.samplerate
        except BadAudioError as error:
            result.bad[index] = error

    with ThreadPoolExecutor(num_threads()) as pool:
        list(pool.map(read, range(len(sources))))
    return result._replace(bad=dict(sorted(result.bad.items())))


@contextlib.contextmanager
def _opened(source: str | os.PathLike) -> Iterator[soundfile.SoundFile]:
    """An opened recording; errors name the file and the reason."""
    try:
        with soundfile.SoundFile(source) as file:
            _check_header(source, file)
            yield file
    except (soundfile.SoundFileError, RuntimeError, ValueError, OSError) as error:
        if not os.path.isfile(source):
            raise BadAudioError(f"{source} does not exist") from error
        if os.path.getsize(source) == 0:
            raise BadAudioError(f"{source} is an empty file") from error
        reason = str(error).rstrip(".").split(": ")[-1]
        raise BadAudioError(f"{source} is not readable audio ({reason})") from error


def _check_header(source: str | os.PathLike, file: soundfile.SoundFile) -> None:
    """Checks a header before memory of its size is allocated."""
    rate, frames = file.samplerate, file.frames
    if not _RATES[0] <= rate <= _RATES[1]:
        raise BadAudioError(f"{source} claims a sample rate of {rate} Hz")
    if frames > MAX_SECONDS * rate:
        raise BadAudioError(
            f"{source} claims {frames / rate:.0f} s, over {MAX_SECONDS:.0f} s"
        )
    if frames * file.channels > _MAX_SAMPLES:
        raise BadAudioError(
            f"{source} claims {frames} samples of {file.channels} channels, too many"
        )


def decode(source: str | os.PathLike) -> tuple[Float[np.ndarray, " samples"], int]:
    """Decodes a recording to mono float32 in [-1, 1] and its sample rate in Hz.

    Channels are averaged. Floating-point files may exceed 1.

    Raises:
      BadAudioError: missing, empty, truncated, too long, or not audio.
    """
    with _opened(source) as file:
        rate, expected = file.samplerate, file.frames
        # Samples of at most 16 bits are read as integers: libsndfile's conversion to
        # floats gives the same values in four times the time.
        is_short = file.subtype in _SHORT
        dtype = "int16" if is_short else "float32"
        samples = file.read(dtype=dtype, always_2d=True)
    frames, channels = samples.shape
    if frames == 0:
        raise BadAudioError(f"{source} holds no samples")
    if frames < expected:
        raise BadAudioError(f"{source} is truncated: {frames} of {expected} samples")
    scale = np.float32(1 / 32768 if is_short else 1)
    if channels == 1:
        mono = samples[:, 0]
        if is_short:
            mono = np.multiply(mono, scale, dtype=np.float32)
    else:
        # NumPy's mean over a short axis takes ten times as long as a product.
        with np.errstate(all="ignore"):  # non-finite values are reported below
            share = np.full(channels, scale / channels, np.float32)
            mono = samples.astype(np.float32, copy=False) @ share
    if not is_short:
        _check_level(source, mono)
    return mono, rate


def _check_level(source: str | os.PathLike, mono: np.ndarray) -> None:
    peak = max(mono.max(), -mono.min())  # NaN if there is one
    if not np.isfinite(peak):
        raise BadAudioError(f"{source} holds samples that are not finite numbers")
    if peak > _MAX_LEVEL:
        raise BadAudioError(f"{source} holds samples of {peak:.0e} times full scale")


def decode_all(
    sources: Iterable[str | os.PathLike],
) -> Iterator[tuple[Float[np.ndarray, " samples"], int] | BadAudioError]:
    """``decode`` of each source, in order; threads decode ahead.

    Yields an error instead of a recording that cannot be decoded.
    """

    def one(source: str | os.PathLike) -> object:
        try:
            return decode(source)
        except BadAudioError as error:
            return error

    todo = iter(sources)
    with ThreadPoolExecutor(num_threads()) as pool:
        ahead = collections.deque(
            pool.submit(one, source)
            for source in itertools.islice(todo, 4 * num_threads())
        )
        while ahead:
            result = ahead.popleft().result()
            ahead.extend(pool.submit(one, s) for s in itertools.islice(todo, 1))
            yield result


def resample(
    waveform: Float[np.ndarray, " samples"], rate: int, target_rate: int
) -> Float[np.ndarray, " resampled"]:
    """Band-limited resampling from ``rate`` to ``target_rate`` Hz."""
    if rate == target_rate:
        return waveform
    return soxr.resample(waveform, rate, target_rate, quality="HQ")


def fit(
    waveform: Float[np.ndarray, " samples"],
    samples: int,
    align: str,
    out: Float[np.ndarray, " fitted"] | None = None,
) -> Float[np.ndarray, " fitted"]:
    """Pads with silence, or cuts, to ``samples`` samples.

    Args:
      waveform: mono.
      samples: length of the result.
      align: ``start`` keeps the beginning, ``center`` the middle, ``repeat`` repeats a
        short clip and keeps the beginning of a long one.
      out: array for the result; None: a new one.
    """
    length = waveform.shape[0]
    out = np.empty(samples, np.float32) if out is None else out
    if align == "repeat" and length < samples:
        out[:] = np.resize(waveform, samples)
        return out
    kept, first, offset = min(length, samples), 0, 0
    if align == "center":
        first, offset = (length - kept) // 2, (samples - kept) // 2
    out[:offset] = 0
    out[offset : offset + kept] = waveform[first : first + kept]
    out[offset + kept :] = 0
    return out


def load(
    source: str | os.PathLike, sample_rate: int, samples: int, align: str
) -> Float[np.ndarray, " fitted"]:
    """A recording as a mono waveform of ``samples`` samples at ``sample_rate`` Hz."""
    waveform, rate = decode(source)
    return fit(resample(waveform, rate, sample_rate), samples, align)


def num_threads() -> int:
    """Number of decoding threads; libsndfile and soxr release the GIL."""
    return min(32, os.cpu_count() or 1)


def report_bad(bad: list[BadAudioError], skip: bool) -> None:
    """Reports unusable recordings: a warning if they are skipped, else an error.

    Raises:
      UserError: there are any, and they are not skipped.
    """
    if not bad:
        return
    shown = "; ".join(str(error) for error in bad[:5])
    more = f"; and {len(bad) - 5} more" if len(bad) > 5 else ""
    if not skip:
        raise UserError(
            f"{len(bad)} recordings cannot be used: {shown}{more}; repair them or pass "
            "--skip_bad_files"
        )
    _log.warning("skipped %d recordings: %s%s", len(bad), shown, more)
