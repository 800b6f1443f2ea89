"""In which precision a random network computes its features.

``float32`` is all of it, or of float64 where the input is; ``tf32`` rounds the operands
of convolutions and products to 10 bits of mantissa, ``bfloat16`` to 7, and both sum in
float32. Between blocks ``bfloat16`` keeps what it computes in that type.

Matrix units do so in hardware. A CPU has none: there the operands are rounded and the
products float32, which gives the same numbers at no gain in speed.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float


class Precision(NamedTuple):
    """How operands are held.

    Attributes:
      mantissa: bits that operands are rounded to; 0: none.
      kept: type of features and of what lies between blocks; None: the input's.
      products: what accelerators are asked for.
    """

    mantissa: int
    kept: DTypeLike | None
    products: lax.Precision


PRECISIONS = {
    "float32": Precision(0, None, lax.Precision.HIGHEST),
    # As products of float32 that need not be exact: TF32 on NVIDIA, bfloat16 in three
    # parts on TPU.
    "tf32": Precision(10, None, lax.Precision.HIGH),
    "bfloat16": Precision(7, jnp.bfloat16, lax.Precision.DEFAULT),
}


def rounded(x: Float[Array, "*any"], precision: str) -> Float[Array, "*any"]:
    """An operand as a CPU holds it: rounded, in float32 at least."""
    mantissa = PRECISIONS[precision].mantissa
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return lax.reduce_precision(x, 8, mantissa) if mantissa else x


def operand(x: Float[Array, "*any"], precision: str) -> Float[Array, "*any"]:
    """An operand as an accelerator takes it."""
    return x.astype(PRECISIONS[precision].kept or x.dtype)


def dtype(precision: str, of: DTypeLike) -> DTypeLike:
    """The type of features of inputs of type ``of``."""
    return jnp.dtype(PRECISIONS[precision].kept or of)
