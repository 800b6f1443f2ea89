"""Layers shared by the networks that are trained."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from audiodd_jax.networks import batch_norm_pool, convolution
from audiodd_jax.networks.pooling import POOL, pool_any

# Share of the past in the running statistics of batch normalisation.
_MOMENTUM = 0.9
# Most groups of group normalisation.
_GROUPS = 8


class Conv(nn.Module):
    """A convolution of odd size, He-initialised, with fast gradients on CPU."""

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
    """A constructor of normalisation layers of this kind; statistics are float32.

    Args:
      kind: ``batch``, ``instance``, ``group`` or ``none``.
      train: normalise by the batch's statistics, not by the running ones.
      dtype: of the outputs.
    """
    if kind == "batch":
        return functools.partial(
            nn.BatchNorm,
            use_running_average=not train,
            momentum=_MOMENTUM,
            epsilon=batch_norm_pool.EPSILON,
            dtype=dtype,
        )
    if kind == "instance":
        return functools.partial(
            nn.GroupNorm, num_groups=None, group_size=1, epsilon=1e-5, dtype=dtype
        )
    if kind == "group":
        return functools.partial(_GroupNorm, dtype=dtype)
    return lambda **_: lambda x: x


def norm_name(kind: str, index: int) -> dict[str, str]:
    """The name that ``nn.compact`` gives to a network's norm of this index."""
    names = {"batch": "BatchNorm", "instance": "GroupNorm", "group": "_GroupNorm"}
    return {"name": f"{names[kind]}_{index}"} if kind in names else {}


class BatchNormPool(nn.Module):
    """``nn.BatchNorm`` by the batch's statistics, ReLU and pooling, faster on CPU.

    Variables are those of ``nn.BatchNorm``, which is used for inference.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "b f t w"]) -> Float[Array, "b f2 t2 w"]:
        """Pools the normalised images, and updates the running statistics."""
        shape = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        running = (
            self.variable("batch_stats", "mean", jnp.zeros, shape),
            self.variable("batch_stats", "var", jnp.ones, shape),
        )
        x, *found = batch_norm_pool.batch_norm_pool(x, scale, bias)
        if not self.is_initializing():
            for old, new in zip(running, found, strict=True):
                old.value = _MOMENTUM * old.value + (1 - _MOMENTUM) * new
        return x


def norm_relu_pool(
    x: Float[Array, "b f t w"], kind: str, index: int, train: bool, dtype: DTypeLike
) -> Float[Array, "b f2 t2 w"]:
    """The end of a block: a norm of ``make_norm``, ReLU and pooling, in ``dtype``.

    Args:
      x: what the block's convolution gave.
      kind: of the norm.
      index: of the norm in its network, part of its name.
      train: normalise by the batch's statistics, not by the running ones.
      dtype: of the outputs.
    """
    name = norm_name(kind, index)
    is_even = all(side % POOL == 0 for side in x.shape[1:3])
    if kind == "batch" and train and is_even:
        return BatchNormPool(**name)(x.astype(dtype))
    return pool_any(nn.relu(make_norm(kind, train, dtype)(**name)(x)))


class _GroupNorm(nn.Module):
    """Group normalisation in the largest number of groups that fits, up to eight."""

    dtype: DTypeLike
    scale_init: Any = nn.initializers.ones

    @nn.compact
    def __call__(self, x: Float[Array, "b f t w"]) -> Float[Array, "b f t w"]:
        groups = max(g for g in range(1, _GROUPS + 1) if x.shape[-1] % g == 0)
        return nn.GroupNorm(
            num_groups=groups, dtype=self.dtype, scale_init=self.scale_init
        )(x)


# Which dropout masks a network draws: False: none; True: the batch's, from the random
# stream "dropout"; a key per clip: each clip's own, whatever else is in the batch.
Drop = bool | Key[Array, " b"]


class Dropout(nn.Module):
    """Dropout.

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
        """``x`` with values set to zero, and the others divided by ``1 - rate``."""
        if drop is False or not self.rate:
            return x
        shape = [1 if i in self.shared_axes else side for i, side in enumerate(x.shape)]
        if drop is True:
            keep = jax.random.bernoulli(self.make_rng("dropout"), 1 - self.rate, shape)
        else:
            own = lambda key: jax.random.bernoulli(
                jax.random.fold_in(key, self.index), 1 - self.rate, shape[1:]
            )
            keep = jax.vmap(own)(drop)
        return jnp.where(keep, x / (1 - self.rate), 0)


class Head(nn.Module):
    """Dropout and a dense layer to the logits, in float32 or wider.

    With zero weights every class is equally likely before the first step, whatever the
    scale of the features; random weights are LeCun's.

    Attributes:
      num_classes: ``c``.
      dropout: rate.
      start: initial weights, ``zero`` or ``random``.
      dropout_index: number of dropout layers before this one.
    """

    num_classes: int
    dropout: float
    start: str = "zero"
    dropout_index: int = 0

    @nn.compact
    def __call__(self, x: Float[Array, "b d"], drop: Drop) -> Float[Array, "b c"]:
        """Logits of features."""
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        x = Dropout(self.dropout, self.dropout_index)(x, drop)
        draw = {
            "zero": nn.initializers.zeros,
            "random": nn.initializers.lecun_normal(),
        }[self.start]
        return nn.Dense(self.num_classes, kernel_init=draw, precision="highest")(x)
