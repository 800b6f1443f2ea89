"""A dataset: its splits as clips, their statistics and its origin."""

import dataclasses
import hashlib
import logging
from pathlib import PurePath
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import psutil
from jaxtyping import Array, Float, Int, Num, Shaped

from audiodd_jax.config import DataConfig, FeaturesConfig
from audiodd_jax.config.user_paths import expanded
from audiodd_jax.data import datasets, tags
from audiodd_jax.data import splits as data_splits
from audiodd_jax.data.recordings import UNLABELLED, VALIDATION
from audiodd_jax.errors import UserError
from audiodd_jax.features import cache, encoders, metric
from audiodd_jax.features import normalization as normalization_lib
from audiodd_jax.features.clips import Clips, standardize
from audiodd_jax.features.encoders import Embedder
from audiodd_jax.features.labels import clip_weights
from audiodd_jax.networks.encoder import Encoder

_log = logging.getLogger(__name__)

# Fraction of the free memory that training features may take.
_DEVICE_SHARE = 0.4


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A dataset as distillation, training and evaluation use it.

    Attributes:
      train: training clips, on the host if they do not fit the device.
      validation: clips held out of the training split; may be empty.
      normalization: statistics of ``train``, or those given to ``load``.
      features: resolved feature settings.
      noise: background noise in dB, or None.
      fold: test fold; 0: the dataset has no folds.
      is_partial: True if clips of the published dataset may be missing.
      train_bytes: size of the ``num_train`` training clips as 16-bit mono audio.
      is_validation_official: True if the published split has a validation part.
      num_unlabelled: training clips left out because their labels are unknown.
      num_pseudo: training clips that a teacher labelled.
      num_replayed: training clips that are spectrograms of an earlier coreset.
      clips_digest: digest of all clips and their splits; identifies a run's data.
      test_digest: digest of the test clips; empty for a published test split, and for
        that of a labelling session.
      own_name: that of a user's folder; empty: ``name``.
      description: how the clips were split, and their groups, in words.
      seconds: length of each training clip; None: unknown.
      balance: the setting ``data.balance``.
      scored_by: the setting ``evaluation.metric``.
      is_embedded: True if clips are embeddings, ``[d, 1]``, instead of spectrograms.
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
    num_replayed: int = 0
    clips_digest: str = ""
    test_digest: str = ""
    balance: str = "auto"
    scored_by: str = "auto"
    own_name: str = ""
    description: dict[str, str] = dataclasses.field(default_factory=dict)
    is_embedded: bool = False
    seconds: Float[np.ndarray, " b"] | None = None

    @property
    def title(self) -> str:
        """The name for people."""
        return self.own_name or self.name

    @property
    def image_shape(self) -> tuple[int, int]:
        """``(f, t)`` of the spectrograms."""
        return self.train.image_shape

    @property
    def num_classes(self) -> int:
        """Number of classes ``c``."""
        return len(self.class_names)

    @property
    def class_clips(self) -> Int[np.ndarray, " c"]:
        """Number of training clips of each class or tag."""
        return tags.counts(np.asarray(self.train.labels), self.num_classes)

    @property
    def has_tags(self) -> bool:
        """True if clips carry tags instead of a single class."""
        return tags.are_tags(self.train.labels)

    @property
    def measure(self) -> str:
        """The former name of ``metric``, kept for one version."""
        return self.metric

    @property
    def metric(self) -> str:
        """Name of the scores that select and are reported first."""
        labels = np.asarray(self.train.labels)
        return metric.name_of(labels, self.num_classes, self.scored_by)

    @property
    def is_balanced(self) -> bool:
        """True if training weighs all classes the same, instead of all clips."""
        if self.balance != "auto":
            return self.balance == "classes"
        return metric.is_unequal(np.asarray(self.train.labels), self.num_classes)

    @property
    def num_train(self) -> int:
        """Size of the training split, to which percentages refer.

        It includes validation clips held out of it, but not those of a published split.
        """
        held_out = 0 if self.is_validation_official else len(self.validation.labels)
        own = len(self.train.labels) - self.num_replayed
        return own + held_out + self.num_unlabelled

    @property
    def untested_classes(self) -> list[str]:
        """Classes without test clips, which no score covers."""
        counts = tags.counts(np.asarray(self.test.labels), self.num_classes)
        return [self.class_names[i] for i in np.flatnonzero(counts == 0)]

    @property
    def origin(self) -> dict[str, Any]:
        """Fields of a result that describe the dataset."""
        return {
            "dataset": self.title,
            "dataset_version": self.version,
            "licence": self.licence,
            "fold": self.fold,
            "is_partial": self.is_partial,
            "split": self.description.get("split", ""),
            "groups": self.description.get("groups", ""),
            "num_classes": self.num_classes,
            "measure": self.metric,
            "metric": self.metric,
            "balance": "classes" if self.is_balanced else "none",
            **metric.constant_answer(
                np.asarray(self.train.labels),
                np.asarray(self.test.labels),
                self.class_names,
            ),
            "untested_classes": self.untested_classes,
        }


class Encoded(NamedTuple):
    """A dataset as an encoder sees it.

    Attributes:
      data: the same clips as embeddings.
      embed: embeds the coreset's images.
    """

    data: Dataset
    embed: Embedder


def load(
    data: DataConfig,
    settings: FeaturesConfig,
    normalization: normalization_lib.Normalization | None = None,
    scored_by: str = "auto",
    encoder: Encoder | None = None,
    with_unlabelled: bool = False,
) -> Dataset:
    """Prepares a dataset, from the cache if possible, and loads it to the device.

    Statistics may be given, such as those of a coreset; None: fitted to the training
    clips. ``scored_by`` is the setting ``evaluation.metric``. With an encoder, its
    embeddings take the place of spectrograms, as ``[d, 1]``. ``with_unlabelled`` keeps
    recordings that a labelling session has no answer on, with the first class.

    Raises:
      UserError: the dataset cannot be prepared or split, or tags are to be weighed or
        scored like classes.
    """
    stored = cache.prepare(data, settings)
    if encoder:
        stored = encoders.embedded(stored, encoder)
    if tags.are_tags(stored.labels) and (
        data.balance == "classes" or scored_by != "auto"
    ):
        raise UserError(
            "--config.data.balance=classes and --config.evaluation.metric are for one "
            "class per clip; tags are scored by mean average precision"
        )
    indices = data_splits.assign(
        stored.labels, stored.splits, stored.folds, stored.groups, data
    )
    if not with_unlabelled:
        known = stored.splits != UNLABELLED
        indices = data_splits.SplitIndices(*(rows[known[rows]] for rows in indices))
    rows = indices.train
    kind = "per_bin" if encoder else settings.normalization
    stats = normalization or normalization_lib.fit(stored.moments[:, rows], kind)
    labels = lambda rows: _labels(stored, rows)
    recordings = lambda rows: _recordings(stored.groups[rows], stored.labels[rows])
    images = lambda rows: standardize(_rows(stored.features, rows), stats)
    train = clips_of(stored, rows, stats, data.storage)
    train = train._replace(recordings=recordings(rows))
    has_fold = data_splits.decided_by_fold(stored.splits, stored.folds, data)
    fold = int(stored.folds[indices.test[0]]) if has_fold else 0
    words = data_splits.describe(stored, indices, data)
    groups = "no groups" if words["groups"] == "none" else words["groups"]
    if not encoder:  # else spectrograms are loaded, too
        _log.info("split: %s; %s", words["split"], groups)
    if data.name in datasets.DATASETS and data.name != "folder":
        words["split"] = datasets.lookup(data.name).split
        words["split"] += f"; here fold {fold}" * bool(fold)
    if data.allow_partial:
        what = "the data may be incomplete"
        if stored.present:
            what = f"a partial data set, {stored.present}"
        words["split"] += f"; {what}, so this is not the official protocol"
    is_drawn = not has_fold and not (stored.splits == data_splits.TEST).any()
    # Neither published test clips nor those of a session ever become training clips.
    is_published = data.name != "folder" and not is_drawn
    is_published |= bool(data.data_dir) and datasets.is_session(expanded(data.data_dir))
    held_out = indices.validation
    is_official = bool((stored.splits[held_out] == VALIDATION).any())
    counted = rows if is_official else np.concatenate([rows, held_out])
    loaded = Dataset(
        train=train,
        validation=Clips(
            images(held_out), labels(held_out), recordings=recordings(held_out)
        ),
        test=Clips(images(indices.test), labels(indices.test)),
        class_names=stored.class_names,
        normalization=stats,
        features=dataclasses.replace(
            stored.config, normalization=settings.normalization
        ),
        noise=None if stored.noise is None else jnp.asarray(stored.noise),
        fold=fold,
        is_partial=data.allow_partial,
        name=data.name,
        own_name=datasets.title_of(data) if data.name == "folder" else "",
        description=words,
        version=stored.version,
        licence=stored.licence,
        clips_digest=_digest(stored, *indices),
        test_digest="" if is_published else _digest(stored, indices.test),
        train_bytes=int(stored.raw_bytes[counted].sum()),
        seconds=stored.seconds[rows],
        is_validation_official=is_official,
        balance=data.balance,
        scored_by=scored_by,
        is_embedded=encoder is not None,
    )
    if not (encoder or with_unlabelled):
        _log.info("%s", metric.counts_in_words(loaded.origin))
    return with_weights(loaded)


def clips_of(
    stored: cache.FeatureSet,
    rows: Int[np.ndarray, " b"],
    stats: normalization_lib.Normalization,
    storage: str = "auto",
) -> Clips:
    """Returns some clips with their labels, on the device if they fit."""
    clips = Clips(stored.features, _labels(stored, rows), stats, rows=rows)
    if _stays_on_host(storage, rows.size * stored.features[0].nbytes):
        return clips
    return clips._replace(
        features=jnp.array(_rows(stored.features, rows)),
        normalization=jax.device_put(stats),
        rows=None,
    )


def _labels(
    stored: cache.FeatureSet, rows: Int[np.ndarray, " b"]
) -> Int[Array, "b *c"]:
    kind = jnp.int8 if tags.are_tags(stored.labels) else jnp.int32
    return jnp.asarray(stored.labels[rows], kind)


def with_weights(data: Dataset) -> Dataset:
    """Returns the data with validation clips weighted by its metric."""
    clips, weights = data.validation, None
    if data.metric == metric.BALANCED_ACCURACY and len(clips.labels):
        weights = clip_weights(clips.labels, data.num_classes, clips.recordings)
        weights /= weights.sum()
    return dataclasses.replace(data, validation=clips._replace(weights=weights))


def _recordings(
    groups: Shaped[np.ndarray, " v"], labels: Int[np.ndarray, "v *c"]
) -> Int[Array, " v"] | None:
    """Numbers the recordings of each class or set of tags; None if all differ.

    Clips cut from one recording are nearly copies. If a few recordings provide most of
    the clips, the share of correct clips does not predict the accuracy on new
    recordings. Different words of one speaker are not copies.
    """
    pairs = zip(labels.tolist(), groups, strict=True)
    names = np.array([f"{label} {group}" for label, group in pairs], str)
    is_single = groups == ""
    names[is_single] = [f"\0{i}" for i in np.flatnonzero(is_single)]
    distinct, numbers = np.unique(names, return_inverse=True)
    return jnp.asarray(numbers, jnp.int32) if distinct.size < len(labels) else None


def _digest(stored: cache.FeatureSet, *parts: Int[np.ndarray, " _"]) -> str:
    """Digests the clips of some splits: file names, labels, lengths and rates."""
    digest = hashlib.sha256()
    for part in parts:
        lines = sorted(
            f"{PurePath(str(stored.names[i])).name}\0"
            f"{tags.in_words(stored.labels[i], stored.class_names)}\0"
            f"{stored.seconds[i]:.4f}\0{stored.rates[i]}"
            for i in part
        )
        digest.update("\n".join([*lines, ""]).encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def _rows(
    features: Num[np.ndarray, "clips f t"], clips: Int[np.ndarray, " b"]
) -> Num[np.ndarray, "b f t"]:
    """Reads rows of the cache; consecutive rows are not copied."""
    if clips.size and clips[-1] - clips[0] + 1 == clips.size:
        return features[clips[0] : clips[-1] + 1]
    return features[clips]


def _stays_on_host(storage: str, bytes_on_device: int) -> bool:
    """Returns whether training features of this size are streamed from the host."""
    if storage != "auto":
        return storage == "host"
    device = jax.local_devices()[0]
    memory = device.memory_stats() if device.platform != "cpu" else None
    if memory and "bytes_limit" in memory:
        free = memory["bytes_limit"] - memory.get("bytes_in_use", 0)
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
