"""The coreset as arrays on the device."""

from typing import NamedTuple

from jaxtyping import Array, Float

from audiodd_jax.coreset import packing


class CoresetArrays(NamedTuple):
    """A coreset on the device, as stored or at full length.

    Attributes:
      images: ``[s, f, t, 1]`` standardised log-mel spectrograms.
      labels: ``[s, c]`` soft labels, centred: a hard label is ``one_hot - 1/c``.
      log_scale: ``[]`` log of the learnt Platt scale, or 0.
    """

    images: Float[Array, "s f t 1"]
    labels: Float[Array, "s c"]
    log_scale: Float[Array, ""]

    def unpack(self, factor: int) -> "CoresetArrays":
        """Returns the ``s * factor`` full-length images and their labels."""
        images = packing.unpack(self.images, factor)
        return self._replace(images=images, labels=packing.repeat(self.labels, factor))

    def unfolded(self, factor: int) -> "CoresetArrays":
        """The former name of ``unpack``, kept for one version."""
        return self.unpack(factor)
