"""The kernel of a linear head on an encoder's embeddings.

    k(x, x') = <phi(x), phi(x')> / d + b^2

with standardised embeddings phi of ``d`` values: kernel ridge regression with it is a
linear head in closed form. Nothing is random. Clips may be embedded already, as the
real ones are, or be spectrograms, as a coreset's are.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

from audiodd_jax.features.encoders import Embed
from audiodd_jax.kernels.random_kernels import KernelFunction, Kernels

# Prior deviation of the head's bias.
_BIAS = 1.0


def flat(embed: Embed, images: Float[Array, "b f t 1"]) -> Float[Array, "b d"]:
    """Embeds images that are not embeddings yet, which have one frame."""
    if images.shape[2] > 1:
        images = embed(images)
    return images.reshape(len(images), -1)


def product(a: Float[Array, "a d"], b: Float[Array, "b d"]) -> Float[Array, "a b"]:
    """Computes the kernel of embeddings."""
    total = jnp.dot(a, b.T, precision=lax.Precision.HIGHEST)
    return total / a.shape[1] + _BIAS**2


def make(embed: Embed) -> KernelFunction:
    """Returns the kernel function; the embeddings of a batch carry no gradient."""

    def kernels(
        _: Key[Array, ""], x_b: Float[Array, "b *clip"], x_s: Float[Array, "s f t 1"]
    ) -> Kernels:
        phi_b = lax.stop_gradient(flat(embed, x_b))
        phi_s = flat(embed, x_s)
        return Kernels(product(phi_b, phi_s), product(phi_s, phi_s))

    return kernels
