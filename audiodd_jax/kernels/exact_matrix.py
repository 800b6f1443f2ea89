"""Exact kernel matrices, tile by tile on all devices, resumable."""

import hashlib
import logging
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from audiodd_jax.config import RandomNetworkConfig
from audiodd_jax.kernels import infinite_width
from audiodd_jax.runtime import devices, progress
from audiodd_jax.runtime.files import DAMAGE, load_npz, remove_unfinished, save_npz
from audiodd_jax.runtime.signals import Interrupted, deferred_signals

_log = logging.getLogger(__name__)

# Least time between two writes of the file.
_SAVE_SECONDS = 30.0


def count_pairs(a: int, b: int | None = None) -> int:
    """Counts the distinct pairs of two sets, or of one set with itself."""
    return a * (a + 1) // 2 if b is None else a * b


def matrix(
    config: RandomNetworkConfig,
    kind: str,
    x1: Float[Array | np.ndarray, "a f t 1"],
    x2: Float[Array | np.ndarray, "b f t 1"] | None = None,
    *,
    folder: Path | None = None,
    mesh: Mesh | None = None,
    pairs: int = 0,
) -> Float[np.ndarray, "a b"]:
    """Computes the kernel matrix of ``x1`` and ``x2``, or the Gram matrix of ``x1``.

    An interrupted call resumes bit for bit: finished tiles are saved in a file named by
    a digest of the inputs and the settings.

    Args:
      kind: ``nngp`` or ``ntk``.
      x2: inputs of the columns; None: ``x1``, and only the upper triangle is computed.
      folder: where finished tiles are saved; None: memory only.
      mesh: devices that share the tiles; None: all.
      pairs: pairs computed at once on a device; 0: as many as its memory holds.

    Raises:
      UserError: neural-tangents is not installed, or one pair exceeds the memory.
      Interrupted: on SIGTERM or SIGINT; finished tiles are saved.
    """
    x1 = np.asarray(x1, np.float32)
    is_gram = x2 is None
    x2 = x1 if is_gram else np.asarray(x2, np.float32)
    shape = (x1.shape[0], x2.shape[0])
    pairs = pairs or infinite_width.pairs_at_once(
        x1.shape[1:3], is_differentiated=False
    )
    a, b = infinite_width.tile_shape(pairs, *shape)
    if is_gram:
        a = b = min(a, b)
    mesh = devices.make_mesh(devices=None if mesh is None else list(mesh.devices.flat))
    compute = _make_compute(config, kind, (a, b), mesh)
    inputs = devices.replicate((x1, x2), mesh)
    file = folder / f"{kind}-{_digest(config, kind, x1, x2)}.npz" if folder else None
    values = _load(file, shape)
    # Of a Gram matrix, only tiles on and above the diagonal.
    tiles = [
        (slice(i, i + a), slice(j, j + b))
        for i in range(0, shape[0], a)
        for j in range(i if is_gram else 0, shape[1], b)
    ]
    missing = [tile for tile in tiles if np.isnan(values[tile]).any()]
    count, done = len(tiles), len(tiles) - len(missing)
    if done:
        _log.info("%d of %d tiles are already computed", done, count)
    bar = progress.bar(count, initial=done, desc=kind, unit="tile")
    saved = time.monotonic()
    with deferred_signals() as stop_signal, bar as shown:
        while missing:
            now, missing = missing[: mesh.size], missing[mesh.size :]
            # Devices without a tile repeat another one.
            padded = (now * mesh.size)[: mesh.size]
            starts = [(i.start, j.start) for i, j in padded]
            results = np.asarray(compute(np.array(starts, np.int32), *inputs))
            for tile, result in zip(now, results[: len(now)], strict=True):
                target = values[tile]
                # Rows and columns beyond the matrix are dropped.
                target[...] = result[: target.shape[0], : target.shape[1]]
            shown.update(len(now))
            stopping = stop_signal()
            is_due = time.monotonic() - saved > _SAVE_SECONDS
            if file and (is_due or stopping or not missing):
                file.parent.mkdir(parents=True, exist_ok=True)
                save_npz(file, kernel=values)
                saved = time.monotonic()
            if stopping:
                raise Interrupted(stopping, count - len(missing), "tile")
    return np.triu(values) + np.triu(values, 1).T if is_gram else values


def _make_compute(
    config: RandomNetworkConfig, kind: str, sides: tuple[int, int], mesh: Mesh
) -> jax.stages.Wrapped:
    """Compiles ``(starts, x1, x2) -> tiles``, one tile per device.

    A tile starts at a row and a column of the matrix; beyond the matrix, the last row
    or column is repeated.
    """
    kernel = infinite_width.make_kernel(config, kind)

    def cut(x: Array, start: Array, side: int) -> Array:
        return x[jnp.minimum(start + jnp.arange(side), x.shape[0] - 1)]

    def tiles(starts: Int[Array, "k 2"], inputs: tuple[Array, Array]) -> Array:
        tile = lambda start: kernel(*map(cut, inputs, start, sides))
        return lax.map(tile, starts)

    by_rows = devices.shard_rows(tiles, mesh)
    return jax.jit(lambda starts, x1, x2: by_rows(starts, (x1, x2)))


def _digest(
    config: RandomNetworkConfig, kind: str, x1: np.ndarray, x2: np.ndarray
) -> str:
    """Returns a digest of the inputs and of the settings that affect the kernel."""
    readout = "time_mean" if config.readout == "time_mean" else "flatten"
    settings = (config.depth, config.weight_variance, config.bias_std, readout)
    shapes = (x1.shape, x2.shape, x1 is x2)
    text = repr((infinite_width.VERSION, kind, *settings, *shapes))
    digest = hashlib.sha256(text.encode())
    for x in (x1, x2):
        digest.update(np.ascontiguousarray(x).tobytes())
    return digest.hexdigest()[:16]


def _load(file: Path | None, shape: tuple[int, int]) -> Float[np.ndarray, "a b"]:
    """Reads the saved part of a matrix; the rest is NaN."""
    if file:
        remove_unfinished(file.parent, file.name)
    if file and file.exists():
        try:
            values = load_npz(file)["kernel"]
            if values.shape == shape and values.dtype == np.float32:
                return values
        except DAMAGE:
            _log.warning("%s is damaged and is computed again", file)
    return np.full(shape, np.nan, np.float32)
