"""A block of a random network, with a gradient that stores one byte per activation.

Convolutions are those of ``winograd`` and ``convolution`` on CPU, and XLA's own on
accelerators.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from audiodd_jax.networks import convolution, winograd
from audiodd_jax.networks import precision as precision_lib
from audiodd_jax.networks.pooling import POOL, average_pool, spread


def _forward(
    x: Float[Array, "b f t channels_in"],
    kernel: Float[Array, "3 3 channels_in w"],
    bias: Float[Array, " w"],
    precision: str,
    with_open: bool,
) -> tuple[Float[Array, "b f2 t2 w"], Bool[Array, "b f3 t3 w"] | None]:
    """Convolution, ReLU and average pool; ``with_open`` adds where the ReLU is open."""
    stored = precision_lib.dtype(precision, x.dtype)
    f, t = (side // POOL * POOL for side in x.shape[1:3])

    def finish(activation: Array) -> tuple[Array, Array | None]:
        pooled = average_pool(jax.nn.relu(activation)).astype(stored)
        return pooled, (activation > 0)[:, :f, :t] if with_open else None

    def on_cpu(x: Array, kernel: Array, bias: Array) -> tuple[Array, Array | None]:
        x, kernel = (precision_lib.rounded(a, precision) for a in (x, kernel))
        if not winograd.pays(x, kernel):
            highest = lax.Precision.HIGHEST
            y = convolution.on_all_cores(x, kernel, precision=highest)
            return finish(y + bias)
        pooled, is_open = winograd.pooled(x, kernel, bias, with_open)
        return pooled.astype(stored), is_open

    def elsewhere(x: Array, kernel: Array, bias: Array) -> tuple[Array, Array | None]:
        x, kernel = (precision_lib.operand(a, precision) for a in (x, kernel))
        products = precision_lib.PRECISIONS[precision].products
        y = convolution.convolve(x, kernel, precision=products) + bias
        # Activations between convolution and pooling are stored in this type too.
        return finish(y.astype(stored))

    return lax.platform_dependent(x, kernel, bias, cpu=on_cpu, default=elsewhere)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def block(
    x: Float[Array, "b f t channels_in"],
    kernel: Float[Array, "3 3 channels_in w"],
    bias: Float[Array, " w"],
    precision: str,
) -> Float[Array, "b f2 t2 w"]:
    """Convolution, ReLU and average pool; differentiable once, in ``x`` only.

    The backward pass stores one byte per activation: whether the ReLU is open. Kernel
    and bias get zero gradients; ``precision`` is a name in ``precision.PRECISIONS``.
    """
    return _forward(x, kernel, bias, precision, False)[0]


def _block_fwd(x, kernel, bias, precision):
    pooled, is_open = _forward(x, kernel, bias, precision, True)
    # An empty array carries the input's shape and type.
    like = jnp.zeros((0, *x.shape[1:3]), x.dtype)
    return pooled, (is_open, kernel, bias, like)


def _block_bwd(precision, residuals, ct):
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


block.defvjp(_block_fwd, _block_bwd)
