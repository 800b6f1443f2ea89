"""Checkpoints of array pytrees by orbax: whole or absent, restored bit for bit."""

import errno
import os
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp


def _to_arrays(tree: Any) -> Any:
    """Typed keys as their raw words, which any version of orbax stores."""
    is_key = lambda x: jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
    return jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, tree)


def _like(arrays: Any, tree: Any) -> Any:
    """Inverse of ``_to_arrays``, with the structure and key types of ``tree``."""

    def restore(value: jax.Array, like: jax.Array) -> jax.Array:
        if jax.dtypes.issubdtype(like.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(value, impl=jax.random.key_impl(like))
        return value

    return jax.tree.map(restore, arrays, tree)


class Checkpoints:
    """The checkpoints of a run, one a step number; the newest ``keep`` stay."""

    def __init__(self, folder: Path, keep: int = 2):
        # Synchronous: the state is small, and the next chunk donates its buffers.
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            enable_async_checkpointing=False,
            cleanup_tmp_directories=True,  # what a killed write left
        )
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)
        self.folder = folder

    def save(self, step: int, state: Any) -> None:
        """Writes ``state`` as the checkpoint of ``step``, wholly or not at all.

        Raises:
          OSError: the disk is full, or the folder cannot be written.
        """
        if step in self._manager.all_steps():
            return
        args = ocp.args.StandardSave(_to_arrays(state))
        try:
            self._manager.save(step, args=args, force=True)
            self._manager.wait_until_finished()
        except ValueError as error:
            # The storage below orbax tells a full disk as a ValueError.
            full = os.strerror(errno.ENOSPC)
            if full not in str(error):
                raise
            raise OSError(errno.ENOSPC, full, str(self.folder)) from error

    def latest(self) -> int | None:
        """The newest step that was saved, or None."""
        return self._manager.latest_step()

    def restore(self, step: int, like: Any) -> Any:
        """The state of ``step``, with the structure, shapes and types of ``like``."""
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, _to_arrays(like))
        args = ocp.args.StandardRestore(abstract)
        return _like(self._manager.restore(step, args=args), like)

    def path(self, step: int) -> Path:
        """The folder of a step's checkpoint."""
        return self.folder / str(step)

    def close(self) -> None:
        """Frees the manager's threads."""
        self._manager.close()
