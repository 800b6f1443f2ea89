"""The ConvNet of dataset distillation: blocks of [3x3 conv, norm, ReLU, 2x2 pool].

References:
  Gidaris and Komodakis, *Dynamic Few-Shot Visual Learning without Forgetting*, CVPR
  2018; Zhao, Mopuri, Bilen, *Dataset Condensation with Gradient Matching*, ICLR 2021.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from audiodd_jax.networks.layers import Conv, Head, make_norm
from audiodd_jax.ops.pooling import pool_any


class ConvNet(nn.Module):
    """A small convolutional classifier of one-channel spectrograms of any size.

    Attributes:
      num_classes: ``c``.
      depth: blocks.
      width: channels of each.
      norm: ``batch``, ``instance``, ``group`` or ``none``.
      readout: what the logits are read from: ``flatten`` (the whole last feature map),
        ``time_mean`` (its mean over time), or ``mean`` (over time and frequency).
      dropout: rate before the logits.
      block_dropout: rate after each block, of whole channels.
      head: weights of the last layer at the start, ``zero`` or ``random``.
      dtype: of the blocks' computations.
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

    @nn.compact
    def __call__(
        self, x: Float[Array, "b f t 1"], *, train: bool, drop: bool | None = None
    ) -> Float[Array, "b c"]:
        """Logits.

        Args:
          x: standardised spectrograms.
          train: normalise by the batch's statistics, and update the running ones.
          drop: whether dropout is on; None: in training alone.
        """
        drop = train if drop is None else drop
        norm = make_norm(self.norm, train, self.dtype)
        for _ in range(self.depth):
            x = Conv(self.width, use_bias=self.norm == "none", dtype=self.dtype)(x)
            x = pool_any(nn.relu(norm()(x)))
            # Whole channels: neighbouring bins of one say nearly the same.
            x = nn.Dropout(self.block_dropout, broadcast_dims=(1, 2))(
                x, deterministic=not drop
            )
        return Head(self.num_classes, self.dropout, self.head)(
            read(x, self.readout), drop=drop
        )


def read(x: Float[Array, "b f t w"], readout: str) -> Float[Array, "b d"]:
    """Features of the last feature map: all of it, or its mean over some axes."""
    axes = {"flatten": (), "time_mean": (2,), "mean": (1, 2)}[readout]
    return x.mean(axes).reshape(x.shape[0], -1)
