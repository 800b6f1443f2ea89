"""A linear classifier of log-mel spectrograms: the baseline of the networks."""

from jaxtyping import Array, Float

from audiodd_jax.networks.classifier import Classifier
from audiodd_jax.networks.layers import Drop


class Linear(Classifier):
    """Logits linear in every bin of the spectrogram, which are its features."""

    def stem(self, x: Float[Array, "b f t 1"], *, train: bool) -> Float[Array, "b d"]:
        """Flattens each spectrogram to a row."""
        return x.reshape(len(x), -1)

    def features(
        self, stem: Float[Array, "b d"], *, train: bool, drop: Drop = False
    ) -> Float[Array, "b d"]:
        """Returns the bins."""
        return stem
