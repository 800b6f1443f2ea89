"""Files that are never seen half-written (text, JSON, arrays), and locks."""

import contextlib
import errno
import glob
import hashlib
import json
import logging
import math
import os
import shutil
import struct
import tokenize
import uuid
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import BadZipFile

import filelock
import numpy as np
from numpy.lib import format as npy

from audiodd_jax.errors import UserError, writable

_log = logging.getLogger(__name__)

# Exceptions of reading a file that is truncated, of another format, or lacks an array.
DAMAGE = (ValueError, KeyError, TypeError, EOFError, BadZipFile)
# Further exceptions that zipfile and NumPy's header parser raise for damaged files.
_PARSER_ERRORS = (
    *(zlib.error, struct.error, tokenize.TokenError, SyntaxError, IndexError),
    *(NotImplementedError, RuntimeError, OverflowError, MemoryError, AttributeError),
    *(RecursionError, UnicodeError),
)
_PART = ".part-"
# Bytes that file systems allow for a name.
LONGEST_NAME = 255
_UNIQUE = 12
# The most bytes that deflate can expand one byte to.
_MAX_EXPANSION = 1032


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[BinaryIO]:
    """Yields a binary file that replaces ``path`` if the block raises no error."""
    scratch = _scratch(path)
    try:
        with scratch.open("wb") as file:
            yield file
        os.replace(scratch, path)
    except OSError as error:
        if error.filename == os.fspath(scratch):
            error.filename = os.fspath(path)
        raise
    finally:
        scratch.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields a new folder that is renamed to ``path`` if the block raises no error.

    The caller holds a lock: leftovers of killed processes are removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_unfinished(path.parent, path.name)
    scratch = _scratch(path)
    scratch.mkdir()
    try:
        yield scratch
        os.replace(scratch, path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def remove_unfinished(folder: Path, name: str | None = None) -> None:
    """Removes what killed processes left unfinished of a file or folder; None: of all.

    The caller holds a lock, so that no other process is writing them.
    """
    pattern = "*" if name is None else glob.escape(_beginning(name))
    for leftover in folder.glob(f"{pattern}{_PART}*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def is_finished(name: str) -> bool:
    """Returns whether a file or folder of this name is not being written."""
    return _PART not in name


def _scratch(path: Path) -> Path:
    # Created by open and mkdir, which respect the umask; tempfile's are private.
    return path.with_name(f"{_beginning(path.name)}{_PART}{uuid.uuid4().hex[:_UNIQUE]}")


def _beginning(name: str) -> str:
    """Begins the names of what is unfinished of a file or folder."""
    encoded = os.fsencode(name)
    if len(encoded) <= LONGEST_NAME - len(_PART) - _UNIQUE:
        return name
    return hashlib.sha256(encoded).hexdigest()


def existing(path: Path) -> Path:
    """Returns the path or its nearest existing parent."""
    return next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())


def is_writable(path: Path) -> bool:
    """Returns whether this user can write or create a folder."""
    folder = existing(path)
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def load_npz(path: Path) -> dict[str, np.ndarray]:
    """Reads all arrays of a ``.npz``, without pickles.

    Shapes are compared with the file's size before memory is allocated.

    Raises:
      One of ``DAMAGE``, or OSError: the file cannot be read.
    """
    with _as_damage(path):
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.file_size > _MAX_EXPANSION * (info.compress_size + 1):
                    raise ValueError(f"{info.filename} claims {info.file_size} bytes")
                with archive.open(info) as member:
                    is_first = npy.read_magic(member) == (1, 0)
                    first, later = npy.read_array_header_1_0, npy.read_array_header_2_0
                    shape, _, dtype = (first if is_first else later)(member)
                    size = math.prod(shape) * dtype.itemsize
                    if dtype.hasobject or size != info.file_size - member.tell():
                        raise ValueError(
                            f"the size of {info.filename} does not match its shape"
                        )
        # Opened here: NumPy does not close a file that turns out to be no archive.
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}


def load_npy(path: Path, *, is_mapped: bool = False) -> np.ndarray:
    """Reads or memory-maps the array of a ``.npy``; raises errors like ``load_npz``."""
    with _as_damage(path):
        mode = "r" if is_mapped else None
        return np.load(path, mmap_mode=mode, allow_pickle=False)


@contextlib.contextmanager
def _as_damage(path: Path) -> Iterator[None]:
    """Turns what zipfile and NumPy raise for damaged files into a ValueError."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EINVAL:  # a negative position in the file
            raise
        raise ValueError(f"{path.name} is damaged") from error
    except _PARSER_ERRORS as error:
        raise ValueError(f"{path.name} is damaged: {error}") from error


def save_npz(path: Path, **arrays: np.ndarray) -> None:
    """Writes a ``.npz`` atomically."""
    with atomic(path) as file:
        np.savez(file, **arrays)


def write_atomically(path: Path, text: str) -> None:
    """Writes a text file atomically, in UTF-8; other bytes of names are escaped."""
    with atomic(path) as file:
        file.write(text.encode(errors="backslashreplace"))


def to_json(value: Any, indent: int | None = None) -> str:
    """Encodes ``value`` as JSON; NaN and infinities, which it lacks, become null."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def write_json(path: Path, value: Any) -> None:
    """Writes ``value`` as indented JSON, atomically."""
    write_atomically(path, to_json(value, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """Reads a JSON file; a damaged one is a UserError."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: it is not JSON") from error


def read_rows(path: Path, *required: str, skip: bool = False) -> list[dict[str, Any]]:
    """Reads the rows of a JSON-lines file, if it exists, up to a damaged one.

    A row is damaged if it is incomplete or lacks a ``required`` key. ``skip`` skips it
    instead.
    """
    rows = []
    text = path.read_text(errors="replace") if path.exists() else ""
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict) and all(key in row for key in required):
            rows.append(row)
        elif not skip:
            break
    return rows


@contextlib.contextmanager
def exclusive(path: Path, doing: str) -> Iterator[None]:
    """Holds a lock file, left in place; waits for a process that is ``doing`` it."""
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
    """Takes a lock file, for the caller to release; returns None if it is held."""
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

    Raises:
      UserError: the path is a file, or cannot be written. The message calls the folder
        ``what``, such as ``the run directory``.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is not a folder")
    with writable(folder, what, "choose another --workdir"):
        folder.mkdir(parents=True, exist_ok=True)
        return hold(folder / name)


def has_locks(folder: Path) -> bool:
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
