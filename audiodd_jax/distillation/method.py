"""The interface that every distillation method implements."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.sharding import Mesh
from jax.typing import DTypeLike
from jaxtyping import Array, Key

from audiodd_jax.config import Config
from audiodd_jax.coreset.arrays import CoresetArrays
from audiodd_jax.distillation.cost import Sizes
from audiodd_jax.features.batches import Draw
from audiodd_jax.features.encoders import Embed
from audiodd_jax.features.normalization import Normalization
from audiodd_jax.kernels.random_kernels import Plan
from audiodd_jax.networks.models import Ensemble


class Method(NamedTuple):
    """A distillation method: pure functions that close over its settings.

    Attributes:
      init: ``(key, start) -> state``, a pytree of arrays with a field ``step``.
      step: ``(state, batch) -> (state, metrics)``; jitted and scanned by the loop.
      coreset: ``state -> CoresetArrays``, as stored.
      draw: draws a batch's clips; None: ``loop.batch_size`` of all clips.
      rates: numbers of the optimiser, such as its learning rate, that ``step`` also
        takes as a third argument: runs that differ in them share the compiled program.
        None: it takes none.
    """

    init: Callable[[Key[Array, ""], CoresetArrays], Any]
    step: Callable[..., tuple[Any, dict[str, Array]]]
    coreset: Callable[[Any], CoresetArrays]
    draw: Draw | None = None
    rates: Any = None


class Context(NamedTuple):
    """Properties of a run, besides the settings, for which a method is built.

    Attributes:
      sizes: sizes of the data and the coreset.
      normalization: statistics that standardised the images.
      mesh: devices that share the work; None: one device.
      plan: amount of a step that is computed at once.
      dtype: floating-point type in which trained networks compute.
      teacher: labels views in the loss of ``aligned``; None elsewhere.
      embed: the encoder; None: random networks embed. With an encoder, batches are of
        embeddings.
    """

    sizes: Sizes
    normalization: Normalization
    mesh: Mesh | None = None
    plan: Plan = Plan()
    dtype: DTypeLike = jnp.float32
    teacher: Ensemble | None = None
    embed: Embed | None = None


# What builds a method from its settings; other packages register theirs.
Make = Callable[[Config, Context], Method]
