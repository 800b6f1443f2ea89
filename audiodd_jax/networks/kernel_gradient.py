"""The gradient of a convolution's kernel as matrix products, fast on XLA:CPU.

It takes a few images at a time, because the patches of a whole batch would not fit the
caches. With stride 1, shifts along frequency are gathered from the input and shifts
along time from the output's gradient: a 3x3 kernel takes twice three copies instead of
nine. experiments/results/speed.md has the measurements.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

# Output positions of the images that are gathered at once, few enough to stay in cache.
# One channel takes a ninth of the memory; more positions do not pay.
_POSITIONS = 2048
_POSITIONS_OF_ONE_CHANNEL = 2**17

# Input, kernel and output of a convolution.
Input = Float[Array, "b f t channels_in"]
Kernel = Float[Array, "k k channels_in w"]
Output = Float[Array, "b f2 t2 w"]


def kernel_gradient(x: Input, ct: Output, k: int, stride: int = 1) -> Kernel:
    """Transpose of ``convolution.convolve`` with respect to its kernel."""
    channels, w = x.shape[3], ct.shape[3]
    wide = jnp.promote_types(ct.dtype, jnp.float32)  # accumulates bfloat16

    def product(rows: Array, ct: Array) -> Array:
        return jnp.dot(rows, ct, preferred_element_type=wide)

    def by_taps(x: Array, ct: Array) -> Array:
        # Tap by tap, which copies whole rows.
        rows = jnp.stack(_shifted(x[..., 0], k, stride)).reshape(k * k, -1)
        return product(rows, ct.reshape(-1, w))

    def by_shifts(x: Array, ct: Array) -> Array:
        rows, columns = _shifts(x, ct, k)
        total = product(rows.T, columns).reshape(k, channels, k, w)
        return total.transpose(0, 2, 1, 3)

    def by_patches(x: Array, ct: Array) -> Array:
        rows = patches(x, k, stride).reshape(-1, k * k * channels)
        return product(ct.reshape(-1, w).T, rows).T

    positions, part = _POSITIONS, by_patches
    if channels == 1:
        positions, part = _POSITIONS_OF_ONE_CHANNEL, by_taps
    elif stride == 1:
        part = by_shifts
    shaped = lambda x, ct: part(x, ct).reshape(k, k, channels, w)
    total = _sum_over_images(shaped, x, ct, positions)
    return total.astype(x.dtype)


def _sum_over_images(
    part: Callable[[Array, Array], Array], x: Array, ct: Array, positions: int
) -> Array:
    """Sums ``part`` over images, about ``positions`` output positions at a time."""
    b, f2, t2, _ = ct.shape
    size = min(b, max(1, positions // (f2 * t2)))
    whole = b // size
    split = lambda a: a[: whole * size].reshape(whole, size, *a.shape[1:])
    add = lambda total, images: (total + part(*images), None)
    like = jax.eval_shape(part, x[:size], ct[:size])
    zeros = jnp.zeros(like.shape, like.dtype)
    total, _ = lax.scan(add, zeros, (split(x), split(ct)))
    if whole * size < b:
        total += part(x[whole * size :], ct[whole * size :])
    # Without the barrier XLA transposes the product in some programs only, and a seed's
    # bits would depend on how many seeds are trained together.
    return lax.optimization_barrier(total)


def _shifts(
    x: Input, ct: Float[Array, "b f t w"], k: int
) -> tuple[Float[Array, "positions rows"], Float[Array, "positions columns"]]:
    """Shifts the input along frequency and the gradient along time, ``k`` times each.

    Tap ``(u, v)`` of the kernel's gradient sums ``x[f + u, t + v] ct[f, t]``, which is
    ``x[f + u, t] ct[f, t - v]``.
    """
    _, f, t, channels = x.shape
    half = k // 2
    x = jnp.pad(x, ((0, 0), (half, half), (0, 0), (0, 0)))
    ct = jnp.pad(ct, ((0, 0), (0, 0), (half, half), (0, 0)))
    rows = jnp.concatenate([x[:, u : u + f] for u in range(k)], axis=-1)
    starts = range(k - 1, -1, -1)
    columns = jnp.concatenate([ct[:, :, v : v + t] for v in starts], axis=-1)
    return rows.reshape(-1, k * channels), columns.reshape(-1, k * ct.shape[3])


def patches(x: Input, k: int, stride: int) -> Float[Array, "b f2 t2 taps"]:
    """Gathers the ``k k channels_in`` inputs of each output position."""
    return jnp.concatenate(_shifted(x, k, stride), axis=-1)


def _shifted(x: Array, k: int, stride: int) -> list[Array]:
    """Returns the inputs that each of the ``k k`` taps reads, at all positions."""
    half = k // 2
    rows, columns = ((side - 1) // stride * stride + 1 for side in x.shape[1:3])
    x = jnp.pad(x, [(0, 0), (half, half), (half, half), *[(0, 0)] * (x.ndim - 3)])
    return [
        x[:, u : u + rows : stride, v : v + columns : stride]
        for u in range(k)
        for v in range(k)
    ]
