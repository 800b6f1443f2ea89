"""The linear classifier, and base modules of the networks that are trained.

A network has three parts, so that Monte Carlo passes repeat only what dropout changes:
``stem`` comes before the first dropout, ``features`` ends at the input of the last
layer, and ``logits`` is that layer.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from audiodd_jax.networks.layers import Drop, Dropout, Features, Head, Images, Logits


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
