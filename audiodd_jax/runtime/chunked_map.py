"""Row-wise functions in chunks, so that memory does not grow with the rows."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Shaped


def balanced(rows: int, most: int) -> int:
    """Returns the rows per chunk, at most ``most``, for chunks of nearly equal size."""
    return -(-rows // -(-rows // max(1, most)))


def in_chunks(
    f: Callable[[Array], Any], x: Shaped[Array, "b *rest"], chunk: int
) -> Any:
    """Computes ``f(x)`` for a row-wise function, at most ``chunk`` rows at a time.

    The last chunk is padded with zeros and their results are dropped, so that ``f`` is
    compiled once.

    Args:
      f: returns an array or a pytree of arrays; each row depends on that row only.
      chunk: number of rows at once; 0: all.
    """
    b = x.shape[0]
    if chunk <= 0 or chunk >= b:
        return f(x)
    size = balanced(b, chunk)
    count = -(-b // size)
    pad = [(0, count * size - b)] + [(0, 0)] * (x.ndim - 1)
    if pad[0][1]:
        x = jnp.pad(x, pad)
    parts = lax.map(f, x.reshape(count, size, *x.shape[1:]))
    return jax.tree.map(lambda y: y.reshape(count * size, *y.shape[2:])[:b], parts)
