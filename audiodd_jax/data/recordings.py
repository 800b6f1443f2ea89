"""The index of a dataset's recordings: clips, which are decoded on demand."""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from audiodd_jax.data import audio
from audiodd_jax.runtime import mirror

# Names of splits; clips with an empty name are split at random.
TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLITS = (TRAIN, VALIDATION, TEST)
# Marks recordings of a labelling session without an answer.
UNLABELLED = "unlabelled"
# Begins the names of groups of recordings with identical content.
IDENTICAL = "content of "
_FULL_SCALE = 32768

# A mono waveform in [-1, 1], and its sample rate in Hz.
Decoded = tuple[Float[np.ndarray, " samples"], int]


class Clip(NamedTuple):
    """A sound file, or an excerpt of one, with its labels."""

    path: Path
    labels: tuple[str, ...]  # the clip's class alone, or its tags
    name: str = ""  # unique within the dataset, for messages
    split: str = ""
    fold: int | None = None  # None if the dataset has no official folds
    group: str = ""  # source recording or speaker; empty if unknown
    start: float = 0.0  # seconds from the beginning of the file
    seconds: float = 0.0  # 0 reads the whole file
    gain: float = 1.0  # factor on the waveform
    row: str = ""  # table and line that list it, for messages

    @property
    def span(self) -> audio.Span:
        """Where the clip starts and ends in its file, in seconds."""
        return self.start, self.start + self.seconds if self.seconds else None

    @property
    def part(self) -> str:
        """The split, or the fold as ``fold3``."""
        return self.split if self.fold is None else f"fold{self.fold}"


@dataclasses.dataclass(frozen=True)
class Recordings:
    """An index of labelled recordings."""

    class_names: tuple[str, ...]  # in the order of the labels
    names: tuple[str, ...]  # for messages
    labels: Int[np.ndarray, "clips *c"]  # classes, or tags [clips, c]
    splits: Shaped[np.ndarray, " clips"]
    folds: Int[np.ndarray, " clips"]  # from 1; 0: no folds
    # Random splits keep groups together; an empty name is a group of its own.
    groups: Shaped[np.ndarray, " clips"]
    # Decodes the recording at an index, or raises BadAudioError; can be pickled.
    load: Callable[[int], Decoded]
    read_headers: Callable[[], audio.Headers]
    # Decodes background noise that belongs to no class.
    load_noise: Callable[[], list[Decoded]] | None = None
    # (reason, count, example) of files that are not used.
    left_out: tuple[tuple[str, int, str], ...] = ()
    present: str = ""  # how much of the published dataset it is; empty: all of it

    def __len__(self) -> int:
        return len(self.names)


class Relabelled(NamedTuple):
    """Labels that change while the recordings stay the same."""

    class_names: tuple[str, ...]
    labels: Int[np.ndarray, "clips *c"]
    splits: Shaped[np.ndarray, " clips"]


@dataclasses.dataclass(frozen=True)
class Source:
    """A dataset that was found, but not read yet."""

    name: str
    version: str
    licence: str
    fingerprint: str  # changes when the recordings may have changed; cheap to compute
    read: Callable[[], Recordings]  # may download and unpack an archive first
    has_tags: bool = False  # tags instead of a single class per clip
    # Replaces the labels that ``read`` gave to recordings of these names.
    relabel: Callable[[Shaped[np.ndarray, " clips"]], Relabelled] | None = None


def index(
    clips: Sequence[Clip],
    class_names: tuple[str, ...],
    has_tags: bool,
    is_int16: bool = False,
    **others: Any,
) -> Recordings:
    """Returns the index of some clips; ``is_int16`` rounds samples to 16 bits."""

    def read_headers() -> audio.Headers:
        paths, spans = [clip.path for clip in clips], [clip.span for clip in clips]
        headers = audio.headers(paths, spans)
        for i, error in headers.bad.items():
            if clips[i].row and clips[i].seconds:
                headers.bad[i] = audio.BadAudioError(f"{clips[i].row}: {error}")
        return headers

    return Recordings(
        class_names=class_names,
        names=tuple(clip.name for clip in clips),
        labels=label_array([clip.labels for clip in clips], class_names, has_tags),
        splits=np.array([clip.split for clip in clips], str),
        folds=np.array([clip.fold or 0 for clip in clips], np.int32),
        groups=np.array([clip.group for clip in clips], str),
        load=decoder(clips, is_int16),
        read_headers=read_headers,
        **others,
    )


def label_array(
    labels: Sequence[tuple[str, ...]], class_names: tuple[str, ...], has_tags: bool
) -> Int[np.ndarray, "clips *c"]:
    """Returns the labels of clips as numbers of classes, or as tags."""
    columns = {name: i for i, name in enumerate(class_names)}
    result = np.zeros((len(labels), len(class_names)), np.int8)
    for row, names in zip(result, labels, strict=True):
        row[[columns[name] for name in names]] = 1
    return result if has_tags else result.argmax(1).astype(np.int32)


def decoder(clips: Sequence[Clip], is_int16: bool) -> Callable[[int], Decoded]:
    """Returns a function that decodes the clip of an index, and can be pickled."""
    # Paths as text: 100,000 of them are pickled in a tenth of the time.
    excerpts = [(os.fspath(clip.path), *clip.span, clip.gain) for clip in clips]
    return functools.partial(_decode, excerpts, is_int16)


def _decode(excerpts: Sequence[Any], is_int16: bool, index: int) -> Decoded:
    path, start, end, gain = excerpts[index]
    waveform, rate = audio.decode(path, start, end)
    waveform = gain * waveform
    if is_int16:
        # Recordings beyond full scale are scaled, not clipped.
        peak = max(1.0, float(np.abs(waveform).max(initial=0)))
        samples = np.round(waveform * (_FULL_SCALE / peak))
        samples = np.clip(samples, -_FULL_SCALE, _FULL_SCALE - 1).astype(np.int16)
        waveform = samples.astype(np.float32) / _FULL_SCALE
    return waveform, rate


def fingerprint_files(files: Iterable[str | os.PathLike], root: Path) -> str:
    """Returns a digest of the sizes, times, and names below ``root`` of ``files``."""
    root = root.resolve()
    digest = hashlib.sha256(os.fsencode(mirror.url_of(root) or root))
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
    """Like ``fingerprint_files`` for all visible files below ``root``, but faster."""

    def refuse(error: OSError) -> None:
        raise error

    url, own = mirror.url_of(root), os.fspath(root)
    digest = hashlib.sha256(os.fsencode(url or root.resolve()))
    seen = set()
    for folder, folders, names in os.walk(root, followlinks=True, onerror=refuse):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = [name for name in folders if not name.startswith(".")]
        folders.sort(reverse=True)
        for name in sorted(names):
            if name.startswith("."):
                continue
            path = os.path.join(folder, name)
            try:
                status = os.stat(path)
            except OSError:  # a broken link
                continue
            shown = url + path.removeprefix(own) if url else path
            line = f"{shown}\0{status.st_size}\0{status.st_mtime_ns}\n"
            digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]
