"""Distillation from a labelled subset of the training clips."""

import dataclasses
import hashlib
import logging
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from audiodd_jax.active_learning import rounds
from audiodd_jax.config import Config, DataConfig, FeaturesConfig
from audiodd_jax.config.user_paths import local
from audiodd_jax.coreset import subsets
from audiodd_jax.data import datasets
from audiodd_jax.data.recordings import TEST, TRAIN
from audiodd_jax.errors import UserError
from audiodd_jax.features import cache
from audiodd_jax.features.dataset import Dataset
from audiodd_jax.runtime import mirror
from audiodd_jax.runtime.files import read_json
from audiodd_jax.training import teacher

_log = logging.getLogger(__name__)


def restrict(config: Config, data: Dataset) -> Dataset:
    """Restricts the training data to the labelled subset that ``config.labels`` names.

    The other training clips are left out, or are labelled by a teacher trained on the
    subset. Validation clips are left out too, since their labels are unknown. Returns
    the data itself if all labels are used.

    Raises:
      UserError: the labels cannot be found, or belong to other data.
      Interrupted: on SIGTERM or SIGINT, while the teacher is trained.
    """
    settings, train = config.labels, data.train
    if not settings.is_part:
        return data
    if settings.run and datasets.is_session(settings.run):
        rows = _rows_of_session(config.data, config.features)
    elif settings.run:
        rows = _rows_of_run(local(settings.run), settings.budget, data)
    elif settings.indices:
        subset = subsets.read_indices(local(settings.indices))
        rows = subsets.choose(subset, data, None, config.seed)
    else:
        subset = subsets.fraction_of(settings.fraction)
        rows = subsets.choose(subset, data, None, config.seed)
    rows = np.sort(rows)
    if not rows.size:
        raise UserError(f"{settings.run} has no answers to learn from yet")
    digest = hashlib.sha256(f"{data.clips_digest} {rows.tolist()}".encode())
    labelled = dataclasses.replace(
        data,
        train=train.subset(rows),
        validation=data.validation.subset(np.zeros(0, int)),
        num_unlabelled=data.num_train - rows.size,
        clips_digest=digest.hexdigest()[:16],
    )
    if not settings.pseudo:
        return labelled
    others = np.setdiff1d(np.arange(len(train.labels)), rows)
    probabilities = teacher.probabilities(train.subset(others), config, labelled)
    certainty = probabilities.max(1)
    if data.has_tags:  # the least certain answer to a tag
        certainty = np.maximum(probabilities, 1 - probabilities).min(1)
    is_sure = certainty >= settings.confidence
    _log.info("%d of %d other clips have pseudo-labels", is_sure.sum(), others.size)
    sure = probabilities[is_sure]
    pseudo = (sure > 0.5).astype(np.int8) if data.has_tags else sure.argmax(1)
    labels = labelled.train.labels
    labels = jnp.concatenate([labels, jnp.asarray(pseudo, labels.dtype)])
    both = np.concatenate([rows, others[is_sure]])
    order = np.argsort(both)
    train = train.subset(both[order])
    return dataclasses.replace(
        labelled,
        # Recordings are numbered by class, and the true classes are unknown here.
        train=train._replace(labels=labels[order], recordings=None),
        num_unlabelled=data.num_train - both.size,
        num_pseudo=len(sure),
    )


def _rows_of_session(
    data: DataConfig, features: FeaturesConfig
) -> Int[np.ndarray, " b"]:
    """Rows of the training clips that a person has labelled."""
    splits = cache.prepare(data, features).splits
    return np.flatnonzero(splits[splits != TEST] == TRAIN)


def _rows_of_run(path: Path, budget: str, data: Dataset) -> Int[np.ndarray, " b"]:
    """Rows that a run of active learning had labelled at a budget."""
    mirror.fetch(path)
    if not (path / "labelled.npy").exists():
        raise UserError(
            f"{path} is not a finished run of active learning: it has no labelled.npy"
        )
    if not budget:
        raise UserError(
            f"{path} is a run of active learning: name one of its budgets, as in "
            "--labelled=RUN@20%"
        )
    if read_json(path / "data.json").get("digest") != data.clips_digest:
        raise UserError(
            f"{path} chose among other clips: its dataset, fold or validation split "
            "differs"
        )
    rows = read_json(path / "result.json")["rounds"]
    sizes = {row["counted"]: row["labelled"] for row in rows}
    count = rounds.clips_in(budget, data.num_train, data.num_classes)
    if count not in sizes:
        available = ", ".join(f"{clips:,}" for clips in sorted(sizes))
        raise UserError(
            f"{path} has no round with {budget} ({count:,} labels); its rounds have "
            f"{available}"
        )
    return np.load(path / "labelled.npy")[: sizes[count]]
