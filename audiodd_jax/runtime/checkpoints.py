"""Checkpoints of array pytrees by orbax: atomic, and restored bit for bit.

Of several processes only process 0 writes and reads; arrays are the same on all.
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
from audiodd_jax.runtime import multiprocess
from audiodd_jax.runtime.files import read_json, remove_unfinished, write_json

_log = logging.getLogger(__name__)


def _to_arrays(tree: Any) -> Any:
    """Typed keys as raw words, which any version of orbax stores."""
    is_key = lambda x: jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
    return jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, tree)


def _like(arrays: Any, tree: Any) -> Any:
    """Inverse of ``_to_arrays``, with the structure and key types of ``tree``."""

    def restore(value: jax.Array, like: jax.Array) -> jax.Array:
        if jax.dtypes.issubdtype(like.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(value, impl=jax.random.key_impl(like))
        return value

    return jax.tree.map(restore, arrays, tree)


# What a checkpoint's files contained when they were written. The storage below orbax
# checks small arrays only.
_DIGESTS = "digests.json"


def _digests(folder: Path) -> dict[str, str]:
    """SHA-256 of all files of a checkpoint, by their names in its folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != _DIGESTS:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            found[path.relative_to(folder).as_posix()] = digest
    return found


def _is_checkpoint(folder: Path) -> bool:
    return folder.is_dir() and folder.name.isdigit()


def _is_whole(folder: Path) -> bool:
    """Whether a checkpoint is as it was written, as far as it says.

    Older versions wrote no digests, nor does a process that is killed before it.
    """
    file = folder / _DIGESTS
    try:
        return not file.exists() or read_json(file) == _digests(folder)
    except UserError:
        return False


class Checkpoints:
    """The checkpoints of a run, by step; the newest ``keep`` are kept."""

    def __init__(self, folder: Path, keep: int = 2):
        self.folder = folder
        self._manager = None
        self._is_damaged = False
        if not multiprocess.is_process_zero():
            return
        self._keep = keep
        self._open()

    def _open(self) -> None:
        alone = {}
        if jax.process_count() > 1:
            alone["multiprocessing_options"] = ocp.options.MultiprocessingOptions(
                primary_host=0, active_processes={0}, barrier_sync_key_prefix="lead"
            )
        # Synchronous: the state is small, and the next chunk donates its buffers.
        options = ocp.CheckpointManagerOptions(
            max_to_keep=self._keep,
            create=False,  # orbax cannot create it for some of the processes
            enable_async_checkpointing=False,
            cleanup_tmp_directories=True,  # remains of killed processes
            **alone,
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        # Before orbax reads them, which it does here, and which may fail in many ways.
        for place in filter(_is_checkpoint, self.folder.iterdir()):
            remove_unfinished(place)
            if not _is_whole(place):
                self._remove(place, "its bytes are not those that were written")
        self._manager = ocp.CheckpointManager(self.folder.absolute(), options=options)

    def save(self, step: int, state: Any) -> None:
        """Writes ``state`` as the checkpoint of ``step``, atomically.

        Raises:
          OSError: the disk is full, or the folder cannot be written.
        """
        if self._manager is None or step in self._manager.all_steps():
            return
        words = _to_arrays(state)
        if jax.process_count() > 1:
            words = jax.tree.map(np.asarray, words)
        args = ocp.args.StandardSave(words)
        try:
            self._manager.save(step, args=args, force=True)
            self._manager.wait_until_finished()
            write_json(self.path(step) / _DIGESTS, _digests(self.path(step)))
        except ValueError as error:
            # The storage below orbax reports a full disk as a ValueError.
            full = os.strerror(errno.ENOSPC)
            if full not in str(error):
                raise
            raise OSError(errno.ENOSPC, full, str(self.folder)) from error

    def latest(self) -> int | None:
        """The newest step that was saved, or None."""
        return multiprocess.from_process_zero(lambda: self._manager.latest_step())

    def restore_latest(self, like: Any) -> tuple[int, Any] | None:
        """The newest step whose checkpoint can be read, and its state; or None.

        Damaged checkpoints are removed, so that the resumed run can write them again.

        Raises:
          UserError: there are checkpoints, and all of them are damaged.
        """
        while (step := multiprocess.from_process_zero(self._newest)) is not None:
            try:
                return step, self.restore(step, like)
            except Exception as error:  # orbax raises those of several libraries
                if jax.process_count() > 1:
                    raise
                # Theirs are long, and quote the file's bytes.
                self._remove(self.path(step), type(error).__name__)
                self._manager.close()
                self._open()
        return None

    def _newest(self) -> int | None:
        """The newest step.

        Raises:
          UserError: there were checkpoints, and all of them were damaged.
        """
        step = self._manager.latest_step()
        if step is None and self._is_damaged:
            raise UserError(
                f"all checkpoints in {self.folder} are damaged; delete the run's "
                "folder to start again"
            )
        return step

    def _remove(self, place: Path, why: str) -> None:
        """Removes a damaged checkpoint."""
        _log.warning("the checkpoint of step %s is damaged: %s", place.name, why)
        self._is_damaged = True
        shutil.rmtree(place, ignore_errors=True)

    def restore(self, step: int, like: Any) -> Any:
        """The state of ``step``, with the structure, shapes and types of ``like``."""
        words = _to_arrays(like)
        if jax.process_count() == 1:
            abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, words)
            args = ocp.args.StandardRestore(abstract)
            return _like(self._manager.restore(step, args=args), like)
        found = jax.tree.map(np.asarray, words)
        if self._manager is not None:
            args = ocp.args.StandardRestore(found)
            found = self._manager.restore(step, args=args)
        found = multiprocess.arrays_from_process_zero(found)
        place = lambda x, like: jax.make_array_from_callback(
            x.shape, like.sharding, lambda at: x[at]
        )
        return _like(jax.tree.map(place, found, words), like)

    def path(self, step: int) -> Path:
        """The folder of a step's checkpoint."""
        return self.folder / str(step)

    def close(self) -> None:
        """Frees the manager's threads."""
        if self._manager is not None:
            self._manager.close()
