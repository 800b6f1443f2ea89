"""Functions of rows, some rows at a time, so that memory does not grow with them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Shaped


def balanced(rows: int, most: int) -> int:
    """Rows a chunk, at most ``most``, so that chunks are equal or nearly so."""
    return -(-rows // -(-rows // max(1, most)))


def in_chunks(
    f: Callable[[Array], Any], x: Shaped[Array, "b *rest"], chunk: int
) -> Any:
    """``f(x)`` for a function of rows, at most ``chunk`` rows at a time.

    What does not divide is filled up with zeros, whose values are dropped: ``f`` is
    compiled once.

    Args:
      f: to an array, or several, whose every row depends on that row alone.
      x: rows.
      chunk: rows at once; 0: all.
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
