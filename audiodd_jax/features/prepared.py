"""A dataset ready for the device: standardised images, split, with their statistics."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from audiodd_jax.config import Config, FeaturesConfig
from audiodd_jax.data import splits as data_splits
from audiodd_jax.features import cache, normalize


class Split(NamedTuple):
    """Clips of one split, on the device.

    Attributes:
      images: ``[b, f, t, 1]`` standardised log-mel spectrograms.
      labels: ``[b]``.
    """

    images: Float[Array, "b f t 1"]
    labels: Int[Array, " b"]


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Everything that distillation, training and evaluation need to know of the data.

    Attributes:
      train: the clips to learn from.
      validation: held out of the training split; may be empty.
      test: the official test clips.
      class_names: the classes.
      normalization: statistics of ``train``, or those that were given.
      features: the resolved feature settings.
      name: of the dataset.
      version: of the dataset.
      licence: of the dataset.
      train_bytes: the training recordings (validation included) as 16-bit mono audio.
    """

    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]
    normalization: normalize.Normalization
    features: FeaturesConfig
    name: str
    version: str
    licence: str
    train_bytes: int

    @property
    def image_shape(self) -> tuple[int, int]:
        """``(f, t)`` of the spectrograms."""
        return self.train.images.shape[1:3]

    @property
    def num_classes(self) -> int:
        """Number of classes ``c``."""
        return len(self.class_names)

    @property
    def num_train(self) -> int:
        """Clips of the whole training split, validation included."""
        return self.train.labels.size + self.validation.labels.size


def load(
    config: Config,
    cache_dir: Path | None = None,
    normalization: normalize.Normalization | None = None,
) -> Prepared:
    """Prepares ``config.data`` (from the cache where it can) and puts it on the device.

    Args:
      config: the run's configuration.
      cache_dir: where downloads and features are kept.
      normalization: statistics to use, such as a coreset's; None: those of the
        training clips.

    Raises:
      UserError: the dataset cannot be prepared or split as asked.
    """
    found = cache.prepare(config, cache_dir)
    indices = data_splits.assign(
        found.labels, found.splits, found.folds, found.groups, config.data
    )
    kind = config.features.normalization
    stats = normalization or normalize.fit(found.features[indices.train], kind)

    def split(clips: np.ndarray) -> Split:
        images = jax.jit(normalize.apply)(found.features[clips], stats)
        return Split(images, jnp.asarray(found.labels[clips], jnp.int32))

    in_training = np.concatenate([indices.train, indices.validation])
    return Prepared(
        train=split(indices.train),
        validation=split(indices.validation),
        test=split(indices.test),
        class_names=found.class_names,
        normalization=stats,
        features=dataclasses.replace(found.config, normalization=kind),
        name=config.data.name,
        version=found.version,
        licence=found.licence,
        train_bytes=int(found.raw_bytes[in_training].sum()),
    )
