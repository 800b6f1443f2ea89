"""File locks: one process at a time."""

import contextlib
import fcntl
import logging
from collections.abc import Iterator
from pathlib import Path

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def exclusive(path: Path, doing: str) -> Iterator[None]:
    """Holds the lock file ``path``; waits while another process holds it.

    Args:
      path: created if needed, and left in place.
      doing: what the other process is doing, for the log message.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.info("waiting for another process that is %s", doing)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
