"""Pooling, alone or after batch normalisation, with fast gradients on every platform.

The gradient of pooling copies each output's gradient to four inputs. As a reshape of a
repeated array, XLA:CPU divides indices for each element and leaves the vector units
idle. Here arrays are viewed as windows, ``[b, f2, 2, t2, 2, w]``, and the copy is a
broadcast. experiments/results/speed.md has the measurements.

References:
  Ioffe, Szegedy, *Batch Normalization*, ICML 2015.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

POOL = 2
# Added to the variance of batch normalisation.
EPSILON = 1e-5

Maps = Float[Array, "b f t w"]
Pooled = Float[Array, "b f2 t2 w"]
Channels = Float[Array, " w"]


@jax.custom_vjp
def average_pool(x: Maps) -> Pooled:
    """2x2 average pooling, stride 2; an odd last row or column is dropped.

    On CPU by ``reduce_window``, which is three times faster there than a reshape-mean.
    Elsewhere as a sum of four slices, which fuse with their consumers; the TPU compiler
    turns a window sum into a separate convolution.
    """
    window = (1, POOL, POOL, 1)

    def by_window(x: Array) -> Array:
        # A NumPy zero: JAX recognises a window sum by its constant.
        zero = np.zeros((), x.dtype)
        return lax.reduce_window(x, zero, lax.add, window, window, "VALID") / POOL**2

    def by_slices(x: Array) -> Array:
        f, t = (side // POOL * POOL for side in x.shape[1:3])
        # One expression: a partial sum that is read twice would be stored.
        at = lambda u, v: x[:, u:f:POOL, v:t:POOL]
        return (at(0, 0) + at(0, 1) + at(1, 0) + at(1, 1)) / POOL**2

    return lax.platform_dependent(x, cpu=by_window, default=by_slices)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def spread(ct: Pooled, shape: tuple[int, int]) -> Maps:
    """Transpose of ``average_pool`` for images of ``shape``: a copy, not a window sum.

    Rows and columns that pooling drops get zeros.
    """
    (b, f2, t2, w), (f, t) = ct.shape, shape
    ct = (ct / POOL**2)[:, :, None, :, None, :]
    ct = jnp.broadcast_to(ct, (b, f2, POOL, t2, POOL, w))
    ct = ct.reshape(b, POOL * f2, POOL * t2, w)
    return jnp.pad(ct, ((0, 0), (0, f - POOL * f2), (0, t - POOL * t2), (0, 0)))


# Each is the other's transpose: gradients of any order are fast. An empty array carries
# the input's shape and type.
average_pool.defvjp(
    lambda x: (average_pool(x), jnp.zeros((0, *x.shape[1:3]), x.dtype)),
    lambda like, ct: (spread(ct, like.shape[1:3]),),
)
spread.defvjp(
    lambda ct, shape: (spread(ct, shape), None),
    lambda _shape, _residuals, x: (average_pool(x),),
)


def pool_any(x: Maps) -> Pooled:
    """Average pooling along the axes that have at least two bins."""
    f, t = x.shape[1:3]
    if f == t == 1:
        return x
    if f == 1 or t == 1:
        x = jnp.repeat(x, POOL, axis=1 if f == 1 else 2)
    return average_pool(x)


@jax.custom_vjp
def max_pool(x: Maps) -> Pooled:
    """3x3 maximum pooling of stride 2, padded by one: ``ceil(f / 2)`` rows.

    On CPU as a maximum of nine slices, because the gradient of a window's maximum is a
    slow scatter there. Equal maxima of a window share its gradient.
    """
    on_cpu = lambda x: functools.reduce(jnp.maximum, _nine_slices(x))
    return lax.platform_dependent(x, cpu=on_cpu, default=_max_by_window)


def _nine_slices(x: Maps) -> list[Pooled]:
    """Returns the nine inputs of each window."""
    f, t = ((side + 1) // 2 for side in x.shape[1:3])
    around = ((0, 0), (1, 2), (1, 2), (0, 0))
    x = jnp.pad(x, around, constant_values=-np.inf)
    return [x[:, u : u + 2 * f : 2, v : v + 2 * t : 2] for u, v in np.ndindex(3, 3)]


def _max_by_window(x: Maps) -> Pooled:
    low = np.array(-np.inf, x.dtype)
    pads = ((0, 0), (1, 1), (1, 1), (0, 0))
    return lax.reduce_window(x, low, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), pads)


def _max_forward(x: Maps) -> tuple[Pooled, tuple[Maps, Pooled]]:
    out = max_pool(x)
    return out, (x, out)


def _max_backward(residuals: tuple[Maps, Pooled], ct: Pooled) -> tuple[Maps]:
    def on_cpu(x: Maps, out: Pooled, ct: Pooled) -> Maps:
        (b, f, t, w), (f2, t2) = x.shape, ct.shape[1:3]
        ties = sum((part == out).astype(x.dtype) for part in _nine_slices(x))
        # Read by the comparisons below, not recomputed in each.
        share = lax.optimization_barrier(ct / ties)
        x = jnp.pad(x, ((0, 0), (0, f % 2), (0, t % 2), (0, 0)))
        x = x.reshape(b, f2, 2, t2, 2, w)  # pairs of rows and of columns
        after = ((0, 0), (0, 1), (0, 1), (0, 0))
        out, share = jnp.pad(out, after), jnp.pad(share, after)
        row, column = np.arange(2)[:, None, None, None], np.arange(2)[:, None]
        total = jnp.zeros((), x.dtype)
        # Windows overlap: the second row of a pair is also in the next pair's window.
        for u, v in np.ndindex(2, 2):
            window = (slice(None), slice(u, u + f2), None, slice(v, v + t2), None)
            is_largest = (x == out[window]) & ((row >= u) & (column >= v))
            total += jnp.where(is_largest, share[window], 0)
        return total.reshape(b, 2 * f2, 2 * t2, w)[:, :f, :t]

    derived = lambda x, _, ct: jax.vjp(_max_by_window, x)[1](ct)[0]
    return (lax.platform_dependent(*residuals, ct, cpu=on_cpu, default=derived),)


max_pool.defvjp(_max_forward, _max_backward)


def _norm_relu_pool(
    x: Maps, scale: Channels, bias: Channels
) -> tuple[Pooled, Channels, Channels]:
    """Returns ``average_pool(relu(batch_norm(x)))``, and the batch's mean and variance.

    The returned statistics are for running averages and carry no gradient; gradients
    flow through the normalised values only. The sides of ``x`` must be even.
    """
    # In float32 or wider.
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean, square = wide.mean((0, 1, 2)), (wide * wide).mean((0, 1, 2))
    var = jnp.maximum(0.0, square - mean * mean)
    normal = (x - mean) * (lax.rsqrt(var + EPSILON) * scale) + bias
    return average_pool(jax.nn.relu(normal.astype(x.dtype))), mean, var


batch_norm_pool = jax.custom_vjp(_norm_relu_pool)


def _norm_forward(x: Array, scale: Array, bias: Array) -> tuple[tuple, tuple]:
    out = _norm_relu_pool(x, scale, bias)
    return out, (x, scale, bias, *out[1:])


def _norm_backward(residuals: tuple, cts: tuple) -> tuple[Array, Array, Array]:
    def by_windows(
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

    def derived(x, scale, bias, _mean, _var, ct):
        # The compiler removes the duplicate computation of the statistics.
        pooled = lambda *inputs: _norm_relu_pool(*inputs)[0]
        return jax.vjp(pooled, x, scale, bias)[1](ct)

    return lax.platform_dependent(*residuals, cts[0], cpu=by_windows, default=derived)


batch_norm_pool.defvjp(_norm_forward, _norm_backward)
