"""File locks: one process at a time."""

import contextlib
import errno
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import filelock

from audiodd_jax.errors import UserError, writable

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def exclusive(path: Path, doing: str) -> Iterator[None]:
    """Holds the lock file ``path``; waits while another process holds it.

    Args:
      path: created if needed, and left in place.
      doing: what the other process is doing, for the log message.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = hold(path)
    if lock is None:
        _log.info("waiting for another process that is %s", doing)
        lock = filelock.FileLock(path, thread_local=False)
        lock.acquire()
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
        # Some file systems (NFS, FUSE) have no locks.
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
        _log.warning(
            "the file system of %s has no locks: run one process at a time there", path
        )
    return lock


def hold_folder(folder: Path, name: str, what: str) -> filelock.BaseFileLock | None:
    """Creates a folder and takes its lock file ``name``; returns None if it is held.

    Args:
      what: names the folder in a message, such as ``the run directory``.

    Raises:
      UserError: the path is a file, or cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is not a folder")
    with writable(folder, what, "choose another --workdir"):
        folder.mkdir(parents=True, exist_ok=True)
        return hold(folder / name)


def are_supported(folder: Path) -> bool:
    """Returns whether the file system of a folder has locks."""
    lock = filelock.FileLock(folder / f".doctor-{os.getpid()}")
    try:
        lock.acquire(blocking=False)
    except (OSError, filelock.Timeout):
        return False
    finally:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)
    return True
