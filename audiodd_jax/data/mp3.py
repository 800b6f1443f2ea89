"""MP3 files whose header has no length.

Encoders that write to a pipe leave out the Xing, Info or VBRI header. libsndfile then
estimates the length from the first frames and reads no further. Such files are decoded
by miniaudio, which reads all frames.
"""

import os

import miniaudio
import numpy as np

# Bytes after the ID3 tag that contain the header of the first frame.
_HEADER = 4096
_TAGS = (b"Xing", b"Info", b"VBRI")


def has_unknown_length(source: str | os.PathLike) -> bool:
    """True if ``source`` is an MP3 file without a length in its header."""
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
        head = start + file.read(_HEADER)
    is_frame = len(head) > 1 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2
    return is_frame and not any(tag in head for tag in _TAGS)


def decode(source: str | os.PathLike, max_seconds: float) -> tuple[np.ndarray, int]:
    """Returns all samples ``[frames, channels]`` as int16, and the rate in Hz.

    Raises:
      ValueError: it cannot be decoded, or is longer than ``max_seconds``.
    """
    try:
        decoded = miniaudio.mp3_read_file_s16(os.fspath(source))
    except miniaudio.MiniaudioError as error:
        raise ValueError(str(error)) from error
    samples = np.frombuffer(decoded.samples, np.int16).reshape(-1, decoded.nchannels)
    if samples.shape[0] > max_seconds * decoded.sample_rate:
        raise ValueError(f"over {max_seconds:.0f} s long")
    return samples, decoded.sample_rate
