"""Files and folders that are never seen half-written: text, JSON, arrays."""

import contextlib
import errno
import glob
import json
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

import numpy as np

from audiodd_jax.errors import UserError

# Exceptions of reading a file that is truncated, of another format, or lacks an array.
DAMAGE = (ValueError, KeyError, TypeError, EOFError, BadZipFile)

# Further exceptions of zipfile and NumPy's parser of headers.
_ODD = (
    *(zlib.error, struct.error, tokenize.TokenError, SyntaxError, IndexError),
    *(NotImplementedError, RuntimeError, OverflowError, MemoryError, AttributeError),
    *(RecursionError, UnicodeError),
)
_PART = ".part-"


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[BinaryIO]:
    """A binary file that replaces ``path`` when the block ends without an error."""
    scratch = _scratch(path)
    try:
        with scratch.open("wb") as file:
            yield file
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A new folder that is renamed to ``path`` when the block ends without an error.

    The caller holds a lock: remains of killed processes are removed.
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


def remove_unfinished(folder: Path, name: str = "*") -> None:
    """Removes what killed processes have left of atomic files and folders.

    The caller holds a lock, so that no other process is writing them.

    Args:
      folder: that holds them.
      name: of a file or folder; by default all.
    """
    name = name if name == "*" else glob.escape(name)
    for leftover in folder.glob(f"{name}{_PART}*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def _scratch(path: Path) -> Path:
    # Created by open and mkdir, which respect the umask; tempfile's are private.
    return path.with_name(f"{path.name}{_PART}{uuid.uuid4().hex[:12]}")


def existing(path: Path) -> Path:
    """A path, or the nearest of its parents that exists."""
    return next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())


def is_writable(path: Path) -> bool:
    """Whether this user can write a folder, or create it."""
    found = existing(path)
    return found.is_dir() and os.access(found, os.W_OK | os.X_OK)


# Most bytes that deflate can expand one byte to.
_DEFLATE = 1032


def load_npz(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a ``.npz``, without pickles.

    Shapes are compared with the file's size before memory is allocated.

    Raises:
      One of ``DAMAGE``, or OSError: it cannot be read.
    """
    with _damage_named(path):
        _check_npz(path)
        # Opened here: NumPy does not close a file that turns out to be no archive.
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}


def load_npy(path: Path, *, is_mapped: bool = False) -> np.ndarray:
    """The array of a ``.npy``, without pickles, or its memory map.

    Raises:
      One of ``DAMAGE``, or OSError: it cannot be read.
    """
    with _damage_named(path):
        mode = "r" if is_mapped else None
        return np.load(path, mmap_mode=mode, allow_pickle=False)


@contextlib.contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """Turns what zipfile and NumPy raise for damaged files into a ValueError."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EINVAL:  # a negative position in the file
            raise
        raise ValueError(f"{path.name} is damaged") from error
    except _ODD as error:
        raise ValueError(f"{path.name} is damaged: {error}") from error


def _check_npz(path: Path) -> None:
    """Checks that the arrays are as large as their headers say.

    Raises:
      ValueError: one is not.
    """
    with zipfile.ZipFile(path) as file:
        for info in file.infolist():
            if info.file_size > _DEFLATE * (info.compress_size + 1):
                raise ValueError(f"{info.filename} claims {info.file_size} bytes")
            with file.open(info) as member:
                version = np.lib.format.read_magic(member)
                read = (
                    np.lib.format.read_array_header_1_0
                    if version == (1, 0)
                    else np.lib.format.read_array_header_2_0
                )
                shape, _, dtype = read(member)
                size = math.prod(shape) * dtype.itemsize
                if dtype.hasobject or size != info.file_size - member.tell():
                    raise ValueError(f"{info.filename} has not the size of its shape")


def save_npz(path: Path, **arrays: np.ndarray) -> None:
    """Writes a ``.npz`` atomically."""
    with atomic(path) as file:
        np.savez(file, **arrays)


def write_atomically(path: Path, text: str) -> None:
    """Writes a text file atomically, in UTF-8."""
    with atomic(path) as file:
        file.write(text.encode())


def to_json(value: Any, indent: int | None = None) -> str:
    """``value`` as JSON, which has no NaN and no infinities: they become null."""
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


def read_rows(path: Path, *required: str, skip: bool = False) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file, up to one that is incomplete or damaged.

    Args:
      path: of the file; one that does not exist has no rows.
      required: keys that every row has.
      skip: leave out damaged rows, and read on.
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


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
      UserError: it is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: it is not JSON") from error
