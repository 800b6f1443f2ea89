"""The networks that are trained, by name, and their variables."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from audiodd_jax.config import ModelConfig
from audiodd_jax.networks.convnet import ConvNet
from audiodd_jax.networks.layers import Head
from audiodd_jax.networks.linear import Linear
from audiodd_jax.networks.resnet import ResNet18


class Variables(NamedTuple):
    """What a network holds.

    Attributes:
      params: a pytree of arrays, that is learnt.
      statistics: running means and variances of batch normalisation; else empty.
    """

    params: Any
    statistics: Any


def make(
    config: ModelConfig, num_classes: int, dtype: DTypeLike = jnp.float32
) -> nn.Module:
    """The network that ``config`` describes, computing in ``dtype``."""
    if config.name == "linear":
        return Linear(num_classes, config.dropout, config.head)
    same = {
        name: getattr(config, name)
        for name in ("width", "norm", "readout", "head", "dropout")
    }
    same["block_dropout"] = config.dropout * (config.dropout_place == "everywhere")
    if config.name == "resnet18":
        return ResNet18(num_classes, stem=config.stem, dtype=dtype, **same)
    return ConvNet(num_classes, depth=config.depth, dtype=dtype, **same)


def init(
    key: Key[Array, ""], model: nn.Module, image_shape: tuple[int, int]
) -> Variables:
    """Draws a network's variables.

    Args:
      key: typed PRNG key.
      model: what ``make`` made.
      image_shape: ``(f, t)`` of the spectrograms.
    """
    images = jnp.zeros((1, *image_shape, 1))
    found = model.init(key, images, train=False)
    return Variables(found["params"], found.get("batch_stats", {}))


def logits(
    model: nn.Module, variables: Variables, images: Float[Array, "b f t 1"]
) -> Float[Array, "b c"]:
    """Logits as they are at inference: running statistics, no dropout."""
    collections = {"params": variables.params, "batch_stats": variables.statistics}
    return model.apply(collections, images, train=False)


def embed(
    model: nn.Module, variables: Variables, images: Float[Array, "b f t 1"]
) -> tuple[Float[Array, "b d"], Float[Array, "b c"]]:
    """What the last layer reads, and the logits it makes of that, at inference."""
    seen = []

    def note(call: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
        if isinstance(context.module, Head) and context.method_name == "__call__":
            seen.append(args[0])
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        out = logits(model, variables, images)
    return seen[0], out


def train_logits(
    model: nn.Module,
    variables: Variables,
    images: Float[Array, "b f t 1"],
    key: Key[Array, ""],
) -> tuple[Float[Array, "b c"], Any]:
    """Logits as they are in training, and the new running statistics.

    Args:
      model: the network.
      variables: its variables.
      images: a batch, whose statistics normalise it.
      key: of the dropout.
    """
    collections = {"params": variables.params, "batch_stats": variables.statistics}
    out, updated = model.apply(
        collections, images, train=True, rngs={"dropout": key}, mutable=["batch_stats"]
    )
    return out, updated.get("batch_stats", {})
