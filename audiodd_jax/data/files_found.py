"""The files of a folder: recordings, and what is left out, counted by reason."""

import collections
import os
from collections.abc import Iterator
from pathlib import Path

from audiodd_jax.data import audio

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
        name = os.path.basename(os.fspath(path))
        name = name.encode(errors="surrogateescape").decode(errors="backslashreplace")
        self._examples.setdefault(reason, name)

    def rows(self) -> tuple[tuple[str, int, str], ...]:
        """``(reason, count, example)``, the largest count first."""
        return tuple(
            (reason, count, self._examples[reason])
            for reason, count in self._counts.most_common()
        )


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden, or belongs to the system."""
    return name.startswith(".") or name.lower() in _SYSTEM


def subfolders(folder: Path, left_out: LeftOut) -> list[Path]:
    """The visible subfolders, sorted; hidden ones are counted."""
    found = []
    for path in sorted(folder.iterdir()):
        if not path.is_dir():
            continue
        if is_hidden(path.name):
            left_out.add("hidden or system folder", path)
        else:
            found.append(path)
    return found


def recordings(folder: Path, left_out: LeftOut) -> list[Path]:
    """All recordings below a folder, sorted; other files are counted.

    Links to folders are followed, each folder once.
    """
    return sorted(_walk(folder, left_out))


def _walk(folder: Path, left_out: LeftOut) -> Iterator[Path]:
    seen = set()
    fail = lambda error: left_out.add("unreadable folder", error.filename)
    for place, folders, names in os.walk(folder, followlinks=True, onerror=fail):
        status = os.stat(place)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            left_out.add("folder linked twice", place)
            continue
        seen.add((status.st_dev, status.st_ino))
        for name in [name for name in folders if is_hidden(name)]:
            folders.remove(name)
            left_out.add("hidden or system folder", name)
        for name in names:
            path = Path(place, name)
            if is_hidden(name):
                left_out.add("hidden or system file", path)
            elif path.suffix.lower() in audio.SUFFIXES:
                yield path
            else:
                left_out.add(f"format {path.suffix.lower() or 'without suffix'}", path)
