"""The ConvNet of dataset distillation: blocks of [3x3 conv, norm, ReLU, 2x2 pool].

References:
  Gidaris and Komodakis, *Dynamic Few-Shot Visual Learning without Forgetting*, CVPR
  2018; Zhao, Mopuri, Bilen, *Dataset Condensation with Gradient Matching*, ICLR 2021.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from audiodd_jax.networks.layers import Conv, Drop, Dropout, Head, norm_relu_pool


class ConvNet(nn.Module):
    """A small convolutional classifier of one-channel spectrograms of any size.

    Attributes:
      num_classes: ``c``.
      depth: number of blocks.
      width: channels of each block.
      norm: ``batch``, ``instance``, ``group`` or ``none``.
      readout: what the head reads: ``flatten`` (the whole last feature map),
        ``time_mean`` (its mean over time), or ``mean`` (over time and frequency).
      dropout: rate before the last layer.
      block_dropout: rate after each block, of whole channels.
      head: initial weights of the last layer, ``zero`` or ``random``.
      dtype: in which the blocks compute.
    """

    num_classes: int
    depth: int = 4
    width: int = 64
    norm: str = "batch"
    readout: str = "time_mean"
    dropout: float = 0.0
    block_dropout: float = 0.0
    head: str = "zero"
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Makes what several methods use, under the names of ``nn.compact``."""
        rate = self.block_dropout
        # Whole channels: neighbouring bins of a channel are highly correlated.
        self.Dropout = [Dropout(rate, i, shared_axes=(1, 2)) for i in range(self.depth)]
        index = self.depth if rate else 0
        self.Head_0 = Head(self.num_classes, self.dropout, self.head, index)

    @nn.compact
    def _block(self, x: Array, i: int, train: bool) -> Array:
        no_norm = self.norm == "none"
        conv = Conv(self.width, use_bias=no_norm, dtype=self.dtype, name=f"Conv_{i}")
        return norm_relu_pool(conv(x), self.norm, i, train, self.dtype)

    def stem(
        self, x: Float[Array, "b f t 1"], *, train: bool
    ) -> Float[Array, "b f2 t2 w"]:
        """The first block: what no dropout changes."""
        return self._block(x, 0, train)

    def features(
        self, stem: Float[Array, "b f2 t2 w"], *, train: bool, drop: Drop = False
    ) -> Float[Array, "b d"]:
        """What the last layer reads."""
        x = self.Dropout[0](stem, drop)
        for i in range(1, self.depth):
            x = self.Dropout[i](self._block(x, i, train), drop)
        return read(x, self.readout)

    def logits(
        self, features: Float[Array, "b d"], *, drop: Drop = False
    ) -> Float[Array, "b c"]:
        """Logits of features."""
        return self.Head_0(features, drop)

    def __call__(
        self, x: Float[Array, "b f t 1"], *, train: bool, drop: Drop | None = None
    ) -> Float[Array, "b c"]:
        """Logits.

        Args:
          x: standardised spectrograms.
          train: normalise by the batch's statistics, and update the running ones.
          drop: dropout masks (``layers.Drop``); None: the batch's, in training only.
        """
        drop = train if drop is None else drop
        stem = self.stem(x, train=train)
        return self.logits(self.features(stem, train=train, drop=drop), drop=drop)


def read(x: Float[Array, "b f t w"], readout: str) -> Float[Array, "b d"]:
    """Features of the last feature map: all of it, or its mean over some axes."""
    axes = {"flatten": (), "time_mean": (2,), "mean": (1, 2)}[readout]
    return x.mean(axes).reshape(x.shape[0], -1)
