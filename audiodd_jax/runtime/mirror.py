"""Folders in object stores: worked on in local mirrors, published at commit points.

``s3://bucket/a`` is the local folder ``.../audiodd-stores/s3/bucket/a``, as
``config.user_paths`` maps it; here such a folder is recognised by its path. Files
that have changed are published whole, in an order of which every beginning can be
resumed. A checkpoint is one object, a zip file. ``lease`` lets one process at a time
write a folder.
"""

import contextlib
import io
import logging
import os
import re
import shutil
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from audiodd_jax.errors import UserError
from audiodd_jax.runtime import files, lazy_files, object_store
from audiodd_jax.runtime.object_store import Bucket, Changed, Found

_log = logging.getLogger(__name__)

_MIRRORED = re.compile(r".*/audiodd-stores/(s3|gs)/([^/]+)/(.+)")
# What is known of the objects behind a mirror's files, and the last lease, in it.
_INDEX = ".mirror.json"
# Hidden files that are published: one that marks a folder as a report.
_MARKS = (".report",)
# Files that a person writes (``audiodd label``).
_TYPED = re.compile(r"answers\.jsonl|(to_label|review)(-\d+)?\.csv")
# Begins the name of such a file that another machine has changed too.
UNPUBLISHED = ".unpublished-"
_CHECKPOINT = re.compile(r"(.*/)?checkpoints/\d+\.zip")
# The file in every checkpoint's folder.
_DIGESTS = "digests.json"
# Files that say what a folder is come first; those that mark it as finished come last,
# after the checkpoints.
_FIRST, _LAST = ("config.json", "sweep.jsonl"), ("result.json", "meta.json")
# Attempts to read a folder that others are writing.
_READS = 3


def url_of(path: Path) -> str | None:
    """Returns the URL that a local path mirrors, or None."""
    match = _MIRRORED.fullmatch(os.path.abspath(path))
    return f"{match[1]}://{match[2]}/{match[3]}" if match else None


def _place(path: Path) -> tuple[Bucket, str]:
    """Returns the bucket and the key of a mirrored path."""
    scheme, name, key = _MIRRORED.fullmatch(os.path.abspath(path)).groups()
    return object_store.bucket(scheme, name), key


def publish(path: Path) -> None:
    """Publishes a mirrored file or folder, unless a process here has leased it."""
    is_finished = all(map(files.is_finished, path.parts))
    if not url_of(path) or not is_finished or _is_busy(path):
        return
    if path.is_file():
        bucket, key = _place(path)
        bucket.write(key, path.read_bytes())
    elif path.is_dir():
        Mirror(path).push()


def exists(path: Path) -> bool:
    """Returns whether a local file, or the object behind a mirrored one, exists."""
    if not url_of(path):
        return path.exists()
    bucket, key = _place(path)
    return key in bucket.listed(key)


def fetch(path: Path, whole: str = "", lazy: tuple[str, ...] = ()) -> None:
    """Brings the mirror of a file or folder up to date, for reading.

    Does nothing for a path that is not mirrored, or that this machine is writing.

    Args:
      whole: a file that is published last, if the folder must appear all at once.
      lazy: suffixes of files that are downloaded when ``read`` names them.
    """
    if not url_of(path) or _is_busy(path):
        return
    bucket, key = _place(path)
    for attempt in range(_READS):
        try:
            listed = bucket.listed(key)
            if key in listed:
                _download(bucket, key, listed[key], path)
            elif not whole:
                Mirror(path, wants=_is_no_checkpoint).pull(listed, lazy)
            elif f"{key}/{whole}" in listed:
                with files.atomic_folder(path) as scratch:
                    for name, found in _below(key, listed).items():
                        _download(bucket, f"{key}/{name}", found, scratch / name)
            return
        except (Changed, FileNotFoundError):
            if attempt + 1 == _READS:
                raise UserError(f"{url_of(path)} changes while it is read") from None


def read(path: str | os.PathLike) -> None:
    """Downloads a file if it is a placeholder of a mirror.

    Raises:
      ValueError: it has changed since it was listed.
    """
    if lazy_files.is_placeholder(os.stat(path)) and url_of(Path(path)):
        lazy_files.download(Path(path), *_place(Path(path)))


def _is_no_checkpoint(name: str) -> bool:
    return not _CHECKPOINT.fullmatch(name)


def _is_busy(path: Path) -> bool:
    """Returns whether a process of this machine writes a mirrored path."""
    above = [parent / ".lock" for parent in path.parents]
    below = path.rglob(".lock") if path.is_dir() else ()
    return any(map(is_held, (*above, path / ".sweep", *below)))


def is_held(lock: Path) -> bool:
    """Returns whether a process of this machine holds a lock file."""
    if not lock.exists():
        return False
    held = files.hold(lock)
    if held is not None:
        held.release()
    return held is None


def _below(key: str, listed: dict[str, Found]) -> dict[str, Found]:
    """Returns the objects of a folder by their names in it."""
    beginning = f"{key}/"
    return {
        name.removeprefix(beginning): found
        for name, found in listed.items()
        if name.startswith(beginning)
        # No markers of folders, and nothing that would leave the mirror.
        and not {"", "..", "."} & set(name.removeprefix(beginning).split("/"))
    }


def _download(bucket: Bucket, key: str, found: Found, path: Path) -> None:
    """Writes an object to a file, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.atomic(path) as file:
        bucket.download(key, found, file)
    # The same on all machines, for digests of recordings.
    os.utime(path, (found.modified, found.modified))


class Mirror:
    """A mirrored folder and what is known of its objects."""

    def __init__(self, folder: Path, wants: Callable[[str], bool] = lambda name: True):
        self.folder = Path(os.path.abspath(folder))
        self._bucket, self._key = _place(folder)
        self.wants = wants
        index = {}
        if (file := self.folder / _INDEX).exists():
            index = files.read_json(file)
        # By name: version, and size and time of the file when it had this version.
        self._objects: dict[str, list[Any]] = index.get("objects", {})
        self._token: str = index.get("token", "")

    def _save(self) -> None:
        index = {"objects": self._objects, "token": self._token}
        files.write_json(self.folder / _INDEX, index)

    def _path(self, name: str) -> Path:
        """Returns the file, or the folder of a checkpoint, behind an object."""
        path = self.folder / name
        return path.with_suffix("") if _CHECKPOINT.fullmatch(name) else path

    def _state(self, name: str) -> list[int]:
        """Returns the size and the time of writing of an object's file."""
        path = self._path(name)
        status = (path / _DIGESTS if path.is_dir() else path).stat()
        return [status.st_size, status.st_mtime_ns]

    def _names(self) -> list[str]:
        """Returns the objects that the folder's files stand for."""
        names = []
        for parent, folders, found in os.walk(self.folder):
            place = Path(parent).relative_to(self.folder).as_posix()
            if _DIGESTS in found:
                folders.clear()
                names.append(f"{place}.zip")
                continue
            folders[:] = [name for name in folders if files.is_finished(name)]
            names += [
                name if place == "." else f"{place}/{name}"
                for name in found
                if files.is_finished(name) and (name[0] != "." or name in _MARKS)
            ]
        return list(filter(self.wants, names))

    def pull(
        self, listed: dict[str, Found], lazy: tuple[str, ...] = ()
    ) -> dict[str, Found]:
        """Makes the files those of a listing; returns the objects by name."""
        found = _below(self._key, listed)
        found = {
            name: one
            for name, one in found.items()
            if self.wants(name) and (name in _MARKS or Path(name).name[0] != ".")
        }
        if not found and not self.folder.exists():
            return found
        here = set(self._names())
        kept = {name for name in here if self._is_kept(name, found)}
        here = set(self._names()) - kept
        for name in here - set(found):
            path = self._path(name)
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for name in (name for name in found if name not in kept):
            one, known = found[name], self._objects.get(name)
            is_current = known and name in here and known[0] == one.version
            if is_current and known[1:] == self._state(name):
                continue
            key = f"{self._key}/{name}"
            if _CHECKPOINT.fullmatch(name):
                self._unpack(key, one, self._path(name))
            elif name.lower().endswith(lazy):
                lazy_files.put_found(self._path(name), one)
            else:
                _download(self._bucket, key, one, self._path(name))
            self._objects[name] = [one.version, *self._state(name)]
        self._objects = {n: known for n, known in self._objects.items() if n in found}
        self._save()
        return found

    def _is_kept(self, name: str, found: dict[str, Found]) -> bool:
        """Returns whether a person's file was changed here, and only here.

        One that was changed in the store too is renamed, to a name that begins with
        ``.unpublished``.
        """
        if not _TYPED.fullmatch(Path(name).name):
            return False
        if "/" in name:  # a session below this folder knows
            return True
        version, *state = self._objects.get(name, [""])
        if state == self._state(name):
            return False
        if version == (found[name].version if name in found else ""):
            return True
        path = self._path(name)
        path.rename(path.with_name(f"{UNPUBLISHED}{uuid.uuid4().hex[:8]}-{name}"))
        return False

    def _unpack(self, key: str, found: Found, folder: Path) -> None:
        packed = io.BytesIO()
        self._bucket.download(key, found, packed)
        shutil.rmtree(folder, ignore_errors=True)
        with files.atomic_folder(folder) as new, zipfile.ZipFile(packed) as archive:
            archive.extractall(new)

    def push(self) -> None:
        """Publishes what has changed since the last time."""
        states = {}
        for name in self._names():
            # Trackers move and link their own files at any time.
            with contextlib.suppress(FileNotFoundError):
                states[name] = self._state(name)
        changed = [n for n in states if states[n] != self._objects.get(n, [""])[1:]]

        def order(name: str) -> tuple[int, int, int]:
            file, is_checkpoint = Path(name).name, bool(_CHECKPOINT.fullmatch(name))
            rank = 2 * (file in _LAST) + is_checkpoint - (file in _FIRST)
            return rank, -name.count("/"), states[name][1]

        for name in sorted(changed, key=order):
            with contextlib.suppress(FileNotFoundError):
                version = self._write(name, self._bytes(name))
                self._objects[name] = [version, *states[name]]
        for name in set(self._objects) - set(states):
            self._bucket.remove(f"{self._key}/{name}")
            del self._objects[name]
        self._save()

    def _write(self, name: str, data: bytes) -> str:
        return self._bucket.write(f"{self._key}/{name}", data)

    def _bytes(self, name: str) -> bytes:
        path = self._path(name)
        if not path.is_dir():
            return path.read_bytes()
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for file in sorted(path.rglob("*")):
                archive.write(file, file.relative_to(path))
        return packed.getvalue()
