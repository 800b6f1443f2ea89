"""The interface that every distillation method implements."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array, Key

from audiodd_jax.coreset.arrays import CoresetArrays
from audiodd_jax.features.batches import Draw
from audiodd_jax.features.dataset import Split


class Method(NamedTuple):
    """A distillation method: pure functions that close over its settings.

    Attributes:
      init: ``(key, start) -> state``, a pytree of arrays with a field ``step``.
      step: ``(state, batch) -> (state, metrics)``; jitted and scanned by the loop.
      coreset: ``state -> CoresetArrays``, as stored.
      draw: draws a batch's clips; None: ``loop.batch_size`` of all.
    """

    init: Callable[[Key[Array, ""], CoresetArrays], Any]
    step: Callable[[Any, Split], tuple[Any, dict[str, Array]]]
    coreset: Callable[[Any], CoresetArrays]
    draw: Draw | None = None
