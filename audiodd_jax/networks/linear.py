"""A linear classifier on the log-mel spectrogram: what no network adds to."""

import flax.linen as nn
from jaxtyping import Array, Float

from audiodd_jax.networks.layers import Head


class Linear(nn.Module):
    """Logits linear in every bin of the spectrogram.

    Attributes:
      num_classes: ``c``.
      dropout: rate of the bins.
      head: weights at the start, ``zero`` or ``random``.
    """

    num_classes: int
    dropout: float = 0.0
    head: str = "zero"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b f t 1"], *, train: bool, drop: bool | None = None
    ) -> Float[Array, "b c"]:
        """Logits; the arguments are those of ``ConvNet``."""
        drop = train if drop is None else drop
        return Head(self.num_classes, self.dropout, self.head)(
            x.reshape(len(x), -1), drop=drop
        )
