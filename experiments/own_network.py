"""A network of one's own on a coreset, by the same recipe and in the same tables.

    audiodd train --model=own_network:make --coreset=runs/tones/coreset.npz
    audiodd evaluate --workdir=runs/tones --protocol=convnet,own_network:make
    audiodd active --dataset=tones --model=own_network:make --acquisition=bald

in this folder, or wherever Python finds the module. The network separates time from
frequency; it takes ``drop``, so that active learning can draw Monte Carlo passes.
"""

import flax.linen as nn


class Separable(nn.Module):
    """Blocks of convolutions along frequency, then along time.

    Attributes:
      num_classes: ``c``.
      width: channels.
      depth: number of blocks.
    """

    num_classes: int
    width: int = 32
    depth: int = 3

    @nn.compact
    def __call__(self, x, *, train, drop=False):
        """Logits ``[b, c]`` of spectrograms ``[b, f, t, 1]``.

        Args:
          x: standardised spectrograms.
          train: normalise by the batch, and drop out.
          drop: drop out in any case.
        """
        for _ in range(self.depth):
            x = nn.Conv(self.width, (3, 1), use_bias=False)(x)
            x = nn.Conv(self.width, (1, 5), use_bias=False)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
            x = nn.avg_pool(x, (2, 2), (2, 2))
        x = x.reshape(x.shape[0], -1)
        x = nn.Dropout(0.2, deterministic=not (train or drop))(x)
        return nn.Dense(self.num_classes)(x)


def make(num_classes):
    """The network; ``audiodd`` calls this."""
    return Separable(num_classes)
