"""The coreset as arrays on the device."""

from typing import NamedTuple

from jaxtyping import Array, Float

from audiodd_jax.coreset import multi_formation


class CoresetArrays(NamedTuple):
    """A coreset on the device, as it is stored or as it is learnt from.

    Attributes:
      images: ``[s, f, t, 1]`` standardised log-mel spectrograms.
      labels: ``[s, c]`` soft labels, centred: a one-hot label is ``one_hot - 1/c``.
      log_scale: ``[]`` log of the learnt Platt scale; 0 where none is learnt.
    """

    images: Float[Array, "s f t 1"]
    labels: Float[Array, "s c"]
    log_scale: Float[Array, ""]

    def unfolded(self, factor: int) -> "CoresetArrays":
        """What learners take of a stored coreset: ``s * factor`` images and labels."""
        images = multi_formation.stretch(self.images, factor)
        return self._replace(
            images=images, labels=multi_formation.shared(self.labels, factor)
        )
