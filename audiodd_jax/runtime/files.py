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

# Further exceptions that zipfile and NumPy's header parser raise for damaged files.
_PARSER_ERRORS = (
    *(zlib.error, struct.error, tokenize.TokenError, SyntaxError, IndexError),
    *(NotImplementedError, RuntimeError, OverflowError, MemoryError, AttributeError),
    *(RecursionError, UnicodeError),
)
_PART = ".part-"
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
    """Removes atomic files and folders that killed processes left unfinished.

    The caller holds a lock, so that no other process is writing them.

    Args:
      name: a single file or folder in ``folder``; None: all.
    """
    pattern = "*" if name is None else glob.escape(name)
    for leftover in folder.glob(f"{pattern}{_PART}*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def _scratch(path: Path) -> Path:
    # Created by open and mkdir, which respect the umask; tempfile's are private.
    return path.with_name(f"{path.name}{_PART}{uuid.uuid4().hex[:12]}")


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
        _check_npz(path)
        # Opened here: NumPy does not close a file that turns out to be no archive.
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}


def load_npy(path: Path, *, is_mapped: bool = False) -> np.ndarray:
    """Reads or memory-maps the array of a ``.npy``, without pickles.

    Raises:
      One of ``DAMAGE``, or OSError: the file cannot be read.
    """
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


def _check_npz(path: Path) -> None:
    """Raises a ValueError if an array's size differs from its header's claim."""
    with zipfile.ZipFile(path) as file:
        for info in file.infolist():
            if info.file_size > _MAX_EXPANSION * (info.compress_size + 1):
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
                    raise ValueError(
                        f"the size of {info.filename} does not match its shape"
                    )


def save_npz(path: Path, **arrays: np.ndarray) -> None:
    """Writes a ``.npz`` atomically."""
    with atomic(path) as file:
        np.savez(file, **arrays)


def write_atomically(path: Path, text: str) -> None:
    """Writes a text file atomically, in UTF-8."""
    with atomic(path) as file:
        file.write(text.encode())


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
    """Reads a JSON file.

    Raises:
      UserError: the file is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: it is not JSON") from error


def read_rows(path: Path, *required: str, skip: bool = False) -> list[dict[str, Any]]:
    """Reads the rows of a JSON-lines file up to an incomplete or damaged one.

    Args:
      path: a file that does not exist has no rows.
      required: keys that every row has.
      skip: skip damaged rows instead of stopping at them.
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
