"""The random convolutional network whose features approximate the NNGP kernel.

``depth`` blocks of [3x3 convolution, padding SAME, ReLU, 2x2 average pool] with
fresh Gaussian parameters and no normalisation layers, then a readout. Nothing here
is trained: a network is drawn, used for one step and dropped.

References:
  Loo, Hasani, Amini, Rus, *Efficient Dataset Distillation Using Random Feature
  Approximation*, NeurIPS 2022, section 3.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Key

from audiodd_jax.config import RandomNetworkConfig
from audiodd_jax.ops import convolution, winograd
from audiodd_jax.ops import precision as precision_lib
from audiodd_jax.ops.pooling import POOL, average_pool, spread
from audiodd_jax.runtime.errors import UserError


class ConvParams(NamedTuple):
    """Parameters of one random network (or of ``n``, stacked in front).

    Attributes:
      kernels: one ``[3, 3, channels_in, width]`` array a block.
      biases: one ``[width]`` array a block.
      head_kernel: ``[d, output_dim]`` for the dense readout, else None.
      head_bias: ``[output_dim]`` for the dense readout, else None.
    """

    kernels: tuple[Float[Array, "*n 3 3 channels_in width"], ...]
    biases: tuple[Float[Array, "*n width"], ...]
    head_kernel: Float[Array, "*n d m"] | None = None
    head_bias: Float[Array, "*n m"] | None = None


def feature_map_shape(
    input_shape: tuple[int, int], config: RandomNetworkConfig
) -> tuple[int, int]:
    """Shape ``(f', t')`` of the last block's output for ``(f, t)`` inputs.

    Raises:
      UserError: the spectrogram is smaller than the pooling of all blocks.
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
    """Number of features ``d`` that one network returns for ``(f, t)`` inputs."""
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

    Args:
      key: typed PRNG key.
      input_shape: ``(f, t)`` of the one-channel inputs.
      config: depth, width, readout and variances.
      dtype: of the parameters.
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


def _pooled(
    x: Float[Array, "b f t channels_in"],
    kernel: Float[Array, "3 3 channels_in w"],
    bias: Float[Array, " w"],
    precision: str,
    with_open: bool,
) -> tuple[Float[Array, "b f2 t2 w"], Bool[Array, "b f3 t3 w"] | None]:
    """Convolution, ReLU and average pool, and where the ReLU is open if asked for."""
    kept = precision_lib.dtype(precision, x.dtype)
    f, t = (side // POOL * POOL for side in x.shape[1:3])

    def finish(activation: Array) -> tuple[Array, Array | None]:
        pooled = average_pool(jax.nn.relu(activation)).astype(kept)
        return pooled, (activation > 0)[:, :f, :t] if with_open else None

    def on_cpu(x: Array, kernel: Array, bias: Array) -> tuple[Array, Array | None]:
        x, kernel = (precision_lib.rounded(a, precision) for a in (x, kernel))
        if not winograd.pays(x, kernel):
            highest = lax.Precision.HIGHEST
            return finish(convolution.convolve(x, kernel, precision=highest) + bias)
        pooled, is_open = winograd.pooled(x, kernel, bias, with_open)
        return pooled.astype(kept), is_open

    def elsewhere(x: Array, kernel: Array, bias: Array) -> tuple[Array, Array | None]:
        x, kernel = (precision_lib.operand(a, precision) for a in (x, kernel))
        products = precision_lib.PRECISIONS[precision].products
        return finish(convolution.convolve(x, kernel, precision=products) + bias)

    return lax.platform_dependent(x, kernel, bias, cpu=on_cpu, default=elsewhere)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _block(
    x: Float[Array, "b f t channels_in"],
    kernel: Float[Array, "3 3 channels_in w"],
    bias: Float[Array, " w"],
    precision: str,
) -> Float[Array, "b f2 t2 w"]:
    """Convolution, ReLU and average pool; differentiable once, in ``x``.

    What the backward pass keeps is one byte an activation: where the ReLU is open.
    """
    return _pooled(x, kernel, bias, precision, False)[0]


def _block_forward(x, kernel, bias, precision):
    pooled, is_open = _pooled(x, kernel, bias, precision, True)
    # An array without an element, for its shape and type alone.
    like = jnp.zeros((0, *x.shape[1:3]), x.dtype)
    return pooled, (is_open, kernel, bias, like)


def _block_backward(precision, residuals, ct):
    is_open, kernel, bias, like = residuals
    (f, t), (f3, t3) = like.shape[1:3], is_open.shape[1:3]
    ct = jnp.where(is_open, spread(ct, (f3, t3)), 0)
    if (f, t) != (f3, t3):
        ct = jnp.pad(ct, ((0, 0), (0, f - f3), (0, t - t3), (0, 0)))

    def on_cpu(ct: Array, kernel: Array) -> Array:
        ct, kernel = (precision_lib.rounded(a, precision) for a in (ct, kernel))
        highest = lax.Precision.HIGHEST
        grad = convolution.input_gradient(ct, kernel, (f, t), precision=highest)
        return grad.astype(like.dtype)

    def elsewhere(ct: Array, kernel: Array) -> Array:
        ct, kernel = (precision_lib.operand(a, precision) for a in (ct, kernel))
        products = precision_lib.PRECISIONS[precision].products
        grad = convolution.input_gradient(
            ct, kernel, (f, t), precision=products, on_cpu=False
        )
        return grad.astype(like.dtype)

    grad = lax.platform_dependent(ct, kernel, cpu=on_cpu, default=elsewhere)
    return grad, jnp.zeros_like(kernel), jnp.zeros_like(bias)


_block.defvjp(_block_forward, _block_backward)


def apply(
    params: ConvParams, x: Float[Array, "b f t 1"], config: RandomNetworkConfig
) -> Float[Array, "b d"]:
    """Features of ``x`` under one network, not yet scaled by ``1/sqrt(n d)``.

    Differentiable in ``x``; the parameters are drawn, never learnt, and carry no
    gradient.

    Readouts: ``flatten`` keeps the whole last feature map, ``time_mean`` averages it
    over time, ``dense`` applies the random head of ``output_dim`` outputs.
    """
    feature_map_shape(x.shape[1:3], config)  # refuses what pooling would empty
    params = lax.stop_gradient(params)
    for kernel, bias in zip(params.kernels, params.biases, strict=True):
        x = _block(x, kernel, bias, config.precision)
    dtype, wide = x.dtype, jnp.promote_types(x.dtype, jnp.float32)
    if config.readout == "time_mean":
        # As a product: XLA:CPU fuses a mean with the pooling before it, into a loop
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
