"""Exact kernels of the infinitely wide random networks, NNGP and NTK.

``kernels.random_kernels`` estimates the NNGP kernel by drawing networks. As their
width grows, the estimate converges to the kernel that neural-tangents computes here
layer by layer. The readouts are those of the random networks: ``flatten``,
``time_mean``, and ``dense``, whose expected kernel is that of ``flatten``.

A convolution followed by pooling mixes the covariances of all pairs of positions, so
that a pair of inputs takes ``(f t)^2`` numbers of memory. Pairs are therefore computed
in chunks.

References:
  Novak et al., *Bayesian Deep Convolutional Networks with Many Channels are Gaussian
  Processes*, ICLR 2019; Jacot et al., *Neural Tangent Kernel*, NeurIPS 2018; Novak et
  al., *Neural Tangents*, ICLR 2020.
"""

import functools
import importlib.util
import math
import sys
from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Float

from audiodd_jax.config import RandomNetworkConfig
from audiodd_jax.errors import UserError
from audiodd_jax.networks import random_conv
from audiodd_jax.networks.pooling import POOL
from audiodd_jax.runtime.memory import balanced, in_chunks, memory_of, memory_share

KERNELS = ("nngp", "ntk")
VERSION = "0.6.5"

# The kernel of every pair of two sets of inputs.
Kernel = Callable[
    [Float[Array, "a f t 1"], Float[Array, "b f t 1"]], Float[Array, "a b"]
]

# Upper bound of a pair's memory, in numbers per pair of positions, from the compiler's
# memory analysis on CPU. A single pair reaches it, because it needs the covariances of
# both inputs with themselves; in large chunks each pair takes about half.
_FORWARD, _BACKWARD = 6, 14
# Larger tiles are not faster, and delay the progress bar and the response to signals.
_MOST_NUMBERS = 1 << 26


@functools.cache
def _stax() -> Any:
    """Imports the layers of neural-tangents without running its ``__init__``.

    The ``__init__`` fails with current JAX and imports TensorFlow. The package is
    registered in ``sys.modules`` without being executed, and only the module of its
    layers is imported.

    Raises:
      UserError: neural-tangents is not installed.
    """
    name = "neural_tangents"
    is_new = name not in sys.modules
    try:
        if is_new:
            spec = importlib.util.find_spec(name)
            if spec is None:
                raise ModuleNotFoundError(name)
            sys.modules[name] = importlib.util.module_from_spec(spec)
        from neural_tangents import stax
    except ModuleNotFoundError as error:
        if is_new:
            sys.modules.pop(name, None)
        raise UserError(
            "exact kernels need neural-tangents: pip install frozendict && pip install "
            f"--no-deps neural-tangents=={VERSION} (or pip install "
            "'audiodd_jax[exact]', which also installs TensorFlow)"
        ) from error
    return stax


def make_kernel(config: RandomNetworkConfig, kind: str) -> Kernel:
    """Returns the kernel function of all pairs at once, pure and differentiable.

    ``kind`` is ``nngp`` or ``ntk``, of the network with its dense readout. The width in
    ``config`` has no effect.

    Raises:
      UserError: neural-tangents is not installed, or the kernel is unknown.
    """
    if kind not in KERNELS:
        raise UserError(f"unknown kernel {kind!r}; choose from {', '.join(KERNELS)}")
    stax = _stax()
    scales = {"W_std": config.weight_variance**0.5, "b_std": config.bias_std}
    block = (
        stax.Conv(1, (3, 3), padding="SAME", **scales),
        stax.Relu(),
        stax.AvgPool((POOL, POOL), (POOL, POOL)),
    )

    def kernel(
        x1: Float[Array, "a f t 1"], x2: Float[Array, "b f t 1"]
    ) -> Float[Array, "a b"]:
        _, frames = random_conv.feature_map_shape(x1.shape[1:3], config)
        layers = block * config.depth
        if config.readout == "time_mean":
            layers += (stax.AvgPool((1, frames), (1, frames)),)
        readout = (stax.Flatten(), stax.Dense(1, **scales))
        _, _, pairwise = stax.serial(*layers, *readout)
        with jax.default_matmul_precision("highest"):
            # With float64 enabled, neural-tangents computes float32 inputs in float64.
            return pairwise(x1, x2, kind).astype(x1.dtype)

    return kernel


def pairs_at_once(
    image_shape: tuple[int, int], *, is_differentiated: bool, memory: int | None = None
) -> int:
    """Returns the number of pairs that certainly fit the memory at once.

    Args:
      is_differentiated: True if a backward pass follows.
      memory: bytes available; None: a share of the first local device's memory.

    Raises:
      UserError: a single pair does not fit.
    """
    if memory is None:
        device = jax.local_devices()[0]
        memory = int(memory_share(device.platform) * memory_of(device))
    positions = math.prod(image_shape) ** 2
    numbers = (_BACKWARD if is_differentiated else _FORWARD) * positions
    pair_bytes = (8 if jax.config.jax_enable_x64 else 4) * numbers
    if pair_bytes > memory:
        raise UserError(
            f"the exact kernel of one pair of spectrograms of {image_shape[0]} x "
            f"{image_shape[1]} takes {pair_bytes / 1e9:.1f} GB, but "
            f"{memory / 1e9:.1f} GB are available; use smaller spectrograms, or random "
            "networks (krr, rfad)"
        )
    return min(memory // pair_bytes, max(1, _MOST_NUMBERS // positions))


def tile_shape(pairs: int, rows: int, columns: int) -> tuple[int, int]:
    """Returns the sides of a nearly square tile of at most ``pairs`` pairs.

    ``rows`` and ``columns`` are those of the whole matrix.
    """
    a = min(rows, math.isqrt(pairs))
    b = min(columns, pairs // a)
    a = min(rows, pairs // b)
    return balanced(rows, a), balanced(columns, b)


def rows(
    kernel: Kernel, x1: Float[Array, "a f t 1"], x2: Float[Array, "b f t 1"], pairs: int
) -> Float[Array, "a b"]:
    """Computes ``kernel(x1, x2)`` in tiles of at most ``pairs`` pairs.

    The backward pass recomputes the tiles, so that it takes no more memory.
    """
    a, b = tile_shape(pairs, x1.shape[0], x2.shape[0])
    tile = jax.checkpoint(kernel)

    def strip(part: Float[Array, "a f t 1"]) -> Float[Array, "a b"]:
        return in_chunks(lambda other: tile(part, other).T, x2, b).T

    return in_chunks(strip, x1, a)
