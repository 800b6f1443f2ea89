"""Detects truncated WAV files, whose rest libsndfile reads without an error."""

import os
import struct

# Placeholders of encoders that write to a pipe and cannot fill in the size later.
_UNKNOWN = (0, 0xFFFFFFFF, 0x7FFFFFFF)


def missing_bytes(source: str | os.PathLike) -> int:
    """Returns how many bytes of samples a WAV file lacks according to its header."""
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
                is_known = size not in _UNKNOWN and size < 0x7FFFF000
                return max(0, size - remaining) if is_known else 0
            file.seek(size + size % 2, os.SEEK_CUR)
    return 0
