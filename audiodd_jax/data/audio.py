"""Recordings to waveforms: decode, mix to mono, resample, fit to length."""

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import soundfile
import soxr
from jaxtyping import Float

from audiodd_jax.runtime.errors import UserError

_log = logging.getLogger(__name__)

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".oga", ".opus", ".aif", ".aiff")
# A clip is seconds long; a header that claims hours is damaged or not a clip.
MAX_SECONDS = 600.0


class BadAudioError(UserError):
    """A recording that cannot be used; the message names the file and the reason."""


def header(source: str | os.PathLike) -> tuple[float, int]:
    """Length in seconds and sample rate in Hz, from the header alone.

    Raises:
      BadAudioError: as ``decode``.
    """
    with _opened(Path(source)) as file:
        return file.frames / file.samplerate, file.samplerate


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[soundfile.SoundFile]:
    """The opened recording, with every way in which it may be bad named."""
    if not path.is_file():
        raise BadAudioError(f"{path} does not exist")
    if path.stat().st_size == 0:
        raise BadAudioError(f"{path} is an empty file")
    try:
        with soundfile.SoundFile(path) as file:
            if file.frames > MAX_SECONDS * file.samplerate:
                raise BadAudioError(
                    f"{path} claims {file.frames / file.samplerate:.0f} s, over "
                    f"{MAX_SECONDS:.0f} s"
                )
            yield file
    except (soundfile.SoundFileError, RuntimeError, ValueError) as error:
        reason = str(error).rstrip(".").split(": ")[-1]
        raise BadAudioError(f"{path} is not readable audio ({reason})") from error


def decode(source: str | os.PathLike) -> tuple[Float[np.ndarray, " samples"], int]:
    """Decodes a recording to mono float32 in [-1, 1] and its sample rate in Hz.

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
    mono = samples.mean(axis=1)
    if not np.isfinite(mono).all():
        raise BadAudioError(f"{path} holds samples that are not finite numbers")
    return mono, rate


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


def check_all(
    sources: Iterable[os.PathLike],
) -> tuple[list[os.PathLike], list[BadAudioError]]:
    """Decodes every recording; returns those that can be used, and what is wrong."""

    def check(source: os.PathLike) -> BadAudioError | None:
        try:
            decode(source)
        except BadAudioError as error:
            return error
        return None

    sources = list(sources)
    with ThreadPoolExecutor(num_threads()) as pool:
        errors = list(pool.map(check, sources))
    good = [s for s, error in zip(sources, errors, strict=True) if error is None]
    return good, [error for error in errors if error is not None]


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
