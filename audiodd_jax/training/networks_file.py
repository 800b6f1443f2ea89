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
from jaxtyping import Array, Float

from audiodd_jax.config import FeaturesConfig, ModelConfig, fields
from audiodd_jax.errors import UserError
from audiodd_jax.features.artefact import Artefact, opened, statistics
from audiodd_jax.features.dataset import Dataset
from audiodd_jax.features.normalization import Normalization
from audiodd_jax.networks import models, user_network
from audiodd_jax.networks.models import Network
from audiodd_jax.runtime.environment import standard_numerics
from audiodd_jax.runtime.files import save_npz


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
        "format": models.FILE_FORMAT,
        "dataset": data.title,
        "licence": data.licence,
        "class_names": data.class_names,
        "model": dataclasses.asdict(model),
        "features": dataclasses.asdict(data.features),
        "normalization": {
            name: np.asarray(getattr(stats, name)).tolist() for name in stats._fields
        },
        **({"has_tags": True} if data.has_tags else {}),
        **({"is_embedded": True} if data.is_embedded else {}),
    }
    arrays = models.to_arrays(networks)
    save_npz(path, metadata=np.array(json.dumps(metadata)), **arrays)


@standard_numerics()
def load_networks(
    path: str | os.PathLike, model: nn.Module | Callable[..., Any] | None = None
) -> TrainedNetworks:
    """Reads the ``networks.npz`` of ``audiodd train``.

    Args:
      model: the network that was passed to ``train``; None: the one that the file
        names.

    Raises:
      UserError: the file does not exist, is damaged, or has a newer format, or the
        networks are heads on embeddings.
    """
    with opened(Path(path), "networks file", models.FILE_FORMAT) as (arrays, metadata):
        if metadata.get("is_embedded"):
            raise UserError(
                f"{path} has heads on an encoder's embeddings, not networks"
            )
        return TrainedNetworks(
            models.from_arrays(arrays),
            fields.from_dict(metadata["model"], ModelConfig),
            tuple(metadata["class_names"]),
            fields.from_dict(metadata["features"], FeaturesConfig),
            statistics(metadata),
            model and user_network.wrapped(model, len(metadata["class_names"])),
            metadata.get("has_tags", False),
        )
