"""The dataset of a coreset, with the coreset's preprocessing."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from audiodd_jax.config import Config, fields
from audiodd_jax.coreset import initial
from audiodd_jax.coreset.arrays import CoresetArrays
from audiodd_jax.coreset.file import Coreset, load_coreset
from audiodd_jax.errors import UserError
from audiodd_jax.features import dataset, normalization
from audiodd_jax.features.dataset import Dataset
from audiodd_jax.runtime.files import read_json


def coreset_config(coreset: Coreset, folder: Path | None = None) -> Config:
    """The configuration that a coreset was distilled with.

    Args:
      coreset: the coreset.
      folder: its run directory, which says where the data lies; None: without paths.

    Raises:
      UserError: the coreset has no settings.
    """
    settings = coreset.metadata.get("settings")
    if not isinstance(settings, dict):
        raise UserError(
            "this coreset does not say how it was made: it has no settings; pass the "
            "configuration of its data"
        )
    config = fields.from_dict(settings)
    if folder is None or not (folder / "config.json").exists():
        return config
    saved = fields.from_dict(read_json(folder / "config.json"))
    places = ("data.data_dir", "data.allow_partial", "data.skip_bad_files")
    return fields.replace(config, {name: fields.get(saved, name) for name in places})


def load_data(
    coreset: Coreset, config: Config, needs_train: bool, cache_dir: Path | None
) -> Dataset:
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


def check_coreset(coreset: Coreset, data: Dataset) -> None:
    """Checks that a coreset was made of a dataset's training clips.

    Raises:
      UserError: it has other classes, tags instead of classes or classes instead of
        tags, or was made of the test clips.
    """
    if data.class_names != coreset.class_names:
        raise UserError(
            f"this coreset of {coreset.metadata['dataset']} has the classes "
            f"{_some(coreset.class_names)}; {data.name} has "
            f"{_some(data.class_names)}"
        )
    if coreset.has_tags != data.has_tags:
        kinds = ("one class per clip", "tags")
        raise UserError(
            f"this coreset of {coreset.metadata['dataset']} has "
            f"{kinds[coreset.has_tags]}; {data.name} has {kinds[data.has_tags]}"
        )
    _check_split(coreset, data)


def _check_split(coreset: Coreset, data: Dataset) -> None:
    """Checks that a coreset was not made of a dataset's test clips.

    Raises:
      UserError: it was, or could have been.
    """
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


def warm_start(path: Path, config: Config, data: Dataset) -> CoresetArrays:
    """The initial coreset of a run that continues from an earlier coreset.

    Classes are matched by name. Classes that the earlier coreset lacks, and samples
    beyond those that it has, are random training clips.

    Args:
      path: of the earlier coreset.
      config: of the run.
      data: the prepared dataset.

    Raises:
      UserError: the file is not a coreset, was made with other features, has classes
        that the data lacks, more samples or another factor, or was made of test clips.
    """
    earlier = load_coreset(path)
    if earlier.features != data.features:
        names = [field.name for field in dataclasses.fields(data.features)]
        other = [
            n
            for n in names
            if getattr(earlier.features, n) != getattr(data.features, n)
        ]
        raise UserError(
            f"{path} was made with other features ({', '.join(other)}); set them by "
            "--config.features to continue from it"
        )
    if earlier.factor != config.coreset.factor:
        raise UserError(
            f"{path} has coreset.factor={earlier.factor}, not {config.coreset.factor}"
        )
    if unknown := tuple(n for n in earlier.class_names if n not in data.class_names):
        raise UserError(f"{data.name} lacks classes of {path}: {_some(unknown)}")
    if earlier.metadata["dataset"] == data.name:
        _check_split(earlier, data)
    key = jax.random.key(config.seed)
    real = dataclasses.replace(config.coreset, init="real")
    random = initial.initial(key, data.train, data.class_names, real)
    decibel = normalization.invert(jnp.asarray(earlier.images), earlier.normalization)
    images = normalization.apply(decibel, data.normalization)
    # Centred labels of more classes: the mean of each row stays zero.
    count = len(earlier.class_names)
    shift = 1 / count - 1 / data.num_classes
    labels = np.full((len(images), data.num_classes), -1 / data.num_classes, np.float32)
    columns = [data.class_names.index(name) for name in earlier.class_names]
    labels[:, columns] = earlier.labels + shift
    classes = labels.argmax(1)
    if data.has_tags:  # a file is in class order, and its labels need not say of which
        classes = np.repeat(columns, len(labels) // count)
    return initial.filled(random, images, jnp.asarray(labels), classes)


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if names[4:] else "")
