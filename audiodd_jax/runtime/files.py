"""Files that are never seen half-written: text, JSON, arrays."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from audiodd_jax.runtime.errors import UserError

# What reading raises for a file that is cut, is something else, or lacks an array.
DAMAGE = (ValueError, KeyError, TypeError, EOFError, BadZipFile)


def load_npz(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a ``.npz``, without pickles.

    Raises:
      One of ``DAMAGE``, or OSError: it cannot be read.
    """
    # Opened here, since NumPy leaves a file open that turns out to be no archive.
    with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def save_npz(path: Path, **arrays: np.ndarray) -> None:
    """Writes a ``.npz`` that is never seen half-written."""
    handle, scratch = tempfile.mkstemp(suffix=".npz", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **arrays)
        os.chmod(scratch, 0o644)
        os.replace(scratch, path)
    except BaseException:
        os.unlink(scratch)
        raise


def write_atomically(path: Path, text: str) -> None:
    """Writes a text file that is never seen half-written."""
    handle, scratch = tempfile.mkstemp(prefix=path.name, dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(scratch, 0o644)
        os.replace(scratch, path)
    except BaseException:
        os.unlink(scratch)
        raise


def write_json(path: Path, value: Any) -> None:
    """Writes ``value`` as indented JSON, atomically."""
    write_atomically(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
      UserError: it is damaged.
    """
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is damaged: it is not JSON") from error
