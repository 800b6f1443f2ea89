"""Checkpoints of array pytrees by orbax: atomic, and restored bit for bit.

In a run of several processes only process 0 writes and reads; the arrays are the same
in all of them.
"""

import errno
import hashlib
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from audiodd_jax.errors import UserError
from audiodd_jax.runtime import devices, multiprocess
from audiodd_jax.runtime.files import read_json, remove_unfinished, write_json

_log = logging.getLogger(__name__)

# SHA-256 of a checkpoint's files when they were written. The storage below orbax has
# checksums for small arrays only.
_DIGESTS = "digests.json"


def _digests(folder: Path) -> dict[str, str]:
    """Returns the digest of each file of a checkpoint by its name in the folder."""
    digests = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != _DIGESTS:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            digests[path.relative_to(folder).as_posix()] = digest
    return digests


def _is_intact(folder: Path) -> bool:
    """Returns whether a checkpoint matches its digests, if it has any.

    Older versions wrote none, nor does a process that is killed before it.
    """
    file = folder / _DIGESTS
    try:
        return not file.exists() or read_json(file) == _digests(folder)
    except UserError:
        return False


class Checkpoints:
    """The checkpoints of a run, by step; only the newest ``keep`` are kept."""

    def __init__(self, folder: Path, keep: int = 2):
        self.folder = folder
        self._keep = keep
        self._manager = None
        self._is_damaged = False
        if multiprocess.is_process_zero():
            self._open()

    def _open(self) -> None:
        options: dict[str, Any] = {}
        if jax.process_count() > 1:
            options["multiprocessing_options"] = ocp.options.MultiprocessingOptions(
                primary_host=0, active_processes={0}, barrier_sync_key_prefix="lead"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        # Damage is removed before orbax reads the checkpoints, which it does when it
        # is created, and which may fail in many ways.
        for path in self.folder.iterdir():
            if path.is_dir() and path.name.isdigit():
                remove_unfinished(path)
                if not _is_intact(path):
                    self._remove(path, "its bytes are not those that were written")
        self._manager = ocp.CheckpointManager(
            self.folder.absolute(),
            options=ocp.CheckpointManagerOptions(
                max_to_keep=self._keep,
                create=False,  # orbax cannot create it for some of the processes
                # The state is small, and the next chunk donates its buffers.
                enable_async_checkpointing=False,
                cleanup_tmp_directories=True,  # left by killed processes
                **options,
            ),
        )

    def save(self, step: int, state: Any) -> None:
        """Writes ``state`` as the checkpoint of ``step``, atomically.

        Raises:
          OSError: the disk is full, or the folder cannot be written.
        """
        if self._manager is None or step in self._manager.all_steps():
            return
        arrays = devices.host_words(state)
        try:
            self._manager.save(step, args=ocp.args.StandardSave(arrays), force=True)
            self._manager.wait_until_finished()
            write_json(self.path(step) / _DIGESTS, _digests(self.path(step)))
        except ValueError as error:
            # The storage below orbax reports a full disk as a ValueError.
            full = os.strerror(errno.ENOSPC)
            if full not in str(error):
                raise
            raise OSError(errno.ENOSPC, full, str(self.folder)) from error

    def latest(self) -> int | None:
        """Returns the newest step that was saved, or None."""
        return multiprocess.from_process_zero(lambda: self._manager.latest_step())

    def restore_latest(self, like: Any) -> tuple[int, Any] | None:
        """Returns the newest readable checkpoint as step and state, or None.

        Damaged checkpoints are removed, so that the resumed run can write them again.

        Raises:
          UserError: there are checkpoints, but all of them are damaged.
        """
        while (step := multiprocess.from_process_zero(self._newest)) is not None:
            try:
                return step, self.restore(step, like)
            except Exception as error:  # orbax raises errors of several libraries
                if jax.process_count() > 1:
                    raise
                # Their messages are long and quote the file's bytes.
                self._remove(self.path(step), type(error).__name__)
                self._manager.close()
                self._open()
        return None

    def _newest(self) -> int | None:
        step = self._manager.latest_step()
        if step is None and self._is_damaged:
            raise UserError(
                f"all checkpoints in {self.folder} are damaged; delete the run's "
                "folder to start again"
            )
        return step

    def _remove(self, folder: Path, why: str) -> None:
        """Removes a damaged checkpoint."""
        _log.warning("the checkpoint of step %s is damaged: %s", folder.name, why)
        self._is_damaged = True
        shutil.rmtree(folder, ignore_errors=True)

    def restore(self, step: int, like: Any) -> Any:
        """Returns the state of ``step``, with the structure and types of ``like``."""
        arrays = devices.host_words(like)
        if self._manager is not None:
            args = ocp.args.StandardRestore(arrays)
            arrays = self._manager.restore(step, args=args)
        arrays = multiprocess.arrays_from_process_zero(arrays)
        placed = jax.tree.map(_placed, arrays, devices.key_words(like))
        return devices.with_keys(placed, like)

    def path(self, step: int) -> Path:
        """Returns the folder of a step's checkpoint."""
        return self.folder / str(step)

    def close(self) -> None:
        """Frees the manager's threads."""
        if self._manager is not None:
            self._manager.close()


def _placed(array: np.ndarray, like: jax.Array) -> jax.Array:
    """Puts a stored array on the devices of ``like``."""
    if array.shape != like.shape:
        raise ValueError(f"an array of shape {array.shape}, not {like.shape}")
    return devices.from_host(array, like.sharding)
