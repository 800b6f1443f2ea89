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
from audiodd_jax.networks.layers import Conv, Head, make_norm
from audiodd_jax.networks.parameter_count import STAGES
from audiodd_jax.ops.pooling import max_pool


class ResNet18(nn.Module):
    """ResNet-18.

    Attributes:
      num_classes: ``c``.
      width: channels of the first stage; each next one has twice as many.
      norm: ``batch``, ``instance``, ``group`` or ``none``.
      stem: ``imagenet`` (7x7 convolution of stride 2, 3x3 maximum pool of stride 2) or
        ``small`` (3x3 convolution of stride 1), which keeps four times the resolution
        and takes sixteen times the time.
      readout: ``mean`` as published, ``time_mean`` or ``flatten``.
      dropout: rate before the logits.
      block_dropout: rate after each stage, of whole channels.
      head: weights of the last layer at the start, ``zero`` or ``random``.
      dtype: of the blocks' computations.
    """

    num_classes: int
    width: int = 64
    norm: str = "batch"
    stem: str = "imagenet"
    readout: str = "mean"
    dropout: float = 0.0
    block_dropout: float = 0.0
    head: str = "zero"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b f t 1"], *, train: bool, drop: bool | None = None
    ) -> Float[Array, "b c"]:
        """Logits; the arguments are those of ``ConvNet``."""
        drop = train if drop is None else drop
        norm = make_norm(self.norm, train, self.dtype)
        size, stride = (7, 2) if self.stem == "imagenet" else (3, 1)
        x = Conv(self.width, size, stride, dtype=self.dtype)(x)
        x = nn.relu(norm()(x))
        if self.stem == "imagenet":
            x = max_pool(x)
        for stage, blocks in enumerate(STAGES):
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                width = self.width * 2**stage
                x = _Block(width, stride, self.norm, self.dtype)(x, train=train)
            x = nn.Dropout(self.block_dropout, broadcast_dims=(1, 2))(
                x, deterministic=not drop
            )
        return Head(self.num_classes, self.dropout, self.head)(
            read(x, self.readout), drop=drop
        )


class _Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut, a 1x1 convolution where shapes change."""

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
