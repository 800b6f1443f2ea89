"""The distillation methods by name."""

import inspect
import warnings
from collections.abc import Sequence

import jax
from jax.sharding import Mesh

from audiodd_jax.config import DataConfig, extensions
from audiodd_jax.config.names import MATCHING
from audiodd_jax.data import datasets
from audiodd_jax.distillation import (
    distribution_matching,
    encoded,
    frepo,
    gradient_matching,
    kip,
    rfad,
)
from audiodd_jax.distillation.method import Make
from audiodd_jax.errors import UserError
from audiodd_jax.runtime import devices

# Methods that take steps; those that select real clips are in ``coreset.selection``.
METHODS: dict[str, Make] = {
    "rfad": rfad.make,
    "kip": kip.make,
    "frepo": frepo.make,
    "dc": gradient_matching.make,
    "dsa": gradient_matching.make,
    "dm": distribution_matching.make,
    "lgm": lambda config, context: encoded.linear_gradient_matching(
        encoded.make_views(
            config.encoder.views, config.views.augment, context.normalization
        ),
        config.optimizer.learning_rate,
        config.loop.steps,
        config.coreset.factor,
        context,
    ),
}


def get_method(name: str) -> Make:
    """Returns what builds a method: ours, or another package's entry point.

    Raises:
      UserError: no package has the method, or its function cannot be imported.
    """
    if name in METHODS:
        return METHODS[name]
    make = extensions.load(extensions.METHODS, name)
    try:
        parameters = inspect.signature(make).parameters.values()
    except (TypeError, ValueError):  # a callable without a signature
        return make
    if len([p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]) <= 2:
        return make
    # As up to version 0.1.
    warnings.warn(
        f"the method {name!r} is built by make(config, sizes, normalization), which "
        "the next version will not call: make(config, context) has them as "
        "context.sizes and context.normalization",
        FutureWarning,
        stacklevel=2,
    )
    return lambda config, context: make(config, context.sizes, context.normalization)


def check_labels(method: str, has_tags: bool) -> None:
    """Checks that a method can learn from a dataset's labels.

    Raises:
      UserError: clips have tags, but the method matches clips class by class.
    """
    if has_tags and method in MATCHING:
        raise UserError(
            f"{method} matches clips class by class, but clips with tags do not have "
            "a single class: distil them by --method=rfad, frepo or kip"
        )


def check_dataset(method: str, data: DataConfig) -> None:
    """Checks a dataset's labels as ``check_labels`` does, before computing features.

    Raises:
      UserError: as ``check_labels``, or the dataset cannot be opened.
    """
    if method in MATCHING:
        check_labels(method, datasets.open_source(data).has_tags)


def make_mesh(
    method: str,
    num_classes: int,
    networks: int,
    chips: Sequence[jax.Device] | None = None,
) -> Mesh:
    """Returns the mesh for a method: devices share classes, or RFAD's ``networks``.

    ``chips`` are the devices; None: all, of all processes.
    """
    if method in MATCHING:
        return devices.make_mesh(num_classes, chips)
    return devices.make_mesh(networks if method == "rfad" else 1, chips)


def advice(method: str) -> str:
    """Returns what to change if the loss is not finite."""
    if method in MATCHING:
        return "lower --config.matching.learning_rate"
    group = "frepo" if method == "frepo" else "rfad"
    return (
        f"lower --config.optimizer.learning_rate or raise --config.{group}.regularizer"
    )
