"""Files of a mirror that are downloaded when they are read, and a bound for them.

Until then a file is a placeholder without content, of the right size and time, so that
a folder can be listed and compared at once. Its permissions mark it.
"""

import collections
import os
import stat
import threading
import time
from pathlib import Path

from audiodd_jax.runtime import files
from audiodd_jax.runtime.object_store import Bucket, Found

_PLACEHOLDER = 0o200
# Bytes of files that are kept on this machine; its processes have equal shares.
_MOST = float(os.environ.get("AUDIODD_RECORDINGS_GB", "20")) * 2**30
# Seconds for which a file is kept in any case, since it is being read.
_READING = 10.0

# Files that this process has downloaded, the oldest first: path, bytes and time.
_kept: collections.deque[tuple[Path, int, float]] = collections.deque()
_mutex = threading.Lock()


def put(path: Path, size: int, modified_ns: int) -> None:
    """Replaces a file by a placeholder, or creates one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.atomic(path) as file:
        file.truncate(size)
        os.fchmod(file.fileno(), _PLACEHOLDER)
    os.utime(path, ns=(modified_ns, modified_ns))


def put_found(path: Path, found: Found) -> None:
    """Puts a placeholder for an object of a listing."""
    put(path, found.size, round(found.modified * 1e9))


def is_placeholder(status: os.stat_result) -> bool:
    """Returns whether a file has yet to be downloaded."""
    return stat.S_IMODE(status.st_mode) == _PLACEHOLDER


def download(path: Path, bucket: Bucket, key: str) -> None:
    """Fills a placeholder; files read longest ago make room for it.

    Raises:
      ValueError: the object has changed since it was listed.
    """
    status = path.stat()
    data = bucket.read(key).data
    if len(data) != status.st_size:
        raise ValueError("it has changed in the object store")
    with files.atomic(path) as file:
        file.write(data)
    os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))
    with _mutex:
        _kept.append((path, len(data), time.monotonic()))
        _make_room()


def _make_room() -> None:
    """Drops the oldest files above this process's share."""
    share = _MOST / (os.cpu_count() or 1)
    total = sum(size for _, size, _ in _kept)
    is_old = lambda: len(_kept) > 1 and time.monotonic() - _kept[0][2] >= _READING
    while total > share and is_old():
        path, size, _ = _kept.popleft()
        total -= size
        if path.exists():
            put(path, size, path.stat().st_mtime_ns)
