"""One mesh for everything that runs on several devices.

Its axes are ``networks`` and ``batch``. Programs are jitted as for one device, with
replicated arrays; only functions that share work (``kernels.random_kernels``,
``shard_rows``, ``map_slots``, ``map_networks``) are mapped over the mesh. On one device
they contain no collectives.
"""

import contextlib
import contextvars
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import mesh_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding
from jaxtyping import Array, Bool, Int, Shaped

from audiodd_jax.errors import UserError

NETWORKS, BATCH = "networks", "batch"
# The least fraction of devices with a network to work on. Below it, sharing the batch
# costs less than idle devices.
_BUSY = 0.6

# The number of devices in use; None: all.
_limit: contextvars.ContextVar[int | None] = contextvars.ContextVar(
    "limit", default=None
)


def limit(count: int) -> None:
    """Restricts later meshes to the first ``count`` devices.

    Raises:
      UserError: there are fewer devices.
    """
    available = len(jax.devices())
    if not 1 <= count <= available:
        raise UserError(
            f"--num_devices must be 1 to {available} on this machine, not {count}"
        )
    if jax.process_count() > 1 and count != available:
        raise UserError(
            f"a run of several processes uses all of its {available} devices, "
            f"not {count}"
        )
    _limit.set(count)


class Share(NamedTuple):
    """This device's shard of the indices ``0 .. count - 1``.

    Attributes:
      numbers: the indices; the same number on every device.
      is_own: False for padding; None: no padding.
    """

    numbers: Int[Array, " share"]
    is_own: Bool[Array, " share"] | None


class Grid(NamedTuple):
    """The numbers of devices that share the networks and the batch."""

    networks: int = 1
    batch: int = 1

    def share(self, axis: str, count: int) -> Share:
        """Returns this device's shard of ``count`` indices along an axis."""
        size = getattr(self, axis)
        slots = -(-count // size)
        if size == 1:
            return Share(jnp.arange(count), None)
        numbers = lax.axis_index(axis) * slots + jnp.arange(slots)
        is_own = None if slots * size == count else numbers < count
        return Share(jnp.minimum(numbers, count - 1), is_own)

    def gather(
        self, rows: Shaped[Array, "share *rest"], axis: str, count: int
    ) -> Shaped[Array, "count *rest"]:
        """Gathers all ``count`` rows from the shards along an axis."""
        if getattr(self, axis) == 1:
            return rows
        return lax.all_gather(rows, axis, tiled=True)[:count]


def choose_grid(devices: int, networks: int) -> Grid:
    """Chooses the grid with the most devices along the networks axis and few idle.

    That axis exchanges kernels only; the batch axis exchanges features, and has the
    remaining devices.
    """
    for size in range(devices, 0, -1):
        busy = networks / (size * -(-networks // size))
        if devices % size == 0 and busy >= _BUSY:
            return Grid(size, devices // size)
    return Grid(1, devices)


def make_mesh(
    networks: int = 1,
    devices: Sequence[jax.Device] | None = None,
    grid: Grid | None = None,
) -> Mesh:
    """Makes the mesh on which devices share networks and batches.

    Args:
      networks: number of networks to share; 1: all devices share the batch.
      devices: None: those of all processes, up to ``limit``.
      grid: None: chosen by ``choose_grid``.

    Raises:
      UserError: the grid has another number of devices.
    """
    devices = jax.devices()[: _limit.get()] if devices is None else list(devices)
    grid = grid or choose_grid(len(devices), networks)
    if grid.networks * grid.batch != len(devices):
        raise UserError(
            f"a grid of {grid.networks} x {grid.batch} does not fit {len(devices)} "
            "devices"
        )
    return Mesh(_arranged(devices, grid), (NETWORKS, BATCH))


def _arranged(devices: Sequence[jax.Device], grid: Grid) -> np.ndarray:
    """Arranges devices so that neighbours on a TPU's torus are next to each other."""
    if len(devices) > 1 and devices[0].platform == "tpu":
        with contextlib.suppress(ValueError, NotImplementedError):
            return mesh_utils.create_device_mesh(tuple(grid), devices=devices)
    return np.array(devices).reshape(grid)


def grid_of(mesh: Mesh) -> Grid:
    """Returns the sizes of a mesh's axes."""
    return Grid(mesh.shape[NETWORKS], mesh.shape[BATCH])


def padded_rows(x: Shaped[Array, "rows *rest"], size: int) -> Shaped[Array, "..."]:
    """Pads rows with copies of the last one to a multiple of ``size``."""
    count = x.shape[0]
    padded = -(-count // size) * size
    return x if padded == count else x[jnp.minimum(jnp.arange(padded), count - 1)]


def shard_rows(
    function: Callable[[Array, Any], Array], mesh: Mesh | None
) -> Callable[[Array, Any], Array]:
    """Maps a row-wise ``function(x, y)`` over a mesh.

    Devices along the batch axis share the rows of ``x``; each has all of ``y``.

    Args:
      function: takes an array and a pytree; each row of its result depends on one row
        of ``x``.
      mesh: None: one device.
    """
    return _share_rows(function, mesh, BATCH)


def map_slots(
    function: Callable[[Any, Any], Any], mesh: Mesh | None
) -> Callable[[Any, Any], Any]:
    """Maps ``function(slot, shared)`` over the rows of stacked arrays and a mesh.

    Devices along the networks axis share the rows; each device processes its rows one
    by one.

    Args:
      function: takes one row of the stacked arrays, and shared arrays.
      mesh: None: one device.
    """

    def map_own(stacked: Any, shared: Any) -> Any:
        return lax.map(lambda slot: function(slot, shared), stacked)

    return _share_rows(map_own, mesh, NETWORKS)


def _share_rows(
    function: Callable[[Any, Any], Any], mesh: Mesh | None, axis: str
) -> Callable[[Any, Any], Any]:
    """Divides the rows of ``function``'s first argument along an axis of the mesh."""
    if mesh is None or mesh.size == 1:
        return function
    mapped = jax.shard_map(
        function,
        mesh=mesh,
        in_specs=(PartitionSpec(axis), PartitionSpec()),
        out_specs=PartitionSpec(axis),
        check_vma=False,
    )
    size = mesh.shape[axis]

    def map_padded(stacked: Any, shared: Any) -> Any:
        count = jax.tree.leaves(stacked)[0].shape[0]
        rows = jax.tree.map(lambda x: padded_rows(x, size), stacked)
        return jax.tree.map(lambda y: y[:count], mapped(rows, shared))

    return map_padded


def map_networks(mesh: Mesh, function: Callable[..., Any]) -> Callable[..., Any]:
    """Maps ``function(stacked, shared)`` over the networks axis: a shard per device.

    Sharding along the batch axis is left to the compiler (``constrain_batch``).

    Args:
      mesh: its networks axis divides the length of the stacked arrays.
      function: returns stacked arrays.
    """
    if mesh.size == 1:
        return function
    return jax.shard_map(
        function,
        mesh=mesh,
        in_specs=(PartitionSpec(NETWORKS), PartitionSpec()),
        out_specs=PartitionSpec(NETWORKS),
        axis_names={NETWORKS},
        check_vma=False,
    )


def constrain_batch(mesh: Mesh, tree: Any) -> Any:
    """Constrains rows to be sharded along the batch axis, if they divide evenly."""
    size = mesh.shape[BATCH]

    def constrain(x: Array) -> Array:
        if size == 1 or x.shape[0] % size:
            return x
        sharding = NamedSharding(mesh, PartitionSpec(BATCH))
        return lax.with_sharding_constraint(x, sharding)

    return jax.tree.map(constrain, tree)


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of replicated arrays."""
    return NamedSharding(mesh, PartitionSpec())


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Puts a copy of every array on every device of a mesh."""
    sharding = replicated(mesh)
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)
    copies = jax.tree.map(lambda x: from_host(x, sharding), host_words(tree))
    return with_keys(copies, tree)


def from_host(x: np.ndarray, sharding: Sharding) -> Array:
    """Puts an array that all processes have on the devices of a sharding."""
    return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])


def is_key(x: Any) -> bool:
    """Returns whether this is an array of typed keys."""
    return isinstance(x, Array) and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def key_words(tree: Any) -> Any:
    """Replaces typed keys by their raw words."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, tree)


def host_words(tree: Any) -> Any:
    """Copies arrays to NumPy, typed keys as their raw words."""
    return jax.tree.map(np.asarray, jax.device_get(key_words(tree)))


def with_keys(words: Any, like: Any) -> Any:
    """Turns raw words back into typed keys where ``like`` has them."""

    def wrap(x: Array, like: Any) -> Array:
        if not is_key(like):
            return x
        return jax.random.wrap_key_data(x, impl=jax.random.key_impl(like))

    return jax.tree.map(wrap, words, like)
