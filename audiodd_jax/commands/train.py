"""The job of ``audiodd train``: networks trained on real clips or a coreset."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn

from audiodd_jax.commands import recorded_training
from audiodd_jax.commands.recorded_training import Trained
from audiodd_jax.config import Config, fields
from audiodd_jax.coreset import subsets
from audiodd_jax.coreset.dataset import load_data
from audiodd_jax.coreset.file import Coreset
from audiodd_jax.coreset.subsets import Subset
from audiodd_jax.features import dataset
from audiodd_jax.networks import user_network


def train(
    config: Config,
    workdir: str | Path,
    learns_from: Subset | Coreset | None = None,
    cache_dir: Path | None = None,
    model: nn.Module | Callable[..., Any] | None = None,
) -> Trained:
    """Trains ``config.model`` in ``workdir``, and scores it on the test split.

    The same call resumes an interrupted run, and returns a finished one.

    Args:
      config: data, model and training. With a coreset, the feature settings and the
        normalisation are the coreset's.
      workdir: the run directory.
      learns_from: training set; None: all training clips.
      cache_dir: folder of downloads and features.
      model: your own network: a Flax linen module, or the factory of a linen or nnx
        module (``networks.own``); None: as ``config.model`` describes it.

    Raises:
      UserError: bad settings or data, or a folder that holds something else.
      Interrupted: on SIGTERM or SIGINT; the state is saved.
    """
    if isinstance(learns_from, Coreset):
        config = dataclasses.replace(config, features=learns_from.features)
    if model is not None:
        config = fields.replace(config, {"model.name": user_network.name_of(model)})
    fields.validate(config)
    if isinstance(learns_from, Coreset):
        data = load_data(learns_from, config, False, cache_dir)
        source = recorded_training.network_source(learns_from, config.training)
    else:
        data = dataset.load(config, cache_dir)
        subset = learns_from or Subset()
        embedding = subsets.Embedding(config.network, config.evaluation.networks)
        rows = subsets.choose(subset, data, embedding, config.seed)
        source = recorded_training.subset_source(subset, rows, data, config.seed)
    module = None if model is None else user_network.wrapped(model, data.num_classes)
    return recorded_training.train(config, data, source, Path(workdir), module)
