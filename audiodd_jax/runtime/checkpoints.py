"""Checkpoints of array pytrees by orbax: atomic, and restored bit for bit.

Of several processes only process 0 writes and reads; all have the same arrays.
"""

import errno
import hashlib
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from audiodd_jax.errors import UserError
from audiodd_jax.runtime import devices, files, lease, multiprocess

_log = logging.getLogger(__name__)

# SHA-256 of a checkpoint's files when they were written. The storage below orbax has
# checksums for small arrays only.
_DIGESTS = "digests.json"
# The folder of orbax in a checkpoint's folder.
_ARRAYS = "default"


def _digests(folder: Path) -> dict[str, str]:
    """Returns the digest of each file of a checkpoint by its name in the folder."""
    digests = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != _DIGESTS:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            digests[path.relative_to(folder).as_posix()] = digest
    return digests


def _checkpointer() -> ocp.Checkpointer:
    """Returns a checkpointer that waits for no other process."""
    options: dict[str, Any] = {}
    if jax.process_count() > 1:
        options["multiprocessing_options"] = ocp.options.MultiprocessingOptions(
            primary_host=0, active_processes={0}, barrier_sync_key_prefix="lead"
        )
    return ocp.Checkpointer(ocp.StandardCheckpointHandler(**options), **options)


class Checkpoints:
    """The checkpoints of a run, by step; only the newest ``keep`` are kept."""

    def __init__(self, folder: Path, keep: int = 2):
        self.folder = folder.absolute()
        self._keep = keep
        if multiprocess.is_process_zero():
            self.folder.mkdir(parents=True, exist_ok=True)
            files.remove_unfinished(self.folder)
            # Leftovers of older versions.
            for path in self.folder.glob("*.orbax-checkpoint-tmp*"):
                shutil.rmtree(path, ignore_errors=True)

    def path(self, step: int) -> Path:
        """Returns the folder of a step's checkpoint."""
        return self.folder / str(step)

    def _steps(self) -> list[int]:
        """Returns the saved steps, the newest last."""
        folders = [path for path in self.folder.iterdir() if path.name.isdigit()]
        return sorted(int(path.name) for path in folders if path.is_dir())

    def latest(self) -> int | None:
        """Returns the newest step that was saved, or None."""
        return multiprocess.from_process_zero(lambda: max(self._steps(), default=None))

    def save(self, step: int, state: Any) -> None:
        """Writes ``state`` as the checkpoint of ``step``, atomically.

        Raises:
          OSError: the disk is full, or the folder cannot be written.
        """
        if not multiprocess.is_process_zero() or step in self._steps():
            return
        arrays = ocp.args.StandardSave(devices.host_words(state))
        try:
            with files.atomic_folder(self.path(step)) as new, _checkpointer() as writer:
                writer.save(new / _ARRAYS, arrays)
                files.write_json(new / _DIGESTS, _digests(new))
        except ValueError as error:
            # The storage below orbax reports a full disk as a ValueError.
            for number in (errno.ENOSPC, errno.EDQUOT):
                if (full := os.strerror(number)) in str(error):
                    raise OSError(number, full, str(self.folder)) from error
            raise
        for old in self._steps()[: -self._keep]:
            shutil.rmtree(self.path(old), ignore_errors=True)
        lease.commit(self.folder)

    def restore_latest(self, like: Any) -> tuple[int, Any] | None:
        """Returns the newest intact checkpoint as step and state, or None.

        Damaged checkpoints are removed, so that the resumed run can write them again.
        ``like`` is a state with the same structure, shapes, types and shardings.

        Raises:
          UserError: there are checkpoints, but all of them are damaged.
        """
        blank = devices.host_words(like)
        found: list[Any] = []

        def read_newest() -> int | None:
            steps = self._steps()
            for step in reversed(steps):
                try:
                    found.append(self._read(step, blank))
                    return step
                except Exception as error:  # orbax raises errors of several libraries
                    # Their messages are long and quote the file's bytes.
                    is_ours = isinstance(error, UserError)
                    why = str(error) if is_ours else type(error).__name__
                    _log.warning("the checkpoint of step %d is damaged: %s", step, why)
                    shutil.rmtree(self.path(step), ignore_errors=True)
            if steps:
                raise UserError(
                    f"all checkpoints in {self.folder} are damaged; delete the run's "
                    "folder to start again"
                )
            return None

        step = multiprocess.from_process_zero(read_newest)
        if step is None:
            return None
        arrays = multiprocess.arrays_from_process_zero(found[0] if found else blank)
        return step, devices.from_host(arrays, like)

    def _read(self, step: int, like: Any) -> Any:
        """Returns the arrays of a checkpoint; raises an error if it is damaged."""
        folder = self.path(step)
        digests = folder / _DIGESTS  # older versions wrote none
        if digests.exists() and files.read_json(digests) != _digests(folder):
            raise UserError("its bytes are not those that were written")
        with _checkpointer() as reader:
            arguments = ocp.args.StandardRestore(like)
            arrays = reader.restore(folder / _ARRAYS, arguments)
        shapes = lambda tree: [leaf.shape for leaf in jax.tree.leaves(tree)]
        if shapes(arrays) != shapes(like):
            raise UserError("its arrays have other shapes")
        return arrays
