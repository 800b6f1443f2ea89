"""Decoding of recordings: mono, resampled, of fixed length."""

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import soundfile
import soxr
from jaxtyping import Float, Int

from audiodd_jax.data import mp3, riff
from audiodd_jax.errors import UserError

_log = logging.getLogger(__name__)

# File names of recordings that can be decoded.
SUFFIXES = (
    *(".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3"),
    *(".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".w64", ".rf64"),
)
# Longer recordings are damaged, or are not clips.
MAX_SECONDS = 600.0
# Ten minutes in stereo at 48 kHz; 268 MB as float32.
_MAX_SAMPLES = 1 << 26
_RATES = (100, 1_000_000)
# Full scale is 1; floating-point files far beyond are not sound.
_MAX_LEVEL = 1e6
# Subtypes of at most 16 bits.
_SHORT = frozenset(("PCM_16", "PCM_S8", "PCM_U8", "IMA_ADPCM", "MS_ADPCM"))
# Samples read at once from files whose length is unknown.
_BLOCK = 1 << 16


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
    """Lengths and sample rates of recordings, decoding only where headers lack them."""
    result = Headers(
        np.zeros(len(sources), np.float32), np.zeros(len(sources), np.int32), {}
    )

    def read(index: int) -> None:
        try:
            rate, frames = _measure(sources[index])
            result.seconds[index] = frames / rate
            result.rates[index] = rate
        except BadAudioError as error:
            result.bad[index] = error

    with ThreadPoolExecutor(num_threads()) as pool:
        list(pool.map(read, range(len(sources))))
    return result._replace(bad=dict(sorted(result.bad.items())))


def _measure(source: str | os.PathLike) -> tuple[int, int]:
    """Sample rate and number of samples of a recording."""
    if mp3.has_unknown_length(source):
        waveform, rate = decode(source)
        return rate, waveform.size
    with _opened(source) as file:
        if not _is_length_unknown(file):
            return file.samplerate, file.frames
    waveform, rate = decode(source)
    return rate, waveform.size


@contextlib.contextmanager
def _opened(source: str | os.PathLike) -> Iterator[soundfile.SoundFile]:
    """An opened recording; errors name the file and the reason."""
    try:
        # As bytes, since names need not be UTF-8.
        with soundfile.SoundFile(os.fsencode(source)) as file:
            _check_header(source, file)
            yield file
    except (soundfile.SoundFileError, RuntimeError, ValueError, OSError) as error:
        raise _unreadable(source, error) from error


def _unreadable(source: str | os.PathLike, error: Exception) -> BadAudioError:
    """The reason why a recording cannot be read, from the library's error."""
    name = str(source).encode(errors="backslashreplace").decode()
    if os.path.isdir(source):
        return BadAudioError(f"{name} is a folder")
    if not os.path.isfile(source):
        link = " (a broken link)" if os.path.islink(source) else ""
        return BadAudioError(f"{name} does not exist{link}")
    if os.path.getsize(source) == 0:
        return BadAudioError(f"{name} is an empty file")
    reason = str(error).rstrip(".").split(": ")[-1]
    if "does not exist" in reason:  # of libsndfile's MPEG reader, for other content
        reason = "format not recognised"
    return BadAudioError(f"{name} is not readable audio ({reason})")


def _is_length_unknown(file: soundfile.SoundFile) -> bool:
    """Whether the header has no length, as of FLAC that was written to a pipe."""
    return file.frames > MAX_SECONDS * file.samplerate * 1000 or not file.seekable()


def _check_header(source: str | os.PathLike, file: soundfile.SoundFile) -> None:
    """Checks a header before memory of its size is allocated."""
    rate, frames = file.samplerate, file.frames
    if not _RATES[0] <= rate <= _RATES[1]:
        raise BadAudioError(f"{source} claims a sample rate of {rate} Hz")
    if frames > MAX_SECONDS * rate and not _is_length_unknown(file):
        raise BadAudioError(
            f"{source} claims {frames / rate:.0f} s, over {MAX_SECONDS:.0f} s"
        )
    if frames * file.channels > _MAX_SAMPLES and not _is_length_unknown(file):
        raise BadAudioError(
            f"{source} claims {frames} samples of {file.channels} channels, too many"
        )


def decode(source: str | os.PathLike) -> tuple[Float[np.ndarray, " samples"], int]:
    """Decodes a recording to mono float32 in [-1, 1] and its sample rate in Hz.

    Channels are averaged. Floating-point files may exceed 1.

    Raises:
      BadAudioError: missing, empty, truncated, too long, or not audio.
    """
    if mp3.has_unknown_length(source):
        return _decode_mp3(source)
    with _opened(source) as file:
        rate, expected = file.samplerate, file.frames
        # Samples of at most 16 bits are read as integers: libsndfile's conversion to
        # floats gives the same values in four times the time.
        is_short = file.subtype in _SHORT
        dtype = "int16" if is_short else "float32"
        if _is_length_unknown(file):
            samples = _read_blocks(source, file, dtype)
            expected = samples.shape[0]
        else:
            samples = file.read(dtype=dtype, always_2d=True)
    if missing := riff.missing_bytes(source):
        raise BadAudioError(f"{source} is truncated: its last {missing} bytes are gone")
    frames = samples.shape[0]
    if frames < expected:
        raise BadAudioError(f"{source} is truncated: {frames} of {expected} samples")
    return _mono(source, samples), rate


def _mono(source: str | os.PathLike, samples: np.ndarray) -> np.ndarray:
    """The mean of the channels as float32; integers are scaled to [-1, 1]."""
    frames, channels = samples.shape
    is_short = samples.dtype == np.int16
    if frames == 0:
        raise BadAudioError(f"{source} holds no samples")
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
    return mono


def _read_blocks(
    source: str | os.PathLike, file: soundfile.SoundFile, dtype: str
) -> np.ndarray:
    """All samples of a file of unknown length."""
    blocks, total = [np.zeros((0, file.channels), dtype)], 0
    # Every read would seek, which fails without a length.
    file.seekable = lambda: False
    while (block := file.read(_BLOCK, dtype=dtype, always_2d=True)).size:
        blocks.append(block)
        total += block.shape[0]
        is_long = total > MAX_SECONDS * file.samplerate
        if is_long or total * file.channels > _MAX_SAMPLES:
            raise BadAudioError(f"{source} is over {MAX_SECONDS:.0f} s long")
        if block.shape[0] < _BLOCK:
            break
    return np.concatenate(blocks)


def _decode_mp3(source: str | os.PathLike) -> tuple[np.ndarray, int]:
    """Decodes an MP3 without a length in its header."""
    try:
        samples, rate = mp3.decode(source, MAX_SECONDS)
    except ValueError as error:
        raise _unreadable(source, error) from error
    return _mono(source, samples), rate


def _check_level(source: str | os.PathLike, mono: np.ndarray) -> None:
    peak = max(mono.max(), -mono.min())  # NaN if there is one
    if not np.isfinite(peak):
        raise BadAudioError(f"{source} holds samples that are not finite numbers")
    if peak > _MAX_LEVEL:
        raise BadAudioError(f"{source} holds samples of {peak:.0e} times full scale")


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
