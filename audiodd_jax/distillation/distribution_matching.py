"""DM: dataset condensation by distribution matching, on one page.

Each step draws a random ConvNet psi and matches the mean features of the coreset to
those of real clips, class by class: with real clips B and synthetic clips S, both under
the same augmentation (``features.augment``),

    D = || mean_B psi(x) - mean_S psi(x) ||^2,

with psi(x) the input of the network's last layer. Images are updated by grad_S D, with
SGD and momentum. Without second derivatives and an inner loop, a step costs a fraction
of one of gradient matching.

References:
  Zhao and Bilen, *Dataset Condensation with Distribution Matching*, WACV 2023.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from audiodd_jax.config import Config
from audiodd_jax.distillation import matching_methods
from audiodd_jax.distillation.matching_methods import Matched
from audiodd_jax.distillation.method import Context, Method
from audiodd_jax.features import augment
from audiodd_jax.networks import models
from audiodd_jax.networks.models import Variables


def matching_loss(
    params: Any,
    model: nn.Module,
    real: Float[Array, "r f t 1"],
    synthetic: Float[Array, "k f t 1"],
    weights: Float[Array, " k"] | None = None,
) -> Float[Array, ""]:
    """Returns the squared distance of the mean features of one class's clips.

    ``weights`` are of the synthetic ones; None: all the same.
    """

    def mean(images: Array, weights: Array | None = None) -> Array:
        features = models.embed(model, Variables(params, {}), images)[0]
        return matching_methods.mean(features, weights)

    return jnp.sum((lax.stop_gradient(mean(real)) - mean(synthetic, weights)) ** 2)


def make(config: Config, context: Context) -> Method:
    """Returns DM on the context's devices."""
    settings, stats = config.matching, context.normalization
    model = matching_methods.make_model(settings, context.sizes.c, context.dtype)
    matched = Matched(
        model,
        loss=lambda params, real, synthetic, weights, label: matching_loss(
            params, model, real, synthetic, weights
        ),
        augment=lambda key, images: augment.siamese(key, images, config.siamese, stats),
        network=lambda params, step, draw: draw(),
    )
    return matching_methods.make(settings, config.coreset.factor, context, matched)
