"""The exception whose message is written for the user."""

import contextlib
import os
from collections.abc import Iterator


class UserError(Exception):
    """An error that the user can correct; one sentence, shown without a traceback."""


@contextlib.contextmanager
def named(place: str | os.PathLike) -> Iterator[None]:
    """Adds ``place`` to an OSError without a file name, such as that of a write."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = os.fspath(place)
        raise
