"""Recordings to waveforms: decode, mix to mono, resample, fit to length."""

import collections
import contextlib
import itertools
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import soxr
from jaxtyping import Float, Int

from audiodd_jax.runtime.errors import UserError

_log = logging.getLogger(__name__)

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".oga", ".opus", ".aif", ".aiff")
# A clip is seconds long; a header that claims hours is damaged or not a clip.
MAX_SECONDS = 600.0
# Ten minutes in stereo at 48 kHz; 268 MB as float32, whatever a header claims.
_MAX_SAMPLES = 1 << 26
_RATES = (100, 1_000_000)
# Full scale is 1; a floating-point file far beyond it was not written as sound.
_MAX_LEVEL = 1e6


class BadAudioError(UserError):
    """A recording that cannot be used; the message names the file and the reason."""


class Headers(NamedTuple):
    """What the headers of recordings say.

    Attributes:
      seconds: ``[clips]`` lengths.
      rates: ``[clips]`` sample rates in Hz; 0 for a bad one.
      bad: index -> what is wrong with it.
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
            with _opened(Path(sources[index])) as file:
                result.seconds[index] = file.frames / file.samplerate
                result.rates[index] = file.samplerate
        except BadAudioError as error:
            result.bad[index] = error

    with ThreadPoolExecutor(num_threads()) as pool:
        list(pool.map(read, range(len(sources))))
    return result._replace(bad=dict(sorted(result.bad.items())))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[soundfile.SoundFile]:
    """The opened recording, with every way in which it may be bad named."""
    if not path.is_file():
        raise BadAudioError(f"{path} does not exist")
    if path.stat().st_size == 0:
        raise BadAudioError(f"{path} is an empty file")
    try:
        with soundfile.SoundFile(path) as file:
            _check_header(path, file)
            yield file
    except (soundfile.SoundFileError, RuntimeError, ValueError) as error:
        reason = str(error).rstrip(".").split(": ")[-1]
        raise BadAudioError(f"{path} is not readable audio ({reason})") from error


def _check_header(path: Path, file: soundfile.SoundFile) -> None:
    """Refuses headers that no clip has, before anything of their size is allocated."""
    rate, frames = file.samplerate, file.frames
    if not _RATES[0] <= rate <= _RATES[1]:
        raise BadAudioError(f"{path} claims a sample rate of {rate} Hz")
    if frames > MAX_SECONDS * rate:
        raise BadAudioError(
            f"{path} claims {frames / rate:.0f} s, over {MAX_SECONDS:.0f} s"
        )
    if frames * file.channels > _MAX_SAMPLES:
        raise BadAudioError(
            f"{path} claims {frames} samples of {file.channels} channels, too many"
        )


def decode(source: str | os.PathLike) -> tuple[Float[np.ndarray, " samples"], int]:
    """Decodes a recording to mono float32 in [-1, 1] and its sample rate in Hz.

    Channels are averaged. Floating-point files may go beyond 1 and are kept so.

    Raises:
      BadAudioError: missing, empty, truncated to nothing, too long, or not audio.
    """
    path = Path(source)
    with _opened(path) as file:
        rate, expected = file.samplerate, file.frames
        samples = file.read(dtype="float32", always_2d=True)
    if samples.shape[0] == 0:
        raise BadAudioError(f"{path} holds no samples")
    if samples.shape[0] < expected:
        raise BadAudioError(
            f"{path} is truncated: {samples.shape[0]} of {expected} samples"
        )
    # A mean over so short an axis takes NumPy ten times as long as a product.
    channels = samples.shape[1]
    share = np.full(channels, 1 / channels, np.float32)
    with np.errstate(all="ignore"):  # what is not finite is named below
        mono = samples[:, 0] if channels == 1 else samples @ share
        energy = np.dot(mono, mono)
    # A small sum of squares says that every sample is fine, in one pass.
    if not energy < _MAX_LEVEL:
        _check_level(path, mono)
    return mono, rate


def _check_level(path: Path, mono: np.ndarray) -> None:
    peak = np.abs(mono).max()
    if not np.isfinite(peak):
        raise BadAudioError(f"{path} holds samples that are not finite numbers")
    if peak > _MAX_LEVEL:
        raise BadAudioError(f"{path} holds samples of {peak:.0e} times full scale")


def decode_all(
    sources: Iterable[str | os.PathLike],
) -> Iterator[tuple[Float[np.ndarray, " samples"], int] | BadAudioError]:
    """``decode`` of each source, in order, a few ahead of the caller in threads.

    What cannot be decoded comes as the error that names it.
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
    waveform: Float[np.ndarray, " samples"], samples: int, align: str
) -> Float[np.ndarray, " fitted"]:
    """Pads with silence, or cuts, to ``samples`` samples.

    Args:
      waveform: mono.
      samples: the length wanted.
      align: ``start`` keeps the beginning, ``center`` the middle, ``repeat`` fills a
        short clip with repetitions and keeps the beginning of a long one.
    """
    length = waveform.shape[0]
    if align == "repeat" and length < samples:
        return np.resize(waveform, samples)
    if align == "center":
        cut = max(0, (length - samples) // 2)
        waveform = waveform[cut : cut + samples]
        missing = samples - waveform.shape[0]
        return np.pad(waveform, (missing // 2, missing - missing // 2))
    return np.pad(waveform[:samples], (0, max(0, samples - length)))


def load(
    source: str | os.PathLike, sample_rate: int, samples: int, align: str
) -> Float[np.ndarray, " fitted"]:
    """A recording as a mono waveform of ``samples`` samples at ``sample_rate`` Hz."""
    waveform, rate = decode(source)
    return fit(resample(waveform, rate, sample_rate), samples, align)


def num_threads() -> int:
    """Threads for decoding: libsndfile and soxr release the interpreter's lock."""
    return min(32, os.cpu_count() or 1)


def report_bad(bad: list[BadAudioError], skip: bool) -> None:
    """Names and counts unusable recordings, as a warning if they are to be skipped.

    Raises:
      UserError: there are any, and they are not to be skipped.
    """
    if not bad:
        return
    shown = "; ".join(str(error) for error in bad[:5])
    more = f"; and {len(bad) - 5} more" if len(bad) > 5 else ""
    if not skip:
        raise UserError(
            f"{len(bad)} recordings cannot be used: {shown}{more}; mend them or pass "
            "--skip_bad_files"
        )
    _log.warning("skipped %d recordings: %s%s", len(bad), shown, more)
