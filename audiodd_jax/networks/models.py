"""Creates the networks that are trained, and applies them."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from audiodd_jax.config import ModelConfig, extensions
from audiodd_jax.errors import UserError
from audiodd_jax.networks import user_network
from audiodd_jax.networks.classifier import ConvNet, Linear, ResNet18
from audiodd_jax.networks.layers import Features, Images, Logits
from audiodd_jax.runtime.memory import in_chunks

# Clips scored at once.
_CLIPS_AT_ONCE = 256
# The format of files of trained networks.
FILE_FORMAT = 1


class Variables(NamedTuple):
    """The variables of a network.

    Attributes:
      params: pytree of trainable arrays.
      statistics: running means and variances of batch normalisation, or empty.
    """

    params: Any
    statistics: Any


class Network(NamedTuple):
    """A trained network.

    Attributes:
      start: initial variables, if their logits are subtracted; else None.
    """

    variables: Variables
    start: Variables | None


def to_arrays(networks: Network) -> dict[str, np.ndarray]:
    """Returns the arrays of networks, by their names in a file."""
    return {
        "/".join((f"{owner}.{part}", *names)): np.asarray(value)
        for owner, variables in networks._asdict().items()
        if variables is not None
        for part, tree in variables._asdict().items()
        for names, value in flatten_dict(tree).items()
    }


def from_arrays(arrays: dict[str, np.ndarray]) -> Network:
    """Inverse of ``to_arrays``."""
    trees: dict[str, dict] = {}
    for name, value in arrays.items():
        part, *names = name.split("/")
        trees.setdefault(part, {})[tuple(names)] = jnp.asarray(value)

    def variables(owner: str) -> Variables:
        statistics = trees.get(f"{owner}.statistics", {})  # empty without batch norm
        params = trees[f"{owner}.params"]
        return Variables(unflatten_dict(params), unflatten_dict(statistics))

    start = variables("start") if "start.params" in trees else None
    return Network(variables("variables"), start)


class Ensemble(NamedTuple):
    """Trained networks, and how they predict together.

    Attributes:
      networks: their variables, stacked.
      predict: ``(networks, images [k, f, t, 1])`` to probabilities ``[k, c]``, a pure
        function of arrays.
    """

    networks: Network
    predict: Callable[[Network, Images], Logits]


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
    """Initialises a network for spectrograms of ``image_shape``, ``(f, t)``.

    Raises:
      UserError: a user's network has variables of other kinds.
    """
    images = jnp.zeros((1, *image_shape, 1))
    # Layers of nnx need the dropout stream already when they are created.
    variables = model.init({"params": key, "dropout": key}, images, train=False)
    if extra := sorted(set(variables) - {"params", "batch_stats"}):
        raise UserError(
            f"the network has variables other than parameters and batch statistics: "
            f"{', '.join(extra)}"
        )
    return Variables(variables["params"], variables.get("batch_stats", {}))


def apply(
    model: nn.Module, variables: Variables, method: str, *args: Array, **options: Any
) -> Any:
    """Applies ``__call__`` or one of the three parts that ``Classifier`` names."""
    collections = {"params": variables.params, "batch_stats": variables.statistics}
    return model.apply(collections, *args, method=method, **options)


def logits(model: nn.Module, variables: Variables, images: Images) -> Logits:
    """Computes logits at inference: running statistics, no dropout."""
    return apply(model, variables, "__call__", images, train=False)


def network_logits(network: Network, images: Images, model: nn.Module) -> Logits:
    """Computes a trained network's logits for any number of clips, in chunks."""

    def part(images: Array) -> Array:
        out = logits(model, network.variables, images)
        if network.start is not None:
            out = out - logits(model, network.start, images)
        return out

    return in_chunks(part, images, _CLIPS_AT_ONCE)


def probabilities(logits: Logits, has_tags: bool) -> Logits:
    """Returns the softmax over classes, or the sigmoid of each tag."""
    return jax.nn.sigmoid(logits) if has_tags else jax.nn.softmax(logits)


# Compiled once per model and number of clips.
@functools.partial(jax.jit, static_argnames=("model", "has_tags"))
def mean_probabilities(
    networks: Network,
    images: Images,
    temperature: float | Float[Array, ""],
    *,
    model: nn.Module,
    has_tags: bool,
) -> Logits:
    """Returns the probabilities averaged over stacked networks.

    Logits are divided by ``temperature``.
    """
    predict = lambda network: probabilities(
        network_logits(network, images, model) / temperature, has_tags
    )
    return jax.lax.map(predict, networks).mean(0)


def ensemble(
    networks: Network, model: nn.Module, temperature: float, has_tags: bool
) -> Ensemble:
    """Returns stacked networks as an ensemble at a temperature."""
    settings = {"temperature": temperature, "model": model, "has_tags": has_tags}
    return Ensemble(networks, functools.partial(mean_probabilities, **settings))


def embed(
    model: nn.Module, variables: Variables, images: Images
) -> tuple[Features, Logits]:
    """Computes the input of the last layer and the logits, at inference."""
    part = functools.partial(apply, model, variables)
    stem = part("stem", images, train=False)
    features = part("features", stem, train=False, drop=False)
    return features, part("logits", features, drop=False)


def train_logits(
    model: nn.Module, variables: Variables, images: Images, key: Key[Array, ""]
) -> tuple[Logits, Any]:
    """Computes logits in training, and the updated running statistics.

    The batch is normalised by its own statistics; ``key`` draws the dropout masks.
    """
    rngs, mutable = {"dropout": key}, ["batch_stats"]
    out, updated = apply(
        model, variables, "__call__", images, train=True, rngs=rngs, mutable=mutable
    )
    return out, updated.get("batch_stats", {})
