"""The networks that are trained: ConvNet, ResNet-18, and a linear baseline.

A network has three parts, so that Monte Carlo passes repeat only what dropout changes:
``stem`` comes before the first dropout, ``features`` ends at the input of the last
layer, and ``logits`` is that layer.

References:
  ConvNet: Gidaris and Komodakis, *Dynamic Few-Shot Visual Learning without Forgetting*,
  CVPR 2018; Zhao, Mopuri, Bilen, *Dataset Condensation with Gradient Matching*, ICLR
  2021. ResNet: He, Zhang, Ren, Sun, *Deep Residual Learning for Image Recognition*,
  CVPR 2016; the last normalisation of a block starts at zero, as in Goyal et al.,
  *Accurate, Large Minibatch SGD*, 2017.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from audiodd_jax.networks.layers import (
    BatchNormPool,
    Conv,
    Drop,
    Dropout,
    Features,
    Head,
    Images,
    Logits,
    make_norm,
)
from audiodd_jax.networks.parameter_count import STAGES
from audiodd_jax.networks.pooling import POOL, max_pool, pool_any

# Types of normalisation layers, which are parts of the layers' names.
_NORMS = {"batch": "BatchNorm", "instance": "GroupNorm", "group": "_GroupNorm"}


class Classifier(nn.Module):
    """A classifier of one-channel spectrograms.

    Subclasses define ``stem(x, *, train)`` and ``features(stem, *, train, drop)``.

    Attributes:
      dropout: rate before the last layer.
      head: initial weights of the last layer, ``zero`` or ``random``.
    """

    num_classes: int
    dropout: float = 0.0
    head: str = "zero"

    def setup(self) -> None:
        """Makes the last layer, named as by ``nn.compact``."""
        self.Head_0 = Head(self.num_classes, self.dropout, self.head)

    def logits(self, features: Features, *, drop: Drop = False) -> Logits:
        """Applies the last layer."""
        return self.Head_0(features, drop)

    def __call__(self, x: Images, *, train: bool, drop: Drop | None = None) -> Logits:
        """Computes logits.

        Args:
          train: normalise by the batch's statistics, and update the running ones.
          drop: dropout masks; None: those of the batch, in training only.
        """
        drop = train if drop is None else drop
        stem = self.stem(x, train=train)
        return self.logits(self.features(stem, train=train, drop=drop), drop=drop)


class Linear(Classifier):
    """The baseline: logits linear in every bin of the spectrogram."""

    def stem(self, x: Images, *, train: bool) -> Features:
        """Flattens each spectrogram to a row."""
        return x.reshape(len(x), -1)

    def features(self, stem: Features, *, train: bool, drop: Drop = False) -> Features:
        """Returns the bins."""
        return stem


class StagedClassifier(Classifier):
    """A classifier made of convolutional stages, each followed by dropout.

    Subclasses define ``num_stages`` and ``_stage(x, stage, train)``.

    Attributes:
      width: channels of the first stage.
      norm: ``batch``, ``instance``, ``group`` or ``none``.
      readout: input of the last layer: ``flatten`` (the whole last feature map),
        ``time_mean`` (its mean over time), or ``mean`` (over time and frequency).
      block_dropout: rate after each stage, of whole channels.
      dtype: in which the stages compute.
    """

    width: int = 64
    norm: str = "batch"
    readout: str = "time_mean"
    block_dropout: float = 0.0
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Makes the layers that several methods use, named as by ``nn.compact``."""
        # Whole channels: neighbouring bins of a channel are highly correlated.
        self.Dropout = [
            Dropout(self.block_dropout, i, shared_axes=(1, 2))
            for i in range(self.num_stages)
        ]
        index = self.num_stages if self.block_dropout else 0
        self.Head_0 = Head(self.num_classes, self.dropout, self.head, index)

    def stem(self, x: Images, *, train: bool) -> Float[Array, "b f2 t2 w"]:
        """Applies the first stage, before any dropout."""
        return self._stage(x, 0, train)

    def features(
        self, stem: Float[Array, "b f2 t2 w"], *, train: bool, drop: Drop = False
    ) -> Features:
        """Applies the other stages and reduces the last feature map."""
        x = self.Dropout[0](stem, drop)
        for stage in range(1, self.num_stages):
            x = self.Dropout[stage](self._stage(x, stage, train), drop)
        axes = {"flatten": (), "time_mean": (2,), "mean": (1, 2)}[self.readout]
        return x.mean(axes).reshape(x.shape[0], -1)


class ConvNet(StagedClassifier):
    """``depth`` blocks of [3x3 convolution, norm, ReLU, 2x2 pool], all of one width."""

    depth: int = 4

    @property
    def num_stages(self) -> int:
        """Number of blocks."""
        return self.depth

    @nn.compact
    def _stage(self, x: Array, stage: int, train: bool) -> Array:
        use_bias = self.norm == "none"
        name = f"Conv_{stage}"
        x = Conv(self.width, use_bias=use_bias, dtype=self.dtype, name=name)(x)
        name = f"{_NORMS.get(self.norm)}_{stage}"
        is_even = all(side % POOL == 0 for side in x.shape[1:3])
        if self.norm == "batch" and train and is_even:
            return BatchNormPool(name=name)(x.astype(self.dtype))
        norm = make_norm(self.norm, train, self.dtype)(name=name)
        return pool_any(nn.relu(norm(x)))


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
            x = Conv(self.width, size, stride, dtype=self.dtype)(x)
            x = nn.relu(make_norm(self.norm, train, self.dtype)()(x))
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
