"""The random convolutional network whose features approximate the NNGP kernel.

``depth`` blocks of [3x3 convolution, padding SAME, ReLU, 2x2 average pool] with
Gaussian parameters and no normalisation layers, then a readout. These networks are not
trained: each is drawn, used for one step and dropped.

Convolutions are those of ``winograd`` and ``convolution`` on CPU, and XLA's own on
accelerators.

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
from audiodd_jax.errors import UserError
from audiodd_jax.networks import convolution, winograd
from audiodd_jax.networks.pooling import POOL, average_pool, spread

_HIGHEST = lax.Precision.HIGHEST


class Precision(NamedTuple):
    """Representation of operands and activations; products accumulate in float32.

    Accelerators round operands in hardware. On CPU they are rounded and multiplied in
    float32, which gives the same numbers without the speed.

    Attributes:
      mantissa: bits that operands are rounded to; 0: not rounded.
      stored: type of features and of activations between blocks; None: the input's.
      products: precision requested from accelerators.
    """

    mantissa: int
    stored: DTypeLike | None
    products: lax.Precision

    def rounded(self, x: Float[Array, "*any"]) -> Float[Array, "*any"]:
        """Rounds an operand for CPU; returns float32 or wider."""
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        return lax.reduce_precision(x, 8, self.mantissa) if self.mantissa else x

    def operand(self, x: Float[Array, "*any"]) -> Float[Array, "*any"]:
        """Casts an operand for accelerators to the type of the precision."""
        return x.astype(self.dtype(x.dtype))

    def dtype(self, input_dtype: DTypeLike) -> DTypeLike:
        """Returns the type of the features for inputs of ``input_dtype``."""
        return jnp.dtype(self.stored or input_dtype)


PRECISIONS = {
    "float32": Precision(0, None, _HIGHEST),
    # TF32 on NVIDIA, three bfloat16 passes on TPU.
    "tf32": Precision(10, None, lax.Precision.HIGH),
    "bfloat16": Precision(7, jnp.bfloat16, lax.Precision.DEFAULT),
}


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

    def layer(key: Key[Array, ""], fan_in: int, *shape: int) -> tuple[Array, Array]:
        kernel_key, bias_key = jax.random.split(key)
        std = (config.weight_variance / fan_in) ** 0.5
        return (
            std * jax.random.normal(kernel_key, shape, dtype),
            config.bias_std * jax.random.normal(bias_key, shape[-1:], dtype),
        )

    channels = (1, *(config.width,) * (config.depth - 1))
    keys = jax.random.split(jax.random.fold_in(key, 0), config.depth)
    blocks = [
        layer(block_key, 9 * c, 3, 3, c, config.width)
        for block_key, c in zip(keys, channels, strict=True)
    ]
    kernels, biases = zip(*blocks, strict=True)
    if config.readout != "dense":
        return ConvParams(kernels, biases)
    f, t = feature_map_shape(input_shape, config)
    d = config.width * f * t
    head = layer(jax.random.fold_in(key, 1), d, d, config.output_dim)
    return ConvParams(kernels, biases, *head)


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
    precision = PRECISIONS[config.precision]
    for kernel, bias in zip(params.kernels, params.biases, strict=True):
        x = _block(x, kernel, bias, precision)
    dtype, wide = x.dtype, jnp.promote_types(x.dtype, jnp.float32)
    if config.readout == "time_mean":
        # As a product: XLA:CPU would fuse a mean with the pooling before it into a loop
        # that takes twice as long as the rest of the network.
        share = jnp.full((x.shape[2],), 1.0 / x.shape[2], wide)
        x = jnp.einsum("bftw,t->bfw", x.astype(wide), share, precision=_HIGHEST)
        x = x.astype(dtype)
    x = x.reshape(x.shape[0], -1)
    if params.head_kernel is None:
        return x
    head = jnp.dot(
        precision.operand(x),
        precision.operand(params.head_kernel),
        precision=precision.products,
        preferred_element_type=wide,
    )
    return (head + params.head_bias).astype(dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _block(
    x: Float[Array, "b f t channels_in"],
    kernel: Float[Array, "3 3 channels_in w"],
    bias: Float[Array, " w"],
    precision: Precision,
) -> Float[Array, "b f2 t2 w"]:
    """Convolution, ReLU and average pool; differentiable once, in ``x`` only.

    The backward pass stores one byte per activation: whether the ReLU is open. Kernel
    and bias get zero gradients.
    """
    return _block_outputs(x, kernel, bias, precision, with_open=False)[0]


def _block_outputs(
    x: Array, kernel: Array, bias: Array, precision: Precision, with_open: bool
) -> tuple[Array, Bool[Array, "b f3 t3 w"] | None]:
    """Returns ``_block``, and with ``with_open`` where the ReLU is open."""
    stored = precision.dtype(x.dtype)
    f, t = (side // POOL * POOL for side in x.shape[1:3])

    def finish(activation: Array) -> tuple[Array, Array | None]:
        pooled = average_pool(jax.nn.relu(activation)).astype(stored)
        return pooled, (activation > 0)[:, :f, :t] if with_open else None

    def on_cpu(x: Array, kernel: Array, bias: Array) -> tuple[Array, Array | None]:
        x, kernel = precision.rounded(x), precision.rounded(kernel)
        if not winograd.pays(x, kernel):
            return finish(convolution.on_all_cores(x, kernel, _HIGHEST) + bias)
        pooled, is_open = winograd.pooled(x, kernel, bias, with_open)
        return pooled.astype(stored), is_open

    def elsewhere(x: Array, kernel: Array, bias: Array) -> tuple[Array, Array | None]:
        x, kernel = precision.operand(x), precision.operand(kernel)
        y = convolution.convolve(x, kernel, precision=precision.products) + bias
        # Activations between convolution and pooling are stored in this type too.
        return finish(y.astype(stored))

    return lax.platform_dependent(x, kernel, bias, cpu=on_cpu, default=elsewhere)


def _block_forward(x, kernel, bias, precision):
    pooled, is_open = _block_outputs(x, kernel, bias, precision, with_open=True)
    # An empty array carries the input's shape and type.
    like = jnp.zeros((0, *x.shape[1:3]), x.dtype)
    return pooled, (is_open, kernel, bias, like)


def _block_backward(precision, residuals, ct):
    is_open, kernel, bias, like = residuals
    (f, t), (f3, t3) = like.shape[1:3], is_open.shape[1:3]
    ct = jnp.where(is_open, spread(ct, (f3, t3)), 0)
    if (f, t) != (f3, t3):
        ct = jnp.pad(ct, ((0, 0), (0, f - f3), (0, t - t3), (0, 0)))

    def on_cpu(ct: Array, kernel: Array) -> Array:
        ct, kernel = precision.rounded(ct), precision.rounded(kernel)
        grad = convolution.input_gradient(ct, kernel, (f, t), 1, _HIGHEST)
        return grad.astype(like.dtype)

    def elsewhere(ct: Array, kernel: Array) -> Array:
        ct, kernel = precision.operand(ct), precision.operand(kernel)
        products = precision.products
        grad = convolution.input_gradient(ct, kernel, (f, t), 1, products, on_cpu=False)
        return grad.astype(like.dtype)

    grad = lax.platform_dependent(ct, kernel, cpu=on_cpu, default=elsewhere)
    return grad, jnp.zeros_like(kernel), jnp.zeros_like(bias)


_block.defvjp(_block_forward, _block_backward)
