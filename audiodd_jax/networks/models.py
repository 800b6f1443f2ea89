"""Creates the networks that are trained, and applies them."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from audiodd_jax.config import ModelConfig, extensions
from audiodd_jax.networks import user_network
from audiodd_jax.networks.classifier import Linear
from audiodd_jax.networks.convnet import ConvNet
from audiodd_jax.networks.layers import Drop, Features, Images, Logits
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
    """Creates the network that ``config`` describes, computing in ``dtype``.

    Raises:
      UserError: a user's network cannot be imported or used.
    """
    if ":" in config.name:
        return user_network.wrapped(extensions.from_path(config.name), num_classes)
    if config.name == "linear":
        return Linear(num_classes, config.dropout, config.head)
    names = ("width", "norm", "readout", "head", "dropout")
    common = {name: getattr(config, name) for name in names}
    common["block_dropout"] = config.dropout * (config.dropout_place == "everywhere")
    if config.name == "resnet18":
        return ResNet18(num_classes, stem_kind=config.stem, dtype=dtype, **common)
    return ConvNet(num_classes, depth=config.depth, dtype=dtype, **common)


def init(
    key: Key[Array, ""], model: nn.Module, image_shape: tuple[int, int]
) -> Variables:
    """Initialises a network for spectrograms of ``image_shape``, ``(f, t)``."""
    images = jnp.zeros((1, *image_shape, 1))
    # Layers of nnx need the dropout stream already when they are created.
    variables = model.init({"params": key, "dropout": key}, images, train=False)
    user_network.check_variables(variables)
    return Variables(variables["params"], variables.get("batch_stats", {}))


def _apply(
    model: nn.Module, variables: Variables, method: str, *args: Array, **options: Any
) -> Any:
    collections = {"params": variables.params, "batch_stats": variables.statistics}
    return model.apply(collections, *args, method=method, **options)


def logits(model: nn.Module, variables: Variables, images: Images) -> Logits:
    """Computes logits at inference: running statistics, no dropout."""
    return _apply(model, variables, "__call__", images, train=False)


def stem(
    model: nn.Module, variables: Variables, images: Images
) -> Float[Array, "b *rest"]:
    """Computes the part before the first dropout, at inference."""
    return _apply(model, variables, "stem", images, train=False)


def features(
    model: nn.Module,
    variables: Variables,
    stem: Float[Array, "b *rest"],
    drop: Drop = False,
) -> Features:
    """Computes the input of the last layer from ``stem``, by running statistics."""
    return _apply(model, variables, "features", stem, train=False, drop=drop)


def head(
    model: nn.Module, variables: Variables, features: Features, drop: Drop = False
) -> Logits:
    """Applies the last layer to ``features``."""
    return _apply(model, variables, "logits", features, drop=drop)


def embed(
    model: nn.Module, variables: Variables, images: Images
) -> tuple[Features, Logits]:
    """Computes the input of the last layer and the logits, at inference."""
    last = features(model, variables, stem(model, variables, images))
    return last, head(model, variables, last)


def train_logits(
    model: nn.Module, variables: Variables, images: Images, key: Key[Array, ""]
) -> tuple[Logits, Any]:
    """Computes logits in training, and the updated running statistics.

    The batch is normalised by its own statistics; ``key`` draws the dropout masks.
    """
    rngs, mutable = {"dropout": key}, ["batch_stats"]
    out, updated = _apply(
        model, variables, "__call__", images, train=True, rngs=rngs, mutable=mutable
    )
    return out, updated.get("batch_stats", {})
