"""The random convolutional network whose features approximate the NNGP kernel.

``depth`` blocks of [3x3 convolution, padding SAME, ReLU, 2x2 average pool] with
Gaussian parameters and no normalisation layers, then a readout. These networks are not
trained: each is drawn, used for one step and dropped.

References:
  Loo, Hasani, Amini, Rus, *Efficient Dataset Distillation Using Random Feature
  Approximation*, NeurIPS 2022, section 3.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from audiodd_jax.config import RandomNetworkConfig
from audiodd_jax.errors import UserError
from audiodd_jax.networks import precision as precision_lib
from audiodd_jax.networks import random_block
from audiodd_jax.networks.pooling import POOL


class ConvParams(NamedTuple):
    """Parameters of one random network, or of ``n`` stacked along a leading axis.

    There is a kernel and a bias per block, and a head for the dense readout only.
    """

    kernels: tuple[Float[Array, "*n 3 3 channels_in width"], ...]
    biases: tuple[Float[Array, "*n width"], ...]
    head_kernel: Float[Array, "*n d m"] | None = None
    head_bias: Float[Array, "*n m"] | None = None


def feature_map_shape(
    input_shape: tuple[int, int], config: RandomNetworkConfig
) -> tuple[int, int]:
    """Returns the shape ``(f', t')`` of the last block's output for ``(f, t)`` inputs.

    Raises:
      UserError: pooling in all blocks leaves nothing of the spectrogram.
    """
    f, t = (side // POOL**config.depth for side in input_shape)
    if f < 1 or t < 1:
        raise UserError(
            f"a spectrogram of {input_shape[0]} mel bins x {input_shape[1]} frames is "
            f"too small for {config.depth} poolings by {POOL}; lower "
            "--config.network.depth or raise the feature size"
        )
    return f, t


def num_features(input_shape: tuple[int, int], config: RandomNetworkConfig) -> int:
    """Returns the number of features ``d`` of one network for ``(f, t)`` inputs."""
    if config.readout == "dense":
        return config.output_dim
    f, t = feature_map_shape(input_shape, config)
    return config.width * (f if config.readout == "time_mean" else f * t)


def init(
    key: Key[Array, ""],
    input_shape: tuple[int, int],
    config: RandomNetworkConfig,
    dtype: DTypeLike = jnp.float32,
) -> ConvParams:
    """Draws one network: kernels ~ N(0, weight_variance/fan_in), biases ~ N(0, std^2).

    ``input_shape`` is ``(f, t)`` of the one-channel inputs.
    """
    kernels, biases = [], []
    channels = 1
    for layer_key in jax.random.split(jax.random.fold_in(key, 0), config.depth):
        kernel_key, bias_key = jax.random.split(layer_key)
        std = (config.weight_variance / (9 * channels)) ** 0.5
        shape = (3, 3, channels, config.width)
        kernels.append(std * jax.random.normal(kernel_key, shape, dtype))
        biases.append(
            config.bias_std * jax.random.normal(bias_key, (config.width,), dtype)
        )
        channels = config.width
    params = ConvParams(tuple(kernels), tuple(biases))
    if config.readout != "dense":
        return params
    f, t = feature_map_shape(input_shape, config)
    d = config.width * f * t
    kernel_key, bias_key = jax.random.split(jax.random.fold_in(key, 1))
    std = (config.weight_variance / d) ** 0.5
    return params._replace(
        head_kernel=std * jax.random.normal(kernel_key, (d, config.output_dim), dtype),
        head_bias=config.bias_std
        * jax.random.normal(bias_key, (config.output_dim,), dtype),
    )


def apply(
    params: ConvParams, x: Float[Array, "b f t 1"], config: RandomNetworkConfig
) -> Float[Array, "b d"]:
    """Computes features of ``x`` under one network, not scaled by ``1/sqrt(n d)``.

    Differentiable in ``x``; no gradient flows to the parameters.

    Readouts: ``flatten`` returns the whole last feature map, ``time_mean`` its mean
    over time, and ``dense`` the ``output_dim`` outputs of the random head.
    """
    feature_map_shape(x.shape[1:3], config)  # raises where pooling leaves nothing
    params = lax.stop_gradient(params)
    for kernel, bias in zip(params.kernels, params.biases, strict=True):
        x = random_block.block(x, kernel, bias, config.precision)
    dtype, wide = x.dtype, jnp.promote_types(x.dtype, jnp.float32)
    if config.readout == "time_mean":
        # As a product: XLA:CPU would fuse a mean with the pooling before it into a loop
        # that takes twice as long as the rest of the network.
        share = jnp.full((x.shape[2],), 1.0 / x.shape[2], wide)
        x = jnp.einsum(
            "bftw,t->bfw", x.astype(wide), share, precision=lax.Precision.HIGHEST
        ).astype(dtype)
    x = x.reshape(x.shape[0], -1)
    if params.head_kernel is None:
        return x
    head = jnp.dot(
        precision_lib.operand(x, config.precision),
        precision_lib.operand(params.head_kernel, config.precision),
        precision=precision_lib.PRECISIONS[config.precision].products,
        preferred_element_type=wide,
    )
    return (head + params.head_bias).astype(dtype)
