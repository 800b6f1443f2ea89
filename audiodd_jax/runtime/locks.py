"""File locks: one process at a time."""

import contextlib
import errno
import logging
from collections.abc import Iterator
from pathlib import Path

import filelock

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def exclusive(path: Path, doing: str) -> Iterator[None]:
    """Holds the lock file ``path``; waits while another process holds it.

    Args:
      path: created if needed, and left in place.
      doing: what the other process is doing, for the log message.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path, thread_local=False)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        _log.info("waiting for another process that is %s", doing)
        lock.acquire()
    except OSError as error:
        _tolerate(error, path)
    try:
        yield
    finally:
        lock.release()


def hold(path: Path) -> filelock.BaseFileLock | None:
    """Takes the lock file ``path`` at once, or returns None if it is held.

    The caller releases it.
    """
    lock = filelock.FileLock(path, thread_local=False)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        return None
    except OSError as error:
        _tolerate(error, path)
    return lock


def _tolerate(error: OSError, path: Path) -> None:
    """Goes on without a lock on file systems that have none (some NFS and FUSE)."""
    if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
        raise error
    _log.warning(
        "the file system of %s has no locks: start no second process there", path
    )
