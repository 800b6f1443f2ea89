"""Labels as the targets of kernel regression."""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int


def centred_one_hot(
    labels: Int[Array, " b"], num_classes: int, dtype: DTypeLike = jnp.float32
) -> Float[Array, "b c"]:
    """``one_hot - 1/c``: targets of kernel regression that sum to zero."""
    return jax.nn.one_hot(labels, num_classes, dtype=dtype) - 1.0 / num_classes
