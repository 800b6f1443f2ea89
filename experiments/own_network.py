"""A custom network that trains on coresets with the ConvNet's recipe.

    audiodd train --model=own_network:make --coreset=runs/tones/coreset.npz
    audiodd evaluate --workdir=runs/tones --protocol=convnet,own_network:make
    audiodd active --dataset=tones --model=own_network:make --acquisition=bald

Run the commands in this folder, or wherever Python can import the module. The network
separates time from frequency. Its argument ``drop`` allows Monte Carlo passes in active
learning.
"""

import flax.linen as nn


class Separable(nn.Module):
    """Blocks of convolutions along frequency, then along time.

    Attributes:
      num_classes: ``c``.
      width: Channels of each block.
      depth: Number of blocks.
    """

    num_classes: int
    width: int = 32
    depth: int = 3

    @nn.compact
    def __call__(self, x, *, train, drop=False):
        """Returns logits ``[b, c]`` of spectrograms ``[b, f, t, 1]``.

        Args:
          x: Standardised spectrograms.
          train: Normalise with batch statistics and apply dropout.
          drop: Apply dropout even if ``train`` is false.
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
    """Builds the network; ``audiodd`` calls this function."""
    return Separable(num_classes)
