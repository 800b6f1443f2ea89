"""Decodes recordings to mono waveforms, and resamples, pads and crops them."""

import collections
import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import miniaudio
import numpy as np
import soundfile
import soxr
from jaxtyping import Float, Int

from audiodd_jax.data import decoders
from audiodd_jax.data.decoders import BadAudioError
from audiodd_jax.errors import UserError, counted

_log = logging.getLogger(__name__)

# File names of recordings that can be decoded, the last ones by FFmpeg.
SUFFIXES = (
    *(".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3"),
    *(".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".w64", ".rf64"),
    *(".m4a", ".aac", ".mp4", ".webm", ".amr", ".3gp", ".wma"),
)
# Longer clips are damaged, or are not clips. Recordings of any length hold excerpts.
MAX_SECONDS = 600.0
# Encoders and programs for labels round: an excerpt may end so many seconds late.
_LATE = 0.1
# Ten minutes in stereo at 48 kHz; 268 MB as float32.
_MAX_SAMPLES = 1 << 26
# Full scale is 1; floating-point files far beyond are not sound.
_MAX_LEVEL = 1e6
# Subtypes of at most 16 bits.
_SHORT = frozenset(("PCM_16", "PCM_S8", "PCM_U8", "IMA_ADPCM", "MS_ADPCM"))
# Samples in a page of Ogg Vorbis, at most. After a seek into the last page, libsndfile
# reads from a place up to 1,024 samples late.
_PAGE = 1 << 18
# Samples of MP3 before a place on which its frames depend; a seek leaves them out.
_RESERVOIR = 1 << 15
# Samples read at once from files whose length is unknown.
_BLOCK = 1 << 16
# Channels cancel each other if their mean has less than this share of their power.
_CANCELLED = 1e-3
# Recordings whose channels do, for one message about all of them.
_opposite: list[str] = []


class Headers(NamedTuple):
    """Lengths and sample rates of recordings, or of excerpts of them."""

    seconds: Float[np.ndarray, " clips"]
    rates: Int[np.ndarray, " clips"]  # Hz; 0 for an unusable recording
    bad: dict[int, BadAudioError]  # by index


class Length(NamedTuple):
    """Size of a recording, from its header or else its content."""

    rate: int  # Hz
    frames: int  # samples of each channel
    channels: int


# Where an excerpt starts and ends, in seconds; None is the end of the recording.
Span = tuple[float, float | None]


def headers(
    sources: Sequence[str | os.PathLike], spans: Sequence[Span] = ()
) -> Headers:
    """Reads the headers of recordings, or of one excerpt (``spans``) of each.

    Recordings whose header has no length are decoded.
    """
    seconds = np.zeros(len(sources), np.float32)
    rates = np.zeros(len(sources), np.int32)
    bad = {}
    excerpts = collections.defaultdict(list)  # each file is read once
    for index, source in enumerate(sources):
        excerpts[os.fspath(source)].append(index)

    def read(source: str) -> None:
        try:
            found = length(source)
        except BadAudioError as error:
            bad.update(dict.fromkeys(excerpts[source], error))
            return
        for index in excerpts[source]:
            start, end = spans[index] if spans else (0.0, None)
            try:
                _, frames = _excerpt(sources[index], found, start, end)
                seconds[index], rates[index] = frames / found.rate, found.rate
            except BadAudioError as error:
                bad[index] = error

    with ThreadPoolExecutor(num_threads()) as pool:
        list(pool.map(read, excerpts))
    return Headers(seconds, rates, dict(sorted(bad.items())))


def length(source: str | os.PathLike) -> Length:
    """Returns the length of a recording, from its header if it states one.

    Raises:
      BadAudioError: missing, empty, or not audio.
    """
    if is_mp3_without_length(source):
        return _mp3_length(source)
    with decoders.opened(source) as file:
        is_unknown = _is_length_unknown(file)
        blocks = _blocks(file, "int16") if is_unknown else ()
        frames = sum(block.shape[0] for block in blocks) or file.frames
        return Length(file.samplerate, frames, file.channels)


def _excerpt(
    source: str | os.PathLike, found: Length, start: float, end: float | None
) -> tuple[int, int]:
    """The first sample of an excerpt and the number of samples.

    Refuses what the recording lacks, and too much, before memory is allocated.
    """
    rate, frames, channels = found
    first = round(start * rate)
    wanted = frames - first if end is None else round((end - start) * rate)
    count = min(wanted, frames - first)
    if first >= frames > 0 or wanted - count > _LATE * rate:
        late = start if end is None else end
        raise BadAudioError(f"{source} ends at {frames / rate:g} s, before {late:g} s")
    if count > MAX_SECONDS * rate:
        what = f"{source} claims" if count == frames else f"an excerpt of {source} has"
        raise BadAudioError(f"{what} {count / rate:.0f} s, over {MAX_SECONDS:.0f} s")
    if count * channels > _MAX_SAMPLES:
        raise BadAudioError(
            f"{source} claims {count} samples of {channels} channels, too many"
        )
    return first, count


def _is_length_unknown(file: soundfile.SoundFile) -> bool:
    """True if the header has no length, as in FLAC that was written to a pipe."""
    return file.frames > MAX_SECONDS * file.samplerate * 1000 or not file.seekable()


def decode(
    source: str | os.PathLike, start: float = 0.0, end: float | None = None
) -> tuple[Float[np.ndarray, " samples"], int]:
    """Decodes a recording to mono float32 in [-1, 1] and its sample rate in Hz.

    With ``start`` or ``end``, in seconds, only this excerpt of it is decoded; then it
    may have any length. Channels are averaged. Floating-point files may exceed 1.

    Raises:
      BadAudioError: missing, empty, truncated, too long, not audio, or too short for
        the excerpt.
    """
    if is_mp3_without_length(source):
        return _decode_mp3(source, start, end)
    with decoders.opened(source) as file:
        rate = file.samplerate
        # Samples of at most 16 bits are read as integers: libsndfile's conversion to
        # floats gives the same values in four times the time.
        dtype = "int16" if file.subtype in _SHORT else "float32"
        if _is_length_unknown(file):
            samples = _read_blocks(source, file, dtype, start, end)
            expected = samples.shape[0]
        else:
            found = Length(rate, file.frames, file.channels)
            first, expected = _excerpt(source, found, start, end)
            lead = min(first, _lead(file, first))
            if first:
                file.seek(first - lead)
            samples = file.read(lead + expected, dtype=dtype, always_2d=True)[lead:]
        if lacks := decoders.truncation(file):
            raise BadAudioError(f"{source} is truncated: {lacks}")
    frames = samples.shape[0]
    if frames < expected:
        raise BadAudioError(f"{source} is truncated: {frames} of {expected} samples")
    return mono(source, samples), rate


def _lead(file: soundfile.SoundFile, first: int) -> int:
    """Samples to decode before an excerpt, in formats where seeks are inexact."""
    if file.subtype == "VORBIS" and file.frames - first < _PAGE:
        return _PAGE
    return _RESERVOIR if file.subtype.startswith("MPEG") else 0


def mono(source: str | os.PathLike, samples: np.ndarray) -> np.ndarray:
    """Averages the channels as float32; integers are scaled to [-1, 1].

    If channels of opposite signs cancel each other, it returns the first loud one.
    """
    frames, channels = samples.shape
    is_short = samples.dtype == np.int16
    if frames == 0:
        raise BadAudioError(f"{source} holds no samples")
    scale = np.float32(1 / 32768 if is_short else 1)
    if channels == 1:
        mixed = samples[:, 0]
        if is_short:
            mixed = np.multiply(mixed, scale, dtype=np.float32)
    else:
        # NumPy's mean over a short axis takes ten times as long as a product.
        with np.errstate(all="ignore"):  # non-finite values are reported below
            share = np.full(channels, scale / channels, np.float32)
            wide = samples.astype(np.float32, copy=False)
            mixed = wide @ share
            power = np.vdot(wide, wide) * scale**2 / channels
            if np.vdot(mixed, mixed) < _CANCELLED * power:
                powers = np.square(wide).sum(0)
                mixed = wide[:, (powers > powers.max() / 2).argmax()] * scale
                _opposite.append(os.fspath(source))
    if not is_short:
        peak = max(mixed.max(), -mixed.min())  # NaN if any sample is
        if not np.isfinite(peak):
            raise BadAudioError(f"{source} holds samples that are not finite numbers")
        if peak > _MAX_LEVEL:
            raise BadAudioError(
                f"{source} holds samples of {peak:.0e} times full scale"
            )
    return mixed


def _blocks(file: soundfile.SoundFile, dtype: str) -> Iterator[np.ndarray]:
    """Yields all samples of a file of unknown length."""
    # Every read would seek, which fails without a length.
    file.seekable = lambda: False
    while (block := file.read(_BLOCK, dtype=dtype, always_2d=True)).size:
        yield block
        if block.shape[0] < _BLOCK:
            break


def _read_blocks(
    source: str | os.PathLike,
    file: soundfile.SoundFile,
    dtype: str,
    start: float,
    end: float | None,
) -> np.ndarray:
    """Reads an excerpt of a file of unknown length from the beginning of the file."""
    kept, position, total = [np.zeros((0, file.channels), dtype)], 0, 0
    rate = file.samplerate
    first = round(start * rate)
    stop = None if end is None else first + round((end - start) * rate)
    for block in _blocks(file, dtype):
        within = slice(max(0, first - position), stop and max(0, stop - position))
        kept.append(block[within])
        position += block.shape[0]
        total += kept[-1].shape[0]
        if total > MAX_SECONDS * rate or total * file.channels > _MAX_SAMPLES:
            raise BadAudioError(f"{source} is over {MAX_SECONDS:.0f} s long")
        if stop and position >= stop:
            break
    _excerpt(source, Length(rate, position, file.channels), start, end)
    return np.concatenate(kept)


def is_mp3_without_length(source: str | os.PathLike) -> bool:
    """True if a file is MP3 without a length in its header, whatever its suffix.

    Encoders that write to a pipe leave it out. libsndfile then estimates the length
    from the first frames, and reads no further.
    """
    content = decoders.content(source)
    return len(content.starts) == len(content.streams) == 1


def _mp3_length(source: str | os.PathLike) -> Length:
    try:
        info = miniaudio.mp3_get_file_info(os.fspath(source))
    except miniaudio.MiniaudioError as error:
        raise decoders.unreadable(source, error) from error
    return Length(info.sample_rate, info.num_frames, info.nchannels)


def _decode_mp3(
    source: str | os.PathLike, start: float, end: float | None
) -> tuple[np.ndarray, int]:
    """Decodes an excerpt with miniaudio, which reads all frames before it."""
    found = _mp3_length(source)
    first, count = _excerpt(source, found, start, end)
    try:
        decoded = next(miniaudio.mp3_stream_file(os.fspath(source), count, first), b"")
    except miniaudio.MiniaudioError as error:
        raise decoders.unreadable(source, error) from error
    samples = np.frombuffer(decoded, np.int16).reshape(-1, found.channels)
    return mono(source, samples), found.rate


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


def report_opposite() -> None:
    """Logs once which recordings have channels that cancel each other."""
    if names := sorted(set(_opposite)):
        _opposite.clear()
        more = f" and {counted(len(names) - 3, 'more recording')}" if names[3:] else ""
        _log.warning(
            "channels of opposite sign cancel each other in %s%s; one channel is used "
            "instead of their mean",
            ", ".join(names[:3]),
            more,
        )


def report_bad(bad: list[BadAudioError], skip: bool) -> None:
    """Logs unusable recordings if they are skipped, and refuses them otherwise."""
    if not bad:
        return
    shown = "; ".join(str(error) for error in bad[:5])
    more = f"; and {len(bad) - 5} more" if len(bad) > 5 else ""
    if any(decoders.NEEDED in str(error) for error in bad):
        more += f". {decoders.ADVICE}"
    if not skip:
        raise UserError(
            f"{counted(len(bad), 'recording')} cannot be used: {shown}{more}; "
            f"repair {'it' if len(bad) == 1 else 'them'} or pass --skip_bad_files"
        )
    _log.warning("skipped %s: %s%s", counted(len(bad), "recording"), shown, more)
