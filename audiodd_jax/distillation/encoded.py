r"""Distillation for an encoder: views of the coreset, and linear gradient matching.

With an encoder phi, real clips are embedded once, and each step embeds the coreset's
spectrograms alone. ``rfad`` then learns by its loss, with the kernel of a linear head
in closed form (``kernels.embeddings``). Linear gradient matching (``lgm``) draws it:

1. embeds m random views of every spectrogram, or the spectrograms themselves,
       Z_S = phi(view(x_S));
2. draws a linear head W of unit variance per output;
3. computes the cross-entropy's gradients in W, of the batch and of the views,
       G = Z^T (softmax(Z W) - Y) / b   (tags: sigmoid);
4. updates the images along the gradient of 1 - cos(G_S, G_B), with Adam.

Images are learnt as a pyramid, start + sum_k up_k(p_k), with p_k 2^k times smaller
along both axes. The coarsest level is learnt from the first step, and each finer one is
added later, so that the large shapes come first. Labels stay as they are.

References:
  Cazenavette, Torralba, Sitzmann, *Dataset Distillation for Pre-Trained Self-Supervised
  Vision Models*, NeurIPS 2025 (linear gradient matching).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from audiodd_jax.config import AugmentConfig
from audiodd_jax.config.packing import Factor
from audiodd_jax.coreset.arrays import CoresetArrays
from audiodd_jax.data import tags
from audiodd_jax.distillation.method import Context, Method
from audiodd_jax.features import metric
from audiodd_jax.features.augment import augment
from audiodd_jax.features.clips import Clips
from audiodd_jax.features.labels import centred_targets
from audiodd_jax.features.normalization import Normalization
from audiodd_jax.kernels.embeddings import flat

# Levels of the pyramid, and the part of the steps after which all of them are learnt.
_LEVELS, _COMPLETE = 4, 0.5

# Makes views of a coreset's spectrograms, with their labels.
Views = Callable[[Key[Array, ""], CoresetArrays], CoresetArrays]


def make_views(count: int, config: AugmentConfig, stats: Normalization) -> Views:
    """Returns what draws ``count`` views of every spectrogram; 0: it returns them."""

    def views(key: Key[Array, ""], coreset: CoresetArrays) -> CoresetArrays:
        if not count:
            return coreset
        change = lambda key: augment(key, coreset.images, config, stats, None)
        images = jax.vmap(change)(jax.random.split(key, count))
        images = images.reshape(-1, *coreset.images.shape[1:])
        labels = jnp.tile(coreset.labels, (count, 1))
        return coreset._replace(images=images, labels=labels)

    return views


class State(NamedTuple):
    """State between steps. Step i uses ``fold_in(key, i)``."""

    step: Int[Array, ""]
    key: Key[Array, ""]
    start: CoresetArrays
    levels: tuple[Float[Array, "s h w 1"], ...]  # the finest first
    opt_state: optax.OptState


def head_gradient(
    head: Float[Array, "d c"],
    embeddings: Float[Array, "b d"],
    probabilities: Float[Array, "b c"],
    has_tags: bool,
) -> tuple[Float[Array, "d c"], Float[Array, "b c"]]:
    """Step 3: the gradient in the head, and the outputs."""
    outputs = jnp.dot(embeddings, head, precision="highest")
    found = jax.nn.sigmoid(outputs) if has_tags else jax.nn.softmax(outputs)
    error = (found - probabilities) / len(embeddings)
    return jnp.dot(embeddings.T, error, precision="highest"), outputs


def cosine_distance(a: Float[Array, "d c"], b: Float[Array, "d c"]) -> Float[Array, ""]:
    """One minus the cosine of two gradients."""
    norms = jnp.sqrt(jnp.sum(a**2) * jnp.sum(b**2))
    return 1 - jnp.sum(a * b) / jnp.maximum(norms, jnp.finfo(a.dtype).tiny)


def linear_gradient_matching(
    views: Views, rate: float, steps: int, factor: Factor, context: Context
) -> Method:
    """Returns ``lgm`` for the context's encoder.

    Args:
      rate: learning rate at the first step; it decreases to zero in ``steps``.
      factor: packs spectrograms in images.
    """
    c = context.sizes.c
    tx = optax.adam(optax.cosine_decay_schedule(rate, steps))

    def init(key: Key[Array, ""], start: CoresetArrays) -> State:
        levels = pyramid(start.images.shape, start.images.dtype)
        return State(jnp.zeros((), jnp.int32), key, start, levels, tx.init(levels))

    def coreset(state: State) -> CoresetArrays:
        images = state.start.images
        images = images + sum(enlarged(level, images.shape) for level in state.levels)
        return state.start._replace(images=images)

    def step(state: State, batch: Clips) -> tuple[State, dict[str, Array]]:
        key = jax.random.fold_in(state.key, state.step)
        view_key, head_key = jax.random.split(key)
        real, has_tags = flat(context.embed, batch.images), tags.are_tags(batch.labels)
        head = jax.random.normal(head_key, (real.shape[1], c)) / real.shape[1] ** 0.5
        # Centred labels are probabilities less the same number.
        targets = centred_targets(batch.labels, c, real.dtype) + 1 / c
        theirs, outputs = head_gradient(head, real, targets, has_tags)

        def distance(levels: tuple[Array, ...]) -> Float[Array, ""]:
            full = coreset(state._replace(levels=levels)).unpack(factor)
            drawn = views(view_key, full)
            found = flat(context.embed, drawn.images)
            labels = drawn.labels + 1 / c
            ours, _ = head_gradient(head, found, labels, has_tags)
            return cosine_distance(ours, theirs)

        loss, grads = jax.value_and_grad(distance)(state.levels)
        updates, opt_state = tx.update(grads, state.opt_state)
        parts = len(state.levels)
        levels = tuple(
            # Level k is learnt after (parts - 1 - k) equal shares of the time.
            p + u * (state.step >= steps * _COMPLETE * (parts - 1 - k) / parts)
            for k, (p, u) in enumerate(zip(state.levels, updates, strict=True))
        )
        metrics = {
            "loss": loss,
            "batch_accuracy": metric.of_batch(outputs, batch.labels),
            "gradient_norm": optax.global_norm(grads),
        }
        state = state._replace(step=state.step + 1, levels=levels, opt_state=opt_state)
        return state, metrics

    return Method(init, step, coreset)


def pyramid(shape: tuple[int, ...], dtype: jnp.dtype) -> tuple[Array, ...]:
    """Returns levels of zeros, as far as an axis can be halved."""
    s, h, w, _ = shape
    sizes = [(max(1, h >> k), max(1, w >> k)) for k in range(_LEVELS)]
    distinct = dict.fromkeys(sizes)
    return tuple(jnp.zeros((s, *size, 1), dtype) for size in distinct)


def enlarged(
    level: Float[Array, "s h w 1"], shape: tuple[int, ...]
) -> Float[Array, "s f t 1"]:
    """Enlarges a level of the pyramid by linear interpolation."""
    return jax.image.resize(level, shape, "linear", antialias=False)
