"""The one exception whose text is written for the user."""

import contextlib
import os
from collections.abc import Iterator


class UserError(Exception):
    """Something the user can mend, told in one sentence and shown without traceback."""


@contextlib.contextmanager
def named(place: str | os.PathLike) -> Iterator[None]:
    """Names ``place`` in an OSError that names no file, such as one of a write."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = os.fspath(place)
        raise
