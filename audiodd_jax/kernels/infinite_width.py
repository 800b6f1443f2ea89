"""Exact kernels of the infinitely wide random networks, NNGP and NTK.

``kernels.random_features`` estimates the NNGP kernel by drawing networks; as their
width, or their number, grows, it tends to the kernel that is computed here, layer by
layer, by neural-tangents (up to what a finite width biases). The readouts are those of
the random networks: ``flatten``, ``time_mean``, and ``dense``, which has the kernel of
``flatten`` in expectation.

A convolution followed by a pooling mixes the covariances of all pairs of positions, so
that every pair of inputs takes ``(f t)^2`` numbers in memory: pairs are computed some
at a time.

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
from audiodd_jax.networks import random_conv
from audiodd_jax.ops.chunked_map import balanced, in_chunks
from audiodd_jax.ops.pooling import POOL
from audiodd_jax.runtime.errors import UserError
from audiodd_jax.runtime.memory import memory_of, memory_share

KERNELS = ("nngp", "ntk")
VERSION = "0.6.5"

# The kernel of every pair of two sets of inputs.
Kernel = Callable[
    [Float[Array, "a f t 1"], Float[Array, "b f t 1"]], Float[Array, "a b"]
]

# Memory of a pair, in numbers for every pair of its positions, at the most: that is for
# one pair alone, which needs the covariances of both inputs with themselves; of many
# pairs each takes about half. By the compiler's account on a CPU.
_FORWARD, _BACKWARD = 6, 14
# More numbers than these at once gain no speed, and only delay what a tile's end
# brings: progress, and the answer to a signal.
_MOST_NUMBERS = 1 << 26


@functools.cache
def _stax() -> Any:
    """neural-tangents' layers, past its ``__init__``, which today's JAX breaks.

    The package is registered with its place and left unexecuted, so that of its
    modules only the layers are imported: neither what is broken nor TensorFlow.

    Raises:
      UserError: it is not installed.
    """
    name = "neural_tangents"
    is_new = name not in sys.modules
    try:
        if is_new:
            found = importlib.util.find_spec(name)
            if found is None:
                raise ModuleNotFoundError(name)
            sys.modules[name] = importlib.util.module_from_spec(found)
        from neural_tangents import stax
    except ModuleNotFoundError as error:
        if is_new:
            sys.modules.pop(name, None)
        raise UserError(
            "exact kernels need neural-tangents: pip install frozendict && pip install "
            f"--no-deps neural-tangents=={VERSION} (pip install 'audiodd_jax[exact]' "
            "does it too, and brings TensorFlow, which is not used)"
        ) from error
    return stax


def make_kernel(config: RandomNetworkConfig, kind: str) -> Kernel:
    """The kernel of all pairs at once: pure, and differentiable in its inputs.

    Args:
      config: of the random networks; their width does not matter.
      kind: ``nngp`` or ``ntk``, of the network with its dense readout.

    Raises:
      UserError: neural-tangents is not installed, or a kernel that there is not.
    """
    if kind not in KERNELS:
        raise UserError(f"there is no kernel {kind!r}; there are {', '.join(KERNELS)}")
    stax = _stax()
    own = {"W_std": config.weight_variance**0.5, "b_std": config.bias_std}
    block = (
        stax.Conv(1, (3, 3), padding="SAME", **own),
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
        _, _, of_pairs = stax.serial(*layers, stax.Flatten(), stax.Dense(1, **own))
        with jax.default_matmul_precision("highest"):
            # Where float64 is on it computes in float64, whatever it is given.
            return of_pairs(x1, x2, kind).astype(x1.dtype)

    return kernel


def pairs_at_once(
    image_shape: tuple[int, int],
    *,
    is_differentiated: bool,
    memory: int | None = None,
) -> int:
    """Pairs whose kernel is computed at once: as many as the memory is sure to hold.

    Args:
      image_shape: ``(f, t)`` of the inputs.
      is_differentiated: whether a backward pass follows.
      memory: bytes for it; None: this process's first device's share.

    Raises:
      UserError: there is no room for a single pair.
    """
    if memory is None:
        device = jax.local_devices()[0]
        share = memory_share(device.platform)
        memory = int(share * memory_of(device))
    positions = math.prod(image_shape) ** 2
    numbers = (_BACKWARD if is_differentiated else _FORWARD) * positions
    one = (8 if jax.config.jax_enable_x64 else 4) * numbers
    if one > memory:
        raise UserError(
            f"the exact kernel of one pair of spectrograms of {image_shape[0]} x "
            f"{image_shape[1]} takes {one / 1e9:.1f} GB, and there are "
            f"{memory / 1e9:.1f} GB for it: use smaller spectrograms, or random "
            "networks (krr, rfad)"
        )
    return min(memory // one, max(1, _MOST_NUMBERS // positions))


def tile_shape(pairs: int, rows: int, columns: int) -> tuple[int, int]:
    """Sides of a tile of at most ``pairs`` pairs, about square where it can be.

    Args:
      pairs: at once.
      rows: of the whole matrix.
      columns: of the whole matrix.
    """
    a = min(rows, math.isqrt(pairs))
    b = min(columns, pairs // a)
    a = min(rows, pairs // b)
    return balanced(rows, a), balanced(columns, b)


def rows(
    kernel: Kernel,
    x1: Float[Array, "a f t 1"],
    x2: Float[Array, "b f t 1"],
    pairs: int,
) -> Float[Array, "a b"]:
    """``kernel(x1, x2)``, some pairs at a time, differentiable in the same memory.

    Args:
      kernel: of all pairs.
      x1: inputs, a row each.
      x2: inputs, a column each.
      pairs: at once; in the backward pass they are computed again.
    """
    a, b = tile_shape(pairs, x1.shape[0], x2.shape[0])
    tile = jax.checkpoint(kernel)

    def strip(part: Float[Array, "a f t 1"]) -> Float[Array, "a b"]:
        return in_chunks(lambda other: tile(part, other).T, x2, b).T

    return in_chunks(strip, x1, a)
