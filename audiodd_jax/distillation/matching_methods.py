"""The common step of the matching methods, on the images, class by class.

A step draws real clips of every class, computes a loss between the real and synthetic
clips of each class under a network, and updates the images by SGD with momentum. Labels
stay hard. Devices share the classes.

References:
  Zhao, Mopuri, Bilen, *Dataset Condensation with Gradient Matching*, ICLR 2021.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Key

from audiodd_jax.config import Config, MatchingConfig
from audiodd_jax.coreset import packing
from audiodd_jax.coreset.arrays import CoresetArrays
from audiodd_jax.distillation.method import Method
from audiodd_jax.features import batches
from audiodd_jax.features.dataset import Split
from audiodd_jax.networks import models
from audiodd_jax.networks.convnet import ConvNet
from audiodd_jax.runtime import devices

# Folded into a step's key: for augmentation, for a fresh network, for its training.
_CHANGE, _NETWORK, _TRAIN = range(3)


class State(NamedTuple):
    """State between steps: arrays only.

    Attributes:
      step: ``[]`` steps taken.
      key: root key; step i draws from ``fold_in(key, i)``.
      images: ``[s, f, t, 1]`` stored images, in class order.
      labels: ``[s, c]`` centred, constant.
      opt_state: momentum of the images.
      network: parameters of the current network.
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
      network: ``(network, step, draw) -> network`` before the step; ``draw()`` returns
        a fresh one.
      loss: ``(network, key, real, synthetic, class) -> loss`` of one class's clips.
      after: ``(network, step, key, images) -> network`` after the step, from all
        synthetic clips.
    """

    network: Callable[[Any, Array, Callable[[], Any]], Any]
    loss: Callable[[Any, Array, Array, Array, Array], Array]
    after: Callable[[Any, Array, Array, Array], Any]


def make_model(
    config: MatchingConfig, num_classes: int, dtype: DTypeLike = jnp.float32
) -> nn.Module:
    """The ConvNet whose gradients or features are matched."""
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
    """Parameters of a new network, for the images' shape and type."""
    params = models.init(key, model, images.shape[1:3]).params
    return jax.tree.map(lambda p: p.astype(images.dtype), params)


def make(
    config: Config,
    num_classes: int,
    mesh: Mesh | None,
    model: nn.Module,
    matched: Matched,
) -> Method:
    """A matching method as ``init``, ``step`` and ``coreset``.

    Args:
      config: of the run.
      num_classes: ``c``.
      mesh: devices that share the classes; None: one device.
      model: the network.
      matched: the parts of the method.
    """
    settings = config.matching
    tx = {
        "sgd": lambda: optax.sgd(settings.learning_rate, settings.momentum),
        "adam": lambda: optax.adam(settings.learning_rate, settings.momentum),
    }[settings.optimizer]()

    def init(key: Key[Array, ""], start: CoresetArrays) -> State:
        first, opt_state = jnp.zeros((), jnp.int32), tx.init(start.images)
        network = fresh(key, model, start.images)
        return State(first, key, start.images, start.labels, opt_state, network)

    def step(state: State, batch: Split) -> tuple[State, dict[str, Array]]:
        key = jax.random.fold_in(state.key, state.step)
        change_key, network_key, train_key = (
            jax.random.fold_in(key, of) for of in (_CHANGE, _NETWORK, _TRAIN)
        )
        draw = lambda: fresh(network_key, model, state.images)
        network = matched.network(state.network, state.step, draw)
        by_class = lambda x: x.reshape(num_classes, -1, *x.shape[1:])
        real, stored = by_class(batch.images), by_class(state.images)

        def of_class(own: Any, network: Any) -> tuple[Array, Array]:
            label, real, stored = own

            def loss(images: Array) -> Array:
                synthetic = packing.unpack(images, config.coreset.factor)
                own_key = jax.random.fold_in(change_key, label)
                return matched.loss(network, own_key, real, synthetic, label)

            return jax.value_and_grad(loss)(stored)

        labels = jnp.arange(num_classes)
        losses, grads = devices.map_slots(of_class, mesh)(
            (labels, real, stored), network
        )
        grads = grads.reshape(state.images.shape)
        updates, opt_state = tx.update(grads, state.opt_state)
        images = optax.apply_updates(state.images, updates)
        network = matched.after(
            network,
            state.step,
            train_key,
            packing.unpack(images, config.coreset.factor),
        )
        metrics = {"loss": losses.mean(), "gradient_norm": optax.global_norm(grads)}
        taken = state.step + 1
        state = State(taken, state.key, images, state.labels, opt_state, network)
        return state, metrics

    def coreset(state: State) -> CoresetArrays:
        scale = jnp.zeros((), state.images.dtype)
        return CoresetArrays(state.images, state.labels, scale)

    draw = batches.balanced(num_classes, settings.real_per_class)
    return Method(init, step, coreset, draw)
