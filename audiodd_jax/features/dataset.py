"""A prepared dataset: its splits as standardised images, and their statistics."""

import dataclasses
import hashlib
import logging
from pathlib import PurePath
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import psutil
from jaxtyping import Array, Int, Num, Shaped

from audiodd_jax.config import DataConfig, FeaturesConfig
from audiodd_jax.data import splits as data_splits
from audiodd_jax.data import tags
from audiodd_jax.data.recordings import VALIDATION
from audiodd_jax.features import cache, metric
from audiodd_jax.features import normalization as normalization_lib
from audiodd_jax.features.clips import Clips, standardize

_log = logging.getLogger(__name__)

# Fraction of the free memory that training features may take.
_DEVICE_SHARE = 0.4


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A dataset as distillation, training and evaluation use it.

    Attributes:
      train: training clips; on the host if they do not fit the device.
      validation: clips held out of the training split; may be empty.
      test: test clips.
      class_names: the classes.
      normalization: statistics of ``train``, or the given ones.
      features: resolved feature settings.
      noise: background noise of the dataset in dB, or None.
      fold: test fold; 0: the dataset has no folds.
      is_partial: whether clips of the published dataset may be missing.
      name: of the dataset.
      version: of the dataset.
      licence: of the dataset.
      train_bytes: of the ``num_train`` training clips, as 16-bit mono audio.
      is_validation_official: whether the dataset's split has a validation part.
      num_unlabelled: clips of the training split that were left out, since their labels
        are not known.
      num_pseudo: training clips whose labels a teacher gave.
      clips_digest: of all clips and their splits; identifies the data of a run.
      test_digest: of the test clips, if they are not those of a published split.
    """

    train: Clips
    validation: Clips
    test: Clips
    class_names: tuple[str, ...]
    normalization: normalization_lib.Normalization
    features: FeaturesConfig
    noise: Num[Array, "pieces f t"] | None
    fold: int
    is_partial: bool
    name: str
    version: str
    licence: str
    train_bytes: int
    is_validation_official: bool = False
    num_unlabelled: int = 0
    num_pseudo: int = 0
    clips_digest: str = ""
    test_digest: str = ""

    @property
    def image_shape(self) -> tuple[int, int]:
        """``(f, t)`` of the spectrograms."""
        return self.train.image_shape

    @property
    def num_classes(self) -> int:
        """Number of classes ``c``."""
        return len(self.class_names)

    @property
    def has_tags(self) -> bool:
        """Whether clips have tags, any number of them, instead of one class each."""
        return tags.are_tags(self.train.labels)

    @property
    def metric(self) -> str:
        """What its scores are, in words: accuracy, or mean average precision."""
        return metric.name_of(self.train.labels)

    @property
    def num_train(self) -> int:
        """Number of clips in the training split, of which percentages are.

        Validation clips count if they were taken from it, and not if the dataset's
        official split sets them apart.
        """
        held_out = 0 if self.is_validation_official else len(self.validation.labels)
        return len(self.train.labels) + held_out + self.num_unlabelled

    @property
    def untested_classes(self) -> list[str]:
        """Classes without test clips, of which accuracies say nothing."""
        counts = tags.counts(np.asarray(self.test.labels), self.num_classes)
        return [self.class_names[i] for i in np.flatnonzero(counts == 0)]

    @property
    def origin(self) -> dict[str, Any]:
        """The dataset's fields of a result."""
        return {
            "dataset": self.name,
            "dataset_version": self.version,
            "licence": self.licence,
            "fold": self.fold,
            "is_partial": self.is_partial,
            "num_classes": self.num_classes,
            "measure": self.metric,
            "untested_classes": self.untested_classes,
        }


def load(
    data: DataConfig,
    settings: FeaturesConfig,
    normalization: normalization_lib.Normalization | None = None,
) -> Dataset:
    """Prepares a dataset, from the cache if possible, and loads it to the device.

    Args:
      data: the recordings and their splits.
      settings: of the features.
      normalization: statistics to use, such as a coreset's; None: those of the
        training clips.

    Raises:
      UserError: the dataset cannot be prepared or split.
    """
    found = cache.prepare(data, settings)
    indices = data_splits.assign(
        found.labels, found.splits, found.folds, found.groups, data
    )
    kind = settings.normalization
    stats = normalization or normalization_lib.fit(
        found.moments[:, indices.train], kind
    )
    kind_of_label = jnp.int8 if tags.are_tags(found.labels) else jnp.int32
    labels = lambda clips: jnp.asarray(found.labels[clips], kind_of_label)

    recordings = lambda clips: _recordings(found.groups[clips], found.labels[clips])

    def standardized(rows: np.ndarray) -> Clips:
        images = standardize(_rows(found.features, rows), stats)
        return Clips(images, labels(rows))

    rows = indices.train
    train = Clips(found.features, labels(rows), stats, recordings(rows), rows)
    if not _stays_on_host(data.storage, rows.size * found.features[0].nbytes):
        train = train._replace(
            features=jnp.array(_rows(found.features, rows)),
            normalization=jax.device_put(stats),
            rows=None,
        )
    is_drawn = not found.folds.any() and not (found.splits == data_splits.TEST).any()
    is_published = data.name != "folder" and not is_drawn
    is_official = bool((found.splits[indices.validation] == VALIDATION).any())
    counted = rows if is_official else np.concatenate([rows, indices.validation])
    return Dataset(
        train=train,
        validation=standardized(indices.validation)._replace(
            recordings=recordings(indices.validation)
        ),
        test=standardized(indices.test),
        class_names=found.class_names,
        normalization=stats,
        features=dataclasses.replace(found.config, normalization=kind),
        noise=None if found.noise is None else jnp.asarray(found.noise),
        fold=int(found.folds[indices.test[0]]),
        is_partial=data.allow_partial,
        name=data.name,
        version=found.version,
        licence=found.licence,
        clips_digest=_digest(found, *indices),
        test_digest="" if is_published else _digest(found, indices.test),
        train_bytes=int(found.raw_bytes[counted].sum()),
        is_validation_official=is_official,
    )


def _recordings(
    groups: Shaped[np.ndarray, " v"], labels: Int[np.ndarray, "v *c"]
) -> Int[Array, " v"] | None:
    """Numbers the recordings of each class, or each set of tags; None if all differ.

    Clips that were cut from one recording are nearly copies of each other: where a few
    recordings have most of the clips, the share of correct clips says little about new
    recordings. The classes that one speaker says are no copies.
    """
    pairs = zip(labels.tolist(), groups, strict=True)
    names = np.array([f"{label} {group}" for label, group in pairs], str)
    alone = groups == ""
    names[alone] = [f"\0{i}" for i in np.flatnonzero(alone)]
    found, numbers = np.unique(names, return_inverse=True)
    return jnp.asarray(numbers, jnp.int32) if found.size < len(labels) else None


def _digest(found: cache.FeatureSet, *parts: Int[np.ndarray, " _"]) -> str:
    """Digest of the clips of some splits: file names, classes, lengths and rates."""
    digest = hashlib.sha256()
    for part in parts:
        lines = sorted(
            f"{PurePath(str(found.names[i])).name}\0"
            f"{tags.in_words(found.labels[i], found.class_names)}\0"
            f"{found.seconds[i]:.4f}\0{found.rates[i]}"
            for i in part
        )
        digest.update("\n".join([*lines, ""]).encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def _rows(
    features: Num[np.ndarray, "clips f t"], clips: Int[np.ndarray, " b"]
) -> Num[np.ndarray, "b f t"]:
    """Rows of the cache; consecutive rows are not copied."""
    if clips.size and clips[-1] - clips[0] + 1 == clips.size:
        return features[clips[0] : clips[-1] + 1]
    return features[clips]


def _stays_on_host(storage: str, bytes_on_device: int) -> bool:
    """Whether training features of this size are streamed from the host."""
    if storage != "auto":
        return storage == "host"
    device = jax.local_devices()[0]
    known = device.memory_stats() if device.platform != "cpu" else None
    if known and "bytes_limit" in known:
        free = known["bytes_limit"] - known.get("bytes_in_use", 0)
    else:
        free = psutil.virtual_memory().available
    too_large = bytes_on_device > _DEVICE_SHARE * free
    if too_large:
        _log.info(
            "%.1f GB of training features are streamed from the host; %.1f GB are free "
            "on the device",
            bytes_on_device / 1e9,
            free / 1e9,
        )
    return too_large
