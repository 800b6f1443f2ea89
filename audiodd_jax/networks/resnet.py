"""ResNet-18 for one-channel spectrograms.

References:
  He, Zhang, Ren, Sun, *Deep Residual Learning for Image Recognition*, CVPR 2016; the
  last normalisation of a block starts at zero, as in Goyal et al., *Accurate, Large
  Minibatch SGD*, 2017.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from audiodd_jax.networks.convnet import read
from audiodd_jax.networks.layers import Conv, Drop, Dropout, Head, make_norm, norm_name
from audiodd_jax.networks.parameter_count import STAGES
from audiodd_jax.networks.pooling import max_pool


class ResNet18(nn.Module):
    """ResNet-18.

    Attributes:
      num_classes: ``c``.
      width: channels of the first stage; each further stage doubles them.
      norm: ``batch``, ``instance``, ``group`` or ``none``.
      stem_kind: ``imagenet`` (7x7 convolution of stride 2, 3x3 maximum pool of stride
        2) or ``small`` (3x3 convolution of stride 1), with four times the resolution
        at sixteen times the cost.
      readout: ``mean`` as published, ``time_mean`` or ``flatten``.
      dropout: rate before the last layer.
      block_dropout: rate after each stage, of whole channels.
      head: initial weights of the last layer, ``zero`` or ``random``.
      dtype: in which the blocks compute.
    """

    num_classes: int
    width: int = 64
    norm: str = "batch"
    stem_kind: str = "imagenet"
    readout: str = "mean"
    dropout: float = 0.0
    block_dropout: float = 0.0
    head: str = "zero"
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Makes what several methods use, under the names of ``nn.compact``."""
        rate, stages = self.block_dropout, range(len(STAGES))
        self.Dropout = [Dropout(rate, i, shared_axes=(1, 2)) for i in stages]
        index = len(STAGES) if rate else 0
        self.Head_0 = Head(self.num_classes, self.dropout, self.head, index)

    @nn.compact
    def _stage(self, x: Array, stage: int, train: bool) -> Array:
        if stage == 0:
            size, stride = (7, 2) if self.stem_kind == "imagenet" else (3, 1)
            x = Conv(self.width, size, stride, dtype=self.dtype, name="Conv_0")(x)
            norm = make_norm(self.norm, train, self.dtype)
            x = nn.relu(norm(**norm_name(self.norm, 0))(x))
            if self.stem_kind == "imagenet":
                x = max_pool(x)
        for block in range(STAGES[stage]):
            name = f"_Block_{sum(STAGES[:stage]) + block}"
            stride = 2 if stage and not block else 1
            width = self.width * 2**stage
            x = _Block(width, stride, self.norm, self.dtype, name=name)(x, train=train)
        return x

    def stem(
        self, x: Float[Array, "b f t 1"], *, train: bool
    ) -> Float[Array, "b f2 t2 w"]:
        """The first stage and what comes before it: what no dropout changes."""
        return self._stage(x, 0, train)

    def features(
        self, stem: Float[Array, "b f2 t2 w"], *, train: bool, drop: Drop = False
    ) -> Float[Array, "b d"]:
        """What the last layer reads."""
        x = self.Dropout[0](stem, drop)
        for stage in range(1, len(STAGES)):
            x = self.Dropout[stage](self._stage(x, stage, train), drop)
        return read(x, self.readout)

    def logits(
        self, features: Float[Array, "b d"], *, drop: Drop = False
    ) -> Float[Array, "b c"]:
        """Logits of features."""
        return self.Head_0(features, drop)

    def __call__(
        self, x: Float[Array, "b f t 1"], *, train: bool, drop: Drop | None = None
    ) -> Float[Array, "b c"]:
        """Logits; the arguments are those of ``ConvNet``."""
        drop = train if drop is None else drop
        stem = self.stem(x, train=train)
        return self.logits(self.features(stem, train=train, drop=drop), drop=drop)


class _Block(nn.Module):
    """Two 3x3 convolutions and a shortcut, a 1x1 convolution where shapes differ."""

    width: int
    stride: int
    norm: str
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "b f t w"], *, train: bool) -> Array:
        norm = make_norm(self.norm, train, self.dtype)
        y = nn.relu(norm()(Conv(self.width, 3, self.stride, dtype=self.dtype)(x)))
        y = Conv(self.width, dtype=self.dtype)(y)
        y = norm(scale_init=nn.initializers.zeros)(y)
        if x.shape != y.shape:
            x = norm()(Conv(self.width, 1, self.stride, dtype=self.dtype)(x))
        return nn.relu(x + y)
