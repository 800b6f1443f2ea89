"""Decodes recordings to mono waveforms, and resamples, pads and crops them."""

import contextlib
import logging
import os
import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import miniaudio
import numpy as np
import soundfile
import soxr
from jaxtyping import Float, Int

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
# Bytes after the ID3 tag of an MP3 file that contain the header of the first frame, and
# the marks of a length in it.
_MP3_HEADER = 4096
_MP3_LENGTHS = (b"Xing", b"Info", b"VBRI")
# Placeholders for the size of WAV files that encoders write to a pipe.
_UNKNOWN_SIZES = (0, 0xFFFFFFFF, 0x7FFFFFFF)


class BadAudioError(UserError):
    """A recording that cannot be used; the message names the file and the reason."""


class Headers(NamedTuple):
    """Lengths and sample rates of recordings."""

    seconds: Float[np.ndarray, " clips"]
    rates: Int[np.ndarray, " clips"]  # Hz; 0 for an unusable recording
    bad: dict[int, BadAudioError]  # by index


def headers(sources: Sequence[str | os.PathLike]) -> Headers:
    """Reads the headers of recordings; decodes those whose header has no length."""
    seconds = np.zeros(len(sources), np.float32)
    rates = np.zeros(len(sources), np.int32)
    bad = {}

    def read(index: int) -> None:
        try:
            rate, frames = _rate_and_frames(sources[index])
            seconds[index], rates[index] = frames / rate, rate
        except BadAudioError as error:
            bad[index] = error

    with ThreadPoolExecutor(num_threads()) as pool:
        list(pool.map(read, range(len(sources))))
    return Headers(seconds, rates, dict(sorted(bad.items())))


def _rate_and_frames(source: str | os.PathLike) -> tuple[int, int]:
    if not is_mp3_without_length(source):
        with _opened(source) as file:
            if not _is_length_unknown(file):
                return file.samplerate, file.frames
    waveform, rate = decode(source)
    return rate, waveform.size


@contextlib.contextmanager
def _opened(source: str | os.PathLike) -> Iterator[soundfile.SoundFile]:
    """Opens a recording; refuses absurd headers before memory is allocated."""
    try:
        # As bytes, since names need not be UTF-8.
        with soundfile.SoundFile(os.fsencode(source)) as file:
            rate, frames, channels = file.samplerate, file.frames, file.channels
            if not _RATES[0] <= rate <= _RATES[1]:
                raise BadAudioError(f"{source} claims a sample rate of {rate} Hz")
            if _is_length_unknown(file):
                frames = 0
            if frames > MAX_SECONDS * rate:
                raise BadAudioError(
                    f"{source} claims {frames / rate:.0f} s, over {MAX_SECONDS:.0f} s"
                )
            if frames * channels > _MAX_SAMPLES:
                raise BadAudioError(
                    f"{source} claims {frames} samples of {channels} channels, too many"
                )
            yield file
    except (soundfile.SoundFileError, RuntimeError, ValueError, OSError) as error:
        raise _unreadable(source, error) from error


def _unreadable(source: str | os.PathLike, error: Exception) -> BadAudioError:
    """Finds the reason why a recording cannot be read, from the library's error."""
    name = str(source).encode(errors="backslashreplace").decode()
    if os.path.isdir(source):
        return BadAudioError(f"{name} is a folder")
    if not os.path.isfile(source):
        link = " (a broken link)" if os.path.islink(source) else ""
        return BadAudioError(f"{name} does not exist{link}")
    if os.path.getsize(source) == 0:
        return BadAudioError(f"{name} is an empty file")
    reason = str(error).rstrip(".").split(": ")[-1]
    if "does not exist" in reason:  # libsndfile's MPEG reader, for other content
        reason = "format not recognised"
    return BadAudioError(f"{name} is not readable audio ({reason})")


def _is_length_unknown(file: soundfile.SoundFile) -> bool:
    """True if the header has no length, as in FLAC that was written to a pipe."""
    return file.frames > MAX_SECONDS * file.samplerate * 1000 or not file.seekable()


def decode(source: str | os.PathLike) -> tuple[Float[np.ndarray, " samples"], int]:
    """Decodes a recording to mono float32 in [-1, 1] and its sample rate in Hz.

    Channels are averaged. Floating-point files may exceed 1.

    Raises:
      BadAudioError: missing, empty, truncated, too long, or not audio.
    """
    if is_mp3_without_length(source):
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
    if missing := missing_bytes(source):
        raise BadAudioError(f"{source} is truncated: its last {missing} bytes are gone")
    frames = samples.shape[0]
    if frames < expected:
        raise BadAudioError(f"{source} is truncated: {frames} of {expected} samples")
    return _mono(source, samples), rate


def _mono(source: str | os.PathLike, samples: np.ndarray) -> np.ndarray:
    """Averages the channels as float32; integers are scaled to [-1, 1]."""
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
        peak = max(mono.max(), -mono.min())  # NaN if any sample is
        if not np.isfinite(peak):
            raise BadAudioError(f"{source} holds samples that are not finite numbers")
        if peak > _MAX_LEVEL:
            raise BadAudioError(
                f"{source} holds samples of {peak:.0e} times full scale"
            )
    return mono


def _read_blocks(
    source: str | os.PathLike, file: soundfile.SoundFile, dtype: str
) -> np.ndarray:
    """Reads all samples of a file of unknown length."""
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


def is_mp3_without_length(source: str | os.PathLike) -> bool:
    """True if ``source`` is an MP3 file without a length in its header.

    Encoders that write to a pipe leave it out. libsndfile then estimates the length
    from the first frames, and reads no further.
    """
    if not os.fspath(source).lower().endswith(".mp3") or not os.path.isfile(source):
        return False
    with open(source, "rb") as file:
        start = file.read(10)
        if start[:3] == b"ID3" and len(start) == 10:
            size = 0  # of the ID3v2 tag, in bytes of seven bits
            for byte in start[6:]:
                size = size << 7 | byte
            file.seek(10 + size)
            start = b""
        head = start + file.read(_MP3_HEADER)
    is_frame = len(head) > 1 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2
    return is_frame and not any(mark in head for mark in _MP3_LENGTHS)


def _decode_mp3(source: str | os.PathLike) -> tuple[np.ndarray, int]:
    """Decodes with miniaudio, which reads all frames."""
    try:
        decoded = miniaudio.mp3_read_file_s16(os.fspath(source))
    except miniaudio.MiniaudioError as error:
        raise _unreadable(source, error) from error
    samples = np.frombuffer(decoded.samples, np.int16).reshape(-1, decoded.nchannels)
    if samples.shape[0] > MAX_SECONDS * decoded.sample_rate:
        raise BadAudioError(f"{source} is over {MAX_SECONDS:.0f} s long")
    return _mono(source, samples), decoded.sample_rate


def missing_bytes(source: str | os.PathLike) -> int:
    """Returns how many bytes of samples a WAV file lacks according to its header.

    libsndfile reads the rest without an error.
    """
    with open(source, "rb") as file:
        start = file.read(12)
        if start[:4] != b"RIFF" or start[8:] != b"WAVE":
            return 0
        total = os.fstat(file.fileno()).st_size
        while len(head := file.read(8)) == 8:
            name, size = head[:4], struct.unpack("<I", head[4:])[0]
            if name == b"data":
                remaining = total - file.tell()
                # The largest sizes are placeholders of streams too.
                is_known = size not in _UNKNOWN_SIZES and size < 0x7FFFF000
                return max(0, size - remaining) if is_known else 0
            file.seek(size + size % 2, os.SEEK_CUR)
    return 0


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
    """Pads with silence, or crops, to ``samples`` samples, in ``out`` if given.

    ``align`` is ``start`` to keep the beginning, ``center`` to keep the middle, or
    ``repeat`` to repeat a short clip and keep the beginning of a long one.
    """
    length = waveform.shape[0]
    out = np.empty(samples, np.float32) if out is None else out
    if align == "repeat" and length < samples:
        out[:] = np.resize(waveform, samples)
        return out
    common, first, offset = min(length, samples), 0, 0
    if align == "center":
        first, offset = (length - common) // 2, (samples - common) // 2
    out[:offset] = 0
    out[offset : offset + common] = waveform[first : first + common]
    out[offset + common :] = 0
    return out


def num_threads() -> int:
    """Returns the number of decoding threads; libsndfile and soxr release the GIL."""
    return min(32, os.cpu_count() or 1)


def report_bad(bad: list[BadAudioError], skip: bool) -> None:
    """Logs unusable recordings if they are skipped, and refuses them otherwise."""
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
