"""What every dataset turns into: an index of recordings, each decoded on demand."""

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, Shaped

from audiodd_jax.runtime.errors import UserError

# Marks of the split column. Clips without one are split at random, by config.
TRAIN, VALIDATION, TEST, UNSPLIT = "train", "validation", "test", ""


@dataclasses.dataclass(frozen=True)
class Recordings:
    """An index of labelled recordings.

    Attributes:
      class_names: the classes, in the order of the labels.
      names: a name a recording, for messages.
      labels: ``[clips]`` class of each recording.
      splits: ``[clips]`` train, validation or test, or empty where the data says
        nothing.
      folds: ``[clips]`` fold, counted from 1; 0 where the data has no folds.
      groups: ``[clips]`` what a recording was cut from; clips of one group never lie on
        both sides of a validation split. Empty: a group of its own.
      load: index -> (mono waveform in [-1, 1], sample rate in Hz); raises
        ``BadAudioError``.
      headers: index -> (seconds, sample rate), cheaply; raises ``BadAudioError``.
    """

    class_names: tuple[str, ...]
    names: tuple[str, ...]
    labels: Int[np.ndarray, " clips"]
    splits: Shaped[np.ndarray, " clips"]
    folds: Int[np.ndarray, " clips"]
    groups: Shaped[np.ndarray, " clips"]
    load: Callable[[int], tuple[Float[np.ndarray, " samples"], int]]
    headers: Callable[[int], tuple[float, int]]

    def __len__(self) -> int:
        return len(self.names)


@dataclasses.dataclass(frozen=True)
class Source:
    """A dataset found, but not read yet.

    Attributes:
      name: of the registry.
      version: of the dataset as published.
      licence: its terms.
      fingerprint: changes whenever the recordings may have; cheap to compute.
      read: builds the index, which may take a while the first time.
    """

    name: str
    version: str
    licence: str
    fingerprint: str
    read: Callable[[], Recordings]


def fingerprint_files(files: Iterable[Path], root: Path) -> str:
    """Digest of the names, sizes and times of change of ``files`` below ``root``."""
    digest = hashlib.sha256(str(root.resolve()).encode())
    for file in sorted(files):
        status = os.stat(file)
        entry = f"{file.relative_to(root)}\0{status.st_size}\0{status.st_mtime_ns}\n"
        digest.update(entry.encode())
    return digest.hexdigest()[:16]


def require_folder(path: str, what: str) -> Path:
    """``path`` as an existing folder.

    Raises:
      UserError: there is no such folder.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise UserError(f"--data_dir={path} is not a folder; it should hold {what}")
    return folder
