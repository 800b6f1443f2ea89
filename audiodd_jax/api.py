"""The public functions: one per command of the command line."""

from pathlib import Path
from typing import Any

from audiodd_jax.commands import active as active_lib
from audiodd_jax.commands import evaluate as evaluate_lib
from audiodd_jax.commands.distill import Run, distill
from audiodd_jax.commands.export import export
from audiodd_jax.commands.train import train
from audiodd_jax.config import Config, fields
from audiodd_jax.coreset.file import Coreset
from audiodd_jax.features import dataset
from audiodd_jax.features.dataset import Dataset
from audiodd_jax.training.scores import Evaluation


def prepare(config: Config, cache_dir: Path | None = None) -> Dataset:
    """Finds or downloads the dataset, computes and caches features, loads the splits.

    Raises:
      UserError: the dataset or its recordings cannot be used.
    """
    fields.validate(config)
    return dataset.load(config, cache_dir)


def evaluate(
    coreset: Coreset, config: Config | None = None, cache_dir: Path | None = None
) -> Evaluation:
    """Scores a coreset by kernel regression on the test split of its dataset.

    Args:
      coreset: to score.
      config: data and evaluation; None: as it was distilled. Feature settings and
        normalisation are always the coreset's.
      cache_dir: folder of downloads and features.

    Raises:
      UserError: the dataset cannot be used, or has other classes.
    """
    return evaluate_lib.evaluate(coreset, config=config, cache_dir=cache_dir)[0].scores


def active(
    config: Config, workdir: str | Path, cache_dir: Path | None = None
) -> dict[str, Any]:
    """Runs active learning; returns the contents of ``result.json``.

    The same call resumes an interrupted run, and returns a finished one.

    Args:
      config: as ``for_active`` makes it.
      workdir: the run directory.
      cache_dir: folder of downloads and features.

    Raises:
      UserError: bad settings or data, or a folder that holds something else.
      Interrupted: on SIGTERM or SIGINT; the state is saved.
    """
    data = active_lib.load(config, (), cache_dir)
    return active_lib.learn(config, data, Path(workdir))


__all__ = ["Run", "active", "distill", "evaluate", "export", "prepare", "train"]
