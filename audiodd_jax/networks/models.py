"""Networks to train: made by name, their variables and outputs."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from audiodd_jax.config import ModelConfig
from audiodd_jax.networks import user_network
from audiodd_jax.networks.convnet import ConvNet
from audiodd_jax.networks.layers import Drop
from audiodd_jax.networks.linear import Linear
from audiodd_jax.networks.resnet import ResNet18


class Variables(NamedTuple):
    """The variables of a network.

    Attributes:
      params: pytree of trainable arrays.
      statistics: running means and variances of batch normalisation, or empty.
    """

    params: Any
    statistics: Any


def make(
    config: ModelConfig, num_classes: int, dtype: DTypeLike = jnp.float32
) -> nn.Module:
    """The network that ``config`` describes, computing in ``dtype``.

    Raises:
      UserError: a network of another package that cannot be used.
    """
    if ":" in config.name:
        return user_network.from_path(config.name, num_classes)
    if config.name == "linear":
        return Linear(num_classes, config.dropout, config.head)
    same = {
        name: getattr(config, name)
        for name in ("width", "norm", "readout", "head", "dropout")
    }
    same["block_dropout"] = config.dropout * (config.dropout_place == "everywhere")
    if config.name == "resnet18":
        return ResNet18(num_classes, stem_kind=config.stem, dtype=dtype, **same)
    return ConvNet(num_classes, depth=config.depth, dtype=dtype, **same)


def init(
    key: Key[Array, ""], model: nn.Module, image_shape: tuple[int, int]
) -> Variables:
    """Initialises a network.

    Args:
      key: typed PRNG key.
      model: the network.
      image_shape: ``(f, t)`` of the spectrograms.
    """
    images = jnp.zeros((1, *image_shape, 1))
    # Layers of nnx ask for the dropout's stream when they are made.
    found = model.init({"params": key, "dropout": key}, images, train=False)
    user_network.check_variables(found)
    return Variables(found["params"], found.get("batch_stats", {}))


def _apply(
    model: nn.Module, variables: Variables, method: str, *args: Array, **options: Any
) -> Array:
    collections = {"params": variables.params, "batch_stats": variables.statistics}
    return model.apply(collections, *args, method=method, **options)


def logits(
    model: nn.Module, variables: Variables, images: Float[Array, "b f t 1"]
) -> Float[Array, "b c"]:
    """Logits at inference: running statistics, no dropout."""
    return _apply(model, variables, "__call__", images, train=False)


def stem(
    model: nn.Module, variables: Variables, images: Float[Array, "b f t 1"]
) -> Float[Array, "b *rest"]:
    """What the network computes before its first dropout, at inference."""
    return _apply(model, variables, "stem", images, train=False)


def features(
    model: nn.Module,
    variables: Variables,
    stem: Float[Array, "b *rest"],
    drop: Drop = False,
) -> Float[Array, "b d"]:
    """What the last layer reads, by running statistics.

    Args:
      model: the network.
      variables: its variables.
      stem: output of ``stem``.
      drop: dropout masks (``layers.Drop``).
    """
    return _apply(model, variables, "features", stem, train=False, drop=drop)


def head(
    model: nn.Module,
    variables: Variables,
    features: Float[Array, "b d"],
    drop: Drop = False,
) -> Float[Array, "b c"]:
    """The last layer's logits of ``features``, with the same arguments."""
    return _apply(model, variables, "logits", features, drop=drop)


def embed(
    model: nn.Module, variables: Variables, images: Float[Array, "b f t 1"]
) -> tuple[Float[Array, "b d"], Float[Array, "b c"]]:
    """Features of the last layer and its logits, at inference."""
    found = features(model, variables, stem(model, variables, images))
    return found, head(model, variables, found)


def train_logits(
    model: nn.Module,
    variables: Variables,
    images: Float[Array, "b f t 1"],
    key: Key[Array, ""],
) -> tuple[Float[Array, "b c"], Any]:
    """Logits in training, and the updated running statistics.

    Args:
      model: the network.
      variables: its variables.
      images: a batch, normalised by its own statistics.
      key: of the dropout masks.
    """
    collections = {"params": variables.params, "batch_stats": variables.statistics}
    out, updated = model.apply(
        collections, images, train=True, rngs={"dropout": key}, mutable=["batch_stats"]
    )
    return out, updated.get("batch_stats", {})
