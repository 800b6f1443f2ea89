"""Truncated WAV files: libsndfile reads what is left of them without an error."""

import os
import struct

# Sizes that encoders write to a pipe, which cannot be filled in afterwards.
_UNKNOWN = (0, 0xFFFFFFFF, 0x7FFFFFFF)


def missing_bytes(source: str | os.PathLike) -> int:
    """Bytes of samples that a WAV header announces and the file lacks; 0 otherwise."""
    with open(source, "rb") as file:
        start = file.read(12)
        if start[:4] != b"RIFF" or start[8:] != b"WAVE":
            return 0
        total = os.fstat(file.fileno()).st_size
        while len(head := file.read(8)) == 8:
            name, size = head[:4], struct.unpack("<I", head[4:])[0]
            if name == b"data":
                left = total - file.tell()
                # The largest sizes are placeholders of streams.
                is_known = size not in _UNKNOWN and size < 0x7FFFF000
                return max(0, size - left) if is_known else 0
            file.seek(size + size % 2, os.SEEK_CUR)
    return 0
