"""DM: dataset condensation by distribution matching, on one page.

Each step draws a random ConvNet psi and matches the mean features of the coreset to
those of real clips, class by class: with real clips B and synthetic clips S, both under
the same augmentation (``features.siamese_augment``),

    D = || mean_B psi(x) - mean_S psi(x) ||^2,

with psi(x) the input of the network's last layer. Images are updated by grad_S D, with
SGD and momentum. Without second derivatives and an inner loop, a step costs a fraction
of gradient matching's.

References:
  Zhao and Bilen, *Dataset Condensation with Distribution Matching*, WACV 2023.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from audiodd_jax.config import Config
from audiodd_jax.distillation import matching_methods
from audiodd_jax.distillation.matching_methods import Matched
from audiodd_jax.distillation.method import Method
from audiodd_jax.features import siamese_augment
from audiodd_jax.features.normalization import Normalization
from audiodd_jax.networks import models
from audiodd_jax.networks.models import Variables


def matching_loss(
    params: Any,
    model: nn.Module,
    real: Float[Array, "r f t 1"],
    synthetic: Float[Array, "k f t 1"],
) -> Float[Array, ""]:
    """Squared distance of the mean features of one class's clips."""

    def mean(images: Array) -> Array:
        return models.embed(model, Variables(params, {}), images)[0].mean(0)

    return jnp.sum((lax.stop_gradient(mean(real)) - mean(synthetic)) ** 2)


def make(
    config: Config,
    num_classes: int,
    stats: Normalization,
    mesh: Mesh | None,
    dtype: DTypeLike = jnp.float32,
) -> Method:
    """DM as ``init``, ``step`` and ``coreset``.

    Args:
      config: of the run.
      num_classes: ``c``.
      stats: statistics that standardised the images.
      mesh: devices that share the classes; None: one device.
      dtype: in which the network computes.
    """
    model = matching_methods.make_model(config.matching, num_classes, dtype)

    def network(params: Any, step: Array, draw: Callable[[], Any]) -> Any:
        return draw()

    def loss(
        params: Any, key: Array, real: Array, synthetic: Array, label: Array
    ) -> Array:
        real, synthetic = (
            siamese_augment.change(key, images, config.siamese, stats)
            for images in (real, synthetic)
        )
        return matching_loss(params, model, real, synthetic)

    def after(params: Any, step: Array, key: Array, images: Array) -> Any:
        return params

    return matching_methods.make(
        config, num_classes, mesh, model, Matched(network, loss, after)
    )
