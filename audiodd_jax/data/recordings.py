"""What every dataset turns into: an index of recordings, each decoded on demand."""

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, Shaped

from audiodd_jax.data import audio

# Marks of the split column. Clips without one are split at random, by config.
TRAIN, VALIDATION, TEST = "train", "validation", "test"

# A mono waveform in [-1, 1], and its sample rate in Hz.
Decoded = tuple[Float[np.ndarray, " samples"], int]


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
        ``BadAudioError``. It can be pickled, so that other processes may decode.
      measure: lengths and rates of all recordings, cheaply.
      load_noise: ``[(waveform, sample rate), ...]``: background noise that comes with
        the dataset and belongs to no class; None where there is none.
    """

    class_names: tuple[str, ...]
    names: tuple[str, ...]
    labels: Int[np.ndarray, " clips"]
    splits: Shaped[np.ndarray, " clips"]
    folds: Int[np.ndarray, " clips"]
    groups: Shaped[np.ndarray, " clips"]
    load: Callable[[int], Decoded]
    measure: Callable[[], audio.Headers]
    load_noise: Callable[[], list[Decoded]] | None = None

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


def fingerprint_files(files: Iterable[str | os.PathLike], root: Path) -> str:
    """Digest of the names, sizes and times of change of ``files`` below ``root``."""
    root = root.resolve()
    digest = hashlib.sha256(str(root).encode())
    for file in sorted(map(os.fspath, files)):
        status = os.stat(file)
        name = os.path.relpath(os.path.abspath(file), root)
        digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def fingerprint_tree(root: Path) -> str:
    """``fingerprint_files`` of every file below ``root``, fast for 100,000 of them."""
    digest = hashlib.sha256(str(root.resolve()).encode())
    folders, seen = [os.fspath(root)], set()
    while folders:
        status = os.stat(folders[-1])
        if (status.st_dev, status.st_ino) in seen:  # a link to a folder above
            folders.pop()
            continue
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(folders.pop()) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                folders.append(entry.path)
                continue
            status = entry.stat()
            line = f"{entry.path}\0{status.st_size}\0{status.st_mtime_ns}\n"
            digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]
