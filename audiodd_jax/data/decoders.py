"""Opens recordings of all formats, whatever their suffix, and refuses damaged ones."""

import contextlib
import io
import os
import re
import shutil
import subprocess
from collections.abc import Iterator

import miniaudio
import numpy as np
import soundfile

from audiodd_jax.data import containers
from audiodd_jax.errors import UserError

# In messages about files that need it; the advice is given once for all of them.
NEEDED = "is not readable audio without FFmpeg"
ADVICE = (
    "FFmpeg, which decodes M4A, AAC, WebM, AMR and WMA, is not on the PATH: install it "
    "from https://ffmpeg.org, or convert such files: ffmpeg -i voice.m4a voice.wav"
)
# An hour is decoded in seconds.
_MOST_SECONDS, _TIMEOUT = 3600, 300
_MOST_SAMPLES = _MOST_SECONDS * 48_000
_TOO_LONG = "it joins recordings that are too long"
_RATES = (100, 1_000_000)
# Sizes of samples that are larger than the file, in the log of libsndfile. Encoders
# write sizes from 0x7FFFF000 to a pipe: they do not know the size.
_SIZES = (
    r"(?:data|SSND|BODY|Data Size|riff|Riff size|Data length) *:? "
    r"(\d+) \(?should be (\d+)"
)
_UNKNOWN_SIZE = 0x7FFFF000
# Of MAT4 and VOC it says this, and of others only what the header states.
_SAID = r"^(?:\*\*\* File seems to be|Seems to be a) truncated"
_STATE_FRAMES = ("AVR", "MAT5", "MPC2K")
_FRAMES = r"(?:Frames +|Cols ): (\d+)"
# What a recording that cannot be read raises.
_ERRORS = (
    *(soundfile.SoundFileError, miniaudio.MiniaudioError),
    *(RuntimeError, ValueError, OSError),
)


class BadAudioError(UserError):
    """A recording that cannot be used; the message names the file and the reason."""


@contextlib.contextmanager
def opened(source: str | os.PathLike) -> Iterator[soundfile.SoundFile]:
    """Opens a recording; refuses absurd sample rates."""
    built = content(source)
    try:
        if built.foreign:
            file = _by_ffmpeg(source)
        elif len(built.starts) > 1:
            file = _joined(source, built)
        else:
            name = os.fsencode(source)  # names need not be UTF-8
            # By this suffix, soundfile takes a file to have no header.
            is_raw = name.lower().endswith(b".raw")
            file = soundfile.SoundFile(os.open(name, os.O_RDONLY) if is_raw else name)
        with file:
            if not _RATES[0] <= (rate := file.samplerate) <= _RATES[1]:
                raise BadAudioError(f"{source} claims a sample rate of {rate} Hz")
            yield file
    except _ERRORS as error:
        raise unreadable(source, error) from error


def content(source: str | os.PathLike) -> containers.Content:
    """How a file is built; refuses truncated files, and those without a decoder."""
    try:
        built = containers.examine(source)
    except (OSError, ValueError) as error:
        raise unreadable(source, error) from error
    if built.foreign and not ffmpeg():
        raise BadAudioError(f"{source} {NEEDED} ({built.foreign})")
    if built.is_cut:
        raise BadAudioError(f"{source} is truncated: the end of its stream is missing")
    return built


def unreadable(source: str | os.PathLike, error: Exception) -> BadAudioError:
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
    if "lost sync" in reason:  # FLAC
        return BadAudioError(f"{name} is truncated or damaged ({reason})")
    return BadAudioError(f"{name} is not readable audio ({reason})")


def truncation(file: soundfile.SoundFile) -> str:
    """Says what a file lacks according to its header; empty for a whole file.

    libsndfile reads the rest without an error.
    """
    log = file.extra_info
    sizes = [map(int, pair) for pair in re.findall(_SIZES, log)]
    missing = [size - rest for size, rest in sizes if size < _UNKNOWN_SIZE]
    if max(missing, default=0) > 0:
        return f"its last {max(missing)} bytes are gone"
    stated = re.findall(_FRAMES, log) if file.format in _STATE_FRAMES else []
    if re.search(_SAID, log, re.MULTILINE) or (
        stated and int(stated[-1]) > file.frames
    ):
        return "the end of its samples is missing"
    return ""


def ffmpeg() -> str | None:
    """Returns the path of FFmpeg, if it is installed."""
    return shutil.which("ffmpeg")


def _by_ffmpeg(source: str | os.PathLike) -> soundfile.SoundFile:
    """Decodes a recording to memory; raises ValueError with what FFmpeg reports."""
    # An absolute path is no option or protocol. WAV states the rate and the channels.
    before = [ffmpeg() or "ffmpeg", "-nostdin", "-v", "error", "-i"]
    after = f"-map 0:a:0 -t {_MOST_SECONDS} -c:a pcm_f32le -f wav -".split()
    try:
        done = subprocess.run(
            [*before, os.path.abspath(source), *after],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT,
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"FFmpeg takes more than {_TIMEOUT} s") from error
    if done.stderr.strip() or done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise ValueError(lines[-1] if lines else f"FFmpeg: code {done.returncode}")
    file = soundfile.SoundFile(io.BytesIO(done.stdout))
    if file.frames >= _MOST_SECONDS * file.samplerate:
        raise ValueError("it is over an hour long; convert it to WAV")
    return file


def _joined(
    source: str | os.PathLike, built: containers.Content
) -> soundfile.SoundFile:
    """Decodes all recordings of a file to memory, and returns them as one.

    Raises:
      ValueError: they differ in rate or channels, or are truncated, or too long.
    """
    parts, kinds, total = [], set(), 0
    with open(source, "rb") as file:
        for start, end in zip(built.starts, (*built.starts[1:], None), strict=True):
            file.seek(start)
            data = file.read(end and end - start)
            samples, rate = _part(data, start in built.streams)
            parts.append(samples)
            kinds.add(f"{rate} Hz and {samples.shape[1]} channels")
            total += samples.size
            if total > _MOST_SAMPLES:
                raise ValueError(_TOO_LONG)
    if len(kinds) > 1:
        found = ", and of ".join(sorted(kinds))
        raise ValueError(f"it joins recordings of {found}; split it, or convert it")
    raw = io.BytesIO(np.concatenate(parts).tobytes())
    kind = {"format": "RAW", "subtype": "FLOAT", "endian": "CPU"}
    return soundfile.SoundFile(raw, "r", rate, samples.shape[1], **kind)


def _part(data: bytes, is_stream: bool) -> tuple[np.ndarray, int]:
    if is_stream:
        decoded = miniaudio.mp3_read_s16(data)
        samples = np.frombuffer(decoded.samples, np.int16)
        samples = samples.reshape(-1, decoded.nchannels) / np.float32(32768)
        return samples, decoded.sample_rate
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        if file.frames * file.channels > _MOST_SAMPLES:
            raise ValueError(_TOO_LONG)
        # A number, since some subtypes cannot seek.
        samples = file.read(file.frames, dtype="float32", always_2d=True)
        if len(samples) < file.frames or truncation(file):
            raise ValueError("it joins recordings, one of which is truncated")
        return samples, file.samplerate
