"""Pooling whose gradients are fast on every platform."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

POOL = 2


@jax.custom_vjp
def average_pool(x: Float[Array, "b f t w"]) -> Float[Array, "b f2 t2 w"]:
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


def _forward(x: Array) -> tuple[Array, Array]:
    # An empty array carries the input's shape and type.
    return average_pool(x), jnp.zeros((0, *x.shape[1:3]), x.dtype)


def _backward(like: Array, ct: Array) -> tuple[Array]:
    return (spread(ct, like.shape[1:3]),)


average_pool.defvjp(_forward, _backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def spread(
    ct: Float[Array, "b f2 t2 w"], shape: tuple[int, int]
) -> Float[Array, "b f t w"]:
    """Transpose of ``average_pool`` for images of ``shape``: a copy, not a window sum.

    Rows and columns that pooling drops get zeros.
    """
    (b, f2, t2, w), (f, t) = ct.shape, shape
    ct = (ct / POOL**2)[:, :, None, :, None, :]
    ct = jnp.broadcast_to(ct, (b, f2, POOL, t2, POOL, w))
    ct = ct.reshape(b, POOL * f2, POOL * t2, w)
    return jnp.pad(ct, ((0, 0), (0, f - POOL * f2), (0, t - POOL * t2), (0, 0)))


def _spread_forward(ct: Array, shape: tuple[int, int]) -> tuple[Array, None]:
    return spread(ct, shape), None


def _spread_backward(shape: tuple[int, int], _: None, x: Array) -> tuple[Array]:
    return (average_pool(x),)


# Each is the other's transpose: gradients of any order are fast.
spread.defvjp(_spread_forward, _spread_backward)


def pool_any(x: Float[Array, "b f t w"]) -> Float[Array, "b f2 t2 w"]:
    """Average pooling along the axes that have at least two bins."""
    f, t = x.shape[1:3]
    if f == t == 1:
        return x
    if f == 1 or t == 1:
        x = jnp.repeat(x, POOL, axis=1 if f == 1 else 2)
    return average_pool(x)


def max_pool(x: Float[Array, "b f t w"]) -> Float[Array, "b f2 t2 w"]:
    """3x3 maximum pooling of stride 2, padded by one: ``ceil(f / 2)`` rows.

    On CPU as a maximum of nine slices, because the gradient of a window's maximum is a
    slow scatter there.
    """
    f, t = ((side + 1) // 2 for side in x.shape[1:3])

    def by_slices(x: Array) -> Array:
        low = jnp.asarray(jnp.finfo(x.dtype).min, x.dtype)
        x = lax.pad(x, low, ((0, 0, 0), (1, 2, 0), (1, 2, 0), (0, 0, 0)))
        slices = [
            x[:, u : u + 2 * f - 1 : 2, v : v + 2 * t - 1 : 2]
            for u in range(3)
            for v in range(3)
        ]
        return jnp.stack(slices).max(0)

    def by_window(x: Array) -> Array:
        low = np.array(-np.inf, x.dtype)
        pads = ((0, 0), (1, 1), (1, 1), (0, 0))
        return lax.reduce_window(x, low, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), pads)

    return lax.platform_dependent(x, cpu=by_slices, default=by_window)
