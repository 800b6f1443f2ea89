"""Several shorter spectrograms in the place of one: more samples in as many numbers.

A stored spectrogram ``[f, t]`` is cut along time into ``factor`` pieces of ``t/factor``
frames, and each is stretched to ``t`` frames by linear interpolation before anything
learns from it. All pieces share its label, so that what is stored does not grow.

References:
  Kim et al., *Dataset Condensation via Efficient Synthetic-Data Parameterization*, ICML
  2022 (multi-formation, there along both axes of a picture).
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from audiodd_jax.runtime.errors import UserError


def check(frames: int, factor: int) -> None:
    """Refuses a factor that does not divide the frames.

    Raises:
      UserError: it does not.
    """
    if frames % factor:
        raise UserError(
            f"coreset.factor={factor} does not divide the {frames} frames of a "
            "spectrogram"
        )


def stretch(images: Float[Array, "s f t 1"], factor: int) -> Float[Array, "k f t 1"]:
    """What stored spectrograms hold: ``k = s * factor`` of full length, in order.

    Linear in ``images``. At the ends the outermost frame is held.

    Args:
      images: as they are stored.
      factor: pieces of each, which divides ``t``.
    """
    if factor == 1:
        return images
    s, f, t, _ = images.shape
    length = t // factor
    pieces = jnp.moveaxis(images.reshape(s, f, factor, length), 2, 1)
    # A matrix instead of a gather: so is its transpose, the gradient.
    weights = jax.image.resize(
        jnp.eye(length, dtype=images.dtype), (t, length), "linear", antialias=False
    )
    long = jnp.einsum("skfl,tl->skft", pieces, weights, precision=lax.Precision.HIGHEST)
    return long.reshape(s * factor, f, t, 1)


def shorten(images: Float[Array, "k f t 1"], factor: int) -> Float[Array, "s f t 1"]:
    """Stores ``factor`` spectrograms in the place of each one, by means over frames.

    Args:
      images: ``k = s * factor`` of them.
      factor: how many become one, which divides ``t``.
    """
    if factor == 1:
        return images
    k, f, t, _ = images.shape
    short = images.reshape(k // factor, factor, f, t // factor, factor).mean(-1)
    return jnp.moveaxis(short, 1, 2).reshape(k // factor, f, t, 1)


def shared(labels: Float[Array, "s c"], factor: int) -> Float[Array, "k c"]:
    """The label of every piece."""
    return labels if factor == 1 else jnp.repeat(labels, factor, axis=0)
