r"""DC and DSA: dataset condensation by gradient matching, on one page.

While a network theta is trained on the coreset, each step matches the gradient of the
coreset's clips to that of real clips, class by class:

1. every ``outer_loop`` steps, draw a fresh ConvNet theta;
2. for each class, with real clips B and synthetic ones S,
       g_B = grad_theta l(B, theta),  g_S = grad_theta l(S, theta),
   where l is the mean cross-entropy (in DSA, both under the same augmentation);
3. compute the distance, summed over layers and the outputs j of their weights,
       D = sum_layers sum_j 1 - <g_B[j], g_S[j]> / (||g_B[j]|| ||g_S[j]|| + 1e-6),
   without the parameters of biases and normalisation;
4. update the images by grad_S D, with SGD and momentum;
5. train theta on the coreset for ``inner_loop`` epochs of SGD (in DSA, on augmented
   clips), unless the next step draws a fresh network.

References:
  Zhao, Mopuri, Bilen, *Dataset Condensation with Gradient Matching*, ICLR 2021; Zhao
  and Bilen, *Dataset Condensation with Differentiable Siamese Augmentation*, ICML 2021.
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float, Int, Key

from audiodd_jax.config import Config, MatchingConfig
from audiodd_jax.config.packing import Packing
from audiodd_jax.coreset.sizes import class_order
from audiodd_jax.distillation import matching_methods
from audiodd_jax.distillation.matching_methods import Matched
from audiodd_jax.distillation.method import Context, Method
from audiodd_jax.features import augment, batches
from audiodd_jax.networks import models
from audiodd_jax.networks.models import Variables

# Published epochs of the inner loop by samples per class, interpolated linearly and
# constant beyond. The outer loop has one step per sample, up to 50.
_PUBLISHED = {1: 1, 10: 50, 20: 25, 30: 20, 40: 15, 50: 10}
_SMALL = 1e-6


def loops(samples_per_class: int, config: MatchingConfig) -> tuple[int, int]:
    """Returns the steps per network, and the epochs of its training between two.

    Both are as published, unless ``config`` sets them.
    """
    samples, epochs = list(_PUBLISHED), list(_PUBLISHED.values())
    outer = config.outer_loop or min(samples_per_class, samples[-1])
    inner = np.interp(samples_per_class, samples, epochs)
    return outer, config.inner_loop or round(float(inner))


def cross_entropy(
    params: Any,
    model: nn.Module,
    images: Float[Array, "b f t 1"],
    labels: Int[Array, " b"],
    weights: Float[Array, " b"] | None = None,
) -> Float[Array, ""]:
    """Returns the cross-entropy, averaged over the clips by their weights."""
    out = models.logits(model, Variables(params, {}), images)
    losses = optax.softmax_cross_entropy_with_integer_labels(out, labels)
    return matching_methods.mean(losses, weights)


def distance(ours: Any, theirs: Any) -> Float[Array, ""]:
    """Step 3: the distance of two gradients of the same parameters."""

    def layer(a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, ""]:
        a, b = (x.reshape(-1, x.shape[-1]) for x in (a, b))
        norms = _norm(a) * _norm(b)
        return jnp.sum(1 - jnp.sum(a * b, 0) / (norms + _SMALL))

    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    return sum(layer(a, b) for a, b in pairs if a.ndim > 1)


def _norm(x: Float[Array, "rows w"]) -> Float[Array, " w"]:
    """Norm of each column; the gradient of a zero column is zero."""
    squares = jnp.sum(x**2, 0)
    is_zero = squares == 0
    return jnp.where(is_zero, 0, jnp.sqrt(jnp.where(is_zero, 1, squares)))


def matching_loss(
    params: Any,
    model: nn.Module,
    real: Float[Array, "r f t 1"],
    synthetic: Float[Array, "k f t 1"],
    label: Int[Array, ""],
    weights: Float[Array, " k"] | None = None,
) -> Float[Array, ""]:
    """Steps 2 and 3 for one class's clips; ``weights`` are of the synthetic ones."""

    def gradient(images: Array, weights: Array | None = None) -> Any:
        labels = jnp.full(images.shape[0], label)
        return jax.grad(cross_entropy)(params, model, images, labels, weights)

    return distance(gradient(synthetic, weights), lax.stop_gradient(gradient(real)))


def make(config: Config, context: Context) -> Method:
    """Returns DC or DSA (``config.method``) on the context's devices."""
    settings, stats, c = config.matching, context.normalization, context.sizes.c
    model = matching_methods.make_model(settings, c, context.dtype)
    factor = config.coreset.factor
    count = Packing.parse(factor).per_image
    sizes = matching_methods.class_sizes(context, factor)
    outer, epochs = loops(round(sizes.mean()), settings)
    is_dsa = config.method == "dsa"

    def loss(
        params: Any,
        real: Array,
        synthetic: Array,
        weights: Array | None,
        label: Array,
    ) -> Array:
        return matching_loss(params, model, real, synthetic, label, weights)

    def change(key: Array, images: Array) -> Array:
        return augment.siamese(key, images, config.siamese, stats)

    def network(params: Any, step: Array, draw: Callable[[], Any]) -> Any:
        return lax.cond(step % outer == 0, draw, lambda: params)

    def train(params: Any, key: Key[Array, ""], images: Array) -> Any:
        """Step 5: the key draws the order of the images, and their augmentation."""
        labels = jnp.asarray(class_order(sizes * count))
        steps = epochs * math.ceil(images.shape[0] / settings.network_batch)
        rows = batches.epoch_rows(
            key, images.shape[0], settings.network_batch, 0, steps
        )

        def body(params: Any, drawn: tuple[Array, Array]) -> tuple[Any, None]:
            number, rows = drawn
            clips = images[rows]
            if is_dsa:
                clips = augment.siamese_each(
                    jax.random.fold_in(key, number), clips, config.siamese, stats
                )
            grads = jax.grad(cross_entropy)(params, model, clips, labels[rows])
            rate = settings.network_learning_rate
            return jax.tree.map(lambda p, g: p - rate * g, params, grads), None

        return lax.scan(body, params, (jnp.arange(steps), rows))[0]

    def after(params: Any, step: Array, key: Array, images: Array) -> Any:
        is_last = (step + 1) % outer == 0
        return lax.cond(is_last, lambda: params, lambda: train(params, key, images))

    matched = Matched(
        model, loss, change if is_dsa else None, network, after if outer > 1 else None
    )
    return matching_methods.make(settings, factor, context, matched)
