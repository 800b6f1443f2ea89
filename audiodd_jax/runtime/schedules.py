"""Learning rates along a cosine, whose numbers programs take as arguments."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


def angle_of_step(steps: int) -> float:
    """Returns ``pi / steps`` with the rounding of a compiler that knows ``steps``.

    Programs had it as a constant: pi times a reciprocal, in the default precision.
    """
    kind = jnp.result_type(float).type
    return float(kind(np.pi) * (kind(1) / kind(steps)))


def cosine(
    rate: float | Array, step: Array, steps: int | Array, angle: float | Array
) -> Array:
    """Returns a rate that falls to zero over ``steps``, along half a cosine.

    ``angle`` is that of a step.
    """
    return rate * (0.5 * (1 + jnp.cos(jnp.minimum(step, steps) * angle)))
