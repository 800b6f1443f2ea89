"""Convolutions of maps so low that each row of the output sees all rows of the input.

Deep layers have maps of one or two rows, where most taps of a 3x3 kernel see padding.
Here the rows are channels: a convolution along time, with the kernel's rows at their
places. A short time axis is laid out in the same way, and the convolution is then a
product of all inputs and all outputs of a map. One row takes a third of the
multiplications or less, two rows two thirds. Accelerators convolve as usual.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

Map = Float[Array, "b f t channels_in"]
Kernel = Float[Array, "k k channels_in w"]


def pays(rows: int, k: int, stride: int) -> bool:
    """Returns whether no output row misses an input row, for stride 1."""
    return stride == 1 and _is_short(rows, k)


def convolve(
    x: Map, kernel: Kernel, precision: lax.Precision | None = None
) -> Float[Array, "b f t w"]:
    """Convolution of stride 1, padding SAME, as one matrix product."""
    (b, f, t, _), (k, _, _, w) = x.shape, kernel.shape
    y = jnp.dot(_inputs(x, k), _placed(kernel, f, t), precision=precision)
    if _is_short(t, k):
        return y.reshape(b, f, t, w)
    return y.reshape(b, t, f, w).swapaxes(1, 2)


def kernel_gradient(
    x: Map, ct: Float[Array, "b f t w"], k: int, dtype: DTypeLike
) -> Kernel:
    """Transpose of ``convolve`` with respect to its kernel, in ``dtype``."""
    f, t, w = ct.shape[1:]
    if not _is_short(t, k):
        ct = ct.swapaxes(1, 2)
    rows = _inputs(x, k)
    ct = ct.reshape(len(rows), -1)
    # The barrier keeps the bits the same however many seeds train together, as in
    # ``convolution``.
    product = lax.optimization_barrier(
        jnp.dot(rows.T, ct, preferred_element_type=dtype)
    )
    kernel = jax.ShapeDtypeStruct((k, k, x.shape[3], w), dtype)
    return jax.linear_transpose(lambda kernel: _placed(kernel, f, t), kernel)(product)[
        0
    ]


def _is_short(side: int, k: int) -> bool:
    return side <= k // 2 + 1


def _inputs(x: Map, k: int) -> Float[Array, "places inputs"]:
    """Returns the inputs of all outputs of a map, or of each time of a longer one."""
    b, f, t, _ = x.shape
    if _is_short(t, k):
        return x.reshape(b, -1)
    half = k // 2
    x = jnp.pad(x, ((0, 0), (0, 0), (half, half), (0, 0)))
    seen = [x[:, i, v : v + t] for i in range(f) for v in range(k)]
    return jnp.concatenate(seen, axis=-1).reshape(b * t, -1)


def _placed(kernel: Kernel, f: int, t: int) -> Float[Array, "inputs outputs"]:
    """Lays out the kernel as the matrix from ``_inputs`` to the outputs."""
    k, half = kernel.shape[0], kernel.shape[0] // 2
    # Input row i is seen by output row o through row i - o + half of the kernel.
    kernel = jnp.stack([kernel[half - o : half - o + f] for o in range(f)], axis=3)
    outputs = f * kernel.shape[-1]
    if _is_short(t, k):
        columns = [kernel[:, half - p : half - p + t] for p in range(t)]
        kernel, outputs = jnp.stack(columns, axis=4), t * outputs
    return kernel.reshape(-1, outputs)
