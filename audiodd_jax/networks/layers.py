"""Layers that the trained networks share."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from audiodd_jax.ops import convolution

# Channels that group normalisation takes together, at most.
_GROUPS = 8


class Conv(nn.Module):
    """A convolution of odd size, He-initialised, whose gradients are fast on CPU.

    A 1x1 kernel is a matrix product, which XLA:CPU runs six times faster.
    """

    features: int
    size: int = 3
    stride: int = 1
    use_bias: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b f t w"]) -> Float[Array, "b f2 t2 w2"]:
        """Convolves, in ``dtype``."""
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape)
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        if self.size == 1:
            x = jnp.dot(x[:, :: self.stride, :: self.stride], kernel[0, 0])
        else:
            x = convolution.conv(x, kernel, self.stride)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            x = x + bias.astype(self.dtype)
        return x


def make_norm(
    kind: str, train: bool, dtype: DTypeLike
) -> Callable[..., Callable[[Array], Array]]:
    """What makes normalisation layers: ``batch``, ``instance``, ``group`` or ``none``.

    Statistics are float32 whatever ``dtype`` is.
    """
    if kind == "batch":
        return functools.partial(
            nn.BatchNorm, use_running_average=not train, momentum=0.9, dtype=dtype
        )
    if kind == "instance":
        return functools.partial(
            nn.GroupNorm, num_groups=None, group_size=1, epsilon=1e-5, dtype=dtype
        )
    if kind == "group":
        return functools.partial(_GroupNorm, dtype=dtype)
    return lambda **_: lambda x: x


class _GroupNorm(nn.Module):
    """Group normalisation in as many groups as divide the channels, up to eight."""

    dtype: DTypeLike
    scale_init: Any = nn.initializers.ones

    @nn.compact
    def __call__(self, x: Float[Array, "b f t w"]) -> Float[Array, "b f t w"]:
        groups = max(g for g in range(1, _GROUPS + 1) if x.shape[-1] % g == 0)
        return nn.GroupNorm(
            num_groups=groups, dtype=self.dtype, scale_init=self.scale_init
        )(x)


class Head(nn.Module):
    """Dropout and a dense layer to the logits, in float32 at least.

    From zero weights every class is equally likely before the first step, whatever the
    features' scale; random ones are LeCun's.
    """

    num_classes: int
    dropout: float
    start: str = "zero"

    @nn.compact
    def __call__(self, x: Float[Array, "b d"], *, drop: bool) -> Float[Array, "b c"]:
        """Logits of features."""
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        x = nn.Dropout(self.dropout, deterministic=not drop)(x)
        draw = {
            "zero": nn.initializers.zeros,
            "random": nn.initializers.lecun_normal(),
        }[self.start]
        return nn.Dense(self.num_classes, kernel_init=draw)(x)
