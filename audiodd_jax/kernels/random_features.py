"""Monte Carlo estimate of the NNGP kernel from random convolutional networks.

Each of ``n`` networks maps an input to features phi_n(x), ``d`` numbers. The analytic
readouts (``flatten``, ``time_mean``) give

    k(x, x') = weight_variance / (n d) * sum_n phi_n(x) . phi_n(x') + bias_std^2,

the covariance of a dense layer on top with Gaussian weights and biases. The ``dense``
readout draws that layer, with m outputs, and averages its products:

    k(x, x') = 1 / (n m) * sum_n head_n(x) . head_n(x').

References:
  Loo et al., NeurIPS 2022, equation 5 and algorithm 1; Novak et al., *Bayesian Deep
  Convolutional Networks with Many Channels are Gaussian Processes*, ICLR 2019.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Key

from audiodd_jax.config import RandomNetworkConfig
from audiodd_jax.networks import random_conv
from audiodd_jax.runtime.memory import in_chunks


def network_keys(key: Key[Array, ""], num_networks: int) -> Key[Array, "n"]:
    """Folds one key per network by its index, so that keys do not depend on ``n``."""
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(num_networks))


def sample_networks(
    key: Key[Array, ""],
    num_networks: int,
    input_shape: tuple[int, int],
    config: RandomNetworkConfig,
    dtype: DTypeLike = jnp.float32,
) -> random_conv.ConvParams:
    """Draws ``n`` networks, stacked along a leading axis."""
    keys = network_keys(key, num_networks)
    return jax.vmap(lambda k: random_conv.init(k, input_shape, config, dtype))(keys)


def features(
    networks: random_conv.ConvParams,
    x: Float[Array, "b f t 1"],
    config: RandomNetworkConfig,
    chunk: int = 0,
) -> Float[Array, "n b d"]:
    """Computes features of ``x`` under every network, one network at a time.

    ``chunk`` inputs are processed at once, which bounds the first layer's memory; 0:
    all.
    """

    def network_features(params: random_conv.ConvParams) -> Array:
        return in_chunks(lambda rows: random_conv.apply(params, rows, config), x, chunk)

    return lax.map(network_features, networks)


def accumulate(
    phi_a: Float[Array, "a d"], phi_b: Float[Array, "b d"]
) -> Float[Array, "a b"]:
    """Computes a network's term of the kernel sum, in float32 or wider."""
    wide = jnp.promote_types(phi_a.dtype, jnp.float32)
    phi_a, phi_b = phi_a.astype(wide), phi_b.astype(wide)
    return jnp.dot(phi_a, phi_b.T, precision=lax.Precision.HIGHEST)


def scale_kernel(
    total: Float[Array, "a b"],
    n: Int[Array, ""] | int,
    d: int,
    config: RandomNetworkConfig,
) -> Float[Array, "a b"]:
    """Scales the sum over ``n`` networks of products of ``d`` features."""
    if config.readout == "dense":
        return total / (n * d)
    return config.weight_variance / (n * d) * total + config.bias_std**2


def kernel(
    phi_a: Float[Array, "n a d"],
    phi_b: Float[Array, "n b d"],
    config: RandomNetworkConfig,
) -> Float[Array, "a b"]:
    """Computes the kernel matrix of two sets of features of the same networks."""
    n, _, d = phi_a.shape
    total = jax.vmap(accumulate)(phi_a, phi_b).sum(0)
    return scale_kernel(total, n, d, config)
