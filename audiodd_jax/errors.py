"""The exception whose message is written for the user."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path


class UserError(Exception):
    """An error that the user can correct; one sentence, shown without a traceback."""


class InUseError(UserError):
    """Another process is writing what this one would write."""


_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)


@contextlib.contextmanager
def writable(folder: Path, what: str, advice: str) -> Iterator[None]:
    """Says what to do if this user or file system does not allow writing a folder.

    Args:
      folder: that the block writes.
      what: the folder is.
      advice: what to do.

    Raises:
      UserError: an OSError of the block says that the folder cannot be written.
    """
    try:
        yield
    except OSError as error:
        place = Path(os.fsdecode(error.filename)) if error.filename else None
        is_own = place and (
            place.is_relative_to(folder) or folder.is_relative_to(place)
        )
        if error.errno not in _FORBIDDEN or not is_own:
            raise
        raise UserError(
            f"{what} {folder} cannot be written ({error.strerror}); {advice}"
        ) from error


@contextlib.contextmanager
def named(place: str | os.PathLike) -> Iterator[None]:
    """Adds ``place`` to an OSError without a file name, such as that of a write."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = os.fspath(place)
        raise
