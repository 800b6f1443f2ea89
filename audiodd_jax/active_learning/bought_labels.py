"""Distillation from a part of the labels: those that a labelling budget bought."""

import dataclasses
import hashlib
import logging
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from audiodd_jax.active_learning import budgets
from audiodd_jax.config import Config
from audiodd_jax.coreset import subsets
from audiodd_jax.errors import UserError
from audiodd_jax.features.dataset import Dataset
from audiodd_jax.runtime.files import read_json
from audiodd_jax.training import teacher

_log = logging.getLogger(__name__)


def restrict(config: Config, data: Dataset) -> Dataset:
    """The data as someone has it who bought the labels of ``config.labels`` alone.

    The other training clips are left out, or are labelled by a teacher that has learnt
    from the bought ones. Validation clips are left out too: their labels were not
    bought. Without a restriction, the data itself.

    Args:
      config: of the run.
      data: the prepared dataset, with all labels.

    Raises:
      UserError: the labels cannot be found, or belong to other data.
      Interrupted: on SIGTERM or SIGINT, while the teacher is trained.
    """
    settings = config.labels
    if not settings.is_part:
        return data
    rows = np.sort(_rows(config, data))
    digest = hashlib.sha256(f"{data.clips_digest} {rows.tolist()}".encode())
    bought = dataclasses.replace(
        data,
        train=data.train.subset(rows),
        validation=data.validation.subset(np.zeros(0, int)),
        num_unlabelled=data.num_train - rows.size,
        clips_digest=digest.hexdigest()[:16],
    )
    if not settings.pseudo:
        return bought
    others = np.setdiff1d(np.arange(len(data.train.labels)), rows)
    probabilities = teacher.probabilities(data.train.subset(others), config, bought)
    is_sure = _certainty(probabilities, data.has_tags) >= settings.confidence
    _log.info("%d of %d other clips have pseudo-labels", is_sure.sum(), others.size)
    sure = probabilities[is_sure]
    pseudo = (sure > 0.5).astype(np.int8) if data.has_tags else sure.argmax(1)
    return _with_pseudo_labels(data, bought, rows, others[is_sure], pseudo)


def _certainty(
    probabilities: Float[np.ndarray, "b c"], has_tags: bool
) -> Float[np.ndarray, " b"]:
    """Probability of the likeliest class, or of the answer to the least certain tag."""
    if has_tags:
        return np.maximum(probabilities, 1 - probabilities).min(1)
    return probabilities.max(1)


def _with_pseudo_labels(
    data: Dataset,
    bought: Dataset,
    rows: Int[np.ndarray, " b"],
    others: Int[np.ndarray, " p"],
    pseudo: Int[np.ndarray, "p *c"],
) -> Dataset:
    """The bought clips, and others with the labels of a teacher."""
    both = np.concatenate([rows, others])
    known = bought.train.labels
    labels = jnp.concatenate([known, jnp.asarray(pseudo, known.dtype)])
    order = np.argsort(both)
    train = data.train.subset(both[order])
    # Recordings are numbered by class, which is not known here.
    return dataclasses.replace(
        bought,
        train=train._replace(labels=labels[order], recordings=None),
        num_unlabelled=data.num_train - both.size,
        num_pseudo=others.size,
    )


def _rows(config: Config, data: Dataset) -> Int[np.ndarray, " b"]:
    """Rows of ``data.train`` whose labels were bought."""
    settings = config.labels
    if settings.run:
        return _of_run(Path(settings.run), settings.budget, data)
    if settings.indices:
        subset = subsets.read_indices(Path(settings.indices))
    else:
        subset = subsets.fraction_of(settings.fraction)
    embedding = subsets.Embedding(config.network, config.evaluation.networks)
    return subsets.choose(subset, data, embedding, config.seed)


def _of_run(path: Path, budget: str, data: Dataset) -> Int[np.ndarray, " b"]:
    """The clips that a run of active learning had labelled at a budget.

    Raises:
      UserError: there is no such run, it had other data, or no such budget.
    """
    if not (path / "labelled.npy").exists():
        raise UserError(
            f"{path} is not a finished run of active learning: it has no labelled.npy"
        )
    if read_json(path / "data.json").get("digest") != data.clips_digest:
        raise UserError(
            f"{path} chose among other clips: its dataset, fold or validation split is "
            "another"
        )
    rounds = read_json(path / "result.json")["rounds"]
    count = budgets.clips(budget, data.num_train, data.num_classes)
    at = {row["counted"]: row["labelled"] for row in rounds}
    if count not in at:
        there = ", ".join(f"{clips:,}" for clips in sorted(at))
        raise UserError(
            f"{path} has no round with {budget} ({count:,} labels); its rounds have "
            f"{there}"
        )
    return np.load(path / "labelled.npy")[: at[count]]
