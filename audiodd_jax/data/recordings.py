"""The index of a dataset's recordings, which are decoded on demand."""

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, Shaped

from audiodd_jax.data import audio

# Names of splits; clips with an empty name are split at random.
TRAIN, VALIDATION, TEST = "train", "validation", "test"

# A mono waveform in [-1, 1], and its sample rate in Hz.
Decoded = tuple[Float[np.ndarray, " samples"], int]


@dataclasses.dataclass(frozen=True)
class Recordings:
    """An index of labelled recordings.

    Attributes:
      class_names: in the order of the labels.
      names: for messages.
      labels: classes ``[clips]``, or tags ``[clips, c]``.
      splits: train, validation, test, or empty if not given.
      folds: from 1; 0: no folds.
      groups: source recording or speaker; random splits keep groups together. Empty:
        a group of its own.
      load: decodes the recording at an index, or raises ``BadAudioError``; can be
        pickled for other processes.
      read_headers: reads lengths and sample rates of all recordings.
      load_noise: decodes background noise that belongs to no class; None: no noise.
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
      fingerprint: changes when the recordings may have changed; cheap to compute.
      read: builds the index, which may download and unpack an archive first.
      has_tags: True if clips have tags instead of a single class.
    """

    name: str
    version: str
    licence: str
    fingerprint: str
    read: Callable[[], Recordings]
    has_tags: bool = False


def fingerprint_files(files: Iterable[str | os.PathLike], root: Path) -> str:
    """Returns a digest of the names, sizes and modification times of ``files``.

    Names are relative to ``root``.
    """
    root = root.resolve()
    digest = hashlib.sha256(str(root).encode())
    for file in sorted(map(os.fspath, files)):
        name = os.path.relpath(os.path.abspath(file), root)
        try:
            status = os.stat(file)
            line = f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n"
        except OSError:  # missing, or a broken link: decoding names the file
            line = f"{name}\0missing\n"
        digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def fingerprint_tree(root: Path) -> str:
    """Like ``fingerprint_files`` for all files below ``root``; fast for 100,000."""
    digest = hashlib.sha256(str(root.resolve()).encode())
    folders, seen = [os.fspath(root)], set()
    while folders:
        status = os.stat(folders[-1])
        if (status.st_dev, status.st_ino) in seen:  # a link to a folder above
            folders.pop()
            continue
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(folders.pop()) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
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
