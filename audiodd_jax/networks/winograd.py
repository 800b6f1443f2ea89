r"""3x3 convolutions of many channels by Winograd's F(2x2, 3x3), for CPUs.

Four outputs of a 3x3 convolution take 36 multiplications per pair of channels, and 16
after transforming 4x4 tiles of the input:

    y = A^T [(G k G^T) * (B^T x B)] A,

where ``*`` is a matrix product over channels for each of the 16 positions, and the
transforms around it are sums. In float32 the error is that of the direct sum. A tile of
outputs is one window of the 2x2 pooling, so that a block of a random network needs no
full-size activation.

The libraries of accelerators choose such algorithms themselves. BUILD_NOTES.md has the
measurements.

References:
  Lavin, Gray, *Fast Algorithms for Convolutional Neural Networks*, CVPR 2016.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from audiodd_jax.runtime.memory import in_chunks

# With fewer channels the transforms cost more than the products save.
CHANNELS = 64
# Tiles transformed at once; few enough to stay in cache.
TILES = 2048
_HIGHEST = lax.Precision.HIGHEST

# An array for each of the 4x4 positions of a transformed tile.
Tiles = list[list[Float[Array, "*any"]]]


def pays(x: Array, kernel: Array) -> bool:
    """Returns whether Winograd is faster than a direct convolution on CPU."""
    few = min(x.shape[1:3]) < 4
    return kernel.shape[:2] == (3, 3) and kernel.shape[2] >= CHANNELS and not few


def _kernel_tiles(kernel: Float[Array, "3 3 c w"]) -> Tiles:
    """Computes ``G k G^T``."""
    # Sums: as a product of three matrices it would be transposed and copied.
    sums = lambda a, b, c: (a, (a + b + c) / 2, (a - b + c) / 2, c)
    rows = sums(*kernel)
    return [list(sums(*row)) for row in rows]


def _outputs(
    x: Float[Array, "b f t c"], tiles: Tiles
) -> tuple[Array, Array, Array, Array]:
    """Computes the outputs of 2x2 tiles, row-major; each is ``[b, f/2, t/2, w]``."""
    f, t = (side // 2 for side in x.shape[1:3])
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    at = lambda u, v: x[:, u : u + 2 * f - 1 : 2, v : v + 2 * t - 1 : 2]
    # B^T x B of 4x4 tiles, as [b, f/2, t/2, c] for each position.
    sums = lambda a, b, c, d: (a - c, b + c, c - b, b - d)
    columns = [sums(*(at(u, v) for u in range(4))) for v in range(4)]
    v = [list(sums(*(columns[v][i] for v in range(4)))) for i in range(4)]
    # Sixteen products: one batched product would copy its operands.
    m = [
        [jnp.dot(v[i][j], tiles[i][j], precision=_HIGHEST) for j in range(4)]
        for i in range(4)
    ]
    sums = lambda a, b, c, d: (a + b + c, b - c - d)
    columns = [sums(*(m[i][j] for i in range(4))) for j in range(4)]
    first, second = (sums(*(column[i] for column in columns)) for i in range(2))
    return (*first, *second)


def _whole(a: Array, b: Array, c: Array, d: Array) -> Array:
    """Assembles an image from the four positions of its 2x2 tiles."""
    rows = (jnp.stack(pair, 3) for pair in ((a, b), (c, d)))
    y = jnp.stack(list(rows), 2)
    return y.reshape(y.shape[0], 2 * y.shape[1], 2 * y.shape[3], y.shape[5])


def _by_tiles(f: Callable[[Array], Any], x: Array) -> Any:
    """Applies ``f`` to as many images at once as ``TILES`` allows."""
    tiles = (x.shape[1] // 2) * (x.shape[2] // 2)
    return in_chunks(f, x, max(1, TILES // tiles))


def convolve(
    x: Float[Array, "b f t c"], kernel: Float[Array, "3 3 c w"]
) -> Float[Array, "b f t w"]:
    """3x3 convolution, padding SAME."""
    f, t = x.shape[1:3]
    # Zeros make the sides even, as the padding does.
    x = jnp.pad(x, ((0, 0), (0, f % 2), (0, t % 2), (0, 0)))
    tiles = _kernel_tiles(kernel)
    return _by_tiles(lambda part: _whole(*_outputs(part, tiles)), x)[:, :f, :t]


def pooled(
    x: Float[Array, "b f t c"],
    kernel: Float[Array, "3 3 c w"],
    bias: Float[Array, " w"],
    with_open: bool,
) -> tuple[Float[Array, "b f2 t2 w"], Bool[Array, "b f3 t3 w"] | None]:
    """Convolution, bias, ReLU and 2x2 average pool, which drops an odd last row.

    ``with_open`` also returns where the ReLU is open, without dropped rows and columns.
    """
    tiles = _kernel_tiles(kernel)

    def part(x: Array) -> tuple[Array, Array | None]:
        outputs = [y + bias for y in _outputs(x, tiles)]
        is_open = _whole(*(y > 0 for y in outputs)) if with_open else None
        return sum(map(jax.nn.relu, outputs)) / 4, is_open

    return _by_tiles(part, x)
