"""One mesh for everything that runs on several devices.

Its axes are ``networks`` and ``batch``. Programs are jitted as for one device, with
replicated arrays; only functions that share work (``kernels.random_kernels``,
``shard_rows``, ``map_networks``) are mapped over the mesh. On one device they contain
no collectives.
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
_limit = contextvars.ContextVar("limit", default=None)


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
    """This device's shard of the indices ``0 .. count - 1``, as many on every device.

    ``is_own`` is False for padding; None: no padding.
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

    ``devices`` None: those of all processes, up to ``limit``. ``grid`` None: that of
    ``choose_grid`` for a number of ``networks``.

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
    arranged = np.array(devices).reshape(grid)
    if len(devices) > 1 and devices[0].platform == "tpu":
        # Neighbours on the torus are next to each other.
        with contextlib.suppress(ValueError, NotImplementedError):
            arranged = mesh_utils.create_device_mesh(tuple(grid), devices=devices)
    return Mesh(arranged, (NETWORKS, BATCH))


def grid_of(mesh: Mesh) -> Grid:
    """Returns the sizes of a mesh's axes."""
    return Grid(mesh.shape[NETWORKS], mesh.shape[BATCH])


def padded_rows(x: Shaped[Array, "rows *rest"], size: int) -> Shaped[Array, "..."]:
    """Pads rows with copies of the last one to a multiple of ``size``."""
    count = x.shape[0]
    padded = -(-count // size) * size
    return x if padded == count else x[jnp.minimum(jnp.arange(padded), count - 1)]


def shard_rows(
    function: Callable[[Any, Any], Any], mesh: Mesh | None, axis: str = BATCH
) -> Callable[[Any, Any], Any]:
    """Maps ``function(x, y)``, whose rows each depend on one row of ``x``, over a mesh.

    Devices along an axis share the rows; each has all of ``y``. None: one device.
    """
    if mesh is None or mesh.size == 1:
        return function
    mapped = jax.shard_map(
        function,
        mesh=mesh,
        in_specs=(PartitionSpec(axis), PartitionSpec()),
        out_specs=PartitionSpec(axis),
        check_vma=False,
    )

    def map_padded(x: Any, y: Any) -> Any:
        count = jax.tree.leaves(x)[0].shape[0]
        rows = jax.tree.map(lambda x: padded_rows(x, mesh.shape[axis]), x)
        return jax.tree.map(lambda x: x[:count], mapped(rows, y))

    return map_padded


def map_networks(mesh: Mesh, function: Callable[..., Any]) -> Callable[..., Any]:
    """Maps ``function(stacked, shared)`` over the networks axis: a shard per device.

    That axis divides the length of the stacked arrays, also of the results. Sharding
    along the batch axis is left to the compiler (``constrain_batch``).
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
    size, sharding = mesh.shape[BATCH], NamedSharding(mesh, PartitionSpec(BATCH))

    def constrain(x: Array) -> Array:
        is_shared = size > 1 and x.shape[0] % size == 0
        return lax.with_sharding_constraint(x, sharding) if is_shared else x

    return jax.tree.map(constrain, tree)


def spread(rows: Shaped[Array | np.ndarray, "b *rest"]) -> Shaped[Array, "b *rest"]:
    """Divides rows between all devices, if they divide evenly."""
    mesh = make_mesh()
    axis = BATCH if rows.shape[0] % mesh.size == 0 else None
    return jax.device_put(rows, NamedSharding(mesh, PartitionSpec(axis)))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of replicated arrays."""
    return NamedSharding(mesh, PartitionSpec())


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Puts a copy of every array on every device of a mesh."""
    sharding = replicated(mesh)
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)
    return from_host(host_words(tree), tree, sharding)


def host_words(tree: Any) -> Any:
    """Copies arrays to NumPy, typed keys as their raw words."""
    words = jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, tree)
    return jax.tree.map(np.asarray, jax.device_get(words))


def from_host(words: Any, like: Any, sharding: Sharding | None = None) -> Any:
    """Puts ``host_words`` of ``like``, which all processes have, on devices.

    ``sharding`` None: that of each array in ``like``.
    """

    def place(x: np.ndarray, like: Any) -> Array:
        is_key = _is_key(like)
        where = sharding or (jax.random.key_data(like) if is_key else like).sharding
        placed = jax.make_array_from_callback(x.shape, where, lambda index: x[index])
        if is_key:
            return jax.random.wrap_key_data(placed, impl=jax.random.key_impl(like))
        return placed

    return jax.tree.map(place, words, like)


def _is_key(x: Any) -> bool:
    return isinstance(x, Array) and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
