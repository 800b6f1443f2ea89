"""The ConvNet of dataset distillation: blocks of [3x3 conv, norm, ReLU, 2x2 pool].

References:
  Gidaris and Komodakis, *Dynamic Few-Shot Visual Learning without Forgetting*, CVPR
  2018; Zhao, Mopuri, Bilen, *Dataset Condensation with Gradient Matching*, ICLR 2021.
"""

import flax.linen as nn
from jaxtyping import Array

from audiodd_jax.networks.classifier import StagedClassifier
from audiodd_jax.networks.layers import Conv, norm_relu_pool


class ConvNet(StagedClassifier):
    """A small convolutional classifier of spectrograms of any size.

    Attributes:
      depth: number of blocks, all of the same width.
    """

    depth: int = 4

    @property
    def num_stages(self) -> int:
        """Number of blocks."""
        return self.depth

    @nn.compact
    def _stage(self, x: Array, stage: int, train: bool) -> Array:
        conv = Conv(
            self.width,
            use_bias=self.norm == "none",
            dtype=self.dtype,
            name=f"Conv_{stage}",
        )
        return norm_relu_pool(conv(x), self.norm, stage, train, self.dtype)
