"""Batch normalisation, ReLU and 2x2 pooling in one, with a fast gradient on CPU.

The gradient of pooling copies each output's gradient to four inputs. As a reshape of a
repeated array, XLA:CPU divides indices for each element and leaves the vector units
idle. Here arrays are viewed as windows, ``[b, f2, 2, t2, 2, w]``, and the copy is a
broadcast. experiments/results/speed.md has the measurements.

References:
  Ioffe, Szegedy, *Batch Normalization*, ICML 2015.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from audiodd_jax.networks.pooling import POOL, average_pool

EPSILON = 1e-5


@jax.custom_vjp
def batch_norm_pool(
    x: Float[Array, "b f t w"], scale: Float[Array, " w"], bias: Float[Array, " w"]
) -> tuple[Float[Array, "b f2 t2 w"], Float[Array, " w"], Float[Array, " w"]]:
    """Returns ``average_pool(relu(batch_norm(x)))``, and the batch's mean and variance.

    The returned statistics are for running averages and carry no gradient; gradients
    flow through the normalised values only. The sides of ``x`` must be even.
    """
    return _forward(x, scale, bias)[0]


def _statistics(x: Array) -> tuple[Array, Array]:
    """Computes mean and variance of each channel, in float32 or wider."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean, square = wide.mean((0, 1, 2)), (wide * wide).mean((0, 1, 2))
    return mean, jnp.maximum(0.0, square - mean * mean)


def _pooled(x: Array, scale: Array, bias: Array, mean: Array, var: Array) -> Array:
    normal = (x - mean) * (lax.rsqrt(var + EPSILON) * scale) + bias
    return average_pool(jax.nn.relu(normal.astype(x.dtype)))


def _forward(x: Array, scale: Array, bias: Array) -> tuple[tuple, tuple]:
    mean, var = _statistics(x)
    out = _pooled(x, scale, bias, mean, var)
    return (out, mean, var), (x, scale, bias, mean, var)


def _backward(residuals: tuple, cts: tuple) -> tuple[Array, Array, Array]:
    return lax.platform_dependent(*residuals, cts[0], cpu=_by_windows, default=_derived)


def _by_windows(
    x: Array, scale: Array, bias: Array, mean: Array, var: Array, ct: Array
) -> tuple[Array, Array, Array]:
    b, f, t, w = x.shape
    split = (b, f // POOL, POOL, t // POOL, POOL, w)
    positions = (0, 1, 2, 3, 4)
    count = b * f * t
    wide = mean.dtype
    centred = x.reshape(split).astype(wide) - mean
    deviation = lax.rsqrt(var + EPSILON)
    is_open = centred * (deviation * scale) + bias > 0
    each = (ct.astype(wide) / POOL**2)[:, :, None, :, None]
    ct_normal = jnp.where(is_open, each, 0)
    ct_bias = ct_normal.sum(positions)
    ct_scale = (ct_normal * centred).sum(positions) * deviation
    # Normalising removes the mean and the component along the normalised values.
    along = centred * (deviation * ct_scale / count)
    ct_x = (deviation * scale) * (ct_normal - ct_bias / count - along)
    return ct_x.reshape(x.shape).astype(x.dtype), ct_scale, ct_bias


def _derived(
    x: Array, scale: Array, bias: Array, mean: Array, var: Array, ct: Array
) -> tuple[Array, Array, Array]:
    del mean, var  # the compiler removes the duplicate computation

    def whole(x: Array, scale: Array, bias: Array) -> Array:
        return _pooled(x, scale, bias, *_statistics(x))

    return jax.vjp(whole, x, scale, bias)[1](ct)


batch_norm_pool.defvjp(_forward, _backward)
