"""The interface that every distillation method implements."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array, Key

from audiodd_jax.coreset.arrays import CoresetArrays
from audiodd_jax.features.batches import Draw
from audiodd_jax.features.dataset import Split


class Method(NamedTuple):
    """The one shape of every distillation method: pure functions over its settings.

    Attributes:
      init: ``(key, start) -> state``, a pytree of arrays with ``step`` among them.
      step: ``(state, batch) -> (state, metrics)``, to be jitted and scanned.
      coreset: ``state -> CoresetArrays``, as they are stored.
      draw: which clips a batch holds; None: ``loop.batch_size`` of all.
    """

    init: Callable[[Key[Array, ""], CoresetArrays], Any]
    step: Callable[[Any, Split], tuple[Any, dict[str, Array]]]
    coreset: Callable[[Any], CoresetArrays]
    draw: Draw | None = None
