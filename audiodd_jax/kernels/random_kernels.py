"""Monte Carlo estimate of the NNGP kernel from random convolutional networks.

Each of ``n`` networks maps an input to features phi_n(x), ``d`` numbers. The analytic
readouts (``flatten``, ``time_mean``) give

    k(x, x') = weight_variance / (n d) * sum_n phi_n(x) . phi_n(x') + bias_std^2,

the covariance of a dense layer on top with Gaussian weights and biases. The ``dense``
readout draws that layer, with m outputs, and averages its products:

    k(x, x') = 1 / (n m) * sum_n head_n(x) . head_n(x').

``make`` returns a plain function of arrays, ``kernels(key, x_b, x_s) -> (k_bs, k_ss)``,
which can be differentiated in ``x_s``. Inside, devices share the networks and the rows
of the batch: each draws its networks and sums their products, and the sums are added.

References:
  Loo et al., NeurIPS 2022, equation 5 and algorithm 1; Novak et al., *Bayesian Deep
  Convolutional Networks with Many Channels are Gaussian Processes*, ICLR 2019.
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


KernelFunction = Callable[
    [Key[Array, ""], Float[Array, "b f t 1"], Float[Array, "s f t 1"]], Kernels
]

_ONE_DEVICE, _PLAN = Grid(), Plan()


def sample_networks(
    key: Key[Array, ""],
    num_networks: int,
    input_shape: tuple[int, int],
    config: RandomNetworkConfig,
) -> random_conv.ConvParams:
    """Draws ``n`` networks, stacked along a leading axis.

    Their keys are folded by index, so that they do not depend on ``n``.
    """

    def draw(number: Int[Array, ""]) -> random_conv.ConvParams:
        return random_conv.init(jax.random.fold_in(key, number), input_shape, config)

    return jax.vmap(draw)(jnp.arange(num_networks))


def features(
    networks: random_conv.ConvParams,
    x: Float[Array, "b f t 1"],
    config: RandomNetworkConfig,
) -> Float[Array, "n b d"]:
    """Computes features of ``x`` under every network, one network at a time."""
    return lax.map(lambda params: random_conv.apply(params, x, config), networks)


def accumulate(
    phi_a: Float[Array, "a d"], phi_b: Float[Array, "b d"]
) -> Float[Array, "a b"]:
    """Computes a network's term of the kernel sum, in float32 or wider."""
    wide = jnp.promote_types(phi_a.dtype, jnp.float32)
    phi_a, phi_b = phi_a.astype(wide), phi_b.astype(wide)
    return jnp.dot(phi_a, phi_b.T, precision=lax.Precision.HIGHEST)


def scale_kernel(
    total: Float[Array, "a b"], n: int, d: int, config: RandomNetworkConfig
) -> Float[Array, "a b"]:
    """Scales the sum over ``n`` networks of products of ``d`` features."""
    if config.readout == "dense":
        return total / (n * d)
    return config.weight_variance / (n * d) * total + config.bias_std**2


def make(
    network: RandomNetworkConfig,
    num_networks: int,
    *,
    precision: DTypeLike = jnp.float32,
    plan: Plan = _PLAN,
    mesh: Mesh | None = None,
) -> KernelFunction:
    """Returns the kernel function of ``num_networks`` networks drawn from its key.

    ``precision`` is the least precision of the kernels. The devices of ``mesh`` share
    the work; None: one device.
    """

    def sums(key: Key[Array, ""], x_b: Array, x_s: Array, grid: Grid) -> Kernels:
        shape = x_b.shape[1:3]
        draw = lambda number: random_conv.init(
            jax.random.fold_in(key, number), shape, network, x_b.dtype
        )
        numbers = grid.share(NETWORKS, num_networks)
        wide = jnp.promote_types(x_s.dtype, precision)
        return network_sums(draw, numbers, x_b, x_s, network, wide, plan, grid)

    return average(sums, network, num_networks, mesh)


def average(
    sums: Callable[[Key[Array, ""], Array, Array, Grid], Kernels],
    network: RandomNetworkConfig,
    num_networks: int,
    mesh: Mesh | None,
) -> KernelFunction:
    """Maps ``sums`` over a mesh, adds the results of the devices, and scales them.

    ``sums(key, x_b, x_s, grid)`` are those over a device's share of the networks, for
    its share of the batch. The sum over devices is outside the mapped function: its
    transpose is then a broadcast, and the backward pass exchanges only the coreset's
    gradient.
    """

    def on_devices(key: Key[Array, ""], x_b: Array, x_s: Array) -> Kernels:
        if mesh is None or mesh.size == 1:
            return sums(key, x_b, x_s, _ONE_DEVICE)
        grid = grid_of(mesh)
        mapped = jax.shard_map(
            lambda *shares: jax.tree.map(lambda k: k[None], sums(*shares, grid)),
            mesh=mesh,
            in_specs=(PartitionSpec(), PartitionSpec(BATCH), PartitionSpec()),
            out_specs=Kernels(PartitionSpec(NETWORKS, BATCH), PartitionSpec(NETWORKS)),
            check_vma=False,
        )
        bs, ss = (k.sum(0) for k in mapped(key, padded_rows(x_b, grid.batch), x_s))
        return Kernels(bs[: x_b.shape[0]], ss)

    def kernels(key: Key[Array, ""], x_b: Array, x_s: Array) -> Kernels:
        total = on_devices(key, x_b, x_s)
        d = random_conv.num_features(x_b.shape[1:3], network)
        return Kernels(*(scale_kernel(k, num_networks, d, network) for k in total))

    return kernels


def add_kernels(
    sums: Kernels, products: Kernels, is_own: Bool[Array, ""] | None
) -> Kernels:
    """Adds a network's kernels, in the type of the sums, unless it is padding."""
    if is_own is not None:
        products = jax.tree.map(lambda k: jnp.where(is_own, k, 0), products)
    return jax.tree.map(lambda a, b: a + b.astype(a.dtype), sums, products)


def network_sums(
    draw: Callable[[Int[Array, ""]], random_conv.ConvParams],
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
      draw: draws a network by its number.
      numbers: the device's share of the networks' numbers (``Grid.share``).
      x_b: this device's rows of the batch; ``x_s`` is the whole coreset.
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
        bs, ss = (accumulate(p, phi_s) for p in (phi_b, phi_s))
        return add_kernels(sums, Kernels(bs, ss), is_own), None

    # The backward pass recomputes the coreset's features, which costs little. In chunks
    # they would be computed a third time, unless they are kept.
    names = ("phi_b", "phi_s") if plan.coreset_chunk else ("phi_b",)
    kept = names if plan.keeps == "features" else ()
    policy = jax.checkpoint_policies.save_only_these_names(*kept)
    add_network = jax.checkpoint(add_network, policy=policy)
    zeros = Kernels(jnp.zeros((x_b.shape[0], s), dtype), jnp.zeros((s, s), dtype))
    return lax.scan(add_network, zeros, numbers)[0]
