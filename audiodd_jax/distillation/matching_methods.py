"""The step that the matching methods share: on the images, class by class.

A step draws real clips of every class, computes a loss between the real and synthetic
clips of each class under a network, and updates the images by SGD with momentum. Labels
stay hard. Devices share the classes. Where classes have different sizes, the smaller
ones are padded, with weights of zero, so that one program serves all.

References:
  Zhao, Mopuri, Bilen, *Dataset Condensation with Gradient Matching*, ICLR 2021.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Key

from audiodd_jax.config import MatchingConfig
from audiodd_jax.config.packing import Factor, Packing
from audiodd_jax.coreset.arrays import CoresetArrays, unpack
from audiodd_jax.distillation.method import Context, Method
from audiodd_jax.features import batches
from audiodd_jax.features.clips import Clips
from audiodd_jax.networks import models
from audiodd_jax.networks.classifier import ConvNet
from audiodd_jax.runtime import devices

# Folded into a step's key: for augmentation, for a fresh network, for its training.
_CHANGE, _NETWORK, _TRAIN = range(3)


class State(NamedTuple):
    """State between steps: arrays only. Step i draws from ``fold_in(key, i)``.

    Stored images are in class order, and their centred labels constant. ``network`` has
    the parameters of the current network.
    """

    step: Int[Array, ""]
    key: Key[Array, ""]
    images: Float[Array, "s f t 1"]
    labels: Float[Array, "s c"]
    opt_state: optax.OptState
    network: Any


class Matched(NamedTuple):
    """The parts in which matching methods differ.

    Attributes:
      model: the network.
      loss: ``(network, real, synthetic, weights, class) -> loss`` of one class's clips;
        ``weights`` of the synthetic ones: 0 for padding; None: there is no padding.
      augment: ``(key, images) -> images``, by the same changes for the same key; None:
        real and synthetic clips as they are.
      network: ``(network, step, draw) -> network`` before the step; ``draw()`` returns
        a fresh one.
      after: ``(network, step, key, images) -> network`` after the step, from all
        synthetic clips; None: the same network.
    """

    model: nn.Module
    loss: Callable[[Any, Array, Array, Array | None, Array], Array]
    augment: Callable[[Key[Array, ""], Array], Array] | None
    network: Callable[[Any, Array, Callable[[], Any]], Any]
    after: Callable[[Any, Array, Array, Array], Any] | None = None


def make_model(
    config: MatchingConfig, num_classes: int, dtype: DTypeLike = jnp.float32
) -> nn.Module:
    """Returns the ConvNet whose gradients or features are matched."""
    return ConvNet(
        num_classes,
        depth=config.depth,
        width=config.width,
        norm=config.norm,
        readout="flatten",
        head="random",
        dtype=dtype,
    )


def fresh(
    key: Key[Array, ""], model: nn.Module, images: Float[Array, "s f t 1"]
) -> Any:
    """Draws the parameters of a new network, for the images' shape and type."""
    params = models.init(key, model, images.shape[1:3]).params
    return jax.tree.map(lambda p: p.astype(images.dtype), params)


def class_sizes(context: Context, factor: Factor) -> Int[np.ndarray, " c"]:
    """Returns the number of stored images of each class."""
    sizes = context.sizes
    images = sizes.s // Packing.parse(factor).per_image
    return np.array(sizes.per_class or [images // sizes.c] * sizes.c)


def _padded(
    sizes: Int[np.ndarray, " c"],
) -> tuple[Int[np.ndarray, "c most"], Bool[np.ndarray, "c most"]]:
    """Returns the rows of each class, and which of them are not padding.

    Smaller classes repeat their last row.
    """
    places, last = np.arange(sizes.max()), sizes[:, None] - 1
    starts = np.cumsum(sizes) - sizes
    return starts[:, None] + np.minimum(places, last), places <= last


def mean(
    values: Float[Array, "k *d"], weights: Float[Array, " k"] | None
) -> Float[Array, "*d"]:
    """Averages over clips by their weights; None: equal weights."""
    if weights is None:
        return values.mean(0)
    total = jnp.tensordot(weights, values, 1, precision="highest")
    return total / weights.sum()


def make(
    config: MatchingConfig, factor: Factor, context: Context, matched: Matched
) -> Method:
    """Returns a matching method; ``factor`` packs spectrograms in images."""
    num_classes, model = context.sizes.c, matched.model
    count = Packing.parse(factor).per_image
    rows, is_own = _padded(class_sizes(context, factor))
    optimizer = {"sgd": optax.sgd, "adam": optax.adam}[config.optimizer]
    of_rate = lambda rate: optimizer(rate, config.momentum)

    def init(key: Key[Array, ""], start: CoresetArrays) -> State:
        first = jnp.zeros((), jnp.int32)
        opt_state = of_rate(config.learning_rate).init(start.images)
        network = fresh(key, model, unpack(start.images, factor))
        return State(first, key, start.images, start.labels, opt_state, network)

    def class_loss(
        images: Float[Array, "k h w 1"],
        network: Any,
        key: Key[Array, ""],
        label: Int[Array, ""],
        real: Float[Array, "r f t 1"],
        weights: Float[Array, " unpacked"] | None,
    ) -> Float[Array, ""]:
        clips = real, unpack(images, factor)
        if matched.augment:
            key = jax.random.fold_in(key, label)
            clips = (matched.augment(key, x) for x in clips)
        return matched.loss(network, *clips, weights, label)

    def step(
        state: State, batch: Clips, rate: float | Array = config.learning_rate
    ) -> tuple[State, dict[str, Array]]:
        key = jax.random.fold_in(state.key, state.step)
        change_key, network_key, train_key = (
            jax.random.fold_in(key, use) for use in (_CHANGE, _NETWORK, _TRAIN)
        )
        draw = lambda: fresh(network_key, model, unpack(state.images, factor))
        network = matched.network(state.network, state.step, draw)
        by_class = lambda x: x.reshape(num_classes, -1, *x.shape[1:])
        real, weights = by_class(batch.images), None
        if is_own.all():
            stored = by_class(state.images)
        else:
            stored = state.images[rows]
            weights = jnp.asarray(np.repeat(is_own, count, 1), stored.dtype)

        def own_classes(slots: tuple[Array | None, ...], network: Any) -> tuple:
            def one_class(slot: tuple[Array | None, ...]) -> tuple:
                label, real, images, weights = slot
                gradient = jax.value_and_grad(class_loss)
                return gradient(images, network, change_key, label, real, weights)

            return lax.map(one_class, slots)

        all_classes = devices.shard_rows(own_classes, context.mesh, devices.NETWORKS)
        slots = jnp.arange(num_classes), real, stored, weights
        losses, grads = all_classes(slots, network)
        if not is_own.all():
            grads = grads[is_own]
        grads = grads.reshape(state.images.shape)
        rate = jnp.asarray(rate, grads.dtype)
        updates, opt_state = of_rate(rate).update(grads, state.opt_state)
        images = optax.apply_updates(state.images, updates)
        if matched.after:
            synthetic = unpack(images, factor)
            network = matched.after(network, state.step, train_key, synthetic)
        metrics = {"loss": losses.mean(), "gradient_norm": optax.global_norm(grads)}
        state = state._replace(
            step=state.step + 1, images=images, opt_state=opt_state, network=network
        )
        return state, metrics

    def coreset(state: State) -> CoresetArrays:
        scale = jnp.zeros((), state.images.dtype)
        return CoresetArrays(state.images, state.labels, scale)

    draw = batches.balanced(num_classes, config.real_per_class)
    return Method(init, step, coreset, draw, config.learning_rate)
