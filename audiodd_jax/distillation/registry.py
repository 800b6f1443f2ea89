"""The distillation methods by name."""

from collections.abc import Callable, Sequence

import jax
from jax.sharding import Mesh

from audiodd_jax.config import Config, DataConfig, extensions
from audiodd_jax.config.names import MATCHING
from audiodd_jax.data import datasets
from audiodd_jax.distillation import (
    distribution_matching,
    frepo,
    gradient_matching,
    kip,
    rfad,
)
from audiodd_jax.distillation.memory_plan import Plan, Sizes
from audiodd_jax.distillation.method import Method
from audiodd_jax.errors import UserError
from audiodd_jax.features.normalization import Normalization
from audiodd_jax.runtime import devices

Make = Callable[[Config, Sizes, Normalization, Mesh, Plan], Method]

# Methods that take steps; those that choose real clips are in ``coreset.initial``.
METHODS: dict[str, Make] = {
    "rfad": lambda config, sizes, stats, mesh, plan: rfad.make(config, mesh, plan),
    "kip": lambda config, sizes, stats, mesh, plan: kip.make(
        config, (sizes.f, sizes.t), mesh
    ),
    "frepo": lambda config, sizes, stats, mesh, plan: frepo.make(
        config, sizes.c, mesh, plan
    ),
    "dm": lambda config, sizes, stats, mesh, plan: distribution_matching.make(
        config, sizes.c, stats, mesh
    ),
    **dict.fromkeys(
        ("dc", "dsa"),
        lambda config, sizes, stats, mesh, plan: gradient_matching.make(
            config, sizes.c, stats, mesh
        ),
    ),
}


def get_method(name: str) -> Make:
    """What makes a method: of this package, or of another one's entry point.

    A function of another package takes the settings, the sizes and the statistics
    alone; its step is the same on every device.

    Raises:
      UserError: no package has the method, or its function cannot be imported.
    """
    if name in METHODS:
        return METHODS[name]
    make = extensions.load(extensions.METHODS, name)
    return lambda config, sizes, stats, mesh, plan: make(config, sizes, stats)


def check_labels(method: str, has_tags: bool) -> None:
    """Checks that a method can learn from a dataset's labels.

    Raises:
      UserError: clips have tags, and the method goes class by class.
    """
    if has_tags and method in MATCHING:
        raise UserError(
            f"{method} matches clips class by class, and clips with tags have no one "
            "class: distil them by --method=rfad, frepo or kip"
        )


def check_dataset(method: str, data: DataConfig) -> None:
    """Checks a dataset's labels as ``check_labels`` does, before computing features.

    Raises:
      UserError: as ``check_labels``, or the dataset cannot be opened.
    """
    if method in MATCHING:
        check_labels(method, datasets.open_source(data).has_tags)


def make_mesh(
    config: Config, num_classes: int, chips: Sequence[jax.Device] | None = None
) -> Mesh:
    """The mesh of all devices for a method: they share random networks, or classes.

    Args:
      config: of the run.
      num_classes: ``c``.
      chips: the devices; None: all, of all processes.
    """
    if config.method in MATCHING:
        return devices.make_mesh(num_classes, chips)
    shared = config.rfad.networks if config.method == "rfad" else 1
    return devices.make_mesh(shared, chips)


def advice(method: str) -> str:
    """What to change if the loss is not finite."""
    if method in MATCHING:
        return "lower --config.matching.learning_rate"
    group = "frepo" if method == "frepo" else "rfad"
    return (
        f"lower --config.optimizer.learning_rate or raise --config.{group}.regularizer"
    )
