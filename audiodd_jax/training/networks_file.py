"""Files of trained networks, which can be used on new sounds."""

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float

from audiodd_jax.config import FeaturesConfig, ModelConfig, fields
from audiodd_jax.features.artefact import Artefact, opened, statistics
from audiodd_jax.features.dataset import Dataset
from audiodd_jax.features.normalization import Normalization
from audiodd_jax.networks import models, user_network
from audiodd_jax.networks.models import Network, Variables
from audiodd_jax.runtime.environment import standard_numerics
from audiodd_jax.runtime.files import save_npz

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class TrainedNetworks(Artefact):
    """An ensemble of the networks of several seeds.

    Attributes:
      networks: their variables, stacked.
      model: settings of the networks.
      class_names: ``c`` names.
      features: feature settings.
      normalization: statistics that standardise spectrograms.
      module: a user's network that ``model`` cannot name by an import path.
      has_tags: True if clips carry tags instead of a single class.
    """

    networks: Network
    model: ModelConfig
    class_names: tuple[str, ...]
    features: FeaturesConfig
    normalization: Normalization
    module: nn.Module | None = None
    has_tags: bool = False

    @standard_numerics()
    def predict(
        self, images: Float[Array | np.ndarray, "b f t 1"], temperature: float = 1.0
    ) -> Float[Array, "b c"]:
        """Predicts probabilities of standardised spectrograms, averaged over networks.

        Probabilities of classes sum to one; each tag has its own. Logits are divided by
        ``temperature``.
        """
        model = self.module or models.make(self.model, len(self.class_names))
        return models.mean_probabilities(
            self.networks,
            jnp.asarray(images),
            jnp.float32(temperature),
            model=model,
            has_tags=self.has_tags,
        )


def save(path: Path, networks: Network, data: Dataset, model: ModelConfig) -> None:
    """Writes trained networks; ``numpy.load(allow_pickle=False)`` reads them."""
    stats = data.normalization
    metadata = {
        "format": FORMAT,
        "dataset": data.title,
        "licence": data.licence,
        "class_names": data.class_names,
        "model": dataclasses.asdict(model),
        "features": dataclasses.asdict(data.features),
        "normalization": {
            name: np.asarray(getattr(stats, name)).tolist() for name in stats._fields
        },
        **({"has_tags": True} if data.has_tags else {}),
    }
    arrays = {
        "/".join((part, *names)): np.asarray(value)
        for part, tree in _trees(networks).items()
        for names, value in flatten_dict(tree).items()
    }
    save_npz(path, metadata=np.array(json.dumps(metadata)), **arrays)


def _trees(networks: Network) -> dict[str, Any]:
    """The trees of a network's variables, by name in the file."""
    return {
        f"{name}.{part}": tree
        for name, variables in networks._asdict().items()
        if variables is not None
        for part, tree in variables._asdict().items()
    }


@standard_numerics()
def load_networks(
    path: str | os.PathLike, model: nn.Module | Callable[..., Any] | None = None
) -> TrainedNetworks:
    """Reads the ``networks.npz`` of ``audiodd train``.

    Args:
      model: the network that was passed to ``train``; None: the one that the file
        names.

    Raises:
      UserError: the file does not exist, is damaged, or has a newer format.
    """
    with opened(Path(path), "networks file", FORMAT) as (arrays, metadata):
        return TrainedNetworks(
            _network(arrays),
            fields.from_dict(metadata["model"], ModelConfig),
            tuple(metadata["class_names"]),
            fields.from_dict(metadata["features"], FeaturesConfig),
            statistics(metadata),
            model and user_network.wrapped(model, len(metadata["class_names"])),
            metadata.get("has_tags", False),
        )


def _network(arrays: dict[str, np.ndarray]) -> Network:
    """Inverse of ``_trees``, from the arrays of a file."""
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
