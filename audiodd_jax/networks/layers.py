"""Layers shared by the networks that are trained."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from audiodd_jax.networks import convolution
from audiodd_jax.networks.pooling import EPSILON, batch_norm_pool

# Share of the past in the running statistics of batch normalisation.
_MOMENTUM = 0.9
# Most groups of group normalisation.
_GROUPS = 8

# Standardised spectrograms, inputs of the last layer, and logits.
Images = Float[Array, "b f t 1"]
Features = Float[Array, "b d"]
Logits = Float[Array, "b c"]
# Dropout masks. False: none; True: one set for the batch, from the random stream
# "dropout"; a key per clip: masks that do not depend on the rest of the batch.
Drop = bool | Key[Array, " b"]


class Conv(nn.Module):
    """A convolution of odd size, He-initialised, with fast gradients on CPU."""

    features: int
    size: int = 3
    stride: int = 1
    use_bias: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b f t w"]) -> Float[Array, "b f2 t2 w2"]:
        """Convolves in ``dtype``."""
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape)
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        if self.size == 1:
            x = convolution.pointwise(x, kernel, self.stride)
        else:
            x = convolution.conv(x, kernel, self.stride)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            x = x + bias.astype(self.dtype)
        return x


def make_norm(
    kind: str, train: bool, dtype: DTypeLike
) -> Callable[..., Callable[[Array], Array]]:
    """Returns a constructor of normalisation layers; statistics are float32.

    ``kind`` is ``batch``, ``instance``, ``group`` or ``none``; batch normalisation
    takes the batch's statistics to ``train``, otherwise the running ones.
    """
    if kind == "batch":
        return functools.partial(
            nn.BatchNorm,
            use_running_average=not train,
            momentum=_MOMENTUM,
            epsilon=EPSILON,
            dtype=dtype,
        )
    if kind == "instance":
        return functools.partial(
            nn.GroupNorm, num_groups=None, group_size=1, epsilon=1e-5, dtype=dtype
        )
    if kind == "group":
        return functools.partial(_GroupNorm, dtype=dtype)
    return lambda **_: lambda x: x


class BatchNormPool(nn.Module):
    """Batch normalisation in training, ReLU and pooling, faster on CPU.

    The variables are those of ``nn.BatchNorm``, which inference uses.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "b f t w"]) -> Float[Array, "b f2 t2 w"]:
        """Normalises and pools, and updates the running statistics."""
        shape = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        running = (
            self.variable("batch_stats", "mean", jnp.zeros, shape),
            self.variable("batch_stats", "var", jnp.ones, shape),
        )
        x, *statistics = batch_norm_pool(x, scale, bias)
        if not self.is_initializing():
            for old, new in zip(running, statistics, strict=True):
                old.value = _MOMENTUM * old.value + (1 - _MOMENTUM) * new
        return x


class _GroupNorm(nn.Module):
    """Group normalisation with the largest possible number of groups, up to eight."""

    dtype: DTypeLike
    scale_init: Any = nn.initializers.ones

    @nn.compact
    def __call__(self, x: Float[Array, "b f t w"]) -> Float[Array, "b f t w"]:
        groups = max(g for g in range(1, _GROUPS + 1) if x.shape[-1] % g == 0)
        return nn.GroupNorm(
            num_groups=groups, dtype=self.dtype, scale_init=self.scale_init
        )(x)


class Dropout(nn.Module):
    """Dropout with masks per batch or per clip.

    Attributes:
      rate: probability that a value is set to zero.
      index: number of this layer in its network, folded into the clips' keys.
      shared_axes: axes along which values share a mask.
    """

    rate: float
    index: int = 0
    shared_axes: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, x: Float[Array, "b *rest"], drop: Drop) -> Array:
        """Sets values to zero and divides the others by ``1 - rate``."""
        if drop is False or not self.rate:
            return x
        shape = [1 if i in self.shared_axes else side for i, side in enumerate(x.shape)]
        if drop is True:
            keep = jax.random.bernoulli(self.make_rng("dropout"), 1 - self.rate, shape)
        else:
            mask = lambda key: jax.random.bernoulli(
                jax.random.fold_in(key, self.index), 1 - self.rate, shape[1:]
            )
            keep = jax.vmap(mask)(drop)
        return jnp.where(keep, x / (1 - self.rate), 0)


class Head(nn.Module):
    """Dropout and a dense layer to the logits, in float32 or wider.

    With zero weights all classes are equally likely before the first step, whatever the
    scale of the features.

    Attributes:
      start: initial weights, ``zero`` or ``random`` (LeCun's).
      dropout_index: number of dropout layers before this one.
    """

    num_classes: int
    dropout: float
    start: str = "zero"
    dropout_index: int = 0

    @nn.compact
    def __call__(self, x: Features, drop: Drop) -> Logits:
        """Computes logits from features."""
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        x = Dropout(self.dropout, self.dropout_index)(x, drop)
        is_zero = self.start == "zero"
        draw = nn.initializers.zeros if is_zero else nn.initializers.lecun_normal()
        return nn.Dense(self.num_classes, kernel_init=draw, precision="highest")(x)
