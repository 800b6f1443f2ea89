"""A coreset's arrays, and multi-formation: more samples for the same storage.

A stored spectrogram ``[f, t]`` is cut along mel bins and time into pieces, and each is
stretched to ``[f, t]`` by linear interpolation before learning. All pieces share its
label. ``factor`` is the setting ``coreset.factor`` (see ``config.packing``).

References:
  Kim et al., *Dataset Condensation via Efficient Synthetic-Data Parameterization*, ICML
  2022. Bengio, Léonard, Courville, *Estimating or Propagating Gradients Through
  Stochastic Neurons*, 2013 (straight-through estimator).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from audiodd_jax.config.packing import Factor, Packing
from audiodd_jax.coreset.storage import BITS, LEAST_SCALE
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

    def unpack(self, factor: Factor) -> "CoresetArrays":
        """Returns the full-size spectrograms in the images, and their labels."""
        labels = repeat_labels(self.labels, factor)
        return self._replace(images=unpack(self.images, factor), labels=labels)

    def unfolded(self, factor: Factor) -> "CoresetArrays":
        """The former name of ``unpack``, kept for one version."""
        return self.unpack(factor)


def check_factor(shape: tuple[int, int], factor: Factor) -> None:
    """Raises UserError if the factor does not divide a spectrogram ``[f, t]``."""
    packing = Packing.parse(factor)
    parts = zip(shape, packing[:2], ("mel bins", "frames"), strict=True)
    for size, pieces, name in parts:
        if size % pieces:
            raise UserError(
                f"coreset.factor={packing.setting} does not divide the {size} {name} "
                "of a spectrogram"
            )


def unpack(images: Float[Array, "s h w 1"], factor: Factor) -> Float[Array, "k f t 1"]:
    """Returns the ``k`` full-size spectrograms of stored images.

    Pieces of one image follow each other, low mel bins first. Linear in ``images``; the
    outermost bins and frames are held at the ends. ``factor`` divides the images.
    """
    packing = Packing.parse(factor)
    if packing == Packing():
        return images
    s, h, w, _ = images.shape
    rows, columns = packing.grid
    pieces = images.reshape(s, rows, h // rows, columns, w // columns)
    pieces = jnp.moveaxis(pieces, 3, 2).reshape(-1, h // rows, w // columns)
    if packing.frames > 1:
        pieces = _stretch(pieces, packing.frames)
    if packing.mel > 1:
        pieces = _stretch(pieces.swapaxes(1, 2), packing.mel).swapaxes(1, 2)
    return pieces[..., None]


def _stretch(pieces: Float[Array, "k h w"], factor: int) -> Float[Array, "k h v"]:
    """Stretches the last axis by linear interpolation."""
    size = pieces.shape[2]
    # A matrix product instead of a gather, and so is its gradient.
    weights = jax.image.resize(
        jnp.eye(size, dtype=pieces.dtype),
        (factor * size, size),
        "linear",
        antialias=False,
    )
    return jnp.einsum("khl,tl->kht", pieces, weights, precision=lax.Precision.HIGHEST)


def pack(images: Float[Array, "k f t 1"], factor: Factor) -> Float[Array, "s h w 1"]:
    """Stores spectrograms in images, by averaging neighbouring bins and frames.

    ``factor`` divides ``k``, ``f`` and ``t``.
    """
    packing = Packing.parse(factor)
    if packing == Packing():
        return images
    k, f, t, _ = images.shape
    mel, frames, _ = packing
    rows, columns = packing.grid
    small = images.reshape(k, f // mel, mel, t // frames, frames).mean((2, 4))
    grid = small.reshape(-1, rows, columns, f // mel, t // frames)
    height, width = packing.image_shape((f, t))
    return jnp.moveaxis(grid, 2, 3).reshape(-1, height, width, 1)


def rounded(images: Float[Array, "s f t 1"], storage: str) -> Float[Array, "s f t 1"]:
    """Rounds images to the few levels in which ``storage`` keeps them, if it does.

    Their gradient is as if they were not rounded (the straight-through estimator).
    """
    if storage not in BITS:
        return images
    steps, axes = 2 ** BITS[storage] - 1, (1, 2, 3)
    lowest = images.min(axes, keepdims=True)
    scale = (images.max(axes, keepdims=True) - lowest) / steps
    scale = jnp.maximum(scale, LEAST_SCALE)
    levels = jnp.round((images - lowest) / scale)
    return images + lax.stop_gradient(lowest + scale * levels - images)


def repeat_labels(labels: Float[Array, "s c"], factor: Factor) -> Float[Array, "k c"]:
    """Repeats the label of each stored image for all of its pieces."""
    count = Packing.parse(factor).per_image
    return labels if count == 1 else jnp.repeat(labels, count, axis=0)
