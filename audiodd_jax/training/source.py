"""Training sets of networks: real clips, coresets, or views labelled by a teacher."""

import dataclasses
import hashlib
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from audiodd_jax.config import AugmentConfig, ModelConfig, TrainingConfig, fields
from audiodd_jax.coreset.arrays import CoresetArrays
from audiodd_jax.coreset.file import Coreset
from audiodd_jax.coreset.subsets import Subset
from audiodd_jax.coreset.views import Views
from audiodd_jax.features import batches
from audiodd_jax.features.clips import Clips
from audiodd_jax.features.dataset import Dataset
from audiodd_jax.features.labels import centred_targets, hard_tags
from audiodd_jax.runtime.run_directory import RunDirectory
from audiodd_jax.training import fit, losses, programs
from audiodd_jax.training.trainer import TrainingSet

_NO_AUGMENTATION = {
    name: 0.0 for name in fields.names(AugmentConfig()) if name != "background_snr_db"
}


class Source(NamedTuple):
    """A training set.

    Attributes:
      record: what identifies it in ``config.json``.
      is_augmented: True if the clips are augmented already, as views are.
    """

    clips: CoresetArrays | Views | Clips
    record: dict[str, Any]
    is_augmented: bool = False

    def support(self, num_classes: int) -> CoresetArrays:
        """Returns the training set as the support set of kernel regression."""
        clips = self.clips
        if isinstance(clips, CoresetArrays):
            return clips
        images = clips.take(np.arange(len(clips.labels)))
        labels = centred_targets(clips.labels, num_classes, images.dtype)
        return CoresetArrays(images, labels, jnp.zeros((), images.dtype))


def network_source(coreset: Coreset, training: TrainingConfig) -> Source:
    """Returns a coreset's labelled views if it has them, else its spectrograms."""
    if coreset.teacher_labels is None or not training.teacher_labels:
        return coreset_source(coreset.unpack())
    return views_source(coreset.views(), "coreset")


def views_source(views: Views, name: str) -> Source:
    """Returns views and their teacher's labels as a training set."""
    return Source(views, {"name": name, "digest": _digest(*views)}, is_augmented=True)


def coreset_source(
    coreset: CoresetArrays, name: str = "coreset", has_tags: bool = False
) -> Source:
    """Returns a coreset as a training set, with hard labels if ``name`` is ``hard``.

    A hard label is the most likely class, or every tag more likely than not.
    """
    if name == "hard":
        classes = coreset.labels.argmax(1).astype(jnp.int32)
        hard = hard_tags(coreset.labels) if has_tags else classes
        labels = centred_targets(hard, coreset.labels.shape[1])
        coreset = coreset._replace(labels=labels)
    return Source(coreset, {"name": name, "digest": _digest(*coreset[:2])})


def _digest(*arrays: Array | np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.asarray(array).tobytes())
    return digest.hexdigest()[:16]


def subset_source(
    subset: Subset, rows: Int[np.ndarray, " b"], data: Dataset, draw: int
) -> Source:
    """Returns real clips as a training set.

    ``rows`` of ``data.train`` were chosen as ``subset`` says, with the seed ``draw``;
    they are ignored if the subset is ``all``.
    """
    record = {**subset._asdict(), "indices": list(subset.indices), "draw": draw}
    if not subset.samples:  # as before they were possible
        del record["samples"], record["spread"]
    clips = data.train if subset.name == "all" else data.train.subset(rows)
    return Source(clips, record)


def fit_source(
    model: ModelConfig,
    training: TrainingConfig,
    seed: int,
    data: Dataset,
    source: Source,
    run: RunDirectory | None,
    module: nn.Module | None = None,
) -> fit.Fitted:
    """Trains networks on a training set, without reading the test split.

    Args:
      seed: the first seed.
      data: the dataset, whose validation clips are used; it says whether batches of
        real clips have balanced classes.
      run: where to record the training; None: memory only.
      module: the module to train; None: the one that ``model`` describes.
    """
    training = settings_of(source, training)
    compiled = programs.make(model, training, data, module=module)
    return fit.fit(compiled, set_of(source, training, data), seed, run)


def settings_of(source: Source, training: TrainingConfig) -> TrainingConfig:
    """Returns the settings of a training: what is augmented already stays as it is."""
    if not source.is_augmented:
        return training
    augment = dataclasses.replace(training.augment, **_NO_AUGMENTATION)
    return dataclasses.replace(training, augment=augment)


def set_of(source: Source, training: TrainingConfig, data: Dataset) -> TrainingSet:
    """Returns the clips of a training set, with their targets."""
    clips = source.clips
    if isinstance(clips, Clips):
        rows = batches.oversampled(clips.labels) if data.is_balanced else None
        return fit.real_set(clips, data.num_classes, training, rows)
    images, labels = map(jnp.asarray, clips[:2])
    if isinstance(clips, Views):
        targets = labels.astype(jnp.float32)
    else:
        targets = losses.soft_targets(labels, training, data.has_tags)
    classes = labels.argmax(1).astype(jnp.int32)
    return TrainingSet(Clips(images, classes), targets)
