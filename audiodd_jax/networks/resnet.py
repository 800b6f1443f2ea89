"""ResNet-18 for one-channel spectrograms.

References:
  He, Zhang, Ren, Sun, *Deep Residual Learning for Image Recognition*, CVPR 2016; the
  last normalisation of a block starts at zero, as in Goyal et al., *Accurate, Large
  Minibatch SGD*, 2017.
"""

import flax.linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from audiodd_jax.networks.classifier import StagedClassifier
from audiodd_jax.networks.layers import Conv, make_norm, norm_name
from audiodd_jax.networks.parameter_count import STAGES
from audiodd_jax.networks.pooling import max_pool


class ResNet18(StagedClassifier):
    """ResNet-18; each stage after the first has twice the channels of the last.

    Attributes:
      readout: ``mean`` as published, ``time_mean`` or ``flatten``.
      stem_kind: ``imagenet`` (7x7 convolution of stride 2, 3x3 maximum pool of stride
        2) or ``small`` (3x3 convolution of stride 1), with four times the resolution
        at sixteen times the cost.
    """

    readout: str = "mean"
    stem_kind: str = "imagenet"

    @property
    def num_stages(self) -> int:
        """Number of stages, of which the first includes the stem's convolution."""
        return len(STAGES)

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
