"""The index of a dataset's recordings, which are decoded on demand."""

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, Shaped

from audiodd_jax.data import audio

# Values of the split column; clips with an empty one are split at random.
TRAIN, VALIDATION, TEST = "train", "validation", "test"

# A mono waveform in [-1, 1], and its sample rate in Hz.
Decoded = tuple[Float[np.ndarray, " samples"], int]


@dataclasses.dataclass(frozen=True)
class Recordings:
    """An index of labelled recordings.

    Attributes:
      class_names: the classes, in the order of the labels.
      names: name of each recording, for messages.
      labels: ``[clips]`` class of each recording, or ``[clips, c]`` its tags.
      splits: ``[clips]`` train, validation or test, or empty if it is not given.
      folds: ``[clips]`` fold, from 1; 0: no folds.
      groups: ``[clips]`` source recording or speaker; a group is never divided by a
        validation split. Empty: a group of its own.
      load: index -> (mono waveform in [-1, 1], sample rate in Hz); raises
        ``BadAudioError``. Can be pickled for other processes.
      read_headers: reads lengths and sample rates of all recordings.
      load_noise: ``[(waveform, sample rate), ...]`` of background noise that belongs to
        no class, or None.
      left_out: ``(reason, count, example)`` of files that are not used.
    """

    class_names: tuple[str, ...]
    names: tuple[str, ...]
    labels: Int[np.ndarray, "clips *c"]
    splits: Shaped[np.ndarray, " clips"]
    folds: Int[np.ndarray, " clips"]
    groups: Shaped[np.ndarray, " clips"]
    load: Callable[[int], Decoded]
    read_headers: Callable[[], audio.Headers]
    load_noise: Callable[[], list[Decoded]] | None = None
    left_out: tuple[tuple[str, int, str], ...] = ()

    def __len__(self) -> int:
        return len(self.names)


@dataclasses.dataclass(frozen=True)
class Source:
    """A dataset that was found, but not read yet.

    Attributes:
      name: of the registry.
      version: of the dataset as published.
      licence: terms.
      fingerprint: changes when the recordings may have changed; cheap to compute.
      read: builds the index, which may take a while the first time.
      has_tags: whether clips have tags instead of one class each.
    """

    name: str
    version: str
    licence: str
    fingerprint: str
    read: Callable[[], Recordings]
    has_tags: bool = False


def fingerprint_files(files: Iterable[str | os.PathLike], root: Path) -> str:
    """Digest of names, sizes and modification times of ``files`` below ``root``."""
    root = root.resolve()
    digest = hashlib.sha256(str(root).encode())
    for file in sorted(map(os.fspath, files)):
        name = os.path.relpath(os.path.abspath(file), root)
        try:
            status = os.stat(file)
            line = f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n"
        except OSError:  # missing, or a broken link; decoding names it
            line = f"{name}\0missing\n"
        digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def fingerprint_tree(root: Path) -> str:
    """``fingerprint_files`` of every file below ``root``, fast for 100,000 files."""
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
            try:
                status = entry.stat()
            except OSError:  # a broken link
                continue
            line = f"{entry.path}\0{status.st_size}\0{status.st_mtime_ns}\n"
            digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]
