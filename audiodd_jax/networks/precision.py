"""Precision of a random network's features.

``float32`` computes in the input's type. ``tf32`` rounds the operands of convolutions
and products to 10 bits of mantissa, ``bfloat16`` to 7; both accumulate in float32.
``bfloat16`` also stores the activations between blocks in that type.

Accelerators do this in hardware. On CPU the operands are rounded and multiplied in
float32, which gives the same numbers without the speed.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float


class Precision(NamedTuple):
    """Representation of operands and activations.

    Attributes:
      mantissa: bits that operands are rounded to; 0: not rounded.
      stored: type of features and of activations between blocks; None: the input's.
      products: precision requested from accelerators.
    """

    mantissa: int
    stored: DTypeLike | None
    products: lax.Precision


PRECISIONS = {
    "float32": Precision(0, None, lax.Precision.HIGHEST),
    # TF32 on NVIDIA, three bfloat16 passes on TPU.
    "tf32": Precision(10, None, lax.Precision.HIGH),
    "bfloat16": Precision(7, jnp.bfloat16, lax.Precision.DEFAULT),
}


def rounded(x: Float[Array, "*any"], precision: str) -> Float[Array, "*any"]:
    """Rounds an operand for CPU; returns float32 or wider."""
    mantissa = PRECISIONS[precision].mantissa
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return lax.reduce_precision(x, 8, mantissa) if mantissa else x


def operand(x: Float[Array, "*any"], precision: str) -> Float[Array, "*any"]:
    """Casts an operand for accelerators to the type of the precision."""
    return x.astype(PRECISIONS[precision].stored or x.dtype)


def dtype(precision: str, input_dtype: DTypeLike) -> DTypeLike:
    """Returns the type of the features for inputs of ``input_dtype``."""
    return jnp.dtype(PRECISIONS[precision].stored or input_dtype)
