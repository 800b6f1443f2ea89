"""Leases of folders in object stores: one process at a time writes a run or a sweep.

It holds a lease in the store, brings the mirror up to date, works on it like on any
folder, and publishes it at each commit point.
"""

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import filelock

from audiodd_jax.errors import InUseError, UserError
from audiodd_jax.runtime import files
from audiodd_jax.runtime.mirror import Mirror, url_of
from audiodd_jax.runtime.object_store import Changed, Content

_log = logging.getLogger(__name__)

# Seconds after which a lease that is not renewed is void.
_TERM = float(os.environ.get("AUDIODD_LEASE_SECONDS", "120"))
# Seconds in which what is due, such as a person's answers, is collected and published.
_SOON = 3.0

# Leases of this process, by folder.
_leases: dict[Path, "Lease"] = {}


def hold_folder(
    folder: Path,
    name: str,
    what: str,
    marker: str,
    wants: Callable[[str], bool] = lambda name: True,
) -> "filelock.BaseFileLock | Lease | None":
    """Like ``files.hold_folder``; a mirrored folder is leased and brought up to date.

    Args:
      marker: a file that every folder of this kind has.
      wants: whether the mirror includes a file.

    Raises:
      InUseError: another machine is writing the folder.
      UserError: the folder in the store holds something else.
    """
    lock = files.hold_folder(folder, name, what)
    if lock is None or not url_of(folder) or _lease_of(folder):
        return lock
    lease = Lease(folder, name, wants, lock)
    try:
        lease.acquire(marker)
    except BaseException:
        lease.release()
        raise
    return lease


def commit(path: Path) -> None:
    """Publishes a folder if this process has leased it or one above it."""
    if lease := _lease_of(path):
        lease.push()


def commit_soon(path: Path) -> None:
    """Publishes a folder in a few seconds if this process has leased it.

    Raises:
      InUseError: another process has taken over the lease.
    """
    if lease := _lease_of(path):
        lease.push_soon()


def _lease_of(path: Path) -> "Lease | None":
    """Returns this process's lease of a folder or of one above it."""
    path = Path(os.path.abspath(path))
    for parent in (path, *path.parents):
        if lease := _leases.get(parent):
            name = path.relative_to(parent).as_posix()
            return lease if name == "." or lease.wants(name) else None
    return None


class Lease(Mirror):
    """A mirrored folder that one process at a time may write.

    The lease is an object, replaced several times in each term. A process that finds
    it waits until it was not replaced for a whole term, and then takes over; at once
    if the lease was that of a process on this machine, which has died. A process that
    has lost its lease publishes nothing, since every object is replaced only if it
    has the version that this process wrote or read.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        wants: Callable[[str], bool],
        lock: filelock.BaseFileLock,
    ):
        super().__init__(folder, wants)
        self._name, self._lock = f"{self._key}/{name}", lock
        self._url = url_of(self.folder)
        self._version: str | None = None  # None: this process does not have it
        self._mutex, self._is_over = threading.RLock(), threading.Event()
        self._is_due = threading.Event()

    def acquire(self, marker: str) -> None:
        """Takes the lease, and makes the folder that of the store."""
        try:
            version = self._outlive(self._bucket.read(self._name))
        except FileNotFoundError:
            version = ""
        # Before the request, after which this process may be killed.
        self._token = uuid.uuid4().hex
        self._save()
        try:
            self._version = self._bucket.write(self._name, self._content(), version)
        except Changed:
            raise self._in_use() from None
        threading.Thread(target=self._keep, daemon=True).start()
        found = self.pull(self._bucket.listed(f"{self._key}/"))
        if found and marker not in found:
            kind = "sweep" if marker.endswith(".jsonl") else "run"
            raise UserError(
                f"{self._url} is not empty and holds no {kind}; choose another folder"
            )
        _leases[self.folder] = self

    def _content(self) -> bytes:
        """Returns new bytes for the lease: ETags depend on nothing else."""
        return f"{self._token} {uuid.uuid4().hex}".encode()

    def _in_use(self) -> InUseError:
        return InUseError(f"another process is writing {self._url}")

    def _outlive(self, there: Content) -> str:
        """Waits until a lease is void; returns its version, or "" if it is gone."""
        if there.data.decode().split()[0] == self._token:
            # This process has the local lock, so that one of this machine has died.
            return there.version
        _log.info("waiting for another process that was writing %s", self._url)
        until = time.monotonic() + _TERM
        # Stores state times in whole seconds.
        is_recent = lambda: time.time() < there.modified + _TERM + 1
        while time.monotonic() < until and is_recent():
            time.sleep(min(5.0, _TERM / 6))
            try:
                now = self._bucket.read(self._name)
            except FileNotFoundError:
                return ""
            if now.version != there.version:
                raise self._in_use()
        return there.version

    def _keep(self) -> None:
        """Renews the lease, and publishes what is due, until it is released or lost."""
        while True:
            is_due = self._is_due.wait(_TERM / 3)
            self._is_over.wait(min(_SOON, _TERM / 3) if is_due else 0)
            self._is_due.clear()
            try:
                with self._mutex:
                    if self._is_over.is_set():
                        return
                    self.push() if is_due else self._renew()
            except InUseError:
                return
            except Exception as error:  # the next commit reports it
                if not is_due:
                    _log.debug("the lease of %s is not renewed: %s", self._url, error)
                    continue
                _log.warning("kept on this machine, but not yet published: %s", error)
                self._is_due.set()

    def push_soon(self) -> None:
        """Publishes what has changed, and what changes in the next seconds."""
        self._check()
        self._is_due.set()

    def _check(self) -> None:
        if self._version is None:
            raise InUseError(
                f"another process has taken over {self._url}; this one stops"
            )

    def _renew(self) -> None:
        with self._mutex:
            self._check()
            try:
                data = self._content()
                self._version = self._bucket.write(self._name, data, self._version)
            except Changed:
                self._version = None
                self._renew()

    def push(self) -> None:
        """Publishes what has changed, if this process still has the lease."""
        with self._mutex:
            self._renew()
            super().push()

    def _write(self, name: str, data: bytes) -> str:
        version = self._objects.get(name, [""])[0]
        try:
            return self._bucket.write(f"{self._key}/{name}", data, version)
        except Changed:
            self._version = None
            return self._renew()

    def release(self) -> None:
        """Gives the lease and the local lock back."""
        self._is_over.set()
        self._is_due.set()
        _leases.pop(self.folder, None)
        try:
            with self._mutex:
                if self._version is not None:
                    self._version = None
                    self._bucket.remove(self._name)
        except UserError as error:  # the lease ends by itself
            _log.warning("%s", error)
        finally:
            self._lock.release()
