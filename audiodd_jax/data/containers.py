"""Finds out from its bytes, not its suffix, how the file of a recording is built.

libsndfile reads what is left of some truncated files, and the first of joined files,
without an error.
"""

import functools
import mmap
import os
import re
from typing import NamedTuple

from audiodd_jax.data import stated_sizes
from audiodd_jax.runtime import mirror

# Beginnings of files that only FFmpeg reads.
_FOREIGN = {
    rb"....ftyp": "M4A, MP4 or 3GP",
    rb"\x1aE\xdf\xa3": "WebM or Matroska",
    rb"#!AMR": "AMR",
    rb"0&\xb2u": "WMA",
    rb"\xff[\xf0\xf1\xf8\xf9]": "AAC",
}
# Beginnings of the other files that libsndfile reads.
_OTHERS = rb"RIF[FX]|RF64|FORM|caff|riff|\.snd|dns\.|NIST|Crea"
_FIRST_PAGE = rb"OggS\0[\2\3\6\7]"
_MP3_FRAME = rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb][\x10-\xef]"
# The first frame of a recording states the numbers of frames and of bytes.
_MP3_LENGTH = _MP3_FRAME + rb".{10,35}?(?:VBRI|(?:Xing|Info)\0{3}([\0-\x0f])....(....))"
# Longer than a frame, the end of which some encoders leave out of the number of bytes.
_MP3_REST = 4096
# kbit/s of layer III in MPEG 2 and 2.5, and in MPEG 1.
_MP3_BITRATES = (
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
)
# Hz of MPEG 1, the last of which is reserved; MPEG 2 has half, and MPEG 2.5 a quarter.
_MP3_RATES = (44100, 48000, 32000, 4)


class Content(NamedTuple):
    """How a file is built."""

    starts: tuple[int, ...] = (0,)  # where joined recordings begin, in bytes
    streams: frozenset[int] = frozenset()  # those that are MP3 without a stated length
    is_cut: bool = False  # the end of a recording is missing
    foreign: str = ""  # a format that only FFmpeg reads


def examine(source: str | os.PathLike) -> Content:
    """Returns how a file is built; raises OSError if it cannot be read."""
    mirror.read(source)
    status = os.stat(source)
    return _examine(os.fspath(source), status.st_size, status.st_mtime_ns)


@functools.lru_cache(256)  # many excerpts can come from one file
def _examine(path: str, size: int, time: int) -> Content:
    with open(path, "rb") as file:
        if not size:
            return Content()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _content(data, path.lower().endswith(".mp3"))


def _content(data: mmap.mmap, is_called_mp3: bool) -> Content:
    start = _after_tags(data, 0)
    head = data[start : start + 8]
    if stated_sizes.is_stated(data, start):
        starts, is_cut = stated_sizes.joined(data, start)
        return Content(starts, is_cut=is_cut)
    if re.match(_FIRST_PAGE, head):
        return _ogg(data)
    if head[:4] == b"fLaC":
        found = re.finditer(rb"fLaC[\0\x80]\0\0\x22", data)
        return Content(tuple(match.start() for match in found) or (0,))
    for beginning, name in _FOREIGN.items():
        if re.match(beginning, head, re.DOTALL):
            return Content(foreign=name)
    # MP3 can begin within a frame; then libsndfile trusts the suffix.
    frame = re.compile(_MP3_FRAME).search(data, start, start + _MP3_REST)
    if frame and (frame.start() == start or is_called_mp3):
        return Content() if re.match(_OTHERS, head) else _mp3(data, frame.start())
    return Content()


def _after_tags(data: mmap.mmap, at: int) -> int:
    """The first byte after ID3 tags; ID3v2 has sizes with bytes of seven bits."""
    if data[at : at + 3] == b"TAG":
        at += 128
    while data[at : at + 3] == b"ID3" and at + 10 <= len(data):
        size = functools.reduce(lambda n, byte: n << 7 | byte, data[at + 6 : at + 10])
        at += 10 + size
        at = re.compile(rb"\0*").match(data, at).end()
    return at


def _ogg(data: mmap.mmap) -> Content:
    """Pages, the last of which in each recording says that it is the last."""
    starts, last, is_cut = [], 0, False
    for match in (*re.finditer(_FIRST_PAGE, data, re.DOTALL), None):
        start = match.start() if match else len(data)
        last = data.rfind(b"OggS\0", 0, start)
        if match and starts and last == starts[-1]:  # first page of a second stream
            continue
        if starts:
            head = data[last : last + 27]
            sizes = data[last + 27 : last + 27 + head[-1]]
            end = last + 27 + head[-1] + sum(sizes)
            is_cut |= len(head) < 27 or not head[5] & 4 or end > start
        if match:
            starts.append(start)
    return Content(tuple(starts), is_cut=is_cut)


def _mp3(data: mmap.mmap, start: int) -> Content:
    """Frames of recordings, most of which begin with one that states their length."""
    found = list(re.finditer(_MP3_LENGTH, data, re.DOTALL))
    starts = [match.start() for match in found]
    streams = [] if start in starts else [start]
    for match, end in zip(found, (*starts, len(data))[1:], strict=True):
        if match[1] and match[1][0] & 3 == 3:
            rest = match.start() + int.from_bytes(match[2], "big")
            rest = _after_tags(data, rest)
            is_frame = re.match(_MP3_FRAME, data[rest : rest + 3])
            if is_frame and end - rest > _MP3_REST:
                streams.append(rest)
    starts = sorted((*starts, *streams))
    is_cut = starts[-1] in streams and _is_frame_cut(data, starts[-1])
    return Content(tuple(starts), frozenset(streams), is_cut)


def _is_frame_cut(data: mmap.mmap, start: int) -> bool:
    """True if frames follow each other to the end of a file, and the last one is cut.

    Anything else between or after them, such as tags, says nothing.
    """
    kind = _mp3_kind(data[start : start + 3])
    last = at = start
    while len(head := data[at : at + 3]) == 3:
        if not re.match(_MP3_FRAME, head) or _mp3_kind(head) != kind:
            return False
        last, at = at, at + _mp3_frame_bytes(head)
    return last > start and at > len(data)


def _mp3_kind(head: bytes) -> tuple[int, int]:
    """Version (3: MPEG 1, 2: MPEG 2, 0: MPEG 2.5) and number of the sample rate."""
    return head[1] >> 3 & 3, head[2] >> 2 & 3


def _mp3_frame_bytes(head: bytes) -> int:
    version, rate = _mp3_kind(head)
    is_first = version == 3
    hertz = _MP3_RATES[rate] >> (2, 0, 1, 0)[version]
    bits_per_second = 1000 * _MP3_BITRATES[is_first][head[2] >> 4]
    padding = head[2] >> 1 & 1
    return (144 if is_first else 72) * bits_per_second // hertz + padding
