"""Folders of recordings: class folders, below folders of splits or folds if any.

Layouts, by the names of the folders:

- ``CLASS/**/file``, or ``CLASS/train/file`` and so on;
- ``train/CLASS/**/file``, ``test/CLASS/**/file``, and so on;
- ``fold1/CLASS/**/file`` to ``fold10/CLASS/**/file``;
- ``metadata.csv`` or ``metadata.jsonl`` with file names and labels in the folder or in
  each split's folder.

Files that are not used are counted by reason.
"""

import collections
import logging
import os
from pathlib import Path

from audiodd_jax.data import audio
from audiodd_jax.data.names import (
    Place,
    development_is_training,
    in_words,
    label_name,
    named_part,
    part_in,
    printable,
)
from audiodd_jax.data.recordings import TRAIN, Clip
from audiodd_jax.errors import UserError

_log = logging.getLogger(__name__)

METADATA = ("metadata.csv", "metadata.jsonl")
# Folders and files of operating systems and programs.
_SYSTEM = frozenset(
    (
        *("__macosx", "$recycle.bin", "system volume information", "@eadir"),
        *("lost+found", "thumbs.db", "desktop.ini", "__pycache__"),
    )
)


class LeftOut:
    """Counts of files that are not used, by reason, with an example of each."""

    def __init__(self) -> None:
        self._counts: collections.Counter[str] = collections.Counter()
        self._examples: dict[str, str] = {}

    def add(self, reason: str, path: str | os.PathLike, count: int = 1) -> None:
        """Counts ``count`` files for a reason."""
        self._counts[reason] += count
        name = printable(os.path.basename(os.fspath(path)))
        self._examples.setdefault(reason, name)

    def rows(self) -> tuple[tuple[str, int, str], ...]:
        """``(reason, count, example)``, the largest count first."""
        counts = self._counts.most_common()
        return tuple(
            (reason, count, self._examples[reason]) for reason, count in counts
        )


def inner_folder(root: Path) -> Path:
    """The folder with the data, below folders that hold nothing but one another."""
    seen = {root}
    while True:
        folders = subfolders(root, LeftOut())
        files = [path for path in root.iterdir() if path.is_file()]
        is_table = any(
            path.suffix.lower() in (".csv", ".tsv", ".jsonl") for path in files
        )
        has_sound = any(path.suffix.lower() in audio.SUFFIXES for path in files)
        if len(folders) != 1 or is_table or has_sound or folders[0].resolve() in seen:
            return root
        inner = folders[0]
        holds_more = bool(subfolders(inner, LeftOut())) or any(inner.glob("*.csv"))
        if named_part(inner.name) or not holds_more:
            return root
        root = folders[0]
        seen.add(root.resolve())


def split_folders(root: Path, left_out: LeftOut) -> dict[Path, Place]:
    """Returns the folders that hold class folders, with their ``split`` or ``fold``.

    That is ``root`` itself, unless its subfolders are splits or folds.
    """
    folders = subfolders(root, left_out)
    names = {folder: folder.name for folder in folders}
    parts = {folder: named_part(name) for folder, name in names.items()}
    parts = development_is_training(parts, names)
    for kind in ("split", "fold"):
        marks = {folder: part for folder, part in parts.items() if kind in part}
        # A single folder called train may be a class, such as the sound of a train.
        if len(marks) > 1 or (len(marks) == 1 and len(folders) == 1):
            for other in folders:
                if other not in marks:
                    count = len(sound_files(other, left_out))
                    reason = f"folder that is not one of the {kind}s"
                    left_out.add(reason, other, count)
            names = ", ".join(sorted(folder.name for folder in marks)[:4])
            _log.info("reading %s as %ss, with classes below", names, kind)
            return _below(marks)
    # Classes could be called train_horn and so on, but hardly all of them.
    marks = {folder: part_in(name) for folder, name in names.items()}
    marks = development_is_training(marks, names)
    are_several = len(set(map(str, filter(None, marks.values())))) > 1
    hold_classes = all(subfolders(f, LeftOut()) for f, mark in marks.items() if mark)
    if are_several and (all(marks.values()) or hold_classes):
        for other in [folder for folder in folders if not marks[folder]]:
            del marks[other]
            count = len(sound_files(other, left_out))
            left_out.add("folder that is not one of the splits", other, count)
        words = [f"{folder.name} as {in_words(mark)}" for folder, mark in marks.items()]
        _log.info("reading %s", ", ".join(words))
        return _below(marks)
    return {root: {}}


def _below(marks: dict[Path, Place]) -> dict[Path, Place]:
    """The folders in those of splits if each has one of one name: ``train/audio``."""
    inner = {folder: subfolders(folder, LeftOut()) for folder in marks}
    names = {tuple(path.name for path in paths) for paths in inner.values()}
    if len(names) > 1 or len(next(iter(names))) != 1 or any(map(metadata, marks)):
        return marks
    return {inner[folder][0]: mark for folder, mark in marks.items()}


def metadata(folder: Path) -> Path | None:
    """The table of a folder, if it has one, or a table that was given instead."""
    if folder.is_file():
        return folder
    found = [folder / name for name in METADATA if (folder / name).is_file()]
    if len(found) > 1:
        _log.warning("reading %s, not %s", found[0], found[1].name)
    return found[0] if found else None


def class_folders(root: Path, mark: Place, left_out: LeftOut) -> list[Clip]:
    """Returns the recordings of the class folders in ``root``, none of which is empty.

    ``mark`` is the ``split`` or ``fold`` of all clips.
    """
    clips = []
    for folder in subfolders(root, left_out):
        files = sound_files(folder, left_out)
        if not files:
            raise UserError(
                f"the class folder {folder} holds no sound file "
                f"({', '.join(s[1:] for s in audio.SUFFIXES)})"
            )
        clips += [Clip(file, (label_name(folder.name),), **mark) for file in files]
    if not mark:
        clips = _with_parts(root, clips)
    loose = [path for path in sorted(root.iterdir()) if path.is_file()]
    loose = [path for path in loose if path.suffix.lower() in audio.SUFFIXES]
    for file in loose:
        left_out.add("recording outside of the class folders", file)
    if loose and not clips:
        _log.warning(
            "the recordings in %s are in no class folders, so they are not used", root
        )
    return clips


def _with_parts(root: Path, clips: list[Clip]) -> list[Clip]:
    """Marks the splits or folds of clips in ``CLASS/train/file`` or by lists of files.

    The lists are those of Speech Commands. Folders are splits if all clips are in some.
    """
    inner = [named_part(clip.path.relative_to(root).parts[1]) for clip in clips]
    if len({tuple(part) for part in inner}) == 1 and len(set(map(str, inner))) > 1:
        _log.info("reading the folders in those of the classes as splits or folds")
        return [clip._replace(**part) for clip, part in zip(clips, inner, strict=True)]
    splits = {}
    for name in ("testing", "validation"):
        file = root / f"{name}_list.txt"
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        splits |= {root / line.strip(): part_in(name) for line in lines}
    paths = {clip.path for clip in clips}
    if not splits or paths.isdisjoint(splits):
        return clips
    _log.info("reading the splits in testing_list.txt and validation_list.txt")
    train = {"split": TRAIN}
    return [clip._replace(**splits.get(clip.path, train)) for clip in clips]


def is_hidden(name: str) -> bool:
    """True if a file or folder is hidden, or belongs to the system."""
    return name.startswith(".") or name.lower() in _SYSTEM


def is_hidden_below(root: Path, path: Path) -> bool:
    """True if ``path`` or a folder between it and ``root`` is hidden."""
    return any(map(is_hidden, path.relative_to(root).parts))


def subfolders(folder: Path, left_out: LeftOut) -> list[Path]:
    """Returns the visible subfolders, sorted; hidden ones are counted."""
    visible = []
    for path in sorted(folder.iterdir()):
        if not path.is_dir():
            continue
        if is_hidden(path.name):
            left_out.add("hidden or system folder", path)
        else:
            visible.append(path)
    return visible


def sound_files(folder: Path, left_out: LeftOut) -> list[Path]:
    """Returns all recordings below a folder, sorted; other files are counted.

    Links to folders are followed, each folder once.
    """

    def count_unreadable(error: OSError) -> None:
        left_out.add("unreadable folder", error.filename)

    found, seen = [], set()
    walk = os.walk(folder, followlinks=True, onerror=count_unreadable)
    for parent, folders, names in walk:
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            left_out.add("folder linked twice", parent)
            continue
        seen.add((status.st_dev, status.st_ino))
        for name in filter(is_hidden, list(folders)):
            folders.remove(name)
            left_out.add("hidden or system folder", name)
        for name in names:
            path = Path(parent, name)
            suffix = path.suffix.lower()
            if is_hidden(name):
                left_out.add("hidden or system file", path)
            elif suffix in audio.SUFFIXES:
                found.append(path)
            else:
                left_out.add(f"format {suffix or 'without suffix'}", path)
    return sorted(found)


def count_unlisted(root: Path, listed: set[Path], left_out: LeftOut) -> None:
    """Counts the recordings in a folder that are not ``listed``."""
    for path in sound_files(root, LeftOut()):
        if path not in listed:
            left_out.add("recording that no table lists", path)
