"""Paths as users write them, and URLs in object stores."""

import os
import re
from pathlib import Path

from audiodd_jax.errors import UserError

# A URL of an object store; paths drop the second slash.
_URL = re.compile(r"(s3|gs):/+([^/]+)/*(.*)")
# The folder of what mirrors object stores, in the cache of the machine. Paths in it are
# recognised by its name (``runtime.mirror``).
_MIRRORS = "audiodd-stores"


def default_cache() -> Path:
    """Returns the folder for downloads and features: ``$AUDIODD_CACHE``, or a default.

    Raises:
      UserError: this user has no home folder.
    """
    if folder := os.environ.get("AUDIODD_CACHE"):
        return Path(expanded(folder))
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "audiodd_jax"
    try:
        return Path.home() / ".cache" / "audiodd_jax"
    except RuntimeError as error:
        raise UserError(
            "this user has no home folder for the cache: set AUDIODD_CACHE, or pass "
            "--cache_dir"
        ) from error


def expanded(text: str) -> str:
    """Returns the local path that a path or URL stands for.

    ``~`` is a home folder, unless a file or folder has this very name. A URL is a
    folder in the mirror of object stores.
    """
    if match := _URL.fullmatch(text):
        scheme, bucket, key = match.groups()
        if not key:
            raise UserError(f"{text} is a bucket: add a folder, as in {text}/runs")
        cache = os.environ.get("AUDIODD_MIRRORS") or default_cache()
        return os.path.abspath(os.path.join(cache, _MIRRORS, scheme, bucket, key))
    return text if os.path.exists(text) else os.path.expanduser(text)


def is_url(text: str) -> bool:
    """Returns whether a text is the URL of a folder or file in an object store."""
    return bool(_URL.fullmatch(text))


def local(path: str | os.PathLike) -> Path:
    """Returns the local path that a path or URL stands for."""
    return Path(expanded(os.fspath(path)))


def with_urls(text: object) -> str:
    """Replaces mirrored paths in a text by their URLs."""
    return re.sub(rf"/[^\s'\"]*/{_MIRRORS}/(s3|gs)/", r"\1://", str(text))
