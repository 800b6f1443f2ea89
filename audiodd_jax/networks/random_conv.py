"""The random convolutional network whose features approximate the NNGP kernel.

``depth`` blocks of [3x3 convolution, padding SAME, ReLU, 2x2 average pool] with
fresh Gaussian parameters and no normalisation layers, then a readout. Nothing here
is trained: a network is drawn, used for one step and dropped.

References:
  Loo, Hasani, Amini, Rus, *Efficient Dataset Distillation Using Random Feature
  Approximation*, NeurIPS 2022, section 3.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from audiodd_jax.config import RandomNetworkConfig
from audiodd_jax.runtime.errors import UserError

POOL = 2


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


def average_pool(x: Float[Array, "b f t w"]) -> Float[Array, "b f2 t2 w"]:
    """2x2 average pooling, stride 2; an odd last row or column is dropped.

    By ``reduce_window``, which XLA:CPU runs three times faster than a reshape-mean.
    """
    window = (1, POOL, POOL, 1)
    # A NumPy zero: JAX must see a constant to know the sum, and its gradient.
    zero = np.zeros((), x.dtype)
    return lax.reduce_window(x, zero, lax.add, window, window, "VALID") / POOL**2


def conv3x3(
    x: Float[Array, "b f t channels_in"], kernel: Float[Array, "3 3 channels_in w"]
) -> Float[Array, "b f t w"]:
    """3x3 convolution, padding SAME, in full precision."""
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(1, 1),
        padding="SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=lax.Precision.HIGHEST,
    )


def conv3x3_input_gradient(
    ct: Float[Array, "b f t w"], kernel: Float[Array, "3 3 channels_in w"]
) -> Float[Array, "b f t channels_in"]:
    """Transpose of ``conv3x3`` with respect to its input.

    Written out because XLA:CPU runs the transpose that JAX derives without its fast
    convolution inside a scan (17 times slower), and because one input channel is a
    matrix product of nine columns, then nine shifted sums (2 to 5 times faster than a
    convolution with one output channel). BUILD_NOTES.md has the measurements.
    """
    if kernel.shape[2] > 1:
        return conv3x3(ct, jnp.flip(kernel, (0, 1)).swapaxes(2, 3))
    f, t = ct.shape[1:3]
    taps = jnp.einsum("bftw,uvw->bftuv", ct, kernel[:, :, 0], precision="highest")
    taps = jnp.pad(taps, ((0, 0), (1, 1), (1, 1), (0, 0), (0, 0)))
    shifted = [
        taps[:, 2 - u : 2 - u + f, 2 - v : 2 - v + t, u, v]
        for u in range(3)
        for v in range(3)
    ]
    return sum(shifted)[..., None]


@jax.custom_vjp
def _block(
    x: Float[Array, "b f t channels_in"],
    kernel: Float[Array, "3 3 channels_in w"],
    bias: Float[Array, " w"],
) -> Float[Array, "b f2 t2 w"]:
    """Convolution, ReLU and average pool; differentiable once, in ``x``.

    What the backward pass keeps is one byte an activation: where the ReLU is open.
    """
    return average_pool(jax.nn.relu(conv3x3(x, kernel) + bias))


def _block_forward(x, kernel, bias):
    activation = conv3x3(x, kernel) + bias
    residuals = (activation > 0, kernel, bias)
    return average_pool(jax.nn.relu(activation)), residuals


def _block_backward(residuals, ct):
    is_open, kernel, bias = residuals
    b, f, t, w = is_open.shape
    f2, t2 = ct.shape[1:3]
    even = is_open[:, : POOL * f2, : POOL * t2].reshape(b, f2, POOL, t2, POOL, w)
    ct = jnp.where(even, (ct / POOL**2)[:, :, None, :, None, :], 0)
    ct = ct.reshape(b, POOL * f2, POOL * t2, w)
    # Zeros for the row and column that the pooling dropped.
    ct = jnp.pad(ct, ((0, 0), (0, f - POOL * f2), (0, t - POOL * t2), (0, 0)))
    grad = conv3x3_input_gradient(ct, kernel)
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
        x = _block(x, kernel, bias)
    if config.readout == "time_mean":
        # As a product: XLA:CPU fuses a mean with the pooling before it, into a loop
        # that takes twice as long as the rest of the network.
        share = jnp.full((x.shape[2],), 1.0 / x.shape[2], x.dtype)
        x = jnp.einsum("bftw,t->bfw", x, share, precision=lax.Precision.HIGHEST)
    x = x.reshape(x.shape[0], -1)
    if params.head_kernel is None:
        return x
    head = jnp.dot(x, params.head_kernel, precision=lax.Precision.HIGHEST)
    return head + params.head_bias
