"""A linear classifier of log-mel spectrograms: the baseline of the networks."""

import flax.linen as nn
from jaxtyping import Array, Float

from audiodd_jax.networks.layers import Drop, Head


class Linear(nn.Module):
    """Logits linear in every bin of the spectrogram.

    Attributes:
      num_classes: ``c``.
      dropout: rate of the bins.
      head: initial weights, ``zero`` or ``random``.
    """

    num_classes: int
    dropout: float = 0.0
    head: str = "zero"

    def setup(self) -> None:
        """Makes the head, under the name that ``nn.compact`` would give it."""
        self.Head_0 = Head(self.num_classes, self.dropout, self.head)

    def stem(self, x: Float[Array, "b f t 1"], *, train: bool) -> Float[Array, "b d"]:
        """The spectrogram as one row."""
        return x.reshape(len(x), -1)

    def features(
        self, stem: Float[Array, "b d"], *, train: bool, drop: Drop = False
    ) -> Float[Array, "b d"]:
        """What the last layer reads: the spectrogram."""
        return stem

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
