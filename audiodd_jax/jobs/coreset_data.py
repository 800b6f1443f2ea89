"""The dataset of a coreset, with the coreset's preprocessing."""

from pathlib import Path

from audiodd_jax.artifacts.coreset_file import Coreset
from audiodd_jax.config import Config, fields
from audiodd_jax.features import dataset
from audiodd_jax.features.dataset import Prepared
from audiodd_jax.runtime.errors import UserError


def coreset_config(coreset: Coreset) -> Config:
    """The configuration that a coreset was distilled with, without paths."""
    settings = coreset.metadata.get("settings")
    if not isinstance(settings, dict):
        raise UserError(
            "this coreset does not say how it was made: it has no settings; pass the "
            "configuration of its data"
        )
    return fields.from_dict(settings)


def load_data(
    coreset: Coreset, config: Config, needs_train: bool, cache_dir: Path | None
) -> Prepared:
    """The coreset's dataset, with the coreset's preprocessing.

    Args:
      coreset: the coreset.
      config: of the data.
      needs_train: whether the training clips are needed.
      cache_dir: folder of downloads and features.

    Raises:
      UserError: it has other classes, or the coreset was made of its test clips.
    """
    if not needs_train:
        # Training clips stay in the cache.
        config = fields.replace(config, {"data.storage": "host"})
    data = dataset.load(config, cache_dir, coreset.normalization)
    check_coreset(coreset, data)
    return data


def check_coreset(coreset: Coreset, data: Prepared) -> None:
    """Checks that a coreset was made of a dataset's training clips.

    Raises:
      UserError: it has other classes, or was made of the test clips.
    """
    if data.class_names != coreset.class_names:
        raise UserError(
            f"this coreset of {coreset.metadata['dataset']} has the classes "
            f"{_some(coreset.class_names)}; {data.name} has "
            f"{_some(data.class_names)}"
        )
    own = coreset.metadata["split"]["fold"]
    if own and data.fold != own:
        raise UserError(
            f"the test fold of this coreset is {own}; fold {data.fold} was used to "
            "distil it"
        )
    test = coreset.metadata["split"].get("test_digest")
    if test and data.test_digest and test != data.test_digest:
        raise UserError(
            "the test clips are not those of the coreset's run, so that training clips "
            f"could be among them: {data.name} has changed, or is split in another "
            "way; restore its files and the settings config.data"
        )


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if names[4:] else "")
