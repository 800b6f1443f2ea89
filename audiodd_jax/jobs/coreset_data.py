"""The dataset that a coreset was distilled from, with the coreset's preprocessing."""

from pathlib import Path

from audiodd_jax.artifacts.coreset_file import Coreset
from audiodd_jax.config import Config, fields
from audiodd_jax.features import dataset
from audiodd_jax.features.dataset import Prepared
from audiodd_jax.runtime.errors import UserError


def coreset_config(coreset: Coreset) -> Config:
    """The configuration that a coreset was distilled with, less where its data lay."""
    return fields.from_dict(coreset.metadata["settings"])


def load_data(
    coreset: Coreset, config: Config, needs_train: bool, cache_dir: Path | None
) -> Prepared:
    """The coreset's dataset, with the coreset's preprocessing.

    Args:
      coreset: the artefact.
      config: where the data lies.
      needs_train: whether real clips will train, or stay where they are.
      cache_dir: where downloads and features are kept.

    Raises:
      UserError: it has other classes, or the coreset learnt from its test clips.
    """
    if not needs_train:
        # Only the other splits are read: the training clips stay where they are.
        config = fields.replace(config, {"data.storage": "host"})
    data = dataset.load(config, cache_dir, coreset.normalization)
    check_coreset(coreset, data)
    return data


def check_coreset(coreset: Coreset, data: Prepared) -> None:
    """Refuses a coreset that is none of a dataset's training clips.

    Raises:
      UserError: it has other classes, or learnt from the test clips.
    """
    if data.class_names != coreset.class_names:
        raise UserError(
            f"this coreset is of {coreset.metadata['dataset']} with the classes "
            f"{_some(coreset.class_names)}; {data.name} has "
            f"{_some(data.class_names)}"
        )
    own = coreset.metadata["split"]["fold"]
    if own and data.fold != own:
        raise UserError(
            f"fold {own} tests this coreset, which learnt from fold {data.fold}"
        )


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if names[4:] else "")
