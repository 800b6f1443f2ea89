"""Whole matrices of an exact kernel, tile by tile, over all devices, and resumable."""

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
from tqdm import tqdm

from audiodd_jax.config import RandomNetworkConfig
from audiodd_jax.kernels import infinite_width
from audiodd_jax.runtime import devices
from audiodd_jax.runtime.files import DAMAGE, load_npz, save_npz
from audiodd_jax.runtime.signals import Interrupted, deferred_signals

_log = logging.getLogger(__name__)

# Finished tiles are written once in so many seconds.
_SAVE_SECONDS = 30.0


def count_pairs(a: int, b: int | None = None) -> int:
    """Pairs whose kernel is needed: those of a Gram matrix count once."""
    return a * (a + 1) // 2 if b is None else a * b


def matrix(
    config: RandomNetworkConfig,
    kind: str,
    x1: Float[Array | np.ndarray, "a f t 1"],
    x2: Float[Array | np.ndarray, "b f t 1"] | None = None,
    *,
    place: Path | None = None,
    mesh: Mesh | None = None,
    pairs: int = 0,
) -> Float[np.ndarray, "a b"]:
    """The kernel of every pair; with ``x1`` alone, its Gram matrix.

    The same call goes on where it was cut, to the same bits: finished tiles lie in a
    file whose name depends on the inputs and the settings.

    Args:
      config: of the random networks.
      kind: ``nngp`` or ``ntk``.
      x1: inputs, a row each.
      x2: inputs, a column each; None: ``x1``, and only one of two mirrored tiles is
        computed.
      place: folder for finished tiles; None keeps all in memory.
      mesh: the devices that share the tiles; None: all.
      pairs: at once on a device; 0: as many as its memory holds.

    Raises:
      UserError: neural-tangents is not installed, or a pair does not fit the memory.
      Interrupted: SIGTERM or SIGINT came; finished tiles are saved.
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
    mesh = devices.make_mesh() if mesh is None else mesh
    mesh = devices.make_mesh(devices=list(mesh.devices.flat))
    compute = _make_compute(config, kind, (a, b), mesh)
    inputs = devices.replicate((x1, x2), mesh)

    file = place / f"{kind}-{_digest(config, kind, x1, x2)}.npz" if place else None
    found = _saved(file, shape)
    tile = lambda i, j: (slice(i, i + a), slice(j, j + b))
    starts = [
        (i, j)
        for i in range(0, shape[0], a)
        for j in range(i if is_gram else 0, shape[1], b)
    ]
    left = [start for start in starts if np.isnan(found[tile(*start)]).any()]
    done = len(starts) - len(left)
    if done:
        _log.info("%d of %d tiles are there already", done, len(starts))
    bar = tqdm(total=len(starts), initial=done, desc=kind, unit="tile", disable=None)
    saved = time.monotonic()
    with deferred_signals() as stop_signal, bar:
        while left:
            now, left = left[: mesh.size], left[mesh.size :]
            # The last devices repeat a tile where there are fewer than devices.
            padded = (now * mesh.size)[: mesh.size]
            values = np.asarray(compute(np.array(padded, np.int32), *inputs))
            for start, value in zip(now, values[: len(now)], strict=True):
                own = found[tile(*start)]
                own[...] = value[: own.shape[0], : own.shape[1]]
            bar.update(len(now))
            stopping, late = stop_signal(), time.monotonic() - saved > _SAVE_SECONDS
            if file and (stopping or late or not left):
                file.parent.mkdir(parents=True, exist_ok=True)
                save_npz(file, kernel=found)
                saved = time.monotonic()
            if stopping:
                raise Interrupted(stopping, len(starts) - len(left), "tile")
    return np.triu(found) + np.triu(found, 1).T if is_gram else found


def _make_compute(
    config: RandomNetworkConfig, kind: str, sides: tuple[int, int], mesh: Mesh
) -> jax.stages.Wrapped:
    """``(starts, x1, x2) -> tiles``: a tile a device, told by its first row and column.

    What lies beyond the matrix repeats its last row or column.
    """
    kernel = infinite_width.make_kernel(config, kind)

    def cut(x: Array, start: Array, side: int) -> Array:
        return x[jnp.minimum(start + jnp.arange(side), x.shape[0] - 1)]

    def tiles(starts: Int[Array, "k 2"], inputs: tuple[Array, Array]) -> Array:
        parts = lambda start: map(cut, inputs, start, sides)
        return lax.map(lambda start: kernel(*parts(start)), starts)

    by_rows = devices.shared_rows(tiles, mesh)
    return jax.jit(lambda starts, x1, x2: by_rows(starts, (x1, x2)))


def _digest(
    config: RandomNetworkConfig, kind: str, x1: np.ndarray, x2: np.ndarray
) -> str:
    """What tells one matrix from others: settings that the kernel knows, and inputs."""
    readout = "time_mean" if config.readout == "time_mean" else "flatten"
    own = (config.depth, config.weight_variance, config.bias_std, readout)
    text = repr((infinite_width.VERSION, kind, *own, x1.shape, x2.shape, x1 is x2))
    digest = hashlib.sha256(text.encode())
    for x in (x1, x2):
        digest.update(np.ascontiguousarray(x).tobytes())
    return digest.hexdigest()[:16]


def _saved(file: Path | None, shape: tuple[int, int]) -> Float[np.ndarray, "a b"]:
    """What is there of a matrix; the rest is NaN."""
    if file and file.exists():
        try:
            found = load_npz(file)["kernel"]
            if found.shape == shape and found.dtype == np.float32:
                return found
        except DAMAGE:
            _log.warning("%s is damaged and is computed again", file)
    return np.full(shape, np.nan, np.float32)
