"""A coreset's arrays, and multi-formation: more samples for the same storage.

A stored spectrogram ``[f, t]`` is cut along time into ``factor`` pieces of ``t/factor``
frames, and each is stretched to ``t`` frames by linear interpolation before learning.
All pieces share its label.

References:
  Kim et al., *Dataset Condensation via Efficient Synthetic-Data Parameterization*, ICML
  2022, along both axes of an image.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from audiodd_jax.errors import UserError


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
        labels = repeat_labels(self.labels, factor)
        return self._replace(images=unpack(self.images, factor), labels=labels)

    def unfolded(self, factor: int) -> "CoresetArrays":
        """The former name of ``unpack``, kept for one version."""
        return self.unpack(factor)


def check_factor(frames: int, factor: int) -> None:
    """Raises UserError if the factor does not divide the frames."""
    if frames % factor:
        raise UserError(
            f"coreset.factor={factor} does not divide the {frames} frames of a "
            "spectrogram"
        )


def unpack(images: Float[Array, "s f t 1"], factor: int) -> Float[Array, "k f t 1"]:
    """Returns the ``k = s * factor`` full-length spectrograms of stored images.

    Pieces of one image follow each other. Linear in ``images``; the outermost frames
    are held at the ends. ``factor`` divides ``t``.
    """
    if factor == 1:
        return images
    s, f, t, _ = images.shape
    length = t // factor
    pieces = jnp.moveaxis(images.reshape(s, f, factor, length), 2, 1)
    # A matrix product instead of a gather, and so is its gradient.
    weights = jax.image.resize(
        jnp.eye(length, dtype=images.dtype), (t, length), "linear", antialias=False
    )
    long = jnp.einsum("skfl,tl->skft", pieces, weights, precision=lax.Precision.HIGHEST)
    return long.reshape(s * factor, f, t, 1)


def pack(images: Float[Array, "k f t 1"], factor: int) -> Float[Array, "s f t 1"]:
    """Stores ``factor`` spectrograms in each image, by averaging neighbouring frames.

    ``factor`` divides ``k`` and ``t``.
    """
    if factor == 1:
        return images
    k, f, t, _ = images.shape
    short = images.reshape(k // factor, factor, f, t // factor, factor).mean(-1)
    return jnp.moveaxis(short, 1, 2).reshape(k // factor, f, t, 1)


def repeat_labels(labels: Float[Array, "s c"], factor: int) -> Float[Array, "k c"]:
    """Repeats the label of each stored image for all of its pieces."""
    return labels if factor == 1 else jnp.repeat(labels, factor, axis=0)
