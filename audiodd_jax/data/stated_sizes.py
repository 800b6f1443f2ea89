"""Finds where a file ends that states its size, and the files joined after it."""

import math
import mmap
import re

# Beginnings of files that state their size.
_HEADER = re.compile(
    rb"RIF[FX]....WAVE|RF64....WAVE|FORM....(?:AIFF|AIFC|8SVX|16SV)|caff\0[\1\2]"
    rb"|riff\x2e\x91\xcf\x11\xa5\xd6|\.snd\0\0..|dns\...\0\0|NIST_1A\n",
    re.DOTALL,
)
# Formats of which libsndfile does not compare the size with the file.
_UNCHECKED = re.compile(rb"caff|NIST")
# Fields of NIST whose product is the size of its samples.
_NIST_FIELDS = (b"sample_count", b"channel_count", b"sample_n_bytes")
_CAF_CHUNK = re.compile(
    rb"desc|data|kuki|strg|mark|regn|chan|inst|midi|ovvw|peak|edct|info|uuid|umid|free"
    rb"|pakt"
)
# Some sizes are a few bytes too large, and padding or tags may follow the end.
_BEFORE, _AFTER = 16, 4096


def is_stated(data: mmap.mmap, at: int) -> bool:
    """True if a file that begins at a byte states its size."""
    return _HEADER.match(data, at) is not None


def joined(data: mmap.mmap, at: int) -> tuple[tuple[int, ...], bool]:
    """Returns where joined files begin, and whether the end of the last is missing.

    Sizes that a stream left open, and those beyond the end of the data, say nothing
    about where a file ends: then the next header is searched for in all that follows.
    """
    starts = [at]
    while True:
        size = _size(data, at)
        end = at + size
        is_beyond = end > len(data)
        near = (max(at + 8, end - _BEFORE), end + _AFTER)
        is_open = is_beyond or size <= 8
        following = _HEADER.search(data, *((at + 8,) if is_open else near))
        if following is None:
            return tuple(starts), is_beyond and _UNCHECKED.match(data, at) is not None
        at = following.start()
        starts.append(at)


def _size(data: mmap.mmap, at: int) -> int:
    """The size that the file at a byte states, with its header; 0 if it states none."""
    kind = data[at : at + 4]
    order = "little" if kind in (b"RIFF", b"RF64", b"riff", b"dns.") else "big"
    number = lambda first, size: int.from_bytes(
        data[at + first : at + first + size], order
    )
    match kind:
        case b"caff":
            return _caf_size(data, at)
        case b"NIST":
            fields = dict(re.findall(rb"(\w+) -\w+ (\d+)", data[at : at + 1024]))
            sizes = [int(fields.get(name, 0)) for name in _NIST_FIELDS]
            return 1024 + math.prod(sizes) if all(sizes) else 0
        case b".snd" | b"dns.":
            return number(4, 4) + number(8, 4)
        case b"RF64":
            return 8 + number(20, 8)
        case b"riff":
            return number(16, 8)
    return 8 + number(4, 4)


def _caf_size(data: mmap.mmap, at: int) -> int:
    """CAF states the sizes of its chunks alone; the last may state none."""
    end = at + 8
    while _CAF_CHUNK.match(data, end):
        size = int.from_bytes(data[end + 4 : end + 12], "big", signed=True)
        if size < 0:
            return 0
        end += 12 + size
    return end - at
