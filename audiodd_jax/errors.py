"""Errors that the user can correct, and OSErrors explained."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path


class UserError(Exception):
    """An error that the user can correct; one sentence, shown without a traceback."""


class InUseError(UserError):
    """Another process is writing the same folder."""


class NotFiniteError(UserError):
    """A loss or its gradient is not a finite number."""


_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)


def counted(number: int, one: str, several: str = "") -> str:
    """A number with the words for one or for several things: ``1 recording is``."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"


@contextlib.contextmanager
def writable(folder: Path, what: str, advice: str) -> Iterator[None]:
    """Turns an OSError of the block, if ``folder`` is not writable, into a UserError.

    It names the folder by ``what`` it is, such as ``the cache``, and ends in advice.
    """
    try:
        yield
    except OSError as error:
        path = Path(os.fsdecode(error.filename)) if error.filename else None
        concerns_folder = path and (
            path.is_relative_to(folder) or folder.is_relative_to(path)
        )
        if error.errno not in _FORBIDDEN or not concerns_folder:
            raise
        raise UserError(
            f"{what} {folder} cannot be written ({error.strerror}); {advice}"
        ) from error


@contextlib.contextmanager
def named(path: str | os.PathLike) -> Iterator[None]:
    """Adds ``path`` to an OSError that names no file, such as a failed write."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = os.fspath(path)
        raise
