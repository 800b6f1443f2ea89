"""Kernels of a batch and a coreset under fresh random networks, over all devices.

``make`` returns a plain function of arrays, ``kernels(key, x_b, x_s) -> (k_bs, k_ss)``,
which can be differentiated in ``x_s``. Inside, devices share the networks and the rows
of the batch: each draws its networks and sums their products, and the sums are added.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh, PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Key

from audiodd_jax.config import RandomNetworkConfig
from audiodd_jax.kernels import random_features
from audiodd_jax.networks import random_conv
from audiodd_jax.runtime.devices import BATCH, NETWORKS, Grid, grid_of, padded_rows
from audiodd_jax.runtime.memory import in_chunks


class Plan(NamedTuple):
    """Memory plan of a step.

    Attributes:
      chunk: batch rows that a network processes at once; 0: all.
      coreset_chunk: coreset rows that a network processes at once; 0: all.
      keeps: ``features``: the batch's features are kept for the backward pass;
        ``nothing``: they are recomputed. The coreset's features are always recomputed,
        network by network.
    """

    chunk: int = 0
    coreset_chunk: int = 0
    keeps: str = "features"


class Kernels(NamedTuple):
    """Kernels of ridge regression: batch by coreset, and coreset by coreset."""

    bs: Float[Array, "b s"]
    ss: Float[Array, "s s"]


# Draws a network by its number.
Draw = Callable[[Int[Array, ""]], random_conv.ConvParams]
KernelFunction = Callable[
    [Key[Array, ""], Float[Array, "b f t 1"], Float[Array, "s f t 1"]], Kernels
]

_ONE_DEVICE, _PLAN = Grid(), Plan()


def make(
    network: RandomNetworkConfig,
    num_networks: int,
    *,
    precision: DTypeLike = jnp.float32,
    plan: Plan = _PLAN,
    mesh: Mesh | None = None,
) -> KernelFunction:
    """Returns the kernel function of ``num_networks`` networks drawn from its key.

    Args:
      precision: least precision of the kernels.
      mesh: devices that share the work; None: one device.
    """

    def sums(key: Key[Array, ""], x_b: Array, x_s: Array, grid: Grid) -> Kernels:
        shape = x_b.shape[1:3]
        draw = lambda number: random_conv.init(
            jax.random.fold_in(key, number), shape, network, x_b.dtype
        )
        numbers = grid.share(NETWORKS, num_networks)
        wide = jnp.promote_types(x_s.dtype, precision)
        return network_sums(draw, numbers, x_b, x_s, network, wide, plan, grid)

    def kernels(key: Key[Array, ""], x_b: Array, x_s: Array) -> Kernels:
        total = sum_over_devices(sums, mesh)(key, x_b, x_s)
        d = random_conv.num_features(x_b.shape[1:3], network)
        scaled = (
            random_features.scale_kernel(k, num_networks, d, network) for k in total
        )
        return Kernels(*scaled)

    return kernels


def sum_over_devices(
    sums: Callable[[Key[Array, ""], Array, Array, Grid], Kernels], mesh: Mesh | None
) -> KernelFunction:
    """Maps ``sums`` over a mesh and adds the results of the devices.

    The sum over devices is outside the mapped function: its transpose is then a
    broadcast, and the backward pass exchanges only the coreset's gradient.

    Args:
      sums: maps ``(key, x_b, x_s, grid)`` to the sums over a device's share of the
        networks, for its share of the batch.
    """
    if mesh is None or mesh.size == 1:
        return lambda key, x_b, x_s: sums(key, x_b, x_s, _ONE_DEVICE)
    grid = grid_of(mesh)

    def device_sums(key: Key[Array, ""], x_b: Array, x_s: Array) -> Kernels:
        return jax.tree.map(lambda k: k[None], sums(key, x_b, x_s, grid))

    mapped = jax.shard_map(
        device_sums,
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec(BATCH), PartitionSpec()),
        out_specs=Kernels(PartitionSpec(NETWORKS, BATCH), PartitionSpec(NETWORKS)),
        check_vma=False,
    )

    def total(key: Key[Array, ""], x_b: Array, x_s: Array) -> Kernels:
        bs, ss = (k.sum(0) for k in mapped(key, padded_rows(x_b, grid.batch), x_s))
        return Kernels(bs[: x_b.shape[0]], ss)

    return total


def add_kernels(
    sums: Kernels, products: Kernels, is_own: Bool[Array, ""] | None
) -> Kernels:
    """Adds a network's kernels, in the type of the sums, unless it is padding."""
    if is_own is not None:
        products = jax.tree.map(lambda k: jnp.where(is_own, k, 0), products)
    return jax.tree.map(lambda a, b: a + b.astype(a.dtype), sums, products)


def network_sums(
    draw: Draw,
    numbers: Any,
    x_b: Float[Array, "b f t 1"],
    x_s: Float[Array, "s f t 1"],
    network: RandomNetworkConfig,
    dtype: DTypeLike = jnp.float32,
    plan: Plan = _PLAN,
    grid: Grid = _ONE_DEVICE,
) -> Kernels:
    """Sums the products of features over networks, not yet scaled.

    The features of ``x_b`` carry no gradient.

    Args:
      numbers: the device's share of the networks' numbers (``Grid.share``).
      x_b: this device's rows of the batch.
      x_s: the whole coreset.
      dtype: type of the sums.
      grid: devices that share the coreset's rows.
    """
    s = x_s.shape[0]
    shared_s = x_s[grid.share(BATCH, s).numbers] if grid.batch > 1 else x_s

    def add_network(sums: Kernels, slot: Any) -> tuple[Kernels, None]:
        number, is_own = slot
        params = draw(number)
        phi = lambda x: random_conv.apply(params, x, network)
        phi_b = lax.stop_gradient(in_chunks(phi, x_b, plan.chunk))
        part = jax.checkpoint(phi) if plan.coreset_chunk else phi
        phi_s = grid.gather(in_chunks(part, shared_s, plan.coreset_chunk), BATCH, s)
        phi_b, phi_s = checkpoint_name(phi_b, "phi_b"), checkpoint_name(phi_s, "phi_s")
        bs, ss = (random_features.accumulate(p, phi_s) for p in (phi_b, phi_s))
        return add_kernels(sums, Kernels(bs, ss), is_own), None

    # The backward pass recomputes the coreset's features, which costs little. In chunks
    # they would be computed a third time, unless they are kept.
    names = ("phi_b", "phi_s") if plan.coreset_chunk else ("phi_b",)
    kept = names if plan.keeps == "features" else ()
    policy = jax.checkpoint_policies.save_only_these_names(*kept)
    add_network = jax.checkpoint(add_network, policy=policy)
    zeros = Kernels(jnp.zeros((x_b.shape[0], s), dtype), jnp.zeros((s, s), dtype))
    return lax.scan(add_network, zeros, numbers)[0]
